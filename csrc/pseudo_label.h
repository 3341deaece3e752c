// Fused bilinear upsampling, softmax, argmax and counting of confident pixels, on the CPU. (On a GPU: Triton.)
#pragma once

#include "upsample.h"

namespace iidm {

// logits float32 [B,K,h,w]; label uint8 [B,H,W]; confident int64 [B], pixels whose confidence exceeds the threshold
// (or reaches it, if `inclusive`); confidence float32 [B,H,W] or null. All dense.
void pseudo_label_cpu(const float* logits, const UpsampledShape& shape, float threshold, bool inclusive, uint8_t* label,
                      int64_t* confident, float* confidence);

}  // namespace iidm
