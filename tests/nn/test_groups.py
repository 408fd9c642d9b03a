"""Groups of parameters: each parameter in one, and optimizers of PyTorch and schedules of timm that follow them."""

import pytest
import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import nn

from ddfnet.nn import DDF2d, param_groups


def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 1), DDF2d(8, static=True), nn.BatchNorm2d(8))


def named(groups, network):
    """Return the options of each parameter by its name."""
    names = {parameter: name for name, parameter in network.named_parameters()}
    rows = [
        (names[parameter], {key: value for key, value in group.items() if key != "params"})
        for group in groups
        for parameter in group["params"]
    ]
    assert len(rows) == len(names) and dict(rows).keys() == set(names.values())
    return dict(rows)


def test_what_predicts_filters_is_apart_and_the_static_weight_is_not():
    network = model()
    found = named(param_groups(network, 0.1, filter_lr_scale=0.5, filter_decay=0.2), network)
    assert found["0.weight"] == found["1.weight"] == {"weight_decay": 0.1, "lr_scale": 1.0}
    assert found["0.bias"] == found["2.weight"] == {"weight_decay": 0.0, "lr_scale": 1.0}
    assert found["1.spatial.conv.weight"] == {"weight_decay": 0.2, "lr_scale": 0.5}
    assert found["1.channel.norm.scale"] == found["1.channel.expand.bias"] == {"weight_decay": 0.0, "lr_scale": 0.5}


def test_norms_and_biases_can_be_decayed():
    network = model()
    assert len(param_groups(network, 0.1, decay_norm_and_bias=True)) == 1
    assert len(param_groups(network, 0.1)) == 2


def test_optimizers_of_torch_take_the_rate_of_each_group():
    network = model()
    optimizer = torch.optim.SGD(param_groups(network, 0.0, lr=0.4, filter_lr_scale=0.25))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    schedule.step()
    moved = {name: (before[name] - parameter).mean().item() for name, parameter in network.named_parameters()}
    assert moved["1.weight"] == pytest.approx(0.4) and moved["1.spatial.conv.weight"] == pytest.approx(0.1)
    assert sorted(group["lr"] for group in optimizer.param_groups) == pytest.approx([0.01, 0.04])


def test_schedules_of_timm_take_the_scale_of_each_group():
    optimizer = torch.optim.SGD(param_groups(model(), 0.0, filter_lr_scale=0.25), lr=0.4)
    schedule = CosineLRScheduler(optimizer, t_initial=10)
    schedule.step(5)
    assert sorted(group["lr"] for group in optimizer.param_groups) == pytest.approx([0.05, 0.2])


@pytest.mark.parametrize("name", ["weight_decay", "lr", "filter_lr_scale", "filter_decay"])
def test_numbers_below_zero_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 0, got -1"):
        param_groups(model(), **{"weight_decay": 0.1, name: -1})
