// The general loops of channels_last maps: each target goes over a list of the taps that are inside the map, one vector
// of channels at a time. Targets with the same taps share the list.
#pragma once

#include <cstdint>

#include "../common.inl"
#include "../isa/target.inl"
#include "../problem.h"
#include "../simd/simd.inl"
#include "channel_vectors.inl"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

template <class S>
struct Tap {
  const S* source;            // pixel of the first target
  const S* spatial;           // tap of the spatial filter of the first target
  const Compute<S>* channel;  // tap of the channel filter
};

// Returns how many of the targets x, x + step, x + 2 * step, ... have the same taps, each time `shift` sources further.
static int64_t count_targets_with_same_taps(const Axis& axis, int64_t x, int64_t step, int64_t shift, int64_t width) {
  const TapRange here = axis.taps(x);
  int64_t count = 1;
  for (int64_t next = x + step; next < width; next += step, ++count) {
    const TapRange there = axis.taps(next);
    if (there.count != here.count) break;
    if (here.count != 0 && (there.tap != here.tap || there.source != here.source + shift * count)) break;
  }
  return count;
}

// Sums one target over a list of taps: channels [0, channels). The sources are `offset` elements further than listed.
template <Weight weight, class S>
static void sum_taps(const Tap<S>* taps, const Compute<S>* spatial, int64_t count, int64_t offset, int64_t channels,
                     S* target, const Epilogue& epilogue) {
  using T = Compute<S>;
  constexpr int64_t width = lanes<T>, block = 4;
  constexpr bool channel = weight != Weight::Spatial;
  int64_t c = 0;
  for (; c + block * width <= channels; c += block * width) {
    Vector<T> total[block] = {};
    for (int64_t t = 0; t < count; ++t) {
      const Vector<T> value = broadcast(spatial[t]);
      const S* source = taps[t].source + offset + c;
#pragma GCC unroll 4
      for (int64_t i = 0; i < block; ++i) {
        const Vector<T> filter = channel ? load(taps[t].channel + c + i * width) : Vector<T>{};
        total[i] += combine<weight>(filter, value) * load(source + i * width);
      }
    }
#pragma GCC unroll 4
    for (int64_t i = 0; i < block; ++i) {
      store(target + c + i * width, VectorEpilogue<S>(epilogue, c + i * width, width)(total[i]));
    }
  }
  for (; c < channels; c += width) {
    const int64_t left = min(width, channels - c);
    Vector<T> total = {};
    for (int64_t t = 0; t < count; ++t) {
      const Vector<T> filter = channel ? load_n(taps[t].channel + c, left) : Vector<T>{};
      total += combine<weight>(filter, broadcast(spatial[t])) * load_n(taps[t].source + offset + c, left);
    }
    store_n(target + c, VectorEpilogue<S>(epilogue, c, left)(total), left);
  }
}

// The gradients of both filters for one tap of one target. With product = grad * source: adds product * spatial to the
// channel filter's gradient and returns product * channel, summed over the channels lane by lane.
template <Weight weight, class S>
static Vector<Compute<S>> accumulate_tap(const S* source, const S* grad, Compute<S> spatial, const Compute<S>* channel,
                                         int64_t channels, Compute<S>* grad_channel) {
  using T = Compute<S>;
  constexpr int64_t width = lanes<T>;
  constexpr bool product_weight = weight == Weight::Product;
  constexpr bool has_channel = weight != Weight::Spatial, has_spatial = weight != Weight::Channel;
  const Vector<T> value = broadcast(spatial);
  Vector<T> total = {};
  int64_t c = 0;
  for (; c + width <= channels; c += width) {
    const Vector<T> product = load(grad + c) * load(source + c);
    if (has_channel) store(grad_channel + c, load(grad_channel + c) + (product_weight ? product * value : product));
    if (has_spatial) total += product_weight ? product * load(channel + c) : product;
  }
  if (c < channels) {
    const int64_t left = channels - c;
    const Vector<T> product = load_n(grad + c, left) * load_n(source + c, left);
    if (has_channel) {
      const Vector<T> term = product_weight ? product * value : product;
      store_n(grad_channel + c, load_n(grad_channel + c, left) + term, left);
    }
    if (has_spatial) total += product_weight ? product * load_n(channel + c, left) : product;
  }
  return total;
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
