#include "dispatch.h"

#include <cstdlib>
#include <cstring>

namespace ddfnet {

extern const Kernels baseline_kernels;
#if defined(__x86_64__)
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
#endif

namespace {

struct Candidate {
  const Kernels* kernels;
  bool (*supported)();
};

// Best first. __builtin_cpu_supports also asks whether the operating system saves the wide registers.
const Candidate candidates[] = {
#if defined(__x86_64__)
    {&avx512_kernels,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
     }},
    {&avx2_kernels,
     [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }},
#endif
    {&baseline_kernels, [] { return true; }},
};

}  // namespace

const Kernels* find_kernels(const char* name) {
  for (const Candidate& candidate : candidates) {
    if (std::strcmp(candidate.kernels->name, name) == 0 && candidate.supported()) return candidate.kernels;
  }
  return nullptr;
}

const Kernels* chosen_kernels() {
  static const Kernels* const chosen = [] {
    const char* asked = std::getenv("DDFNET_CPU_TIER");
    if (asked != nullptr && *asked != '\0') return find_kernels(asked);
    for (const Candidate& candidate : candidates) {
      if (candidate.supported()) return candidate.kernels;
    }
    return static_cast<const Kernels*>(nullptr);
  }();
  return chosen;
}

}  // namespace ddfnet
