// What the C++ and the CUDA build spell differently.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define IIDM_HD __host__ __device__ __forceinline__
#else
#define IIDM_HD inline __attribute__((always_inline))
#endif

// A wheel runs on any x86-64; the inner loops are compiled for the wider registers as well and chosen at load time.
// avx512f alone has no operations on 16-bit numbers: loops over bfloat16 and labels then stay in 256-bit registers.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#if __GNUC__ >= 12  // knows the levels of x86-64
#define IIDM_CLONES __attribute__((target_clones("arch=x86-64-v4", "avx512f", "avx2", "default")))
#else
#define IIDM_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#else
#define IIDM_CLONES
#endif

namespace iidm {

constexpr int kIgnored = 255;

// Floating-point formats of the tensors. The values are the codes of the Python side.
enum class Format : int { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2 };

}  // namespace iidm
