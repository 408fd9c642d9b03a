// All kernels of one instruction set. The file that includes this has opened the tier's namespace and set the target,
// DDF_VECTOR_BYTES and DDF_TIER; see baseline.cpp.

#include "simd.inl"
#include "support.inl"
#include "windows.inl"
#include "pixels.inl"
#include "planes.inl"
#include "layer.inl"

// Vectors of channels where channels lie side by side in all maps, else vectors of columns.
template <Weight weight, class S>
static void forward_as_laid_out(const Problem& p, const Array& output, ParallelFor parallel_for) {
  if (p.channels > 1 && p.input.stride[1] == 1 && output.stride[1] == 1) {
    forward_pixels<weight, S>(p, output, parallel_for);
  } else {
    forward_planes<weight, S>(p, output, parallel_for);
  }
}

template <Weight weight, class S>
static void backward_as_laid_out(const Problem& p, const ConstArray& grad_output, const Gradients& gradients,
                                 ParallelFor parallel_for) {
  const bool channels_last = p.channels > 1 && p.input.stride[1] == 1 && grad_output.stride[1] == 1 &&
                             (gradients.input.data == nullptr || gradients.input.stride[1] == 1);
  if (channels_last) {
    backward_pixels<weight, S>(p, grad_output, gradients, parallel_for);
  } else {
    backward_planes<weight, S>(p, grad_output, gradients, parallel_for);
  }
}

template <class S>
static void forward(const Problem& p, const Array& output, ParallelFor parallel_for) {
  switch (p.weight) {
    case Weight::Product:
      return forward_as_laid_out<Weight::Product, S>(p, output, parallel_for);
    case Weight::Sum:
      return forward_as_laid_out<Weight::Sum, S>(p, output, parallel_for);
    case Weight::Channel:
      return forward_as_laid_out<Weight::Channel, S>(p, output, parallel_for);
    case Weight::Spatial:
      return forward_as_laid_out<Weight::Spatial, S>(p, output, parallel_for);
  }
}

template <class S>
static void backward(const Problem& p, const ConstArray& grad_output, const Gradients& gradients,
                     ParallelFor parallel_for) {
  switch (p.weight) {
    case Weight::Product:
      return backward_as_laid_out<Weight::Product, S>(p, grad_output, gradients, parallel_for);
    case Weight::Sum:
      return backward_as_laid_out<Weight::Sum, S>(p, grad_output, gradients, parallel_for);
    case Weight::Channel:
      return backward_as_laid_out<Weight::Channel, S>(p, grad_output, gradients, parallel_for);
    case Weight::Spatial:
      return backward_as_laid_out<Weight::Spatial, S>(p, grad_output, gradients, parallel_for);
  }
}

// By DType.
extern const Kernels table = {
    DDF_TIER,
    {forward<float>, forward<double>, forward<BFloat16>, forward<Half>},
    {backward<float>, backward<double>, backward<BFloat16>, backward<Half>},
    predict_and_filter,
};
