// All kernels of one instruction set, which the file that includes this one has named: see isa/target.inl.
#pragma once

#include "channels_last.inl"
#include "contiguous.inl"
#include "filter_norm.inl"
#include "isa/target.inl"
#include "layer.inl"
#include "problem.h"

DDF_BEFORE_NAMESPACE();
namespace ddfnet::DDF_ISA {

// Vectors of channels where the channels of all maps lie side by side, else vectors of columns.
template <Weight weight, class S>
static void forward_any_layout(const Problem& p, const Array& output, ParallelFor parallel_for) {
  if (p.channels > 1 && p.input.stride[1] == 1 && output.stride[1] == 1) {
    forward_channels_last<weight, S>(p, output, parallel_for);
  } else {
    forward_contiguous<weight, S>(p, output, parallel_for);
  }
}

template <Weight weight, class S>
static void backward_any_layout(const Problem& p, const ConstArray& grad_output, const Gradients& gradients,
                                ParallelFor parallel_for) {
  const bool channels_last = p.channels > 1 && p.input.stride[1] == 1 && grad_output.stride[1] == 1 &&
                             (gradients.input.data == nullptr || gradients.input.stride[1] == 1);
  if (channels_last) {
    backward_channels_last<weight, S>(p, grad_output, gradients, parallel_for);
  } else {
    backward_contiguous<weight, S>(p, grad_output, gradients, parallel_for);
  }
}

template <class S>
static void forward(const Problem& p, const Array& output, ParallelFor parallel_for) {
  switch (p.weight) {
    case Weight::Product:
      return forward_any_layout<Weight::Product, S>(p, output, parallel_for);
    case Weight::Sum:
      return forward_any_layout<Weight::Sum, S>(p, output, parallel_for);
    case Weight::Channel:
      return forward_any_layout<Weight::Channel, S>(p, output, parallel_for);
    case Weight::Spatial:
      return forward_any_layout<Weight::Spatial, S>(p, output, parallel_for);
  }
}

template <class S>
static void backward(const Problem& p, const ConstArray& grad_output, const Gradients& gradients,
                     ParallelFor parallel_for) {
  switch (p.weight) {
    case Weight::Product:
      return backward_any_layout<Weight::Product, S>(p, grad_output, gradients, parallel_for);
    case Weight::Sum:
      return backward_any_layout<Weight::Sum, S>(p, grad_output, gradients, parallel_for);
    case Weight::Channel:
      return backward_any_layout<Weight::Channel, S>(p, grad_output, gradients, parallel_for);
    case Weight::Spatial:
      return backward_any_layout<Weight::Spatial, S>(p, grad_output, gradients, parallel_for);
  }
}

extern const Kernels kernels = {
    DDF_STRINGIZE(DDF_ISA),
    {forward<float>, forward<double>, forward<BFloat16>, forward<Half>},
    {backward<float>, backward<double>, backward<BFloat16>, backward<Half>},
    predict_and_filter,
    {filter_norm<float>, filter_norm<double>, filter_norm<BFloat16>, filter_norm<Half>},
    {filter_norm_backward<float>, filter_norm_backward<double>, filter_norm_backward<BFloat16>,
     filter_norm_backward<Half>},
};

}  // namespace ddfnet::DDF_ISA
DDF_AFTER_NAMESPACE();
