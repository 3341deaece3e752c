// Launches, barriers, shared memory and what a kernel asks of its place in the grid. The work is in cuda_on_cpu.cpp.
#pragma once

#include <tuple>
#include <type_traits>
#include <utility>

#include "vectors.h"

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace cuda_on_cpu {

struct Config {
  dim3 grid, block;
  size_t shared;
  cudaStream_t stream;
};
inline Config config(dim3 grid, dim3 block, size_t shared = 0, cudaStream_t stream = nullptr) {
  return {grid, block, shared, stream};
}

// A line of a kernel.
struct Site {
  const char* file;
  int line;
};

// Runs `body(closure)` once for each thread of the grid. Errors are left for cudaGetLastError.
void run(const Config& config, const void* kernel, void (*body)(void*), void* closure);

// What kernel<<<...>>>(args) becomes. As on a GPU, the arguments are converted and copied once, at the launch.
template <class... Parameters, class... Arguments>
void launch(const Config& config, void (*kernel)(Parameters...), Arguments&&... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<std::decay_t<Parameters>...> values;
  } call{kernel, {static_cast<Parameters>(arguments)...}};
  const auto body = [](void* closure) {
    const auto* c = static_cast<const Call*>(closure);
    std::apply(c->kernel, c->values);
  };
  run(config, reinterpret_cast<const void*>(kernel), body, &call);
}

// The error of the launch that is running; the thread that calls it is not resumed.
[[noreturn]] void fail(cudaError_t error, const char* what, Site site);

enum class Vote { kNone, kCount, kAnd, kOr };
// Waits for all threads of the block; what they vote for.
int barrier(Site site, Vote vote = Vote::kNone, int value = 0);

// What the lanes of a warp gave to one call.
struct Given {
  uint64_t value[32];
  uint32_t lanes;  // bit i: lane i takes part
};
// Waits for all lanes of the mask that have not ended. `ordered`: what they wrote before is seen after.
const Given& exchange(uint32_t mask, uint64_t value, bool ordered, Site site);
int lane();

// Between what comes before it here and what comes after it in a thread that calls it later.
void fence();

// A variable of the block: an allocation of its own, full of garbage when the block begins, and aligned as its
// declaration demands, not better.
struct Slot {
  uint64_t block = 0;
  void* variable = nullptr;
};
void* shared_variable(Slot& slot, size_t bytes, size_t alignment);
void* dynamic_variable(size_t alignment);

// What `__shared__ T name` becomes; each declaration has a Tag of its own.
template <class T, class Tag>
T& shared(Tag, size_t alignment = alignof(T)) {
  static Slot slot;
  return *static_cast<T*>(shared_variable(slot, sizeof(T), alignment));
}
// What `extern __shared__ T name[]` becomes.
template <class T>
T* dynamic_shared(size_t alignment = alignof(T)) {
  return static_cast<T*>(dynamic_variable(alignment));
}

cudaError_t set_dynamic_shared_bytes(const void* kernel, int bytes);

}  // namespace cuda_on_cpu

#define CUDA_ON_CPU_SITE cuda_on_cpu::Site{__FILE__, __LINE__}
#define __syncthreads() static_cast<void>(cuda_on_cpu::barrier(CUDA_ON_CPU_SITE))
#define __syncthreads_count(p) cuda_on_cpu::barrier(CUDA_ON_CPU_SITE, cuda_on_cpu::Vote::kCount, (p) ? 1 : 0)
#define __syncthreads_and(p) cuda_on_cpu::barrier(CUDA_ON_CPU_SITE, cuda_on_cpu::Vote::kAnd, (p) ? 1 : 0)
#define __syncthreads_or(p) cuda_on_cpu::barrier(CUDA_ON_CPU_SITE, cuda_on_cpu::Vote::kOr, (p) ? 1 : 0)
#define __threadfence() cuda_on_cpu::fence()
#define __threadfence_block() cuda_on_cpu::fence()

enum cudaFuncAttribute {
  cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
  cudaFuncAttributePreferredSharedMemoryCarveout = 9,
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t stream = nullptr);
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  return cuda_on_cpu::set_dynamic_shared_bytes(reinterpret_cast<const void*>(kernel), value);
}
