// The hot loops of channels_last maps: runs of 3x3 windows along a row, one vector of channels at a time.
//
// The nine taps of the channel filter and the nine pixels of a window stay in registers while the run moves along the
// row: a result costs three loads of the map (each window shares two columns with the next) and nine scalars of the
// spatial filter, broadcast as they are loaded. Runs are short, so that the next vector of channels finds its pixels in
// the first-level cache: eight pixels of 64 channels are 2 KiB. Measured with AVX-512 and maps in the caches: 10 to 12
// cycles a vector of results, of which the 18 multiplications and additions take 9. Longer runs are slower once the map
// does not fit into the second-level cache; shorter ones load the channel filter too often.

constexpr int64_t longest_run = 8;
constexpr int64_t largest_side = 7;  // of a window: 3, 5 or 7

// Window i covers `side` columns from i * advance on; from one column to the next is a tap's distance. Columns that are
// outside the map are not read and count as zeros; a row outside is a row of zeros.
template <class S>
struct WindowRun {
  int64_t windows;
  const S* row[largest_side];  // column 0, the head's first channel
  int64_t step;                // from a column to the next
  bool ahead;                  // whether the next run's part of the last row should be fetched
  int64_t first, last;         // the columns inside the map: [first, last)
  int64_t first_row, last_row;
  const Compute<S>* channel;  // the channel filter's tap t at channel + t * tap_step
  int64_t tap_step;
  // Forward, the spatial filter's taps of window i lie at spatial[0] + i * spatial_step. Transposed, those of the
  // source in row r, column j at spatial[r] + j * 9, zeros where it is outside.
  const Compute<S>* spatial[3];
  int64_t spatial_step;
};

template <bool whole, class S>
DDF_INLINE Vector<Compute<S>> load_channels(const S* p, int64_t count) {
  if constexpr (whole) {
    return load(p);
  } else {
    return load_first(p, count);
  }
}
template <bool whole, class S>
DDF_INLINE void store_channels(S* p, Vector<Compute<S>> v, int64_t count) {
  if constexpr (whole) {
    store(p, v);
  } else {
    store_first(p, v, count);
  }
}

// The window's columns a, b, c of rows 0, 1, 2, moving along a run.
template <int advance, bool whole, class S>
struct Columns {
  using V = Vector<Compute<S>>;
  static_assert(advance == 1 || advance == 2, "windows further apart share no column");

  V a0, a1, a2, b0, b1, b2, c0, c1, c2;
  // One offset for the three rows: the loops have more pointers than the processor has registers for.
  const S *const row0, *const row1, *const row2;
  const int64_t step, count, inside;
  int64_t offset = 0, place;

  DDF_ALWAYS_INLINE Columns(const WindowRun<S>& run, int64_t c, int64_t count)
      : row0(run.row[0] + c),
        row1(run.row[1] + c),
        row2(run.row[2] + c),
        step(run.step),
        count(count),
        inside(run.last - run.first),
        place(-run.first) {
    read(a0, a1, a2);
    if (advance == 1) read(b0, b1, b2);
  }

  DDF_ALWAYS_INLINE void complete() {
    if (advance == 2) read(b0, b1, b2);
    read(c0, c1, c2);
  }
  DDF_ALWAYS_INLINE void move_on() {
    a0 = advance == 1 ? b0 : c0, a1 = advance == 1 ? b1 : c1, a2 = advance == 1 ? b2 : c2;
    if (advance == 1) b0 = c0, b1 = c1, b2 = c2;
  }

 private:
  DDF_ALWAYS_INLINE void read(V& v0, V& v1, V& v2) {
    if (static_cast<uint64_t>(place) < static_cast<uint64_t>(inside)) {
      v0 = load_channels<whole>(row0 + offset, count);
      v1 = load_channels<whole>(row1 + offset, count);
      v2 = load_channels<whole>(row2 + offset, count);
    } else {
      v0 = v1 = v2 = V{};
    }
    offset += step, ++place;
  }
};

// Asks for the columns that the run after this one is the first to read. The processor sees a few columns of each of
// many rows and does not guess them; where a map comes from memory rather than from a cache, this takes a seventh off.
template <class S>
DDF_INLINE void fetch_next(const WindowRun<S>& run, int64_t advance, int64_t c) {
  const S* next = run.row[2] + c + run.windows * advance * run.step;
  for (int64_t i = 0; i < run.windows * advance; ++i) __builtin_prefetch(next + i * run.step, 0, 2);
}

// --- sums: forward, and transposed for the gradient of the input -----------------------------------------------------

// What follows a sum, for channels [c, c + count): see After. Only results in float have it.
template <class S>
struct Finish {
  using T = Compute<S>;
  Vector<T> scale = {}, shift = {};
  bool there = false, relu = false;

  DDF_ALWAYS_INLINE Finish(const After& after, int64_t c, int64_t count) {
    if constexpr (std::is_same_v<S, float>) {
      there = after.scale != nullptr, relu = after.relu;
      if (there) scale = load_first(after.scale + c, count), shift = load_first(after.shift + c, count);
    }
  }
  DDF_ALWAYS_INLINE Vector<T> operator()(Vector<T> sum) const {
    if (there) sum = sum * scale + shift;
    if (relu) sum = sum < 0 ? Vector<T>{} : sum;  // a NaN stays
    return sum;
  }
};

// All windows and channels: target = sum over taps of weight(channel, spatial) * column. The loops work on a
// copy of the run, which no store through `target` can change: its members stay in registers.
template <Weight weight, bool transposed, int advance, class S>
DDF_APART void sum_windows(const WindowRun<S>& shared, int64_t channels, S* target, int64_t target_step,
                           const After after) {
  using T = Compute<S>;
  using V = Vector<T>;
  const WindowRun<S> run = shared;
  auto sum_vector = [&](int64_t c, int64_t count, auto whole_vector) __attribute__((always_inline)) {
    constexpr bool whole = decltype(whole_vector)::value;
    V filter[9];
#pragma GCC unroll 9
    for (int t = 0; t < 9; ++t) {
      const int tap = transposed ? 8 - t : t;
      filter[t] = weight == Weight::Spatial ? V{} : load_channels<whole>(run.channel + tap * run.tap_step + c, count);
    }
    const Finish<S> finish(after, c, count);
    if (run.ahead) fetch_next(run, advance, c);
    Columns<advance, whole, S> window(run, c, count);
    const T *const spatial0 = run.spatial[0], *const spatial1 = run.spatial[1], *const spatial2 = run.spatial[2];
    int64_t spatial_offset = 0, target_offset = c;
    // Row r, column x of the window.
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
      window.complete();
      V total0 = term(0, 0, window.a0), total1 = term(1, 0, window.a1), total2 = term(2, 0, window.a2);
      total0 += term(0, 1, window.b0), total1 += term(1, 1, window.b1), total2 += term(2, 1, window.b2);
      total0 += term(0, 2, window.c0), total1 += term(1, 2, window.c1), total2 += term(2, 2, window.c2);
      store_channels<whole>(target + target_offset, finish(total0 + total1 + total2), count);
      window.move_on();
      target_offset += target_step;
      spatial_offset += transposed ? 9 : run.spatial_step;
    }
  };
  constexpr int64_t width = lanes<T>;
  int64_t c = 0;
#pragma GCC unroll 1
  for (; c + width <= channels; c += width) sum_vector(c, width, std::true_type{});
  if (c < channels) sum_vector(c, channels - c, std::false_type{});
}

// The same, forward, for larger windows that are neighbours and whose spatial filters' taps lie one after the other: as
// many of them at once as have a sum in a register, row by row. A pixel is loaded once a row for all the windows that
// it is in. In float alone: each instance is some kilobytes of code.
template <Weight weight, int side, int windows, bool whole>
DDF_INLINE void sum_large_windows(const WindowRun<float>& run, int64_t begin, int64_t c, int64_t count, float* target,
                                  int64_t target_step, const Finish<float>& finish) {
  using V = Vector<float>;
  constexpr int taps = side * side;
  V total[windows] = {};
  for (int64_t r = run.first_row; r < run.last_row; ++r) {
    V filter[side];
    const float* channel = run.channel + r * side * run.tap_step + c;
#pragma GCC unroll 7
    for (int x = 0; x < side; ++x) {
      filter[x] = weight == Weight::Spatial ? V{} : load_channels<whole>(channel + x * run.tap_step, count);
    }
    const float* row = run.row[r] + c + begin * run.step;
    const float* spatial = weight == Weight::Channel ? nullptr : run.spatial[0] + begin * taps + r * side;
#pragma GCC unroll 14
    for (int j = 0; j < windows + side - 1; ++j) {
      if (begin + j < run.first || begin + j >= run.last) continue;
      const V pixel = load_channels<whole>(row + j * run.step, count);
#pragma GCC unroll 7
      for (int x = 0; x < side; ++x) {
        const int i = j - x;
        if (i < 0 || i >= windows) continue;
        const V value = weight == Weight::Channel ? V{} : broadcast(spatial[i * taps + x]);
        total[i] += combine<weight>(filter[x], value) * pixel;
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < windows; ++i) {
    store_channels<whole>(target + c + (begin + i) * target_step, finish(total[i]), count);
  }
}

template <Weight weight, int side>
DDF_APART void sum_large_windows(const WindowRun<float>& shared, int64_t channels, float* target, int64_t target_step,
                                 const After after) {
  constexpr int64_t width = lanes<float>;
  const WindowRun<float> run = shared;
  int64_t c = 0;
#pragma GCC unroll 1
  for (; c + width <= channels; c += width) {
    const Finish<float> finish(after, c, width);
    int64_t i = 0;
    for (; i + 8 <= run.windows; i += 8) {
      sum_large_windows<weight, side, 8, true>(run, i, c, width, target, target_step, finish);
    }
    for (; i + 4 <= run.windows; i += 4) {
      sum_large_windows<weight, side, 4, true>(run, i, c, width, target, target_step, finish);
    }
    for (; i < run.windows; ++i) {
      sum_large_windows<weight, side, 1, true>(run, i, c, width, target, target_step, finish);
    }
  }
  if (c == channels) return;
  const Finish<float> finish(after, c, channels - c);
  for (int64_t i = 0; i < run.windows; ++i) {
    sum_large_windows<weight, side, 1, false>(run, i, c, channels - c, target, target_step, finish);
  }
}

// --- products: the gradients of both filters -------------------------------------------------------------------------

// What the products of a run go to.
template <class T>
struct WindowGradients {
  T* channel;  // tap t at channel + t * tap_step: added to
  int64_t tap_step;
  T* partial;  // (windows, 9) vectors: the sums over the channels, lane by lane
};

// With product = grad * column: the channel filter's gradient grows by product * spatial, summed over the run, and the
// spatial filter's is product * channel, summed over the channels.
template <Weight weight, int advance, class S>
DDF_APART void multiply_windows(const WindowRun<S>& shared, int64_t channels, const S* grad, int64_t grad_step,
                                const WindowGradients<Compute<S>> gradients) {
  using T = Compute<S>;
  using V = Vector<T>;
  constexpr bool product_weight = weight == Weight::Product;
  constexpr bool has_channel = weight != Weight::Spatial, has_spatial = weight != Weight::Channel;
  const WindowRun<S> run = shared;
  auto multiply_vector = [&](int64_t c, int64_t count, auto whole_vector,
                             auto first_vector) __attribute__((always_inline)) {
    constexpr bool whole = decltype(whole_vector)::value, first = decltype(first_vector)::value;
    V filter[9], total[9];
#pragma GCC unroll 9
    for (int t = 0; t < 9; ++t) {
      filter[t] = product_weight ? load_channels<whole>(run.channel + t * run.tap_step + c, count) : V{};
      total[t] = V{};
    }
    if (run.ahead) fetch_next(run, advance, c);
    Columns<advance, whole, S> window(run, c, count);
    const T* spatial = run.spatial[0];
    const S* place = grad + c;
    T* partial = gradients.partial;
#pragma GCC unroll 1
    for (int64_t i = 0; i < run.windows; ++i) {
      window.complete();
      const V gradient = load_channels<whole>(place, count);
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
      window.move_on();
      place += grad_step, partial += 9 * lanes<T>;
      if (product_weight) spatial += run.spatial_step;
    }
#pragma GCC unroll 9
    for (int t = 0; has_channel && t < 9; ++t) {
      T* sum = gradients.channel + t * gradients.tap_step + c;
      store_channels<whole>(sum, load_channels<whole>(sum, count) + total[t], count);
    }
  };
  constexpr int64_t width = lanes<T>;
  if (channels < width) return multiply_vector(0, channels, std::false_type{}, std::true_type{});
  multiply_vector(0, width, std::true_type{}, std::true_type{});
  int64_t c = width;
#pragma GCC unroll 1
  for (; c + width <= channels; c += width) multiply_vector(c, width, std::true_type{}, std::false_type{});
  if (c < channels) multiply_vector(c, channels - c, std::false_type{}, std::false_type{});
}
