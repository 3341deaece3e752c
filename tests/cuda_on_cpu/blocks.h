// Between the fibers (blocks.cpp) and the runtime (runtime.cpp).
#pragma once

#include <cstdint>

#include "threads.h"

namespace cuda_on_cpu {

// Runs all blocks of a launch that was found to be possible. `shared_limit`: bytes that a block may have.
void run_blocks(const Config& config, size_t shared_limit, void (*body)(void*), void* closure);

// Keeps an error for cudaGetLastError, and a text for cudaGetErrorString.
void note_failure(cudaError_t error, const char* what, Site site = {});

}  // namespace cuda_on_cpu
