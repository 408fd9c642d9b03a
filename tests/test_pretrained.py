"""Kinds of networks, their files old and new, and weights that do not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddfnet import pretrained
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.pretrained import (
    Header,
    PretrainedMixin,
    header_of,
    load,
    load_state_dict_checked,
    read_header,
    register_kind,
    save,
)

safetensors = pytest.importorskip("safetensors.torch")

# --- kinds ----------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def kinds() -> Iterator[None]:
    """Forget the kinds that a test registers."""
    yield
    for kind in ("stranger", "sub"):
        pretrained._KINDS.pop(kind, None)


def stranger() -> Any:
    """Register a class of networks that the package does not know."""

    @register_kind("stranger")
    class Stranger(nn.Module, PretrainedMixin):
        def __init__(self, width: int, sizes: tuple[int, ...] = (1, 2), pretrained: bool = False, **more: Any) -> None:
            super().__init__()
            self.linear = nn.Linear(width, 2)

    return Stranger


def test_a_class_from_elsewhere_is_saved_and_loaded(tmp_path: Path) -> None:
    cls = stranger()
    network = cls(3, pretrained=True, shade=0.5)
    assert header_of(network) == Header("stranger", {"width": 3, "sizes": [1, 2], "pretrained": False, "shade": 0.5})
    save(network, tmp_path / "a.safetensors")
    loaded: Any = load(tmp_path / "a.safetensors")
    assert type(loaded) is cls and not loaded.training
    assert torch.equal(loaded.linear.weight, network.linear.weight)
    assert load(tmp_path / "a.safetensors", cls).init_args == network.init_args
    assert read_header(tmp_path / "a.safetensors", "stranger") == header_of(network)
    network.save_pretrained(tmp_path / "folder")
    assert torch.equal(cls.from_pretrained(tmp_path / "folder").linear.weight, network.linear.weight)


def test_a_subclass_records_its_own_arguments() -> None:
    @register_kind("sub")
    class Sub(stranger()):  # type: ignore[misc]
        def __init__(self, half: int) -> None:
            super().__init__(2 * half)

    assert header_of(Sub(2)) == Header("sub", {"half": 2})


def test_a_copy_keeps_its_arguments() -> None:
    import copy
    import pickle

    network = GuidedUpsampler(2, channels=4)
    assert copy.deepcopy(network).init_args == network.init_args == pickle.loads(pickle.dumps(network)).init_args


def test_what_cannot_be_registered_or_saved(tmp_path: Path) -> None:
    stranger()
    with pytest.raises(ValueError, match=r"kind 'stranger' is taken by .*Stranger; choose another name"):
        register_kind("stranger")(nn.Linear)
    with pytest.raises(TypeError, match=r"Sequential.__init__ must take arguments by name, got \*args"):
        register_kind("sequence")(nn.Sequential)
    with pytest.raises(ValueError, match=r"must be registered with ddfnet\.pretrained\.register_kind, got Linear"):
        save(nn.Linear(1, 1), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_kind_that_nobody_registered(tmp_path: Path) -> None:
    save(nn.Linear(1, 1), tmp_path / "a.safetensors", header=Header("wings", {}))
    with pytest.raises(ValueError) as raised:
        load(tmp_path / "a.safetensors")
    assert "its kind must be one of 'classification', 'depth', 'detection', " in str(raised.value)
    assert "got 'wings'; import the module that registers it with" in str(raised.value)


def test_a_kind_is_imported_when_a_file_is_read(tmp_path: Path) -> None:
    save(GuidedUpsampler(2, channels=4, guide_channels=4), tmp_path / "a.safetensors")
    code = (
        "import sys, ddfnet.pretrained\n"
        "before = 'ddfnet.depth.network' in sys.modules\n"
        "print(before, type(ddfnet.pretrained.load(sys.argv[1])).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.safetensors")], capture_output=True, text=True)
    assert done.stdout == "False GuidedUpsampler\n", done.stderr


# --- files from before 0.1.0, whose header does not name a kind -------------------------------------------------------

GUIDED = {"scale_factor": 2, "channels": 4, "guide_channels": 4}
SMALL = {"name": "small_resnet23", "num_classes": 3, "options": {"layers": [1, 1, 1], "channels": [2, 2, 4]}}
DETECTOR = {"classes": ["cat"], "backbone": "mobilenetv3_small_050", "width": 8, "head_width": 8, "pretrained": False}
OLD: dict[str, dict[str, Any]] = {
    "depth": {"network": GUIDED},
    "classification": {"network": SMALL, "preprocessing": {"size": 32, "mean": [0.5, 0.5, 0.5]}},
    "detection": {"network": DETECTOR},
}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("kind", OLD)
def test_old_files_are_loaded(tmp_path: Path, kind: str, suffix: str) -> None:
    if kind != "depth":
        pytest.importorskip("timm")
    if kind == "detection":
        pytest.importorskip("torchvision")
    made = pretrained.build(Header(kind, OLD[kind]["network"]))
    state, file = made.state_dict(), tmp_path / f"old{suffix}"
    if suffix == ".ckpt":
        own = {f"network.{name}": value for name, value in state.items()}
        torch.save({**OLD[kind], "state_dict": {**own, "metric": torch.ones(1)}, "epoch": 3}, file)
    else:
        metadata = {name: json.dumps(value) for name, value in OLD[kind].items()}
        safetensors.save_file({name: value.contiguous() for name, value in state.items()}, file, metadata)
    loaded = load(file).state_dict()
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)
    assert read_header(file) == Header(
        kind, OLD[kind]["network"], {name: value for name, value in OLD[kind].items() if name != "network"}
    )


# --- weights that do not fit ----------------------------------------------------------------------------------------


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
