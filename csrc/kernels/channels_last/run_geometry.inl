// The division of a row of targets into runs of sliding windows.
#pragma once

#include <cstdint>

#include "../common.inl"
#include "../isa/target.inl"
#include "../problem.h"
#include "sliding_window.inl"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

constexpr int64_t prefetch_threshold = 1 << 23;  // elements of a map; 32 MiB in float, larger than the caches
constexpr int64_t max_zero_row_size = 1 << 18;   // elements

// Forward, targets are filter positions and sources are pixels of the input. Transposed (the input's gradient), it is
// the other way round. The next window of a run belongs to the target `interleave` further and has moved by `advance`
// columns, so a row of targets is `interleave` interleaved sequences of windows.
struct RunGeometry {
  // `row_limit` is the number of values that the spatial filters of a row of positions may have.
  RunGeometry(const Problem& p, const ConstArray& source, bool transposed, int64_t max_side, int64_t row_limit)
      : transposed(transposed), rows(row_axis(p)), columns(column_axis(p)), kernel_side(columns.taps) {
    const int64_t common = greatest_common_divisor(columns.stride, columns.dilation);
    interleave = columns.dilation / common;
    advance = columns.stride / common;
    // Transposed, neighbours in the source must be neighbours in the window, because their spatial filters are.
    const bool neighbours = rows.stride == 1 && columns.stride == 1 && columns.dilation == 1;
    const bool dense = neighbours && p.subpixels() == 1;
    applies = rows.taps == kernel_side && kernel_side <= max_side &&
              (kernel_side == 3 || kernel_side == 5 || kernel_side == 7) &&
              (kernel_side == 3 ? advance <= 2 && (dense || !transposed) : neighbours);
    // Both factors are checked before they are multiplied: strides of a view may be as large as 64 bits allow.
    applies = applies && columns.dilation <= max_zero_row_size && source.stride[3] <= max_zero_row_size;
    column_stride = applies ? columns.dilation * source.stride[3] : 0;
    zero_row_size = applies ? (max_run_length * advance + kernel_side) * column_stride + p.channels : 0;
    applies = applies && zero_row_size <= max_zero_row_size;
    // The rows that are copied for the windows: as many as these have rows and one of zeros, and one of gradients.
    applies =
        applies && (p.grid_width + 2 * kernel_side) * p.taps() * ((transposed ? 3 : 1) * p.heads + 2) <= row_limit;
    if (!applies) zero_row_size = 0;
    prefetch = p.batch * p.channels * p.height * p.width > prefetch_threshold;
  }

  // Returns the source of the first row or column of a target's window. It may be outside the map.
  int64_t origin(const AxisGeometry& axis, int64_t target) const {
    return transposed ? target + axis.padding - (kernel_side - 1) * axis.dilation : target * axis.stride - axis.padding;
  }
  int64_t source_size(const AxisGeometry& axis) const { return transposed ? axis.positions : axis.inputs; }

  // Sets the part of a run that is about the map: `windows` windows from target x of row y on, at the given channel.
  template <class S>
  void set_map(WindowRun<S>& run, const ConstArray& source, int64_t n, int64_t channel, int64_t y, int64_t x,
               int64_t windows, const S* zero_row) const {
    const int64_t column = origin(columns, x), row = origin(rows, y);
    run.windows = windows;
    run.column_stride = column_stride;
    run.prefetch = prefetch;
    run.begin_column = column < 0 ? ceil_div(-column, columns.dilation) : 0;
    run.end_column = column < source_size(columns) ? (source_size(columns) - 1 - column) / columns.dilation + 1 : 0;
    run.end_column = max(run.end_column, run.begin_column);
    run.begin_row = kernel_side, run.end_row = 0;
    for (int64_t r = 0; r < kernel_side; ++r) {
      const int64_t source_y = row + r * rows.dilation;
      const bool inside = source_y >= 0 && source_y < source_size(rows);
      run.row[r] = inside ? at<S>(source, n, channel, source_y, column) : zero_row;
      if (inside) run.begin_row = min(run.begin_row, r), run.end_row = r + 1;
    }
  }

  // Calls body(first target, number of windows) for the runs of a row of targets. For 3x3 kernels the runs have about
  // equal lengths. For larger kernels a run has as many windows as there are registers for their sums.
  template <class Body>
  DDF_ALWAYS_INLINE void for_each_run(int64_t width, Body body) const {
    for (int64_t phase = 0; phase < min(interleave, width); ++phase) {
      const int64_t targets = ceil_div(width - phase, interleave);
      const int64_t length = kernel_side > 3 ? max_run_length : ceil_div(targets, ceil_div(targets, max_run_length));
      for (int64_t i = 0; i < targets; i += length) body(phase + i * interleave, min(length, targets - i));
    }
  }

  const bool transposed;
  const AxisGeometry rows, columns;
  const int64_t kernel_side;
  int64_t interleave, advance;
  int64_t column_stride;  // the distance of a window's columns, in elements of the source
  int64_t zero_row_size;  // in elements
  bool applies;           // false where the problem goes target by target, see taps.inl
  bool prefetch;
};

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
