// ClassMix and the colour jitter on a GPU.
//
// One thread makes four neighbouring pixels: 12 bytes of an image are three words, labels and weights of a warp lie
// side by side. Where all four pixels come from one image, only that one is read. All that does not depend on the
// labels is asked for before the block's first barrier, so a pixel waits for memory twice: for its label, for its bytes.
// The results go through shared memory: stored by each thread on its own, 24 bytes in three parts, a sector of 32 bytes
// would be sent to L2 three times.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

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

// Pixels of the image blockIdx.y: those of the block, of which the thread has `count` (none or less behind the end).
struct Span {
  int64_t block, first;  // first pixel of the block, and of the thread
  int count, in_block;

  __device__ __forceinline__ explicit Span(int64_t pixels) {
    block = static_cast<int64_t>(blockIdx.x) * (kThreads * kGroup);
    first = block + threadIdx.x * kGroup;
    in_block = static_cast<int>(min(static_cast<int64_t>(kThreads * kGroup), pixels - block));
    count = min(kGroup, in_block - static_cast<int>(threadIdx.x) * kGroup);
  }
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

// The block's colours: jittered, normalized, and written behind pixel `at` of the output. `jitter` is in shared memory,
// whose elements can be chosen at run time.
template <Format kFormat, bool kVector>
__device__ __forceinline__ void color_and_store(const uint8_t* bytes, const Jitter& jitter, const JitterArguments& a,
                                                int64_t at, int pixels) {
  using To = Number<kFormat>;
  using Type = typename To::Type;
  using Vector = std::conditional_t<sizeof(Type) == 4, uint4, uint2>;  // four numbers
  alignas(16) __shared__ Type staged[3 * kGroup * kThreads];
  Rgb p[kGroup];
#pragma unroll
  for (int i = 0; i < kGroup; ++i) {
    p[i] = {unit_of(bytes[3 * i]), unit_of(bytes[3 * i + 1]), unit_of(bytes[3 * i + 2])};
  }
  if (jitter.enabled) {
#pragma unroll 1
    for (int j = 0; j < 4; ++j) {
      const int step = jitter.order[j];
      const float value = jitter.value[step];
      // The whole block takes the same way, once for four pixels.
      if (step == 0) {
        for (Rgb& x : p) x = brightness(x, value);
      } else if (step == 1) {
        for (Rgb& x : p) x = contrast(x, value);
      } else if (step == 2) {
        for (Rgb& x : p) x = saturation(x, value);
      } else {
        for (Rgb& x : p) x = hue(x, value);
      }
    }
  }
  const Normalization& n = a.normalization;
  alignas(16) Type out[3 * kGroup];
#pragma unroll
  for (int i = 0; i < kGroup; ++i) {
    out[3 * i] = To::of(p[i].r * n.scale[0] - n.shift[0]);
    out[3 * i + 1] = To::of(p[i].g * n.scale[1] - n.shift[1]);
    out[3 * i + 2] = To::of(p[i].b * n.scale[2] - n.shift[2]);
  }
  auto* vectors = reinterpret_cast<Vector*>(staged);
#pragma unroll
  for (int i = 0; i < 3; ++i) vectors[3 * threadIdx.x + i] = reinterpret_cast<const Vector*>(out)[i];
  __syncthreads();
  auto* target = static_cast<Type*>(a.out) + 3 * at;
  if (kVector) {
    auto* to = reinterpret_cast<Vector*>(target);
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      const int k = i * kThreads + threadIdx.x;
      if (4 * k < 3 * pixels) to[k] = vectors[k];
    }
  } else {
    for (int k = threadIdx.x; k < 3 * pixels; k += kThreads) target[k] = staged[k];
  }
}

template <Format kFormat, bool kVector>
__global__ void __launch_bounds__(kThreads) jitter_kernel(JitterArguments a, int64_t pixels) {
  __shared__ Jitter jitter;
  const int image = blockIdx.y;
  if (threadIdx.x == 0) jitter = jitter_of(a.jitter, image);
  const Span span(pixels);
  const int64_t start = image * pixels;
  uint8_t bytes[3 * kGroup] = {};
  if (kVector) {
    if (span.count > 0) load_group(a.image, start + span.first, bytes);
  } else {
#pragma unroll
    for (int i = 0; i < 3 * kGroup; ++i) {
      if (i < 3 * span.count) bytes[i] = a.image[3 * (start + span.first) + i];
    }
  }
  __syncthreads();
  color_and_store<kFormat, kVector>(bytes, jitter, a, start + span.block, span.in_block);
}

template <Format kFormat, bool kVector>
__global__ void __launch_bounds__(kThreads) classmix_kernel(ClassmixArguments a, int64_t pixels) {
  __shared__ bool selected[kLabelValues];
  __shared__ Jitter jitter;
  const int image = blockIdx.y;
  static_assert(kThreads == kLabelValues, "one thread loads one flag");
  selected[threadIdx.x] = a.selected[image * kLabelValues + threadIdx.x];
  const JitterArguments& c = a.common;
  if (threadIdx.x == 0) jitter = jitter_of(c.jitter, image);
  const Span span(pixels);
  const int64_t start = image * pixels, at = start + span.first;
  const int count = span.count;

  uint8_t label[kGroup] = {}, base_label[kGroup] = {};
  float weight[kGroup] = {};
  if (kVector && count > 0) {
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
  }
  if (!kVector) {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      if (i < count) {
        label[i] = a.label[at + i];
        base_label[i] = a.base_label[at + i];
        if (a.weight_per_pixel) weight[i] = a.base_weight[at + i];
      }
    }
  }
  if (!a.weight_per_pixel) {
    const float image_weight = a.base_weight[image];
#pragma unroll
    for (int i = 0; i < kGroup; ++i) weight[i] = image_weight;
  }
  __syncthreads();

  const int64_t trusted_begin = static_cast<int64_t>(a.margin_top) * c.width;
  const int64_t trusted_end = static_cast<int64_t>(c.height - a.margin_bottom) * c.width;
  bool pasted[kGroup];
  bool any = false, all = true;
#pragma unroll
  for (int i = 0; i < kGroup; ++i) {
    pasted[i] = selected[label[i]];
    any = any || (pasted[i] && i < count);
    all = all && (pasted[i] || i >= count);
    const bool trusted = span.first + i >= trusted_begin && span.first + i < trusted_end;
    weight[i] = mixed_weight(pasted[i], weight[i], trusted, a.has_pasted_weight, a.pasted_weight);
    label[i] = pasted[i] ? label[i] : base_label[i];
  }
  uint8_t bytes[3 * kGroup] = {};
  if (kVector && count > 0) {
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
  }
  if (!kVector) {
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
  color_and_store<kFormat, kVector>(bytes, jitter, c, start + span.block, span.in_block);
}

// Whether every image of the call starts at a whole vector.
bool is_vector(const JitterArguments& a, int64_t pixels) {
  return pixels % kGroup == 0 && is_aligned(a.image, 4) && is_aligned(a.out, 16);
}

dim3 grid_of(int batch, int64_t pixels) {
  return dim3(static_cast<unsigned int>((pixels + kThreads * kGroup - 1) / (kThreads * kGroup)), batch);
}

template <Format kFormat>
void launch_jitter(const JitterArguments& a, int64_t pixels, bool vector, cudaStream_t queue) {
  const dim3 grid = grid_of(a.batch, pixels);
  if (vector) {
    jitter_kernel<kFormat, true><<<grid, kThreads, 0, queue>>>(a, pixels);
  } else {
    jitter_kernel<kFormat, false><<<grid, kThreads, 0, queue>>>(a, pixels);
  }
}

template <Format kFormat>
void launch_classmix(const ClassmixArguments& a, int64_t pixels, bool vector, cudaStream_t queue) {
  const dim3 grid = grid_of(a.common.batch, pixels);
  if (vector) {
    classmix_kernel<kFormat, true><<<grid, kThreads, 0, queue>>>(a, pixels);
  } else {
    classmix_kernel<kFormat, false><<<grid, kThreads, 0, queue>>>(a, pixels);
  }
}

}  // namespace

int jitter_cuda(const JitterArguments& a, int device, void* stream) {
  const DeviceGuard guard(device);
  if (guard.status() != cudaSuccess) return guard.status();
  const int64_t pixels = static_cast<int64_t>(a.height) * a.width;
  const bool vector = is_vector(a, pixels);
  const auto queue = static_cast<cudaStream_t>(stream);
  if (a.format == Format::kFloat32) launch_jitter<Format::kFloat32>(a, pixels, vector, queue);
  if (a.format == Format::kBFloat16) launch_jitter<Format::kBFloat16>(a, pixels, vector, queue);
  if (a.format == Format::kFloat16) launch_jitter<Format::kFloat16>(a, pixels, vector, queue);
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
  const auto queue = static_cast<cudaStream_t>(stream);
  if (c.format == Format::kFloat32) launch_classmix<Format::kFloat32>(a, pixels, vector, queue);
  if (c.format == Format::kBFloat16) launch_classmix<Format::kBFloat16>(a, pixels, vector, queue);
  if (c.format == Format::kFloat16) launch_classmix<Format::kFloat16>(a, pixels, vector, queue);
  return cudaGetLastError();
}

}  // namespace iidm
