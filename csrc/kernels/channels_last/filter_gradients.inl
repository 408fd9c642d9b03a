// The gradients of both filters for channels_last maps.
#pragma once

#include <cstdint>
#include <cstring>

#include "../common.inl"
#include "../isa/target.inl"
#include "../problem.h"
#include "../simd/simd.inl"
#include "filters.inl"
#include "run_geometry.inl"
#include "sliding_window.inl"
#include "taps.inl"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

// Adds to the channel filter's gradient of one sample, (subpixels, taps, channels), and writes the spatial filter's
// gradient where it is wanted. Each thread has an instance of its own.
template <Weight weight, class S>
class FilterGradients {
 public:
  using T = Compute<S>;

  // The division of rows into runs, which all threads share.
  static RunGeometry run_geometry(const Problem& p) {
    return RunGeometry(p, p.input, false, 3, scratch_limit<S>(p) / static_cast<int64_t>(sizeof(T)));
  }

  // The bytes of scratch memory of an instance.
  static int64_t scratch_bytes(const Problem& p, const RunGeometry& runs) {
    const int64_t values = ChannelFilter<S>::copied_values(p) +
                           SpatialFilterRows<S, false>::copied_values(p, runs.applies && reads_spatial) +
                           products(p, runs) * (lanes<T> + 1) + lanes<T> * lanes<T> + row_capacity(p, runs) * p.taps();
    return values * static_cast<int64_t>(sizeof(T)) + runs.zero_row_size * static_cast<int64_t>(sizeof(S));
  }

  FilterGradients(const Problem& p, const RunGeometry& runs, const ConstArray& grad_output, const Array& grad_spatial)
      : p_(p),
        grad_output_(grad_output),
        grad_spatial_(grad_spatial),
        runs_(runs),
        row_capacity_(row_capacity(p, runs)),
        channel_filter_(p),
        spatial_filter_(p, runs_.applies && reads_spatial),
        zero_row_(runs_.zero_row_size),
        rows_(row_axis(p), false),
        columns_(column_axis(p), false),
        partial_(products(p, runs) * lanes<T> + lanes<T> * lanes<T>),
        sums_(products(p, runs)),
        row_gradient_(row_capacity_ * p.taps()) {
    std::memset(zero_row_.get(), 0, static_cast<size_t>(runs_.zero_row_size) * sizeof(S));
  }

  // Accumulates all filter positions of row y, and of its subpixels.
  void accumulate_rows(int64_t n, int64_t y, T* grad_channel) {
    channel_filter_.load_sample(n);
    for (int64_t q = 0; q < p_.subpixels(); ++q) {
      for (int64_t head = 0; head < p_.heads; ++head) {
        const int64_t channel = head * p_.head_channels();
        const Row row = {n, y, q, head, channel, grad_channel + q * p_.taps() * p_.channels + channel};
        if (!runs_.applies) {
          accumulate_row_tap_by_tap(row);
        } else if (runs_.advance == 1) {
          accumulate_row_in_runs<1>(row);
        } else {
          accumulate_row_in_runs<2>(row);
        }
      }
    }
  }

 private:
  static constexpr bool has_channel = weight != Weight::Spatial, has_spatial = weight != Weight::Channel;
  static constexpr bool reads_spatial = weight == Weight::Product;

  // The number of products whose lanes are summed together: those of a run, or of a target.
  static int64_t products(const Problem& p, const RunGeometry& runs) {
    return runs.applies ? max_run_length * 9 : p.taps();
  }
  // The number of positions of a row whose gradients are held before they are stored. Runs go over the row in any
  // order.
  static int64_t row_capacity(const Problem& p, const RunGeometry& runs) {
    return runs.applies ? p.grid_width : min(p.grid_width, max((1 << 14) / p.taps(), 1));
  }

  // One row of filter positions of one subpixel and head.
  struct Row {
    int64_t n, y, q, head, channel;
    T* grad_channel;
  };

  const S* grad_at(const Row& row, int64_t x) const {
    return at<S>(grad_output_, row.n, row.channel, row.y * p_.upscale_y + row.q / p_.upscale_x,
                 x * p_.upscale_x + row.q % p_.upscale_x);
  }

  template <int advance>
  void accumulate_row_in_runs(const Row& row) {
    WindowRun<S> run;
    run.channel = channel_filter_.taps(row.q, row.channel);
    run.tap_stride = channel_filter_.tap_stride();
    run.spatial_stride = spatial_filter_.position_stride() * runs_.interleave;
    const T* spatial = reads_spatial ? spatial_filter_.row(row.n, row.q, row.head, row.y) : nullptr;
    const FilterGradientSums<T> gradients = {row.grad_channel, p_.channels, partial_.get()};
    const int64_t grad_stride = grad_output_.stride[3] * p_.upscale_x * runs_.interleave;
    runs_.for_each_run(p_.grid_width, [&](int64_t x, int64_t windows) {
      runs_.set_map(run, p_.input, row.n, row.channel, row.y, x, windows, zero_row_.get());
      run.spatial[0] = reads_spatial ? spatial + x * spatial_filter_.position_stride() : nullptr;
      accumulate_filter_gradients<weight, advance>(run, p_.head_channels(), grad_at(row, x), grad_stride, gradients);
      if (!has_spatial) return;
      if (runs_.interleave == 1) {
        sum_each(partial_.get(), windows * 9, row_gradient_.get() + x * 9);
      } else {
        sum_each(partial_.get(), windows * 9, sums_.get());
        for (int64_t i = 0; i < windows; ++i) {
          std::memcpy(row_gradient_.get() + (x + i * runs_.interleave) * 9, sums_.get() + i * 9, 9 * sizeof(T));
        }
      }
    });
    if (has_spatial && grad_spatial_.data != nullptr) store_row_gradient(row, 0, p_.grid_width);
  }

  void accumulate_row_tap_by_tap(const Row& row) {
    const T* filter = channel_filter_.taps(row.q, row.channel);
    const TapRange lines = rows_.taps(row.y);
    for (int64_t x = 0; x < p_.grid_width; ++x) {
      const TapRange columns = columns_.taps(x);
      int64_t count = 0;
      T* gradient = row_gradient_.get() + x % row_capacity_ * p_.taps();
      std::memset(gradient, 0, static_cast<size_t>(p_.taps()) * sizeof(T));  // for taps outside the map
      for (int64_t i = 0; i < lines.count; ++i) {
        for (int64_t j = 0; j < columns.count; ++j) {
          const int64_t tap = (lines.tap + i) * p_.kernel_x + columns.tap + j;
          const int64_t filters = row.q * p_.heads + row.head;
          const T spatial =
              reads_spatial ? load_scalar(at<S>(p_.spatial_filter, row.n, filters * p_.taps() + tap, row.y, x)) : T(0);
          const Vector<T> total =
              accumulate_tap<weight>(at<S>(p_.input, row.n, row.channel, lines.source + i * lines.source_step,
                                           columns.source + j * columns.source_step),
                                     grad_at(row, x), spatial, filter + tap * channel_filter_.tap_stride(),
                                     p_.head_channels(), row.grad_channel + tap * p_.channels);
          store(partial_.get() + count++ * lanes<T>, total);
        }
      }
      if (!has_spatial) continue;
      sum_each(partial_.get(), count, sums_.get());
      for (int64_t i = 0, next = 0; i < lines.count; ++i) {
        for (int64_t j = 0; j < columns.count; ++j) {
          gradient[(lines.tap + i) * p_.kernel_x + columns.tap + j] = sums_[next++];
        }
      }
      if (grad_spatial_.data != nullptr && ((x + 1) % row_capacity_ == 0 || x + 1 == p_.grid_width)) {
        const int64_t begin = x / row_capacity_ * row_capacity_;
        store_row_gradient(row, begin, x + 1 - begin);
      }
    }
  }

  // Stores the gradients of `count` positions, the first of which is column `begin`.
  void store_row_gradient(const Row& row, int64_t begin, int64_t count) const {
    const int64_t taps = p_.taps(), *stride = grad_spatial_.stride;
    S* target = at<S>(grad_spatial_, row.n, (row.q * p_.heads + row.head) * taps, row.y, begin);
    if (stride[1] == 1 && stride[3] == taps) {
      store_row(row_gradient_.get(), target, 1, count * taps);
    } else {
      for (int64_t x = 0; x < count; ++x) {
        store_row(row_gradient_.get() + x * taps, target + x * stride[3], stride[1], taps);
      }
    }
  }

  const Problem& p_;
  const ConstArray& grad_output_;
  const Array& grad_spatial_;
  const RunGeometry& runs_;
  const int64_t row_capacity_;
  ChannelFilter<S> channel_filter_;
  SpatialFilterRows<S, false> spatial_filter_;
  Buffer<S> zero_row_;
  const Axis rows_, columns_;  // for gradients tap by tap
  Buffer<T> partial_, sums_;   // for the windows of a run, or for the taps of a target
  Buffer<T> row_gradient_;     // (row_capacity_, taps)
};

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
