// The choice of the instruction set, as torch calls it.

#include <atomic>
#include <string>

#include "tensors.h"

namespace ddfnet::binding {
namespace {

std::atomic<const Kernels*>& kernels() {
  static std::atomic<const Kernels*> current{chosen_kernels()};
  return current;
}

// The instruction set in use; empty where DDFNET_CPU_ISA asks for one that is not supported.
std::string isa() {
  const Kernels* current = kernels().load();
  return current == nullptr ? "" : current->name;
}

// The instruction sets that run here, best first, separated by commas: the stable ABI has no list of strings.
std::string isas() {
  std::string names;
  for (const Kernels* each : supported_kernels()) names += (names.empty() ? "" : ",") + std::string(each->name);
  return names;
}

// Uses another instruction set from here on, for tests and measurements; false where it is not supported.
bool set_isa(const std::string name) {
  const Kernels* found = find_kernels(name.c_str());
  if (found != nullptr) kernels().store(found);
  return found != nullptr;
}

}  // namespace

const Kernels& current_kernels() {
  const Kernels* current = kernels().load();
  STD_TORCH_CHECK(current != nullptr,
                  "DDFNET_CPU_ISA asks for an instruction set that does not run here; it must be one of ", isas());
  return *current;
}

}  // namespace ddfnet::binding

STABLE_TORCH_LIBRARY_FRAGMENT(ddfnet, m) {
  m.def("_cpu_isa() -> str");
  m.def("_cpu_isas() -> str");
  m.def("_set_cpu_isa(str name) -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(ddfnet, CompositeExplicitAutograd, m) {
  m.impl("_cpu_isa", TORCH_BOX(&ddfnet::binding::isa));
  m.impl("_cpu_isas", TORCH_BOX(&ddfnet::binding::isas));
  m.impl("_set_cpu_isa", TORCH_BOX(&ddfnet::binding::set_isa));
}
