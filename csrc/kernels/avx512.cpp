// The kernels for x86-64 processors with AVX-512 F, BW, DQ and VL.
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
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,prefer-vector-width=512")
#endif

#define DDF_VECTOR_BYTES 64
#define DDF_TIER "avx512"
namespace ddfnet {
namespace avx512 {
#include "tier.inl"
}  // namespace avx512
extern const Kernels avx512_kernels = avx512::table;
}  // namespace ddfnet

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif  // __x86_64__
