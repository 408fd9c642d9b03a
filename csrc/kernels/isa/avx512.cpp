// The kernels for x86-64 processors with AVX-512 F, BW, DQ and VL.
#if defined(__x86_64__)

#define DDF_ISA avx512
#define DDF_ISA_SIMD "x86_avx512.inl"
#if defined(__clang__)
#define DDF_ISA_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"
#else  // GCC's tuning for most processors would keep its own loops to 256 bits
#define DDF_ISA_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,prefer-vector-width=512"
#endif
#include "../kernels_for_isa.inl"

#endif
