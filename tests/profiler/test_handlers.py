"""Agreement of five counters on the costs of layers and of networks with DDF."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("timm")

import timm

import ddfnet.models  # noqa: F401
from ddfnet.compat import DDFPack, DDFUpPack
from ddfnet.family import CARAFE, JBU, DySample, Involution
from ddfnet.models.upsamplers import UPSAMPLERS
from ddfnet.nn import DDF2d, DDFConv2d, DDFUpsample2d, FusedDDF2d
from ddfnet.profiler import estimate, handlers

fvcore_nn = pytest.importorskip("fvcore.nn")
ptflops = pytest.importorskip("ptflops")
thop = pytest.importorskip("thop")

pytestmark = pytest.mark.filterwarnings("ignore")


def count_torch(model, inputs):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*inputs)
    return counter.get_total_flops() / 2


def count_estimate(model, inputs):
    return estimate(model, [tuple(x.shape) for x in inputs]).predicted.macs


def count_fvcore(model, inputs):
    counts = fvcore_nn.FlopCountAnalysis(model, inputs).set_op_handle(**handlers.FVCORE)
    counts.unsupported_ops_warnings(False)
    return counts.total()


def count_ptflops(model, inputs):
    macs, _ = ptflops.get_model_complexity_info(
        model,
        tuple(inputs[0].shape[1:]),
        input_constructor=lambda _: dict(zip(("x", "guide"), inputs, strict=False)),
        custom_modules_hooks=handlers.PTFLOPS,
        backend_specific_config={"count_functional": False},
        as_strings=False,
        print_per_layer_stat=False,
    )
    return macs


def count_thop(model, inputs):
    macs, _ = thop.profile(model, inputs=inputs, custom_ops=handlers.THOP, verbose=False)
    return macs


COUNTERS = {
    "torch": count_torch,
    "estimate": count_estimate,
    "fvcore": count_fvcore,
    "ptflops": count_ptflops,
    "thop": count_thop,
}


class Within(nn.Module):
    """A layer in a model, as the tools expect it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, guide=None):
        return self.layer(x) if guide is None else self.layer(x, guide)


class ByName(Within):
    def forward(self, x, guide):
        return self.layer(x, guide=guide)


C, WIDTH, H, W = 16, 3, 20, 12  # WIDTH is the bottleneck's
EXPECTED = {
    "nearest": 0,
    "bilinear": 0,
    "deconv": H * W * C * C * 9,
    "pixelshuffle": H * W * C * 4 * C * 9,
    "carafe": H * W * (C * C // 4 + C // 4 * 4 * 25 * 9) + 4 * H * W * C * 25,
    "dysample": H * W * C * 2 * 4 * 4,
    # The depthwise convolution, the spatial filters, the filtering, the bottlenecks of the channel filters.
    "ddf": H * W * (9 * C + C * 4 * 9) + 4 * H * W * C * 9 * 1.5 + 4 * (C * WIDTH + WIDTH * C * 9),
}


@pytest.mark.parametrize("count", COUNTERS.values(), ids=COUNTERS)
@pytest.mark.parametrize("name", UPSAMPLERS)
def test_upsamplers_of_the_detector(name, count):
    model, x = Within(UPSAMPLERS[name](C)).eval(), torch.randn(1, C, H, W)
    assert count(model, (x,)) == EXPECTED[name]


GUIDED = {"guide_channels": 3}
LAYERS = {
    "transposed, grouped": (lambda: nn.ConvTranspose2d(C, 8, 4, 2, 1, groups=4), [(2, C, 9, 7)]),
    "transposed, 1d": (lambda: nn.ConvTranspose1d(C, 8, 4, 2, 1, bias=False), [(2, C, 9)]),
    "depthwise": (lambda: nn.Conv2d(C, C, 3, groups=C), [(1, C, 9, 7)]),
    "strided": (lambda: nn.Conv2d(C, 8, 3, stride=2, dilation=2), [(1, C, 19, 17)]),
    "3d": (lambda: nn.Conv3d(2, 3, 3), [(1, 2, 5, 6, 7)]),
    "linear": (lambda: nn.Linear(4, 32), [(2, 7, 4)]),
    "DDF2d": (lambda: DDF2d(C, 4, stride=2, heads=2), [(1, C, 9, 8)]),
    "DDF2d, channel filters": (lambda: DDF2d(C, stride=2, filters="channel"), [(1, C, 9, 8)]),
    "DDF2d, spatial filters": (lambda: DDF2d(C, 5, heads=2, filters="spatial"), [(1, C, 9, 8)]),
    "DDFConv2d": (lambda: DDFConv2d(C, 8, 3, padding="same"), [(1, C, 9, 8)]),
    "DDF2d, static": (lambda: DDF2d(C, heads=2, static=True), [(1, C, 9, 8)]),
    "FusedDDF2d": (lambda: FusedDDF2d(DDF2d(C), torch.ones(C), torch.ones(C), relu=True), [(1, C, 9, 8)]),
    "DDFUpsample2d": (lambda: DDFUpsample2d(C, 3, kernel_size=5), [(1, C, 9, 8)]),
    "DDFUpsample2d, guide": (lambda: DDFUpsample2d(C, **GUIDED), [(1, C, 9, 8), (1, 3, 18, 16)]),
    "DDFUpsample2d, guide's pixels": (
        lambda: DDFUpsample2d(C, **GUIDED, guide_at="output"),
        [(1, C, 9, 8), (1, 3, 18, 16)],
    ),
    "DDFPack": (lambda: DDFPack(C), [(1, C, 9, 8)]),
    "DDFUpPack": (lambda: DDFUpPack(C), [(1, C, 9, 8)]),
    "CARAFE": (lambda: CARAFE(C, 3, up_group=2), [(1, C, 9, 8)]),
    "DySample": (lambda: DySample(C, 3, groups=2, dyscope=True), [(1, C, 9, 8)]),
    "Involution": (lambda: Involution(C, 7, 2), [(1, C, 8, 8)]),
    "JBU": (lambda: JBU(3, C, 8), [(1, C, 5, 5), (1, 3, 10, 10)]),
}


@pytest.mark.parametrize("count", COUNTERS.values(), ids=COUNTERS)
@pytest.mark.parametrize(("make", "shapes"), LAYERS.values(), ids=LAYERS)
def test_layers(make, shapes, count):
    model, inputs = Within(make()).eval(), tuple(torch.randn(shape) for shape in shapes)
    expected = count_torch(model, inputs)
    assert expected > 0
    assert count(model, inputs) == expected


@pytest.mark.parametrize("count", [count_thop, count_ptflops])
@pytest.mark.parametrize("guide_at", ["input", "output"])
def test_a_guide_that_is_given_by_name(guide_at, count):
    model = ByName(DDFUpsample2d(8, **GUIDED, guide_at=guide_at)).eval()
    inputs = torch.randn(1, 8, 9, 8), torch.randn(1, 3, 40, 30)
    assert count(model, inputs) == count_torch(model, inputs)


@pytest.mark.parametrize("count", [count_fvcore, count_thop])
def test_a_layer_by_itself(count):
    inputs = (torch.randn(1, 8, 9, 8),)
    assert count(DDFUpsample2d(8).eval(), inputs) == count_torch(DDFUpsample2d(8), inputs)


@pytest.mark.parametrize("name", ["ddf_mul_resnet50", "ddf_add_resnet18"])
def test_networks(name):
    model, inputs = Within(timm.create_model(name)).eval(), (torch.randn(1, 3, 64, 64),)
    expected = count_torch(model, inputs)
    for tool, count in COUNTERS.items():
        assert count(model, inputs) == pytest.approx(expected, rel=0.001), tool
