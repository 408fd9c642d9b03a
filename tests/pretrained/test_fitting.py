"""Weights that fit a network, and those that do not: other shapes, other numbers, and numbers that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddfnet.cli.main import main
from ddfnet.pretrained import load, load_state_dict_checked
from ddfnet.pretrained.fitting import Budget
from tests.guided_networks import network as guided_network
from tests.upsampling import pair


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def weights(**changes: Any) -> dict[str, Any]:
    """Return a state dict with changes by index and name (``_0_bias``); None takes a value out."""
    state: dict[str, Any] = dict(network().state_dict())
    for name, value in changes.items():
        state[name.removeprefix("_").replace("_", ".", 1)] = value
    return {name: value for name, value in state.items() if value is not None}


def test_weights_that_fit_are_loaded() -> None:
    loaded, state = network(), weights(_0_bias=torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    load_state_dict_checked(loaded, state)
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
        load_state_dict_checked(loaded, weights(**changes))
    assert str(raised.value) == f"the weights do not fit this Sequential: {problem}"
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"_0_bias": torch.tensor([1, torch.nan, 2])}, "0.bias must be finite, got nan or inf in 1 of 3 values"),
        ({"_0_weight": torch.full((3, 2), -torch.inf)}, "0.weight must be finite, got nan or inf in 6 of 6 values"),
        (
            {"_1_running_mean": torch.full((3,), 1e300, dtype=torch.float64)},
            "1.running_mean must be finite, got ",
        ),
        (
            {"_1_running_var": torch.tensor([1.0, -2.0, 1.0])},
            "1.running_var must not be negative, for it is a ",
        ),
        ({"_0_weight": torch.ones(3, 2).int()}, "0.weight must be floating, of 16 to 64 bits, got torch.int32"),
        ({"_0_weight": torch.ones(3, 2) * 1j}, "0.weight must be floating, of 16 to 64 bits, got torch.complex64"),
        ({"_0_weight": torch.ones(3, 2).bool()}, "0.weight must be floating, of 16 to 64 bits, got torch.bool"),
        ({"_1_num_batches_tracked": torch.tensor(3.5)}, "1.num_batches_tracked must be of integers, got torch.float32"),
        ({"_0_weight": torch.ones(3, 2).to_sparse()}, "0.weight must be a dense tensor, got torch.sparse_coo"),
        ({"_0_weight": torch.ones(3, 2, device="meta")}, "0.weight must be a dense tensor, got one without values"),
    ],
    ids=lambda value: value.partition(",")[0] if isinstance(value, str) else "",
)
def test_numbers_that_a_network_cannot_compute_with(changes: dict[str, Any], problem: str) -> None:
    loaded = network()
    before = {name: value.clone() for name, value in loaded.state_dict().items()}
    with pytest.raises(ValueError) as raised:
        load_state_dict_checked(loaded, weights(**changes))
    assert str(raised.value).startswith(f"the weights do not fit this Sequential: {problem}")
    assert all(torch.equal(value, before[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types_fit(dtype: torch.dtype) -> None:
    loaded, state = network(), {name: value.to(dtype) for name, value in weights().items() if value.ndim}
    load_state_dict_checked(loaded, {**weights(), **state})
    assert loaded.state_dict()["0.weight"].dtype == torch.float32
    assert torch.equal(loaded.state_dict()["0.weight"], state["0.weight"].float())


def test_large_values_whose_sum_is_not_finite_fit() -> None:
    large = torch.full((3, 2), 3e38)
    assert large.sum().isinf()
    load_state_dict_checked(network(), weights(_0_weight=large))


def test_a_counter_of_another_width_fits() -> None:
    loaded = network()
    load_state_dict_checked(loaded, weights(_1_num_batches_tracked=torch.tensor(7, dtype=torch.int32)))
    assert int(loaded.state_dict()["1.num_batches_tracked"]) == 7


class Masked(nn.Module):
    """Network with a mask that is infinite by construction."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))


def test_a_mask_of_the_network_s_own_may_be_infinite() -> None:
    load_state_dict_checked(Masked(), Masked().state_dict())
    with pytest.raises(ValueError, match="mask must be finite, got nan or inf in 1 of 4 values"):
        load_state_dict_checked(Masked(), {"mask": torch.tensor([[0.0, -torch.inf], [torch.inf, 0.0]])})


def test_a_command_refuses_such_weights_before_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    made = guided_network(4)
    state = made.state_dict()
    state["target.0.weight"][0, 0, 0, 0] = torch.nan
    metadata = {"kind": '"depth"', "init_args": json.dumps(made.init_args)}
    safetensors.save_file(state, tmp_path / "nan.safetensors", metadata)
    depth, guide = pair(tmp_path, "a")
    words = ["upsample", str(depth), "--guide", str(guide), "-o", str(tmp_path / "out.npy")]
    assert main([*words, "--model", str(tmp_path / "nan.safetensors")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "target.0.weight must be finite, got nan or inf in 1 of " in line
    assert not (tmp_path / "out.npy").exists()
    with pytest.raises(ValueError, match="target.0.weight must be finite"):
        load(tmp_path / "nan.safetensors")


# --- the size of a network while it is built --------------------------------------------------------------------------


def test_a_budget_has_room_for_the_network_and_no_more() -> None:
    state = nn.Linear(100, 100).state_dict()
    with Budget(state):
        nn.Linear(100, 100)
    with pytest.raises(ValueError, match="far larger network"), Budget(state):
        torch.empty(2**20, 2**20)
    with pytest.raises(ValueError, match="far larger network"), Budget(state):
        torch.zeros(size=(2**20, 2**20))
    with pytest.raises(ValueError, match="far larger network"), Budget(state):
        while True:
            nn.Linear(2, 2)
    nn.Linear(2, 2)  # outside there is none


def test_random_numbers_are_not_drawn_for_parameters_but_for_buffers() -> None:
    state = nn.Conv2d(8, 8, 3).state_dict()
    before = torch.random.get_rng_state()
    with Budget(state):
        layer = nn.Conv2d(8, 8, 3)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert isinstance(layer.weight, nn.Parameter) and not layer.weight.any() and layer.weight.requires_grad
        layer.register_buffer("noise", torch.empty(8).normal_(), persistent=False)
    assert layer.noise.any()
