"""Other content-adaptive operators by their own names, on the kernels of `ddfnet.ddf` and `ddfnet.ddf_upsample`.

Each is a special case: a filter is missing, or it comes from a formula. They take what their papers' code takes and
give what it gives, forward and backward, on any device and in any dtype that `ddfnet.ddf` has; no window is written
out.
`CARAFEPack`, `Involution` and `JBU` have the state-dict keys of the layers that people have weights for.
"""

from ddfnet.family.functional import (
    adaptive_conv,
    carafe,
    dynamic_depthwise,
    involution,
    joint_bilateral,
    kernel_prediction,
    local_mean,
    local_softmax,
    pac,
    pac_transpose,
)
from ddfnet.family.modules import JBU, CARAFEPack, Involution, JBUStack

__all__ = [
    "JBU",
    "CARAFEPack",
    "Involution",
    "JBUStack",
    "adaptive_conv",
    "carafe",
    "dynamic_depthwise",
    "involution",
    "joint_bilateral",
    "kernel_prediction",
    "local_mean",
    "local_softmax",
    "pac",
    "pac_transpose",
]
