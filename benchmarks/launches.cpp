// Prints what the CUDA part of the extension launches for given sizes, without a GPU: the host code of csrc/*_cuda.cu as
// nvcc compiled it, linked with this runtime, which launches nothing.
//
//   launches BATCH HEIGHT WIDTH CLASSES STRIDE
//   -> a line a launch: op, kernel (mangled), grid x y z, threads, bytes of dynamic shared memory
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "blur.h"
#include "classmix.h"
#include "confusion_matrix.h"

struct Dim3 {
  unsigned x, y, z;
};

namespace {

std::map<const void*, std::string> kernels;  // by the address of the host's function
const char* op = "";

struct Configuration {
  Dim3 grid, block;
  std::size_t shared;
} configuration;

// A device pointer that nobody follows, aligned as torch aligns.
template <class T>
T* somewhere() {
  return reinterpret_cast<T*>(std::uintptr_t{1} << 40);
}

void print_launch(const void* function, Dim3 grid, Dim3 block, std::size_t shared) {
  std::printf("%s %s %u %u %u %u %zu\n", op, kernels[function].c_str(), grid.x, grid.y, grid.z, block.x, shared);
}

}  // namespace

extern "C" {
void** __cudaRegisterFatBinary(void*) { return nullptr; }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 0; }
void __cudaRegisterFunction(void**, const void* host, char*, const char* name, int, void*, void*, void*, void*, int*) {
  kernels[host] = name;
}
unsigned __cudaPushCallConfiguration(Dim3 grid, Dim3 block, std::size_t shared, void*) {
  configuration = {grid, block, shared};
  return 0;
}
int __cudaPopCallConfiguration(Dim3* grid, Dim3* block, std::size_t* shared, void*) {
  *grid = configuration.grid, *block = configuration.block, *shared = configuration.shared;
  return 0;
}
int cudaLaunchKernel(const void* function, Dim3 grid, Dim3 block, void**, std::size_t shared, void*) {
  print_launch(function, grid, block, shared);
  return 0;
}
// CUDA 13 asks for a handle first; here it is the function itself.
int __cudaGetKernel(const void** kernel, const void* function) {
  *kernel = function;
  return 0;
}
int __cudaLaunchKernel(const void* kernel, Dim3 grid, Dim3 block, void** arguments, std::size_t shared, void* stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}
int cudaGetDevice(int* device) {
  *device = 0;
  return 0;
}
int cudaSetDevice(int) { return 0; }
int cudaGetLastError() { return 0; }
const char* cudaGetErrorString(int) { return ""; }
}

int main(int count, char** words) {
  if (count != 6) return 2;
  int sizes[5];
  for (int i = 0; i < 5; ++i) sizes[i] = std::atoi(words[i + 1]);
  const auto [batch, height, width, classes, stride] = sizes;
  using namespace iidm;
  const JitterArguments jitter = {batch,
                                  height,
                                  width,
                                  somewhere<std::uint8_t>(),
                                  {somewhere<bool>(), somewhere<float>(), somewhere<float>(), somewhere<float>(),
                                   somewhere<float>(), somewhere<std::int64_t>()},
                                  {},
                                  somewhere<void>(),
                                  Format::kBFloat16};
  ClassmixArguments mix = {};
  mix.common = jitter;
  mix.label = somewhere<std::uint8_t>();
  mix.base_image = somewhere<std::uint8_t>();
  mix.base_label = somewhere<std::uint8_t>();
  mix.base_weight = somewhere<float>();
  mix.selected = somewhere<bool>();
  mix.out_label = somewhere<std::uint8_t>();
  mix.out_weight = somewhere<float>();
  const std::int64_t pixels = static_cast<std::int64_t>(height) * width;
  const DrawArguments draw = {batch, pixels, mix.label, somewhere<float>(), false, true, true, somewhere<bool>()};
  const BlurArguments blur = {batch,           1, height, width,           3, somewhere<void>(), somewhere<float>(),
                              somewhere<bool>(), 5, somewhere<void>(), Format::kBFloat16};
  const UpsampledShape shape = {batch, classes, height / stride, width / stride, height, width, false};
  int failed = 0;
  op = "draw_classes", failed += draw_classes_cuda(draw, somewhere<std::uint32_t>(), 0, nullptr);
  op = "classmix", failed += classmix_cuda(mix, 0, nullptr);
  op = "jitter", failed += jitter_cuda(jitter, 0, nullptr);
  op = "blur", failed += blur_cuda(blur, 0, nullptr);
  op = "confusion_matrix", failed += confusion_matrix_cuda(somewhere<float>(), mix.label, somewhere<std::int64_t>(),
                                                           shape, 0, nullptr);
  return failed;
}
