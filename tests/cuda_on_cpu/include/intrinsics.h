// Atomics, warp functions, loads with a hint, and the arithmetic that CUDA has beside C++'s.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>

#include "threads.h"

// As in CUDA, of two numbers of any kind.
template <class A, class B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  return b < a ? b : a;
}
template <class A, class B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  return a < b ? b : a;
}

namespace cuda_on_cpu {

// The types for which a GPU has an atomic addition.
template <class T>
constexpr bool adds_atomically = std::is_same_v<T, int> || std::is_same_v<T, unsigned int> ||
                                 std::is_same_v<T, unsigned long long> || std::is_same_v<T, float> ||
                                 std::is_same_v<T, double>;

template <class T, class Change>
T changed_atomically(T* at, Change change) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a GPU has atomics of 4 and of 8 bytes");
  using Word = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  auto* word = reinterpret_cast<Word*>(at);
  Word old = __atomic_load_n(word, __ATOMIC_RELAXED);
  for (;;) {
    T before;
    std::memcpy(&before, &old, sizeof before);
    const T after = change(before);
    Word wanted;
    std::memcpy(&wanted, &after, sizeof wanted);
    if (__atomic_compare_exchange_n(word, &old, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return before;
  }
}

template <class T>
uint64_t to_word(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "a warp function takes up to 8 bytes");
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof value);
  return word;
}
template <class T>
T from_word(uint64_t word) {
  T value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

// What lane `from` gave. Garbage where it takes no part, as on a GPU.
template <class T>
T taken(const Given& given, int from) {
  return from_word<T>((given.lanes >> from) & 1u ? given.value[from] : ~uint64_t{0});
}

template <class T>
T shuffled(uint32_t mask, T value, int from, bool inside, Site site) {
  const Given& given = exchange(mask, to_word(value), false, site);
  return taken<T>(given, inside ? from : lane());
}
template <class T>
T shuffle(Site site, uint32_t mask, T value, int source, int width = 32) {
  return shuffled(mask, value, (lane() & ~(width - 1)) + (source & (width - 1)), true, site);
}
template <class T>
T shuffle_up(Site site, uint32_t mask, T value, unsigned int delta, int width = 32) {
  const int from = lane() - static_cast<int>(delta);
  return shuffled(mask, value, from, from >= (lane() & ~(width - 1)), site);
}
template <class T>
T shuffle_down(Site site, uint32_t mask, T value, unsigned int delta, int width = 32) {
  const int from = lane() + static_cast<int>(delta);
  return shuffled(mask, value, from, from < (lane() & ~(width - 1)) + width, site);
}
template <class T>
T shuffle_xor(Site site, uint32_t mask, T value, int bits, int width = 32) {
  const int from = lane() ^ bits;
  return shuffled(mask, value, from, from < (lane() & ~(width - 1)) + width, site);
}

inline uint32_t ballot(Site site, uint32_t mask, bool predicate) {
  const Given& given = exchange(mask, predicate, false, site);
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<uint32_t>((given.lanes >> i & 1u) && given.value[i]) << i;
  return bits;
}
inline int all_of(Site site, uint32_t mask, bool predicate) {
  const Given& given = exchange(mask, predicate, false, site);
  for (int i = 0; i < 32; ++i) {
    if ((given.lanes >> i & 1u) && !given.value[i]) return 0;
  }
  return 1;
}
struct SyncWarp {
  Site site;
  void operator()(uint32_t mask = 0xffffffffu) const { exchange(mask, 0, true, site); }
};
template <class T>
uint32_t matching(Site site, uint32_t mask, T value) {
  const Given& given = exchange(mask, to_word(value), false, site);
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<uint32_t>((given.lanes >> i & 1u) && given.value[i] == to_word(value)) << i;
  return bits;
}
template <class T, class Join>
T reduced(Site site, uint32_t mask, T value, Join join) {
  const Given& given = exchange(mask, to_word(value), false, site);
  bool first = true;
  T result = value;
  for (int i = 0; i < 32; ++i) {
    if (!(given.lanes >> i & 1u)) continue;
    result = first ? from_word<T>(given.value[i]) : join(result, from_word<T>(given.value[i]));
    first = false;
  }
  return result;
}

}  // namespace cuda_on_cpu

template <class T, class U>
T atomicAdd(T* at, U by) {
  static_assert(cuda_on_cpu::adds_atomically<T>, "a GPU has no atomic addition of this type");
  return cuda_on_cpu::changed_atomically(at, [by](T x) { return static_cast<T>(x + static_cast<T>(by)); });
}
template <class T, class U>
T atomicMin(T* at, U with) {
  return cuda_on_cpu::changed_atomically(at, [with](T x) { return min(x, static_cast<T>(with)); });
}
template <class T, class U>
T atomicMax(T* at, U with) {
  return cuda_on_cpu::changed_atomically(at, [with](T x) { return max(x, static_cast<T>(with)); });
}
template <class T, class U>
T atomicAnd(T* at, U with) {
  return cuda_on_cpu::changed_atomically(at, [with](T x) { return static_cast<T>(x & static_cast<T>(with)); });
}
template <class T, class U>
T atomicOr(T* at, U with) {
  return cuda_on_cpu::changed_atomically(at, [with](T x) { return static_cast<T>(x | static_cast<T>(with)); });
}
template <class T, class U>
T atomicExch(T* at, U with) {
  return cuda_on_cpu::changed_atomically(at, [with](T) { return static_cast<T>(with); });
}
template <class T, class U, class V>
T atomicCAS(T* at, U expected, V with) {
  return cuda_on_cpu::changed_atomically(
      at, [=](T x) { return x == static_cast<T>(expected) ? static_cast<T>(with) : x; });
}

#define __shfl_sync(...) cuda_on_cpu::shuffle(CUDA_ON_CPU_SITE, __VA_ARGS__)
#define __shfl_up_sync(...) cuda_on_cpu::shuffle_up(CUDA_ON_CPU_SITE, __VA_ARGS__)
#define __shfl_down_sync(...) cuda_on_cpu::shuffle_down(CUDA_ON_CPU_SITE, __VA_ARGS__)
#define __shfl_xor_sync(...) cuda_on_cpu::shuffle_xor(CUDA_ON_CPU_SITE, __VA_ARGS__)
#define __ballot_sync(mask, p) cuda_on_cpu::ballot(CUDA_ON_CPU_SITE, mask, (p) != 0)
#define __any_sync(mask, p) (cuda_on_cpu::ballot(CUDA_ON_CPU_SITE, mask, (p) != 0) != 0 ? 1 : 0)
#define __all_sync(mask, p) cuda_on_cpu::all_of(CUDA_ON_CPU_SITE, mask, (p) != 0)
#define __match_any_sync(mask, value) cuda_on_cpu::matching(CUDA_ON_CPU_SITE, mask, value)
#define CUDA_ON_CPU_REDUCED(mask, value, by) \
  cuda_on_cpu::reduced(CUDA_ON_CPU_SITE, mask, value, [](auto a, auto b) { return static_cast<decltype(a)>(by); })
#define __reduce_add_sync(mask, value) CUDA_ON_CPU_REDUCED(mask, value, a + b)
#define __reduce_min_sync(mask, value) CUDA_ON_CPU_REDUCED(mask, value, b < a ? b : a)
#define __reduce_max_sync(mask, value) CUDA_ON_CPU_REDUCED(mask, value, a < b ? b : a)
#define __reduce_and_sync(mask, value) CUDA_ON_CPU_REDUCED(mask, value, a & b)
#define __reduce_or_sync(mask, value) CUDA_ON_CPU_REDUCED(mask, value, a | b)
#define __reduce_xor_sync(mask, value) CUDA_ON_CPU_REDUCED(mask, value, a ^ b)
#define __syncwarp(...) (cuda_on_cpu::SyncWarp{CUDA_ON_CPU_SITE}(__VA_ARGS__))
// The hardware may always answer so: nothing promises that lanes run together.
inline unsigned int __activemask() { return 1u << cuda_on_cpu::lane(); }

// Loads and stores with a hint for the caches. always_inline: a misaligned address is reported at the kernel's line.
template <class T>
__forceinline__ T __ldg(const T* from) {
  return *from;
}
template <class T>
__forceinline__ T __ldcs(const T* from) {
  return *from;
}
template <class T>
__forceinline__ void __stcs(T* to, T value) {
  *to = value;
}

inline int __popc(unsigned int x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned int>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned int __byte_perm(unsigned int a, unsigned int b, unsigned int selector) {
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  unsigned int out = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned int nibble = selector >> (4 * i) & 15u;
    unsigned int byte = bytes >> (8 * (nibble & 7u)) & 255u;
    if (nibble & 8u) byte = byte & 128u ? 255u : 0u;  // its sign, eight times
    out |= byte << (8 * i);
  }
  return out;
}
inline float __int_as_float(int x) { return cuda_on_cpu::from_word<float>(static_cast<uint32_t>(x)); }
inline float __uint_as_float(unsigned int x) { return cuda_on_cpu::from_word<float>(x); }
inline int __float_as_int(float x) { return static_cast<int>(cuda_on_cpu::to_word(x)); }
inline unsigned int __float_as_uint(float x) { return static_cast<unsigned int>(cuda_on_cpu::to_word(x)); }
inline float __expf(float x) { return std::exp(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
