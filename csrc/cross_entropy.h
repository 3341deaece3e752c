// Fused bilinear upsampling and weighted softmax cross-entropy, on the CPU. (On a GPU it is a Triton kernel.)
#pragma once

#include "upsample.h"

namespace iidm {

// What each pixel's loss is multiplied by before the normalizer.
struct PixelWeights {
  const float* weight;        // [B], [B,H,W] or null for 1
  bool per_pixel;             // which of the two
  const float* class_weight;  // [K] or null for 1
};

enum class Normalizer : int { kSum = 0, kPixels = 1, kValid = 2 };

// loss float32 []; grad float32 [B,K,h,w] and scratch of the same size, or both null for the loss alone.
// logits float32 [B,K,h,w], label uint8 [B,H,W]; all dense. Returns a label id in K..254 if there is one, else -1.
int cross_entropy_cpu(const float* logits, const uint8_t* label, const PixelWeights& weights, Normalizer normalizer,
                      const UpsampledShape& shape, float* loss, float* grad, float* scratch);

}  // namespace iidm
