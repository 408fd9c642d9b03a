// The hot loops of channels_last maps: 3x3 windows that slide along a row, one vector of channels at a time.
//
// The nine taps of the channel filter and the nine pixels of a window stay in registers while the window slides along
// the row. A result costs three loads of the map, because each window shares two columns with the next, and nine
// scalars of the spatial filter, which are broadcast as they are loaded. Runs of windows are short, so that the next
// vector of channels finds its pixels in the first-level cache: eight pixels of 64 channels are 2 KiB. Measured with
// AVX-512 and maps in the caches: 10 to 12 cycles per vector of results, 9 of them for the 18 multiplications and
// additions. Longer runs are slower once the map does not fit into the second-level cache. Shorter runs load the
// channel filter too often.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../isa/target.inl"
#include "../problem.h"
#include "../simd/simd.inl"
#include "channel_vectors.inl"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

constexpr int64_t max_run_length = 8;   // windows
constexpr int64_t max_kernel_side = 7;  // kernels are 3x3, 5x5 or 7x7

// Consecutive windows of one row of targets. Window i covers `kernel_side` columns, the first of which is i * advance.
// Neighbouring columns are one tap apart. Columns outside the map are not read and count as zeros. A row outside the
// map points to a row of zeros.
template <class S>
struct WindowRun {
  int64_t windows;
  const S* row[max_kernel_side];  // at column 0 and the first channel of the head
  int64_t column_stride;          // in elements
  bool prefetch;                  // true if the next run's part of the last row is to be prefetched
  int64_t begin_column, end_column, begin_row, end_row;  // the part of the window's columns and rows inside the map
  const Compute<S>* channel;                             // tap t of the channel filter is at channel + t * tap_stride
  int64_t tap_stride;
  // Forward, the spatial filter's taps of window i are at spatial[0] + i * spatial_stride. Transposed, the taps of the
  // source in row r, column j are at spatial[r] + j * 9, zeros where the source is outside the map.
  const Compute<S>* spatial[3];
  int64_t spatial_stride;
};

// The pixels of a 3x3 window in registers: columns a, b, c of rows 0, 1, 2. The window moves along a run.
template <int advance, bool full, class S>
struct WindowColumns {
  using V = Vector<Compute<S>>;
  static_assert(advance == 1 || advance == 2, "windows further apart share no column");

  V a0, a1, a2, b0, b1, b2, c0, c1, c2;
  // One offset for the three rows: the loops have more pointers than the processor has registers for.
  const S *const row0, *const row1, *const row2;
  const int64_t column_stride, count, columns_inside;
  int64_t offset = 0, column;  // the next column to load; column 0 is the first one inside the map

  DDF_ALWAYS_INLINE WindowColumns(const WindowRun<S>& run, int64_t c, int64_t count)
      : row0(run.row[0] + c),
        row1(run.row[1] + c),
        row2(run.row[2] + c),
        column_stride(run.column_stride),
        count(count),
        columns_inside(run.end_column - run.begin_column),
        column(-run.begin_column) {
    read(a0, a1, a2);
    if (advance == 1) read(b0, b1, b2);
  }

  DDF_ALWAYS_INLINE void load_new_columns() {
    if (advance == 2) read(b0, b1, b2);
    read(c0, c1, c2);
  }
  DDF_ALWAYS_INLINE void move_to_next() {
    a0 = advance == 1 ? b0 : c0, a1 = advance == 1 ? b1 : c1, a2 = advance == 1 ? b2 : c2;
    if (advance == 1) b0 = c0, b1 = c1, b2 = c2;
  }

 private:
  DDF_ALWAYS_INLINE void read(V& v0, V& v1, V& v2) {
    if (static_cast<uint64_t>(column) < static_cast<uint64_t>(columns_inside)) {
      v0 = load_channels<full>(row0 + offset, count);
      v1 = load_channels<full>(row1 + offset, count);
      v2 = load_channels<full>(row2 + offset, count);
    } else {
      v0 = v1 = v2 = V{};
    }
    offset += column_stride, ++column;
  }
};

// Prefetches the columns that the next run is the first to read. The hardware does not prefetch them, because it sees
// only a few columns of each of many rows. Where a map comes from memory rather than from a cache, this saves a
// seventh.
template <class S>
DDF_INLINE void prefetch_next_run(const WindowRun<S>& run, int64_t advance, int64_t c) {
  const S* next = run.row[2] + c + run.windows * advance * run.column_stride;
  for (int64_t i = 0; i < run.windows * advance; ++i) __builtin_prefetch(next + i * run.column_stride, 0, 2);
}

// --- sums: forward, and transposed for the gradient of the input -----------------------------------------------------

// All windows and channels of a run: target = sum over taps of combine(channel, spatial) * pixel. The loops work on a
// copy of the run, because no store through `target` can change the copy: its members stay in registers.
template <Weight weight, bool transposed, int advance, class S>
DDF_NOINLINE void sum_windows(const WindowRun<S>& shared, int64_t channels, S* target, int64_t target_stride,
                              const Epilogue epilogue) {
  using T = Compute<S>;
  using V = Vector<T>;
  const WindowRun<S> run = shared;
  auto sum_vector = [&](int64_t c, int64_t count, auto full_vector) __attribute__((always_inline)) {
    constexpr bool full = decltype(full_vector)::value;
    V filter[9];
#pragma GCC unroll 9
    for (int t = 0; t < 9; ++t) {
      const int tap = transposed ? 8 - t : t;
      filter[t] = weight == Weight::Spatial ? V{} : load_channels<full>(run.channel + tap * run.tap_stride + c, count);
    }
    const VectorEpilogue<S> apply_epilogue(epilogue, c, count);
    if (run.prefetch) prefetch_next_run(run, advance, c);
    WindowColumns<advance, full, S> window(run, c, count);
    const T *const spatial0 = run.spatial[0], *const spatial1 = run.spatial[1], *const spatial2 = run.spatial[2];
    int64_t spatial_offset = 0, target_offset = c;
    // The term of row r, column x of the window.
    auto term = [&](int r, int x, V column) __attribute__((always_inline)) {
      const int t = r * 3 + x;
      V spatial = {};
      if constexpr (weight != Weight::Channel) {
        const T* row = r == 0 ? spatial0 : r == 1 ? spatial1 : spatial2;
        spatial = broadcast(transposed ? row[spatial_offset + x * 9 + 8 - t] : spatial0[spatial_offset + t]);
      }
      return combine<weight>(filter[t], spatial) * column;
    };
#pragma GCC unroll 1
    for (int64_t i = 0; i < run.windows; ++i) {
      window.load_new_columns();
      V total0 = term(0, 0, window.a0), total1 = term(1, 0, window.a1), total2 = term(2, 0, window.a2);
      total0 += term(0, 1, window.b0), total1 += term(1, 1, window.b1), total2 += term(2, 1, window.b2);
      total0 += term(0, 2, window.c0), total1 += term(1, 2, window.c1), total2 += term(2, 2, window.c2);
      store_channels<full>(target + target_offset, apply_epilogue(total0 + total1 + total2), count);
      window.move_to_next();
      target_offset += target_stride;
      spatial_offset += transposed ? 9 : run.spatial_stride;
    }
  };
  constexpr int64_t width = lanes<T>;
  int64_t c = 0;
#pragma GCC unroll 1
  for (; c + width <= channels; c += width) sum_vector(c, width, std::true_type{});
  if (c < channels) sum_vector(c, channels - c, std::false_type{});
}

// The forward sum for 5x5 and 7x7 kernels with stride and dilation 1 and packed spatial filters: as many windows at
// once as have a sum in a register, row by row. A pixel is loaded once per row for all windows that contain it. Only in
// float, because each instance is some kilobytes of code.
template <Weight weight, int kernel_side, int windows, bool full>
DDF_INLINE void sum_large_windows(const WindowRun<float>& run, int64_t begin, int64_t c, int64_t count, float* target,
                                  int64_t target_stride, const VectorEpilogue<float>& apply_epilogue) {
  using V = Vector<float>;
  constexpr int taps = kernel_side * kernel_side;
  V total[windows] = {};
  for (int64_t r = run.begin_row; r < run.end_row; ++r) {
    V filter[kernel_side];
    const float* channel = run.channel + r * kernel_side * run.tap_stride + c;
#pragma GCC unroll 7
    for (int x = 0; x < kernel_side; ++x) {
      filter[x] = weight == Weight::Spatial ? V{} : load_channels<full>(channel + x * run.tap_stride, count);
    }
    const float* row = run.row[r] + c + begin * run.column_stride;
    const float* spatial = weight == Weight::Channel ? nullptr : run.spatial[0] + begin * taps + r * kernel_side;
#pragma GCC unroll 14
    for (int j = 0; j < windows + kernel_side - 1; ++j) {
      if (begin + j < run.begin_column || begin + j >= run.end_column) continue;
      const V pixel = load_channels<full>(row + j * run.column_stride, count);
#pragma GCC unroll 7
      for (int x = 0; x < kernel_side; ++x) {
        const int i = j - x;
        if (i < 0 || i >= windows) continue;
        const V value = weight == Weight::Channel ? V{} : broadcast(spatial[i * taps + x]);
        total[i] += combine<weight>(filter[x], value) * pixel;
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < windows; ++i) {
    store_channels<full>(target + c + (begin + i) * target_stride, apply_epilogue(total[i]), count);
  }
}

template <Weight weight, int kernel_side>
DDF_NOINLINE void sum_large_windows(const WindowRun<float>& shared, int64_t channels, float* target,
                                    int64_t target_stride, const Epilogue epilogue) {
  constexpr int64_t width = lanes<float>;
  const WindowRun<float> run = shared;
  int64_t c = 0;
#pragma GCC unroll 1
  for (; c + width <= channels; c += width) {
    const VectorEpilogue<float> apply_epilogue(epilogue, c, width);
    int64_t i = 0;
    for (; i + 8 <= run.windows; i += 8) {
      sum_large_windows<weight, kernel_side, 8, true>(run, i, c, width, target, target_stride, apply_epilogue);
    }
    for (; i + 4 <= run.windows; i += 4) {
      sum_large_windows<weight, kernel_side, 4, true>(run, i, c, width, target, target_stride, apply_epilogue);
    }
    for (; i < run.windows; ++i) {
      sum_large_windows<weight, kernel_side, 1, true>(run, i, c, width, target, target_stride, apply_epilogue);
    }
  }
  if (c == channels) return;
  const VectorEpilogue<float> apply_epilogue(epilogue, c, channels - c);
  for (int64_t i = 0; i < run.windows; ++i) {
    sum_large_windows<weight, kernel_side, 1, false>(run, i, c, channels - c, target, target_stride, apply_epilogue);
  }
}

// --- the gradients of both filters -----------------------------------------------------------------------------------

template <class T>
struct FilterGradientSums {
  T* channel;  // tap t is at channel + t * tap_stride; added to
  int64_t tap_stride;
  T* partial;  // (windows, 9) vectors: the spatial filter's gradient, summed over the channels lane by lane;
               // overwritten
};

// With product = grad * pixel: adds product * spatial to the channel filter's gradient, summed over the run, and writes
// product * channel, summed over the channels, for the spatial filter's gradient.
template <Weight weight, int advance, class S>
DDF_NOINLINE void accumulate_filter_gradients(const WindowRun<S>& shared, int64_t channels, const S* grad,
                                              int64_t grad_stride, const FilterGradientSums<Compute<S>> gradients) {
  using T = Compute<S>;
  using V = Vector<T>;
  constexpr bool product_weight = weight == Weight::Product;
  constexpr bool has_channel = weight != Weight::Spatial, has_spatial = weight != Weight::Channel;
  const WindowRun<S> run = shared;
  auto accumulate_vector = [&](int64_t c, int64_t count, auto full_vector,
                               auto first_vector) __attribute__((always_inline)) {
    constexpr bool full = decltype(full_vector)::value, first = decltype(first_vector)::value;
    V filter[9], total[9];
#pragma GCC unroll 9
    for (int t = 0; t < 9; ++t) {
      filter[t] = product_weight ? load_channels<full>(run.channel + t * run.tap_stride + c, count) : V{};
      total[t] = V{};
    }
    if (run.prefetch) prefetch_next_run(run, advance, c);
    WindowColumns<advance, full, S> window(run, c, count);
    const T* spatial = run.spatial[0];
    const S* grad_pixel = grad + c;
    T* partial = gradients.partial;
#pragma GCC unroll 1
    for (int64_t i = 0; i < run.windows; ++i) {
      window.load_new_columns();
      const V gradient = load_channels<full>(grad_pixel, count);
      auto term = [&](int t, V column) __attribute__((always_inline)) {
        const V product = gradient * column;
        if (has_channel) total[t] += product_weight ? product * broadcast(spatial[t]) : product;
        if (has_spatial) {
          const V part = product_weight ? product * filter[t] : product;
          store(partial + t * lanes<T>, first ? part : load(partial + t * lanes<T>) + part);
        }
      };
      term(0, window.a0), term(1, window.b0), term(2, window.c0);
      term(3, window.a1), term(4, window.b1), term(5, window.c1);
      term(6, window.a2), term(7, window.b2), term(8, window.c2);
      window.move_to_next();
      grad_pixel += grad_stride, partial += 9 * lanes<T>;
      if (product_weight) spatial += run.spatial_stride;
    }
#pragma GCC unroll 9
    for (int t = 0; has_channel && t < 9; ++t) {
      T* sum = gradients.channel + t * gradients.tap_stride + c;
      store_channels<full>(sum, load_channels<full>(sum, count) + total[t], count);
    }
  };
  constexpr int64_t width = lanes<T>;
  if (channels < width) return accumulate_vector(0, channels, std::false_type{}, std::true_type{});
  accumulate_vector(0, width, std::true_type{}, std::true_type{});
  int64_t c = width;
#pragma GCC unroll 1
  for (; c + width <= channels; c += width) accumulate_vector(c, width, std::true_type{}, std::false_type{});
  if (c < channels) accumulate_vector(c, channels - c, std::false_type{}, std::false_type{});
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
