#!/usr/bin/env bash
# torchvision's v2 resize of uint16 cuts off instead of rounding, and wraps around where bicubic interpolation overshoots.
#
# Expected: the float result, rounded and limited to 0 and 65535, as resize gives it for uint8.
# Seen with torchvision 0.29.1 and torch 2.14.1: 16383.75 becomes 16383; beside an edge -5782 becomes 59754, and 71317 becomes
# 5781: black and white change places. The cause is a plain conversion of the float result to uint16.
# Way around: convert to float32 before, round and clamp after.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 torchvision==0.29.1 numpy
cat >"$folder/check.py" <<'PYTHON'
import torch
import torchvision
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

print("torch", torch.__version__, "torchvision", torchvision.__version__)
edges = torch.tensor([[0, 65535] * 4] * 8, dtype=torch.uint16)[None]
results = {}
for mode in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC):
    exact = resize(edges.double(), [16, 16], interpolation=mode, antialias=True)
    whole = resize(edges, [16, 16], interpolation=mode, antialias=True)
    results[mode] = exact[0, 0], whole[0, 0].to(torch.int64)
    print(mode.value, "exact", exact[0, 0, :4].tolist(), "uint16", whole[0, 0, :4].tolist())
exact, whole = results[InterpolationMode.BILINEAR]
assert (whole == exact.floor()).all() and (whole != exact.round()).any(), "the behaviour has changed"
exact, whole = results[InterpolationMode.BICUBIC]
assert exact.min() < 0 and whole[exact < 0].min() > 50000, "the behaviour has changed"
assert exact.max() > 65536 and whole[exact > 65536].max() < 10000, "the behaviour has changed"
small = torch.tensor([[0, 255] * 4] * 8, dtype=torch.uint8)[None]
print("uint8", resize(small, [16, 16], interpolation=InterpolationMode.BICUBIC, antialias=True)[0, 0, :4].tolist())
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
