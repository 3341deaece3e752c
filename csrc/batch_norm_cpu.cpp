// Fused batch normalization on the CPU, in both directions: sums over blocks of rows, then one pass that writes.
//
// Blocks do not depend on the number of threads and are added in their order, in float64: the result is the same bit
// for bit from run to run. The forward's sums are those of x - pilot, where the pilot is the group's first row, which is
// known before anything is read: digits are lost only as far as it lies from the mean (100 deviations away, the variance
// is off by 2e-4 of itself).
//
// The inner loops (batch_norm_rows.h) go over channels, 32 at a time in bfloat16. Where these leave a rest, several rows
// are taken as one of so many times the channels, and what is known by channel is written so many times in a row: 24
// channels took twice as long as 32 without that.
#include "batch_norm.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "batch_norm_rows.h"

namespace iidm {
namespace {

constexpr int64_t kBlock = 16384;      // numbers of a block, and at least
constexpr int64_t kRows = 64;          // so many rows
constexpr int kLine = 64;              // channels whose blocks one thread adds up
constexpr int kVector = 32;             // channels of a step of the inner loops
constexpr int kWidest = 1024;           // more channels than these are not taken several rows at a time
constexpr int64_t kParallel = 1 << 15;  // fewer numbers are not worth a second thread

// Rows `begin` to before `begin + rows * repeat` of a group, as `rows` rows of `width` = `repeat` * channels numbers.
struct Block {
  int group;
  int64_t begin, rows;
  int repeat, width;
};

struct Blocks {
  std::vector<Block> all;
  std::vector<int64_t> first;  // index of the first block of each group, and the number of all
  int repeat, width;           // of all blocks but those of the last rows of a group

  explicit Blocks(const BatchNormShape& s) : repeat(1) {
    while (s.channels * repeat % kVector != 0) repeat *= 2;
    if (s.channels * repeat > kWidest) repeat = 1;
    width = s.channels * repeat;
    const int64_t rows = std::max(kRows, kBlock / s.channels) / repeat;
    for (size_t g = 0; g + 1 < s.starts.size(); ++g) {
      first.push_back(static_cast<int64_t>(all.size()));
      int64_t begin = s.starts[g];
      const int64_t end = s.starts[g + 1];
      for (; end - begin >= repeat; begin += all.back().rows * repeat) {
        all.push_back({static_cast<int>(g), begin, std::min(rows, (end - begin) / repeat), repeat, width});
      }
      if (begin < end) all.push_back({static_cast<int>(g), begin, end - begin, 1, s.channels});
    }
    first.push_back(static_cast<int64_t>(all.size()));
  }
};

std::unique_ptr<float[]> floats(int64_t count) { return std::unique_ptr<float[]>(new float[count]); }

// Types and activations are chosen inside of functions that are compiled for several processors.
#define IIDM_BY_ACTIVATION(activation, call)                       \
  switch (activation) {                                            \
    case Activation::kNone: call(Activation::kNone); break;        \
    case Activation::kRelu: call(Activation::kRelu); break;        \
    case Activation::kRelu6: call(Activation::kRelu6); break;      \
  }

IIDM_CLONES void forward_sums(const BatchNormShape& s, const BatchNormForward& a, const Block& block,
                              const float* pilot, float* sum) {
  const int width = block.width;
  const int64_t at = block.begin * s.channels;
  std::fill(sum, sum + 2 * width, 0.0f);
  if (s.format == Format::kFloat32) {
    forward_sums_of(static_cast<const float*>(a.x) + at, block.rows, width, pilot, sum, sum + width);
  } else {
    forward_sums_of(static_cast<const uint16_t*>(a.x) + at, block.rows, width, pilot, sum, sum + width);
  }
}

template <class T>
IIDM_HD void normalize_block(const BatchNormShape& s, const BatchNormForward& a, const Block& block,
                             const float* scale, const float* shift) {
  const int64_t at = block.begin * s.channels;
  const T* x = static_cast<const T*>(a.x) + at;
  const T* residual = a.residual == nullptr ? nullptr : static_cast<const T*>(a.residual) + at;
  T* y = static_cast<T*>(a.y) + at;
#define IIDM_CALL(A) normalize_rows<T, A>(x, residual, block.rows, block.width, scale, shift, y)
  IIDM_BY_ACTIVATION(s.activation, IIDM_CALL)
#undef IIDM_CALL
}

IIDM_CLONES void normalize(const BatchNormShape& s, const BatchNormForward& a, const Block& block, const float* scale,
                           const float* shift) {
  if (s.format == Format::kFloat32) {
    normalize_block<float>(s, a, block, scale, shift);
  } else {
    normalize_block<uint16_t>(s, a, block, scale, shift);
  }
}

template <class T>
IIDM_HD void backward_sums_block(const BatchNormShape& s, const BatchNormBackward& a, const Block& block,
                                 const float* mean, float* sum) {
  const int width = block.width;
  const int64_t at = block.begin * s.channels;
  const T* grad = static_cast<const T*>(a.grad) + at;
  const T* x = static_cast<const T*>(a.x) + at;
  const T* y = a.y == nullptr ? nullptr : static_cast<const T*>(a.y) + at;
  T* residual = a.grad_residual == nullptr ? nullptr : static_cast<T*>(a.grad_residual) + at;
#define IIDM_CALL(A) backward_sums_of<T, A>(grad, x, y, block.rows, width, mean, sum, sum + width, residual)
  IIDM_BY_ACTIVATION(s.activation, IIDM_CALL)
#undef IIDM_CALL
}

IIDM_CLONES void backward_sums(const BatchNormShape& s, const BatchNormBackward& a, const Block& block,
                               const float* mean, float* sum) {
  std::fill(sum, sum + 2 * block.width, 0.0f);
  if (s.format == Format::kFloat32) {
    backward_sums_block<float>(s, a, block, mean, sum);
  } else {
    backward_sums_block<uint16_t>(s, a, block, mean, sum);
  }
}

template <class T>
IIDM_HD void backward_block(const BatchNormShape& s, const BatchNormBackward& a, const Block& block,
                            const float* by_grad, const float* by_x, const float* offset) {
  const int64_t at = block.begin * s.channels;
  const bool is_masked = a.grad_residual != nullptr;
  const T* grad = static_cast<const T*>(is_masked ? a.grad_residual : a.grad) + at;
  const T* x = static_cast<const T*>(a.x) + at;
  const T* y = a.y == nullptr ? nullptr : static_cast<const T*>(a.y) + at;
  T* grad_x = static_cast<T*>(a.grad_x) + at;
#define IIDM_CALL(A) backward_rows<T, A>(grad, x, y, block.rows, block.width, by_grad, by_x, offset, grad_x)
  IIDM_BY_ACTIVATION((is_masked ? Activation::kNone : s.activation), IIDM_CALL)
#undef IIDM_CALL
}

IIDM_CLONES void backward(const BatchNormShape& s, const BatchNormBackward& a, const Block& block,
                          const float* by_grad, const float* by_x, const float* offset) {
  if (s.format == Format::kFloat32) {
    backward_block<float>(s, a, block, by_grad, by_x, offset);
  } else {
    backward_block<uint16_t>(s, a, block, by_grad, by_x, offset);
  }
}

// float64 sums over the blocks of a group, of the channels begin..end - 1 of both kinds of sum.
struct LineSums {
  double first[kLine], second[kLine];

  LineSums(const Blocks& blocks, size_t group, const float* sums, int channels, int begin, int end) {
    std::fill(first, first + kLine, 0.0);
    std::fill(second, second + kLine, 0.0);
    for (int64_t b = blocks.first[group]; b < blocks.first[group + 1]; ++b) {
      const float* sum = sums + b * 2 * blocks.width;
      const Block& block = blocks.all[b];
      for (int r = 0; r < block.repeat; ++r, sum += channels) {
        for (int c = begin; c < end; ++c) {
          first[c - begin] += sum[c];
          second[c - begin] += sum[block.width + c];
        }
      }
    }
  }
};

}  // namespace

void batch_norm_forward_cpu(const BatchNormShape& s, const BatchNormForward& a) {
  const Blocks blocks(s);
  const int channels = s.channels;
  const auto groups = static_cast<int64_t>(s.starts.size()) - 1;
  const auto count = static_cast<int64_t>(blocks.all.size());
  const int lines = (channels + kLine - 1) / kLine, width = blocks.width;
  const auto sums = floats(count * 2 * width), pilots = floats(groups * width);
  const auto scales = floats(groups * width), shifts = floats(groups * width);
  for (int64_t g = 0; g < groups; ++g) {
    for (int c = 0; c < width; ++c) {
      const int64_t at = s.starts[g] * channels + c % channels;
      pilots[g * width + c] = s.format == Format::kFloat32 ? static_cast<const float*>(a.x)[at]
                                                           : from_bfloat16(static_cast<const uint16_t*>(a.x)[at]);
    }
  }
#pragma omp parallel if (s.starts.back() * channels > kParallel)
  {
#pragma omp for schedule(static)
    for (int64_t b = 0; b < count; ++b) {
      const Block& block = blocks.all[b];
      forward_sums(s, a, block, pilots.get() + block.group * width, sums.get() + b * 2 * width);
    }
#pragma omp for schedule(static)
    for (int line = 0; line < lines; ++line) {
      const int begin = line * kLine, end = std::min(begin + kLine, channels);
      for (int64_t g = 0; g < groups; ++g) {
        const auto n = static_cast<double>(s.starts[g + 1] - s.starts[g]);
        const LineSums sum(blocks, g, sums.get(), channels, begin, end);
        for (int c = begin; c < end; ++c) {
          const int64_t at = g * channels + c;
          const double distance = sum.first[c - begin] / n;
          const double square = sum.second[c - begin] / n - distance * distance;
          const double variance = square < 0.0 ? 0.0 : square;
          const double mean = pilots[g * width + c] + distance;
          const double rstd = 1.0 / std::sqrt(variance + a.eps);
          a.mean[at] = static_cast<float>(mean);
          a.rstd[at] = static_cast<float>(rstd);
          for (int64_t to = g * width + c; to < (g + 1) * width; to += channels) {
            scales[to] = static_cast<float>(a.weight[c] * rstd);
            shifts[to] = static_cast<float>(a.bias[c] - mean * a.weight[c] * rstd);
          }
          if (a.running_mean != nullptr) {
            const float m = a.momentum;
            const auto unbiased = static_cast<float>(variance * n / (n - 1.0));
            a.running_mean[c] = (1.0f - m) * a.running_mean[c] + m * a.mean[at];
            a.running_var[c] = (1.0f - m) * a.running_var[c] + m * unbiased;
          }
        }
      }
    }
#pragma omp for schedule(static)
    for (int64_t b = 0; b < count; ++b) {
      const int64_t at = blocks.all[b].group * static_cast<int64_t>(width);
      normalize(s, a, blocks.all[b], scales.get() + at, shifts.get() + at);
    }
  }
}

void batch_norm_backward_cpu(const BatchNormShape& s, const BatchNormBackward& a) {
  const Blocks blocks(s);
  const int channels = s.channels;
  const auto groups = static_cast<int64_t>(s.starts.size()) - 1;
  const auto count = static_cast<int64_t>(blocks.all.size());
  const int lines = (channels + kLine - 1) / kLine, width = blocks.width;
  const auto sums = floats(count * 2 * width), means = floats(groups * width);
  const auto by_grads = floats(groups * width), by_xs = floats(groups * width), offsets = floats(groups * width);
  for (int64_t g = 0; g < groups; ++g) {
    for (int c = 0; c < width; ++c) means[g * width + c] = a.mean[g * channels + c % channels];
  }
#pragma omp parallel if (s.starts.back() * channels > kParallel)
  {
#pragma omp for schedule(static)
    for (int64_t b = 0; b < count; ++b) {
      const Block& block = blocks.all[b];
      backward_sums(s, a, block, means.get() + block.group * width, sums.get() + b * 2 * width);
    }
#pragma omp for schedule(static)
    for (int line = 0; line < lines; ++line) {
      const int begin = line * kLine, end = std::min(begin + kLine, channels);
      double grad_weight[kLine] = {}, grad_bias[kLine] = {};
      for (int64_t g = 0; g < groups; ++g) {
        const auto n = static_cast<double>(s.starts[g + 1] - s.starts[g]);
        const LineSums sum(blocks, g, sums.get(), channels, begin, end);
        for (int c = begin; c < end; ++c) {
          const double rstd = a.rstd[g * channels + c], total = sum.first[c - begin];
          const double projected = sum.second[c - begin] * rstd;  // sum of gradient times normalized x
          grad_weight[c - begin] += projected;
          grad_bias[c - begin] += total;
          const double by_grad = a.weight[c] * rstd;
          const double by_x = -by_grad * rstd * projected / n;
          for (int64_t to = g * width + c; to < (g + 1) * width; to += channels) {
            by_grads[to] = static_cast<float>(by_grad);
            by_xs[to] = static_cast<float>(by_x);
            offsets[to] = static_cast<float>(-by_grad * total / n - by_x * a.mean[g * channels + c]);
          }
        }
      }
      for (int c = begin; c < end; ++c) {
        a.grad_weight[c] = static_cast<float>(grad_weight[c - begin]);
        a.grad_bias[c] = static_cast<float>(grad_bias[c - begin]);
      }
    }
#pragma omp for schedule(static)
    for (int64_t b = 0; b < count; ++b) {
      const int64_t at = blocks.all[b].group * static_cast<int64_t>(width);
      backward(s, a, blocks.all[b], by_grads.get() + at, by_xs.get() + at, offsets.get() + at);
    }
  }
}

}  // namespace iidm
