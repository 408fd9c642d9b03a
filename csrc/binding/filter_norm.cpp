// FilterNorm of predicted filters, and its gradient.

#include <string>
#include <tuple>

#include "tensors.h"

namespace ddfnet::binding {
namespace {

// The arrays of (batch, filters * taps, pixels) or, of one pixel each, (batch, filters * taps).
template <class Array, class Pointer>
Array filters_of(const Tensor& tensor, Pointer data) {
  Array array;
  array.data = data;
  for (int i = 0; i < 3; ++i) array.stride[i] = i < tensor.dim() ? tensor.stride(i) : 1;
  return array;
}
ConstArray readable_filters(const Tensor& tensor) {
  return filters_of<ConstArray>(tensor, tensor.const_data_ptr());
}
Array writable_filters(const Tensor& tensor) {
  return filters_of<Array>(tensor, tensor.mutable_data_ptr());
}

FilterNorm filter_norm_of(const Tensor& filters, const OptTensor& scale, const OptTensor& shift, int64_t taps,
                          double gain, double eps) {
  STD_TORCH_CHECK(filters.is_cpu() && (filters.dim() == 2 || filters.dim() == 3),
                  "filters must be (N, filters*K) or (N, filters*K, pixels) on the CPU, got ", shape_of(filters));
  const int64_t held = filters.size(1);
  STD_TORCH_CHECK(taps > 1 && held % taps == 0, "filters must have two taps or more each, and whole filters, got ",
                  shape_of(filters), " of ", taps, " taps");
  const bool in_double = dtype_of(filters, "filters") == DType::Float64;
  const auto dtype = in_double ? torch::headeronly::ScalarType::Double : torch::headeronly::ScalarType::Float;
  auto values = [&](const OptTensor& tensor, const char* name) -> const void* {
    if (!tensor) return nullptr;
    STD_TORCH_CHECK(
        tensor->is_cpu() && tensor->scalar_type() == dtype && tensor->is_contiguous() && tensor->numel() == held, name,
        " must be ", held, " contiguous values on the CPU, float64 for float64 filters, else float32");
    return tensor->const_data_ptr();
  };
  const int64_t pixels = filters.dim() == 3 ? filters.size(2) : 1;
  return {filters.size(0), held / taps, taps, pixels, values(scale, "scale"), values(shift, "shift"), gain, eps};
}

Tensor filter_norm(const Tensor filters, const OptTensor scale, const OptTensor shift, int64_t taps, double gain,
                   double eps) {
  const FilterNorm problem = filter_norm_of(filters, scale, shift, taps, gain, eps);
  check_memory(sizes_of(filters), filters.element_size());
  Tensor output = torch::stable::empty_like(filters);
  const auto kernel = current_kernels().filter_norm[static_cast<int>(dtype_of(filters, "filters"))];
  call_kernel([&] { kernel(problem, readable_filters(filters), writable_filters(output), parallel_for); });
  return output;
}

// The gradient of the filters, and the products of the output's gradient and the normalised filters, whose sum is the
// scale's gradient. An empty tensor takes the place of one that is not wanted.
std::tuple<Tensor, Tensor> filter_norm_backward(const Tensor grad_output, const Tensor filters, const OptTensor scale,
                                                int64_t taps, double gain, double eps, bool wants_filters,
                                                bool wants_products) {
  const FilterNorm problem = filter_norm_of(filters, scale, std::nullopt, taps, gain, eps);
  const bool fits = grad_output.is_cpu() && grad_output.scalar_type() == filters.scalar_type();
  STD_TORCH_CHECK(fits && sizes_of(grad_output) == sizes_of(filters), "grad_output must be like filters ",
                  shape_of(filters), ", got ", shape_of(grad_output));
  auto gradient = [&](bool wanted) {
    if (wanted) check_memory(sizes_of(filters), filters.element_size());
    return wanted ? torch::stable::empty_like(filters) : torch::stable::empty({0}, filters.scalar_type());
  };
  const Tensor grad_filters = gradient(wants_filters), products = gradient(wants_products);
  auto target = [&](const Tensor& tensor, bool wanted) { return wanted ? writable_filters(tensor) : Array{}; };
  const auto kernel = current_kernels().filter_norm_backward[static_cast<int>(dtype_of(filters, "filters"))];
  call_kernel([&] {
    kernel(problem, readable_filters(grad_output), readable_filters(filters), target(grad_filters, wants_filters),
           target(products, wants_products), parallel_for);
  });
  return {grad_filters, products};
}

}  // namespace
}  // namespace ddfnet::binding

STABLE_TORCH_LIBRARY_FRAGMENT(ddfnet, m) {
  m.def("_filter_norm(Tensor filters, Tensor? scale, Tensor? shift, int taps, float gain, float eps) -> Tensor");
  m.def(
      "_filter_norm_backward(Tensor grad_output, Tensor filters, Tensor? scale, int taps, float gain, float eps, "
      "bool wants_filters, bool wants_products) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(ddfnet, CPU, m) {
  m.impl("_filter_norm", TORCH_BOX(&ddfnet::binding::filter_norm));
  m.impl("_filter_norm_backward", TORCH_BOX(&ddfnet::binding::filter_norm_backward));
}
