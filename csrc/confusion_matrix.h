// Fused bilinear upsampling, argmax and counting, on the CPU and on a GPU.
#pragma once

#include "upsample.h"

namespace iidm {

// Where a pixel is counted: its cell of the matrix, the slot behind the matrix for a label without a class, or -1.
IIDM_HD int count_slot(int truth, int prediction, int classes) {
  if (truth < classes) return truth * classes + prediction;
  return truth == kIgnored ? -1 : classes * classes;
}

// logits float32 [B,K,h,w], label uint8 [B,H,W], counts int64 [K*K+1] that hold zeros; all dense.
void confusion_matrix_cpu(const float* logits, const uint8_t* label, int64_t* counts, const UpsampledShape& shape);

// The same with device pointers, in order on `stream`. Returns the cudaError_t of the launch, 0 for success.
int confusion_matrix_cuda(const float* logits, const uint8_t* label, int64_t* counts, const UpsampledShape& shape,
                          int device, void* stream);

// The text of a cudaError_t.
const char* cuda_error_text(int error);

}  // namespace iidm
