// Operations on vectors of the instruction set's width, for every storage type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "../isa/target.inl"
#include "../problem.h"
#include "types.inl"

// Vector<T>, and what the instruction set does better than the templates below: conversions of half precision, and
// loads and stores of the first lanes of float vectors.
#include DDF_ISA_SIMD

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

template <class T>
constexpr int64_t lanes = vector_bytes / static_cast<int64_t>(sizeof(T));

template <class T>
DDF_INLINE Vector<T> broadcast(T value) {
  return value - Vector<T>{};  // GCC's idiom: a scalar operand is broadcast, and x - 0 is x, -0 included
}

template <class T>
DDF_INLINE Vector<T> load(const T* p) {
  Vector<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
DDF_INLINE void store(T* p, Vector<T> v) {
  std::memcpy(p, &v, sizeof v);
}

// --- the first `count` lanes: nothing beyond them is read or written -------------------------------------------------

template <class S>
DDF_INLINE Vector<Compute<S>> load_n(const S* p, int64_t count) {
  Compute<S> values[lanes<Compute<S>>] = {};
  for (int64_t i = 0; i < count; ++i) values[i] = load_scalar(p + i);
  return load(values);
}
template <class S>
DDF_INLINE void store_n(S* p, Vector<Compute<S>> v, int64_t count) {
  Compute<S> values[lanes<Compute<S>>];
  store(values, v);
  for (int64_t i = 0; i < count; ++i) store_scalar(p + i, values[i]);
}

// --- lanes kept or dropped by a mask of all ones or all zeros --------------------------------------------------------

template <class T>
using Bits = Vector<std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>>;

template <class T>
DDF_INLINE Bits<T> load_bits(const T* p) {
  Bits<T> bits;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
}
template <class V, class B>
DDF_INLINE V masked(V value, B keep) {
  return (V)((B)value & keep);  // a cast between vectors of one size keeps the bits
}

// --- sums of lanes ---------------------------------------------------------------------------------------------------

// Adds all lanes by halves: short dependency chains, and always the same order.
template <class T, int bytes>
DDF_INLINE T sum_lanes(SizedVector<T, bytes> v) {
  if constexpr (bytes == 2 * sizeof(T)) {
    return v[0] + v[1];
  } else {
    SizedVector<T, bytes / 2> low, high;
    std::memcpy(&low, &v, bytes / 2);
    std::memcpy(&high, reinterpret_cast<const char*>(&v) + bytes / 2, bytes / 2);
    return sum_lanes<T, bytes / 2>(low + high);
  }
}
template <class T>
DDF_INLINE T sum(Vector<T> v) {
  return sum_lanes<T, vector_bytes>(v);
}

// A vector has room for as many sums as it has lanes, and adding that many vectors together takes a fraction of the
// shuffles of one sum after the other. A vector holds `blocks` partial sums side by side. fold<blocks> of two such
// vectors adds the halves of each block, which leaves 2 * blocks of half the length: first those of a, then those of b.
template <class T, int64_t blocks, bool upper>
constexpr int fold_index(int64_t lane) {
  const int64_t half = lanes<T> / (2 * blocks), block = lane / half;
  const int64_t source = block < blocks ? 0 : lanes<T>;
  return static_cast<int>(source + block % blocks * 2 * half + (upper ? half : 0) + lane % half);
}
template <class T, int64_t blocks, size_t... lane>
DDF_INLINE Vector<T> fold_lanes(Vector<T> a, Vector<T> b, std::index_sequence<lane...>) {
  return __builtin_shufflevector(a, b, fold_index<T, blocks, false>(lane)...) +
         __builtin_shufflevector(a, b, fold_index<T, blocks, true>(lane)...);
}
template <class T, int64_t blocks>
DDF_INLINE Vector<T> fold(Vector<T> a, Vector<T> b) {
  return fold_lanes<T, blocks>(a, b, std::make_index_sequence<static_cast<size_t>(lanes<T>)>{});
}
// Returns the sums of `count` consecutive vectors side by side; `count` is a power of two.
template <class T, int64_t count>
DDF_INLINE Vector<T> fold_all(const T* vectors) {
  if constexpr (count == 1) {
    return load(vectors);
  } else {
    constexpr int64_t half = count / 2;
    return fold<T, half>(fold_all<T, half>(vectors), fold_all<T, half>(vectors + half * lanes<T>));
  }
}

// sums[i] = the sum of the lanes of vector i, for i < count. Reads full groups of as many vectors as there are lanes,
// so `vectors` needs room for the last group.
template <class T>
static void sum_each(const T* vectors, int64_t count, T* sums) {
  constexpr int64_t width = lanes<T>;
  int64_t i = 0;
  for (; i + width <= count; i += width) store(sums + i, fold_all<T, width>(vectors + i * width));
  if (i < count) store_n(sums + i, fold_all<T, width>(vectors + i * width), count - i);
}

// --- rows: any stride between elements, vectors where it is 1 --------------------------------------------------------

template <class S>
static void load_row(const S* source, int64_t stride, Compute<S>* target, int64_t count) {
  constexpr int64_t width = lanes<Compute<S>>;
  int64_t i = 0;
  if (stride == 1) {
    for (; i + width <= count; i += width) store(target + i, load(source + i));
    if (i < count) store_n(target + i, load_n(source + i, count - i), count - i);
  } else {
    for (; i < count; ++i) target[i] = load_scalar(source + i * stride);
  }
}
template <class S>
static void store_row(const Compute<S>* source, S* target, int64_t stride, int64_t count) {
  constexpr int64_t width = lanes<Compute<S>>;
  int64_t i = 0;
  if (stride == 1) {
    for (; i + width <= count; i += width) store(target + i, load(source + i));
    if (i < count) store_n(target + i, load_n(source + i, count - i), count - i);
  } else {
    for (; i < count; ++i) store_scalar(target + i * stride, source[i]);
  }
}

// --- weights ---------------------------------------------------------------------------------------------------------

// Combines a tap of the channel filter and one of the spatial filter; `Channel` and `Spatial` ignore the other operand.
template <Weight weight, class A, class B>
DDF_INLINE auto combine(const A& channel, const B& spatial) {
  if constexpr (weight == Weight::Product) {
    return channel * spatial;
  } else if constexpr (weight == Weight::Sum) {
    return channel + spatial;
  } else if constexpr (weight == Weight::Channel) {
    return channel;
  } else {
    return spatial;
  }
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
