"""The files of a trained classifier, and files that are something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("timm")
pytest.importorskip("safetensors")

import torch
from torch import nn

from ddfnet.depth import weights_files
from ddfnet.models import classifier_files, network_files
from tests.guided_networks import network as guided_network

MADE_OF = {"name": "small_resnet23", "num_classes": 3, "options": {"layers": [1, 1, 1], "channels": [2, 2, 4]}}
PREPROCESSING = {"size": 32, "mean": [0.5, 0.5, 0.5]}
MEND = "a file that `ddfnet train classification` wrote is required, *.safetensors or *.ckpt"


@pytest.fixture
def network() -> nn.Module:
    return classifier_files.create(**MADE_OF)  # type: ignore[arg-type]


def checkpoint(file: Path, made: nn.Module, **others: Any) -> Path:
    state = {f"network.{name}": value for name, value in made.state_dict().items()}
    whole = {"network": MADE_OF, "preprocessing": PREPROCESSING, "state_dict": {**state, "metric": torch.ones(1)}}
    torch.save({**whole, **others}, file)
    return file


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt"])
def test_what_is_saved_is_loaded(network: nn.Module, tmp_path: Path, name: str) -> None:
    if name == "a.ckpt":
        checkpoint(tmp_path / name, network)
    else:
        classifier_files.save(network, MADE_OF, PREPROCESSING, tmp_path / name, {"seed": 3})
        assert network_files.card(tmp_path / name) == {"seed": 3}
    loaded, made_of, preprocessing = classifier_files.load(tmp_path / name)
    assert (made_of, preprocessing) == (MADE_OF, PREPROCESSING) and not loaded.training
    ours, theirs = network.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def fails(file: Path) -> str:
    with pytest.raises(ValueError) as caught:
        classifier_files.load(file)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{file}: ")


def test_other_files(network: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    assert fails(file) == "no such file"
    misfit = "the weights do not fit this SmallResNet: fc.weight must be (4, 16), got (3, 16); fc.bias must be (4,), "
    misfit += "got (3,)"
    assert fails(checkpoint(file, network, network={**MADE_OF, "num_classes": 4})) == f"{MEND} (ValueError: {misfit})"
    assert fails(checkpoint(file, network, network={**MADE_OF, "name": "wings"})).startswith(f"{MEND} (ValueError: ")
    guided = tmp_path / "guided.safetensors"
    weights_files.save(guided_network(4), guided, {})
    assert fails(guided) == f"{MEND} (KeyError: 'preprocessing')"


def test_a_module_of_the_users_cannot_be_made_again(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    classifier_files.save(nn.Linear(2, 2), None, PREPROCESSING, file, {})
    assert fails(file) == f"{MEND} (ValueError: its network must be one that timm knows by its name, got a module)"


def test_a_broken_card_is_named(network: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    classifier_files.save(network, MADE_OF, PREPROCESSING, file, {})
    file.with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.safetensors: its card .*a\.json cannot be read: "):
        network_files.card(file)
