// Scratch memory, loops over threads, and the positions that each tap joins, for all kernels.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

#include "isa/target.inl"
#include "problem.h"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

DDF_INLINE int64_t min(int64_t a, int64_t b) {
  return a < b ? a : b;
}
DDF_INLINE int64_t max(int64_t a, int64_t b) {
  return a > b ? a : b;
}
DDF_INLINE int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Uninitialised memory for `count` values, aligned to cache lines. One vector of slack at the end allows full vectors.
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
DDF_INLINE void run_parallel(ParallelFor parallel_for, int64_t count, int64_t grain_size, Body& body) {
  parallel_for(
      count, max(grain_size, 1),
      [](void* context, int64_t begin, int64_t end) { (*static_cast<Body*>(context))(begin, end); }, &body);
}

// The grain size: the number of items that make a thread worth its start.
DDF_INLINE int64_t grain_size(int64_t operations_per_item) {
  return ceil_div(1 << 16, max(operations_per_item, 1));
}

template <class T, class Pointer>
DDF_INLINE const T* at(const StridedArray<Pointer>& array, int64_t a, int64_t b, int64_t c, int64_t d) {
  const int64_t* stride = array.stride;
  return static_cast<const T*>(array.data) + a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3];
}
template <class T>
DDF_INLINE T* at(const Array& array, int64_t a, int64_t b, int64_t c, int64_t d) {
  const int64_t* stride = array.stride;
  return static_cast<T*>(array.data) + a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3];
}

// One axis of the operator: tap k joins filter position p with input position p * stride - padding + k * dilation.
struct AxisGeometry {
  int64_t positions, inputs, taps, stride, padding, dilation;
};
DDF_INLINE AxisGeometry row_axis(const Problem& p) {
  return {p.grid_height, p.height, p.kernel_y, p.stride_y, p.padding_y, p.dilation_y};
}
DDF_INLINE AxisGeometry column_axis(const Problem& p) {
  return {p.grid_width, p.width, p.kernel_x, p.stride_x, p.padding_x, p.dilation_x};
}

// For each target along an axis, the taps that read a source inside the map, and the position of that source. Forward,
// targets are filter positions and sources are inputs. Transposed (the input's gradient), it is the other way round.
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

// Reduces partial sums, (batch, blocks, size), over the blocks, and calls write(total, n) for each sample. The channel
// filter's gradient is summed this way: the blocks depend on the shape alone and are added in order, so the result has
// the same bits from run to run, without atomics.
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
  run_parallel(parallel_for, batch, grain_size(blocks * size), body);
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
