// The gradient of the input for contiguous maps.
#pragma once

#include <cstdint>

#include "../common.inl"
#include "../isa/target.inl"
#include "../problem.h"
#include "../simd/simd.inl"
#include "tiles.inl"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

// The positions along an axis of the padded input, divided by the stride, that hold input pixels.
struct PhaseRange {
  explicit PhaseRange(const AxisGeometry& g)
      : first(g.padding / g.stride), count((g.padding + g.inputs - 1) / g.stride - first + 1) {}
  int64_t first, count;
};

// The positions of one phase within a tile that are input pixels: position i is input first_input + i * stride.
struct PhaseSpan {
  PhaseSpan(const AxisGeometry& g, int64_t tile_first, int64_t tile_count, int64_t phase) {
    const int64_t input = tile_first * g.stride + phase - g.padding;
    begin = min(tile_count, input < 0 ? ceil_div(-input, g.stride) : 0);
    end = max(begin, min(tile_count, input < g.inputs ? (g.inputs - 1 - input) / g.stride + 1 : 0));
    first_input = input;
  }
  int64_t begin, end, first_input;
};

template <Weight weight, class S>
static void input_gradient_tiled(const Problem& p, const ConstArray& grad_output, const Array& grad_input,
                                 ParallelFor parallel_for) {
  using T = Compute<S>;
  constexpr bool uses_spatial = weight != Weight::Channel, uses_channel = weight != Weight::Spatial;
  const AxisGeometry axis_y = row_axis(p), axis_x = column_axis(p);
  const PhaseRange row_range(axis_y), column_range(axis_x);
  const int64_t taps = p.taps(), subpixels = p.subpixels(), filters = uses_spatial ? subpixels * taps : 0;
  const Tiling tiling(p.batch, row_range.count, column_range.count, taps * subpixels, tap_extent(axis_x));
  // The planes of the output's gradient: one per subpixel, with a margin for the taps, in which each tap is an offset.
  // For large dilations, one per subpixel and tap.
  const bool plane_per_tap = prefers_plane_per_tap(p, tiling, subpixels, subpixels * taps, filters);
  const int64_t margin_y = plane_per_tap ? 0 : tap_extent(axis_y), margin_x = plane_per_tap ? 0 : tap_extent(axis_x);
  const int64_t planes = subpixels * (plane_per_tap ? taps : 1), slack = 4 * lanes<T>;
  const int64_t largest_pitch = tiling.columns() + margin_x;
  const int64_t line = round_up_to_vectors<T>(tiling.rows() * largest_pitch) + slack;
  const int64_t plane_size = round_up_to_vectors<T>((tiling.rows() + margin_y) * largest_pitch) + slack;

  auto body = [&](int64_t begin, int64_t end) {
    Buffer<T> source(planes_per_block * planes * plane_size), target(planes_per_block * line);
    Buffer<T> spatial(filters * line), channel(subpixels * taps * planes_per_block);
    Buffer<PlaneTap<T>> list(subpixels * taps);

    for (int64_t index = begin; index < end; ++index) {
      Tile tile = tiling.tile(index);
      tile.y += row_range.first;
      tile.x += column_range.first;
      const int64_t pitch = tile.columns + margin_x;
      const int64_t count = (tile.rows - 1) * pitch + tile.columns;
      // The positions that a tap joins with the tile, `margin` rows and columns before them included.
      const auto positions = [&](int64_t tap, int64_t rows_before, int64_t columns_before) -> PlaneSource {
        const int64_t y = tap / p.kernel_x * p.dilation_y / p.stride_y,
                      x = tap % p.kernel_x * p.dilation_x / p.stride_x;
        return {tile.y - y - rows_before, 1,    p.grid_height, tile.x - x - columns_before, 1, p.grid_width,
                tile.rows + rows_before,  pitch};
      };
      for (int64_t head = 0; head < p.heads; ++head) {
        for (int64_t i = 0; i < filters; ++i) {
          const int64_t q = i / taps, t = i % taps;
          pack_plane(at<S>(p.spatial_filter, tile.n, (q * p.heads + head) * taps + t, 0, 0), p.spatial_filter.stride[2],
                     p.spatial_filter.stride[3], positions(t, 0, 0), spatial.get() + i * line);
        }
        for_each_block(head * p.head_channels(), p.head_channels(), [&](int64_t first, auto constant) {
          constexpr int64_t block = decltype(constant)::value;
          for (int64_t i = 0; i < planes; ++i) {
            const int64_t q = plane_per_tap ? i / taps : i;
            const PlaneSource from = plane_per_tap ? positions(i % taps, 0, 0) : positions(0, margin_y, margin_x);
            for (int64_t u = 0; u < block; ++u) {
              pack_plane(at<S>(grad_output, tile.n, first + u, q / p.upscale_x, q % p.upscale_x),
                         grad_output.stride[2] * p.upscale_y, grad_output.stride[3] * p.upscale_x, from,
                         source.get() + (u * planes + i) * plane_size);
            }
          }
          for (int64_t q = 0; q < subpixels && uses_channel; ++q) {
            pack_channel_taps<S>(p, tile.n, q, first, block, channel.get() + q * taps * block);
          }
          for (int64_t phase = 0; phase < p.stride_y * p.stride_x; ++phase) {
            const int64_t phase_y = phase / p.stride_x, phase_x = phase % p.stride_x;
            const PhaseSpan rows(axis_y, tile.y, tile.rows, phase_y);
            const PhaseSpan columns(axis_x, tile.x, tile.columns, phase_x);
            if (rows.begin == rows.end || columns.begin == columns.end) continue;
            int64_t used = 0;
            for (int64_t q = 0; q < subpixels; ++q) {
              for (int64_t t = 0; t < taps; ++t) {
                const int64_t y = t / p.kernel_x * p.dilation_y, x = t % p.kernel_x * p.dilation_x;
                if (y % p.stride_y != phase_y || x % p.stride_x != phase_x) continue;
                const int64_t i = q * taps + t;
                const int64_t offset = (margin_y - y / p.stride_y) * pitch + margin_x - x / p.stride_x;
                list[used++] = {uses_spatial ? spatial.get() + i * line : nullptr, channel.get() + i * block,
                                plane_per_tap ? i * plane_size : q * plane_size + offset};
              }
            }
            sum_planes<weight, block>(list.get(), used, source.get(), planes * plane_size, target.get(), line, count);
            for (int64_t u = 0; u < block; ++u) {
              for (int64_t r = rows.begin; r < rows.end; ++r) {
                S* out = at<S>(grad_input, tile.n, first + u, rows.first_input + r * p.stride_y,
                               columns.first_input + columns.begin * p.stride_x);
                store_row(target.get() + u * line + r * pitch + columns.begin, out, grad_input.stride[3] * p.stride_x,
                          columns.end - columns.begin);
              }
            }
          }
        });
      }
    }
  };
  const int64_t tiles = p.batch * tiling.tiles_per_sample();
  const int64_t operations_per_tile = tiling.rows() * tiling.columns() * subpixels * taps * p.channels;
  const int64_t values_per_thread =
      planes_per_block * (planes * plane_size + line + 3 * subpixels * taps) + filters * line;
  const int64_t bytes_per_thread = values_per_thread * static_cast<int64_t>(sizeof(T));
  run_parallel(parallel_for, tiles, grain_size<S>(p, tiles, operations_per_tile, bytes_per_thread), body);
}

// The gradient of the input in scalars, tap by tap, for strides and dilations so large that the sources of a tile would
// be many times the tile.
template <Weight weight, class S>
static void input_gradient_scalar(const Problem& p, const ConstArray& grad_output, const Array& grad_input,
                                  ParallelFor parallel_for) {
  using T = Compute<S>;
  constexpr bool uses_spatial = weight != Weight::Channel, uses_channel = weight != Weight::Spatial;
  const Axis rows(row_axis(p), true), columns(column_axis(p), true);
  auto pixel = [&](int64_t n, int64_t c, int64_t y, int64_t x) {
    const TapRange lines = rows.taps(y), places = columns.taps(x);
    T total = 0;
    for (int64_t q = 0; q < p.subpixels(); ++q) {
      const int64_t group = q * p.heads + c / p.head_channels();
      for (int64_t i = 0; i < lines.count; ++i) {
        for (int64_t j = 0; j < places.count; ++j) {
          const int64_t ky = lines.tap + i * lines.tap_step, kx = places.tap + j * places.tap_step;
          const int64_t row = lines.source + i * lines.source_step, column = places.source + j * places.source_step;
          const T channel = uses_channel ? load_scalar(at<S>(p.channel_filter, n, q * p.channels + c, ky, kx)) : T(0);
          const T spatial =
              uses_spatial
                  ? load_scalar(at<S>(p.spatial_filter, n, group * p.taps() + ky * p.kernel_x + kx, row, column))
                  : T(0);
          total += combine<weight>(channel, spatial) *
                   load_scalar(at<S>(grad_output, n, c, row * p.upscale_y + q / p.upscale_x,
                                     column * p.upscale_x + q % p.upscale_x));
        }
      }
    }
    return total;
  };
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / p.channels, c = i % p.channels;
      for (int64_t y = 0; y < p.height; ++y) {
        for (int64_t x = 0; x < p.width; ++x) store_scalar(at<S>(grad_input, n, c, y, x), pixel(n, c, y, x));
      }
    }
  };
  run_parallel(parallel_for, p.batch * p.channels, grain_size(p.height * p.width * p.subpixels() * p.taps()), body);
}

// Returns true if a tile of the input would need sources out of proportion to the input.
DDF_INLINE bool exceeds_tiles(const Problem& p) {
  return p.stride_y * p.stride_x > 1024 || tap_extent(row_axis(p)) > 2 * p.height + 64 ||
         tap_extent(column_axis(p)) > 2 * p.width + 64;
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
