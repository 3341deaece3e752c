// The inner loops of batch normalization on the CPU: over rows of channels, by type and activation. They are inlined into
// functions that are compiled for several processors.
#pragma once

#include "batch_norm.h"
#include "formats.h"

namespace iidm {

// Comparisons are such that NaN stays NaN.
template <Activation A>
IIDM_HD float activated(float z) {
  if (A == Activation::kNone) return z;
  const float positive = z < 0.0f ? 0.0f : z;
  return A == Activation::kRelu6 && positive > 6.0f ? 6.0f : positive;
}

// The gradient in front of the activation, by what came out of it.
template <Activation A>
IIDM_HD float masked(float grad, float y) {
  if (A == Activation::kRelu) return y <= 0.0f ? 0.0f : grad;
  return (y <= 0.0f) | (y >= 6.0f) ? 0.0f : grad;
}

template <class T>
IIDM_HD void forward_sums_of(const T* __restrict x, int64_t rows, int channels, const float* __restrict pilot,
                             float* __restrict sum, float* __restrict squares) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4, x += 4 * channels) {
    const T *second = x + channels, *third = second + channels, *fourth = third + channels;
    for (int c = 0; c < channels; ++c) {
      const float p = pilot[c];
      const float i = load(x[c]) - p, j = load(second[c]) - p, k = load(third[c]) - p, l = load(fourth[c]) - p;
      sum[c] += (i + j) + (k + l);
      squares[c] += (i * i + j * j) + (k * k + l * l);
    }
  }
  for (; row < rows; ++row, x += channels) {
    for (int c = 0; c < channels; ++c) {
      const float i = load(x[c]) - pilot[c];
      sum[c] += i;
      squares[c] += i * i;
    }
  }
}

template <class T, Activation A>
IIDM_HD void normalize_rows(const T* __restrict x, const T* __restrict residual, int64_t rows, int channels,
                            const float* __restrict scale, const float* __restrict shift, T* __restrict y) {
  for (int64_t row = 0; row < rows; ++row, x += channels, y += channels) {
    if (residual == nullptr) {
      for (int c = 0; c < channels; ++c) store(activated<A>(load(x[c]) * scale[c] + shift[c]), y + c);
      continue;
    }
    for (int c = 0; c < channels; ++c) {
      store(activated<A>(load(x[c]) * scale[c] + shift[c] + load(residual[c])), y + c);
    }
    residual += channels;
  }
}

// Sums of the masked gradient and of its product with x - mean; the masked gradient is written where it is wanted.
template <class T, Activation A>
IIDM_HD void backward_sums_of(const T* __restrict grad, const T* __restrict x, const T* __restrict y, int64_t rows,
                              int channels, const float* __restrict mean, float* __restrict sum,
                              float* __restrict products, T* __restrict grad_residual) {
  for (int64_t row = 0; row < rows; ++row, grad += channels, x += channels) {
    if (A == Activation::kNone) {
      for (int c = 0; c < channels; ++c) {
        const float g = load(grad[c]);
        sum[c] += g;
        products[c] += g * (load(x[c]) - mean[c]);
      }
      continue;
    }
    for (int c = 0; c < channels; ++c) {
      const float g = masked<A>(load(grad[c]), load(y[c]));
      sum[c] += g;
      products[c] += g * (load(x[c]) - mean[c]);
    }
    if (grad_residual != nullptr) {
      for (int c = 0; c < channels; ++c) store(masked<A>(load(grad[c]), load(y[c])), grad_residual + c);
      grad_residual += channels;
    }
    y += channels;
  }
}

template <class T, Activation A>
IIDM_HD void backward_rows(const T* __restrict grad, const T* __restrict x, const T* __restrict y, int64_t rows,
                           int channels, const float* __restrict by_grad, const float* __restrict by_x,
                           const float* __restrict offset, T* __restrict grad_x) {
  for (int64_t row = 0; row < rows; ++row, grad += channels, x += channels, grad_x += channels) {
    if (A == Activation::kNone) {
      for (int c = 0; c < channels; ++c) {
        store(by_grad[c] * load(grad[c]) + (by_x[c] * load(x[c]) + offset[c]), grad_x + c);
      }
      continue;
    }
    for (int c = 0; c < channels; ++c) {
      const float g = masked<A>(load(grad[c]), load(y[c]));
      store(by_grad[c] * g + (by_x[c] * load(x[c]) + offset[c]), grad_x + c);
    }
    y += channels;
  }
}

}  // namespace iidm
