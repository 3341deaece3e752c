// Kernels that keep CUDA's rules and kernels that break them, to test what runs kernels on the CPU: rules CASE prints
// the error of the case's launch and what the kernel computed.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>
#include <vector>

namespace {

constexpr int kThreads = 64;

__global__ void different_barriers(int*) {
  if (threadIdx.x < 40) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void ended_threads(int*) {
  if (threadIdx.x == 0) return;
  __syncthreads();
}
__global__ void half_a_warp(int*) {
  if (threadIdx.x % 32 < 16) __syncwarp();
  __syncthreads();
}
__global__ void outside_of_the_mask(int* out) { out[0] = __shfl_sync(0xffffu, 1, 0); }
__global__ void misaligned(int* out) { *reinterpret_cast<uint4*>(out + 1) = make_uint4(1, 2, 3, 4); }
__global__ void misaligned_in_shared_memory(int* out) {
  __shared__ int words[8];  // begins at a multiple of 4 bytes, no more
  out[0] = reinterpret_cast<const int4*>(words)->x;
}
__global__ void outside_of_an_array(int* out) {
  __shared__ int words[kThreads];
  words[threadIdx.x + out[0] + 1] = 1;
}
__global__ void large_array(int* out) {
  __shared__ char bytes[50 * 1024];
  out[0] = bytes[threadIdx.x];
}
__global__ void dynamic_array(int* out) {
  extern __shared__ int words[];
  words[threadIdx.x] = 1;
  out[0] = 1;
}

// Sums over a warp and a block, in the usual ways; all must be equal.
__global__ void sums(int* out) {
  __shared__ int of_warp[2];
  const int thread = threadIdx.x, lane = thread % 32;
  int down = thread, butterfly = thread, up = thread;
  for (int i = 16; i > 0; i /= 2) down += __shfl_down_sync(0xffffffffu, down, i);
  for (int i = 16; i > 0; i /= 2) butterfly += __shfl_xor_sync(0xffffffffu, butterfly, i);
  for (int i = 1; i < 32; i *= 2) {
    const int before = __shfl_up_sync(0xffffffffu, up, i);
    if (lane >= i) up += before;
  }
  const int last = __shfl_sync(0xffffffffu, up, 31);
  const int first = __shfl_sync(0xffffffffu, down, 0);
  const int reduced = __reduce_add_sync(0xffffffffu, thread);
  if (lane == 0) of_warp[thread / 32] = butterfly;
  if (first != butterfly || last != butterfly || reduced != butterfly) out[1] = 1;
  if (__ballot_sync(0xffffffffu, thread % 2) != 0xaaaaaaaau || !__any_sync(0xffffffffu, lane == 7)) out[2] = 1;
  if (__all_sync(0xffffffffu, lane == 7) || __popc(__match_any_sync(0xffffffffu, lane / 8)) != 8) out[3] = 1;
  if (__syncthreads_count(thread < 5) != 5 || __syncthreads_and(thread < 5) || !__syncthreads_or(thread < 5)) out[4] = 1;
  atomicAdd(reinterpret_cast<float*>(out + 5), 0.5f);
  atomicMax(&out[6], thread);
  if (thread == 0) out[0] = of_warp[0] + of_warp[1];
}
// A block of 48 threads: 16 lanes of its second warp do not exist. Lanes from 8 on end early.
__global__ void warp_in_parts(int* out) {
  const int lane = threadIdx.x % 32;
  if (lane >= 8) return;
  out[threadIdx.x / 32] = __reduce_max_sync(0xffu, static_cast<int>(threadIdx.x));
}
__global__ void places(int* out) {
  const int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  atomicAdd(&out[block * 24 + thread], 1);
}
__global__ void garbage(int* out) {
  __shared__ float number;
  extern __shared__ float numbers[];
  out[0] = number != number && numbers[3] != numbers[3];
}
__global__ void halves(int* out) {
  out[0] = __bfloat16_as_ushort(__float2bfloat16_rn(1.00390625f)) == 0x3f80 && __half2float(__float2half_rn(65519.0f)) == 65504.0f;
  out[1] = __byte_perm(0x33221100u, 0x77665544u, 0x7410u) == 0x77441100u && __saturatef(2.0f) == 1.0f;
}

// For the thread sanitizer: the first three race, the others do not.
__global__ void blocks_race(int* out) {
  if (threadIdx.x == 0) out[0] += 1;
}
__global__ void threads_race(int* out) {
  __shared__ int words[kThreads];
  words[threadIdx.x] = 1;
  out[threadIdx.x] = words[kThreads - 1 - threadIdx.x];
}
__global__ void lanes_race(int* out) {
  __shared__ int words[kThreads];
  words[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);  // a shuffle orders no memory
  out[threadIdx.x] = words[threadIdx.x ^ 1];
}
__global__ void a_barrier_orders(int* out) {
  __shared__ int words[kThreads];
  for (int i = 0; i < 3; ++i) {
    words[threadIdx.x] = i;
    __syncthreads();
    out[blockIdx.x * kThreads + threadIdx.x] += words[kThreads - 1 - threadIdx.x];
    __syncthreads();
  }
}
__global__ void a_warp_orders(int* out) {
  __shared__ volatile int words[kThreads];
  for (int i = 0; i < 3; ++i) {
    words[threadIdx.x] = i;
    __syncwarp();
    out[blockIdx.x * kThreads + threadIdx.x] += words[threadIdx.x ^ 1];
    __syncwarp();
  }
}

using Kernel = void (*)(int*);
struct Case {
  const char* name;
  Kernel kernel;
  dim3 grid = 2, block = kThreads;
  size_t shared = 0;
  int granted = 0;  // bytes of dynamic shared memory that are asked for first
};
const Case kCases[] = {
    {"different_barriers", different_barriers},
    {"ended_threads", ended_threads},
    {"half_a_warp", half_a_warp},
    {"outside_of_the_mask", outside_of_the_mask},
    {"misaligned", misaligned},
    {"misaligned_in_shared_memory", misaligned_in_shared_memory},
    {"outside_of_an_array", outside_of_an_array},
    {"large_array", large_array},
    {"shared_memory_without_leave", dynamic_array, 1, kThreads, 50 * 1024},
    {"shared_memory_with_leave", dynamic_array, 1, kThreads, 50 * 1024, 50 * 1024},
    {"too_many_threads", places, 1, dim3(1024, 2)},
    {"too_many_pictures", places, dim3(1, 1, 65536), 1},
    {"no_blocks", places, dim3(0), 1},
    {"sums", sums, 1},
    {"warp_in_parts", warp_in_parts, 1, 48},
    {"places", places, dim3(2, 3, 2), dim3(4, 3, 2)},
    {"garbage", garbage, 1, 1, 16},
    {"halves", halves, 1, 1},
    {"blocks_race", blocks_race},
    {"threads_race", threads_race, 1},
    {"lanes_race", lanes_race, 1},
    {"a_barrier_orders", a_barrier_orders},
    {"a_warp_orders", a_warp_orders},
};

int run(const Case& c) {
  std::vector<int> out(12 * kThreads, 0);
  if (c.granted > 0) {
    const cudaError_t error = cudaFuncSetAttribute(c.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, c.granted);
    if (error != cudaSuccess) return error;
  }
  c.kernel<<<c.grid, c.block, c.shared>>>(out.data());
  const cudaError_t error = cudaGetLastError();
  std::printf("error %d\n%s\n", error, cudaGetErrorString(error));
  for (const int value : out) std::printf("%d ", value);
  std::printf("\n");
  return 0;
}

}  // namespace

int main(int count, char** words) {
  for (int i = 1; i < count; ++i) {
    for (const Case& c : kCases) {
      if (std::strcmp(words[i], c.name) == 0 && run(c) != 0) return 2;
    }
  }
  return 0;
}
