// The kernels for x86-64 processors with AVX2, FMA and F16C.
#if defined(__x86_64__)

#define DDF_ISA avx2
#define DDF_ISA_SIMD "x86_avx2.inl"
#define DDF_ISA_TARGET "avx2,fma,f16c"
#include "../kernels_for_isa.inl"

#endif
