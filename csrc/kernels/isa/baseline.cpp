// The kernels for any processor, with vectors of 16 bytes: SSE2, NEON or whatever the compiler makes of them.

#define DDF_ISA baseline
#define DDF_ISA_SIMD "portable.inl"
#include "../kernels_for_isa.inl"
