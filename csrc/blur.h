// Separable Gaussian blur with reflected borders, on the CPU and on a GPU.
#pragma once

#include "portable.h"

namespace iidm {

// An image is `planes` pictures of `height` lines of `width` pixels of `channels` numbers: channels-last memory is one
// picture of 3 channels, NCHW memory three of one. All dense.
struct BlurArguments {
  int batch, planes, height, width, channels;
  const void* image;    // [B, planes, height, width, channels] of `format`
  const float* taps;    // [B, radius + 1], the centre first; 1, 0, 0, ... where the blur is off
  const bool* enabled;  // [B]
  int radius;
  void* out;
  Format format;
};

// Where position i of a line of `size` pixels is found: reflected at both ends as often as it takes.
IIDM_HD int reflected(int i, int size) {
  if (size == 1) return 0;
  while (i < 0 || i >= size) i = i < 0 ? -i : 2 * (size - 1) - i;
  return i;
}

void blur_cpu(const BlurArguments& a);

// The same with device pointers, in order on `stream`. Returns the cudaError_t of the launch, 0 for success.
int blur_cuda(const BlurArguments& a, int device, void* stream);

}  // namespace iidm
