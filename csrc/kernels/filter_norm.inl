// FilterNorm and its gradient: each filter less its mean, over its deviation, times a scale, plus a shift.
//
// A vector holds one tap of as many filters as it has lanes. They are gathered into a tile of `taps` such vectors, so
// that nothing depends on how filters lie in memory: tap t of filter i is at source[i * step + t * tap_step].
#pragma once

#include <cmath>
#include <cstdint>

#include "common.inl"
#include "isa/target.inl"
#include "problem.h"
#include "simd/simd.inl"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

// Up to a vector of filters: their taps, how many they are, and the distance of their scales and shifts, 0 where all
// of them share those of one filter.
struct FilterGroup {
  int64_t taps, count, norm_step;
};

template <class S>
DDF_INLINE void load_group(const FilterGroup& group, const S* source, int64_t step, int64_t tap_step,
                           Compute<S>* tile) {
  constexpr int64_t width = lanes<Compute<S>>;
  if (step == 1) {
    for (int64_t t = 0; t < group.taps; ++t) {
      const S* row = source + t * tap_step;
      store(tile + t * width, group.count == width ? load(row) : load_n(row, group.count));
    }
    return;
  }
  for (int64_t i = 0; i < group.count; ++i) {
    for (int64_t t = 0; t < group.taps; ++t) tile[t * width + i] = load_scalar(source + i * step + t * tap_step);
  }
  for (int64_t i = group.count; i < width; ++i) {
    for (int64_t t = 0; t < group.taps; ++t) tile[t * width + i] = 0;
  }
}

// Writes tap t of all filters of the group.
template <class S>
DDF_INLINE void store_tap(const FilterGroup& group, Vector<Compute<S>> values, S* target, int64_t step) {
  constexpr int64_t width = lanes<Compute<S>>;
  if (step != 1) {
    Compute<S> each[width];
    store(each, values);
    for (int64_t i = 0; i < group.count; ++i) store_scalar(target + i * step, each[i]);
  } else if (group.count == width) {
    store(target, values);
  } else {
    store_n(target, values, group.count);
  }
}

template <class T>
DDF_INLINE Vector<T> load_norm(const FilterGroup& group, const T* values, T otherwise, int64_t tap) {
  if (values == nullptr) return broadcast(otherwise);
  if (group.norm_step == 0) return broadcast(values[tap]);
  T each[lanes<T>] = {};
  for (int64_t i = 0; i < group.count; ++i) each[i] = values[tap + i * group.norm_step];
  return load(each);
}

// Takes the mean off each filter in the tile. Returns the unbiased deviations, and 1 for constant filters, whose taps
// are exactly zero now: the differences from the first tap are.
template <class T>
DDF_INLINE Vector<T> center_filters(T* tile, int64_t taps) {
  using V = Vector<T>;
  constexpr int64_t width = lanes<T>;
  const V first = load(tile);
  V mean = {};
  for (int64_t t = 0; t < taps; ++t) mean += load(tile + t * width) - first;
  mean /= static_cast<T>(taps);
  V variance = {};
  for (int64_t t = 0; t < taps; ++t) {
    const V centered = load(tile + t * width) - first - mean;
    variance += centered * centered;
    store(tile + t * width, centered);
  }
  variance /= static_cast<T>(taps - 1);
  alignas(64) T roots[width];
  store(roots, variance);
  for (int64_t i = 0; i < width; ++i) roots[i] = std::sqrt(roots[i] == 0 ? T{1} : roots[i]);
  return load(roots);
}

// Normalises a group of filters. `tile` has room for a vector per tap.
template <class S>
static void normalise_group(const FilterGroup& group, const Norm<Compute<S>>& norm, const S* source, int64_t step,
                            int64_t tap_step, S* target, int64_t target_step, int64_t target_tap_step,
                            Compute<S>* tile) {
  using T = Compute<S>;
  load_group(group, source, step, tap_step, tile);
  const Vector<T> inverse = 1 / (center_filters(tile, group.taps) + norm.eps);
  for (int64_t t = 0; t < group.taps; ++t) {
    const Vector<T> scale = load_norm(group, norm.scale, norm.gain, t);
    const Vector<T> shift = load_norm(group, norm.shift, T{0}, t);
    store_tap(group, load(tile + t * lanes<T>) * inverse * scale + shift, target + t * target_tap_step, target_step);
  }
}

// Calls use(group, sample, filter, pixel, tiles) for each group, in parallel: up to a vector of pixels of one filter
// or, where there is one pixel, of filters of one sample. `tiles` has room for `count` tiles.
template <class T, class Use>
static void each_group(const FilterNorm& p, ParallelFor parallel_for, int64_t count, Use use) {
  constexpr int64_t width = lanes<T>;
  const bool along_pixels = p.pixels > 1;
  const int64_t along = along_pixels ? p.pixels : p.filters, groups = ceil_div(along, width);
  auto body = [&](int64_t begin, int64_t end) {
    Buffer<T> tiles(count * p.taps * width);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / groups, first = i % groups * width;
      const FilterGroup group = {p.taps, min(width, along - first), along_pixels ? 0 : p.taps};
      if (along_pixels) {
        use(group, row / p.filters, row % p.filters, first, tiles.get());
      } else {
        use(group, row, first, int64_t{0}, tiles.get());
      }
    }
  };
  const int64_t rows = along_pixels ? p.batch * p.filters : p.batch;
  run_parallel(parallel_for, p.pixels > 0 ? rows * groups : 0, grain_size(count * p.taps * width * 8), body);
}

template <class T>
DDF_INLINE Norm<T> norm_of(const FilterNorm& p, int64_t filter) {
  auto values = [&](const void* data) {
    return data == nullptr ? nullptr : static_cast<const T*>(data) + filter * p.taps;
  };
  return {values(p.scale), values(p.shift), static_cast<T>(p.gain), static_cast<T>(p.eps)};
}

template <class S>
static void filter_norm(const FilterNorm& p, const ConstArray& filters, const Array& output, ParallelFor parallel_for) {
  using T = Compute<S>;
  auto step = [&](const int64_t* stride) { return p.pixels > 1 ? stride[2] : p.taps * stride[1]; };
  each_group<T>(p, parallel_for, 1, [&](const FilterGroup& group, int64_t n, int64_t filter, int64_t x, T* tile) {
    normalise_group(group, norm_of<T>(p, filter), at<S>(filters, n, filter * p.taps, x, 0), step(filters.stride),
                    filters.stride[1], at<S>(output, n, filter * p.taps, x, 0), step(output.stride), output.stride[1],
                    tile);
  });
}

// With c the centred taps, s their deviation, a the scale and g = a * grad_output, the gradient of the filters is
//   (g - mean(g)) / (s + eps) - c * sum(g * c) / ((s + eps)^2 * s * (taps - 1)).
template <class S>
static void filter_norm_backward(const FilterNorm& p, const ConstArray& grad_output, const ConstArray& filters,
                                 const Array& grad_filters, const Array& products, ParallelFor parallel_for) {
  using T = Compute<S>;
  using V = Vector<T>;
  constexpr int64_t width = lanes<T>;
  auto step = [&](const int64_t* stride) { return p.pixels > 1 ? stride[2] : p.taps * stride[1]; };
  each_group<T>(p, parallel_for, 2, [&](const FilterGroup& group, int64_t n, int64_t filter, int64_t x, T* tile) {
    const Norm<T> norm = norm_of<T>(p, filter);
    T* grad = tile + p.taps * width;
    load_group(group, at<S>(filters, n, filter * p.taps, x, 0), step(filters.stride), filters.stride[1], tile);
    load_group(group, at<S>(grad_output, n, filter * p.taps, x, 0), step(grad_output.stride), grad_output.stride[1],
               grad);
    const V deviation = center_filters(tile, p.taps), inverse = 1 / (deviation + norm.eps);
    V mean = {}, product = {};
    for (int64_t t = 0; t < p.taps; ++t) {
      const V centered = load(tile + t * width);
      V g = load(grad + t * width);
      if (products.data != nullptr) {
        store_tap(group, g * (centered * inverse), at<S>(products, n, filter * p.taps + t, x, 0),
                  step(products.stride));
      }
      g *= load_norm(group, norm.scale, norm.gain, t);
      store(grad + t * width, g);
      mean += g;
      product += g * centered;
    }
    mean /= static_cast<T>(p.taps);
    product = product * inverse * inverse / (deviation * static_cast<T>(p.taps - 1));
    for (int64_t t = 0; t < p.taps && grad_filters.data != nullptr; ++t) {
      const V result = (load(grad + t * width) - mean) * inverse - load(tile + t * width) * product;
      store_tap(group, result, at<S>(grad_filters, n, filter * p.taps + t, x, 0), step(grad_filters.stride));
    }
  });
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
