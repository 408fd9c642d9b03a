// What all kernels of a tier share: scratch memory, loops over threads, and which positions each tap joins.
// No standard containers here: a template of theirs, instantiated under the tier's target, could be the one copy that
// the linker keeps for the whole library, and would then run on processors without that instruction set.

DDF_INLINE int64_t min(int64_t a, int64_t b) {
  return a < b ? a : b;
}
DDF_INLINE int64_t max(int64_t a, int64_t b) {
  return a > b ? a : b;
}
DDF_INLINE int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Uninitialised memory for `count` values, aligned to cache lines, with a vector of slack at the end.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count) {
    const int64_t bytes = ceil_div(count * static_cast<int64_t>(sizeof(T)) + 64, 64) * 64;
    data_ = static_cast<T*>(std::aligned_alloc(64, static_cast<size_t>(bytes)));
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_;
};

template <class Body>
DDF_INLINE void run_parallel(ParallelFor parallel_for, int64_t count, int64_t grain, Body& body) {
  parallel_for(
      count, max(grain, 1),
      [](void* context, int64_t begin, int64_t end) { (*static_cast<Body*>(context))(begin, end); }, &body);
}

// How many items of this many operations are worth a thread of their own.
DDF_INLINE int64_t grain(int64_t operations_an_item) {
  return ceil_div(1 << 16, max(operations_an_item, 1));
}

template <class T, class Pointer>
DDF_INLINE const T* at(const ArrayOf<Pointer>& array, int64_t a, int64_t b, int64_t c, int64_t d) {
  const int64_t* stride = array.stride;
  return static_cast<const T*>(array.data) + a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3];
}
template <class T>
DDF_INLINE T* at(const Array& array, int64_t a, int64_t b, int64_t c, int64_t d) {
  const int64_t* stride = array.stride;
  return static_cast<T*>(array.data) + a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3];
}

// Along one axis, tap k joins filter position p with input position p * stride - padding + k * dilation.
struct AxisGeometry {
  int64_t positions, inputs, taps, stride, padding, dilation;
};
DDF_INLINE AxisGeometry rows_of(const Problem& p) {
  return {p.grid_height, p.height, p.kernel_y, p.stride_y, p.padding_y, p.dilation_y};
}
DDF_INLINE AxisGeometry columns_of(const Problem& p) {
  return {p.grid_width, p.width, p.kernel_x, p.stride_x, p.padding_x, p.dilation_x};
}

// For each target along an axis, the taps that reach a source inside the map, and where. Forward, the targets are
// filter positions and the sources inputs; transposed, for the input's gradient, the other way round.
class Axis {
 public:
  struct Entry {
    int64_t tap, source;
  };

  Axis(const AxisGeometry& g, bool transposed)
      : begin_((transposed ? g.inputs : g.positions) + 1), entries_((transposed ? g.inputs : g.positions) * g.taps) {
    const int64_t targets = transposed ? g.inputs : g.positions;
    int64_t used = 0;
    for (int64_t target = 0; target < targets; ++target) {
      begin_[target] = used;
      for (int64_t tap = 0; tap < g.taps; ++tap) {
        int64_t source;
        if (transposed) {
          const int64_t offset = target + g.padding - tap * g.dilation;
          if (offset < 0 || offset % g.stride != 0) continue;
          source = offset / g.stride;
          if (source >= g.positions) continue;
        } else {
          source = target * g.stride - g.padding + tap * g.dilation;
          if (source < 0 || source >= g.inputs) continue;
        }
        entries_[used++] = {tap, source};
      }
    }
    begin_[targets] = used;
  }

  int64_t count(int64_t target) const { return begin_[target + 1] - begin_[target]; }
  const Entry* entries(int64_t target) const { return entries_.get() + begin_[target]; }

 private:
  Buffer<int64_t> begin_;
  Buffer<Entry> entries_;
};

// The gradient of the channel filter is summed over blocks of positions that depend on the shape alone, each block into
// its own slice of `partial` (batch, blocks, subpixels, taps or channels as the kernel likes), then over the blocks in
// order: the same bits from run to run, and no atomics. `write(total, n)` puts a sample's sum where it belongs.
template <class T, class Write>
DDF_INLINE void sum_blocks(T* partial, int64_t batch, int64_t blocks, int64_t size, ParallelFor parallel_for,
                           Write write) {
  auto body = [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      T* total = partial + n * blocks * size;
      for (int64_t block = 1; block < blocks; ++block) {
        const T* part = total + block * size;
        for (int64_t i = 0; i < size; ++i) total[i] += part[i];
      }
      write(static_cast<const T*>(total), n);
    }
  };
  run_parallel(parallel_for, batch, grain(blocks * size), body);
}
