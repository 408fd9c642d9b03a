// The epilogue of a vector of sums, and loads and stores of a vector of channels.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../isa/target.inl"
#include "../problem.h"
#include "../simd/simd.inl"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

// A full vector of channels, or its first `count` lanes where the channels end.
template <bool full, class S>
DDF_INLINE Vector<Compute<S>> load_channels(const S* p, int64_t count) {
  if constexpr (full) {
    return load(p);
  } else {
    return load_n(p, count);
  }
}
template <bool full, class S>
DDF_INLINE void store_channels(S* p, Vector<Compute<S>> v, int64_t count) {
  if constexpr (full) {
    store(p, v);
  } else {
    store_n(p, v, count);
  }
}

// The epilogue of channels [c, c + count), loaded. Only results in float have one.
template <class S>
struct VectorEpilogue {
  using T = Compute<S>;
  Vector<T> scale = {}, shift = {};
  bool has_scale = false, relu = false;

  DDF_ALWAYS_INLINE VectorEpilogue(const Epilogue& epilogue, int64_t c, int64_t count) {
    if constexpr (std::is_same_v<S, float>) {
      has_scale = epilogue.scale != nullptr, relu = epilogue.relu;
      if (has_scale) scale = load_n(epilogue.scale + c, count), shift = load_n(epilogue.shift + c, count);
    }
  }
  DDF_ALWAYS_INLINE Vector<T> operator()(Vector<T> sum) const {
    if (has_scale) sum = sum * scale + shift;
    if (relu) sum = sum < 0 ? Vector<T>{} : sum;  // a NaN stays
    return sum;
  }
};

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
