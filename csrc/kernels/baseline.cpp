// The kernels for any processor, with vectors of 16 bytes: SSE2, NEON, or what the compiler makes of them.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#include <utility>

#include "problem.h"

#define DDF_VECTOR_BYTES 16
#define DDF_TIER "baseline"
namespace ddfnet {
namespace baseline {
#include "tier.inl"
}  // namespace baseline
extern const Kernels baseline_kernels = baseline::table;
}  // namespace ddfnet
