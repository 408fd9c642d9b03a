// Kernels for maps whose channels lie side by side (channels_last): vectors of channels, walked in memory order, so
// that a row of the map is read from memory once and then found in the caches by the other taps.
//
// Two ways through a row. 3x3 windows that share columns with their neighbours go in runs (windows.inl). Everything
// else goes target by target over a list of the taps that are inside the map; targets with the same taps, a step
// further each, share the list.

// --- the filters as the loops want them ------------------------------------------------------------------------------

// The channel filter of one sample in the type of the sums, the channels of a tap side by side: in place where it lies
// like that, packed otherwise. Each thread packs for itself, which spares the others a wait.
template <class S>
class ChannelFilter {
 public:
  using T = Compute<S>;

  explicit ChannelFilter(const Problem& p)
      : p_(p), in_place_(lies_right(p)), packed_(in_place_ || missing(p) ? 0 : p.subpixels() * p.taps() * p.channels) {}

  void load_sample(int64_t n) {
    if (n == sample_ || missing(p_)) return;
    sample_ = n;
    if (in_place_) return;
    T* target = packed_.get();
    for (int64_t q = 0; q < p_.subpixels(); ++q) {
      for (int64_t t = 0; t < p_.taps(); ++t, target += p_.channels) {
        const S* tap = at<S>(p_.channel_filter, n, q * p_.channels, t / p_.kernel_x, t % p_.kernel_x);
        load_row(tap, p_.channel_filter.stride[1], target, p_.channels);
      }
    }
  }

  // The first tap of the loaded sample; tap t of it lies tap_step() * t further.
  const T* from(int64_t subpixel, int64_t channel) const {
    if constexpr (std::is_same_v<S, T>) {
      if (in_place_) return at<S>(p_.channel_filter, sample_, subpixel * p_.channels + channel, 0, 0);
    }
    return packed_.get() + subpixel * p_.taps() * p_.channels + channel;
  }
  int64_t tap_step() const { return in_place_ ? p_.channel_filter.stride[3] : p_.channels; }

 private:
  static bool missing(const Problem& p) { return p.channel_filter.data == nullptr; }
  static bool lies_right(const Problem& p) {
    const int64_t* stride = p.channel_filter.stride;
    return std::is_same_v<S, T> && !missing(p) && stride[1] == 1 && stride[2] == p.kernel_x * stride[3];
  }

  const Problem& p_;
  const bool in_place_;
  Buffer<T> packed_;
  int64_t sample_ = -1;
};

// Rows of the spatial filter in the type of the sums, the taps of a position side by side: in place where they lie like
// that, packed otherwise. For transposed windows there is a margin of zeros at both ends, and the rows that were packed
// last are kept: windows read as many rows as they have, and those of the next row all of them but one again.
template <class S, bool transposed>
class SpatialRows {
 public:
  using T = Compute<S>;

  SpatialRows(const Problem& p, bool used)
      : p_(p),
        in_place_(used && !transposed && lies_right(p)),
        margin_(transposed ? p.kernel_x - 1 : 0),
        row_((p.grid_width + 2 * margin_) * p.taps()),
        rows_(!used || in_place_ ? 0 : (slots * p.heads + 1) * row_) {
    for (int64_t& key : key_) key = -1;
    if (used && !in_place_) std::memset(outside(), 0, static_cast<size_t>(row_) * sizeof(T));
  }

  // From a position to the next.
  int64_t step() const { return in_place_ ? p_.spatial_filter.stride[3] : p_.taps(); }

  // Position 0 of a row; zeros where the row is outside.
  const T* row(int64_t n, int64_t subpixel, int64_t head, int64_t y) {
    const int64_t taps = p_.taps();
    if constexpr (std::is_same_v<S, T>) {
      if (in_place_) return at<S>(p_.spatial_filter, n, (subpixel * p_.heads + head) * taps, y, 0);
    }
    if (y < 0 || y >= p_.grid_height) return outside() + margin_ * taps;
    const int64_t key = (n * p_.subpixels() + subpixel) * p_.grid_height + y;
    int64_t slot = 0;  // the row's, or that of the row which was not asked for longest
    for (int64_t i = 0; i < slots; ++i) {
      if (key_[i] == key) {
        slot = i;
        break;
      }
      if (asked_[i] < asked_[slot]) slot = i;
    }
    if (key_[slot] != key) {
      for (int64_t h = 0; h < p_.heads; ++h) pack(n, subpixel * p_.heads + h, y, place(slot, h));
    }
    key_[slot] = key;
    asked_[slot] = ++clock_;
    return place(slot, head) + margin_ * taps;
  }

 private:
  static constexpr int64_t slots = transposed ? 3 : 1;

  // Large windows count on one position's taps following another's.
  static bool lies_right(const Problem& p) {
    const int64_t* stride = p.spatial_filter.stride;
    return std::is_same_v<S, T> && stride[1] == 1 && (p.taps() == 9 || stride[3] == p.taps());
  }

  T* place(int64_t slot, int64_t head) const { return rows_.get() + (slot * p_.heads + head) * row_; }
  T* outside() const { return rows_.get() + slots * p_.heads * row_; }

  void pack(int64_t n, int64_t filter, int64_t y, T* target) const {
    const int64_t taps = p_.taps(), tap_step = p_.spatial_filter.stride[1], step = p_.spatial_filter.stride[3];
    const S* source = at<S>(p_.spatial_filter, n, filter * taps, y, 0);
    for (int64_t i = 0; i < margin_ * taps; ++i) target[i] = target[row_ - 1 - i] = T(0);
    target += margin_ * taps;
    if (tap_step == 1 && step == taps) {
      load_row(source, 1, target, p_.grid_width * taps);
    } else {
      for (int64_t x = 0; x < p_.grid_width; ++x) load_row(source + x * step, tap_step, target + x * taps, taps);
    }
  }

  const Problem& p_;
  const bool in_place_;
  const int64_t margin_, row_;
  Buffer<T> rows_;  // (slots, heads, row), and one of zeros
  int64_t key_[slots] = {}, asked_[slots] = {}, clock_ = 0;
};

// --- which windows make a run ----------------------------------------------------------------------------------------

DDF_INLINE int64_t greatest_common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b, b = rest;
  }
  return a;
}

constexpr int64_t larger_than_caches = 1 << 23;  // elements; 32 MiB in float
constexpr int64_t longest_row_of_zeros = 1 << 18;

// Forward, targets are filter positions and sources the input's pixels; transposed, for the input's gradient, the other
// way round. `apart` targets further, a window has moved by `advance` columns.
struct WindowGeometry {
  WindowGeometry(const Problem& p, const ConstArray& source, bool transposed, int64_t largest)
      : transposed(transposed), rows(rows_of(p)), columns(columns_of(p)), side(columns.taps) {
    const int64_t common = greatest_common_divisor(columns.stride, columns.dilation);
    apart = columns.dilation / common;
    advance = columns.stride / common;
    // Transposed, neighbours in the source must be neighbours in the window, as their spatial filters are packed.
    const bool neighbours = rows.stride == 1 && columns.stride == 1 && columns.dilation == 1;
    const bool dense = neighbours && p.subpixels() == 1;
    suits = rows.taps == side && side <= largest && (side == 3 || side == 5 || side == 7) &&
            (side == 3 ? advance <= 2 && (dense || !transposed) : neighbours);
    // Checked one by one before they are multiplied: pixels of a view may lie as far apart as 64 bits reach.
    suits = suits && columns.dilation <= longest_row_of_zeros && source.stride[3] <= longest_row_of_zeros;
    step = suits ? columns.dilation * source.stride[3] : 0;
    zeros = suits ? (longest_run * advance + side) * step + p.channels : 0;
    suits = suits && zeros <= longest_row_of_zeros;
    if (!suits) zeros = 0;
    ahead = p.batch * p.channels * p.height * p.width > larger_than_caches;
  }

  // The source of a target's first row or column of the window, maybe outside.
  int64_t origin(const AxisGeometry& axis, int64_t target) const {
    return transposed ? target + axis.padding - (side - 1) * axis.dilation : target * axis.stride - axis.padding;
  }
  int64_t sources(const AxisGeometry& axis) const { return transposed ? axis.positions : axis.inputs; }

  // Fills in where the run's map is: `windows` of them from target x of row y on, at the given channel.
  template <class S>
  void place(WindowRun<S>& run, const ConstArray& source, int64_t n, int64_t channel, int64_t y, int64_t x,
             int64_t windows, const S* row_of_zeros) const {
    const int64_t column = origin(columns, x), row = origin(rows, y);
    run.windows = windows;
    run.step = step;
    run.ahead = ahead;
    run.first = column < 0 ? ceil_div(-column, columns.dilation) : 0;
    run.last = column < sources(columns) ? (sources(columns) - 1 - column) / columns.dilation + 1 : 0;
    run.last = max(run.last, run.first);
    run.first_row = side, run.last_row = 0;
    for (int64_t r = 0; r < side; ++r) {
      const int64_t source_y = row + r * rows.dilation;
      const bool inside = source_y >= 0 && source_y < sources(rows);
      run.row[r] = inside ? at<S>(source, n, channel, source_y, column) : row_of_zeros;
      if (inside) run.first_row = min(run.first_row, r), run.last_row = r + 1;
    }
  }

  // Calls body(first target, number of windows) for the runs of a row of targets, `apart` from each other: of about
  // equal length, or where windows are large as many as have their sums in registers.
  template <class Body>
  DDF_ALWAYS_INLINE void for_runs(int64_t width, Body body) const {
    for (int64_t phase = 0; phase < min(apart, width); ++phase) {
      const int64_t targets = ceil_div(width - phase, apart);
      const int64_t length = side > 3 ? longest_run : ceil_div(targets, ceil_div(targets, longest_run));
      for (int64_t i = 0; i < targets; i += length) body(phase + i * apart, min(length, targets - i));
    }
  }

  const bool transposed;
  const AxisGeometry rows, columns;
  const int64_t side;
  int64_t apart, advance;
  int64_t step;   // from a column to the next, in elements of the source
  int64_t zeros;  // how long a row of zeros must be
  bool suits;
  bool ahead;  // whether to fetch ahead
};

// --- lists of taps ---------------------------------------------------------------------------------------------------

template <class S>
struct Tap {
  const S* source;            // the first target's pixel
  const S* spatial;           // the spatial filter's tap
  const Compute<S>* channel;  // the channel filter's tap
};

// How many targets from x on, `apart` from each other, have the same taps, `shift` sources further each.
static int64_t same_taps(const Axis& axis, int64_t x, int64_t apart, int64_t shift, int64_t width) {
  int64_t count = 1;
  for (int64_t next = x + apart; next < width; next += apart, ++count) {
    if (axis.count(next) != axis.count(x)) break;
    for (int64_t i = 0; i < axis.count(x); ++i) {
      const Axis::Entry &here = axis.entries(x)[i], &there = axis.entries(next)[i];
      if (there.tap != here.tap || there.source != here.source + shift * count) return count;
    }
  }
  return count;
}

// One target: channels [0, channels) of it, over the taps of a list moved on by `move` elements of the source.
template <Weight weight, class S>
static void sum_taps(const Tap<S>* taps, const Compute<S>* spatial, int64_t count, int64_t move, int64_t channels,
                     S* target, const After& after) {
  using T = Compute<S>;
  constexpr int64_t width = lanes<T>, block = 4;
  constexpr bool channel = weight != Weight::Spatial;
  int64_t c = 0;
  for (; c + block * width <= channels; c += block * width) {
    Vector<T> total[block] = {};
    for (int64_t t = 0; t < count; ++t) {
      const Vector<T> value = broadcast(spatial[t]);
      const S* source = taps[t].source + move + c;
#pragma GCC unroll 4
      for (int64_t i = 0; i < block; ++i) {
        const Vector<T> filter = channel ? load(taps[t].channel + c + i * width) : Vector<T>{};
        total[i] += combine<weight>(filter, value) * load(source + i * width);
      }
    }
#pragma GCC unroll 4
    for (int64_t i = 0; i < block; ++i) {
      store(target + c + i * width, Finish<S>(after, c + i * width, width)(total[i]));
    }
  }
  for (; c < channels; c += width) {
    const int64_t left = min(width, channels - c);
    Vector<T> total = {};
    for (int64_t t = 0; t < count; ++t) {
      const Vector<T> filter = channel ? load_first(taps[t].channel + c, left) : Vector<T>{};
      total += combine<weight>(filter, broadcast(spatial[t])) * load_first(taps[t].source + move + c, left);
    }
    store_first(target + c, Finish<S>(after, c, left)(total), left);
  }
}

// One tap of one pixel: with product = grad * source, adds product * spatial to the channel filter's gradient and gives
// the sums of product * channel, lane by lane.
template <Weight weight, class S>
static Vector<Compute<S>> multiply_tap(const S* source, const S* grad, Compute<S> spatial, const Compute<S>* channel,
                                       int64_t channels, Compute<S>* grad_channel) {
  using T = Compute<S>;
  constexpr int64_t width = lanes<T>;
  constexpr bool product_weight = weight == Weight::Product;
  constexpr bool has_channel = weight != Weight::Spatial, has_spatial = weight != Weight::Channel;
  const Vector<T> value = broadcast(spatial);
  Vector<T> total = {};
  int64_t c = 0;
  for (; c + width <= channels; c += width) {
    const Vector<T> product = load(grad + c) * load(source + c);
    if (has_channel) store(grad_channel + c, load(grad_channel + c) + (product_weight ? product * value : product));
    if (has_spatial) total += product_weight ? product * load(channel + c) : product;
  }
  if (c < channels) {
    const int64_t left = channels - c;
    const Vector<T> product = load_first(grad + c, left) * load_first(source + c, left);
    if (has_channel) {
      const Vector<T> term = product_weight ? product * value : product;
      store_first(grad_channel + c, load_first(grad_channel + c, left) + term, left);
    }
    if (has_spatial) total += product_weight ? product * load_first(channel + c, left) : product;
  }
  return total;
}

// --- sums: forward, and the gradient of the input --------------------------------------------------------------------

// Forward: sources are input pixels, targets output pixels, and the spatial filter is the target's. Transposed: sources
// are output pixels of every subpixel, targets input pixels, and the spatial filter is the source's. Each thread has
// one of its own.
template <Weight weight, bool transposed, class S>
class PixelSum {
 public:
  using T = Compute<S>;

  PixelSum(const Problem& p, const ConstArray& source, const Array& target, const After& after = {})
      : p_(p),
        after_(after),
        source_(source),
        target_(target),
        width_(transposed ? p.width : p.grid_width),
        sources_a_sum_(transposed ? p.subpixels() : 1),
        windows_(p, source, transposed, std::is_same_v<S, float> && !transposed ? largest_side : 3),
        channel_filter_(p),
        spatial_rows_(p, windows_.suits && uses_spatial),
        zeros_(windows_.zeros),
        rows_(windows_.suits ? AxisGeometry{} : rows_of(p), transposed),
        columns_(windows_.suits ? AxisGeometry{} : columns_of(p), transposed),
        list_(windows_.suits ? 0 : p.taps() * sources_a_sum_),
        values_(windows_.suits ? 0 : p.taps() * sources_a_sum_) {
    std::memset(zeros_.get(), 0, static_cast<size_t>(windows_.zeros) * sizeof(S));
  }

  // All targets of row y, and of its subpixels.
  void sum_rows(int64_t n, int64_t y) {
    channel_filter_.load_sample(n);
    for (int64_t q = 0; q < (transposed ? 1 : p_.subpixels()); ++q) {
      for (int64_t head = 0; head < p_.heads; ++head) {
        const Row row = {n, y, q, head, head * p_.head_channels()};
        if (!windows_.suits) {
          sum_row_by_taps(row);
        } else {
          sum_row_by_windows(row);
        }
      }
    }
  }

 private:
  static constexpr bool uses_spatial = weight != Weight::Channel;

  // One row of targets of one head; `q` is the targets' subpixel, 0 where a target has none.
  struct Row {
    int64_t n, y, q, head, channel;
  };

  S* target_at(const Row& row, int64_t x) const {
    if (transposed) return at<S>(target_, row.n, row.channel, row.y, x);
    return at<S>(target_, row.n, row.channel, row.y * p_.upscale_y + row.q / p_.upscale_x,
                 x * p_.upscale_x + row.q % p_.upscale_x);
  }
  int64_t target_step() const { return target_.stride[3] * (transposed ? 1 : p_.upscale_x); }

  void sum_row_by_windows(const Row& row) {
    const int64_t position_step = spatial_rows_.step();
    WindowRun<S> run;
    run.channel = channel_filter_.from(row.q, row.channel);
    run.tap_step = channel_filter_.tap_step();
    run.spatial_step = position_step * windows_.apart;
    const T* spatial[3] = {};
    for (int r = 0; uses_spatial && r < (transposed ? 3 : 1); ++r) {
      const int64_t y = transposed ? windows_.origin(windows_.rows, row.y) + r * p_.dilation_y : row.y;
      spatial[r] = spatial_rows_.row(row.n, row.q, row.head, y);
    }
    windows_.for_runs(width_, [&](int64_t x, int64_t windows) {
      windows_.place(run, source_, row.n, row.channel, row.y, x, windows, zeros_.get());
      const int64_t position = transposed ? windows_.origin(windows_.columns, x) : x;
      for (int r = 0; r < 3; ++r) {
        run.spatial[r] = spatial[r] == nullptr ? nullptr : spatial[r] + position * position_step;
      }
      sum_run(run, target_at(row, x), target_step() * windows_.apart, after(row.channel));
    });
  }

  void sum_run(const WindowRun<S>& run, S* target, int64_t step, const After& after) const {
    const int64_t channels = p_.head_channels();
    if constexpr (!transposed && std::is_same_v<S, float>) {
      if (windows_.side == 5) return sum_large_windows<weight, 5>(run, channels, target, step, after);
      if (windows_.side == 7) return sum_large_windows<weight, 7>(run, channels, target, step, after);
    }
    if (transposed || windows_.advance == 1) {
      sum_windows<weight, transposed, 1>(run, channels, target, step, after);
    } else {
      sum_windows<weight, false, 2>(run, channels, target, step, after);
    }
  }

  // The taps of target x; returns how many.
  int64_t list_taps(const Row& row, int64_t x) {
    const int64_t scale_y = transposed ? p_.upscale_y : 1, scale_x = transposed ? p_.upscale_x : 1;
    int64_t count = 0;
    for (int64_t sub = 0; sub < sources_a_sum_; ++sub) {
      const int64_t subpixel = transposed ? sub : row.q;  // whose filters these are
      for (int64_t i = 0; i < rows_.count(row.y); ++i) {
        const Axis::Entry& line = rows_.entries(row.y)[i];
        for (int64_t j = 0; j < columns_.count(x); ++j) {
          const Axis::Entry& column = columns_.entries(x)[j];
          Tap<S>& tap = list_[count++];
          const int64_t index = line.tap * p_.kernel_x + column.tap;
          tap.source = at<S>(source_, row.n, row.channel, line.source * scale_y + sub / p_.upscale_x,
                             column.source * scale_x + sub % p_.upscale_x);
          tap.channel = channel_filter_.from(subpixel, row.channel) + index * channel_filter_.tap_step();
          if (!uses_spatial) continue;
          tap.spatial = at<S>(p_.spatial_filter, row.n, (subpixel * p_.heads + row.head) * p_.taps() + index,
                              transposed ? line.source : row.y, transposed ? column.source : x);
        }
      }
    }
    return count;
  }

  void sum_row_by_taps(const Row& row) {
    const int64_t apart = transposed ? p_.stride_x : 1, shift = transposed ? 1 : p_.stride_x;
    const int64_t step = source_.stride[3] * (transposed ? p_.upscale_x : 1) * shift;
    const int64_t spatial_step = p_.spatial_filter.stride[3];  // forward by a target, transposed by a source
    for (int64_t phase = 0; phase < min(apart, width_); ++phase) {
      for (int64_t x = phase; x < width_;) {
        const int64_t targets = same_taps(columns_, x, apart, shift, width_);
        const int64_t count = list_taps(row, x);
        for (int64_t i = 0; i < targets; ++i, x += apart) {
          for (int64_t t = 0; t < count; ++t) {
            values_[t] = uses_spatial ? load_scalar(list_[t].spatial + i * spatial_step) : T(0);
          }
          sum_taps<weight>(list_.get(), values_.get(), count, i * step, p_.head_channels(), target_at(row, x),
                           after(row.channel));
        }
      }
    }
  }

  // What follows the sums of a head, whose first channel is given.
  After after(int64_t channel) const {
    return {after_.scale == nullptr ? nullptr : after_.scale + channel,
            after_.shift == nullptr ? nullptr : after_.shift + channel, after_.relu};
  }

  const Problem& p_;
  const After after_;
  const ConstArray& source_;
  const Array& target_;
  const int64_t width_;          // of the targets, a subpixel
  const int64_t sources_a_sum_;  // subpixels that one sum reads
  const WindowGeometry windows_;
  ChannelFilter<S> channel_filter_;
  SpatialRows<S, transposed> spatial_rows_;
  Buffer<S> zeros_;
  const Axis rows_, columns_;  // for lists of taps
  Buffer<Tap<S>> list_;
  Buffer<T> values_;
};

// --- products: the gradients of both filters -------------------------------------------------------------------------

// Adds to `grad_channel`, (subpixels, taps, channels) of a sample, and writes the spatial filter's gradient where it is
// wanted. Each thread has one of its own.
template <Weight weight, class S>
class PixelProducts {
 public:
  using T = Compute<S>;

  PixelProducts(const Problem& p, const ConstArray& grad_output, const Array& grad_spatial)
      : p_(p),
        grad_output_(grad_output),
        grad_spatial_(grad_spatial),
        windows_(p, p.input, false, 3),
        channel_filter_(p),
        spatial_rows_(p, windows_.suits && reads_spatial),
        zeros_(windows_.zeros),
        rows_(windows_.suits ? AxisGeometry{} : rows_of(p), false),
        columns_(windows_.suits ? AxisGeometry{} : columns_of(p), false),
        partial_((windows_.suits ? longest_run * 9 : p.taps()) * lanes<T> + lanes<T> * lanes<T>),
        sums_(windows_.suits ? longest_run * 9 : p.taps()),
        row_gradient_(p.grid_width * p.taps()) {
    std::memset(zeros_.get(), 0, static_cast<size_t>(windows_.zeros) * sizeof(S));
  }

  // All filter positions of row y, and of its subpixels.
  void multiply_rows(int64_t n, int64_t y, T* grad_channel) {
    channel_filter_.load_sample(n);
    for (int64_t q = 0; q < p_.subpixels(); ++q) {
      for (int64_t head = 0; head < p_.heads; ++head) {
        const int64_t channel = head * p_.head_channels();
        const Row row = {n, y, q, head, channel, grad_channel + q * p_.taps() * p_.channels + channel};
        if (!windows_.suits) {
          multiply_row_by_taps(row);
        } else if (windows_.advance == 1) {
          multiply_row_by_windows<1>(row);
        } else {
          multiply_row_by_windows<2>(row);
        }
        if (has_spatial && grad_spatial_.data != nullptr) store_row_gradient(row);
      }
    }
  }

 private:
  static constexpr bool has_channel = weight != Weight::Spatial, has_spatial = weight != Weight::Channel;
  static constexpr bool reads_spatial = weight == Weight::Product;

  struct Row {
    int64_t n, y, q, head, channel;
    T* grad_channel;
  };

  const S* grad_at(const Row& row, int64_t x) const {
    return at<S>(grad_output_, row.n, row.channel, row.y * p_.upscale_y + row.q / p_.upscale_x,
                 x * p_.upscale_x + row.q % p_.upscale_x);
  }

  template <int advance>
  void multiply_row_by_windows(const Row& row) {
    WindowRun<S> run;
    run.channel = channel_filter_.from(row.q, row.channel);
    run.tap_step = channel_filter_.tap_step();
    run.spatial_step = spatial_rows_.step() * windows_.apart;
    const T* spatial = reads_spatial ? spatial_rows_.row(row.n, row.q, row.head, row.y) : nullptr;
    const WindowGradients<T> gradients = {row.grad_channel, p_.channels, partial_.get()};
    const int64_t step = grad_output_.stride[3] * p_.upscale_x * windows_.apart;
    windows_.for_runs(p_.grid_width, [&](int64_t x, int64_t windows) {
      windows_.place(run, p_.input, row.n, row.channel, row.y, x, windows, zeros_.get());
      run.spatial[0] = reads_spatial ? spatial + x * spatial_rows_.step() : nullptr;
      multiply_windows<weight, advance>(run, p_.head_channels(), grad_at(row, x), step, gradients);
      if (!has_spatial) return;
      if (windows_.apart == 1) {
        sum_each(partial_.get(), windows * 9, row_gradient_.get() + x * 9);
      } else {
        sum_each(partial_.get(), windows * 9, sums_.get());
        for (int64_t i = 0; i < windows; ++i) {
          std::memcpy(row_gradient_.get() + (x + i * windows_.apart) * 9, sums_.get() + i * 9, 9 * sizeof(T));
        }
      }
    });
  }

  void multiply_row_by_taps(const Row& row) {
    const T* filter = channel_filter_.from(row.q, row.channel);
    for (int64_t x = 0; x < p_.grid_width; ++x) {
      int64_t count = 0;
      T* gradient = row_gradient_.get() + x * p_.taps();
      std::memset(gradient, 0, static_cast<size_t>(p_.taps()) * sizeof(T));  // of taps outside the map
      for (int64_t i = 0; i < rows_.count(row.y); ++i) {
        const Axis::Entry& line = rows_.entries(row.y)[i];
        for (int64_t j = 0; j < columns_.count(x); ++j) {
          const Axis::Entry& column = columns_.entries(x)[j];
          const int64_t tap = line.tap * p_.kernel_x + column.tap;
          const int64_t filters = row.q * p_.heads + row.head;
          const T spatial =
              reads_spatial ? load_scalar(at<S>(p_.spatial_filter, row.n, filters * p_.taps() + tap, row.y, x)) : T(0);
          const Vector<T> total = multiply_tap<weight>(
              at<S>(p_.input, row.n, row.channel, line.source, column.source), grad_at(row, x), spatial,
              filter + tap * channel_filter_.tap_step(), p_.head_channels(), row.grad_channel + tap * p_.channels);
          store(partial_.get() + count++ * lanes<T>, total);
        }
      }
      if (!has_spatial) continue;
      sum_each(partial_.get(), count, sums_.get());
      for (int64_t i = 0, next = 0; i < rows_.count(row.y); ++i) {
        for (int64_t j = 0; j < columns_.count(x); ++j) {
          gradient[rows_.entries(row.y)[i].tap * p_.kernel_x + columns_.entries(x)[j].tap] = sums_[next++];
        }
      }
    }
  }

  void store_row_gradient(const Row& row) const {
    const int64_t taps = p_.taps(), *stride = grad_spatial_.stride;
    S* target = at<S>(grad_spatial_, row.n, (row.q * p_.heads + row.head) * taps, row.y, 0);
    if (stride[1] == 1 && stride[3] == taps) {
      store_row(row_gradient_.get(), target, 1, p_.grid_width * taps);
    } else {
      for (int64_t x = 0; x < p_.grid_width; ++x) {
        store_row(row_gradient_.get() + x * taps, target + x * stride[3], stride[1], taps);
      }
    }
  }

  const Problem& p_;
  const ConstArray& grad_output_;
  const Array& grad_spatial_;
  const WindowGeometry windows_;
  ChannelFilter<S> channel_filter_;
  SpatialRows<S, false> spatial_rows_;
  Buffer<S> zeros_;
  const Axis rows_, columns_;
  Buffer<T> partial_, sums_;  // of the windows of a run, or of the taps of a target
  Buffer<T> row_gradient_;    // (positions, taps)
};

// --- the two entries -------------------------------------------------------------------------------------------------

template <Weight weight, bool transposed, class S>
static void sum_pixels(const Problem& p, const ConstArray& source, const Array& target, ParallelFor parallel_for,
                       const After& after = {}) {
  const int64_t height = transposed ? p.height : p.grid_height, width = transposed ? p.width : p.grid_width;
  auto body = [&](int64_t begin, int64_t end) {
    PixelSum<weight, transposed, S> sum(p, source, target, after);
    for (int64_t i = begin; i < end; ++i) sum.sum_rows(i / height, i % height);
  };
  run_parallel(parallel_for, p.batch * height, grain(width * p.subpixels() * p.taps() * p.channels), body);
}

template <Weight weight, class S>
static void forward_pixels(const Problem& p, const Array& output, ParallelFor parallel_for) {
  sum_pixels<weight, false, S>(p, p.input, output, parallel_for);
}

template <Weight weight, class S>
static void backward_pixels(const Problem& p, const ConstArray& grad_output, const Gradients& gradients,
                            ParallelFor parallel_for) {
  using T = Compute<S>;
  if (gradients.channel_filter.data == nullptr && gradients.spatial_filter.data == nullptr) {
    if (gradients.input.data != nullptr) {
      sum_pixels<weight, true, S>(p, grad_output, gradients.input, parallel_for);
    }
    return;
  }

  // Enough blocks of rows to keep many threads busy, few and large enough that their partial sums of the channel
  // filter's gradient cost little beside the rest.
  const int64_t slice = p.subpixels() * p.taps() * p.channels, positions = p.grid_height * p.grid_width;
  const int64_t blocks = max(1, min(min(p.grid_height, positions / 16), ceil_div(32, max(p.batch, 1))));
  const int64_t block_rows = ceil_div(p.grid_height, blocks);
  Buffer<T> partial(p.batch * blocks * slice);
  auto body = [&](int64_t begin, int64_t end) {
    PixelProducts<weight, S> products(p, grad_output, gradients.spatial_filter);
    PixelSum<weight, true, S> input_sum(p, grad_output, gradients.input);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t n = i / blocks, block = i % blocks;
      T* grad_channel = partial.get() + i * slice;
      std::memset(grad_channel, 0, static_cast<size_t>(slice) * sizeof(T));
      const int64_t last = min((block + 1) * block_rows, p.grid_height);
      for (int64_t y = block * block_rows; y < last; ++y) {
        products.multiply_rows(n, y, grad_channel);
        if (gradients.input.data == nullptr) continue;
        // Each input row goes with one row of filter positions, near it for the default padding: both read the same
        // rows of the output's gradient, which come from the cache the second time.
        const int64_t end_row = (y + 1) * p.height / p.grid_height;
        for (int64_t row = y * p.height / p.grid_height; row < end_row; ++row) input_sum.sum_rows(n, row);
      }
    }
  };
  run_parallel(parallel_for, p.batch * blocks, grain(block_rows * p.grid_width * slice), body);
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
