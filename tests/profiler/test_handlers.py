"""Agreement of four counting tools on the costs of networks with DDF."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("timm")

import timm

import ddfnet.models  # noqa: F401
from ddfnet.nn import DDF2d, DDFUpsample2d
from ddfnet.profiler import handlers

fvcore_nn = pytest.importorskip("fvcore.nn")
ptflops = pytest.importorskip("ptflops")
thop = pytest.importorskip("thop")

MODELS = {
    "ddf_mul_resnet50": lambda: timm.create_model("ddf_mul_resnet50"),
    "ddf_add_resnet18": lambda: timm.create_model("ddf_add_resnet18"),
    "channel filters, strided": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 1, bias=False), DDF2d(8, stride=2, filters="channel")
    ),
    "spatial filters, heads": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 1, bias=False), DDF2d(8, 5, heads=2, filters="spatial")
    ),
    "upsampling": lambda: nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), DDFUpsample2d(8, 2)),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.filterwarnings("ignore")
def test_they_agree_to_one_per_cent(make) -> None:
    model, x = make().eval(), torch.randn(1, 3, 64, 64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    expected = counter.get_total_flops() / 2
    counts = fvcore_nn.FlopCountAnalysis(model, x).set_op_handle(**handlers.FVCORE)
    counts.unsupported_ops_warnings(False)
    found = {"fvcore": counts.total()}
    found["ptflops"], _ = ptflops.get_model_complexity_info(
        model,
        (3, 64, 64),
        custom_modules_hooks=handlers.PTFLOPS,
        as_strings=False,
        print_per_layer_stat=False,
    )
    found["thop"], _ = thop.profile(model, inputs=(x,), custom_ops=handlers.THOP, verbose=False)
    for tool, count in found.items():
        assert count == pytest.approx(expected, rel=0.01), tool
