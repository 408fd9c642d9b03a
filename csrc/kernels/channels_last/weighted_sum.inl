// Weighted sums over the window: the forward pass, and transposed, the gradient of the input.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

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

// Forward, sources are input pixels, targets are output pixels, and the spatial filter is the target's. Transposed,
// sources are output pixels of all subpixels, targets are input pixels, and the spatial filter is the source's. Each
// thread has an instance of its own.
template <Weight weight, bool transposed, class S>
class WeightedSum {
 public:
  using T = Compute<S>;

  // The division of rows into runs, which all threads share.
  static RunGeometry run_geometry(const Problem& p, const ConstArray& source) {
    const int64_t side = std::is_same_v<S, float> && !transposed ? max_kernel_side : 3;
    return RunGeometry(p, source, transposed, side, scratch_limit<S>(p) / static_cast<int64_t>(sizeof(T)));
  }

  // The bytes of scratch memory of an instance.
  static int64_t scratch_bytes(const Problem& p, const RunGeometry& runs) {
    const int64_t values = ChannelFilter<S>::copied_values(p) +
                           SpatialFilterRows<S, transposed>::copied_values(p, runs.applies && uses_spatial);
    return values * static_cast<int64_t>(sizeof(T)) + runs.zero_row_size * static_cast<int64_t>(sizeof(S)) +
           listed_taps(p, runs) * static_cast<int64_t>(sizeof(Tap<S>) + sizeof(T));
  }

  WeightedSum(const Problem& p, const RunGeometry& runs, const ConstArray& source, const Array& target,
              const Epilogue& epilogue = {})
      : p_(p),
        epilogue_(epilogue),
        source_(source),
        target_(target),
        width_(transposed ? p.width : p.grid_width),
        subpixels_per_sum_(transposed ? p.subpixels() : 1),
        runs_(runs),
        channel_filter_(p),
        spatial_filter_(p, runs_.applies && uses_spatial),
        zero_row_(runs_.zero_row_size),
        rows_(row_axis(p), transposed),
        columns_(column_axis(p), transposed),
        taps_(listed_taps(p, runs)),
        spatial_values_(listed_taps(p, runs)) {
    std::memset(zero_row_.get(), 0, static_cast<size_t>(runs_.zero_row_size) * sizeof(S));
  }

  // Computes all targets of row y, and of its subpixels.
  void sum_rows(int64_t n, int64_t y) {
    channel_filter_.load_sample(n);
    for (int64_t q = 0; q < (transposed ? 1 : p_.subpixels()); ++q) {
      for (int64_t head = 0; head < p_.heads; ++head) {
        const Row row = {n, y, q, head, head * p_.head_channels()};
        if (!runs_.applies) {
          sum_row_tap_by_tap(row);
        } else {
          sum_row_in_runs(row);
        }
      }
    }
  }

 private:
  static constexpr bool uses_spatial = weight != Weight::Channel;

  static int64_t listed_taps(const Problem& p, const RunGeometry& runs) {
    return runs.applies ? 0 : p.taps() * (transposed ? p.subpixels() : 1);
  }

  // One row of targets of one head; `q` is the subpixel of the targets, 0 where targets are input pixels.
  struct Row {
    int64_t n, y, q, head, channel;
  };

  S* target_at(const Row& row, int64_t x) const {
    if (transposed) return at<S>(target_, row.n, row.channel, row.y, x);
    return at<S>(target_, row.n, row.channel, row.y * p_.upscale_y + row.q / p_.upscale_x,
                 x * p_.upscale_x + row.q % p_.upscale_x);
  }
  int64_t target_stride() const { return target_.stride[3] * (transposed ? 1 : p_.upscale_x); }

  void sum_row_in_runs(const Row& row) {
    const int64_t position_stride = spatial_filter_.position_stride();
    WindowRun<S> run;
    run.channel = channel_filter_.taps(row.q, row.channel);
    run.tap_stride = channel_filter_.tap_stride();
    run.spatial_stride = position_stride * runs_.interleave;
    const T* spatial[3] = {};
    for (int r = 0; uses_spatial && r < (transposed ? 3 : 1); ++r) {
      const int64_t y = transposed ? runs_.origin(runs_.rows, row.y) + r * p_.dilation_y : row.y;
      spatial[r] = spatial_filter_.row(row.n, row.q, row.head, y);
    }
    runs_.for_each_run(width_, [&](int64_t x, int64_t windows) {
      runs_.set_map(run, source_, row.n, row.channel, row.y, x, windows, zero_row_.get());
      const int64_t position = transposed ? runs_.origin(runs_.columns, x) : x;
      for (int r = 0; r < 3; ++r) {
        run.spatial[r] = spatial[r] == nullptr ? nullptr : spatial[r] + position * position_stride;
      }
      sum_run(run, target_at(row, x), target_stride() * runs_.interleave, epilogue(row.channel));
    });
  }

  void sum_run(const WindowRun<S>& run, S* target, int64_t stride, const Epilogue& epilogue) const {
    const int64_t channels = p_.head_channels();
    if constexpr (!transposed && std::is_same_v<S, float>) {
      if (runs_.kernel_side == 5) return sum_large_windows<weight, 5>(run, channels, target, stride, epilogue);
      if (runs_.kernel_side == 7) return sum_large_windows<weight, 7>(run, channels, target, stride, epilogue);
    }
    if (transposed || runs_.advance == 1) {
      sum_windows<weight, transposed, 1>(run, channels, target, stride, epilogue);
    } else {
      sum_windows<weight, false, 2>(run, channels, target, stride, epilogue);
    }
  }

  // Lists the taps of target x and returns how many there are.
  int64_t list_taps(const Row& row, int64_t x) {
    const int64_t scale_y = transposed ? p_.upscale_y : 1, scale_x = transposed ? p_.upscale_x : 1;
    const TapRange lines = rows_.taps(row.y), columns = columns_.taps(x);
    int64_t count = 0;
    for (int64_t sub = 0; sub < subpixels_per_sum_; ++sub) {
      const int64_t subpixel = transposed ? sub : row.q;  // the one whose filters apply
      for (int64_t i = 0; i < lines.count; ++i) {
        const int64_t line_source = lines.source + i * lines.source_step;
        for (int64_t j = 0; j < columns.count; ++j) {
          const int64_t column_source = columns.source + j * columns.source_step;
          Tap<S>& tap = taps_[count++];
          const int64_t index = (lines.tap + i * lines.tap_step) * p_.kernel_x + columns.tap + j * columns.tap_step;
          tap.source = at<S>(source_, row.n, row.channel, line_source * scale_y + sub / p_.upscale_x,
                             column_source * scale_x + sub % p_.upscale_x);
          tap.channel = channel_filter_.taps(subpixel, row.channel) + index * channel_filter_.tap_stride();
          if (!uses_spatial) continue;
          tap.spatial = at<S>(p_.spatial_filter, row.n, (subpixel * p_.heads + row.head) * p_.taps() + index,
                              transposed ? line_source : row.y, transposed ? column_source : x);
        }
      }
    }
    return count;
  }

  void sum_row_tap_by_tap(const Row& row) {
    const int64_t step = transposed ? p_.stride_x : 1, shift = transposed ? 1 : p_.stride_x;
    const int64_t source_stride = source_.stride[3] * (transposed ? p_.upscale_x : 1) * shift;
    const int64_t spatial_stride = p_.spatial_filter.stride[3];  // per target, or per source where transposed
    for (int64_t phase = 0; phase < min(step, width_); ++phase) {
      for (int64_t x = phase; x < width_;) {
        const int64_t targets = count_targets_with_same_taps(columns_, x, step, shift, width_);
        const int64_t count = list_taps(row, x);
        for (int64_t i = 0; i < targets; ++i, x += step) {
          for (int64_t t = 0; t < count; ++t) {
            spatial_values_[t] = uses_spatial ? load_scalar(taps_[t].spatial + i * spatial_stride) : T(0);
          }
          sum_taps<weight>(taps_.get(), spatial_values_.get(), count, i * source_stride, p_.head_channels(),
                           target_at(row, x), epilogue(row.channel));
        }
      }
    }
  }

  // Returns the epilogue of the head with the given first channel.
  Epilogue epilogue(int64_t channel) const {
    return {epilogue_.scale == nullptr ? nullptr : epilogue_.scale + channel,
            epilogue_.shift == nullptr ? nullptr : epilogue_.shift + channel, epilogue_.relu};
  }

  const Problem& p_;
  const Epilogue epilogue_;
  const ConstArray& source_;
  const Array& target_;
  const int64_t width_;              // targets per row and subpixel
  const int64_t subpixels_per_sum_;  // subpixels of the source that one target reads
  const RunGeometry& runs_;
  ChannelFilter<S> channel_filter_;
  SpatialFilterRows<S, transposed> spatial_filter_;
  Buffer<S> zero_row_;
  const Axis rows_, columns_;  // for sums tap by tap
  Buffer<Tap<S>> taps_;
  Buffer<T> spatial_values_;  // one value per tap of a target
};

template <Weight weight, bool transposed, class S>
static void sum_channels_last(const Problem& p, const ConstArray& source, const Array& target, ParallelFor parallel_for,
                              const Epilogue& epilogue = {}) {
  const int64_t height = transposed ? p.height : p.grid_height, width = transposed ? p.width : p.grid_width;
  using Sum = WeightedSum<weight, transposed, S>;
  const RunGeometry runs = Sum::run_geometry(p, source);
  auto body = [&](int64_t begin, int64_t end) {
    Sum sum(p, runs, source, target, epilogue);
    for (int64_t i = begin; i < end; ++i) sum.sum_rows(i / height, i % height);
  };
  const int64_t rows = p.batch * height, operations_per_row = width * p.subpixels() * p.taps() * p.channels;
  run_parallel(parallel_for, rows, grain_size<S>(p, rows, operations_per_row, Sum::scratch_bytes(p, runs)), body);
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
