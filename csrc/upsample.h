// Bilinear upsampling as torch.nn.functional.interpolate(mode="bilinear") does it: float32 source coordinates, first
// along x, then along y, so that an argmax is the reference's except where two logits are equal up to rounding.
#pragma once

#include "portable.h"

namespace iidm {

// Sizes of one call.
struct UpsampledShape {
  int batch, classes;  // B, K
  int in_h, in_w;      // h, w of the logits
  int out_h, out_w;    // H, W of the label
  bool align_corners;
};

// The two low-resolution cells between which an output row (or column) lies, and their weights.
struct Tap {
  int first, second;
  float weight_first, weight_second;
};

IIDM_HD float source_scale(int in_size, int out_size, bool align_corners) {
  if (!align_corners) return static_cast<float>(in_size) / static_cast<float>(out_size);
  return out_size > 1 ? static_cast<float>(in_size - 1) / static_cast<float>(out_size - 1) : 0.0f;
}

IIDM_HD Tap source_tap(int out_index, int in_size, float scale, bool align_corners) {
  float position = align_corners ? scale * static_cast<float>(out_index)
                                 : scale * (static_cast<float>(out_index) + 0.5f) - 0.5f;
  if (position < 0.0f) position = 0.0f;
  Tap tap;
  tap.first = static_cast<int>(position);
  if (tap.first > in_size - 1) tap.first = in_size - 1;
  tap.second = tap.first + 1 < in_size ? tap.first + 1 : tap.first;
  float fraction = position - static_cast<float>(tap.first);
  if (fraction > 1.0f) fraction = 1.0f;
  tap.weight_second = fraction;
  tap.weight_first = 1.0f - fraction;
  return tap;
}

IIDM_HD float blend(float first, float second, float weight_first, float weight_second) {
  return first * weight_first + second * weight_second;
}

}  // namespace iidm
