"""Files of classifiers: a network of timm by its name, and files of something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("timm")
pytest.importorskip("safetensors")

import torch
from torch import nn

from ddfnet.models.classifier import complete_preprocessing, create_classifier
from ddfnet.pretrained import Header, header_of, load, read_card, read_header, save
from tests.guided_networks import network as guided_network

MADE_OF = {"name": "small_resnet23", "num_classes": 3, "options": {"layers": [1, 1, 1], "channels": [2, 2, 4]}}
PREPROCESSING = {"size": 32, "mean": [0.5, 0.5, 0.5]}
HEADER = Header("classification", MADE_OF, {"preprocessing": PREPROCESSING})
MEND = "a file that `ddfnet train classification` wrote is required, *.safetensors or *.ckpt"


@pytest.fixture
def network() -> nn.Module:
    return create_classifier(**MADE_OF)  # type: ignore[arg-type]


def checkpoint(file: Path, made: nn.Module, **others: Any) -> Path:
    state = {f"network.{name}": value for name, value in made.state_dict().items()}
    header = {"kind": "classification", "init_args": MADE_OF, "preprocessing": PREPROCESSING, **others}
    torch.save({"header": header, "state_dict": {**state, "metric": torch.ones(1)}}, file)
    return file


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt"])
def test_what_is_saved_is_loaded(network: nn.Module, tmp_path: Path, name: str) -> None:
    if name == "a.ckpt":
        checkpoint(tmp_path / name, network)
    else:
        save(network, tmp_path / name, header=HEADER, card={"seed": 3})
        assert read_card(tmp_path / name) == {"seed": 3}
    loaded = load(tmp_path / name, "classification")
    assert read_header(tmp_path / name) == HEADER and not loaded.training
    ours, theirs = network.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def fails(file: Path) -> str:
    with pytest.raises(ValueError) as caught:
        load(file, "classification")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{file}: ")


def test_other_files(network: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    assert fails(file) == "no such file"
    misfit = "the weights do not fit this SmallResNet: fc.weight must be (4, 16), got (3, 16); fc.bias must be (4,), "
    misfit += "got (3,)"
    assert fails(checkpoint(file, network, init_args={**MADE_OF, "num_classes": 4})) == f"{MEND} (ValueError: {misfit})"
    assert fails(checkpoint(file, network, init_args={**MADE_OF, "name": "wings"})).startswith(f"{MEND} (ValueError: ")
    guided = tmp_path / "guided.safetensors"
    save(guided_network(4), guided)
    assert fails(guided) == f"{MEND} (ValueError: its kind is 'depth')"


COMPLETE = {
    "size": 32,
    "crop_pct": 1.0,
    "eval_interpolation": "bicubic",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


def test_preprocessing_is_completed_from_the_network(network: nn.Module) -> None:
    assert complete_preprocessing(None, network) == complete_preprocessing({}, network) == COMPLETE
    assert complete_preprocessing({"size": None, "mean": None}, network) == COMPLETE
    assert complete_preprocessing({"measured_crop": 0.5}, network) == COMPLETE | {"crop_pct": 0.5}
    assert complete_preprocessing({"size": 48}, nn.Linear(1, 1)) == {"size": 48}


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (3, "its preprocessing must be a dictionary, got 3"),
        ([["size", 3]], "its preprocessing must be a dictionary, got [['size', 3]]"),
        ({"size": "32"}, "its preprocessing size must be a whole number from 1 to 4096, got '32'"),
        ({"size": 2**31}, "its preprocessing size must be a whole number from 1 to 4096, got 2147483648"),
        ({"size": -1}, "its preprocessing size must be a whole number from 1 to 4096, got -1"),
        ({"crop_pct": 0}, "its preprocessing crop_pct must be a number from 0.01 to 1, got 0"),
        ({"crop_pct": float("nan")}, "its preprocessing crop_pct must be a number from 0.01 to 1, got nan"),
        ({"eval_interpolation": "x"}, "its preprocessing eval_interpolation must be 'bicubic', 'bilinear', "),
        ({"mean": 0.5}, "its preprocessing mean must be a list, each of it a number from "),
        ({"std": [0, 1, 1]}, "its preprocessing std must be a list, each of it a number from "),
        ({"mean": [0.5] * 3, "std": [0.5]}, "its preprocessing must have as many means as stds, got 3 and 1"),
        ({"on_bad_image": "skip"}, "its preprocessing on_bad_image is none that a file may have"),
    ],
    ids=str,
)
def test_malformed_preprocessing_is_one_line(network: nn.Module, said: Any, problem: str) -> None:
    with pytest.raises(ValueError) as raised:
        complete_preprocessing(said, network)
    assert str(raised.value).startswith(problem) and "\n" not in str(raised.value)


def test_a_module_of_the_users_cannot_be_made_again(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save(nn.Linear(2, 2), file, header=HEADER._replace(init_args=None))
    reason = "its header has no init_args: the network was given as a module, not by its name"
    assert fails(file) == f"{MEND} (ValueError: {reason})"


def test_a_broken_card_is_named(network: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save(network, file, header=HEADER, card={})
    file.with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.safetensors: its card .*a\.json cannot be read: "):
        read_card(file)


def test_a_network_of_timm_has_its_header() -> None:
    network = create_classifier("resnet18", 3, {"in_chans": 1})
    assert header_of(network) == Header(
        "classification", {"name": "resnet18", "num_classes": 3, "options": {"in_chans": 1}}
    )
