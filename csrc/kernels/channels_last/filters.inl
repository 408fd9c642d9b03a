// Both filters in the layout of the channels_last loops.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../common.inl"
#include "../isa/target.inl"
#include "../problem.h"
#include "../simd/simd.inl"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

// The channel filter of one sample in the compute type, with the channels of a tap side by side. A filter that is
// packed like this already is used as it is, any other is copied. Each thread copies for itself, so that no thread
// waits.
template <class S>
class ChannelFilter {
 public:
  using T = Compute<S>;

  explicit ChannelFilter(const Problem& p) : p_(p), is_packed_(is_packed(p)), copy_(copied_values(p)) {}

  // Returns the number of values that are copied.
  static int64_t copied_values(const Problem& p) {
    return is_packed(p) || missing(p) ? 0 : p.subpixels() * p.taps() * p.channels;
  }

  void load_sample(int64_t n) {
    if (n == sample_ || missing(p_)) return;
    sample_ = n;
    if (is_packed_) return;
    T* target = copy_.get();
    for (int64_t q = 0; q < p_.subpixels(); ++q) {
      for (int64_t t = 0; t < p_.taps(); ++t, target += p_.channels) {
        const S* tap = at<S>(p_.channel_filter, n, q * p_.channels, t / p_.kernel_x, t % p_.kernel_x);
        load_row(tap, p_.channel_filter.stride[1], target, p_.channels);
      }
    }
  }

  // Returns the first tap of the loaded sample; tap t is tap_stride() * t further.
  const T* taps(int64_t subpixel, int64_t channel) const {
    if constexpr (std::is_same_v<S, T>) {
      if (is_packed_) return at<S>(p_.channel_filter, sample_, subpixel * p_.channels + channel, 0, 0);
    }
    return copy_.get() + subpixel * p_.taps() * p_.channels + channel;
  }
  int64_t tap_stride() const { return is_packed_ ? p_.channel_filter.stride[3] : p_.channels; }

 private:
  static bool missing(const Problem& p) { return p.channel_filter.data == nullptr; }
  static bool is_packed(const Problem& p) {
    const int64_t* stride = p.channel_filter.stride;
    return std::is_same_v<S, T> && !missing(p) && stride[1] == 1 && stride[2] == p.kernel_x * stride[3];
  }

  const Problem& p_;
  const bool is_packed_;
  Buffer<T> copy_;
  int64_t sample_ = -1;
};

// Rows of the spatial filter in the compute type, with the taps of a position side by side. A filter that is packed
// like this already is used as it is, rows of any other are copied. Transposed windows need a margin of zeros at both
// ends. They also read as many rows as they have, and all but one of these again for the next row of targets, so the
// latest copies are kept.
template <class S, bool transposed>
class SpatialFilterRows {
 public:
  using T = Compute<S>;

  SpatialFilterRows(const Problem& p, bool used)
      : p_(p),
        is_packed_(used && !transposed && is_packed(p)),
        margin_(margin(p)),
        row_(row_values(p)),
        rows_(copied_values(p, used)) {
    for (int64_t& key : key_) key = -1;
    if (used && !is_packed_) std::memset(zero_row(), 0, static_cast<size_t>(row_) * sizeof(T));
  }

  // Returns the number of values that are copied.
  static int64_t copied_values(const Problem& p, bool used) {
    return !used || (!transposed && is_packed(p)) ? 0 : (slots * p.heads + 1) * row_values(p);
  }

  // The distance of neighbouring positions.
  int64_t position_stride() const { return is_packed_ ? p_.spatial_filter.stride[3] : p_.taps(); }

  // Returns position 0 of a row, zeros where the row is outside the map.
  const T* row(int64_t n, int64_t subpixel, int64_t head, int64_t y) {
    const int64_t taps = p_.taps();
    if constexpr (std::is_same_v<S, T>) {
      if (is_packed_) return at<S>(p_.spatial_filter, n, (subpixel * p_.heads + head) * taps, y, 0);
    }
    if (y < 0 || y >= p_.grid_height) return zero_row() + margin_ * taps;
    const int64_t key = (n * p_.subpixels() + subpixel) * p_.grid_height + y;
    int64_t slot = 0;  // the one of this row or, where there is none, the least recently used
    for (int64_t i = 0; i < slots; ++i) {
      if (key_[i] == key) {
        slot = i;
        break;
      }
      if (last_used_[i] < last_used_[slot]) slot = i;
    }
    if (key_[slot] != key) {
      for (int64_t h = 0; h < p_.heads; ++h) pack(n, subpixel * p_.heads + h, y, slot_row(slot, h));
    }
    key_[slot] = key;
    last_used_[slot] = ++clock_;
    return slot_row(slot, head) + margin_ * taps;
  }

 private:
  static constexpr int64_t slots = transposed ? 3 : 1;

  static int64_t margin(const Problem& p) { return transposed ? p.kernel_x - 1 : 0; }
  static int64_t row_values(const Problem& p) { return (p.grid_width + 2 * margin(p)) * p.taps(); }

  // The loops of 5x5 and 7x7 kernels expect the taps of a position right behind those of the position before.
  static bool is_packed(const Problem& p) {
    const int64_t* stride = p.spatial_filter.stride;
    return std::is_same_v<S, T> && stride[1] == 1 && (p.taps() == 9 || stride[3] == p.taps());
  }

  T* slot_row(int64_t slot, int64_t head) const { return rows_.get() + (slot * p_.heads + head) * row_; }
  T* zero_row() const { return rows_.get() + slots * p_.heads * row_; }

  void pack(int64_t n, int64_t filter, int64_t y, T* target) const {
    const int64_t taps = p_.taps(), tap_stride = p_.spatial_filter.stride[1], step = p_.spatial_filter.stride[3];
    const S* source = at<S>(p_.spatial_filter, n, filter * taps, y, 0);
    for (int64_t i = 0; i < margin_ * taps; ++i) target[i] = target[row_ - 1 - i] = T(0);
    target += margin_ * taps;
    if (tap_stride == 1 && step == taps) {
      load_row(source, 1, target, p_.grid_width * taps);
    } else {
      for (int64_t x = 0; x < p_.grid_width; ++x) load_row(source + x * step, tap_stride, target + x * taps, taps);
    }
  }

  const Problem& p_;
  const bool is_packed_;
  const int64_t margin_, row_;
  Buffer<T> rows_;  // (slots, heads, row), then a row of zeros
  int64_t key_[slots] = {}, last_used_[slots] = {}, clock_ = 0;
};

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
