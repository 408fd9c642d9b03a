#include "tensors.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <algorithm>
#include <cstdlib>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace ddfnet::binding {
namespace {

// True if the dimensions lie in memory in this order, as torch decides it: those of size 1 may have any stride.
bool is_dense_in_order(const Tensor& tensor, const int (&order)[4]) {
  int64_t expected = 1;
  for (int i = 3; i >= 0; --i) {
    const int64_t size = tensor.size(order[i]);
    if (size == 1) continue;
    if (tensor.stride(order[i]) != expected) return false;
    expected *= size;
  }
  return true;
}

bool is_contiguous(const Tensor& tensor) {
  return is_dense_in_order(tensor, {0, 1, 2, 3});
}

bool is_channels_last(const Tensor& tensor) {
  return is_dense_in_order(tensor, {0, 2, 3, 1});
}

// From this size in bytes on, the C library maps each allocation by itself.
constexpr size_t kLarge = size_t{1} << 25;

// A large result is fresh memory, which the system zeroes page by page as it is first written: for a map of 117 MiB
// this takes three times as long as to filter it. Where the system gives huge pages to those who ask, one page fault
// per 2 MiB brings most of that back. Each allocation of that size is mapped by itself, so that no other memory is
// affected.
void prefer_huge_pages([[maybe_unused]] const Tensor& tensor) {
#if defined(__linux__)
  constexpr uintptr_t page = 4096;
  const uintptr_t bytes = static_cast<uintptr_t>(tensor.numel()) * tensor.element_size();
  if (bytes < kLarge) return;
  const uintptr_t address = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr());
  const uintptr_t begin = (address + page - 1) / page * page, end = (address + bytes) / page * page;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a wish: the result is right without it
#endif
}

}  // namespace

MemoryFormat format_of(const Tensor& tensor) {
  const bool channels_last = tensor.numel() != 0 && is_channels_last(tensor) && !is_contiguous(tensor);
  return channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

// Torch's own error would be printed with a page of stack frames on its way through the C interface. So large memory is
// asked for here first, which takes some microseconds and touches none of it.
void check_memory(const Sizes& shape, size_t element_size) {
  size_t bytes = element_size;
  for (const int64_t size : shape) bytes *= static_cast<size_t>(size);
  if (bytes < kLarge) return;
  void* volatile memory = std::malloc(bytes);  // volatile: a compiler may take it for granted that there is memory
  STD_TORCH_CHECK(memory != nullptr, "DefaultCPUAllocator: can't allocate memory: a tensor of shape ", ShapeText{shape},
                  " needs ", bytes, " bytes; use a smaller map or batch");
  std::free(memory);
}

Tensor in_format(const Tensor& tensor, MemoryFormat format) {
  const bool fits = format == MemoryFormat::ChannelsLast ? is_channels_last(tensor) : is_contiguous(tensor);
  if (fits) return tensor;
  check_memory(sizes_of(tensor), tensor.element_size());
  return torch::stable::contiguous(tensor, format);
}

// Allocated by torch's C interface, with strides: torch::stable::empty looks its operator up by name, a microsecond of
// the seven that a call costs beside its kernel.
Tensor empty_result(const Tensor& like, const Sizes& shape) {
  constexpr int contiguous[] = {3, 2, 1, 0}, channels_last[] = {1, 3, 2, 0};
  const auto& innermost_first = format_of(like) == MemoryFormat::ChannelsLast ? channels_last : contiguous;
  int64_t strides[4], next = 1;
  for (const int dimension : innermost_first) {
    strides[dimension] = next;
    STD_TORCH_CHECK(!__builtin_mul_overflow(next, std::max<int64_t>(shape[dimension], 1), &next),
                    "the result would be too large: ", ShapeText{shape});
  }
  check_memory(shape, like.element_size());
  int32_t dtype;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(4, shape.data(), strides, dtype, aoti_torch_device_type_cpu(), 0, &handle));
  Tensor result(handle);
  prefer_huge_pages(result);
  return result;
}

}  // namespace ddfnet::binding
