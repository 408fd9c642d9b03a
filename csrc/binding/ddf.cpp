// The operator ddfnet::ddf and its gradient: schemas, and the kernels for the dispatch key CPU.

#include <tuple>

#include "arguments.h"

namespace ddfnet::binding {
namespace {

void run_forward(const Problem& problem, const Tensor& output, DType dtype) {
  if (problem.batch == 0) return;
  const auto kernel = current_kernels().forward[static_cast<int>(dtype)];
  call_kernel([&] { kernel(problem, writable(output), parallel_for); });
}

Tensor ddf(const Tensor input, const OptTensor channel_filter, const OptTensor spatial_filter, const Sizes kernel_size,
           const Sizes stride, const Sizes padding, const Sizes dilation, const Sizes upscale,
           const std::string combine) {
  const Problem problem =
      problem_of(input, channel_filter, spatial_filter, {kernel_size, stride, padding, dilation, upscale, combine});
  const Tensor output = empty_result(input, output_shape(problem));
  run_forward(problem, output, dtype_of(input, "input"));
  return output;
}

void ddf_out(const Tensor output, const Tensor input, const OptTensor channel_filter, const OptTensor spatial_filter,
             const Sizes kernel_size, const Sizes stride, const Sizes padding, const Sizes dilation,
             const Sizes upscale, const std::string combine) {
  const Problem problem =
      problem_of(input, channel_filter, spatial_filter, {kernel_size, stride, padding, dilation, upscale, combine});
  const DType dtype = dtype_of(input, "input");
  check_shape(output, output_shape(problem), dtype, "output");
  run_forward(problem, output, dtype);
}

Problem backward_problem_of(const Tensor& grad_output, const Tensor& input, const OptTensor& channel_filter,
                            const OptTensor& spatial_filter, const Geometry& geometry) {
  const Problem problem = problem_of(input, channel_filter, spatial_filter, geometry);
  check_shape(grad_output, output_shape(problem), dtype_of(input, "input"), "grad_output");
  return problem;
}

// Writes the gradients that are there.
void run_backward(const Problem& problem, const Tensor& grad_output, const OptTensor& grad_input,
                  const OptTensor& grad_channel, const OptTensor& grad_spatial) {
  if (problem.batch == 0) return;
  const auto kernel = current_kernels().backward[static_cast<int>(dtype_of(grad_output, "grad_output"))];
  const Gradients gradients = {writable(grad_input), writable(grad_channel), writable(grad_spatial)};
  call_kernel([&] { kernel(problem, readable(grad_output), gradients, parallel_for); });
}

// A gradient that output_mask does not ask for is an empty tensor. The output's gradient is copied only where its
// memory format is not the input's, such as that of a sum, which has one value for all pixels.
std::tuple<Tensor, Tensor, Tensor> ddf_backward(const Tensor grad_output, const Tensor input,
                                                const OptTensor channel_filter, const OptTensor spatial_filter,
                                                const Sizes kernel_size, const Sizes stride, const Sizes padding,
                                                const Sizes dilation, const Sizes upscale, const std::string combine,
                                                const std::vector<bool> output_mask) {
  const Problem problem = backward_problem_of(grad_output, input, channel_filter, spatial_filter,
                                              {kernel_size, stride, padding, dilation, upscale, combine});
  STD_TORCH_CHECK(output_mask.size() == 3, "output_mask must have 3 values, got ", output_mask.size());
  const auto gradient = [](const OptTensor& tensor, bool wanted) -> OptTensor {
    if (!wanted || !tensor) return std::nullopt;
    return empty_result(*tensor, sizes_of(*tensor));
  };
  const OptTensor grad_input = gradient(input, output_mask[0]);
  const OptTensor grad_channel = gradient(channel_filter, output_mask[1]);
  const OptTensor grad_spatial = gradient(spatial_filter, output_mask[2]);
  run_backward(problem, in_format(grad_output, format_of(input)), grad_input, grad_channel, grad_spatial);
  const auto or_empty = [&](const OptTensor& tensor) {
    return tensor ? *tensor : torch::stable::empty({0}, input.scalar_type());
  };
  return {or_empty(grad_input), or_empty(grad_channel), or_empty(grad_spatial)};
}

void ddf_backward_out(const OptTensor grad_input, const OptTensor grad_channel, const OptTensor grad_spatial,
                      const Tensor grad_output, const Tensor input, const OptTensor channel_filter,
                      const OptTensor spatial_filter, const Sizes kernel_size, const Sizes stride, const Sizes padding,
                      const Sizes dilation, const Sizes upscale, const std::string combine) {
  const Problem problem = backward_problem_of(grad_output, input, channel_filter, spatial_filter,
                                              {kernel_size, stride, padding, dilation, upscale, combine});
  const auto check_like = [&](const OptTensor& gradient, const OptTensor& like, const char* name) {
    if (!gradient) return;
    STD_TORCH_CHECK(like.has_value(), name, " must be None where its tensor is");
    check_shape(*gradient, sizes_of(*like), dtype_of(input, "input"), name);
  };
  check_like(grad_input, input, "grad_input");
  check_like(grad_channel, channel_filter, "grad_channel");
  check_like(grad_spatial, spatial_filter, "grad_spatial");
  run_backward(problem, grad_output, grad_input, grad_channel, grad_spatial);
}

}  // namespace
}  // namespace ddfnet::binding

#define DDF_FILTERS_SCHEMA "Tensor? channel_filter, Tensor? spatial_filter, "

// The schemas of ddfnet.ops.registration, which defines them where this library is missing. Those with an underscore
// write into given memory, for tests.
STABLE_TORCH_LIBRARY_FRAGMENT(ddfnet, m) {
  m.def("ddf(Tensor input, " DDF_FILTERS_SCHEMA DDF_GEOMETRY_SCHEMA ") -> Tensor");
  m.def("ddf_backward(Tensor grad_output, Tensor input, " DDF_FILTERS_SCHEMA DDF_GEOMETRY_SCHEMA
        ", bool[3] output_mask) -> (Tensor, Tensor, Tensor)");
  m.def("_ddf_out(Tensor(a!) output, Tensor input, " DDF_FILTERS_SCHEMA DDF_GEOMETRY_SCHEMA ") -> ()");
  m.def(
      "_ddf_backward_out(Tensor(a!)? grad_input, Tensor(b!)? grad_channel, Tensor(c!)? grad_spatial, "
      "Tensor grad_output, Tensor input, " DDF_FILTERS_SCHEMA DDF_GEOMETRY_SCHEMA ") -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(ddfnet, CPU, m) {
  m.impl("ddf", TORCH_BOX(&ddfnet::binding::ddf));
  m.impl("ddf_backward", TORCH_BOX(&ddfnet::binding::ddf_backward));
  m.impl("_ddf_out", TORCH_BOX(&ddfnet::binding::ddf_out));
  m.impl("_ddf_backward_out", TORCH_BOX(&ddfnet::binding::ddf_backward_out));
}
