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

// The bytes of scratch memory that a call may use for its threads, and again for partial sums, however many threads
// there are: the input's bytes and 3 MiB.
template <class S>
DDF_INLINE int64_t scratch_limit(const Problem& p) {
  const double values = static_cast<double>(p.batch) * static_cast<double>(p.channels) * static_cast<double>(p.height) *
                        static_cast<double>(p.width);
  const double bytes = values * static_cast<double>(sizeof(S));
  return (int64_t{3} << 20) + (bytes < 1e18 ? static_cast<int64_t>(bytes) : int64_t{1} << 60);
}

// The grain size where each thread needs this many bytes of scratch memory: only as many threads as stay below the
// limit get work. Scratch memory is made for the caches, so that the limit is far away unless the input is small or the
// kernel large.
template <class S>
DDF_INLINE int64_t grain_size(const Problem& p, int64_t items, int64_t operations_per_item, int64_t bytes_per_thread) {
  const int64_t threads = max(scratch_limit<S>(p) / max(bytes_per_thread, 1), 1);
  return max(grain_size(operations_per_item), ceil_div(items, threads));
}

// The number of blocks into which a sample is divided to sum the channel filter's gradient, of `values` values: enough
// to keep many threads busy, but few enough that their partial sums stay below the limit. It depends on the shape
// alone, and so do the bits of the result.
template <class S, class T>
DDF_INLINE int64_t most_blocks(const Problem& p, int64_t values) {
  const int64_t batch = max(p.batch, 1);
  return max(min(ceil_div(32, batch), scratch_limit<S>(p) / (batch * values * static_cast<int64_t>(sizeof(T)))), 1);
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

DDF_INLINE int64_t greatest_common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b, b = rest;
  }
  return a;
}

// The taps of a target that read a source inside the map: tap `tap + i * tap_step` reads source `source + i *
// source_step`, for i < count.
struct TapRange {
  int64_t count, tap, tap_step, source, source_step;
};

// For each target along an axis, the taps that read a source inside the map. Forward, targets are filter positions and
// sources are inputs. Transposed (the input's gradient), it is the other way round. Computed for each target anew,
// because a table would be as long as the axis, times the taps.
class Axis {
 public:
  Axis(const AxisGeometry& geometry, bool transposed)
      : g_(geometry),
        transposed_(transposed),
        common_(transposed ? greatest_common_divisor(g_.stride, g_.dilation) : 1),
        tap_step_(transposed ? g_.stride / common_ : 1),
        source_step_(transposed ? -g_.dilation / common_ : g_.dilation) {}

  TapRange taps(int64_t target) const {
    // Forward, tap k reads start + k * dilation. Transposed, it reads (start - k * dilation) / stride, where that is
    // whole.
    const int64_t start = transposed_ ? target + g_.padding : target * g_.stride - g_.padding;
    int64_t first = 0, last = g_.taps - 1;
    if (!transposed_) {
      if (start < 0) first = ceil_div(-start, g_.dilation);
      if (start + last * g_.dilation >= g_.inputs)
        last = start < g_.inputs ? (g_.inputs - 1 - start) / g_.dilation : -1;
    } else {
      const int64_t candidates = min(tap_step_, g_.taps);
      while (first < candidates && (start - first * g_.dilation) % g_.stride != 0) ++first;
      if (first == candidates) return {0, 0, tap_step_, 0, source_step_};
      const int64_t beyond = start - first * g_.dilation - (g_.positions - 1) * g_.stride;
      if (beyond > 0) first += ceil_div(beyond, tap_step_ * g_.dilation) * tap_step_;
      if (start < last * g_.dilation) last = start / g_.dilation;
    }
    if (first > last) return {0, 0, tap_step_, 0, source_step_};
    const int64_t source = transposed_ ? (start - first * g_.dilation) / g_.stride : start + first * g_.dilation;
    return {(last - first) / tap_step_ + 1, first, tap_step_, source, source_step_};
  }

 private:
  const AxisGeometry g_;
  const bool transposed_;
  const int64_t common_, tap_step_, source_step_;
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
