// Kernels for maps whose channels lie side by side (channels_last): vectors of channels, in memory order, so that a row
// of the map is read from memory once and then found in the caches by the other taps.
//
// Kernels of 3x3 (forward in float also 5x5 and 7x7) whose windows share columns with their neighbours slide along a
// row (channels_last/sliding_window.inl). Everything else goes target by target over a list of taps
// (channels_last/taps.inl).
#pragma once

#include <cstdint>
#include <cstring>

#include "channels_last/filter_gradients.inl"
#include "channels_last/weighted_sum.inl"
#include "common.inl"
#include "isa/target.inl"
#include "problem.h"
#include "simd/simd.inl"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

template <Weight weight, class S>
static void forward_channels_last(const Problem& p, const Array& output, ParallelFor parallel_for) {
  sum_channels_last<weight, false, S>(p, p.input, output, parallel_for);
}

template <Weight weight, class S>
static void backward_channels_last(const Problem& p, const ConstArray& grad_output, const Gradients& gradients,
                                   ParallelFor parallel_for) {
  using T = Compute<S>;
  if (gradients.channel_filter.data == nullptr && gradients.spatial_filter.data == nullptr) {
    if (gradients.input.data != nullptr) {
      sum_channels_last<weight, true, S>(p, grad_output, gradients.input, parallel_for);
    }
    return;
  }

  // Enough blocks of rows to keep many threads busy, but few and large enough that their partial sums of the channel
  // filter's gradient cost little beside the rest.
  const int64_t slice = p.subpixels() * p.taps() * p.channels, positions = p.grid_height * p.grid_width;
  const int64_t blocks = max(1, min(min(p.grid_height, positions / 16), most_blocks<S, T>(p, slice)));
  const int64_t rows_per_block = ceil_div(p.grid_height, blocks);
  Buffer<T> partial(p.batch * blocks * slice);
  using ToFilters = FilterGradients<weight, S>;
  using ToInput = WeightedSum<weight, true, S>;
  const RunGeometry filter_runs = ToFilters::run_geometry(p), input_runs = ToInput::run_geometry(p, grad_output);
  const int64_t bytes_per_thread = ToFilters::scratch_bytes(p, filter_runs) + ToInput::scratch_bytes(p, input_runs);
  auto body = [&](int64_t begin, int64_t end) {
    ToFilters filter_gradients(p, filter_runs, grad_output, gradients.spatial_filter);
    ToInput input_gradient(p, input_runs, grad_output, gradients.input);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / blocks, block = i % blocks;
      T* grad_channel = partial.get() + i * slice;
      std::memset(grad_channel, 0, static_cast<size_t>(slice) * sizeof(T));
      const int64_t last = min((block + 1) * rows_per_block, p.grid_height);
      for (int64_t y = block * rows_per_block; y < last; ++y) {
        filter_gradients.accumulate_rows(n, y, grad_channel);
        if (gradients.input.data == nullptr) continue;
        // Each input row goes with one row of filter positions, which is near it for the default padding. Both read the
        // same rows of the output's gradient, and the second time these come from the cache.
        const int64_t end_row = (y + 1) * p.height / p.grid_height;
        for (int64_t row = y * p.height / p.grid_height; row < end_row; ++row) input_gradient.sum_rows(n, row);
      }
    }
  };
  run_parallel(parallel_for, p.batch * blocks,
               grain_size<S>(p, p.batch * blocks, rows_per_block * p.grid_width * slice, bytes_per_thread), body);
  if (gradients.channel_filter.data != nullptr) {
    sum_blocks(partial.get(), p.batch, blocks, slice, parallel_for, [&](const T* total, int64_t n) {
      for (int64_t q = 0; q < p.subpixels(); ++q) {
        for (int64_t t = 0; t < p.taps(); ++t, total += p.channels) {
          store_row(total, at<S>(gradients.channel_filter, n, q * p.channels, t / p.kernel_x, t % p.kernel_x),
                    gradients.channel_filter.stride[1], p.channels);
        }
      }
    });
  }
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
