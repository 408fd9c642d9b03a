#!/usr/bin/env bash
# torch.compile of a training step: `size not in (h, h + 1)` and `size != h and size != h + 1` do not compile to the same.
#
# Expected: both spellings of a check of a map's size give a compiled step that serves other sizes.
# Seen with torch 2.14.1 (and 2.10.0; 2.15.0 is right): with the tuple the backward pass that Inductor makes for sizes that
# change has the strides of its example as constants. The step for the next size raises an AssertionError about a stride,
# which names a wrong meta kernel of a custom operator as the likely cause; there is no custom operator.
# Way around: compare by == and <, not by `in`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy==2.4.6
cat >"$folder/check.py" <<'PYTHON'
import torch
from torch import nn


class Merge(nn.Module):
    """Two maps, the coarse one enlarged and cropped to the fine one, as in a feature pyramid."""

    def __init__(self, looked_for):
        super().__init__()
        self.looked_for = looked_for
        self.fine, self.coarse = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.up, self.out = nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        fine = self.fine(x)
        larger = self.up(self.coarse(fine))
        h, w = fine.shape[2:]
        size = larger.shape[2]
        if size not in (h, h + 1) if self.looked_for else (size != h and size != h + 1):
            raise ValueError
        return self.out(fine + larger[:, :, :h, :w])


def train(looked_for):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = Merge(looked_for)
    compiled = torch.compile(model)
    for side in (16, 24, 32):
        x = torch.randn(2, 3, side, side + 4)
        try:
            got = torch.autograd.grad(compiled(x).square().mean(), list(model.parameters()))
        except AssertionError as error:
            return f"{side} pixels: AssertionError: {str(error).splitlines()[0][:90]}"
        for own, expected in zip(got, torch.autograd.grad(model(x).square().mean(), list(model.parameters()))):
            torch.testing.assert_close(own, expected, rtol=1e-3, atol=1e-5)
    return "right at all sizes"


print("torch", torch.__version__)
compared, looked_for = train(False), train(True)
print("size != h and size != h + 1:", compared)
print("size not in (h, h + 1):     ", looked_for)
assert compared == "right at all sizes" and "AssertionError" in looked_for, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
