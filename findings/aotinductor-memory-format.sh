#!/usr/bin/env bash
# A package of AOTInductor reads an input of another memory format as if it had the example's strides.
#
# Expected: a compiled module gives the module's values for the same tensor in channels_last, as torch.compile does
# (which compiles again) and the exported program does, or it raises.
# Seen with torch 2.14.1: a package made from a contiguous example, run on a channels_last input of the same shape,
# returns wrong numbers without a message, for a plain convolution as for element-wise code. The strides are part of the
# compiled code, and nothing checks them unless AOTI_RUNTIME_CHECK_INPUTS=1 is in the environment: then it raises.
# Way around: call .contiguous() on inputs before the package, or compile with a layout-fixing copy at the entry.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy "setuptools>=77"
cat >"$folder/check.py" <<'PYTHON'
import sys

import torch
from torch import nn

print("torch", torch.__version__)
x = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
other = x.to(memory_format=torch.channels_last)
layer = nn.Conv2d(3, 4, 3).eval()
path = torch._inductor.aoti_compile_and_package(torch.export.export(layer, (x,)), package_path=sys.argv[1])
package = torch._inductor.aoti_load_package(path)
with torch.no_grad():
    same = (package(x) - layer(x)).abs().max().item()
    wrong = (package(other) - layer(x)).abs().max().item()
print(f"largest error: contiguous input {same:.1e}, channels_last input of the same values {wrong:.1e}")
assert same < 1e-5 and wrong > 0.1, "the behaviour has changed"
PYTHON
cd "$folder" && "$folder/venv/bin/python" check.py "$folder/layer.pt2"
