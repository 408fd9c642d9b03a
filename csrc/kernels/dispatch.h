// The instruction sets that were compiled in, and the choice among them at run time.
#pragma once

#include <vector>

#include "problem.h"

// The instruction sets of this architecture, best first: X(name, condition under which the processor runs it).
// __builtin_cpu_supports also asks whether the operating system saves the wide registers.
#if defined(__x86_64__)
#define DDF_FOR_EACH_ISA(X)                                                                                  \
  X(avx512, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&                       \
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&                  \
                __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))                             \
  X(avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) \
  X(baseline, true)
#elif defined(__aarch64__)
#define DDF_FOR_EACH_ISA(X) X(neon, true) X(baseline, true)
#else
#define DDF_FOR_EACH_ISA(X) X(baseline, true)
#endif

namespace ddfnet {

// The kernels of every instruction set that this processor and operating system run, best first.
std::vector<const Kernels*> supported_kernels();

// The kernels of the instruction set of this name, null where it was not compiled in or does not run here.
const Kernels* find_kernels(const char* name);

// The kernels that the environment variable DDFNET_CPU_ISA names, null where they are not supported; without it the
// best that are. The variable is read once.
const Kernels* chosen_kernels();

}  // namespace ddfnet
