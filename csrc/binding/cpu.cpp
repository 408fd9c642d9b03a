// Hands torch's tensors to the kernels. Written against LibTorch's stable ABI, so that one build serves every torch
// from 2.10 on. Shapes were checked by the public Python functions; what is checked here protects memory alone.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <atomic>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../kernels/dispatch.h"

namespace {

using torch::headeronly::MemoryFormat;
using torch::stable::Tensor;
using Sizes = std::vector<int64_t>;

std::atomic<const ddfnet::Kernels*>& kernels() {
  static std::atomic<const ddfnet::Kernels*> current{ddfnet::chosen_kernels()};
  return current;
}

void parallel_for(int64_t count, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
  torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) { body(context, begin, end); });
}

ddfnet::DType dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case torch::headeronly::ScalarType::Float:
      return ddfnet::DType::Float32;
    case torch::headeronly::ScalarType::Double:
      return ddfnet::DType::Float64;
    case torch::headeronly::ScalarType::BFloat16:
      return ddfnet::DType::BFloat16;
    case torch::headeronly::ScalarType::Half:
      return ddfnet::DType::Half;
    default:
      STD_TORCH_CHECK(false, "ddfnet_cpu: dtype must be float32, float64, bfloat16 or float16");
  }
}

template <class Array, class Pointer>
Array array_of(const Tensor& tensor, Pointer data) {
  STD_TORCH_CHECK(tensor.dim() == 4, "ddfnet_cpu: tensors must have 4 dimensions, got ", tensor.dim());
  Array array;
  array.data = data;
  for (int i = 0; i < 4; ++i) array.stride[i] = tensor.stride(i);
  return array;
}

ddfnet::ConstArray readable(const std::optional<Tensor>& tensor) {
  return tensor ? array_of<ddfnet::ConstArray>(*tensor, tensor->const_data_ptr()) : ddfnet::ConstArray{};
}

ddfnet::Array writable(const std::optional<Tensor>& tensor) {
  return tensor ? array_of<ddfnet::Array>(*tensor, tensor->mutable_data_ptr()) : ddfnet::Array{};
}

void check_shape(const std::optional<Tensor>& tensor, const Sizes& shape, ddfnet::DType dtype, const char* name) {
  if (!tensor) return;
  bool fits = tensor->dim() == 4 && dtype_of(*tensor) == dtype;
  for (int i = 0; fits && i < 4; ++i) fits = tensor->size(i) == shape[i];
  STD_TORCH_CHECK(fits, "ddfnet_cpu: ", name, " has a wrong shape or dtype");
}

ddfnet::Weight weight_of(bool channel, bool spatial, const std::string& combine) {
  STD_TORCH_CHECK(channel || spatial, "ddfnet_cpu: a filter is required");
  if (!spatial) return ddfnet::Weight::Channel;
  if (!channel) return ddfnet::Weight::Spatial;
  return combine == "add" ? ddfnet::Weight::Sum : ddfnet::Weight::Product;
}

// What a call is made of besides its tensors. Python asks for one by its number: to hand over five lists and a string
// anew in each call takes longer than the kernel on a small map.
struct Geometry {
  Sizes kernel_size, stride, padding, dilation, upscale;
  std::string combine;
};

class Geometries {
 public:
  int64_t add(Geometry geometry) {
    const std::lock_guard<std::mutex> lock(mutex_);
    all_.push_back(std::move(geometry));
    return static_cast<int64_t>(all_.size()) - 1;
  }
  const Geometry& get(int64_t number) {
    const std::lock_guard<std::mutex> lock(mutex_);
    STD_TORCH_CHECK(number >= 0 && number < static_cast<int64_t>(all_.size()), "ddfnet_cpu: no geometry ", number);
    return all_[static_cast<size_t>(number)];  // a deque moves nothing when it grows
  }

 private:
  std::mutex mutex_;
  std::deque<Geometry> all_;
};

Geometries& geometries() {
  static Geometries all;
  return all;
}

int64_t geometry(const Sizes kernel_size, const Sizes stride, const Sizes padding, const Sizes dilation,
                 const Sizes upscale, const std::string combine) {
  for (const Sizes* sizes : {&kernel_size, &stride, &padding, &dilation, &upscale}) {
    STD_TORCH_CHECK(sizes->size() == 2, "ddfnet_cpu: sizes must be pairs");
    for (int64_t size : *sizes) {
      STD_TORCH_CHECK(size >= (sizes == &padding ? 0 : 1) && size < int64_t{1} << 31, "ddfnet_cpu: a size of ", size);
    }
  }
  return geometries().add({kernel_size, stride, padding, dilation, upscale, combine});
}

// What is known of a call without its filters.
ddfnet::Problem problem_of(const Tensor& input, const Geometry& geometry) {
  STD_TORCH_CHECK(input.dim() == 4, "ddfnet_cpu: input must have 4 dimensions");
  ddfnet::Problem p{};
  p.batch = input.size(0);
  p.channels = input.size(1);
  p.height = input.size(2);
  p.width = input.size(3);
  p.kernel_y = geometry.kernel_size[0], p.kernel_x = geometry.kernel_size[1];
  p.stride_y = geometry.stride[0], p.stride_x = geometry.stride[1];
  p.padding_y = geometry.padding[0], p.padding_x = geometry.padding[1];
  p.dilation_y = geometry.dilation[0], p.dilation_x = geometry.dilation[1];
  p.upscale_y = geometry.upscale[0], p.upscale_x = geometry.upscale[1];
  p.grid_height = (p.height + 2 * p.padding_y - p.dilation_y * (p.kernel_y - 1) - 1) / p.stride_y + 1;
  p.grid_width = (p.width + 2 * p.padding_x - p.dilation_x * (p.kernel_x - 1) - 1) / p.stride_x + 1;
  p.heads = 1;
  p.input = readable(input);
  return p;
}

ddfnet::Problem problem_of(const Tensor& input, const std::optional<Tensor>& channel_filter,
                           const std::optional<Tensor>& spatial_filter, const Geometry& geometry) {
  ddfnet::Problem p = problem_of(input, geometry);
  p.weight = weight_of(channel_filter.has_value(), spatial_filter.has_value(), geometry.combine);
  if (spatial_filter) p.heads = spatial_filter->size(1) / (p.subpixels() * p.taps());
  STD_TORCH_CHECK(p.heads > 0 && p.channels % p.heads == 0, "ddfnet_cpu: the heads must divide the channels");
  const ddfnet::DType dtype = dtype_of(input);
  check_shape(channel_filter, {p.batch, p.subpixels() * p.channels, p.kernel_y, p.kernel_x}, dtype, "channel_filter");
  check_shape(spatial_filter, {p.batch, p.subpixels() * p.heads * p.taps(), p.grid_height, p.grid_width}, dtype,
              "spatial_filter");
  p.channel_filter = readable(channel_filter);
  p.spatial_filter = readable(spatial_filter);
  return p;
}

Sizes output_shape(const ddfnet::Problem& p) {
  return {p.batch, p.channels, p.grid_height * p.upscale_y, p.grid_width * p.upscale_x};
}

// Whether the dimensions lie in this order, as torch decides it: those of size 1 may have any stride.
bool lies_in_order(const Tensor& tensor, const int (&order)[4]) {
  int64_t expected = 1;
  for (int i = 3; i >= 0; --i) {
    const int64_t size = tensor.size(order[i]);
    if (size == 1) continue;
    if (tensor.stride(order[i]) != expected) return false;
    expected *= size;
  }
  return true;
}

// The format of results for this tensor, and of the gradient that goes with them: ddfnet.ops.shapes.is_channels_last.
MemoryFormat format_of(const Tensor& tensor) {
  const bool empty = tensor.numel() == 0;
  const bool channels_last = !empty && lies_in_order(tensor, {0, 2, 3, 1}) && !lies_in_order(tensor, {0, 1, 2, 3});
  return channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

Tensor in_format(const Tensor& tensor, MemoryFormat format) {
  const bool fits =
      format == MemoryFormat::ChannelsLast ? lies_in_order(tensor, {0, 2, 3, 1}) : lies_in_order(tensor, {0, 1, 2, 3});
  return fits ? tensor : torch::stable::contiguous(tensor, format);
}

// A large result is fresh memory, which the system zeroes page by page as it is first written: for a map of 117 MiB
// this takes three times as long as to filter it. Where huge pages are for those who ask, 2 MiB a fault bring most of
// that back. From 32 MiB on the C library maps each allocation by itself, so that the wish concerns nobody else's
// memory.
void prefer_huge_pages([[maybe_unused]] const Tensor& tensor) {
#if defined(__linux__)
  constexpr uintptr_t least = uintptr_t{1} << 25, page = 4096;
  const uintptr_t bytes = static_cast<uintptr_t>(tensor.numel()) * tensor.element_size();
  if (bytes < least) return;
  const uintptr_t address = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr());
  const uintptr_t begin = (address + page - 1) / page * page, end = (address + bytes) / page * page;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // nothing depends on its being granted
#endif
}

Tensor empty_result(const Tensor& like, const Sizes& shape) {
  Tensor result =
      torch::stable::empty(shape, like.scalar_type(), std::nullopt, std::nullopt, std::nullopt, format_of(like));
  prefer_huge_pages(result);
  return result;
}

const ddfnet::Kernels& current_kernels() {
  const ddfnet::Kernels* current = kernels().load();
  STD_TORCH_CHECK(current != nullptr, "ddfnet_cpu: the instruction set that DDFNET_CPU_ISA asks for is not supported");
  return *current;
}

void run_forward(const ddfnet::Problem& problem, const Tensor& output) {
  const ddfnet::DType dtype = dtype_of(output);
  check_shape(output, output_shape(problem), dtype, "output");
  current_kernels().forward[static_cast<int>(dtype)](problem, writable(output), parallel_for);
}

Tensor forward(const Tensor input, const std::optional<Tensor> channel_filter,
               const std::optional<Tensor> spatial_filter, int64_t geometry) {
  const ddfnet::Problem problem = problem_of(input, channel_filter, spatial_filter, geometries().get(geometry));
  Tensor output = empty_result(input, output_shape(problem));
  run_forward(problem, output);
  return output;
}

void forward_out(const Tensor output, const Tensor input, const std::optional<Tensor> channel_filter,
                 const std::optional<Tensor> spatial_filter, int64_t geometry) {
  STD_TORCH_CHECK(dtype_of(output) == dtype_of(input), "ddfnet_cpu: output has a wrong dtype");
  run_forward(problem_of(input, channel_filter, spatial_filter, geometries().get(geometry)), output);
}

void backward_out(const std::optional<Tensor> grad_input, const std::optional<Tensor> grad_channel,
                  const std::optional<Tensor> grad_spatial, const Tensor grad_output, const Tensor input,
                  const std::optional<Tensor> channel_filter, const std::optional<Tensor> spatial_filter,
                  int64_t geometry) {
  const ddfnet::Problem problem = problem_of(input, channel_filter, spatial_filter, geometries().get(geometry));
  const ddfnet::DType dtype = dtype_of(input);
  check_shape(grad_output, output_shape(problem), dtype, "grad_output");
  auto check_like = [&](const std::optional<Tensor>& gradient, const std::optional<Tensor>& like, const char* name) {
    if (!gradient) return;
    STD_TORCH_CHECK(like.has_value(), "ddfnet_cpu: ", name, " is of a missing tensor");
    check_shape(gradient, {like->size(0), like->size(1), like->size(2), like->size(3)}, dtype, name);
  };
  check_like(grad_input, input, "grad_input");
  check_like(grad_channel, channel_filter, "grad_channel");
  check_like(grad_spatial, spatial_filter, "grad_spatial");
  const auto kernel = current_kernels().backward[static_cast<int>(dtype)];
  kernel(problem, readable(grad_output), {writable(grad_input), writable(grad_channel), writable(grad_spatial)},
         parallel_for);
}

// A gradient that is not wanted is an empty tensor. The output's gradient is copied only where it comes with another
// layout than the map's, as that of a sum does with one value for all pixels.
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor grad_output, const Tensor input,
                                            const std::optional<Tensor> channel_filter,
                                            const std::optional<Tensor> spatial_filter, int64_t geometry,
                                            bool wants_input, bool wants_channel, bool wants_spatial) {
  auto gradient = [&](const std::optional<Tensor>& tensor, bool wanted) -> std::optional<Tensor> {
    if (!wanted || !tensor) return std::nullopt;
    return empty_result(*tensor, {tensor->size(0), tensor->size(1), tensor->size(2), tensor->size(3)});
  };
  const std::optional<Tensor> grad_input = gradient(input, wants_input);
  const std::optional<Tensor> grad_channel = gradient(channel_filter, wants_channel);
  const std::optional<Tensor> grad_spatial = gradient(spatial_filter, wants_spatial);
  backward_out(grad_input, grad_channel, grad_spatial, in_format(grad_output, format_of(input)), input, channel_filter,
               spatial_filter, geometry);
  auto or_empty = [&](const std::optional<Tensor>& tensor) {
    return tensor ? *tensor : torch::stable::empty({0}, input.scalar_type());
  };
  return {or_empty(grad_input), or_empty(grad_channel), or_empty(grad_spatial)};
}

// A float tensor of this many values side by side, or null where there is none.
const float* values_of(const std::optional<Tensor>& tensor, int64_t count, const char* name) {
  if (!tensor) return nullptr;
  STD_TORCH_CHECK(tensor->scalar_type() == torch::headeronly::ScalarType::Float && tensor->is_contiguous() &&
                      tensor->numel() == count,
                  "ddfnet_cpu: ", name, " must be ", count, " floats side by side");
  return static_cast<const float*>(tensor->const_data_ptr());
}

// Predicts both filters from a channels_last float map and filters it with them. `weights` are the weight and bias of
// the spatial filters' layer, of the channel filters' first and of their second; `norms` the scale and shift of the
// spatial filters' norm and of the channel filters'; `after` a scale and a shift a channel.
Tensor layer(const Tensor input, const std::vector<Tensor> weights, const std::optional<Tensor> spatial_scale,
             const std::optional<Tensor> spatial_shift, const std::optional<Tensor> channel_scale,
             const std::optional<Tensor> channel_shift, const std::optional<Tensor> after_scale,
             const std::optional<Tensor> after_shift, int64_t geometry, double spatial_gain, double spatial_eps,
             double channel_gain, double channel_eps, bool relu) {
  const Geometry& options = geometries().get(geometry);
  ddfnet::Problem p = problem_of(input, options);
  STD_TORCH_CHECK(weights.size() == 6, "ddfnet_cpu: three weights and their biases are needed");
  STD_TORCH_CHECK(dtype_of(input) == ddfnet::DType::Float32 && p.subpixels() == 1 && p.taps() > 1 &&
                      format_of(input) == MemoryFormat::ChannelsLast,
                  "ddfnet_cpu: the layer takes channels_last float maps and filters of two taps or more");
  const int64_t outputs = weights[1].numel();
  p.heads = outputs / p.taps();
  STD_TORCH_CHECK(p.heads > 0 && outputs % p.taps() == 0 && p.channels % p.heads == 0,
                  "ddfnet_cpu: the heads must divide the channels");
  STD_TORCH_CHECK((p.grid_height - 1) * p.stride_y < p.height && (p.grid_width - 1) * p.stride_x < p.width,
                  "ddfnet_cpu: the spatial filters' pixels must lie in the map");
  p.weight = options.combine == "add" ? ddfnet::Weight::Sum : ddfnet::Weight::Product;
  const int64_t width = weights[3].numel(), filters = p.channels * p.taps();
  STD_TORCH_CHECK(after_scale.has_value() == after_shift.has_value(), "ddfnet_cpu: a scale and a shift, or neither");
  const ddfnet::Layer l = {
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
      {values_of(after_scale, p.channels, "scale"), values_of(after_shift, p.channels, "shift"), relu},
  };
  const Tensor output = empty_result(input, output_shape(p));
  current_kernels().layer(p, l, writable(output), parallel_for);
  return output;
}

// The instruction set in use; empty where DDFNET_CPU_ISA asks for one that is not supported.
std::string isa() {
  const ddfnet::Kernels* current = kernels().load();
  return current == nullptr ? "" : current->name;
}

// The instruction sets that run here, best first, separated by commas: the stable ABI has no list of strings.
std::string isas() {
  std::string names;
  for (const ddfnet::Kernels* kernels : ddfnet::supported_kernels()) {
    names += (names.empty() ? "" : ",") + std::string(kernels->name);
  }
  return names;
}

// Uses another instruction set from here on, for tests and measurements; false where it is not supported.
bool set_isa(const std::string name) {
  const ddfnet::Kernels* found = ddfnet::find_kernels(name.c_str());
  if (found != nullptr) kernels().store(found);
  return found != nullptr;
}

}  // namespace

STABLE_TORCH_LIBRARY(ddfnet_cpu, m) {
  m.def("geometry(int[] kernel_size, int[] stride, int[] padding, int[] dilation, int[] upscale, str combine) -> int");
  m.def("forward(Tensor input, Tensor? channel_filter, Tensor? spatial_filter, int geometry) -> Tensor");
  m.def(
      "forward_out(Tensor(a!) output, Tensor input, Tensor? channel_filter, Tensor? spatial_filter, int geometry) "
      "-> ()");
  m.def(
      "backward(Tensor grad_output, Tensor input, Tensor? channel_filter, Tensor? spatial_filter, int geometry, "
      "bool wants_input, bool wants_channel, bool wants_spatial) -> (Tensor, Tensor, Tensor)");
  m.def(
      "backward_out(Tensor(a!)? grad_input, Tensor(b!)? grad_channel, Tensor(c!)? grad_spatial, Tensor grad_output, "
      "Tensor input, Tensor? channel_filter, Tensor? spatial_filter, int geometry) -> ()");
  m.def(
      "layer(Tensor input, Tensor[] weights, Tensor? spatial_scale, Tensor? spatial_shift, Tensor? channel_scale, "
      "Tensor? channel_shift, Tensor? after_scale, Tensor? after_shift, int geometry, float spatial_gain, "
      "float spatial_eps, float channel_gain, float channel_eps, bool relu) -> Tensor");
  m.def("isa() -> str");
  m.def("isas() -> str");
  m.def("set_isa(str name) -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(ddfnet_cpu, CPU, m) {
  m.impl("layer", TORCH_BOX(&layer));
  m.impl("forward", TORCH_BOX(&forward));
  m.impl("forward_out", TORCH_BOX(&forward_out));
  m.impl("backward", TORCH_BOX(&backward));
  m.impl("backward_out", TORCH_BOX(&backward_out));
}

STABLE_TORCH_LIBRARY_IMPL(ddfnet_cpu, CompositeExplicitAutograd, m) {
  m.impl("geometry", TORCH_BOX(&geometry));
  m.impl("isa", TORCH_BOX(&isa));
  m.impl("isas", TORCH_BOX(&isas));
  m.impl("set_isa", TORCH_BOX(&set_isa));
}
