#include "arguments.h"

#include <algorithm>
#include <initializer_list>
#include <limits>
#include <tuple>
#include <utility>

namespace ddfnet::binding {
namespace {

constexpr int64_t kLargest = (int64_t{1} << 31) - 1;  // products of two such numbers stay within 64 bits
constexpr int64_t kNone = std::numeric_limits<int64_t>::max();

// The product of two sizes; one that no tensor has where it is out of range.
int64_t product(int64_t a, int64_t b) {
  int64_t result;
  return __builtin_mul_overflow(a, b, &result) ? kNone : result;
}

// Raises where a tensor has so many values that products of its sizes, in bytes, leave 64 bits. A size of 0 counts as
// 1: the other sizes of an empty tensor are not bounded by any memory.
void check_size(std::initializer_list<int64_t> sizes, const char* name) {
  int64_t values = 1;
  for (const int64_t size : sizes) values = product(values, std::max<int64_t>(size, 1));
  STD_TORCH_CHECK(values <= kNone / 64, name, " would be too large: ", ShapeText{sizes}, "; use smaller sizes");
}

std::pair<int64_t, int64_t> pair_of(const Sizes& sizes, int64_t least, const char* name) {
  STD_TORCH_CHECK(sizes.size() == 2, name, " must be an int or (h, w), got ", ShapeText{sizes});
  for (const int64_t size : sizes) {
    STD_TORCH_CHECK(size >= least, name, " must be at least ", least, ", got ", ShapeText{sizes});
    STD_TORCH_CHECK(size <= kLargest, name, " must be at most ", kLargest, ", got ", ShapeText{sizes});
  }
  return {sizes[0], sizes[1]};
}

void check_device(const Tensor& tensor, const char* name) {
  STD_TORCH_CHECK(tensor.is_cpu(), "input and filters must be on one device, got input on cpu and ", name,
                  " elsewhere; move them with .to(device)");
}

}  // namespace

Weight weight_of(const std::string& combine, bool channel, bool spatial) {
  const bool multiplies = combine == "mul", adds = combine == "add";
  STD_TORCH_CHECK(multiplies || adds, "combine must be 'mul' or 'add', got '", combine, "'");
  if (!spatial) return Weight::Channel;
  if (!channel) return Weight::Spatial;
  return multiplies ? Weight::Product : Weight::Sum;
}

void check_shape(const Tensor& tensor, const Sizes& shape, DType dtype, const char* name) {
  check_device(tensor, name);
  STD_TORCH_CHECK(dtype_of(tensor, name) == dtype, "input and ", name,
                  " must have one dtype; cast them with .to(dtype)");
  STD_TORCH_CHECK(sizes_of(tensor) == shape, name, " must be ", ShapeText{shape}, ", got ", shape_of(tensor));
}

Problem problem_of(const Tensor& input, const Geometry& geometry) {
  STD_TORCH_CHECK(input.dim() == 4, "input must be (N, C, H, W), got ", shape_of(input),
                  "; add a batch dimension with unsqueeze(0)");
  Problem p{};
  p.batch = input.size(0), p.channels = input.size(1), p.height = input.size(2), p.width = input.size(3);
  STD_TORCH_CHECK(p.channels > 0, "input must have at least one channel, got (N, C, H, W) = ", shape_of(input));
  std::tie(p.kernel_y, p.kernel_x) = pair_of(geometry.kernel_size, 1, "kernel_size");
  std::tie(p.stride_y, p.stride_x) = pair_of(geometry.stride, 1, "stride");
  std::tie(p.padding_y, p.padding_x) = pair_of(geometry.padding, 0, "padding");
  std::tie(p.dilation_y, p.dilation_x) = pair_of(geometry.dilation, 1, "dilation");
  std::tie(p.upscale_y, p.upscale_x) = pair_of(geometry.upscale, 1, "upscale");
  const int64_t free_y = p.height + 2 * p.padding_y - p.dilation_y * (p.kernel_y - 1) - 1;
  const int64_t free_x = p.width + 2 * p.padding_x - p.dilation_x * (p.kernel_x - 1) - 1;
  STD_TORCH_CHECK(p.height > 0 && p.width > 0 && free_y >= 0 && free_x >= 0,
                  "the output would be empty: input is (H, W) = ", ShapeText{{p.height, p.width}},
                  " and kernel_size=", ShapeText{geometry.kernel_size}, " with dilation=", ShapeText{geometry.dilation},
                  ", padding=", ShapeText{geometry.padding}, ", stride=", ShapeText{geometry.stride},
                  " does not fit in it; use a larger map or more padding");
  p.grid_height = free_y / p.stride_y + 1;
  p.grid_width = free_x / p.stride_x + 1;
  check_size({p.batch, p.channels, p.height, p.width}, "the input");
  check_size({p.batch, p.channels, product(p.grid_height, p.upscale_y), product(p.grid_width, p.upscale_x)},
             "the output");
  check_size({p.batch, product(p.upscale_y, p.upscale_x), p.channels, p.kernel_y, p.kernel_x}, "the channel filter");
  p.heads = 1;
  p.input = readable(input);
  return p;
}

Problem problem_of(const Tensor& input, const OptTensor& channel_filter, const OptTensor& spatial_filter,
                   const Geometry& geometry) {
  STD_TORCH_CHECK(channel_filter || spatial_filter,
                  "channel_filter and spatial_filter must not both be None: give at least one of them");
  Problem p = problem_of(input, geometry);
  p.weight = weight_of(geometry.combine, channel_filter.has_value(), spatial_filter.has_value());
  const DType dtype = dtype_of(input, "input");
  if (channel_filter) {
    const int64_t filters = product(product(p.upscale_y, p.upscale_x), p.channels);
    check_shape(*channel_filter, {p.batch, filters, p.kernel_y, p.kernel_x}, dtype, "channel_filter");
  }
  if (spatial_filter) {
    STD_TORCH_CHECK(spatial_filter->dim() == 4, "spatial_filter must be (N, G*kH*kW, Ho, Wo), got ",
                    shape_of(*spatial_filter));
    const int64_t unit = product(product(p.upscale_y, p.upscale_x), p.taps()), taps = spatial_filter->size(1);
    STD_TORCH_CHECK(taps >= unit && taps % unit == 0,
                    "spatial_filter must be (N, G*kH*kW, Ho, Wo), its channels a multiple of kH*kW = ", unit, ", got ",
                    shape_of(*spatial_filter));
    p.heads = taps / unit;
    STD_TORCH_CHECK(p.channels % p.heads == 0, "the heads of spatial_filter must divide the ", p.channels,
                    " channels of input, got ", p.heads, " of ", shape_of(*spatial_filter));
    check_size({p.batch, taps, p.grid_height, p.grid_width}, "the spatial filter");
    check_shape(*spatial_filter, {p.batch, taps, p.grid_height, p.grid_width}, dtype, "spatial_filter");
  }
  p.channel_filter = readable(channel_filter);
  p.spatial_filter = readable(spatial_filter);
  return p;
}

Sizes output_shape(const Problem& p) {
  return {p.batch, p.channels, product(p.grid_height, p.upscale_y), product(p.grid_width, p.upscale_x)};
}

}  // namespace ddfnet::binding
