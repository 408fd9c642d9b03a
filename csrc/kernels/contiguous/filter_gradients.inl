// The gradients of both filters for contiguous maps.
#pragma once

#include <cstdint>
#include <cstring>

#include "../common.inl"
#include "../isa/target.inl"
#include "../problem.h"
#include "../simd/simd.inl"
#include "tiles.inl"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

// The gradients of both filters for one tap: adds to grad_spatial[j] and writes grad_channel[u]. In lanes that are no
// filter position the gradient of the output is 0. The mask keeps a NaN of the input, which such a lane may read, out
// of the sums as well.
template <Weight weight, bool wants_channel, bool wants_spatial, int64_t block, class T>
static void accumulate_planes(const PlaneTap<T>& tap, const T* source, int64_t source_pitch, const T* grad,
                              int64_t grad_pitch, const T* mask, int64_t count, T* grad_spatial, T* grad_channel) {
  constexpr int64_t width = lanes<T>;
  constexpr bool product_weight = weight == Weight::Product;
  Vector<T> total[block] = {};
  for (int64_t j = 0; j < count; j += width) {
    const Bits<T> keep = load_bits(mask + j);
    const Vector<T> spatial = product_weight && wants_channel ? load(tap.spatial + j) : Vector<T>{};
    Vector<T> spatial_total = wants_spatial ? load(grad_spatial + j) : Vector<T>{};
#pragma GCC unroll 4
    for (int64_t u = 0; u < block; ++u) {
      const Vector<T> product =
          masked(load(grad + u * grad_pitch + j) * load(source + u * source_pitch + tap.source + j), keep);
      if (wants_channel) total[u] += product_weight ? product * spatial : product;
      if (wants_spatial) spatial_total += product_weight ? product * broadcast(tap.channel[u]) : product;
    }
    if (wants_spatial) store(grad_spatial + j, spatial_total);
  }
  if (wants_channel) {
    for (int64_t u = 0; u < block; ++u) grad_channel[u] = sum<T>(total[u]);
  }
}

template <Weight weight, bool wants_channel, bool wants_spatial, class S>
static void filter_gradients_tiled(const Problem& p, const ConstArray& grad_output, const Gradients& gradients,
                                   ParallelFor parallel_for) {
  using T = Compute<S>;
  constexpr bool uses_spatial = weight == Weight::Product, uses_channel = weight == Weight::Product;
  const int64_t taps = p.taps(), subpixels = p.subpixels(), slice = subpixels * p.channels * taps;
  const Tiling tiling(p.batch, p.grid_height, p.grid_width, 2 * taps * subpixels, tap_extent(column_axis(p)));
  // A block is a number of consecutive tiles.
  const int64_t tiles_per_block = ceil_div(tiling.tiles_per_sample(), most_blocks<S, T>(p, wants_channel ? slice : 1));
  const int64_t blocks = ceil_div(tiling.tiles_per_sample(), tiles_per_block);
  const int64_t filters = ((uses_spatial ? 1 : 0) + (wants_spatial ? 1 : 0)) * subpixels * taps;
  const InputPlanes largest(p, tiling, filters);
  const int64_t line = round_up_to_vectors<T>(tiling.rows() * largest.pitch) + 4 * lanes<T>;
  const int64_t source_size = largest.count * largest.size + line;
  Buffer<T> partial(wants_channel ? p.batch * blocks * slice : 0);  // (batch, blocks, subpixels, channels, taps)
  if (wants_channel) std::memset(partial.get(), 0, static_cast<size_t>(p.batch * blocks * slice) * sizeof(T));

  auto body = [&](int64_t begin, int64_t end) {
    Buffer<T> source(planes_per_block * source_size), grad(planes_per_block * line), mask(line);
    Buffer<T> spatial(uses_spatial ? subpixels * taps * line : 0), channel(taps * planes_per_block);
    Buffer<T> grad_spatial(wants_spatial ? subpixels * taps * line : 0), grad_channel(planes_per_block);

    auto multiply_tile = [&](const Tile& tile, T* block_gradient) {
      const InputPlanes planes(p, tile.rows, tile.columns, largest.plane_per_tap);
      const int64_t count = (tile.rows - 1) * planes.pitch + tile.columns;
      const int64_t full_count = round_up_to_vectors<T>(count);
      const PlaneSource positions = {tile.y,    1,           p.grid_height, tile.x, 1, tile.x + tile.columns,
                                     tile.rows, planes.pitch};
      std::memset(mask.get(), 0, static_cast<size_t>(full_count) * sizeof(T));
      for (int64_t r = 0; r < tile.rows; ++r) {
        std::memset(mask.get() + r * planes.pitch, 0xff, static_cast<size_t>(tile.columns) * sizeof(T));
      }
      for (int64_t head = 0; head < p.heads; ++head) {
        if (uses_spatial) {
          pack_spatial<S>(p, tile.n, head, positions, line, spatial.get());
          for (int64_t i = 0; i < subpixels * taps; ++i) {  // lanes beyond the tile are read and must not be NaN
            const int64_t packed = tile.rows * planes.pitch;
            std::memset(spatial.get() + i * line + packed, 0,
                        static_cast<size_t>(max(full_count - packed, 0)) * sizeof(T));
          }
        }
        if (wants_spatial) {
          std::memset(grad_spatial.get(), 0, static_cast<size_t>(subpixels * taps * line) * sizeof(T));
        }
        for_each_block(head * p.head_channels(), p.head_channels(), [&](int64_t first, auto constant) {
          constexpr int64_t block = decltype(constant)::value;
          for (int64_t u = 0; u < block; ++u) {
            planes.template pack<S>(p, tile, first + u, source.get() + u * source_size);
          }
          for (int64_t q = 0; q < subpixels; ++q) {
            for (int64_t u = 0; u < block; ++u) {
              pack_plane(at<S>(grad_output, tile.n, first + u, q / p.upscale_x, q % p.upscale_x),
                         grad_output.stride[2] * p.upscale_y, grad_output.stride[3] * p.upscale_x, positions,
                         grad.get() + u * line);
            }
            if (uses_channel) pack_channel_taps<S>(p, tile.n, q, first, block, channel.get());
            for (int64_t t = 0; t < taps; ++t) {
              const PlaneTap<T> tap = {spatial.get() + (q * taps + t) * line, channel.get() + t * block,
                                       planes.offset(p, t / p.kernel_x, t % p.kernel_x)};
              accumulate_planes<weight, wants_channel, wants_spatial, block>(
                  tap, source.get(), source_size, grad.get(), line, mask.get(), count,
                  grad_spatial.get() + (wants_spatial ? (q * taps + t) * line : 0), grad_channel.get());
              for (int64_t u = 0; wants_channel && u < block; ++u) {
                block_gradient[(q * p.channels + first + u) * taps + t] += grad_channel[u];
              }
            }
          }
        });
        for (int64_t i = 0; wants_spatial && i < subpixels * taps; ++i) {
          const int64_t q = i / taps, t = i % taps;
          for (int64_t r = 0; r < tile.rows; ++r) {
            store_row(grad_spatial.get() + i * line + r * planes.pitch,
                      at<S>(gradients.spatial_filter, tile.n, (q * p.heads + head) * taps + t, tile.y + r, tile.x),
                      gradients.spatial_filter.stride[3], tile.columns);
          }
        }
      }
    };
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / blocks, first = i % blocks * tiles_per_block;
      for (int64_t tile = first; tile < min(first + tiles_per_block, tiling.tiles_per_sample()); ++tile) {
        multiply_tile(tiling.tile(n * tiling.tiles_per_sample() + tile), partial.get() + i * slice);
      }
    }
  };
  const int64_t operations_per_block =
      tiles_per_block * tiling.rows() * tiling.columns() * subpixels * taps * p.channels;
  const int64_t values_per_thread = planes_per_block * (source_size + line + taps) + line + filters * line;
  const int64_t bytes_per_thread = values_per_thread * static_cast<int64_t>(sizeof(T));
  run_parallel(parallel_for, p.batch * blocks,
               grain_size<S>(p, p.batch * blocks, operations_per_block, bytes_per_thread), body);
  if (!wants_channel) return;

  sum_blocks(partial.get(), p.batch, blocks, slice, parallel_for, [&](const T* total, int64_t n) {
    for (int64_t c = 0; c < subpixels * p.channels; ++c) {
      for (int64_t ky = 0; ky < p.kernel_y; ++ky, total += p.kernel_x) {
        store_row(total, at<S>(gradients.channel_filter, n, c, ky, 0), gradients.channel_filter.stride[3], p.kernel_x);
      }
    }
  });
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
