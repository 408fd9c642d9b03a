// Torch's tensors as the kernels take them, and results as torch wants them: what every operator of the library shares.
// Written against LibTorch's stable ABI, so that one build serves every torch from 2.10 on.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <atomic>
#include <new>
#include <optional>
#include <ostream>
#include <vector>

#include "../kernels/dispatch.h"

namespace ddfnet::binding {

using torch::headeronly::MemoryFormat;
using torch::stable::Tensor;
using OptTensor = std::optional<Tensor>;
using Sizes = std::vector<int64_t>;

// The kernels of the instruction set in use. Raises where the environment asks for one that does not run here.
const Kernels& current_kernels();

// No exception may pass torch's C interface: it would be printed with its stack frames.
inline void parallel_for(int64_t count, int64_t grain_size, void (*body)(void*, int64_t, int64_t), void* context) {
  std::atomic<bool> lacks_memory{false};
  torch::stable::parallel_for(0, count, grain_size, [&](int64_t begin, int64_t end) {
    try {
      body(context, begin, end);
    } catch (const std::bad_alloc&) {
      lacks_memory = true;
    }
  });
  if (lacks_memory) throw std::bad_alloc();
}

// Calls a kernel, and says in one line that there is no memory for its scratch memory.
template <class Call>
void call_kernel(const Call& call) {
  try {
    call();
  } catch (const std::bad_alloc&) {
    STD_TORCH_CHECK(false,
                    "DefaultCPUAllocator: can't allocate memory: there is none for the kernel's scratch memory; "
                    "use a smaller map, batch or kernel");
  }
}

// --- shapes in messages ---------------------------------------------------------------------------------------------

struct ShapeText {
  Sizes sizes;
};

inline std::ostream& operator<<(std::ostream& out, const ShapeText& shape) {
  out << '(';
  for (size_t i = 0; i < shape.sizes.size(); ++i) out << (i ? ", " : "") << shape.sizes[i];
  return out << ')';
}

inline Sizes sizes_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return {sizes.begin(), sizes.end()};
}

inline ShapeText shape_of(const Tensor& tensor) {
  return {sizes_of(tensor)};
}

// --- tensors to arrays ----------------------------------------------------------------------------------------------

inline DType dtype_of(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case torch::headeronly::ScalarType::Float:
      return DType::Float32;
    case torch::headeronly::ScalarType::Double:
      return DType::Float64;
    case torch::headeronly::ScalarType::BFloat16:
      return DType::BFloat16;
    case torch::headeronly::ScalarType::Half:
      return DType::Half;
    default:
      STD_TORCH_CHECK(false, name, " must be float64, float32, float16 or bfloat16");
  }
}

// The tensor must have 4 dimensions.
template <class Array, class Pointer>
Array array_of(const Tensor& tensor, Pointer data) {
  Array array;
  array.data = data;
  for (int i = 0; i < 4; ++i) array.stride[i] = tensor.stride(i);
  return array;
}

inline ConstArray readable(const OptTensor& tensor) {
  return tensor ? array_of<ConstArray>(*tensor, tensor->const_data_ptr()) : ConstArray{};
}

inline Array writable(const OptTensor& tensor) {
  return tensor ? array_of<Array>(*tensor, tensor->mutable_data_ptr()) : Array{};
}

// --- memory formats and results -------------------------------------------------------------------------------------

// The memory format of results for this tensor, and of the gradient that goes with them, as
// ddfnet.ops.geometry.is_channels_last decides it.
MemoryFormat format_of(const Tensor& tensor);

// Raises in one line where there is no memory for a tensor of this shape.
void check_memory(const Sizes& shape, size_t element_size);

// The tensor in this format, copied only where it has another.
Tensor in_format(const Tensor& tensor, MemoryFormat format);

// An uninitialised tensor of the dtype and memory format of `like`.
Tensor empty_result(const Tensor& like, const Sizes& shape);

}  // namespace ddfnet::binding
