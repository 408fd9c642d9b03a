"""Other content-adaptive operators by their own names, on the kernels of `ddfnet.ddf` and `ddfnet.ddf_upsample`.

Each is a special case: a filter is missing, or it comes from a formula; `dysample`, which has no filter, is beside them
to be compared with. They take the arguments of their papers' code and return its results, forward and backward, on any
device and in any dtype that `ddfnet.ddf` has; no window is stored. `CARAFE`, `DySample`, `Involution` and `JBU` load
the weights of the layers that they are known by.
"""

from ddfnet.family.functional import (
    adaptive_conv,
    carafe,
    dynamic_depthwise,
    dysample,
    involution,
    joint_bilateral,
    kernel_prediction,
    local_mean,
    local_softmax,
    pac,
    pac_transpose,
)
from ddfnet.family.modules import CARAFE, JBU, DySample, Involution, JBUStack

__all__ = [
    "CARAFE",
    "JBU",
    "DySample",
    "Involution",
    "JBUStack",
    "adaptive_conv",
    "carafe",
    "dynamic_depthwise",
    "dysample",
    "involution",
    "joint_bilateral",
    "kernel_prediction",
    "local_mean",
    "local_softmax",
    "pac",
    "pac_transpose",
]
