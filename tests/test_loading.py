"""Weights that do not fit: one line that says how, and a network that is left as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddfnet.loading import load_weights


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def weights(**changes: Any) -> dict[str, Any]:
    """A state dict, with changes by index and name (``_0_bias``); None takes a value out."""
    state: dict[str, Any] = dict(network().state_dict())
    for name, value in changes.items():
        state[name.removeprefix("_").replace("_", ".", 1)] = value
    return {name: value for name, value in state.items() if value is not None}


def test_weights_that_fit_are_loaded() -> None:
    loaded, state = network(), weights(_0_bias=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    load_weights(loaded, state)
    assert all(torch.equal(value, state[name].to(value.dtype)) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"_0_bias": torch.ones(4)}, "0.bias must be (3,), got (4,)"),
        ({"_0_bias": 3}, "0.bias must be a tensor, got int"),
        ({"_0_bias": None, "_1_running_mean": None}, "0.bias is missing; 1.running_mean is missing"),
        ({"_2_x": torch.ones(1)}, "2.x is unknown"),
        (
            {"_0_weight": torch.ones(3), "_0_bias": None, "_2_a": torch.ones(1), "_2_b": 0, "_2_c": 0},
            "0.weight must be (3, 2), got (3,); 0.bias is missing; 2.a is unknown; and 2 more",
        ),
    ],
    ids=["shape", "no tensor", "missing", "unknown", "many"],
)
def test_others_are_refused_in_one_line(changes: dict[str, Any], problem: str) -> None:
    loaded = network()
    before: dict[str, Tensor] = {name: value.clone() for name, value in loaded.state_dict().items()}
    with pytest.raises(ValueError) as raised:
        load_weights(loaded, weights(**changes))
    assert str(raised.value) == f"the weights do not fit this Sequential: {problem}"
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())
