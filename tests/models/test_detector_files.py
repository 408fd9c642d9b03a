"""Files of detectors, and files of something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torchvision")
pytest.importorskip("timm")
pytest.importorskip("safetensors")

import torch
from safetensors.torch import save_file

from ddfnet.depth.network import GuidedUpsampler
from ddfnet.models.faster_rcnn import Detector
from ddfnet.pretrained import header_of, load, read_card, save

OPTIONS = {"backbone": "mobilenetv3_small_050", "width": 16, "head_width": 32, "min_size": 64}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(["red", "blue"], upsampler="carafe", **OPTIONS).eval()  # type: ignore[arg-type]


def test_what_is_saved_is_loaded(detector: Detector, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save(detector, file, card={"seed": 3})
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "model.json"}
    loaded = load(file, Detector)
    assert loaded.classes == ("red", "blue") and not loaded.training
    images = [torch.rand(3, 64, 64)]
    with torch.inference_mode():
        assert all(
            torch.equal(a, b) for a, b in zip(*(net(images)[0].values() for net in (loaded, detector)), strict=True)
        )
    assert read_card(file) == {"seed": 3}
    assert read_card(tmp_path / "other.safetensors") is None


def test_a_checkpoint(detector: Detector, tmp_path: Path) -> None:
    state = {f"network.{name}": value for name, value in detector.state_dict().items()}
    header = header_of(detector).as_dict()
    torch.save({"header": header, "state_dict": {**state, "metric": torch.ones(1)}}, tmp_path / "a.ckpt")
    loaded = load(tmp_path / "a.ckpt", Detector)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), detector.parameters(), strict=True))


def fails(file: Path) -> str:
    with pytest.raises(ValueError) as caught:
        load(file, Detector)
    assert "\n" not in str(caught.value)
    return str(caught.value)


MEND = "a file that `ddfnet train detection` wrote is required, *.safetensors or *.ckpt"


def test_no_file(tmp_path: Path) -> None:
    assert fails(tmp_path / "a.ckpt") == f"{tmp_path / 'a.ckpt'}: no such file"


@pytest.mark.parametrize("name", ["a.ckpt", "a.safetensors"])
def test_a_broken_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nothing of the kind")
    assert fails(tmp_path / name).startswith(f"{tmp_path / name}: {MEND} (")


def test_another_network_s(tmp_path: Path) -> None:
    file = tmp_path / "guided.safetensors"
    save(GuidedUpsampler(4, channels=8, guide_channels=8), file)
    assert fails(file) == f"{file}: {MEND} (ValueError: its kind is 'depth')"
    torch.save({"network": {"scale_factor": 4}, "state_dict": {}}, tmp_path / "guided.ckpt")
    assert fails(tmp_path / "guided.ckpt") == f"{tmp_path / 'guided.ckpt'}: {MEND} (ValueError: its kind is 'depth')"
    save_file({"weight": torch.ones(1)}, tmp_path / "any.safetensors")
    assert fails(tmp_path / "any.safetensors").startswith(f"{tmp_path / 'any.safetensors'}: {MEND} (")


def test_options_and_weights_that_do_not_fit(detector: Detector, tmp_path: Path) -> None:
    options = {**detector.init_args, "upsampler": "ddf"}
    save_file(
        detector.state_dict(), tmp_path / "a.safetensors", {"kind": '"detection"', "init_args": json.dumps(options)}
    )
    reason = fails(tmp_path / "a.safetensors").removeprefix(f"{tmp_path / 'a.safetensors'}: {MEND} ")
    assert reason.startswith("(ValueError: the weights do not fit this Detector: ")
