// Vectors of AVX-512.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "types.inl"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

constexpr int vector_bytes = 64, vector_registers = 32;
template <class T>
using Vector = SizedVector<T, vector_bytes>;

// Rounds to nearest even in integers; a NaN stays one. By intrinsics, because the compiler takes
// __builtin_convertvector apart at this width.
DDF_INLINE Vector<float> load(const BFloat16* p) {
  __m256i narrow;
  std::memcpy(&narrow, p, sizeof narrow);
  return (Vector<float>)_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, narrow), 16);
}
DDF_INLINE void store(BFloat16* p, Vector<float> v) {
  const Vector<uint32_t> bits = (Vector<uint32_t>)v;
  const Vector<uint32_t> rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const __mmask16 nan = _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
  const __m512i chosen = _mm512_mask_mov_epi32((__m512i)rounded, nan, _mm512_set1_epi32(0x7fc0));
  const __m256i narrow = _mm512_maskz_cvtepi32_epi16(0xffff, chosen);
  std::memcpy(p, &narrow, sizeof narrow);
}

DDF_INLINE Vector<float> load(const Half* p) {
  __m256i bits;
  std::memcpy(&bits, p, sizeof bits);
  return (Vector<float>)_mm512_maskz_cvtph_ps(0xffff, bits);
}
DDF_INLINE void store(Half* p, Vector<float> v) {
  const __m256i bits = _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(p, &bits, sizeof bits);
}

DDF_INLINE Vector<float> load_n(const float* p, int64_t count) {
  return (Vector<float>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
}
DDF_INLINE void store_n(float* p, Vector<float> v, int64_t count) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), (__m512)v);
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
