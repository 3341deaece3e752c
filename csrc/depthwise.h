// A depthwise 3x3 convolution, padded with zeros so that stride 1 keeps the size, and its gradients. The arithmetic is that
// of kernels/depthwise/reference.py.
#pragma once

#include "portable.h"

namespace iidm {

// Maps are channels-last: rows of pixels of so many channels.
struct DepthwiseShape {
  int batch, channels, height, width;  // of x; y has ceil(height / stride) rows of ceil(width / stride) pixels
  int stride, dilation;
  Format format;  // of all tensors: kFloat32 or kBFloat16
};

// `weight` is [channels, 9].
void depthwise_forward_cpu(const DepthwiseShape& s, const void* x, const void* weight, void* y);

// A gradient that is not wanted is null.
void depthwise_backward_cpu(const DepthwiseShape& s, const void* grad, const void* x, const void* weight, void* grad_x,
                            void* grad_weight);

}  // namespace iidm
