// The kernels for x86-64 processors with AVX2, FMA and F16C.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "problem.h"

// What follows is compiled for this instruction set, and is reached only where the processor has it.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif

#define DDF_VECTOR_BYTES 32
#define DDF_TIER "avx2"
namespace ddfnet {
namespace avx2 {
#include "tier.inl"
}  // namespace avx2
extern const Kernels avx2_kernels = avx2::table;
}  // namespace ddfnet

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__
