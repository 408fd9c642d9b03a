"""Starts of layers, which each ``reset_parameters`` gives them again."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from ddfnet.nn import DDF2d, DDFConv2d, DDFUpsample2d, FilterNorm, starts
from tests.meta_device import check_reset

LAYERS = {
    "FilterNorm": lambda: FilterNorm(4, 3, "spatial", learn_scale=True, learn_shift=True),
    "DDF2d": lambda: DDF2d(8, heads=2),
    "DDF2d batch": lambda: DDF2d(8, norm="batch"),
    "DDF2d zero_init": lambda: DDF2d(8, zero_init=True),
    "DDF2d zero_init none": lambda: DDF2d(8, norm="none", combine="mul", zero_init=True),
    "DDF2d zero_init add": lambda: DDF2d(8, norm="none", combine="add", zero_init=True),
    "DDF2d zero_init spatial": lambda: DDF2d(8, norm="none", filters="spatial", zero_init=True),
    "DDF2d zero_init channel": lambda: DDF2d(8, norm="softmax", filters="channel", zero_init=True),
    "DDF2d static": lambda: DDF2d(8, heads=2, static=True),
    "DDF2d static none": lambda: DDF2d(8, norm="none", static=True),
    "DDFConv2d": lambda: DDFConv2d(8, 8, 3),
    "DDFConv2d pointwise": lambda: DDFConv2d(8, 12, 3, zero_init=True),
    "DDFUpsample2d": lambda: DDFUpsample2d(8),
    "DDFUpsample2d batch": lambda: DDFUpsample2d(8, norm="batch", guide_channels=3, guide_at="output"),
    "DDFUpsample2d softmax": lambda: DDFUpsample2d(
        8, guide_channels=3, from_map=True, norm="softmax", init="bilinear", padding_mode="replicate"
    ),
    "DDFUpsample2d nearest": lambda: DDFUpsample2d(8, 3, norm="none", init="nearest", heads=2),
    "DDFUpsample2d bilinear": lambda: DDFUpsample2d(
        8, (2, 3), norm="none", combine="add", init="bilinear", padding_mode="replicate"
    ),
}


@pytest.mark.parametrize("build", LAYERS.values(), ids=LAYERS)
def test_memory_from_the_meta_device_gets_the_constructors_values(build) -> None:
    check_reset(build)


def test_zero_init_and_interpolation_are_what_they_were() -> None:
    layer = DDF2d(8, norm="none", zero_init=True)
    upsample = DDFUpsample2d(4, norm="none", init="bilinear", padding_mode="replicate")
    for module in [*layer.modules(), *upsample.modules()]:
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
    assert not layer.spatial.conv.weight.any() and (layer.spatial.conv.bias == 1).all()
    assert not layer.channel.expand.weight.any()
    # The deviation of nn.Conv2d's own biases would be below 0.58.
    assert layer.channel.expand.bias.std().item() == pytest.approx(2**0.5 / 3, rel=0.3)
    x = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(upsample(x), nn.functional.interpolate(x, scale_factor=2, mode="bilinear"))


def test_every_copy_has_a_start_of_its_own() -> None:
    layer = starts.with_start(nn.Conv2d(2, 3, 1), _ones)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(other.weight)
        other.reset_parameters()
        assert (other.weight == 1).all() and not layer.weight.any()
        assert type(other) is nn.Conv2d
    assert starts.has_start(layer) and not starts.has_start(nn.Conv2d(2, 3, 1))


def _ones(layer: nn.Conv2d) -> None:
    nn.init.ones_(layer.weight)


def test_a_layer_with_a_start_is_freed_at_once() -> None:
    gc.disable()
    try:
        layer = weakref.ref(starts.with_start(nn.Conv2d(2, 3, 1), _ones))
        assert layer() is None
    finally:
        gc.enable()
