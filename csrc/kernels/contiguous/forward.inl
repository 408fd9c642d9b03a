// The forward pass for contiguous maps.
#pragma once

#include <cstdint>

#include "../common.inl"
#include "../isa/target.inl"
#include "../problem.h"
#include "../simd/simd.inl"
#include "tiles.inl"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

template <Weight weight, class S>
static void forward_contiguous(const Problem& p, const Array& output, ParallelFor parallel_for) {
  using T = Compute<S>;
  constexpr bool uses_spatial = weight != Weight::Channel, uses_channel = weight != Weight::Spatial;
  const int64_t taps = p.taps(), subpixels = p.subpixels();
  const Tiling tiling(p.batch, p.grid_height, p.grid_width, taps * subpixels, tap_extent(column_axis(p)));
  const int64_t filters = uses_spatial ? subpixels * taps : 0;
  const InputPlanes largest(p, tiling, filters);
  const int64_t line = round_up_to_vectors<T>(tiling.rows() * largest.pitch) + 4 * lanes<T>;
  const int64_t source_size = largest.count * largest.size + line;

  auto body = [&](int64_t begin, int64_t end) {
    Buffer<T> source(planes_per_block * source_size), target(planes_per_block * line);
    Buffer<T> spatial(filters * line), channel(taps * planes_per_block);
    Buffer<PlaneTap<T>> list(taps);

    for (int64_t index = begin; index < end; ++index) {
      const Tile tile = tiling.tile(index);
      const InputPlanes planes(p, tile.rows, tile.columns, largest.plane_per_tap);
      const int64_t count = (tile.rows - 1) * planes.pitch + tile.columns;
      const PlaneSource positions = {tile.y,    1,           p.grid_height, tile.x, 1, tile.x + tile.columns,
                                     tile.rows, planes.pitch};
      for (int64_t head = 0; head < p.heads; ++head) {
        if (uses_spatial) pack_spatial<S>(p, tile.n, head, positions, line, spatial.get());
        for_each_block(head * p.head_channels(), p.head_channels(), [&](int64_t first, auto constant) {
          constexpr int64_t block = decltype(constant)::value;
          for (int64_t u = 0; u < block; ++u) {
            planes.template pack<S>(p, tile, first + u, source.get() + u * source_size);
          }
          for (int64_t q = 0; q < subpixels; ++q) {
            if (uses_channel) pack_channel_taps<S>(p, tile.n, q, first, block, channel.get());
            for (int64_t t = 0; t < taps; ++t) {
              list[t] = {uses_spatial ? spatial.get() + (q * taps + t) * line : nullptr, channel.get() + t * block,
                         planes.offset(p, t / p.kernel_x, t % p.kernel_x)};
            }
            sum_planes<weight, block>(list.get(), taps, source.get(), source_size, target.get(), line, count);
            for (int64_t u = 0; u < block; ++u) {
              for (int64_t r = 0; r < tile.rows; ++r) {
                S* out = at<S>(output, tile.n, first + u, (tile.y + r) * p.upscale_y + q / p.upscale_x,
                               tile.x * p.upscale_x + q % p.upscale_x);
                store_row(target.get() + u * line + r * planes.pitch, out, output.stride[3] * p.upscale_x,
                          tile.columns);
              }
            }
          }
        });
      }
    }
  };
  const int64_t tiles = p.batch * tiling.tiles_per_sample();
  const int64_t operations_per_tile = tiling.rows() * tiling.columns() * subpixels * taps * p.channels;
  const int64_t values_per_thread = planes_per_block * (source_size + line + 3 * taps) + filters * line;
  const int64_t bytes_per_thread = values_per_thread * static_cast<int64_t>(sizeof(T));
  run_parallel(parallel_for, tiles, grain_size<S>(p, tiles, operations_per_tile, bytes_per_thread), body);
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
