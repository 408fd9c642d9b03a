// One call of the operator as the kernels see it: sizes, strides and pointers. Independent of torch.
#pragma once

#include <cstdint>

namespace ddfnet {

// Storage types of half precision, as bits: the arithmetic is done in float.
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

enum class DType { Float32, Float64, BFloat16, Half };

// The weight of a tap: the product or the sum of the two filters' taps, or the tap of the only filter.
enum class Weight { Product, Sum, Channel, Spatial };

// A 4-dimensional array with strides in elements. The dimensions of maps and of the spatial filter are (n, channel,
// row, column), those of the channel filter (n, channel, tap row, tap column). `data` is null where the array is
// missing.
template <class Pointer>
struct StridedArray {
  Pointer data = nullptr;
  int64_t stride[4] = {0, 0, 0, 0};
};
using Array = StridedArray<void*>;
using ConstArray = StridedArray<const void*>;

struct Problem {
  int64_t batch, channels, heads;
  int64_t height, width;            // input size
  int64_t grid_height, grid_width;  // filter positions; the output has upscale times as many pixels along each axis
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

// The epilogue of each output value: value * scale + shift of its channel, then ReLU.
struct Epilogue {
  const float* scale = nullptr;  // one value per channel; scale and shift are both there or both null
  const float* shift = nullptr;
  bool relu = false;
};

// The scale and the shift of FilterNorm, one value per tap. A null scale is `gain` for all taps, a null shift is zero.
template <class T>
struct Norm {
  const T* scale;
  const T* shift;
  T gain, eps;
};

// Filters to be normalised, (batch, filters * taps, pixels). `scale` and `shift` are of the type in which the filters
// are computed: double for double, else float.
struct FilterNorm {
  int64_t batch, filters, taps, pixels;
  const void* scale;
  const void* shift;
  double gain, eps;
};

// A layer that predicts both filters from its channels_last map, in float. Weights are row-major: (outputs, inputs).
struct Layer {
  const float *spatial_weight, *spatial_bias;  // (heads * taps, channels)
  const float *reduce_weight, *reduce_bias;    // (width, channels)
  const float *expand_weight, *expand_bias;    // (channels * taps, width)
  int64_t width;
  Norm<float> spatial_norm, channel_norm;
  Epilogue epilogue;
};

// Runs body(context, begin, end) over disjoint parts of [0, count), `grain_size` or more at a time, on the threads of
// the caller.
using ParallelFor = void (*)(int64_t count, int64_t grain_size, void (*body)(void* context, int64_t begin, int64_t end),
                             void* context);

// The kernels of one instruction set, indexed by DType. Forward writes the output. Backward writes the gradients whose
// data is not null.
struct Kernels {
  using Forward = void (*)(const Problem&, const Array& output, ParallelFor);
  using Backward = void (*)(const Problem&, const ConstArray& grad_output, const Gradients&, ParallelFor);
  const char* name;
  Forward forward[4];
  Backward backward[4];
  // Predicts both filters of a problem that comes without them, and applies them.
  void (*layer)(const Problem&, const Layer&, const Array& output, ParallelFor);
  // FilterNorm. The strides of its arrays are those of (sample, filters * taps, pixel); the fourth is not read.
  // Backward writes the gradients whose data is not null: that of the filters, and the products of the output's
  // gradient and the normalised filters, whose sum over samples and pixels is the scale's.
  using Normalise = void (*)(const FilterNorm&, const ConstArray& filters, const Array& output, ParallelFor);
  using NormaliseBackward = void (*)(const FilterNorm&, const ConstArray& grad_output, const ConstArray& filters,
                                     const Array& grad_filters, const Array& products, ParallelFor);
  Normalise filter_norm[4];
  NormaliseBackward filter_norm_backward[4];
};

}  // namespace ddfnet
