// One call of the operator as the kernels see it: sizes, strides, pointers. Nothing here knows of torch.
#pragma once

#include <cstdint>

namespace ddfnet {

// Storage types of half precision: bits only, the arithmetic is done in float.
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

enum class DType { Float32, Float64, BFloat16, Half };

// How a tap's weight is made of the channel filter's tap c and the spatial filter's tap s.
enum class Weight { Product, Sum, Channel, Spatial };

// A 4-dimensional array with strides in elements. The dimensions of maps and of the spatial filter are (n, channel,
// row, column), those of the channel filter (n, channel, tap row, tap column). `data` is null where the array is
// missing.
template <class Pointer>
struct ArrayOf {
  Pointer data = nullptr;
  int64_t stride[4] = {0, 0, 0, 0};
};
using Array = ArrayOf<void*>;
using ConstArray = ArrayOf<const void*>;

struct Problem {
  int64_t batch, channels, heads;
  int64_t height, width;            // of the input
  int64_t grid_height, grid_width;  // filter positions; the output has upscale times as many pixels each way
  int64_t kernel_y, kernel_x, stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x, upscale_y, upscale_x;
  Weight weight;
  ConstArray input, channel_filter, spatial_filter;

  int64_t taps() const { return kernel_y * kernel_x; }
  int64_t subpixels() const { return upscale_y * upscale_x; }
  int64_t head_channels() const { return channels / heads; }
};

struct Gradients {
  Array input, channel_filter, spatial_filter;
};

// What follows the sum of a result: sum * scale + shift of its channel, then the positive part where `relu` says so.
struct After {
  const float* scale = nullptr;  // a value a channel, shift too; both or neither
  const float* shift = nullptr;
  bool relu = false;
};

// How predicted filters are normalised: FilterNorm's scale and shift, a value a tap or, where null, `gain` and none.
struct Norm {
  const float* scale;
  const float* shift;
  float gain, eps;
};

// A layer that predicts both filters from its channels_last map, in float. Weights lie row by row: (outputs, inputs).
struct Layer {
  const float *spatial_weight, *spatial_bias;  // (heads * taps, channels)
  const float *reduce_weight, *reduce_bias;    // (width, channels)
  const float *expand_weight, *expand_bias;    // (channels * taps, width)
  int64_t width;
  Norm spatial_norm, channel_norm;
  After after;
};

// Runs body(context, begin, end) over disjoint parts of [0, count), `grain` or more at a time, on the caller's threads.
using ParallelFor = void (*)(int64_t count, int64_t grain, void (*body)(void* context, int64_t begin, int64_t end),
                             void* context);

// The kernels of one instruction set, by dtype. Forward writes the output; backward writes the gradients that are
// there.
struct Kernels {
  using Forward = void (*)(const Problem&, const Array& output, ParallelFor);
  using Backward = void (*)(const Problem&, const ConstArray& grad_output, const Gradients&, ParallelFor);
  const char* name;
  Forward forward[4];
  Backward backward[4];
  // Predicts the filters of a problem that comes without them, and filters with both.
  void (*layer)(const Problem&, const Layer&, const Array& output, ParallelFor);
};

}  // namespace ddfnet
