// Kernels for maps whose columns lie side by side (contiguous), and for any other strides: vectors of columns.
//
// A tile of a map is packed, in the compute type, into rows of one pitch with a margin for the taps. Read as one long
// line, such a tile turns each tap into a constant offset. There are no borders and no short rows at 7 or 14 pixels (a
// vector extends over the end of a row into the next; those lanes are computed and dropped), and elements may have any
// stride. With a stride between filter positions, each of its phases is packed as a plane of its own. The spatial
// filter of a tile is packed once for all channels of a head. Channels go four at a time, so that a vector of the
// spatial filter is loaded once for four.
#pragma once

#include "contiguous/filter_gradients.inl"
#include "contiguous/forward.inl"
#include "contiguous/input_gradient.inl"
#include "isa/target.inl"
#include "problem.h"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

template <Weight weight, class S>
static void backward_contiguous(const Problem& p, const ConstArray& grad_output, const Gradients& gradients,
                                ParallelFor parallel_for) {
  if (gradients.input.data != nullptr && exceeds_tiles(p)) {
    input_gradient_scalar<weight, S>(p, grad_output, gradients.input, parallel_for);
  } else if (gradients.input.data != nullptr) {
    input_gradient_tiled<weight, S>(p, grad_output, gradients.input, parallel_for);
  }
  const bool wants_channel = gradients.channel_filter.data != nullptr;
  const bool wants_spatial = gradients.spatial_filter.data != nullptr;
  if (wants_channel && wants_spatial) {
    filter_gradients_tiled<weight, true, true, S>(p, grad_output, gradients, parallel_for);
  } else if (wants_channel) {
    filter_gradients_tiled<weight, true, false, S>(p, grad_output, gradients, parallel_for);
  } else if (wants_spatial) {
    filter_gradients_tiled<weight, false, true, S>(p, grad_output, gradients, parallel_for);
  }
}

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
