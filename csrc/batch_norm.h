// Batch normalization in training, with what follows it: adding a residual, and an activation. The arithmetic is that of
// kernels/batch_norm/reference.py; statistics are those of each group of images.
#pragma once

#include <vector>

#include "portable.h"

namespace iidm {

enum class Activation : int { kNone = 0, kRelu = 1, kRelu6 = 2 };

// The activations are channels-last: a matrix of one row a pixel and one column a channel.
struct BatchNormShape {
  std::vector<int64_t> starts;  // first row of each group, and the number of all rows
  int channels;
  Format format;  // of all activations: kFloat32 or kBFloat16
  Activation activation;
};

// An address that is not wanted is null.
struct BatchNormForward {
  const void* x;
  const void* residual;
  const float* weight;
  const float* bias;
  float* running_mean;
  float* running_var;
  float momentum, eps;
  void* y;
  float* mean;  // [groups, channels]
  float* rstd;  // [groups, channels]
};

struct BatchNormBackward {
  const void* grad;
  const void* x;
  const void* y;  // not read without an activation
  const float* mean;
  const float* rstd;
  const float* weight;
  void* grad_x;
  void* grad_residual;
  float* grad_weight;
  float* grad_bias;
};

void batch_norm_forward_cpu(const BatchNormShape& shape, const BatchNormForward& a);
void batch_norm_backward_cpu(const BatchNormShape& shape, const BatchNormBackward& a);

}  // namespace iidm
