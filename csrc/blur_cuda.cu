// Blur on a GPU: a block loads a tile of numbers with its reflected border into shared memory as floats, blends down
// into a second tile, then along the lines into the output. Each number of the image is read about 1.7 times.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "blur.h"
#include "device.cuh"

namespace iidm {
namespace {

constexpr int kLines = 32;
constexpr int kPixels = 32;
constexpr int kThreads = 256;

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

// A number is pixel * channels + channel of a line.
template <class Type>
__global__ void __launch_bounds__(kThreads) blur_kernel(BlurArguments a) {
  extern __shared__ float shared[];
  const int radius = a.radius, channels = a.channels;
  const int picture = blockIdx.z;
  const int image = picture / a.planes;
  const int64_t numbers = static_cast<int64_t>(a.width) * channels;
  const auto* from = static_cast<const Type*>(a.image) + picture * a.height * numbers;
  auto* to = static_cast<Type*>(a.out) + picture * a.height * numbers;
  const int y0 = blockIdx.y * kLines, x0 = blockIdx.x * kPixels;
  const int lines = min(kLines, a.height - y0);
  const int width = min(kPixels, a.width - x0) * channels;  // numbers that are written
  if (!a.enabled[image]) {
    for (int i = threadIdx.x; i < lines * width; i += kThreads) {
      const int64_t at = (y0 + i / width) * numbers + static_cast<int64_t>(x0) * channels + i % width;
      to[at] = from[at];
    }
    return;
  }
  const float* taps = a.taps + image * (radius + 1);
  const int wide = (kPixels + 2 * radius) * channels;
  float* loaded = shared;                          // [kLines + 2 radius][wide]
  float* down = shared + (kLines + 2 * radius) * wide;  // [kLines][wide]
  for (int i = threadIdx.x; i < (lines + 2 * radius) * wide; i += kThreads) {
    const int line = i / wide, number = i % wide;
    const int y = reflected(y0 - radius + line, a.height);
    const int x = reflected(x0 - radius + number / channels, a.width);
    loaded[i] = as_float(from[y * numbers + static_cast<int64_t>(x) * channels + number % channels]);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < lines * wide; i += kThreads) {
    const float* centre = loaded + i + radius * wide;
    float sum = centre[0] * taps[0];
    for (int j = 1; j <= radius; ++j) sum += (centre[-j * wide] + centre[j * wide]) * taps[j];
    down[i] = sum;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < lines * width; i += kThreads) {
    const int line = i / width, number = i % width;
    const float* centre = down + line * wide + number + radius * channels;
    float sum = centre[0] * taps[0];
    for (int j = 1; j <= radius; ++j) sum += (centre[-j * channels] + centre[j * channels]) * taps[j];
    to[(y0 + line) * numbers + static_cast<int64_t>(x0) * channels + number] = from_float<Type>(sum);
  }
}

template <class Type>
int launch(const BlurArguments& a, cudaStream_t queue) {
  const int wide = (kPixels + 2 * a.radius) * a.channels;
  const int bytes = static_cast<int>(sizeof(float)) * (2 * kLines + 2 * a.radius) * wide;
  if (bytes > 48 * 1024) {
    // More than every architecture grants unasked; up to 160 KiB (radius 25: 129 KB) from compute capability 8.0 on.
    const cudaError_t error =
        cudaFuncSetAttribute(blur_kernel<Type>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess) return error;
  }
  const dim3 grid((a.width + kPixels - 1) / kPixels, (a.height + kLines - 1) / kLines, a.batch * a.planes);
  blur_kernel<Type><<<grid, kThreads, bytes, queue>>>(a);
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
