// What the sanitizers must be told of fibers. Without a sanitizer all of it is nothing.
#pragma once

#include <cstddef>

#ifdef CUDA_ON_CPU_THREAD
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#endif
#ifdef CUDA_ON_CPU_ADDRESS
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_on_cpu::sanitizers {

#ifdef CUDA_ON_CPU_THREAD
constexpr bool kThread = true;
#else
constexpr bool kThread = false;
#endif

// What came before `before(at)` in a thread is seen by what comes after `after(at)` in another one.
inline void before([[maybe_unused]] void* at) {
#ifdef CUDA_ON_CPU_THREAD
  __tsan_release(at);
#endif
}
inline void after([[maybe_unused]] void* at) {
#ifdef CUDA_ON_CPU_THREAD
  __tsan_acquire(at);
#endif
}

// As long as it lives, allocations and accesses are nobody's.
struct Unnoticed {
#ifdef CUDA_ON_CPU_THREAD
  Unnoticed() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__), AnnotateIgnoreWritesBegin(__FILE__, __LINE__); }
  ~Unnoticed() { AnnotateIgnoreWritesEnd(__FILE__, __LINE__), AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
#else
  Unnoticed() {}
#endif
};

inline void* new_fiber() {
#ifdef CUDA_ON_CPU_THREAD
  return __tsan_create_fiber(0);
#else
  return nullptr;
#endif
}
inline void* this_fiber() {
#ifdef CUDA_ON_CPU_THREAD
  return __tsan_get_current_fiber();
#else
  return nullptr;
#endif
}

// Right before a switch to another stack, and right after it on that stack: returns the one that was left.
struct Stack {
  const void* bottom = nullptr;
  size_t bytes = 0;
};
inline void leaving([[maybe_unused]] void* to_fiber, [[maybe_unused]] Stack to) {
#ifdef CUDA_ON_CPU_THREAD
  __tsan_switch_to_fiber(to_fiber, __tsan_switch_to_fiber_no_sync);
#endif
#ifdef CUDA_ON_CPU_ADDRESS
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, to.bottom, to.bytes);
#endif
}
inline Stack arrived() {
  Stack from;
#ifdef CUDA_ON_CPU_ADDRESS
  __sanitizer_finish_switch_fiber(nullptr, &from.bottom, &from.bytes);
#endif
  return from;
}

}  // namespace cuda_on_cpu::sanitizers
