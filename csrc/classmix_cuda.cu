// ClassMix and the colour jitter on a GPU.
//
// One thread makes four neighbouring pixels: 12 bytes of an image are three words, so all loads and stores are whole
// words and a warp's are contiguous. Where all four come from one image, only that one is read. The jitter of an image
// is the same for a block, so its four steps branch together.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "classmix.h"
#include "device.cuh"

namespace iidm {
namespace {

constexpr int kThreads = 256;
constexpr int kGroup = 4;  // pixels of a thread

template <Format kFormat>
struct Number;
template <>
struct Number<Format::kFloat32> {
  using Type = float;
  static __device__ __forceinline__ Type of(float x) { return x; }
};
template <>
struct Number<Format::kBFloat16> {
  using Type = __nv_bfloat16;
  static __device__ __forceinline__ Type of(float x) { return __float2bfloat16_rn(x); }
};
template <>
struct Number<Format::kFloat16> {
  using Type = __half;
  static __device__ __forceinline__ Type of(float x) { return __float2half_rn(x); }
};

// Four pixels of a uint8 image as words: bytes[12].
__device__ __forceinline__ void load_group(const uint8_t* image, int64_t pixel, uint8_t* bytes) {
  const auto* words = reinterpret_cast<const uint32_t*>(image + 3 * pixel);
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    const uint32_t word = words[i];
#pragma unroll
    for (int j = 0; j < 4; ++j) bytes[4 * i + j] = static_cast<uint8_t>(word >> (8 * j));
  }
}

template <Format kFormat>
__device__ __forceinline__ void color_and_store(const uint8_t* bytes, int count, const Jitter& jitter,
                                                const JitterArguments& a, int64_t at, bool whole) {
  using To = Number<kFormat>;
  alignas(16) typename To::Type out[3 * kGroup];
#pragma unroll
  for (int i = 0; i < kGroup; ++i) {
    Rgb p = {bytes[3 * i] / 255.0f, bytes[3 * i + 1] / 255.0f, bytes[3 * i + 2] / 255.0f};
    if (jitter.enabled) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int step = jitter.order[j];
        // Not jitter.value[step]: an index known at run time alone would put the array into local memory.
        const float value = step == 0   ? jitter.value[0]
                            : step == 1 ? jitter.value[1]
                            : step == 2 ? jitter.value[2]
                                        : jitter.value[3];
        p = jitter_step(p, step, value);
      }
    }
    out[3 * i] = To::of(p.r * a.normalization.scale[0] - a.normalization.shift[0]);
    out[3 * i + 1] = To::of(p.g * a.normalization.scale[1] - a.normalization.shift[1]);
    out[3 * i + 2] = To::of(p.b * a.normalization.scale[2] - a.normalization.shift[2]);
  }
  auto* target = static_cast<typename To::Type*>(a.out) + 3 * at;
  if (whole) {
    // 12 numbers: three vectors of four.
    using Vector = std::conditional_t<sizeof(typename To::Type) == 4, uint4, uint2>;
    auto* to = reinterpret_cast<Vector*>(target);
    const auto* from = reinterpret_cast<const Vector*>(out);
#pragma unroll
    for (int i = 0; i < 3; ++i) to[i] = from[i];
  } else {
#pragma unroll
    for (int i = 0; i < 3 * kGroup; ++i) {
      if (i < 3 * count) target[i] = out[i];
    }
  }
}

template <Format kFormat>
__global__ void __launch_bounds__(kThreads) jitter_kernel(JitterArguments a, int64_t pixels, bool vector) {
  const int image = blockIdx.y;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kGroup;
  if (first >= pixels) return;
  const int64_t at = image * pixels + first;
  const int count = static_cast<int>(min(static_cast<int64_t>(kGroup), pixels - first));
  uint8_t bytes[3 * kGroup] = {};
  if (vector) {
    load_group(a.image, at, bytes);
  } else {
#pragma unroll
    for (int i = 0; i < 3 * kGroup; ++i) {
      if (i < 3 * count) bytes[i] = a.image[3 * at + i];
    }
  }
  color_and_store<kFormat>(bytes, count, jitter_of(a.jitter, image), a, at, vector);
}

template <Format kFormat>
__global__ void __launch_bounds__(kThreads) classmix_kernel(ClassmixArguments a, int64_t pixels, bool vector) {
  __shared__ bool selected[kLabelValues];
  const int image = blockIdx.y;
  static_assert(kThreads == kLabelValues, "one thread loads one flag");
  selected[threadIdx.x] = a.selected[image * kLabelValues + threadIdx.x];
  __syncthreads();
  const JitterArguments& c = a.common;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kGroup;
  if (first >= pixels) return;
  const int64_t at = image * pixels + first;
  const int count = static_cast<int>(min(static_cast<int64_t>(kGroup), pixels - first));
  const int64_t trusted_begin = static_cast<int64_t>(a.margin_top) * c.width;
  const int64_t trusted_end = static_cast<int64_t>(c.height - a.margin_bottom) * c.width;

  uint8_t label[kGroup], base_label[kGroup];
  float weight[kGroup];
  if (vector) {
    const uint32_t word = *reinterpret_cast<const uint32_t*>(a.label + at);
    const uint32_t base_word = *reinterpret_cast<const uint32_t*>(a.base_label + at);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      label[i] = static_cast<uint8_t>(word >> (8 * i));
      base_label[i] = static_cast<uint8_t>(base_word >> (8 * i));
    }
    if (a.weight_per_pixel) {
      const float4 loaded = *reinterpret_cast<const float4*>(a.base_weight + at);
      weight[0] = loaded.x, weight[1] = loaded.y, weight[2] = loaded.z, weight[3] = loaded.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      label[i] = i < count ? a.label[at + i] : 0;
      base_label[i] = i < count ? a.base_label[at + i] : 0;
      if (a.weight_per_pixel) weight[i] = i < count ? a.base_weight[at + i] : 0.0f;
    }
  }
  if (!a.weight_per_pixel) {
    const float image_weight = a.base_weight[image];
#pragma unroll
    for (int i = 0; i < kGroup; ++i) weight[i] = image_weight;
  }

  bool pasted[kGroup];
  bool any = false, all = true;
#pragma unroll
  for (int i = 0; i < kGroup; ++i) {
    pasted[i] = selected[label[i]];
    any = any || (pasted[i] && i < count);
    all = all && (pasted[i] || i >= count);
    const bool trusted = first + i >= trusted_begin && first + i < trusted_end;
    weight[i] = mixed_weight(pasted[i], weight[i], trusted, a.has_pasted_weight, a.pasted_weight);
    label[i] = pasted[i] ? label[i] : base_label[i];
  }
  uint8_t bytes[3 * kGroup] = {};
  if (vector) {
    if (!all) load_group(a.base_image, at, bytes);
    if (any) {
      uint8_t ours[3 * kGroup];
      load_group(c.image, at, ours);
#pragma unroll
      for (int i = 0; i < 3 * kGroup; ++i) bytes[i] = pasted[i / 3] ? ours[i] : bytes[i];
    }
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < kGroup; ++i) word |= static_cast<uint32_t>(label[i]) << (8 * i);
    *reinterpret_cast<uint32_t*>(a.out_label + at) = word;
    *reinterpret_cast<float4*>(a.out_weight + at) = make_float4(weight[0], weight[1], weight[2], weight[3]);
  } else {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      if (i < count) {
        const uint8_t* from = (pasted[i] ? c.image : a.base_image) + 3 * (at + i);
        bytes[3 * i] = from[0], bytes[3 * i + 1] = from[1], bytes[3 * i + 2] = from[2];
        a.out_label[at + i] = label[i];
        a.out_weight[at + i] = weight[i];
      }
    }
  }
  color_and_store<kFormat>(bytes, count, jitter_of(c.jitter, image), c, at, vector);
}

// present: [B,8] words, bit v of an image's 256 for label value v.
__global__ void __launch_bounds__(kThreads) presence_kernel(const uint8_t* label, int64_t pixels, uint32_t* present) {
  __shared__ uint32_t seen[8];
  if (threadIdx.x < 8) seen[threadIdx.x] = 0;
  __syncthreads();
  const uint8_t* ours = label + blockIdx.y * pixels;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  const auto note = [&](uint32_t value) {
    const uint32_t bit = 1u << (value & 31u);
    // Looked at before it is set: after the first few pixels nearly every class is known, and reads do not queue.
    if (!(*const_cast<volatile uint32_t*>(&seen[value >> 5]) & bit)) atomicOr(&seen[value >> 5], bit);
  };
  int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pixels % 16 == 0 && reinterpret_cast<uintptr_t>(label) % 16 == 0) {
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
  if (threadIdx.x < 8 && seen[threadIdx.x] != 0) atomicOr(&present[blockIdx.y * 8 + threadIdx.x], seen[threadIdx.x]);
}

// One block an image, one thread a label value: its rank among the present ones by key.
__global__ void __launch_bounds__(kLabelValues) draw_kernel(DrawArguments a, const uint32_t* present) {
  __shared__ float keys[kLabelValues];
  __shared__ bool here[kLabelValues];
  const int value = threadIdx.x;
  const int draw = a.per_batch ? 0 : blockIdx.x;
  bool mine = false;
  for (int image = a.per_batch ? 0 : draw; image <= (a.per_batch ? a.batch - 1 : draw); ++image) {
    mine = mine || ((present[image * 8 + (value >> 5)] >> (value & 31)) & 1u);
  }
  if (value == kIgnored && !a.include_ignored) mine = false;
  const float key = a.keys[draw * kLabelValues + value];
  keys[value] = key;
  here[value] = mine;
  const int count = __syncthreads_count(mine);
  const int half = a.round_up ? (count + 1) / 2 : max(count / 2, min(count, 1));
  int rank = 0;
  for (int other = 0; other < kLabelValues; ++other) {
    rank += here[other] && (keys[other] < key || (keys[other] == key && other < value));
  }
  a.selected[blockIdx.x * kLabelValues + value] = mine && rank < half;
}

// Whether every image of the call starts at a whole vector.
bool is_vector(const JitterArguments& a, int64_t pixels) {
  return pixels % kGroup == 0 && is_aligned(a.image, 4) && is_aligned(a.out, 16);
}

dim3 grid_of(int batch, int64_t pixels) {
  return dim3(static_cast<unsigned int>((pixels + kThreads * kGroup - 1) / (kThreads * kGroup)), batch);
}

}  // namespace

int jitter_cuda(const JitterArguments& a, int device, void* stream) {
  const DeviceGuard guard(device);
  if (guard.status() != cudaSuccess) return guard.status();
  const int64_t pixels = static_cast<int64_t>(a.height) * a.width;
  const bool vector = is_vector(a, pixels);
  const dim3 grid = grid_of(a.batch, pixels);
  const auto queue = static_cast<cudaStream_t>(stream);
  if (a.format == Format::kFloat32) jitter_kernel<Format::kFloat32><<<grid, kThreads, 0, queue>>>(a, pixels, vector);
  if (a.format == Format::kBFloat16) jitter_kernel<Format::kBFloat16><<<grid, kThreads, 0, queue>>>(a, pixels, vector);
  if (a.format == Format::kFloat16) jitter_kernel<Format::kFloat16><<<grid, kThreads, 0, queue>>>(a, pixels, vector);
  return cudaGetLastError();
}

int classmix_cuda(const ClassmixArguments& a, int device, void* stream) {
  const DeviceGuard guard(device);
  if (guard.status() != cudaSuccess) return guard.status();
  const JitterArguments& c = a.common;
  const int64_t pixels = static_cast<int64_t>(c.height) * c.width;
  const bool vector = is_vector(c, pixels) && is_aligned(a.base_image, 4) && is_aligned(a.label, 4) &&
                      is_aligned(a.base_label, 4) && is_aligned(a.out_label, 4) && is_aligned(a.out_weight, 16) &&
                      (!a.weight_per_pixel || is_aligned(a.base_weight, 16));
  const dim3 grid = grid_of(c.batch, pixels);
  const auto queue = static_cast<cudaStream_t>(stream);
  if (c.format == Format::kFloat32) classmix_kernel<Format::kFloat32><<<grid, kThreads, 0, queue>>>(a, pixels, vector);
  if (c.format == Format::kBFloat16) {
    classmix_kernel<Format::kBFloat16><<<grid, kThreads, 0, queue>>>(a, pixels, vector);
  }
  if (c.format == Format::kFloat16) classmix_kernel<Format::kFloat16><<<grid, kThreads, 0, queue>>>(a, pixels, vector);
  return cudaGetLastError();
}

int draw_classes_cuda(const DrawArguments& a, uint32_t* present, int device, void* stream) {
  const DeviceGuard guard(device);
  if (guard.status() != cudaSuccess) return guard.status();
  const auto queue = static_cast<cudaStream_t>(stream);
  // A block reads at least 16 KiB, so that what it adds to the result is small beside it.
  const int64_t blocks = max(int64_t{1}, min(int64_t{1056}, (a.pixels + 16383) / 16384));
  presence_kernel<<<dim3(static_cast<unsigned int>(blocks), a.batch), kThreads, 0, queue>>>(a.label, a.pixels, present);
  draw_kernel<<<a.batch, kLabelValues, 0, queue>>>(a, present);
  return cudaGetLastError();
}

}  // namespace iidm
