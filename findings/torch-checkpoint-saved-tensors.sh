#!/usr/bin/env bash
# A function whose backward reads ctx.saved_tensors twice works, and raises inside of a checkpoint.
#
# Expected: reading an attribute a second time changes nothing, as everywhere else in autograd.
# Seen with torch 2.14.1: with torch.utils.checkpoint(use_reentrant=False), the recommended form, each read computes
# the region's tensors anew, and the second raises CheckpointError. Without a checkpoint, and with use_reentrant=True,
# the gradient is right. A library with such a function passes its tests until a user checkpoints the block around it.
# Way around: read ctx.saved_tensors once and keep the tuple.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy
cat >"$folder/check.py" <<'PYTHON'
import torch
from torch.utils.checkpoint import CheckpointError, checkpoint

print("torch", torch.__version__)


class Product(torch.autograd.Function):
    reads = 1

    @staticmethod
    def forward(ctx, x, y):
        ctx.save_for_backward(x, y)
        return x * y

    @staticmethod
    def backward(ctx, grad):
        if Product.reads == 1:
            x, y = ctx.saved_tensors
        else:
            x = ctx.saved_tensors[0]
            y = ctx.saved_tensors[1]
        return grad * y, grad * x


def gradient(reads, **options):
    """Return the gradient of sum(x * x) at 3 by way of a checkpoint, or the name of the error."""
    Product.reads = reads
    x = torch.tensor([3.0], requires_grad=True)
    function = lambda x: Product.apply(x, x)  # noqa: E731
    try:
        y = checkpoint(function, x, **options) if options else function(x)
        y.sum().backward()
    except CheckpointError as error:
        return type(error).__name__
    return x.grad.item()


found = {
    name: [gradient(reads, **options) for reads in (1, 2)]
    for name, options in {
        "no checkpoint": {},
        "use_reentrant=True": {"use_reentrant": True},
        "use_reentrant=False": {"use_reentrant": False},
    }.items()
}
for name, (once, twice) in found.items():
    print(f"{name}: read once {once}, read twice {twice}")
right = [6.0, 6.0]
expected = {
    "no checkpoint": right,
    "use_reentrant=True": right,
    "use_reentrant=False": [6.0, "CheckpointError"],
}
assert found == expected, "the behaviour changed"
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
