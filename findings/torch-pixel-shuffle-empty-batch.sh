#!/usr/bin/env bash
# nn.PixelShuffle: an empty batch, as a head has it for an image without proposals, goes forward, and raises backward.
#
# Expected: the gradient is empty, as that of a convolution, a transposed convolution or an interpolation is.
# Seen with torch 2.14.1: RuntimeError, "Function PixelShuffleBackward0 returned an invalid gradient at index 0": it has the
# shape of the enlarged map. PixelUnshuffle is alike.
# Way around: unflatten, permute and reshape.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.4.6
cat >"$folder/check.py" <<'PYTHON'
import torch
from torch import nn

LAYERS = {
    "Conv2d": nn.Conv2d(8, 8, 3, padding=1),
    "ConvTranspose2d": nn.ConvTranspose2d(8, 8, 2, stride=2),
    "Upsample": nn.Upsample(scale_factor=2),
    "PixelShuffle": nn.PixelShuffle(2),
    "PixelUnshuffle": nn.PixelUnshuffle(2),
}


def gradient(layer):
    x = torch.randn(0, 8, 4, 6, requires_grad=True)
    try:
        layer(x).sum().backward()
    except RuntimeError as error:
        return f"RuntimeError: {str(error)[:90]}"
    return f"{tuple(x.grad.shape)}"


print("torch", torch.__version__)
seen = {name: gradient(layer) for name, layer in LAYERS.items()}
for name, result in seen.items():
    print(f"gradient of an empty batch through {name}: {result}")
assert {name for name in seen if "invalid gradient" in seen[name]} == {"PixelShuffle", "PixelUnshuffle"}
assert sum(result == "(0, 8, 4, 6)" for result in seen.values()) == 3, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
