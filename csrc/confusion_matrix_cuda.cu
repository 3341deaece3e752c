// Confusion matrix on the GPU.
//
// Version 1: one thread a pixel. Its four corners are shared with the 8 x 8 pixels around it, so they come from L1; the
// block counts in shared memory (up to 110 classes) and adds its non-zero cells to the matrix once. Integer sums:
// the result does not depend on the order of the atomics.
#include "confusion_matrix.h"
#include "device.cuh"

namespace iidm {
namespace {

constexpr int kThreads = 256;
constexpr int kSharedSlots = 110 * 110 + 1;  // 48,404 bytes of the 49,152 that every architecture grants

// logits float32 [B,K,h,w], label uint8 [B,H,W], counts [K*K+1].
template <bool kShared>
__global__ void __launch_bounds__(kThreads)
    confusion_matrix_kernel(const float* __restrict__ logits, const uint8_t* __restrict__ label,
                            unsigned long long* __restrict__ counts, UpsampledShape s, float scale_y, float scale_x,
                            int64_t pixels) {
  extern __shared__ unsigned int block_counts[];
  const int slots = s.classes * s.classes + 1;
  if (kShared) {
    for (int i = threadIdx.x; i < slots; i += kThreads) block_counts[i] = 0;
    __syncthreads();
  }
  const int plane = s.in_h * s.in_w;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t pixel = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; pixel < pixels; pixel += stride) {
    const int truth = label[pixel];
    if (truth == kIgnored) continue;
    const int x = static_cast<int>(pixel % s.out_w);
    const int64_t line = pixel / s.out_w;
    const int y = static_cast<int>(line % s.out_h);
    const int64_t image = line / s.out_h;
    const Tap row = source_tap(y, s.in_h, scale_y, s.align_corners);
    const Tap column = source_tap(x, s.in_w, scale_x, s.align_corners);
    const float* low = logits + image * s.classes * static_cast<int64_t>(plane);
    const float* upper = low + row.first * s.in_w;
    const float* lower = low + row.second * s.in_w;
    float best = 0.0f;
    int prediction = 0;
    for (int k = 0; k < s.classes; ++k, upper += plane, lower += plane) {
      const float top = blend(upper[column.first], upper[column.second], column.weight_first, column.weight_second);
      const float bottom = blend(lower[column.first], lower[column.second], column.weight_first, column.weight_second);
      const float value = blend(top, bottom, row.weight_first, row.weight_second);
      if (k == 0 || value > best) {
        best = value;
        prediction = k;
      }
    }
    const int slot = count_slot(truth, prediction, s.classes);
    if (kShared) {
      atomicAdd(&block_counts[slot], 1u);
    } else {
      atomicAdd(&counts[slot], 1ull);
    }
  }
  if (kShared) {
    __syncthreads();
    for (int i = threadIdx.x; i < slots; i += kThreads) {
      if (block_counts[i] != 0) atomicAdd(&counts[i], static_cast<unsigned long long>(block_counts[i]));
    }
  }
}

}  // namespace

int confusion_matrix_cuda(const float* logits, const uint8_t* label, int64_t* counts, const UpsampledShape& shape,
                          int device, void* stream) {
  const DeviceGuard guard(device);
  if (guard.status() != cudaSuccess) return guard.status();
  const int64_t pixels = static_cast<int64_t>(shape.batch) * shape.out_h * shape.out_w;
  // 1,056 blocks: 8 for each of the 132 processors of an H100; more blocks only clear and add up more matrices.
  const int64_t wanted = (pixels + kThreads - 1) / kThreads;
  const unsigned int blocks = static_cast<unsigned int>(wanted < 1056 ? wanted : 1056);
  const float scale_y = source_scale(shape.in_h, shape.out_h, shape.align_corners);
  const float scale_x = source_scale(shape.in_w, shape.out_w, shape.align_corners);
  const int slots = shape.classes * shape.classes + 1;
  auto* out = reinterpret_cast<unsigned long long*>(counts);
  const auto queue = static_cast<cudaStream_t>(stream);
  if (slots <= kSharedSlots) {
    confusion_matrix_kernel<true><<<blocks, kThreads, slots * sizeof(unsigned int), queue>>>(
        logits, label, out, shape, scale_y, scale_x, pixels);
  } else {
    confusion_matrix_kernel<false><<<blocks, kThreads, 0, queue>>>(logits, label, out, shape, scale_y, scale_x, pixels);
  }
  return cudaGetLastError();
}

const char* cuda_error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // namespace iidm
