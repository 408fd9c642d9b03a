"""Operator under ``torch.fx``: one node, which runs at other sizes and raises its errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

import ddfnet
from ddfnet.ops.recording import is_recorded, recordable


class Calls(nn.Module):
    """Both functions, with a parameter, sizes and options from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3))

    def forward(self, x: Tensor, spatial: Tensor) -> Tensor:
        n, c = x.shape[:2]
        y = ddfnet.ddf(x, self.weight.expand(n, -1, -1, -1), spatial_filter=spatial, combine="add", dilation=2)
        taps = y.mean(1, keepdim=True).expand(n, 4 * c * 9, -1, -1)
        return ddfnet.ddf_upsample(input=y, channel_filter=None, spatial_filter=taps, scale_factor=2, kernel_size=3)


def test_calls_are_nodes() -> None:
    model = Calls()
    traced = fx.symbolic_trace(model)
    targets = [node.target for node in traced.graph.nodes]
    assert targets.count(ddfnet.ddf) == targets.count(ddfnet.ddf_upsample) == 1
    for n, height, width in ((2, 8, 9), (1, 5, 4)):
        given = torch.randn(n, 4, height, width), torch.randn(n, 9, height, width)
        torch.testing.assert_close(traced(*given), model(*given), rtol=0, atol=0)
    with pytest.raises(ValueError, match="spatial_filter must be"):
        traced(torch.randn(2, 4, 6, 6), torch.randn(2, 9, 5, 6))


def test_a_filter_alone_may_be_recorded() -> None:
    x = torch.randn(1, 4, 6, 6)
    traced = fx.symbolic_trace(lambda filters: ddfnet.ddf(x, filters, None))
    filters = torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(traced(filters), ddfnet.ddf(x, filters, None))


def test_what_is_no_tensor_is_refused_as_before() -> None:
    with pytest.raises(TypeError, match="input must be a torch.Tensor, got list"):
        ddfnet.ddf([1.0], torch.ones(1, 1, 1, 1), None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="spatial_filter must be a torch.Tensor, got str"):
        ddfnet.ddf_upsample(torch.ones(1, 1, 2, 2), None, "a", scale_factor=2, kernel_size=1)  # type: ignore[arg-type]


def test_tensors_and_their_subclasses_are_not_recorded() -> None:
    class Own(Tensor):
        pass

    assert not is_recorded(torch.ones(1), torch.ones(1).as_subclass(Own), nn.Parameter(torch.ones(1)), None, 3, "a")
    calls = []

    @recordable
    def double(x: Tensor) -> Tensor:
        calls.append(type(x))
        return x * 2

    with torch.device("cpu"):  # a mode, which asks for all calls
        assert type(double(torch.ones(1).as_subclass(Own))) is Own
    assert calls == [Own]
