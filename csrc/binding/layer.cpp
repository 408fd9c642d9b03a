// A whole layer in one call, for inference: both filters are predicted from the map and applied to it.

#include "arguments.h"

namespace ddfnet::binding {
namespace {

// A contiguous float tensor of this many values, or null where there is none.
const float* values_of(const OptTensor& tensor, int64_t count, const char* name) {
  if (!tensor) return nullptr;
  STD_TORCH_CHECK(tensor->is_cpu() && tensor->scalar_type() == torch::headeronly::ScalarType::Float &&
                      tensor->is_contiguous() && tensor->numel() == count,
                  name, " must be ", count, " contiguous float32 values on the CPU, got ", shape_of(*tensor));
  return static_cast<const float*>(tensor->const_data_ptr());
}

// `weights` are the weight and bias of the spatial filters' layer, of the channel filters' first and of their second;
// the norms' scales and shifts have one value per tap, the epilogue's one per channel.
Tensor layer(const Tensor input, const std::vector<Tensor> weights, const OptTensor spatial_scale,
             const OptTensor spatial_shift, const OptTensor channel_scale, const OptTensor channel_shift,
             const OptTensor epilogue_scale, const OptTensor epilogue_shift, const Sizes kernel_size,
             const Sizes stride, const Sizes padding, const Sizes dilation, const std::string combine,
             double spatial_gain, double spatial_eps, double channel_gain, double channel_eps, bool relu) {
  const Sizes upscale = {1, 1};
  Problem p = problem_of(input, {kernel_size, stride, padding, dilation, upscale, combine});
  STD_TORCH_CHECK(weights.size() == 6, "weights must be three weights and their biases, got ", weights.size());
  STD_TORCH_CHECK(
      dtype_of(input, "input") == DType::Float32 && p.taps() > 1 && format_of(input) == MemoryFormat::ChannelsLast,
      "the layer takes channels_last float32 maps and filters of two taps or more");
  const int64_t outputs = weights[1].numel();
  p.heads = outputs / p.taps();
  STD_TORCH_CHECK(p.heads > 0 && outputs % p.taps() == 0 && p.channels % p.heads == 0, "the heads must divide the ",
                  p.channels, " channels of input, got ", p.heads);
  STD_TORCH_CHECK((p.grid_height - 1) * p.stride_y < p.height && (p.grid_width - 1) * p.stride_x < p.width,
                  "the spatial filters' pixels must lie in the map");
  p.weight = weight_of(combine, true, true);
  const int64_t width = weights[3].numel(), filters = p.channels * p.taps();
  STD_TORCH_CHECK(epilogue_scale.has_value() == epilogue_shift.has_value(),
                  "epilogue_scale and epilogue_shift must both be given or both be None");
  const Layer l = {
      values_of(weights[0], outputs * p.channels, "spatial weight"),
      values_of(weights[1], outputs, "spatial bias"),
      values_of(weights[2], width * p.channels, "reduce weight"),
      values_of(weights[3], width, "reduce bias"),
      values_of(weights[4], filters * width, "expand weight"),
      values_of(weights[5], filters, "expand bias"),
      width,
      {values_of(spatial_scale, outputs, "spatial scale"), values_of(spatial_shift, outputs, "spatial shift"),
       static_cast<float>(spatial_gain), static_cast<float>(spatial_eps)},
      {values_of(channel_scale, filters, "channel scale"), values_of(channel_shift, filters, "channel shift"),
       static_cast<float>(channel_gain), static_cast<float>(channel_eps)},
      {values_of(epilogue_scale, p.channels, "epilogue scale"), values_of(epilogue_shift, p.channels, "epilogue shift"),
       relu},
  };
  const Tensor output = empty_result(input, output_shape(p));
  call_kernel([&] { current_kernels().layer(p, l, writable(output), parallel_for); });
  return output;
}

}  // namespace
}  // namespace ddfnet::binding

STABLE_TORCH_LIBRARY_FRAGMENT(ddfnet, m) {
  m.def(
      "_layer(Tensor input, Tensor[] weights, Tensor? spatial_scale, Tensor? spatial_shift, Tensor? channel_scale, "
      "Tensor? channel_shift, Tensor? epilogue_scale, Tensor? epilogue_shift, "
      "int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation, str combine, float spatial_gain, "
      "float spatial_eps, float channel_gain, float channel_eps, bool relu) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(ddfnet, CPU, m) {
  m.impl("_layer", TORCH_BOX(&ddfnet::binding::layer));
}
