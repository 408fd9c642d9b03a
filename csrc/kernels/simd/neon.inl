// Vectors of NEON.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "types.inl"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

constexpr int vector_bytes = 16, vector_registers = 32;
template <class T>
using Vector = SizedVector<T, vector_bytes>;

DDF_INLINE Vector<float> load(const BFloat16* p) {
  return (Vector<float>)vshll_n_u16(vld1_u16(&p->bits), 16);
}
// Rounds to nearest even in integers; a NaN stays one.
DDF_INLINE void store(BFloat16* p, Vector<float> v) {
  const uint32x4_t bits = (uint32x4_t)v;
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint16x4_t rounded = vaddhn_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  const uint16x4_t number = vmovn_u32(vceqq_f32((float32x4_t)v, (float32x4_t)v));
  vst1_u16(&p->bits, vbsl_u16(number, rounded, vdup_n_u16(0x7fc0)));
}

DDF_INLINE Vector<float> load(const Half* p) {
  return (Vector<float>)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)));
}
DDF_INLINE void store(Half* p, Vector<float> v) {
  vst1_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v)));
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
