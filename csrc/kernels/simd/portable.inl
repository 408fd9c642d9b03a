// Vectors of 16 bytes, by vector extensions alone.
#pragma once

#include "types.inl"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

constexpr int vector_bytes = 16, vector_registers = 16;
template <class T>
using Vector = SizedVector<T, vector_bytes>;

DDF_INLINE Vector<float> load(const BFloat16* p) {
  return widen_bfloat16<vector_bytes>(p);
}
DDF_INLINE void store(BFloat16* p, Vector<float> v) {
  narrow_bfloat16<vector_bytes>(p, v);
}

DDF_INLINE Vector<float> load(const Half* p) {
  Vector<float> v;
  for (int i = 0; i < vector_bytes / 4; ++i) v[i] = load_scalar(p + i);
  return v;
}
DDF_INLINE void store(Half* p, Vector<float> v) {
  for (int i = 0; i < vector_bytes / 4; ++i) store_scalar(p + i, v[i]);
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
