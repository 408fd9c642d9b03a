// The operator's arguments checked, as ddfnet.ops.checks checks them for the other backends: whoever calls
// torch.ops.ddfnet.ddf directly is refused what would read outside of a tensor or means nothing.
#pragma once

#include <string>

#include "tensors.h"

namespace ddfnet::binding {

// The five pairs and the word of a call, in the schema's order.
struct Geometry {
  const Sizes &kernel_size, &stride, &padding, &dilation, &upscale;
  const std::string& combine;
};

// The schema's part for a Geometry.
#define DDF_GEOMETRY_SCHEMA \
  "int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation, int[2] upscale, str combine"

// The problem of a call without its filters, with one head.
Problem problem_of(const Tensor& input, const Geometry& geometry);

// The problem of a call. Raises unless the filters fit the input exactly.
Problem problem_of(const Tensor& input, const OptTensor& channel_filter, const OptTensor& spatial_filter,
                   const Geometry& geometry);

Sizes output_shape(const Problem& problem);

// The weight of a tap, by the schema's word. Raises unless it is "mul" or "add".
Weight weight_of(const std::string& combine, bool channel, bool spatial);

// Raises unless the tensor is of this shape and dtype, on the CPU.
void check_shape(const Tensor& tensor, const Sizes& shape, DType dtype, const char* name);

}  // namespace ddfnet::binding
