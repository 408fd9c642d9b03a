#!/usr/bin/env bash
# torch's bicubic interpolation has two kernels: antialias=True changes an enlargement, where nothing can alias.
#
# Expected: antialiasing acts where an image is reduced; enlarged, the result is that of antialias=False.
# Seen with torch 2.14.1 and torchvision 0.29.1: with antialias=True the kernel is Pillow's (a = -0.5), without it
# OpenCV's (a = -0.75), at any size. A step enlarged twofold overshoots by 7.0 % with it and by 10.5 % without, so that a
# bicubic row of a super-resolution table depends on a flag for something else. torchvision's v2 `resize` has it turned on
# by default, `torch.nn.functional.interpolate` off.
# Way around: name the kernel beside each bicubic figure; enlarge with Pillow, or antialias=True, for Pillow's.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 torchvision==0.29.1 numpy==2.4.6 Pillow==13.0.0
cat >"$folder/check.py" <<'PYTHON'
import numpy as np
import torch
import torchvision
from PIL import Image
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

print("torch", torch.__version__, "torchvision", torchvision.__version__)
step = torch.zeros(1, 1, 8, 8)
step[..., 4:] = 1
with_it, without = (interpolate(step, size=(16, 16), mode="bicubic", antialias=flag) for flag in (True, False))
pillow = torch.from_numpy(np.array(Image.fromarray(step[0, 0].numpy()).resize((16, 16), Image.Resampling.BICUBIC)))
by_default = resize(step, [16, 16], interpolation=InterpolationMode.BICUBIC)
print(f"largest value of a step from 0 to 1: {with_it.max():.4f} with antialias, {without.max():.4f} without")
assert (with_it - pillow).abs().max() < 1e-5 and (by_default - with_it).abs().max() < 1e-5, "the behaviour has changed"
assert (with_it - without).abs().max() > 0.03, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
