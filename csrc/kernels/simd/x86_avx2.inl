// Vectors of AVX2, with F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "types.inl"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

constexpr int vector_bytes = 32, vector_registers = 16;
template <class T>
using Vector = SizedVector<T, vector_bytes>;

DDF_INLINE Vector<float> load(const BFloat16* p) {
  return widen_bfloat16<vector_bytes>(p);
}
DDF_INLINE void store(BFloat16* p, Vector<float> v) {
  narrow_bfloat16<vector_bytes>(p, v);
}

DDF_INLINE Vector<float> load(const Half* p) {
  __m128i bits;
  std::memcpy(&bits, p, sizeof bits);
  return (Vector<float>)_mm256_cvtph_ps(bits);
}
DDF_INLINE void store(Half* p, Vector<float> v) {
  const __m128i bits = _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(p, &bits, sizeof bits);
}

DDF_INLINE __m256i first_lanes_mask(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
DDF_INLINE Vector<float> load_n(const float* p, int64_t count) {
  return (Vector<float>)_mm256_maskload_ps(p, first_lanes_mask(count));
}
DDF_INLINE void store_n(float* p, Vector<float> v, int64_t count) {
  _mm256_maskstore_ps(p, first_lanes_mask(count), (__m256)v);
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
