// The depthwise 3x3 convolution on the CPU. y and the gradient of x are made pixel by pixel: a pixel is the sum of the one to
// nine pixels of the other map that lie inside of it, each times the weights of its tap. The gradient of the weights is made
// tap by tap: sums over the pixels that the tap meets.
//
// Blocks do not depend on the number of threads and are added in their order: the result is the same bit for bit from
// run to run.
#include "depthwise.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "formats.h"

namespace iidm {
namespace {

constexpr int kTaps = 9;
constexpr int64_t kBlock = 1 << 18;     // numbers of a block of the weights' gradient, and at most
constexpr int64_t kBlockPixels = 4096;  // so many pixels
constexpr int64_t kParallel = 1 << 15;  // fewer numbers are not worth a second thread

// Of one position along an axis: the pixels of the other map that it is made of, and the taps that lead there.
struct Reach {
  int count = 0;
  int at[3], tap[3];

  void add(int position, int size, int tap_index) {
    if (position < 0 || position >= size) return;
    at[count] = position;
    tap[count++] = tap_index;
  }
};

struct Axis {
  int size, stride, dilation;  // of x, and of the convolution

  int out() const { return (size + stride - 1) / stride; }

  // What each position of y reads of x.
  std::vector<Reach> forward() const {
    std::vector<Reach> found(out());
    for (int o = 0; o < out(); ++o) {
      for (int k = 0; k < 3; ++k) found[o].add(o * stride + (k - 1) * dilation, size, k);
    }
    return found;
  }

  // Where each position of x was read by y.
  std::vector<Reach> backward() const {
    std::vector<Reach> found(size);
    for (int i = 0; i < size; ++i) {
      for (int k = 0; k < 3; ++k) {
        const int spread = i - (k - 1) * dilation;
        if (spread >= 0 && spread % stride == 0) found[i].add(spread / stride, out(), k);
      }
    }
    return found;
  }

  // The positions of y, begin..end - 1, whose tap k lies inside of x.
  std::pair<int, int> inside(int k) const {
    const int offset = (k - 1) * dilation;
    const int begin = offset < 0 ? (-offset + stride - 1) / stride : 0;
    const int end = size > offset ? (size - offset - 1) / stride + 1 : 0;
    return {std::min(begin, out()), std::min(end, out())};
  }
};

template <class T, int... t>
IIDM_HD void sum_of_taps(const T* const* x, const float* const* weight, int channels, T* __restrict y,
                         std::integer_sequence<int, t...>) {
  const T* const from[] = {x[t]...};
  const float* const by[] = {weight[t]...};
  for (int c = 0; c < channels; ++c) store((... + (by[t][c] * load(from[t][c]))), y + c);
}

template <class T>
IIDM_HD void pixel_of(const Reach& row, const Reach& column, const T* map, int width, const float* weight, int channels,
                      T* y) {
  const T* x[kTaps];
  const float* by[kTaps];
  int count = 0;
  for (int i = 0; i < row.count; ++i) {
    for (int j = 0; j < column.count; ++j) {
      x[count] = map + (static_cast<int64_t>(row.at[i]) * width + column.at[j]) * channels;
      by[count++] = weight + (row.tap[i] * 3 + column.tap[j]) * channels;
    }
  }
#define IIDM_TAPS(n) \
  case n: return sum_of_taps(x, by, channels, y, std::make_integer_sequence<int, n>())
  switch (count) {  // of rows, none to three, times of columns
    IIDM_TAPS(1);
    IIDM_TAPS(2);
    IIDM_TAPS(3);
    IIDM_TAPS(4);
    IIDM_TAPS(6);
    IIDM_TAPS(9);
    default: std::fill(y, y + channels, T(0));
  }
#undef IIDM_TAPS
}

template <class T>
IIDM_HD void row_of(const Reach& row, const std::vector<Reach>& columns, const void* map, int width,
                    const float* weight, int channels, void* y) {
  T* to = static_cast<T*>(y);
  for (const Reach& column : columns) {
    pixel_of(row, column, static_cast<const T*>(map), width, weight, channels, to);
    to += channels;
  }
}

IIDM_CLONES void row_of_pixels(Format format, const Reach& row, const std::vector<Reach>& columns, const void* map,
                               int width, const float* weight, int channels, void* y) {
  if (format == Format::kFloat32) {
    row_of<float>(row, columns, map, width, weight, channels, y);
  } else {
    row_of<uint16_t>(row, columns, map, width, weight, channels, y);
  }
}

const char* address(const void* base, int64_t numbers, Format format) {
  return static_cast<const char*>(base) + numbers * (format == Format::kFloat32 ? 4 : 2);
}
char* address(void* base, int64_t numbers, Format format) {
  return static_cast<char*>(base) + numbers * (format == Format::kFloat32 ? 4 : 2);
}

float number(const void* base, int64_t at, Format format) {
  return format == Format::kFloat32 ? static_cast<const float*>(base)[at]
                                    : load(static_cast<const uint16_t*>(base)[at]);
}

// [channels,9] -> float32 [9,channels]
std::vector<float> by_tap(const DepthwiseShape& s, const void* weight) {
  std::vector<float> found(static_cast<size_t>(kTaps) * s.channels);
  for (int c = 0; c < s.channels; ++c) {
    for (int tap = 0; tap < kTaps; ++tap) {
      found[static_cast<size_t>(tap) * s.channels + c] = number(weight, static_cast<int64_t>(c) * kTaps + tap, s.format);
    }
  }
  return found;
}

// `to` [batch, rows, columns, channels] from `from` [batch, height, width, channels].
void gather(const DepthwiseShape& s, const std::vector<Reach>& rows, const std::vector<Reach>& columns, const void* from,
            int height, int width, const float* weight, void* to) {
  const auto per_image = static_cast<int64_t>(rows.size()), count = s.batch * per_image;
  const int64_t line = static_cast<int64_t>(columns.size()) * s.channels;
#pragma omp parallel for schedule(static) if (count * line > kParallel)
  for (int64_t r = 0; r < count; ++r) {
    const void* map = address(from, r / per_image * height * width * s.channels, s.format);
    row_of_pixels(s.format, rows[r % per_image], columns, map, width, weight, s.channels,
                  address(to, r * line, s.format));
  }
}

// sum += grad x, over `pixels` pixels that lie `step` numbers apart in x.
template <class T>
IIDM_HD void add_products(const T* __restrict grad, const T* __restrict x, int64_t step, int pixels, int channels,
                          float* __restrict sum) {
  int pixel = 0;
  for (; pixel + 4 <= pixels; pixel += 4, grad += 4 * channels, x += 4 * step) {
    const T *g1 = grad + channels, *g2 = g1 + channels, *g3 = g2 + channels;
    const T *x1 = x + step, *x2 = x1 + step, *x3 = x2 + step;
    for (int c = 0; c < channels; ++c) {
      sum[c] += (load(grad[c]) * load(x[c]) + load(g1[c]) * load(x1[c])) +
                (load(g2[c]) * load(x2[c]) + load(g3[c]) * load(x3[c]));
    }
  }
  for (; pixel < pixels; ++pixel, grad += channels, x += step) {
    for (int c = 0; c < channels; ++c) sum[c] += load(grad[c]) * load(x[c]);
  }
}

IIDM_CLONES void add_row(Format format, const void* grad, const void* x, int64_t step, int pixels, int channels,
                         float* sum) {
  if (format == Format::kFloat32) {
    add_products(static_cast<const float*>(grad), static_cast<const float*>(x), step, pixels, channels, sum);
  } else {
    add_products(static_cast<const uint16_t*>(grad), static_cast<const uint16_t*>(x), step, pixels, channels, sum);
  }
}

struct Axes {
  Axis rows, columns;

  explicit Axes(const DepthwiseShape& s)
      : rows{s.height, s.stride, s.dilation}, columns{s.width, s.stride, s.dilation} {}
};

// The products of the rows begin..end - 1 of an image of y, [9,channels].
void sums_of_rows(const DepthwiseShape& s, const Axes& axes, const void* grad, const void* x, int begin, int end,
                  float* sums) {
  std::fill(sums, sums + kTaps * s.channels, 0.0f);
  const int out_width = axes.columns.out();
  for (int row = begin; row < end; ++row) {
    for (int tap = 0; tap < kTaps; ++tap) {
      const auto [first_row, last_row] = axes.rows.inside(tap / 3);
      const auto [first, last] = axes.columns.inside(tap % 3);
      if (row < first_row || row >= last_row || first >= last) continue;
      const int64_t from_row = row * s.stride + (tap / 3 - 1) * s.dilation;
      const int64_t from = from_row * s.width + first * s.stride + (tap % 3 - 1) * s.dilation;
      const int64_t at = static_cast<int64_t>(row) * out_width + first;
      add_row(s.format, address(grad, at * s.channels, s.format), address(x, from * s.channels, s.format),
              static_cast<int64_t>(s.stride) * s.channels, last - first, s.channels, sums + tap * s.channels);
    }
  }
}

void weight_gradient(const DepthwiseShape& s, const Axes& axes, const void* grad, const void* x, void* to) {
  const int out_height = axes.rows.out(), out_width = axes.columns.out();
  const int64_t pixels = std::min(kBlockPixels, kBlock / s.channels);
  const int rows = static_cast<int>(std::max<int64_t>(1, pixels / out_width));
  const int64_t per_image = (out_height + rows - 1) / rows, blocks = s.batch * per_image;
  const int64_t in_image = static_cast<int64_t>(s.height) * s.width * s.channels;
  const int64_t out_image = static_cast<int64_t>(out_height) * out_width * s.channels;
  const int64_t width = static_cast<int64_t>(kTaps) * s.channels;
  const std::unique_ptr<float[]> sums(new float[blocks * width]);
#pragma omp parallel if (s.batch * out_image > kParallel)
  {
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t image = block / per_image;
      const int begin = static_cast<int>(block % per_image) * rows;
      sums_of_rows(s, axes, address(grad, image * out_image, s.format), address(x, image * in_image, s.format), begin,
                   std::min(begin + rows, out_height), sums.get() + block * width);
    }
#pragma omp for schedule(static)
    for (int c = 0; c < s.channels; ++c) {
      for (int tap = 0; tap < kTaps; ++tap) {
        double sum = 0.0;
        for (int64_t block = 0; block < blocks; ++block) sum += sums[block * width + tap * s.channels + c];
        const int64_t at = static_cast<int64_t>(c) * kTaps + tap;
        if (s.format == Format::kFloat32) {
          static_cast<float*>(to)[at] = static_cast<float>(sum);
        } else {
          store(static_cast<float>(sum), static_cast<uint16_t*>(to) + at);
        }
      }
    }
  }
}

}  // namespace

void depthwise_forward_cpu(const DepthwiseShape& s, const void* x, const void* weight, void* y) {
  const Axes axes(s);
  gather(s, axes.rows.forward(), axes.columns.forward(), x, s.height, s.width, by_tap(s, weight).data(), y);
}

void depthwise_backward_cpu(const DepthwiseShape& s, const void* grad, const void* x, const void* weight, void* grad_x,
                            void* grad_weight) {
  const Axes axes(s);
  if (grad_x != nullptr) {
    gather(s, axes.rows.backward(), axes.columns.backward(), grad, axes.rows.out(), axes.columns.out(),
           by_tap(s, weight).data(), grad_x);
  }
  if (grad_weight != nullptr) weight_gradient(s, axes, grad, x, grad_weight);
}

}  // namespace iidm
