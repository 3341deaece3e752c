// Drawing half of the classes that are present, on a GPU: the labels are read once, then an image's 256 values ranked.
#include "classmix.h"
#include "device.cuh"

namespace iidm {
namespace {

constexpr int kThreads = 256;
constexpr int kWords = kLabelValues / 32;  // flags of all label values

// present: [B,8] words, bit v of an image's 256 for label value v.
__global__ void __launch_bounds__(kThreads) presence_kernel(const uint8_t* label, int64_t pixels, uint32_t* present) {
  __shared__ uint32_t seen[kWords];
  if (threadIdx.x < kWords) seen[threadIdx.x] = 0;
  __syncthreads();
  const uint8_t* ours = label + blockIdx.y * pixels;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  const auto note = [&](uint32_t value) {
    const uint32_t bit = 1u << (value & 31u);
    // Looked at before it is set: after the first few pixels nearly every class is known, and reads do not queue.
    if (!(*const_cast<volatile uint32_t*>(&seen[value >> 5]) & bit)) atomicOr(&seen[value >> 5], bit);
  };
  int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pixels % 16 == 0 && is_aligned(label, 16)) {
    const auto* wide = reinterpret_cast<const uint4*>(ours);
    for (; i < pixels / 16; i += stride) {
      const uint4 loaded = wide[i];
      const uint32_t words[4] = {loaded.x, loaded.y, loaded.z, loaded.w};
#pragma unroll
      for (int w = 0; w < 4; ++w) {
        // Neighbours mostly agree.
        note(words[w] & 255u);
        if (words[w] != (words[w] & 255u) * 0x01010101u) {
          for (int j = 1; j < 4; ++j) note((words[w] >> (8 * j)) & 255u);
        }
      }
    }
  } else {
    for (; i < pixels; i += stride) note(ours[i]);
  }
  __syncthreads();
  if (threadIdx.x < kWords && seen[threadIdx.x] != 0) {
    atomicOr(&present[blockIdx.y * kWords + threadIdx.x], seen[threadIdx.x]);
  }
}

// One block an image, one thread a label value: its rank by key among the present ones, which are few.
__global__ void __launch_bounds__(kLabelValues) draw_kernel(DrawArguments a, const uint32_t* present) {
  __shared__ float keys[kLabelValues];
  __shared__ uint32_t here[kWords];
  const int value = threadIdx.x;
  const float key = a.keys[blockIdx.x * kLabelValues + value];
  keys[value] = key;
  if (value < kWords) here[value] = 0;
  __syncthreads();
  const uint32_t* words = present + (a.from_batch ? 0 : blockIdx.x) * kWords;
  for (int i = value; i < (a.from_batch ? a.batch : 1) * kWords; i += kLabelValues) {
    if (words[i] != 0) atomicOr(&here[i % kWords], words[i]);
  }
  __syncthreads();
  const auto word_of = [&](int i) {
    const bool ignored = i == kIgnored / 32 && !a.include_ignored;
    return here[i] & (ignored ? ~(1u << (kIgnored % 32)) : ~0u);
  };
  int count = 0, rank = 0;
  for (int i = 0; i < kWords; ++i) {
    for (uint32_t rest = word_of(i); rest != 0; rest &= rest - 1) {
      const int other = 32 * i + __ffs(static_cast<int>(rest)) - 1;  // the lowest bit that is left
      rank += keys[other] < key || (keys[other] == key && other < value);
      ++count;
    }
  }
  const int half = a.round_up ? (count + 1) / 2 : max(count / 2, min(count, 1));
  const bool mine = (word_of(value / 32) >> (value % 32)) & 1u;
  a.selected[blockIdx.x * kLabelValues + value] = mine && rank < half;
}

}  // namespace

int draw_classes_cuda(const DrawArguments& a, uint32_t* present, int device, void* stream) {
  const DeviceGuard guard(device);
  if (guard.status() != cudaSuccess) return guard.status();
  const auto queue = static_cast<cudaStream_t>(stream);
  // One vector of 16 labels a thread fills a GPU at two images of 512x512 (128 blocks); a large batch is read in turns
  // by 1,056 blocks, 8 for each of the 132 processors of an H100.
  const int64_t wanted = (a.pixels + 16 * kThreads - 1) / (16 * kThreads);
  const int64_t blocks = max(int64_t{1}, min(wanted, int64_t{1056 / max(1, a.batch)}));
  presence_kernel<<<dim3(static_cast<unsigned int>(blocks), a.batch), kThreads, 0, queue>>>(a.label, a.pixels, present);
  draw_kernel<<<a.batch, kLabelValues, 0, queue>>>(a, present);
  return cudaGetLastError();
}

}  // namespace iidm
