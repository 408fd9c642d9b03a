"""Options that a file may give to timm, and those that it may not: nothing is opened, and nothing is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("timm")
pytest.importorskip("torchvision")
pytest.importorskip("safetensors")

import timm
import torch
from safetensors.torch import save_file
from timm.models import model_entrypoint

from ddfnet.models import DDFResNet, Detector
from ddfnet.models.classifier import create_classifier
from ddfnet.models.timm_options import BLOCK_OPTIONS, OPTIONS, check_file_options
from ddfnet.pretrained import Header, load, save

SMALL = {"layers": [1, 1, 1], "channels": [2, 2, 4]}
HOSTILE: dict[str, Any] = {
    "checkpoint_path": "bait.pth",
    "pretrained_cfg_overlay": {"file": "bait.pth"},
    "pretrained_cfg": {"url": "http://localhost/bait"},
    "cache_dir": "bait",
    "pretrained": True,
    "act_layer": "torch.nn.ReLU",
    "norm_layer": {"name": "x"},
    "block": "Bottleneck",
    "device": "cuda",
    "features_only": True,
    "layers": [2**31, 1, 1],
    "channels": [2, 2, 2**31],
    "num_classes": -1,
    "in_chans": 1.5,
    "drop_rate": "0.1",
    "avg_down": 1,
    "block_args": {"norm": "x"},
}


@pytest.fixture(autouse=True)
def bait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if timm opens a file or asks for an address."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a file or an address was asked for")

    monkeypatch.chdir(tmp_path)
    torch.save({}, "bait.pth")
    monkeypatch.setattr("socket.socket.connect", refuse)
    for place in ("load_checkpoint",):
        monkeypatch.setattr(f"timm.models._factory.{place}", refuse)
    monkeypatch.setattr("timm.models._builder.load_pretrained", refuse)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_cannot_have_it(tmp_path: Path, name: str) -> None:
    header = {"name": "small_resnet23", "num_classes": 3, "options": {**SMALL, name: HOSTILE[name]}}
    state = create_classifier("small_resnet23", 3, SMALL).state_dict()
    metadata = {"kind": '"classification"', "init_args": json.dumps(header)}
    save_file(state, tmp_path / "a.safetensors", metadata)
    own = {f"network.{each}": value for each, value in state.items()}
    torch.save({"header": {"kind": "classification", "init_args": header}, "state_dict": own}, tmp_path / "a.ckpt")
    for file in ("a.safetensors", "a.ckpt"):
        with pytest.raises(ValueError) as raised:
            load(tmp_path / file)
        inner = next(iter(HOSTILE[name])) if name == "block_args" else name
        assert f"(ValueError: its option {inner} " in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_folder_cannot_have_it(tmp_path: Path, name: str) -> None:
    network = timm.create_model("small_resnet23", num_classes=3, **SMALL)
    network.save_pretrained(tmp_path / "mine")
    file = tmp_path / "mine" / "config.json"
    config = json.loads(file.read_text())
    config["model_args"][name] = HOSTILE[name]
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError) as raised:
        DDFResNet.from_pretrained(tmp_path / "mine")
    assert "(ValueError: its option " in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["hf-hub:user/name", "local-dir:/tmp", "no_such_network", "os.system", ""])
def test_a_name_that_timm_s_registry_lacks(tmp_path: Path, name: str) -> None:
    state = create_classifier("small_resnet23", 3, SMALL).state_dict()
    header = Header("classification", {"name": name, "num_classes": 3, "options": {}})
    metadata = {key: json.dumps(value) for key, value in header.as_dict().items()}
    save_file(state, tmp_path / "a.safetensors", metadata)
    with pytest.raises(ValueError, match="network must be a name that timm knows, such as ddf_add_resnet18, "):
        load(tmp_path / "a.safetensors")


def test_a_folder_s_configuration_names_no_place_to_read_from(tmp_path: Path) -> None:
    network = timm.create_model("small_resnet23", num_classes=3, **SMALL)
    network.save_pretrained(tmp_path / "mine")
    file = tmp_path / "mine" / "config.json"
    config = json.loads(file.read_text())
    config["pretrained_cfg"] |= {"url": "http://localhost/bait", "file": "bait.pth", "custom_load": True}
    file.write_text(json.dumps(config))
    loaded: Any = DDFResNet.from_pretrained(tmp_path / "mine")
    assert not loaded.pretrained_cfg.get("url") and not loaded.pretrained_cfg.get("file")


DETECTOR: dict[str, Any] = {
    "backbone_options": {"checkpoint_path": "bait.pth"},
    "pretrained": "bait.pth",
    "backbone": "hf-hub:user/name",
    "max_size": 2**20,
    "min_size": [64, 2**20],
    "width": 2**20,
    "rcnn": {"box_score_thresh": {"a": 1}},
    "norm": 3,
    "classes": {"a": 1},
}


@pytest.mark.parametrize("name", DETECTOR)
def test_a_detector_s_file_cannot_have_it(tmp_path: Path, name: str) -> None:
    made = Detector(["red"], "mobilenetv3_small_050", width=16, head_width=32, min_size=64)
    header = {**made.init_args, name: DETECTOR[name]}
    save_file(made.state_dict(), tmp_path / "a.safetensors", {"kind": '"detection"', "init_args": json.dumps(header)})
    with pytest.raises(ValueError) as raised:
        load(tmp_path / "a.safetensors")
    assert "(ValueError: " in str(raised.value) and "\n" not in str(raised.value)


def test_options_that_shape_a_network_are_kept(tmp_path: Path) -> None:
    options = {**SMALL, "in_chans": 4, "block_args": {"norm": "sigmoid", "attn_layer": "se"}, "drop_rate": 0.1}
    made = create_classifier("small_resnet23", 3, {**options, "norm_layer": "groupnorm1", "global_pool": "max"})
    save(made, tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors")
    x = torch.rand(2, 4, 32, 32)
    assert torch.equal(loaded(x), made.eval()(x))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mobilenetv3_small_050", "levit_128s", "hrnet_w18_small"])
def test_any_network_of_timm_is_built_within_the_budget_of_its_weights(tmp_path: Path, name: str) -> None:
    made = create_classifier(name, 3).eval()
    save(made, tmp_path / "a.safetensors")
    loaded, x = load(tmp_path / "a.safetensors"), torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(loaded(x), made(x))


def test_each_option_on_the_list_is_one_of_a_network(tmp_path: Path) -> None:
    for rule in (*OPTIONS.values(), *BLOCK_OPTIONS.values()):
        check, words = rule
        assert words and not check({"a": 1}) and not check(2**40)


def test_first_weights_are_not_recorded() -> None:
    made = create_classifier("resnet10t", 2, {"channels": [8, 8, 8, 8], "pretrained": False, "cache_dir": None})
    assert made.init_args == {"name": "resnet10t", "num_classes": 2, "options": {"channels": [8, 8, 8, 8]}}  # type: ignore[comparison-overlap]


def test_a_network_from_elsewhere_has_options_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_entrypoint("resnet18"), "__module__", "newcomer")
    check_file_options("resnet18", {"wings": 2, "pretrained": False})
    for name in ("checkpoint_path", "pretrained_cfg_overlay"):
        with pytest.raises(ValueError, match=f"its option {name} is none that a file may have"):
            check_file_options("resnet18", {"wings": 2, name: "x"})
