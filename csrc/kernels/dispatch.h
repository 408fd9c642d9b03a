// The instruction sets that were compiled in, and the choice among them at run time.
#pragma once

#include "problem.h"

namespace ddfnet {

// The best set that this processor and operating system support. The environment variable DDFNET_CPU_TIER ("baseline",
// "avx2", "avx512") asks for another; it is read once. Null if that is unknown or not supported here.
const Kernels* chosen_kernels();

// The set of this name if it was compiled in and runs here, else null.
const Kernels* find_kernels(const char* name);

}  // namespace ddfnet
