// Vector types of any width and the conversion of single values, which every instruction set shares. GCC's and Clang's
// vector extensions: `a * b + c` is one fused instruction where the target has it.
#pragma once

#include <cstdint>
#include <cstring>

#include "../isa/target.inl"
#include "../problem.h"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

template <class T, int bytes>
struct VectorType;
template <int bytes>
struct VectorType<float, bytes> {
  typedef float type __attribute__((vector_size(bytes)));
};
template <int bytes>
struct VectorType<double, bytes> {
  typedef double type __attribute__((vector_size(bytes)));
};
template <int bytes>
struct VectorType<uint16_t, bytes> {
  typedef uint16_t type __attribute__((vector_size(bytes)));
};
template <int bytes>
struct VectorType<uint32_t, bytes> {
  typedef uint32_t type __attribute__((vector_size(bytes)));
};
template <int bytes>
struct VectorType<uint64_t, bytes> {
  typedef uint64_t type __attribute__((vector_size(bytes)));
};

template <class T, int bytes>
using SizedVector = typename VectorType<T, bytes>::type;

// The type in which values of storage type S are combined and summed.
template <class S>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <class S>
using Compute = typename ComputeType<S>::type;

// --- single values ---------------------------------------------------------------------------------------------------

DDF_INLINE float load_scalar(const float* p) {
  return *p;
}
DDF_INLINE double load_scalar(const double* p) {
  return *p;
}
DDF_INLINE float load_scalar(const BFloat16* p) {
  const uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
DDF_INLINE float load_scalar(const Half* p) {
  // In a float's place, the exponent of a half is 112 too small. The product corrects it and normalizes subnormals.
  const uint32_t magnitude = static_cast<uint32_t>(p->bits & 0x7fff) << 13;
  const uint32_t scale_bits = (254 - 15) << 23;  // 2^112
  float value, scale;
  std::memcpy(&value, &magnitude, sizeof value);
  std::memcpy(&scale, &scale_bits, sizeof scale);
  value *= scale;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((p->bits & 0x7c00) == 0x7c00) bits = 0x7f800000 | magnitude;  // infinity and NaN
  bits |= static_cast<uint32_t>(p->bits & 0x8000) << 16;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

DDF_INLINE void store_scalar(float* p, float value) {
  *p = value;
}
DDF_INLINE void store_scalar(double* p, double value) {
  *p = value;
}
DDF_INLINE void store_scalar(BFloat16* p, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const bool nan = (bits & 0x7fffffff) > 0x7f800000;
  p->bits = nan ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);  // to nearest even
}
DDF_INLINE void store_scalar(Half* p, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = (bits >> 16) & 0x8000;
  bits &= 0x7fffffff;
  uint32_t half;
  if (bits > 0x7f800000) {
    half = 0x7e00;  // NaN
  } else if (bits >= 0x477ff000) {
    half = 0x7c00;  // rounds to infinity
  } else if (bits < 0x38800000) {
    // Subnormal: adding 1/2 lets the float unit round to nearest even at the half's last place, 2^-24.
    float magnitude;
    std::memcpy(&magnitude, &bits, sizeof magnitude);
    magnitude += 0.5f;
    std::memcpy(&half, &magnitude, sizeof half);
    half -= 0x3f000000;
  } else {
    half = (bits + 0xfff + ((bits >> 13) & 1) - 0x38000000) >> 13;
  }
  p->bits = static_cast<uint16_t>(sign | half);
}

// --- bfloat16 vectors, for instruction sets without a better conversion ----------------------------------------------

template <int bytes>
DDF_INLINE SizedVector<float, bytes> widen_bfloat16(const BFloat16* p) {
  SizedVector<uint16_t, bytes / 2> narrow;
  std::memcpy(&narrow, p, sizeof narrow);
  const auto bits = __builtin_convertvector(narrow, SizedVector<uint32_t, bytes>) << 16;
  SizedVector<float, bytes> v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
}

// Rounds to nearest even in integers; a NaN stays one.
template <int bytes>
DDF_INLINE void narrow_bfloat16(BFloat16* p, SizedVector<float, bytes> v) {
  using Bits = SizedVector<uint32_t, bytes>;
  Bits bits;
  std::memcpy(&bits, &v, sizeof bits);
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const auto nan = (bits & 0x7fffffff) > 0x7f800000;
  const Bits chosen = nan ? (Bits{} + 0x7fc0) : rounded;
  const auto narrow = __builtin_convertvector(chosen, SizedVector<uint16_t, bytes / 2>);
  std::memcpy(p, &narrow, sizeof narrow);
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
