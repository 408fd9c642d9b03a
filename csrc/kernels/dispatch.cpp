#include "dispatch.h"

#include <cstdlib>
#include <cstring>

namespace ddfnet {

#define DDF_DECLARE_KERNELS(name, supported) \
  namespace name {                           \
  extern const Kernels kernels;              \
  }
DDF_FOR_EACH_ISA(DDF_DECLARE_KERNELS)
#undef DDF_DECLARE_KERNELS

std::vector<const Kernels*> supported_kernels() {
  std::vector<const Kernels*> result;
#define DDF_ADD_IF_SUPPORTED(name, supported) \
  if (supported) result.push_back(&name::kernels);
  DDF_FOR_EACH_ISA(DDF_ADD_IF_SUPPORTED)
#undef DDF_ADD_IF_SUPPORTED
  return result;
}

const Kernels* find_kernels(const char* name) {
  for (const Kernels* kernels : supported_kernels()) {
    if (std::strcmp(kernels->name, name) == 0) return kernels;
  }
  return nullptr;
}

const Kernels* chosen_kernels() {
  static const Kernels* const chosen = [] {
    const char* name = std::getenv("DDFNET_CPU_ISA");
    return name != nullptr && *name != '\0' ? find_kernels(name) : supported_kernels().front();
  }();
  return chosen;
}

}  // namespace ddfnet
