#include "tensors.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <algorithm>

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

// A large result is fresh memory, which the system zeroes page by page as it is first written: for a map of 117 MiB
// this takes three times as long as to filter it. Where the system gives huge pages to those who ask, one page fault
// per 2 MiB brings most of that back. From 32 MiB on the C library maps each allocation by itself, so that no other
// memory is affected.
void prefer_huge_pages([[maybe_unused]] const Tensor& tensor) {
#if defined(__linux__)
  constexpr uintptr_t least = uintptr_t{1} << 25, page = 4096;
  const uintptr_t bytes = static_cast<uintptr_t>(tensor.numel()) * tensor.element_size();
  if (bytes < least) return;
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

Tensor in_format(const Tensor& tensor, MemoryFormat format) {
  const bool fits = format == MemoryFormat::ChannelsLast ? is_channels_last(tensor) : is_contiguous(tensor);
  return fits ? tensor : torch::stable::contiguous(tensor, format);
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
