"""GPU kernels of the operator, in Triton.

``fwd``, ``bwd_input``, ``bwd_filters`` and ``bwd_filters_planar`` hold one kernel each, ``common`` what they share,
``config`` chooses their tiles, and ``launcher`` turns a call of the operator into launches.
"""

from ddfnet.ops.triton.launcher import can_run, ddf, ddf_backward

__all__ = ["can_run", "ddf", "ddf_backward"]
