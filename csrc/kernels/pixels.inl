// Kernels for maps whose channels lie side by side (channels_last): vectors of channels, one pixel at a time.
//
// A pixel's result is a sum over taps of weight(channel filter, spatial filter) * source pixel. The channel filter is
// packed once so that a tap's channels lie side by side too; the spatial filter's taps are scalars, broadcast. The
// input is walked in memory order, so a row of it is read from memory once and then found in the cache by the other
// taps.

template <class S>
struct PixelTaps {
  const S* source;            // the pixel's channels
  Compute<S> spatial;         // the spatial filter's tap
  const Compute<S>* channel;  // the channel filter's tap, all channels
};

// Pixels side by side of a 3x3 kernel, none of whose taps is outside: tap (ky, kx) of pixel i reads
// row[ky] + kx * tap_step + i * pixel_step, and its spatial value is at spatial[ky * 3 + kx] + i * spatial_step.
template <class S>
struct WindowRun {
  const S* row[3];
  int64_t tap_step, pixel_step;
  const S* spatial[9];
  int64_t spatial_step;
  const Compute<S>* channel;  // tap t at channel + t * channels
  int64_t channels;
};

// How many targets from x on have three taps, one step of the source further from target to target.
DDF_INLINE int64_t window_run_length(const Axis& columns, int64_t x, int64_t width) {
  int64_t end = x;
  while (end < width && columns.count(end) == 3 &&
         (end < x + 2 || columns.entries(end)->source - columns.entries(end - 1)->source ==
                             columns.entries(x + 1)->source - columns.entries(x)->source)) {
    ++end;
  }
  return end - x;
}

// The packed channel filter: (batch, subpixels, taps, channels).
template <class S>
static void pack_channel_filter(const Problem& p, Compute<S>* packed, ParallelFor parallel_for) {
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / p.subpixels(), subpixel = i % p.subpixels();
      Compute<S>* target = packed + i * p.taps() * p.channels;
      for (int64_t t = 0; t < p.taps(); ++t) {
        const S* tap = at<S>(p.channel_filter, n, subpixel * p.channels, t / p.kernel_x, t % p.kernel_x);
        load_row(tap, p.channel_filter.stride[1], target + t * p.channels, p.channels);
      }
    }
  };
  run_parallel(parallel_for, p.batch * p.subpixels(), grain(p.taps() * p.channels), body);
}

// --- sums: forward, and the gradient of the input ----------------------------------------------------------

template <Weight weight, class S>
static void pixel_sum(const PixelTaps<S>* taps, int64_t count, int64_t channels, S* target) {
  using T = Compute<S>;
  constexpr int64_t width = lanes<T>, block = 4;
  constexpr bool channel = weight != Weight::Spatial;
  int64_t c = 0;
  for (; c + block * width <= channels; c += block * width) {
    Vector<T> total[block] = {};
    for (int64_t t = 0; t < count; ++t) {
      const Vector<T> spatial = broadcast(taps[t].spatial);
#pragma GCC unroll 4
      for (int64_t i = 0; i < block; ++i) {
        const Vector<T> filter = channel ? load(taps[t].channel + c + i * width) : Vector<T>{};
        total[i] += combine<weight>(filter, spatial) * load(taps[t].source + c + i * width);
      }
    }
#pragma GCC unroll 4
    for (int64_t i = 0; i < block; ++i) store(target + c + i * width, total[i]);
  }
  for (; c < channels; c += width) {
    const int64_t left = min(width, channels - c);
    Vector<T> total = {};
    for (int64_t t = 0; t < count; ++t) {
      const Vector<T> filter = channel ? load_first(taps[t].channel + c, left) : Vector<T>{};
      total += combine<weight>(filter, broadcast(taps[t].spatial)) * load_first(taps[t].source + c, left);
    }
    store_first(target + c, total, left);
  }
}

// The same for a run of 3x3 windows and whole vectors of channels; returns how many channels it did.
template <Weight weight, class S>
static int64_t window_sums(const WindowRun<S>& run, int64_t pixels, int64_t channels, S* target, int64_t target_step) {
  using T = Compute<S>;
  constexpr int64_t width = lanes<T>;
  const int64_t step = run.tap_step, done = channels / width * width;
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    Vector<T> spatial[9];
#pragma GCC unroll 9
    for (int t = 0; t < 9; ++t) {
      spatial[t] =
          weight == Weight::Channel ? Vector<T>{} : broadcast(load_scalar(run.spatial[t] + pixel * run.spatial_step));
    }
    // Row by row, so that few pointers are alive at a time.
    const S *row0 = run.row[0] + pixel * run.pixel_step, *row1 = run.row[1] + pixel * run.pixel_step,
            *row2 = run.row[2] + pixel * run.pixel_step;
    const T *filter0 = run.channel, *filter1 = filter0 + 3 * run.channels, *filter2 = filter1 + 3 * run.channels;
    const int64_t filter_step = run.channels;
    auto row_sum = [&](const S* row, const T* filter, int ky, int64_t c) __attribute__((always_inline)) {
      Vector<T> total = {};
#pragma GCC unroll 3
      for (int kx = 0; kx < 3; ++kx) {
        const Vector<T> channel = weight == Weight::Spatial ? Vector<T>{} : load(filter + c + kx * filter_step);
        total += combine<weight>(channel, spatial[ky * 3 + kx]) * load(row + c + kx * step);
      }
      return total;
    };
    S* out = target + pixel * target_step;
    for (int64_t c = 0; c < done; c += width) {
      store(out + c, row_sum(row0, filter0, 0, c) + row_sum(row1, filter1, 1, c) + row_sum(row2, filter2, 2, c));
    }
  }
  return done;
}

// Forward: sources are input pixels, targets output pixels, and the spatial filter is the target's. Transposed: sources
// are output pixels of every subpixel, targets input pixels, and the spatial filter is the source's.
template <Weight weight, bool transposed, class S>
struct PixelSum {
  using T = Compute<S>;
  static constexpr bool uses_spatial = weight != Weight::Channel;

  const Problem& p;
  const ConstArray& source;
  const Array& target;
  const T* filters;  // packed
  const Axis rows, columns;
  const int64_t height, width;  // of the targets, a subpixel
  const int64_t sources_a_sum;  // subpixels that one sum reads

  PixelSum(const Problem& problem, const ConstArray& source, const Array& target, const T* filters)
      : p(problem),
        source(source),
        target(target),
        filters(filters),
        rows(rows_of(problem), transposed),
        columns(columns_of(problem), transposed),
        height(transposed ? problem.height : problem.grid_height),
        width(transposed ? problem.width : problem.grid_width),
        sources_a_sum(transposed ? problem.subpixels() : 1) {}

  // One row of targets of one head; `q` is the targets' subpixel, 0 where a target has none.
  struct Row {
    int64_t n, y, q, head, channel;
    const Axis::Entry* entries;
    int64_t count;
  };

  S* target_at(const Row& row, int64_t x) const {
    if (transposed) return at<S>(target, row.n, row.channel, row.y, x);
    return at<S>(target, row.n, row.channel, row.y * p.upscale_y + row.q / p.upscale_x,
                 x * p.upscale_x + row.q % p.upscale_x);
  }
  const T* filter_of(const Row& row) const {
    return filters + (row.n * p.subpixels() + row.q) * p.taps() * p.channels + row.channel;
  }
  const S* spatial_at(const Row& row, int64_t subpixel, int64_t tap, int64_t y, int64_t x) const {
    return at<S>(p.spatial_filter, row.n, (subpixel * p.heads + row.head) * p.taps() + tap, y, x);
  }

  // From target x on, as many 3x3 windows as follow each other, whole vectors of channels. Returns the targets; `done`
  // is how many of their channels are finished.
  int64_t sum_windows(const Row& row, int64_t x, int64_t* done) const {
    const int64_t pixels = window_run_length(columns, x, width);
    const Axis::Entry* entries = columns.entries(x);
    const int64_t next = pixels > 1 ? columns.entries(x + 1)->source - entries->source : 0;
    WindowRun<S> run;
    run.tap_step = (entries[1].source - entries[0].source) * source.stride[3];
    run.pixel_step = next * source.stride[3];
    run.spatial_step = (transposed ? next : 1) * p.spatial_filter.stride[3];
    run.channel = filter_of(row);
    run.channels = p.channels;
    for (int ky = 0; ky < 3; ++ky) {
      const int64_t source_y = row.entries[ky].source;
      run.row[ky] = at<S>(source, row.n, row.channel, source_y, entries[0].source);
      for (int kx = 0; uses_spatial && kx < 3; ++kx) {
        const int tap = ky * 3 + kx;
        run.spatial[tap] = transposed ? spatial_at(row, row.q, tap, source_y, entries[kx].source)
                                      : spatial_at(row, row.q, tap, row.y, x);
      }
    }
    const int64_t target_step = target.stride[3] * (transposed ? 1 : p.upscale_x);
    *done = window_sums<weight>(run, pixels, p.head_channels(), target_at(row, x), target_step);
    return pixels;
  }

  // Target x from its channel `done` on, with any taps; `list` has room for all of them.
  void sum_taps(const Row& row, int64_t x, int64_t done, PixelTaps<S>* list) const {
    const T* filter = filter_of(row) + done;
    const int64_t scale_y = transposed ? p.upscale_y : 1, scale_x = transposed ? p.upscale_x : 1;
    int64_t count = 0;
    for (int64_t sub = 0; sub < sources_a_sum; ++sub) {
      const int64_t offset_y = sub / p.upscale_x, offset_x = sub % p.upscale_x;
      for (int64_t i = 0; i < row.count; ++i) {
        const int64_t source_y = row.entries[i].source;
        for (int64_t j = 0; j < columns.count(x); ++j) {
          const Axis::Entry& column = columns.entries(x)[j];
          const int64_t source_x = column.source, tap = row.entries[i].tap * p.kernel_x + column.tap;
          PixelTaps<S>& entry = list[count++];
          entry.source =
              at<S>(source, row.n, row.channel + done, source_y * scale_y + offset_y, source_x * scale_x + offset_x);
          entry.channel = filter + (sub * p.taps() + tap) * p.channels;
          entry.spatial = !uses_spatial ? T(0)
                          : transposed  ? load_scalar(spatial_at(row, sub, tap, source_y, source_x))
                                        : load_scalar(spatial_at(row, row.q, tap, row.y, x));
        }
      }
    }
    pixel_sum<weight>(list, count, p.head_channels() - done, target_at(row, x) + done);
  }

  void sum_row(const Row& row, PixelTaps<S>* list) const {
    const bool windows = p.kernel_y == 3 && p.kernel_x == 3 && sources_a_sum == 1 && row.count == 3;
    for (int64_t x = 0; x < width;) {
      int64_t pixels = 1, done = 0;
      if (windows && columns.count(x) == 3) pixels = sum_windows(row, x, &done);
      for (const int64_t end = x + pixels; x < end; ++x) {
        if (done < p.head_channels()) sum_taps(row, x, done, list);
      }
    }
  }

  int64_t list_size() const { return p.taps() * sources_a_sum; }

  // All targets of row y, and of its subpixels.
  void sum_rows(int64_t n, int64_t y, PixelTaps<S>* list) const {
    for (int64_t q = 0; q < (transposed ? 1 : p.subpixels()); ++q) {
      for (int64_t head = 0; head < p.heads; ++head) {
        sum_row({n, y, q, head, head * p.head_channels(), rows.entries(y), rows.count(y)}, list);
      }
    }
  }

  void run(ParallelFor parallel_for) const {
    auto body = [&](int64_t begin, int64_t end) {
      Buffer<PixelTaps<S>> list(list_size());
      for (int64_t i = begin; i < end; ++i) sum_rows(i / height, i % height, list.get());
    };
    run_parallel(parallel_for, p.batch * height, grain(width * p.subpixels() * p.taps() * p.channels), body);
  }
};

// --- products: the gradients of both filters ---------------------------------------------------------------

// For one pixel and head: product = grad * source, per tap and channel. Adds product * spatial to the channel filter's
// gradient, and gives the spatial filter's as the sum of product * channel over the head.
template <Weight weight, bool wants_channel, bool wants_spatial, class S>
static void pixel_products(const PixelTaps<S>& tap, const S* grad, int64_t channels, Compute<S>* grad_channel,
                           Compute<S>* grad_spatial) {
  using T = Compute<S>;
  constexpr int64_t width = lanes<T>;
  constexpr bool product_weight = weight == Weight::Product;
  const Vector<T> spatial = broadcast(tap.spatial);
  Vector<T> total = {};
  int64_t c = 0;
  for (; c + width <= channels; c += width) {
    const Vector<T> product = load(grad + c) * load(tap.source + c);
    if (wants_channel) store(grad_channel + c, load(grad_channel + c) + (product_weight ? product * spatial : product));
    if (wants_spatial) total += product_weight ? product * load(tap.channel + c) : product;
  }
  if (c < channels) {
    const int64_t left = channels - c;
    const Vector<T> product = load_first(grad + c, left) * load_first(tap.source + c, left);
    if (wants_channel) {
      const Vector<T> term = product_weight ? product * spatial : product;
      store_first(grad_channel + c, load_first(grad_channel + c, left) + term, left);
    }
    if (wants_spatial) total += product_weight ? product * load_first(tap.channel + c, left) : product;
  }
  if (wants_spatial) *grad_spatial = sum<T>(total);
}

// The same for a run of 3x3 windows whose channels are whole vectors; `grad_spatial` is (pixels, 9).
template <Weight weight, bool wants_channel, bool wants_spatial, class S>
static void window_products(const WindowRun<S>& run, int64_t pixels, const S* grad, int64_t grad_step, int64_t channels,
                            Compute<S>* grad_channel, Compute<S>* grad_spatial) {
  using T = Compute<S>;
  constexpr int64_t width = lanes<T>;
  constexpr bool product_weight = weight == Weight::Product;
  const int64_t step = run.tap_step, filter_step = run.channels;
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    Vector<T> spatial[9], total[9] = {};
#pragma GCC unroll 9
    for (int t = 0; t < 9; ++t) {
      spatial[t] = product_weight ? broadcast(load_scalar(run.spatial[t] + pixel * run.spatial_step)) : Vector<T>{};
    }
    const S *row0 = run.row[0] + pixel * run.pixel_step, *row1 = run.row[1] + pixel * run.pixel_step,
            *row2 = run.row[2] + pixel * run.pixel_step;
    const T* filters = run.channel;
    auto row_products = [&](const S* row, Vector<T> gradient, int ky, int64_t c) __attribute__((always_inline)) {
      const T* filter = filters + ky * 3 * filter_step + c;
      T* place = grad_channel + ky * 3 * filter_step + c;
#pragma GCC unroll 3
      for (int kx = 0; kx < 3; ++kx) {
        const int t = ky * 3 + kx;
        const Vector<T> product = gradient * load(row + c + kx * step);
        if (wants_channel) {
          T* at = place + kx * filter_step;
          store(at, load(at) + (product_weight ? product * spatial[t] : product));
        }
        if (wants_spatial) total[t] += product_weight ? product * load(filter + kx * filter_step) : product;
      }
    };
    const S* gradients = grad + pixel * grad_step;
    for (int64_t c = 0; c < channels; c += width) {
      const Vector<T> gradient = load(gradients + c);
      row_products(row0, gradient, 0, c);
      row_products(row1, gradient, 1, c);
      row_products(row2, gradient, 2, c);
    }
    if (wants_spatial) {
      sum_eight<T>(total, grad_spatial + pixel * 9);
      grad_spatial[pixel * 9 + 8] = sum<T>(total[8]);
    }
  }
}

// `partial` is (batch, blocks, subpixels, taps, channels), zeroed here, summed over blocks by the caller.
template <Weight weight, bool wants_channel, bool wants_spatial, class S>
struct PixelProducts {
  using T = Compute<S>;
  static constexpr bool uses_spatial = weight == Weight::Product;

  const Problem& p;
  const ConstArray& grad_output;
  const Array& grad_spatial;
  const T* filters;  // packed
  T* partial;
  const int64_t blocks;
  const Axis rows, columns;

  PixelProducts(const Problem& problem, const ConstArray& grad_output, const Array& grad_spatial, const T* filters,
                T* partial, int64_t blocks)
      : p(problem),
        grad_output(grad_output),
        grad_spatial(grad_spatial),
        filters(filters),
        partial(partial),
        blocks(blocks),
        rows(rows_of(problem), false),
        columns(columns_of(problem), false) {}

  // One row of filter positions of one subpixel and head.
  struct Row {
    int64_t n, y, q, head, channel;
    const Axis::Entry* entries;
    int64_t count;
    const T* filter;
    T* grad_channel;
    T* grad_spatial;  // (positions, taps)
  };

  const S* grad_at(const Row& row, int64_t x) const {
    return at<S>(grad_output, row.n, row.channel, row.y * p.upscale_y + row.q / p.upscale_x,
                 x * p.upscale_x + row.q % p.upscale_x);
  }
  const S* spatial_at(const Row& row, int64_t tap, int64_t x) const {
    return at<S>(p.spatial_filter, row.n, (row.q * p.heads + row.head) * p.taps() + tap, row.y, x);
  }

  int64_t multiply_windows(const Row& row, int64_t x) const {
    const int64_t pixels = window_run_length(columns, x, p.grid_width);
    const Axis::Entry* entries = columns.entries(x);
    WindowRun<S> run;
    run.tap_step = (entries[1].source - entries[0].source) * p.input.stride[3];
    run.pixel_step = p.stride_x * p.input.stride[3];
    run.spatial_step = p.spatial_filter.stride[3];
    run.channel = row.filter;
    run.channels = p.channels;
    for (int tap = 0; uses_spatial && tap < 9; ++tap) run.spatial[tap] = spatial_at(row, tap, x);
    for (int ky = 0; ky < 3; ++ky) {
      run.row[ky] = at<S>(p.input, row.n, row.channel, row.entries[ky].source, entries[0].source);
    }
    window_products<weight, wants_channel, wants_spatial>(run, pixels, grad_at(row, x),
                                                          grad_output.stride[3] * p.upscale_x, p.head_channels(),
                                                          row.grad_channel, row.grad_spatial + x * 9);
    return pixels;
  }

  void multiply_taps(const Row& row, int64_t x) const {
    for (int64_t i = 0; i < row.count; ++i) {
      for (int64_t j = 0; j < columns.count(x); ++j) {
        const Axis::Entry& column = columns.entries(x)[j];
        const int64_t tap = row.entries[i].tap * p.kernel_x + column.tap;
        PixelTaps<S> entry;
        entry.source = at<S>(p.input, row.n, row.channel, row.entries[i].source, column.source);
        entry.spatial = uses_spatial ? load_scalar(spatial_at(row, tap, x)) : T(0);
        entry.channel = row.filter + tap * p.channels;
        pixel_products<weight, wants_channel, wants_spatial>(entry, grad_at(row, x), p.head_channels(),
                                                             row.grad_channel + tap * p.channels,
                                                             row.grad_spatial + x * p.taps() + tap);
      }
    }
  }

  void multiply_row(const Row& row, T* tap_row) const {
    const bool windows = p.kernel_y == 3 && p.kernel_x == 3 && row.count == 3 && p.head_channels() % lanes<T> == 0;
    if (wants_spatial) {  // taps that are outside the map have no gradient
      std::memset(row.grad_spatial, 0, static_cast<size_t>(p.grid_width * p.taps()) * sizeof(T));
    }
    for (int64_t x = 0; x < p.grid_width;) {
      if (windows && columns.count(x) == 3) {
        x += multiply_windows(row, x);
      } else {
        multiply_taps(row, x++);
      }
    }
    for (int64_t tap = 0; wants_spatial && tap < p.taps(); ++tap) {
      for (int64_t x = 0; x < p.grid_width; ++x) tap_row[x] = row.grad_spatial[x * p.taps() + tap];
      S* target = at<S>(grad_spatial, row.n, (row.q * p.heads + row.head) * p.taps() + tap, row.y, 0);
      store_row(tap_row, target, grad_spatial.stride[3], p.grid_width);
    }
  }

  // Where `input_sum` is given, the input's gradient is computed row by row along with the filters': both read the
  // same rows of the output's gradient, which then come from the cache the second time.
  void run(ParallelFor parallel_for, const PixelSum<weight, true, S>* input_sum) const {
    const int64_t block_rows = ceil_div(p.grid_height, blocks), slice = p.subpixels() * p.taps() * p.channels;
    auto body = [&](int64_t begin, int64_t end) {
      Buffer<T> row_gradient(p.grid_width * p.taps()), tap_row(p.grid_width);
      Buffer<PixelTaps<S>> list(input_sum == nullptr ? 0 : input_sum->list_size());
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / blocks, block = i % blocks;
        T* grad_channel = wants_channel ? partial + i * slice : nullptr;
        if (wants_channel) std::memset(grad_channel, 0, static_cast<size_t>(slice) * sizeof(T));
        const int64_t last = min((block + 1) * block_rows, p.grid_height);
        for (int64_t y = block * block_rows; y < last; ++y) {
          for (int64_t q = 0; q < p.subpixels(); ++q) {
            for (int64_t head = 0; head < p.heads; ++head) {
              const int64_t channel = head * p.head_channels(), offset = q * p.taps() * p.channels + channel;
              multiply_row({n, y, q, head, channel, rows.entries(y), rows.count(y), filters + n * slice + offset,
                            grad_channel + offset, row_gradient.get()},
                           tap_row.get());
            }
          }
          if (input_sum == nullptr) continue;
          // Each input row goes with one row of filter positions, near it for the default padding.
          const int64_t end_row = (y + 1) * p.height / p.grid_height;
          for (int64_t row = y * p.height / p.grid_height; row < end_row; ++row) {
            input_sum->sum_rows(n, row, list.get());
          }
        }
      }
    };
    run_parallel(parallel_for, p.batch * blocks, grain(block_rows * p.grid_width * slice), body);
  }
};

// --- the two entries ---------------------------------------------------------------------------------------

template <Weight weight, class S>
static void forward_pixels(const Problem& p, const Array& output, ParallelFor parallel_for) {
  constexpr bool channel = weight != Weight::Spatial;
  Buffer<Compute<S>> filters(channel ? p.batch * p.subpixels() * p.taps() * p.channels : 0);
  if (channel) pack_channel_filter<S>(p, filters.get(), parallel_for);
  PixelSum<weight, false, S>(p, p.input, output, filters.get()).run(parallel_for);
}

// Which of the filters' gradients a kernel is compiled for.
template <bool for_channel, bool for_spatial>
struct Wanted {
  static constexpr bool channel = for_channel, spatial = for_spatial;
};

template <Weight weight, class S>
static void backward_pixels(const Problem& p, const ConstArray& grad_output, const Gradients& gradients,
                            ParallelFor parallel_for) {
  using T = Compute<S>;
  constexpr bool channel = weight != Weight::Spatial;
  const int64_t slice = p.subpixels() * p.taps() * p.channels;
  Buffer<T> filters(channel ? p.batch * slice : 0);
  if (channel) pack_channel_filter<S>(p, filters.get(), parallel_for);
  const PixelSum<weight, true, S> input_sum(p, grad_output, gradients.input, filters.get());
  const PixelSum<weight, true, S>* wanted_sum = gradients.input.data == nullptr ? nullptr : &input_sum;
  const bool wants_channel = gradients.channel_filter.data != nullptr;
  const bool wants_spatial = gradients.spatial_filter.data != nullptr;
  if (!wants_channel && !wants_spatial) {
    if (wanted_sum != nullptr) wanted_sum->run(parallel_for);
    return;
  }

  // Enough blocks to keep many threads busy, few enough that their partial sums stay small beside the input.
  const int64_t blocks = max(1, min(p.grid_height, ceil_div(32, max(p.batch, 1))));
  Buffer<T> partial(wants_channel ? p.batch * blocks * slice : 0);
  auto multiply = [&](auto wants_both_or_one) {
    constexpr bool channel_too = decltype(wants_both_or_one)::channel,
                   spatial_too = decltype(wants_both_or_one)::spatial;
    PixelProducts<weight, channel_too, spatial_too, S>(p, grad_output, gradients.spatial_filter, filters.get(),
                                                       partial.get(), blocks)
        .run(parallel_for, wanted_sum);
  };
  if (wants_channel && wants_spatial) {
    multiply(Wanted<true, true>{});
  } else if (wants_channel) {
    multiply(Wanted<true, false>{});
  } else {
    multiply(Wanted<false, true>{});
  }
  if (!wants_channel) return;

  sum_blocks(partial.get(), p.batch, blocks, slice, parallel_for);
  for (int64_t n = 0; n < p.batch; ++n) {
    for (int64_t q = 0; q < p.subpixels(); ++q) {
      for (int64_t t = 0; t < p.taps(); ++t) {
        const T* total = partial.get() + n * blocks * slice + (q * p.taps() + t) * p.channels;
        store_row(total, at<S>(gradients.channel_filter, n, q * p.channels, t / p.kernel_x, t % p.kernel_x),
                  gradients.channel_filter.stride[1], p.channels);
      }
    }
  }
}
