// Kernels for maps whose columns lie side by side (contiguous), and for any other strides: vectors of columns.
//
// A tile of a map is packed, in the type of the sums, into rows of one pitch that leaves room for the kernel's reach.
// Read as one long line, such a tile turns each tap into a constant offset: no borders, no short rows at 7 or 14 pixels
// (a vector runs over the end of a row into the next; those lanes are computed and dropped), any stride between
// elements. With a stride between filter positions, each of its phases is packed as a plane of its own, and the same
// holds in each. The spatial filter's tile is packed once and serves all channels of a head; channels go four at a
// time, so that a vector of the spatial filter is loaded once for four.

constexpr int64_t planes_at_once = 4;

// The part of a map that one task works on, as filter positions (forward) or positions in a phase (transposed).
struct Tile {
  int64_t n, y, x, rows, columns;
};

// How far the taps reach along an axis, in steps of the stride.
DDF_INLINE int64_t reach(const AxisGeometry& g) {
  return (g.taps - 1) * g.dilation / g.stride;
}

class Tiling {
 public:
  // Tiles of a `height` x `width` area for each of `batch` samples. `filters` packed values a position are to fit in
  // the second-level cache. A small batch is cut finer, so that a few threads have work, but not below a useful tile.
  Tiling(int64_t batch, int64_t height, int64_t width, int64_t filters, int64_t margin)
      : height_(height), width_(width) {
    const int64_t positions = max(32768 / filters, 64);
    columns_ = min(width, positions);
    across_ = ceil_div(width, columns_);
    const int64_t pitch = columns_ + margin;
    const int64_t finer = max(ceil_div(height * batch * across_, 8), ceil_div(128, pitch));
    rows_ = max(1, min(positions / pitch, min(finer, height)));
    down_ = ceil_div(height, rows_);
  }

  int64_t a_sample() const { return across_ * down_; }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  Tile tile(int64_t index) const {
    const int64_t n = index / a_sample(), place = index % a_sample();
    const int64_t y = place / across_ * rows_, x = place % across_ * columns_;
    return {n, y, x, min(rows_, height_ - y), min(columns_, width_ - x)};
  }

 private:
  int64_t height_, width_, columns_, across_, rows_, down_;
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

// Where a plane of `rows` rows of `pitch` columns takes its values: plane row r is map row first_y + r * step_y, and
// alike for columns; what is outside the map is 0.
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
  const T* channel;  // a value for each of the channels that go together
  int64_t source;    // offset into the packed source
};

// target[u][j] = sum over taps of weight(channel[u], spatial[j]) * source[u][offset + j], for `together` channels u.
// Whole vectors: up to two beyond `count` are read and written.
template <Weight weight, int64_t together, class T>
static void plane_sum(const PlaneTap<T>* taps, int64_t tap_count, const T* source, int64_t source_pitch, T* target,
                      int64_t target_pitch, int64_t count) {
  constexpr int64_t width = lanes<T>, pair = 2;
  constexpr bool spatial = weight != Weight::Channel, channel = weight != Weight::Spatial;
  for (int64_t j = 0; j < count; j += pair * width) {
    Vector<T> total[together][pair] = {};
    for (int64_t t = 0; t < tap_count; ++t) {
      const T* place = source + taps[t].source + j;
      Vector<T> filter[pair];
      for (int64_t v = 0; v < pair; ++v) filter[v] = spatial ? load(taps[t].spatial + j + v * width) : Vector<T>{};
#pragma GCC unroll 4
      for (int64_t u = 0; u < together; ++u) {
        const Vector<T> value = channel ? broadcast(taps[t].channel[u]) : Vector<T>{};
#pragma GCC unroll 2
        for (int64_t v = 0; v < pair; ++v) {
          total[u][v] += combine<weight>(value, filter[v]) * load(place + u * source_pitch + v * width);
        }
      }
    }
#pragma GCC unroll 4
    for (int64_t u = 0; u < together; ++u) {
#pragma GCC unroll 2
      for (int64_t v = 0; v < pair; ++v) store(target + u * target_pitch + j + v * width, total[u][v]);
    }
  }
}

template <class T>
DDF_INLINE int64_t whole_vectors(int64_t count) {
  return ceil_div(count, 2 * lanes<T>) * 2 * lanes<T>;
}

// Channel filter taps of channels [first, first + together) of a subpixel, as plane_sum wants them: (taps, together).
template <class S>
static void pack_channel_taps(const Problem& p, int64_t n, int64_t subpixel, int64_t first, int64_t together,
                              Compute<S>* packed) {
  for (int64_t u = 0; u < together; ++u) {
    for (int64_t ky = 0; ky < p.kernel_y; ++ky) {
      for (int64_t kx = 0; kx < p.kernel_x; ++kx) {
        packed[(ky * p.kernel_x + kx) * together + u] =
            load_scalar(at<S>(p.channel_filter, n, subpixel * p.channels + first + u, ky, kx));
      }
    }
  }
}

// Calls body(first, together) for the channels of a head, planes_at_once at a time and the rest one by one. `together`
// is a compile-time constant for the body: it is passed as a type.
template <int64_t n>
struct Together {
  static constexpr int64_t value = n;
};
template <class Body>
DDF_INLINE void for_channels(int64_t first, int64_t count, Body body) {
  int64_t c = 0;
  for (; c + planes_at_once <= count; c += planes_at_once) body(first + c, Together<planes_at_once>{});
  for (; c < count; ++c) body(first + c, Together<1>{});
}

// --- forward -----------------------------------------------------------------------------------------------

// Whether the planes of the phases, with what the taps reach, would be larger than a plane for each tap.
DDF_INLINE bool planes_a_tap(const Problem& p, const Tiling& tiling) {
  const double phases = static_cast<double>(p.stride_y) * static_cast<double>(p.stride_x);
  const double rows = static_cast<double>(tiling.rows() + reach(rows_of(p)));
  const double columns = static_cast<double>(tiling.columns() + reach(columns_of(p)));
  return phases * rows * columns > 4096 + static_cast<double>(p.taps() * tiling.rows() * tiling.columns());
}

// The input's planes under a tile of filter positions: one for each phase of the stride, as large as the taps reach, in
// which each tap is an offset; or, for large strides and dilations, one for each tap.
struct InputPlanes {
  InputPlanes(const Problem& p, int64_t tile_rows, int64_t tile_columns, bool a_tap)
      : pitch(tile_columns + (a_tap ? 0 : reach(columns_of(p)))),
        rows(tile_rows + (a_tap ? 0 : reach(rows_of(p)))),
        a_tap(a_tap),
        size(pitch * rows),
        count(a_tap ? p.taps() : p.stride_y * p.stride_x) {}

  // Where tap (ky, kx) of the tile's first position is.
  int64_t offset(const Problem& p, int64_t ky, int64_t kx) const {
    if (a_tap) return (ky * p.kernel_x + kx) * size;
    const int64_t y = ky * p.dilation_y, x = kx * p.dilation_x;
    return (y % p.stride_y * p.stride_x + x % p.stride_x) * size + y / p.stride_y * pitch + x / p.stride_x;
  }

  template <class S>
  void pack(const Problem& p, const Tile& tile, int64_t channel, Compute<S>* target) const {
    const int64_t across = a_tap ? p.kernel_x : p.stride_x;
    for (int64_t plane = 0; plane < count; ++plane) {
      const int64_t i = plane / across, j = plane % across;
      if (!a_tap &&
          (!used(p.kernel_y, p.dilation_y, p.stride_y, i) || !used(p.kernel_x, p.dilation_x, p.stride_x, j))) {
        continue;
      }
      const int64_t first_y = tile.y * p.stride_y - p.padding_y + (a_tap ? i * p.dilation_y : i);
      const int64_t first_x = tile.x * p.stride_x - p.padding_x + (a_tap ? j * p.dilation_x : j);
      const PlaneSource from = {first_y, p.stride_y, p.height, first_x, p.stride_x, p.width, rows, pitch};
      pack_plane(at<S>(p.input, tile.n, channel, 0, 0), p.input.stride[2], p.input.stride[3], from,
                 target + plane * size);
    }
  }

  int64_t pitch, rows;
  bool a_tap;
  int64_t size, count;

 private:
  static bool used(int64_t taps, int64_t dilation, int64_t stride, int64_t phase) {
    for (int64_t k = 0; k < taps; ++k) {
      if (k * dilation % stride == phase) return true;
    }
    return false;
  }
};

// The spatial filter of a tile and head: (subpixels, taps, `pitch`-ed positions), from grid position (y, x) on.
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

template <Weight weight, class S>
static void forward_planes(const Problem& p, const Array& output, ParallelFor parallel_for) {
  using T = Compute<S>;
  constexpr bool uses_spatial = weight != Weight::Channel, uses_channel = weight != Weight::Spatial;
  const int64_t taps = p.taps(), subpixels = p.subpixels();
  const Tiling tiling(p.batch, p.grid_height, p.grid_width, taps * subpixels, reach(columns_of(p)));
  const int64_t slack = 4 * lanes<T>;

  auto body = [&](int64_t begin, int64_t end) {
    const InputPlanes largest(p, tiling.rows(), tiling.columns(), planes_a_tap(p, tiling));
    const int64_t line = whole_vectors<T>(tiling.rows() * largest.pitch) + slack;
    const int64_t source_size = largest.count * largest.size + line;
    Buffer<T> source(planes_at_once * source_size), target(planes_at_once * line);
    Buffer<T> spatial(uses_spatial ? subpixels * taps * line : 0), channel(taps * planes_at_once);
    Buffer<PlaneTap<T>> list(taps);

    for (int64_t index = begin; index < end; ++index) {
      const Tile tile = tiling.tile(index);
      const InputPlanes planes(p, tile.rows, tile.columns, largest.a_tap);
      const int64_t count = (tile.rows - 1) * planes.pitch + tile.columns;
      const PlaneSource positions = {tile.y,    1,           p.grid_height, tile.x, 1, tile.x + tile.columns,
                                     tile.rows, planes.pitch};
      for (int64_t head = 0; head < p.heads; ++head) {
        if (uses_spatial) pack_spatial<S>(p, tile.n, head, positions, line, spatial.get());
        for_channels(head * p.head_channels(), p.head_channels(), [&](int64_t first, auto constant) {
          constexpr int64_t together = decltype(constant)::value;
          for (int64_t u = 0; u < together; ++u) {
            planes.template pack<S>(p, tile, first + u, source.get() + u * source_size);
          }
          for (int64_t q = 0; q < subpixels; ++q) {
            if (uses_channel) pack_channel_taps<S>(p, tile.n, q, first, together, channel.get());
            for (int64_t t = 0; t < taps; ++t) {
              list[t] = {uses_spatial ? spatial.get() + (q * taps + t) * line : nullptr, channel.get() + t * together,
                         planes.offset(p, t / p.kernel_x, t % p.kernel_x)};
            }
            plane_sum<weight, together>(list.get(), taps, source.get(), source_size, target.get(), line, count);
            for (int64_t u = 0; u < together; ++u) {
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
  run_parallel(parallel_for, p.batch * tiling.a_sample(),
               grain(tiling.rows() * tiling.columns() * subpixels * taps * p.channels), body);
}

// --- the gradient of the input -----------------------------------------------------------------------------

// Positions along an axis of the padded input, divided by the stride: those that hold input pixels.
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
static void input_gradient_planes(const Problem& p, const ConstArray& grad_output, const Array& grad_input,
                                  ParallelFor parallel_for) {
  using T = Compute<S>;
  constexpr bool uses_spatial = weight != Weight::Channel, uses_channel = weight != Weight::Spatial;
  const AxisGeometry row_axis = rows_of(p), column_axis = columns_of(p);
  const PhaseRange row_range(row_axis), column_range(column_axis);
  const int64_t reach_y = reach(row_axis), reach_x = reach(column_axis);
  const int64_t taps = p.taps(), subpixels = p.subpixels();
  const Tiling tiling(p.batch, row_range.count, column_range.count, taps * subpixels, reach_x);
  const int64_t slack = 4 * lanes<T>;

  auto body = [&](int64_t begin, int64_t end) {
    const int64_t largest_pitch = tiling.columns() + reach_x;
    const int64_t line = whole_vectors<T>((tiling.rows() + reach_y) * largest_pitch) + slack;
    Buffer<T> source(planes_at_once * subpixels * line), target(planes_at_once * line);
    Buffer<T> spatial(uses_spatial ? subpixels * taps * line : 0), channel(subpixels * taps * planes_at_once);
    Buffer<PlaneTap<T>> list(subpixels * taps);

    for (int64_t index = begin; index < end; ++index) {
      Tile tile = tiling.tile(index);
      tile.y += row_range.first;
      tile.x += column_range.first;
      const int64_t pitch = tile.columns + reach_x;
      const int64_t count = (tile.rows - 1) * pitch + tile.columns;
      const PlaneSource from = {tile.y - reach_y,    1,    p.grid_height, tile.x - reach_x, 1, p.grid_width,
                                tile.rows + reach_y, pitch};
      for (int64_t head = 0; head < p.heads; ++head) {
        if (uses_spatial) pack_spatial<S>(p, tile.n, head, from, line, spatial.get());
        for_channels(head * p.head_channels(), p.head_channels(), [&](int64_t first, auto constant) {
          constexpr int64_t together = decltype(constant)::value;
          for (int64_t q = 0; q < subpixels; ++q) {
            for (int64_t u = 0; u < together; ++u) {
              pack_plane(at<S>(grad_output, tile.n, first + u, q / p.upscale_x, q % p.upscale_x),
                         grad_output.stride[2] * p.upscale_y, grad_output.stride[3] * p.upscale_x, from,
                         source.get() + (u * subpixels + q) * line);
            }
            if (uses_channel) pack_channel_taps<S>(p, tile.n, q, first, together, channel.get() + q * taps * together);
          }
          for (int64_t phase = 0; phase < p.stride_y * p.stride_x; ++phase) {
            const int64_t phase_y = phase / p.stride_x, phase_x = phase % p.stride_x;
            const PhaseSpan rows(row_axis, tile.y, tile.rows, phase_y);
            const PhaseSpan columns(column_axis, tile.x, tile.columns, phase_x);
            if (rows.begin == rows.end || columns.begin == columns.end) continue;
            int64_t used = 0;
            for (int64_t q = 0; q < subpixels; ++q) {
              for (int64_t t = 0; t < taps; ++t) {
                const int64_t y = t / p.kernel_x * p.dilation_y, x = t % p.kernel_x * p.dilation_x;
                if (y % p.stride_y != phase_y || x % p.stride_x != phase_x) continue;
                const int64_t offset = (reach_y - y / p.stride_y) * pitch + reach_x - x / p.stride_x;
                list[used++] = {uses_spatial ? spatial.get() + (q * taps + t) * line + offset : nullptr,
                                channel.get() + (q * taps + t) * together, q * line + offset};
              }
            }
            plane_sum<weight, together>(list.get(), used, source.get(), subpixels * line, target.get(), line, count);
            for (int64_t u = 0; u < together; ++u) {
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
  run_parallel(parallel_for, p.batch * tiling.a_sample(),
               grain(tiling.rows() * tiling.columns() * subpixels * taps * p.channels), body);
}

// --- the gradients of both filters -------------------------------------------------------------------------

// Adds to grad_spatial[j] and gives grad_channel[u], for one tap. The gradient of the output is 0 in the lanes that are
// no filter position; the mask keeps a NaN of the input, which such a lane may read, out of the sums as well.
template <Weight weight, bool wants_channel, bool wants_spatial, int64_t together, class T>
static void plane_products(const PlaneTap<T>& tap, const T* source, int64_t source_pitch, const T* grad,
                           int64_t grad_pitch, const T* mask, int64_t count, T* grad_spatial, T* grad_channel) {
  constexpr int64_t width = lanes<T>;
  constexpr bool product_weight = weight == Weight::Product;
  Vector<T> total[together] = {};
  for (int64_t j = 0; j < count; j += width) {
    const Bits<T> keep = load_bits(mask + j);
    const Vector<T> spatial = product_weight && wants_channel ? load(tap.spatial + j) : Vector<T>{};
    Vector<T> spatial_total = wants_spatial ? load(grad_spatial + j) : Vector<T>{};
#pragma GCC unroll 4
    for (int64_t u = 0; u < together; ++u) {
      const Vector<T> product =
          masked(load(grad + u * grad_pitch + j) * load(source + u * source_pitch + tap.source + j), keep);
      if (wants_channel) total[u] += product_weight ? product * spatial : product;
      if (wants_spatial) spatial_total += product_weight ? product * broadcast(tap.channel[u]) : product;
    }
    if (wants_spatial) store(grad_spatial + j, spatial_total);
  }
  if (wants_channel) {
    for (int64_t u = 0; u < together; ++u) grad_channel[u] = sum<T>(total[u]);
  }
}

template <Weight weight, bool wants_channel, bool wants_spatial, class S>
static void filter_gradient_planes(const Problem& p, const ConstArray& grad_output, const Gradients& gradients,
                                   ParallelFor parallel_for) {
  using T = Compute<S>;
  constexpr bool uses_spatial = weight == Weight::Product, uses_channel = weight == Weight::Product;
  const int64_t taps = p.taps(), subpixels = p.subpixels(), slice = subpixels * p.channels * taps;
  const Tiling tiling(p.batch, p.grid_height, p.grid_width, 2 * taps * subpixels, reach(columns_of(p)));
  // A block is a number of tiles in a row: few blocks, so that their partial sums stay small beside the input.
  const int64_t tiles_a_block = ceil_div(tiling.a_sample(), max(1, ceil_div(32, max(p.batch, 1))));
  const int64_t blocks = ceil_div(tiling.a_sample(), tiles_a_block), slack = 4 * lanes<T>;
  Buffer<T> partial(wants_channel ? p.batch * blocks * slice : 0);  // (batch, blocks, subpixels, channels, taps)
  if (wants_channel) std::memset(partial.get(), 0, static_cast<size_t>(p.batch * blocks * slice) * sizeof(T));

  auto body = [&](int64_t begin, int64_t end) {
    const InputPlanes largest(p, tiling.rows(), tiling.columns(), planes_a_tap(p, tiling));
    const int64_t line = whole_vectors<T>(tiling.rows() * largest.pitch) + slack;
    const int64_t source_size = largest.count * largest.size + line;
    Buffer<T> source(planes_at_once * source_size), grad(planes_at_once * line), mask(line);
    Buffer<T> spatial(uses_spatial ? subpixels * taps * line : 0), channel(taps * planes_at_once);
    Buffer<T> grad_spatial(wants_spatial ? subpixels * taps * line : 0), grad_channel(planes_at_once);

    auto multiply_tile = [&](const Tile& tile, T* block_gradient) {
      const InputPlanes planes(p, tile.rows, tile.columns, largest.a_tap);
      const int64_t count = (tile.rows - 1) * planes.pitch + tile.columns;
      const int64_t whole = whole_vectors<T>(count);
      const PlaneSource positions = {tile.y,    1,           p.grid_height, tile.x, 1, tile.x + tile.columns,
                                     tile.rows, planes.pitch};
      std::memset(mask.get(), 0, static_cast<size_t>(whole) * sizeof(T));
      for (int64_t r = 0; r < tile.rows; ++r) {
        std::memset(mask.get() + r * planes.pitch, 0xff, static_cast<size_t>(tile.columns) * sizeof(T));
      }
      for (int64_t head = 0; head < p.heads; ++head) {
        if (uses_spatial) {
          pack_spatial<S>(p, tile.n, head, positions, line, spatial.get());
          for (int64_t i = 0; i < subpixels * taps; ++i) {  // lanes beyond the tile are read: they must not be NaN
            const int64_t packed = tile.rows * planes.pitch;
            std::memset(spatial.get() + i * line + packed, 0, static_cast<size_t>(max(whole - packed, 0)) * sizeof(T));
          }
        }
        if (wants_spatial) {
          std::memset(grad_spatial.get(), 0, static_cast<size_t>(subpixels * taps * line) * sizeof(T));
        }
        for_channels(head * p.head_channels(), p.head_channels(), [&](int64_t first, auto constant) {
          constexpr int64_t together = decltype(constant)::value;
          for (int64_t u = 0; u < together; ++u) {
            planes.template pack<S>(p, tile, first + u, source.get() + u * source_size);
          }
          for (int64_t q = 0; q < subpixels; ++q) {
            for (int64_t u = 0; u < together; ++u) {
              pack_plane(at<S>(grad_output, tile.n, first + u, q / p.upscale_x, q % p.upscale_x),
                         grad_output.stride[2] * p.upscale_y, grad_output.stride[3] * p.upscale_x, positions,
                         grad.get() + u * line);
            }
            if (uses_channel) pack_channel_taps<S>(p, tile.n, q, first, together, channel.get());
            for (int64_t t = 0; t < taps; ++t) {
              const PlaneTap<T> tap = {spatial.get() + (q * taps + t) * line, channel.get() + t * together,
                                       planes.offset(p, t / p.kernel_x, t % p.kernel_x)};
              plane_products<weight, wants_channel, wants_spatial, together>(
                  tap, source.get(), source_size, grad.get(), line, mask.get(), count,
                  grad_spatial.get() + (wants_spatial ? (q * taps + t) * line : 0), grad_channel.get());
              for (int64_t u = 0; wants_channel && u < together; ++u) {
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
      const int64_t n = i / blocks, first = i % blocks * tiles_a_block;
      for (int64_t tile = first; tile < min(first + tiles_a_block, tiling.a_sample()); ++tile) {
        multiply_tile(tiling.tile(n * tiling.a_sample() + tile), partial.get() + i * slice);
      }
    }
  };
  run_parallel(parallel_for, p.batch * blocks,
               grain(tiles_a_block * tiling.rows() * tiling.columns() * subpixels * taps * p.channels), body);
  if (!wants_channel) return;

  sum_blocks(partial.get(), p.batch, blocks, slice, parallel_for, [&](const T* total, int64_t n) {
    for (int64_t c = 0; c < subpixels * p.channels; ++c) {
      for (int64_t ky = 0; ky < p.kernel_y; ++ky, total += p.kernel_x) {
        store_row(total, at<S>(gradients.channel_filter, n, c, ky, 0), gradients.channel_filter.stride[3], p.kernel_x);
      }
    }
  });
}

// The gradient of the input tap by tap, in scalars: for strides and dilations that reach so far that a tile with all
// that it reads would be many times the tile.
template <Weight weight, class S>
static void input_gradient_far(const Problem& p, const ConstArray& grad_output, const Array& grad_input,
                               ParallelFor parallel_for) {
  using T = Compute<S>;
  constexpr bool uses_spatial = weight != Weight::Channel, uses_channel = weight != Weight::Spatial;
  const Axis rows(rows_of(p), true), columns(columns_of(p), true);
  auto pixel = [&](int64_t n, int64_t c, int64_t y, int64_t x) {
    T total = 0;
    for (int64_t q = 0; q < p.subpixels(); ++q) {
      const int64_t group = q * p.heads + c / p.head_channels();
      for (int64_t i = 0; i < rows.count(y); ++i) {
        for (int64_t j = 0; j < columns.count(x); ++j) {
          const Axis::Entry row = rows.entries(y)[i], column = columns.entries(x)[j];
          const int64_t tap = row.tap * p.kernel_x + column.tap;
          const T channel =
              uses_channel ? load_scalar(at<S>(p.channel_filter, n, q * p.channels + c, row.tap, column.tap)) : T(0);
          const T spatial =
              uses_spatial ? load_scalar(at<S>(p.spatial_filter, n, group * p.taps() + tap, row.source, column.source))
                           : T(0);
          total += combine<weight>(channel, spatial) *
                   load_scalar(at<S>(grad_output, n, c, row.source * p.upscale_y + q / p.upscale_x,
                                     column.source * p.upscale_x + q % p.upscale_x));
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
  run_parallel(parallel_for, p.batch * p.channels, grain(p.height * p.width * p.subpixels() * p.taps()), body);
}

// Whether a tile of the input with all that it reads of the output is out of proportion to the input.
DDF_INLINE bool reaches_far(const Problem& p) {
  return p.stride_y * p.stride_x > 1024 || reach(rows_of(p)) > 2 * p.height + 64 ||
         reach(columns_of(p)) > 2 * p.width + 64;
}

template <Weight weight, class S>
static void backward_planes(const Problem& p, const ConstArray& grad_output, const Gradients& gradients,
                            ParallelFor parallel_for) {
  if (gradients.input.data != nullptr && reaches_far(p)) {
    input_gradient_far<weight, S>(p, grad_output, gradients.input, parallel_for);
  } else if (gradients.input.data != nullptr) {
    input_gradient_planes<weight, S>(p, grad_output, gradients.input, parallel_for);
  }
  const bool wants_channel = gradients.channel_filter.data != nullptr;
  const bool wants_spatial = gradients.spatial_filter.data != nullptr;
  if (wants_channel && wants_spatial) {
    filter_gradient_planes<weight, true, true, S>(p, grad_output, gradients, parallel_for);
  } else if (wants_channel) {
    filter_gradient_planes<weight, true, false, S>(p, grad_output, gradients, parallel_for);
  } else if (wants_spatial) {
    filter_gradient_planes<weight, false, true, S>(p, grad_output, gradients, parallel_for);
  }
}
