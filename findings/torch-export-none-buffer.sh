#!/usr/bin/env bash
# torch.export takes one buffer for another where a buffer that is None was registered before them.
#
# Expected: an exported program updates the buffer that the module's forward assigns, as the module itself does.
# Seen with torch 2.14.1: `b` is assigned, and the program's `c` changes instead. With two None buffers before the last
# one, export raises IndexError. The cause is in torch/export/_trace.py: the inputs of the graph are counted with all
# buffers, and a buffer that is None is no input.
# Way around: register buffers that may be None last.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy
cat >"$folder/check.py" <<'PYTHON'
import torch
from torch import nn


class Counter(nn.Module):
    def __init__(self, empty):
        super().__init__()
        for i in range(empty):
            self.register_buffer(f"empty{i}", None)
        self.register_buffer("b", torch.zeros(3))
        self.register_buffer("c", torch.zeros(3))

    def forward(self, x):
        self.b = self.b + x
        return self.b + self.c


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("empty0", None)
        self.register_buffer("empty1", None)
        self.register_buffer("b", torch.zeros(3))

    def forward(self, x):
        return x + self.b


print("torch", torch.__version__)
x = torch.ones(3)
for empty in (0, 1):
    eager, program = Counter(empty), torch.export.export(Counter(empty), (x,)).module()
    eager(x), program(x)
    buffers = {name: value.tolist() for name, value in program.named_buffers()}
    print(f"{empty} None buffers: eager b={eager.b.tolist()} c={eager.c.tolist()}, exported {buffers}")
    assigned, other = ("b", "c") if empty == 0 else ("c", "b")
    assert eager.b.tolist() == [1, 1, 1] and eager.c.tolist() == [0, 0, 0]
    assert buffers == {assigned: [1, 1, 1], other: [0, 0, 0]}, "the behaviour has changed"
try:
    torch.export.export(Constant(), (x,))
except IndexError as error:
    print("2 None buffers before the last one: IndexError:", error)
else:
    raise SystemExit("the behaviour has changed: export succeeds")
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
