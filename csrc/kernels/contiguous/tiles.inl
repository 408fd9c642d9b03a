// Tiles of a map, packed into planes in the compute type, and the sum over taps of packed planes.
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

constexpr int64_t planes_per_block = 4;

// The part of a map that one task works on, as filter positions (forward) or positions in a phase (transposed).
struct Tile {
  int64_t n, y, x, rows, columns;
};

// Returns the distance of the first and the last tap along an axis, in steps of the stride.
DDF_INLINE int64_t tap_extent(const AxisGeometry& g) {
  return (g.taps - 1) * g.dilation / g.stride;
}

class Tiling {
 public:
  // Divides a `height` x `width` area of each of `batch` samples into tiles. The packed filters of a tile, `filters`
  // values per position, fit into the second-level cache, or are as few as is useful. A small batch gets smaller tiles,
  // so that a few threads have work, but none too small to be useful.
  Tiling(int64_t batch, int64_t height, int64_t width, int64_t filters, int64_t margin)
      : height_(height), width_(width) {
    const int64_t positions = max(max(32768 / filters, min(64, (1 << 18) / filters)), 1);
    columns_ = min(width, positions);
    tiles_x_ = ceil_div(width, columns_);
    const int64_t pitch = columns_ + margin;
    const int64_t finer = max(ceil_div(height * batch * tiles_x_, 8), ceil_div(128, pitch));
    rows_ = max(1, min(positions / pitch, min(finer, height)));
    tiles_y_ = ceil_div(height, rows_);
  }

  int64_t tiles_per_sample() const { return tiles_x_ * tiles_y_; }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  Tile tile(int64_t index) const {
    const int64_t n = index / tiles_per_sample(), place = index % tiles_per_sample();
    const int64_t y = place / tiles_x_ * rows_, x = place % tiles_x_ * columns_;
    return {n, y, x, min(rows_, height_ - y), min(columns_, width_ - x)};
  }

 private:
  int64_t height_, width_, columns_, tiles_x_, rows_, tiles_y_;
};

// target[i] = source[first + i * step] where that index is in [0, limit), else 0.
template <class S>
static void pack_row(const S* source, int64_t stride, int64_t first, int64_t step, int64_t limit, Compute<S>* target,
                     int64_t count) {
  using T = Compute<S>;
  const int64_t begin = min(count, first < 0 ? ceil_div(-first, step) : 0);
  const int64_t end = max(begin, min(count, first < limit ? (limit - 1 - first) / step + 1 : 0));
  for (int64_t i = 0; i < begin; ++i) target[i] = T(0);
  if (begin < end) load_row(source + (first + begin * step) * stride, step * stride, target + begin, end - begin);
  for (int64_t i = end; i < count; ++i) target[i] = T(0);
}

// The part of a map that is packed into a plane of `rows` rows of `pitch` columns: plane row r is map row
// first_y + r * step_y, and columns likewise. Values outside the map are 0.
struct PlaneSource {
  int64_t first_y, step_y, height, first_x, step_x, width, rows, pitch;
};
template <class S>
static void pack_plane(const S* map, int64_t stride_y, int64_t stride_x, const PlaneSource& from, Compute<S>* target) {
  for (int64_t r = 0; r < from.rows; ++r, target += from.pitch) {
    const int64_t y = from.first_y + r * from.step_y;
    if (y < 0 || y >= from.height) {
      std::memset(target, 0, static_cast<size_t>(from.pitch) * sizeof(Compute<S>));
    } else {
      pack_row(map + y * stride_y, stride_x, from.first_x, from.step_x, from.width, target, from.pitch);
    }
  }
}

template <class T>
struct PlaneTap {
  const T* spatial;
  const T* channel;  // one value per channel of the block
  int64_t source;    // offset in the packed source
};

// target[u][j] = sum over taps of combine(channel[u], spatial[j]) * source[u][offset + j], for the channels u of a
// block. Reads and writes full vectors, up to two beyond `count`.
template <Weight weight, int64_t block, class T>
static void sum_planes(const PlaneTap<T>* taps, int64_t tap_count, const T* source, int64_t source_pitch, T* target,
                       int64_t target_pitch, int64_t count) {
  constexpr int64_t width = lanes<T>, pair = 2;
  constexpr bool spatial = weight != Weight::Channel, channel = weight != Weight::Spatial;
  for (int64_t j = 0; j < count; j += pair * width) {
    Vector<T> total[block][pair] = {};
    for (int64_t t = 0; t < tap_count; ++t) {
      const T* place = source + taps[t].source + j;
      Vector<T> filter[pair];
      for (int64_t v = 0; v < pair; ++v) filter[v] = spatial ? load(taps[t].spatial + j + v * width) : Vector<T>{};
#pragma GCC unroll 4
      for (int64_t u = 0; u < block; ++u) {
        const Vector<T> value = channel ? broadcast(taps[t].channel[u]) : Vector<T>{};
#pragma GCC unroll 2
        for (int64_t v = 0; v < pair; ++v) {
          total[u][v] += combine<weight>(value, filter[v]) * load(place + u * source_pitch + v * width);
        }
      }
    }
#pragma GCC unroll 4
    for (int64_t u = 0; u < block; ++u) {
#pragma GCC unroll 2
      for (int64_t v = 0; v < pair; ++v) store(target + u * target_pitch + j + v * width, total[u][v]);
    }
  }
}

template <class T>
DDF_INLINE int64_t round_up_to_vectors(int64_t count) {
  return ceil_div(count, 2 * lanes<T>) * 2 * lanes<T>;
}

// Packs the channel filter of channels [first, first + block) of a subpixel for sum_planes: (taps, block).
template <class S>
static void pack_channel_taps(const Problem& p, int64_t n, int64_t subpixel, int64_t first, int64_t block,
                              Compute<S>* packed) {
  for (int64_t u = 0; u < block; ++u) {
    for (int64_t ky = 0; ky < p.kernel_y; ++ky) {
      for (int64_t kx = 0; kx < p.kernel_x; ++kx) {
        packed[(ky * p.kernel_x + kx) * block + u] =
            load_scalar(at<S>(p.channel_filter, n, subpixel * p.channels + first + u, ky, kx));
      }
    }
  }
}

// Calls body(first, block) for the channels of a head: planes_per_block at a time, and the rest one by one. The number
// is passed as an integral constant, so that it is a compile-time constant in the body.
template <class Body>
DDF_INLINE void for_each_block(int64_t first, int64_t count, Body body) {
  int64_t c = 0;
  for (; c + planes_per_block <= count; c += planes_per_block) {
    body(first + c, std::integral_constant<int64_t, planes_per_block>{});
  }
  for (; c < count; ++c) body(first + c, std::integral_constant<int64_t, 1>{});
}

// Returns true if a tile is to be packed as one plane per tap, `tap_planes` of them, and not as `planes` planes with a
// margin for the taps. The margin widens the `filters` planes of the spatial filter as well, which have the same pitch.
DDF_INLINE bool prefers_plane_per_tap(const Problem& p, const Tiling& tiling, int64_t planes, int64_t tap_planes,
                                      int64_t filters) {
  const double rows = static_cast<double>(tiling.rows()), columns = static_cast<double>(tiling.columns());
  const double pitch = columns + static_cast<double>(tap_extent(column_axis(p)));
  const double all_rows = rows + static_cast<double>(tap_extent(row_axis(p)));
  const auto values = [&](double sources, double size, double filter_size) {
    return static_cast<double>(planes_per_block) * sources * size + static_cast<double>(filters) * filter_size;
  };
  return values(static_cast<double>(planes), all_rows * pitch, rows * pitch) >
         16384 + values(static_cast<double>(tap_planes), rows * columns, rows * columns);
}

// The planes of the input for a tile of filter positions: one per phase of the stride, with a margin for the taps, in
// which each tap is an offset. For large strides and dilations, one per tap. Without a tile, the planes of the largest.
struct InputPlanes {
  InputPlanes(const Problem& p, const Tiling& tiling, int64_t filters)
      : InputPlanes(p, tiling.rows(), tiling.columns(),
                    prefers_plane_per_tap(p, tiling, p.stride_y * p.stride_x, p.taps(), filters)) {}
  InputPlanes(const Problem& p, int64_t tile_rows, int64_t tile_columns, bool plane_per_tap)
      : pitch(tile_columns + (plane_per_tap ? 0 : tap_extent(column_axis(p)))),
        rows(tile_rows + (plane_per_tap ? 0 : tap_extent(row_axis(p)))),
        plane_per_tap(plane_per_tap),
        size(pitch * rows),
        count(plane_per_tap ? p.taps() : p.stride_y * p.stride_x) {}

  // Returns the offset of tap (ky, kx) for the first position of the tile.
  int64_t offset(const Problem& p, int64_t ky, int64_t kx) const {
    if (plane_per_tap) return (ky * p.kernel_x + kx) * size;
    const int64_t y = ky * p.dilation_y, x = kx * p.dilation_x;
    return (y % p.stride_y * p.stride_x + x % p.stride_x) * size + y / p.stride_y * pitch + x / p.stride_x;
  }

  template <class S>
  void pack(const Problem& p, const Tile& tile, int64_t channel, Compute<S>* target) const {
    const int64_t across = plane_per_tap ? p.kernel_x : p.stride_x;
    for (int64_t plane = 0; plane < count; ++plane) {
      const int64_t i = plane / across, j = plane % across;
      if (!plane_per_tap &&
          (!used(p.kernel_y, p.dilation_y, p.stride_y, i) || !used(p.kernel_x, p.dilation_x, p.stride_x, j))) {
        continue;
      }
      const int64_t first_y = tile.y * p.stride_y - p.padding_y + (plane_per_tap ? i * p.dilation_y : i);
      const int64_t first_x = tile.x * p.stride_x - p.padding_x + (plane_per_tap ? j * p.dilation_x : j);
      const PlaneSource from = {first_y, p.stride_y, p.height, first_x, p.stride_x, p.width, rows, pitch};
      pack_plane(at<S>(p.input, tile.n, channel, 0, 0), p.input.stride[2], p.input.stride[3], from,
                 target + plane * size);
    }
  }

  int64_t pitch, rows;
  bool plane_per_tap;
  int64_t size, count;

 private:
  static bool used(int64_t taps, int64_t dilation, int64_t stride, int64_t phase) {
    for (int64_t k = 0; k < taps; ++k) {
      if (k * dilation % stride == phase) return true;
    }
    return false;
  }
};

// Packs the spatial filter of a tile and head: (subpixels, taps) planes that are `size` apart.
template <class S>
static void pack_spatial(const Problem& p, int64_t n, int64_t head, const PlaneSource& from, int64_t size,
                         Compute<S>* target) {
  for (int64_t q = 0; q < p.subpixels(); ++q) {
    for (int64_t t = 0; t < p.taps(); ++t, target += size) {
      pack_plane(at<S>(p.spatial_filter, n, (q * p.heads + head) * p.taps() + t, 0, 0), p.spatial_filter.stride[2],
                 p.spatial_filter.stride[3], from, target);
    }
  }
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
