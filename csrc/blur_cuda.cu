// Blur on a GPU: a block blends a tile down, from the image into shared memory, and then along its lines.
//
// Version 2. A thread makes eight neighbouring sums and reads each value once for all of them, in both directions:
// version 1 read eleven values for each of its sums, which kept the memory pipe busy five times as long, and divided to
// find the place of each. Lines are read from the image 18 times for 8 sums; what is read again comes from the caches.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "blur.h"
#include "device.cuh"

namespace iidm {
namespace {

constexpr int kThreads = 128;
constexpr int kLanes = 32;
constexpr int kLines = kLanes;  // of a tile: a warp's lanes blend along one line each
constexpr int kPixels = 32;
constexpr int kRun = 8;        // sums of a thread
constexpr int kUsualRadius = 5;  // training's; its loops are unrolled

template <class Type>
__device__ __forceinline__ float as_float(Type x) {
  return static_cast<float>(x);
}
template <class Type>
__device__ __forceinline__ Type from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
  return __float2half_rn(x);
}

// Numbers of a line of shared memory. Both are odd numbers of words, so that lanes at one place of 32 lines meet 32 banks.
__host__ __device__ constexpr int down_pitch(int radius, int channels) {
  return ((kPixels + 2 * radius) * channels) | 1;
}
template <class Type>
__host__ __device__ constexpr int out_pitch(int channels) {
  return kPixels * channels + 4 / static_cast<int>(sizeof(Type));
}

// sum[k] = value(k) taps[0] + sum over j of (value(k - j) + value(k + j)) taps[j]
template <int kRadius, class Value>
__device__ __forceinline__ void blend_run(const float* taps, int any_radius, Value value, float* sum) {
  const int radius = kRadius > 0 ? kRadius : any_radius;
  float before[kRun], behind[kRun];  // values j places before and behind those of the sums
#pragma unroll
  for (int k = 0; k < kRun; ++k) {
    before[k] = behind[k] = value(k);
    sum[k] = before[k] * taps[0];
  }
#pragma unroll(kRadius > 0 ? kRadius : 1)
  for (int j = 1; j <= radius; ++j) {
    const float tap = taps[j];
#pragma unroll
    for (int k = kRun - 1; k > 0; --k) before[k] = before[k - 1];
#pragma unroll
    for (int k = 0; k < kRun - 1; ++k) behind[k] = behind[k + 1];
    before[0] = value(-j);
    behind[kRun - 1] = value(kRun - 1 + j);
#pragma unroll
    for (int k = 0; k < kRun; ++k) sum[k] += (before[k] + behind[k]) * tap;
  }
}

// A warp a line, word by word.
template <class Word>
__device__ __forceinline__ void copy_lines(const void* from, int64_t from_pitch, void* to, int64_t to_pitch, int lines,
                                           int words) {
#pragma unroll 1
  for (int i = threadIdx.x % kLanes; i < words; i += kLanes) {
#pragma unroll 4
    for (int line = threadIdx.x / kLanes; line < lines; line += kThreads / kLanes) {
      static_cast<Word*>(to)[line * to_pitch + i] = static_cast<const Word*>(from)[line * from_pitch + i];
    }
  }
}

// A number is pixel * channels + channel of a line. `aligned`: bytes to which all lines of both images are.
template <class Type, int kRadius>
__global__ void __launch_bounds__(kThreads) blur_kernel(BlurArguments a, int aligned) {
  extern __shared__ float shared[];
  const int radius = kRadius > 0 ? kRadius : a.radius, channels = a.channels;
  const int picture = blockIdx.z;
  const int image = picture / a.planes;
  const int64_t numbers = static_cast<int64_t>(a.width) * channels;
  const int y0 = blockIdx.y * kLines, x0 = blockIdx.x * kPixels;
  const int lines = min(kLines, a.height - y0);
  const int width = min(kPixels, a.width - x0) * channels;  // numbers that are written
  const auto* from = static_cast<const Type*>(a.image) + static_cast<int64_t>(picture) * a.height * numbers;
  const int64_t tile = (static_cast<int64_t>(picture) * a.height + y0) * numbers + static_cast<int64_t>(x0) * channels;
  const auto* source = static_cast<const Type*>(a.image) + tile;
  auto* target = static_cast<Type*>(a.out) + tile;
  constexpr int kSize = sizeof(Type);
  if (!a.enabled[image]) {
    if (aligned == 16) {
      const int64_t pitch = numbers * kSize / 16;
      copy_lines<uint4>(source, pitch, target, pitch, lines, width * kSize / 16);
    } else {
      copy_lines<Type>(source, numbers, target, numbers, lines, width);
    }
    return;
  }
  const float* taps = a.taps + image * (radius + 1);
  const int wide = (kPixels + 2 * radius) * channels;
  const int pitch = down_pitch(radius, channels);
  float* down = shared;                                                 // [kLines][pitch]
  auto* out = reinterpret_cast<Type*>(shared + kLines * pitch);         // [kLines][staged]
  constexpr int kPad = 4 / kSize;
  const int staged = kPixels * channels + kPad;

  for (int number = threadIdx.x; number < wide; number += kThreads) {
    const int x = reflected(x0 - radius + number / channels, a.width);
    const Type* column = from + static_cast<int64_t>(x) * channels + number % channels;
    for (int line = 0; line < lines; line += kRun) {
      const int y = y0 + line;
      float sum[kRun];
      if (y >= radius && y + kRun + radius <= a.height) {
        const Type* first = column + y * numbers;
        blend_run<kRadius>(taps, radius, [&](int i) { return as_float(first[i * numbers]); }, sum);
      } else {
        const auto bordered = [&](int i) { return as_float(column[reflected(y + i, a.height) * numbers]); };
        blend_run<0>(taps, radius, bordered, sum);
      }
#pragma unroll
      for (int k = 0; k < kRun; ++k) down[(line + k) * pitch + number] = sum[k];
    }
  }
  __syncthreads();
  const int line = threadIdx.x % kLanes;
  for (int run = threadIdx.x / kLanes; run < kPixels / kRun * channels; run += kThreads / kLanes) {
    const int number = run / channels * (kRun * channels) + run % channels;
    const float* first = down + line * pitch + radius * channels + number;
    float sum[kRun];
    if (line < lines) {
      blend_run<kRadius>(taps, radius, [&](int i) { return first[i * channels]; }, sum);
#pragma unroll
      for (int k = 0; k < kRun; ++k) out[line * staged + number + k * channels] = from_float<Type>(sum[k]);
    }
  }
  __syncthreads();
  if (aligned >= 4) {
    copy_lines<uint32_t>(out, staged / kPad, target, numbers / kPad, lines, width / kPad);
  } else {
    copy_lines<Type>(out, staged, target, numbers, lines, width);
  }
}

template <class Type>
int launch(const BlurArguments& a, cudaStream_t queue) {
  const int64_t line_bytes = static_cast<int64_t>(a.width) * a.channels * sizeof(Type);
  int aligned = 16;
  while (line_bytes % aligned != 0 || !is_aligned(a.image, aligned) || !is_aligned(a.out, aligned)) aligned /= 2;
  // At most 44 KB (radius 25, float32, 3 channels) of the 48 that every architecture grants.
  const int bytes = kLines * (down_pitch(a.radius, a.channels) * static_cast<int>(sizeof(float)) +
                              out_pitch<Type>(a.channels) * static_cast<int>(sizeof(Type)));
  const dim3 grid((a.width + kPixels - 1) / kPixels, (a.height + kLines - 1) / kLines, a.batch * a.planes);
  if (a.radius == kUsualRadius) {
    blur_kernel<Type, kUsualRadius><<<grid, kThreads, bytes, queue>>>(a, aligned);
  } else {
    blur_kernel<Type, 0><<<grid, kThreads, bytes, queue>>>(a, aligned);
  }
  return cudaGetLastError();
}

}  // namespace

int blur_cuda(const BlurArguments& a, int device, void* stream) {
  const DeviceGuard guard(device);
  if (guard.status() != cudaSuccess) return guard.status();
  const auto queue = static_cast<cudaStream_t>(stream);
  if (a.format == Format::kFloat32) return launch<float>(a, queue);
  if (a.format == Format::kBFloat16) return launch<__nv_bfloat16>(a, queue);
  return launch<__half>(a, queue);
}

}  // namespace iidm
