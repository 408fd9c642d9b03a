#!/usr/bin/env bash
# A model that clamps one value twice is exported to an ONNX file that does not load.
#
# Expected: torch.onnx.export writes a file that ONNX Runtime runs.
# Seen with torch 2.14.1 and onnxscript 0.7.2: where two clamps read one value, the bounds of the second are inputs
# of its Clip node and nowhere defined. The export says nothing, and ONNX Runtime refuses the file. Without the optimizer
# (optimize=False) the file is right, and so it is with one clamp.
# Way around: clamp once, or write the bounds as a minimum and a relu.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy onnx==1.23.2 onnxscript==0.7.2 onnxruntime==1.32.0
cat >"$folder/check.py" <<'PYTHON'
import sys
import warnings

import onnxruntime
import onnxscript
import torch
from torch import nn

warnings.simplefilter("ignore")


class Clamps(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(1, 2, 2 * i + 1, padding=i) for i in range(count))

    def forward(self, x):
        y = 2 * x + 1
        return [layer(y.clamp(0, 1)) for layer in self.layers]


def loads(count, optimize):
    file = f"{sys.argv[1]}/{count}-{optimize}.onnx"
    torch.onnx.export(
        Clamps(count).eval(), (torch.rand(1, 1, 8, 8),), dynamo=True, optimize=optimize, verbose=False
    ).save(file)
    try:
        onnxruntime.InferenceSession(file)
    except Exception as error:
        print(f"{count} clamps, optimize={optimize}: {str(error).splitlines()[0][-120:]}")
        return False
    print(f"{count} clamps, optimize={optimize}: loads")
    return True


print("torch", torch.__version__, "onnxscript", onnxscript.__version__, "onnxruntime", onnxruntime.__version__)
found = loads(1, True), loads(2, False), loads(2, True)
if found != (True, True, False):
    raise SystemExit("the behaviour has changed")
PYTHON
"$folder/venv/bin/python" "$folder/check.py" "$folder"
