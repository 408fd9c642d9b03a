#!/usr/bin/env bash
# thop counts a transposed convolution's MACs once per output pixel and tap: stride squared times too many.
#
# Expected: each input pixel meets each tap once, so a transposed convolution has N*C_in*C_out*k*k*H*W MACs of the input's
# H and W, as PyTorch's FlopCounterMode, fvcore and ptflops count it.
# Seen with thop 0.1.1.post2209072238: the formula of a convolution, with the output's H and W: 61,440 for 15,360 at
# stride 2. ptflops 0.7.5 adds the bias to a transposed convolution, as it does to others: 3 % at 8 input channels.
# Way around: a handler of one's own in custom_ops.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 numpy thop==0.1.1.post2209072238 ptflops==0.7.5
cat >"$folder/check.py" <<'PYTHON'
from importlib.metadata import version

import ptflops
import thop
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

print("torch", torch.__version__, "thop", version("thop"), "ptflops", version("ptflops"))
x = torch.randn(1, 8, 10, 12)
quiet = {"as_strings": False, "print_per_layer_stat": False}
for stride, bias in ((1, False), (2, False), (3, False), (2, True)):
    layer = nn.ConvTranspose2d(8, 4, stride, stride, bias=bias)
    with FlopCounterMode(display=False) as counter:
        output = layer(x)
    true = 8 * 4 * stride * stride * 10 * 12
    counted = thop.profile(layer, (x,), verbose=False)[0]
    ours = ptflops.get_model_complexity_info(layer, (8, 10, 12), **quiet)[0]
    print(f"stride {stride}, bias {bias}: {true:,} MACs; thop {counted:,.0f}; ptflops {ours:,}")
    assert counter.get_total_flops() == 2 * true
    assert counted == stride**2 * true, "thop's behaviour has changed"
    assert ours == true + (output.numel() if bias else 0), "ptflops' behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
