// The layer in one call, for inference: predicts both filters from the map, normalises them and applies them. In float,
// for channels_last maps.
//
// As a network of small operations this takes twenty passes over small tensors, and on a small map most of the time
// goes into their calls. Here the map is read twice: once for the spatial filters and for its mean over all pixels,
// from which the channel filters are predicted, and once to be filtered.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "channels_last/channel_vectors.inl"
#include "channels_last/weighted_sum.inl"
#include "common.inl"
#include "filter_norm.inl"
#include "isa/target.inl"
#include "problem.h"
#include "simd/simd.inl"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

// The number of pixels whose spatial filters are predicted together: each needs nine sums in registers.
constexpr int64_t pixels_per_step = vector_registers >= 32 ? 3 : 1;

// --- sums of products ------------------------------------------------------------------------------------------------

// partial[i * rows + r] = weight row r times pixel i, summed lane by lane. Adds the pixels to `total` unless it is
// null.
template <int64_t pixels, int64_t rows>
static void multiply_pixels(const float* map, int64_t pixel_step, const float* weight, int64_t channels, float* total,
                            float* partial) {
  using V = Vector<float>;
  constexpr int64_t width = lanes<float>;
  V sum[pixels][rows] = {};
  auto add = [&](int64_t c, int64_t count, auto full_vector) __attribute__((always_inline)) {
    constexpr bool full = decltype(full_vector)::value;
    V pixel[pixels], all = {};
#pragma GCC unroll 3
    for (int64_t i = 0; i < pixels; ++i) {
      pixel[i] = load_channels<full>(map + i * pixel_step + c, count);
      all += pixel[i];
    }
    if (total != nullptr) store_channels<full>(total + c, load_channels<full>(total + c, count) + all, count);
#pragma GCC unroll 9
    for (int64_t r = 0; r < rows; ++r) {
      const V value = load_channels<full>(weight + r * channels + c, count);
#pragma GCC unroll 3
      for (int64_t i = 0; i < pixels; ++i) sum[i][r] += value * pixel[i];
    }
  };
  int64_t c = 0;
  for (; c + width <= channels; c += width) add(c, width, std::true_type{});
  if (c < channels) add(c, channels - c, std::false_type{});
#pragma GCC unroll 3
  for (int64_t i = 0; i < pixels; ++i) {
#pragma GCC unroll 9
    for (int64_t r = 0; r < rows; ++r) store(partial + (i * rows + r) * width, sum[i][r]);
  }
}

// result[i * outputs + r] = bias[r] + weight row r * pixel i, for `pixels` pixels. `partial` is scratch memory for
// their sums.
template <int64_t pixels>
static void apply_weight(const float* map, int64_t pixel_step, const float* weight, const float* bias, int64_t outputs,
                         int64_t channels, float* total, float* partial, float* result) {
  float sums[pixels * 9];
  auto apply = [&](int64_t first, auto constant) {
    constexpr int64_t rows = decltype(constant)::value;
    multiply_pixels<pixels, rows>(map, pixel_step, weight + first * channels, channels, first == 0 ? total : nullptr,
                                  partial);
    sum_each(partial, pixels * rows, sums);
    for (int64_t i = 0; i < pixels; ++i) {
      for (int64_t r = 0; r < rows; ++r) result[i * outputs + first + r] = sums[i * rows + r] + bias[first + r];
    }
  };
  int64_t first = 0;
  for (; first + 9 <= outputs; first += 9) apply(first, std::integral_constant<int64_t, 9>{});
  for (; first < outputs; ++first) apply(first, std::integral_constant<int64_t, 1>{});
}

// --- the two branches ------------------------------------------------------------------------------------------------

// Predicts the spatial filters of all positions, (batch, grid_height, grid_width, heads * taps), and sums the map over
// blocks of rows, (batch, blocks, channels).
static void predict_spatial(const Problem& p, const Layer& layer, float* filters, float* totals, int64_t blocks,
                            ParallelFor parallel_for) {
  constexpr int64_t width = lanes<float>;
  const int64_t outputs = p.heads * p.taps(), pixel = p.input.stride[3];
  // True if filters are predicted from exactly the pixels that are averaged.
  const bool dense = p.stride_y == 1 && p.stride_x == 1 && p.grid_height == p.height && p.grid_width == p.width;
  auto body = [&](int64_t begin, int64_t end) {
    Buffer<float> partial((pixels_per_step * 9 + width) * width), row(p.grid_width * outputs), tile(p.taps() * width);
    // The mean is summed row by row, because a long sum of similar numbers, added one by one, would drift.
    Buffer<float> row_total(p.channels);
    const size_t total_bytes = static_cast<size_t>(p.channels) * sizeof(float);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / blocks, block = i % blocks;
      float* total = totals + i * p.channels;
      std::memset(total, 0, total_bytes);
      auto add_row = [&] {
        for (int64_t c = 0; c < p.channels; ++c) total[c] += row_total[c];
      };
      for (int64_t y = block * p.height / blocks; !dense && y < (block + 1) * p.height / blocks; ++y) {
        std::memset(row_total.get(), 0, total_bytes);
        for (int64_t x = 0; x < p.width; ++x) {
          const float* source = at<float>(p.input, n, 0, y, x);
          for (int64_t c = 0; c < p.channels; ++c) row_total[c] += source[c];
        }
        add_row();
      }
      for (int64_t y = block * p.grid_height / blocks; y < (block + 1) * p.grid_height / blocks; ++y) {
        auto apply = [&](int64_t x, auto constant) {
          apply_weight<decltype(constant)::value>(at<float>(p.input, n, 0, y * p.stride_y, x * p.stride_x),
                                                  pixel * p.stride_x, layer.spatial_weight, layer.spatial_bias, outputs,
                                                  p.channels, dense ? row_total.get() : nullptr, partial.get(),
                                                  row.get() + x * outputs);
        };
        if (dense) std::memset(row_total.get(), 0, total_bytes);
        int64_t x = 0;
        for (; x + pixels_per_step <= p.grid_width; x += pixels_per_step) {
          apply(x, std::integral_constant<int64_t, pixels_per_step>{});
        }
        for (; x < p.grid_width; ++x) apply(x, std::integral_constant<int64_t, 1>{});
        if (dense) add_row();
        float* target = filters + (n * p.grid_height + y) * p.grid_width * outputs;
        for (int64_t head = 0; head < p.heads; ++head) {
          Norm<float> norm = layer.spatial_norm;
          if (norm.scale != nullptr) norm.scale += head * p.taps();
          if (norm.shift != nullptr) norm.shift += head * p.taps();
          for (int64_t x = 0; x < p.grid_width; x += width) {
            const int64_t first = x * outputs + head * p.taps();
            const FilterGroup group = {p.taps(), min(width, p.grid_width - x), 0};
            normalise_group(group, norm, row.get() + first, outputs, 1, target + first, outputs, 1, tile.get());
          }
        }
      }
    }
  };
  run_parallel(parallel_for, p.batch * blocks, grain_size(p.grid_height * p.grid_width / blocks * outputs * p.channels),
               body);
}

// Predicts the channel filters, (batch, taps, channels), from the sums over blocks.
static void predict_channel(const Problem& p, const Layer& layer, float* totals, int64_t blocks, float* filters,
                            ParallelFor parallel_for) {
  constexpr int64_t width = lanes<float>;
  const float pixels = static_cast<float>(p.height * p.width);
  Buffer<float> hidden(p.batch * layer.width);
  auto reduce = [&](int64_t begin, int64_t end) {
    Buffer<float> partial((9 + width) * width);
    for (int64_t n = begin; n < end; ++n) {
      float *mean = totals + n * blocks * p.channels, *values = hidden.get() + n * layer.width;
      for (int64_t block = 1; block < blocks; ++block) {
        for (int64_t c = 0; c < p.channels; ++c) mean[c] += mean[block * p.channels + c];
      }
      for (int64_t c = 0; c < p.channels; ++c) mean[c] /= pixels;
      apply_weight<1>(mean, 0, layer.reduce_weight, layer.reduce_bias, layer.width, p.channels, nullptr, partial.get(),
                      values);
      for (int64_t i = 0; i < layer.width; ++i) values[i] = values[i] < 0 ? 0 : values[i];  // a NaN stays
    }
  };
  run_parallel(parallel_for, p.batch, grain_size((layer.width + blocks) * p.channels), reduce);

  // A vector of channels at a time for all samples, so that its weights are read from memory once.
  auto expand = [&](int64_t begin, int64_t end) {
    Buffer<float> partial((9 + width) * width), raw(width * p.taps()), tile(p.taps() * width);
    for (int64_t group = begin; group < end; ++group) {
      const int64_t c = group * width, count = min(width, p.channels - c), first = c * p.taps();
      Norm<float> norm = layer.channel_norm;
      if (norm.scale != nullptr) norm.scale += first;
      if (norm.shift != nullptr) norm.shift += first;
      for (int64_t n = 0; n < p.batch; ++n) {
        apply_weight<1>(hidden.get() + n * layer.width, 0, layer.expand_weight + first * layer.width,
                        layer.expand_bias + first, count * p.taps(), layer.width, nullptr, partial.get(), raw.get());
        normalise_group(FilterGroup{p.taps(), count, p.taps()}, norm, raw.get(), p.taps(), 1,
                        filters + n * p.taps() * p.channels + c, 1, p.channels, tile.get());
      }
    }
  };
  run_parallel(parallel_for, ceil_div(p.channels, width), grain_size(p.batch * width * p.taps() * layer.width), expand);
}

static void predict_and_filter(const Problem& problem, const Layer& layer, const Array& output,
                               ParallelFor parallel_for) {
  Problem p = problem;
  const int64_t outputs = p.heads * p.taps();
  const int64_t blocks = max(1, min(p.grid_height, ceil_div(32, max(p.batch, 1))));  // blocks of rows, as backward
  Buffer<float> spatial(p.batch * p.grid_height * p.grid_width * outputs), channel(p.batch * p.taps() * p.channels);
  {
    Buffer<float> totals(p.batch * blocks * p.channels);
    predict_spatial(p, layer, spatial.get(), totals.get(), blocks, parallel_for);
    predict_channel(p, layer, totals.get(), blocks, channel.get(), parallel_for);
  }
  p.spatial_filter = {spatial.get(), {p.grid_height * p.grid_width * outputs, 1, p.grid_width * outputs, outputs}};
  p.channel_filter = {channel.get(), {p.taps() * p.channels, 1, p.kernel_x * p.channels, p.channels}};
  if (p.weight == Weight::Sum) {
    sum_channels_last<Weight::Sum, false, float>(p, p.input, output, parallel_for, layer.epilogue);
  } else {
    sum_channels_last<Weight::Product, false, float>(p, p.input, output, parallel_for, layer.epilogue);
  }
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
