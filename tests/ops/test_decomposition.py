"""Operator decomposed for exporters, against the reference."""

from __future__ import annotations

import pytest
import torch

from ddfnet.ops.decomposition import decompose
from tests.ops.cases import CASES, Case, assert_close, kernel


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
def test_values(case: Case, dtype: torch.dtype) -> None:
    if max(case.geometry.padding) > 1000:
        case = Case("far apart", stride=(7, 5), dilation=(30, 20), size=(12, 9))  # a padded map is stored
    input, channel, spatial = case.tensors(dtype)
    with kernel("reference"):
        expected = case.call(*(None if t is None else t.double() for t in (input, channel, spatial)))
    joined = channel.flatten(1, 2) if channel is not None and channel.dim() == 5 else channel
    got = decompose(input, joined, spatial, case.geometry)
    assert got.is_contiguous() or not got.numel()
    assert_close("output", got, expected, dtype)
