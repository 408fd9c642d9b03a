#!/usr/bin/env bash
# torch.compile of a training: a convolution right behind nn.PixelShuffle, as in super-resolution, fails at the second size.
#
# Expected: a compiled training step serves maps of another size, as it does with an activation between the two.
# Seen with torch 2.14.1: the step for the second size, for which Inductor has symbols, raises an InductorError, "cannot
# determine truth value of Relational". The shuffled map is a view that is kept for the gradient and that a convolution
# would like in channels_last; the order of its strides is asked for without what is known of the symbols. Inference,
# eager mode and dynamic=False are right.
# Way around: an activation or a norm between the two, or one size for all images.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.4.6
cat >"$folder/check.py" <<'PYTHON'
import torch
from torch import nn


def train(*between):
    torch._dynamo.reset()
    model = nn.Sequential(
        nn.Conv2d(8, 32, 3, padding=1), nn.PixelShuffle(2), *between, nn.Conv2d(8, 8, 3, padding=1)
    )
    compiled = torch.compile(model)
    for size in ((6, 10), (8, 12)):
        try:
            compiled(torch.randn(2, 8, *size)).square().mean().backward()
        except torch._inductor.exc.InductorError as error:
            return f"{size}: InductorError: {' '.join(str(error).split())[:70]}"
    return "trains at both sizes"


print("torch", torch.__version__)
alone, activated = train(), train(nn.ReLU())
print("convolution, PixelShuffle, convolution:      ", alone)
print("convolution, PixelShuffle, ReLU, convolution:", activated)
assert activated == "trains at both sizes" and "truth value of Relational" in alone, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
