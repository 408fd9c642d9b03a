// The kernels for 64-bit ARM processors: NEON with its conversions of half precision is part of armv8-a.
#if defined(__aarch64__)

#define DDF_ISA neon
#define DDF_ISA_SIMD "neon.inl"
#include "../kernels_for_isa.inl"

#endif
