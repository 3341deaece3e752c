// The runtime's functions: what a launch may ask for, errors and their texts, and what the compiler's own checks of
// kernels call.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "blocks.h"

namespace cuda_on_cpu {
namespace {

constexpr int kGrantedBytes = 48 * 1024;   // shared memory that a block has on every GPU
constexpr int kLargestBytes = 163 * 1024;  // that it may ask for on one of compute capability 8.0

cudaError_t last_error = cudaSuccess;
cudaError_t explained_error = cudaSuccess;
std::string explanation;
std::map<const void*, int> granted;  // kernel -> bytes of dynamic shared memory that were asked for

bool possible(const Config& c) {
  const auto between = [](unsigned int value, unsigned int largest) { return value >= 1 && value <= largest; };
  return between(c.grid.x, 2147483647u) && between(c.grid.y, 65535) && between(c.grid.z, 65535) &&
         between(c.block.x, 1024) && between(c.block.y, 1024) && between(c.block.z, 64) &&
         c.block.x * c.block.y * c.block.z <= 1024;
}

}  // namespace

void note_failure(cudaError_t error, const char* what, Site site) {
  last_error = explained_error = error;
  explanation = what;
  if (site.file != nullptr) explanation += std::string(" (") + site.file + ":" + std::to_string(site.line) + ")";
  std::fprintf(stderr, "CUDA on the CPU: %s\n", explanation.c_str());
}

void run(const Config& config, const void* kernel, void (*body)(void*), void* closure) {
  if (!possible(config)) return note_failure(cudaErrorInvalidConfiguration, "no GPU has such a grid or such blocks");
  const auto found = granted.find(kernel);
  const size_t limit = found == granted.end() || found->second < kGrantedBytes ? kGrantedBytes : found->second;
  if (config.shared > limit) {
    return note_failure(cudaErrorInvalidValue, "a launch asks for more shared memory than was granted");
  }
  run_blocks(config, limit, body, closure);
}

cudaError_t set_dynamic_shared_bytes(const void* kernel, int bytes) {
  if (bytes < 0 || bytes > kLargestBytes) return cudaErrorInvalidValue;
  granted[kernel] = bytes;
  return cudaSuccess;
}

}  // namespace cuda_on_cpu

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
cudaError_t cudaPeekAtLastError() { return cuda_on_cpu::last_error; }
cudaError_t cudaGetLastError() {
  const cudaError_t error = cuda_on_cpu::last_error;
  cuda_on_cpu::last_error = cudaSuccess;
  return error;
}
const char* cudaGetErrorString(cudaError_t error) {
  if (error == cudaSuccess) return "no error";
  return error == cuda_on_cpu::explained_error ? cuda_on_cpu::explanation.c_str() : "an error of the CUDA runtime";
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 132 : cuda_on_cpu::kLargestBytes;
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t) {
  std::memset(at, value, bytes);
  return cudaSuccess;
}

#ifndef CUDA_ON_CPU_UNDEFINED
// What -fsanitize=alignment,bounds calls; their first argument begins with the place. So no library is needed, and
// the launch has an error, as on a GPU.
extern "C" {
struct Place {
  const char* file;
  uint32_t line;
};
void __ubsan_handle_type_mismatch_v1(const Place* place, uintptr_t) {
  cuda_on_cpu::fail(cudaErrorMisalignedAddress, "an address is no multiple of what its type needs",
                    {place->file, static_cast<int>(place->line)});
}
void __ubsan_handle_out_of_bounds(const Place* place, uintptr_t) {
  cuda_on_cpu::fail(cudaErrorLaunchFailure, "an index lies outside of its array",
                    {place->file, static_cast<int>(place->line)});
}
}
#endif

#ifdef CUDA_ON_CPU_THREAD
// With --param tsan-distinguish-volatile=1 volatile accesses call these first. To the sanitizer they are then atomic:
// they race with plain accesses and not with atomics.
extern "C" {
#define CUDA_ON_CPU_VOLATILE(bytes, bits)                                                       \
  uint##bits##_t __tsan_atomic##bits##_load(const volatile void*, int);                         \
  uint##bits##_t __tsan_atomic##bits##_fetch_or(volatile void*, uint##bits##_t, int);           \
  void __tsan_volatile_read##bytes(void* at) { __tsan_atomic##bits##_load(at, __ATOMIC_RELAXED); } \
  void __tsan_volatile_write##bytes(void* at) { __tsan_atomic##bits##_fetch_or(at, 0, __ATOMIC_RELAXED); }
CUDA_ON_CPU_VOLATILE(1, 8)
CUDA_ON_CPU_VOLATILE(2, 16)
CUDA_ON_CPU_VOLATILE(4, 32)
CUDA_ON_CPU_VOLATILE(8, 64)
}
#endif
