"""Collection of the GPU kernels' tests: only with Triton, and the interpreted ones only in its interpreter."""

import importlib.util

import torch

from ddfnet.ops import backends

collect_ignore = []
if importlib.util.find_spec("triton") is None:
    collect_ignore.append("test_triton.py")
if not backends.can_run("triton", torch.device("cpu"))[0]:
    collect_ignore.append("test_triton_interpreted.py")
