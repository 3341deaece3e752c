// CUDA's runtime on the CPU, as far as kernels need it, to compile and run the .cu files with g++ and without a GPU.
// The threads of a block are fibers on one thread of the host; blocks run one after the other; a launch is over when
// it returns. What a GPU would refuse or leave undefined is an error of the launch that names its place.
#pragma once

#include "vectors.h"

#include "threads.h"

#include "intrinsics.h"
