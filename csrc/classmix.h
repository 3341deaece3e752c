// ClassMix and the colour jitter: class presence, drawing, mixing, jitter and normalization, on the CPU and on a GPU.
#pragma once

#include "color.h"

namespace iidm {

constexpr int kLabelValues = 256;

// The jitters of a batch, as draw_jitter gives them; enabled is null for none. On the device of the images.
struct JitterArrays {
  const bool* enabled;                                        // [B]
  const float *brightness, *contrast, *saturation, *hue;      // [B]
  const int64_t* order;                                       // [B,4]
};

// The images of a call and where they are written. All dense.
struct JitterArguments {
  int batch, height, width;
  const uint8_t* image;  // [B,H,W,3]
  JitterArrays jitter;
  Normalization normalization;
  void* out;  // [B,H,W,3] of `format`
  Format format;
};

// What ClassMix has beside. `image` above is the labeled one.
struct ClassmixArguments {
  JitterArguments common;
  const uint8_t* label;       // [B,H,W]
  const uint8_t* base_image;  // [B,H,W,3]
  const uint8_t* base_label;  // [B,H,W]
  const float* base_weight;   // [B] or [B,H,W]
  bool weight_per_pixel;
  const bool* selected;       // [B,256]
  bool has_pasted_weight;     // otherwise a pasted pixel has the base's weight
  float pasted_weight;
  int margin_top, margin_bottom;
  uint8_t* out_label;   // [B,H,W]
  float* out_weight;    // [B,H,W]
};

IIDM_HD Jitter jitter_of(const JitterArrays& arrays, int image) {
  Jitter jitter = {};
  if (arrays.enabled != nullptr) {
    jitter.enabled = arrays.enabled[image];
    // Read whether enabled or not: a GPU waits for all of them at once.
    jitter.value[0] = arrays.brightness[image];
    jitter.value[1] = arrays.contrast[image];
    jitter.value[2] = arrays.saturation[image];
    jitter.value[3] = arrays.hue[image];
    // It is an index: a wrong one takes a wrong step, and reads nothing beside the values.
    for (int i = 0; i < 4; ++i) jitter.order[i] = static_cast<int>(arrays.order[image * 4 + i]) & 3;
  }
  return jitter;
}

// The loss weight of a mixed pixel. Pasted pixels have true labels, so the margins do not distrust them.
IIDM_HD float mixed_weight(bool pasted, float base, bool trusted, bool has_pasted_weight, float pasted_weight) {
  return pasted ? (has_pasted_weight ? pasted_weight : base) : (trusted ? base : 0.0f);
}

// selected bool [B,256]: half of the classes present in label [B, pixels], those with the smallest keys [B,256].
struct DrawArguments {
  int batch;
  int64_t pixels;
  const uint8_t* label;
  const float* keys;
  bool from_batch, round_up, include_ignored;
  bool* selected;
};

void jitter_cpu(const JitterArguments& a);
void classmix_cpu(const ClassmixArguments& a);
void draw_classes_cpu(const DrawArguments& a);

// The same with device pointers, in order on `stream`; `present` is scratch of batch x 8 words that hold zeros. Each
// returns the cudaError_t of its launches, 0 for success.
int jitter_cuda(const JitterArguments& a, int device, void* stream);
int classmix_cuda(const ClassmixArguments& a, int device, void* stream);
int draw_classes_cuda(const DrawArguments& a, uint32_t* present, int device, void* stream);

}  // namespace iidm
