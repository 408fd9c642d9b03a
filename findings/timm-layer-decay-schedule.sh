#!/usr/bin/env bash
# timm's layer decay does nothing without one of timm's own schedules, and nothing says so.
#
# Expected: an optimizer of create_optimizer_v2(layer_decay=0.5) moves early layers less than late ones.
# Seen with timm 1.0.31 and torch 2.14.1: each group has its lr_scale, but the full lr. The optimizer moves the stem of a
# ResNet-18 as far as its classifier, at no schedule and under torch's CosineAnnealingLR too; timm's CosineLRScheduler
# alone multiplies by lr_scale, here by 1/512 for the stem.
# Way around: a schedule of timm's, or group["lr"] *= group["lr_scale"] before a schedule of torch's is made.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.14.1 torchvision==0.29.1 numpy timm==1.0.31
cat >"$folder/check.py" <<'PYTHON'
import timm
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler

print("timm", timm.__version__, "torch", torch.__version__)


def moves(schedule):
    """Return how far one step with gradients of one moves the first and the last layer."""
    model = timm.create_model("resnet18", num_classes=10)
    optimizer = create_optimizer_v2(model, "momentum", lr=0.1, momentum=0.0, weight_decay=0.0, layer_decay=0.5)
    schedule(optimizer)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    after = dict(model.named_parameters())
    return [(before[name] - after[name]).mean().item() for name in ("conv1.weight", "fc.weight")]


schedules = {
    "no schedule": lambda optimizer: None,
    "torch's CosineAnnealingLR": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10),
    "timm's CosineLRScheduler": lambda optimizer: CosineLRScheduler(optimizer, t_initial=10).step(0),
}
ratios = {}
for name, schedule in schedules.items():
    first, last = moves(schedule)
    ratios[name] = first / last
    print(f"{name}: the stem moves {first:.6f}, the classifier {last:.6f}")
*others, own = ratios.values()
assert all(abs(ratio - 1) < 1e-5 for ratio in others), "timm's behaviour has changed"
assert abs(own * 512 - 1) < 1e-3, "timm's behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
