"""Networks in folders and on a hub that is not there: they come back the same to the bit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("timm")
pytest.importorskip("torchvision")
pytest.importorskip("huggingface_hub")

import timm
import torch
from torch import nn

import ddfnet.models
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.models import DDFResNet, Detector
from ddfnet.pretrained import load
from tests.guided_networks import network as guided_network

RESNET = {"layers": (1, 1, 1, 1), "block_args": {"heads": 2}, "in_chans": 4}


def resnet(**options: Any) -> DDFResNet:
    """Create a network whose weights and running statistics differ from those of any new one."""
    network = timm.create_model("ddf_add_resnet18", num_classes=5, **{**RESNET, **options})
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand_like(value))
    return network.eval()


def detector() -> Detector:
    return Detector(["red", "blue"], "mobilenetv3_small_050", "ddf", width=16, head_width=32, min_size=64).eval()


MAKE = {"DDFResNet": resnet, "GuidedUpsampler": guided_network, "Detector": detector}


def same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(params=MAKE)
def network(request: pytest.FixtureRequest) -> Any:
    return MAKE[request.param]()


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a test reached for the network")

    monkeypatch.setattr("socket.socket.connect", refuse)


def test_a_folder_and_back(network: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network.train()
    assert network.save_pretrained(tmp_path / "mine") is None
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    loaded = type(network).from_pretrained(tmp_path / "mine")
    assert type(loaded) is type(network) and same(loaded, network)
    assert network.training and not any(module.training for module in loaded.modules())
    assert json.dumps(loaded.hub_config()) == json.dumps(network.hub_config())
    kind = type(network).__name__
    assert f'{kind}.from_pretrained("' in (tmp_path / "mine" / "README.md").read_text()
    assert same(getattr(ddfnet.models, kind).from_pretrained(str(tmp_path / "mine")), network)
    assert capfd.readouterr() == ("", "")


def test_the_weights_are_files_of_the_other_readers(network: Any, tmp_path: Path) -> None:
    network.save_pretrained(tmp_path)
    assert same(load(tmp_path / "model.safetensors", type(network).kind), network)


def test_the_hub_gets_the_folder(network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Api:
        def __init__(self, token: str | None = None) -> None:
            asked["token"] = token

        def create_repo(self, **options: Any) -> Any:
            asked["create"] = options
            return type("Url", (), {"repo_id": options["repo_id"]})

        def upload_folder(self, *, folder_path: Path, **options: Any) -> str:
            asked["upload"] = options
            shutil.copytree(folder_path, tmp_path / "there")
            return "address"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert network.push_to_hub("user/name", private=True, token="secret") == "address"
    assert asked["token"] == "secret"
    assert (asked["create"]["repo_id"], asked["create"]["private"]) == ("user/name", True)
    assert (asked["upload"]["repo_id"], asked["upload"]["repo_type"]) == ("user/name", "model")

    def download(repo_id: str, filename: str, **options: Any) -> str:
        assert (repo_id, options["revision"]) == ("user/name", "v1")
        return str(tmp_path / "there" / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert same(type(network).from_pretrained("user/name", revision="v1"), network)


# --- each of them ---------------------------------------------------------------------------------------------------


def test_options_in_the_place_of_those_that_were_saved(tmp_path: Path) -> None:
    detector().save_pretrained(tmp_path)
    assert Detector.from_pretrained(tmp_path, min_size=32).transform.min_size == (32,)


def test_a_resnet_as_it_is_now(tmp_path: Path) -> None:
    """Check a network with a new head, and with its own normalisation of images."""
    network = resnet()
    network.reset_classifier(3, "max")
    network.pretrained_cfg["mean"] = (0.1, 0.2, 0.3)  # type: ignore[index]
    network.save_pretrained(tmp_path)
    x = torch.rand(2, 4, 40, 40)
    expected = network(x)
    loaded = DDFResNet.from_pretrained(tmp_path)
    assert torch.equal(loaded(x), expected) and loaded.num_classes == 3
    assert tuple(loaded.pretrained_cfg["mean"]) == (0.1, 0.2, 0.3)  # type: ignore[index]


def test_the_small_resnet(tmp_path: Path) -> None:
    network = timm.create_model("small_resnet23", num_classes=4, mixer="depthwise", layers=(1, 1, 2))
    network.save_pretrained(tmp_path)
    loaded = DDFResNet.from_pretrained(tmp_path)
    assert type(loaded).__name__ == "SmallResNet" and same(loaded, network)
    assert same(load(tmp_path / "model.safetensors"), network)


def test_timm_reads_the_folder_of_a_resnet(tmp_path: Path) -> None:
    network = resnet()
    network.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]["input_size"] == [4, 224, 224]
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert same(loaded, network) and loaded.pretrained_cfg["num_classes"] == 5
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=2)
    assert other.fc.out_features == 2 and torch.equal(other.conv1.weight, network.conv1.weight)


# --- errors --------------------------------------------------------------------------------------------------


def message(source: Any, kind: Any = GuidedUpsampler, **options: Any) -> str:
    with pytest.raises(ValueError) as raised:
        kind.from_pretrained(source, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value).removeprefix(f"{source}: ")


MEND = "a folder or hub id that {}.save_pretrained wrote is required ("


@pytest.mark.parametrize("source", ["nowhere", "./no/where", "/no/where", "a/b/c", Path("user/name")], ids=str)
def test_no_such_folder(source: Any) -> None:
    assert message(source) == "no such folder, and no hub id, which is USER/NAME"


def test_no_such_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reason = message("user/name", local_files_only=True, cache_dir=tmp_path)
    assert reason.startswith(MEND.format("GuidedUpsampler") + "LocalEntryNotFoundError: ")


def broken_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def no_dictionary(folder: Path) -> None:
    (folder / "config.json").write_text("[1, 2]")


def unknown_option(folder: Path) -> None:
    (folder / "config.json").write_text('{"wings": 2}')


def other_shapes(folder: Path) -> None:
    (folder / "config.json").write_text('{"scale_factor": 4, "channels": 9, "guide_channels": 8}')


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "config.json").unlink(), "ValueError: there must be a config.json with a dictionary"),
        (lambda folder: (folder / "model.safetensors").unlink(), "FileNotFoundError: "),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no weights"), "SafetensorError: "),
        (broken_json, "JSONDecodeError: "),
        (no_dictionary, ""),
        (unknown_option, "TypeError: "),
        (other_shapes, "ValueError: the weights do not fit this GuidedUpsampler: target.0.weight must be (9, 4, 3, 3)"),
    ],
    ids=["no config", "no weights", "broken weights", "broken config", "no dictionary", "wings", "other shapes"],
)
def test_a_folder_with_something_else(tmp_path: Path, spoil: Any, reason: str) -> None:
    guided_network(4).save_pretrained(tmp_path)
    spoil(tmp_path)
    assert message(tmp_path).startswith(MEND.format("GuidedUpsampler") + reason)


def test_a_folder_of_another_network(tmp_path: Path) -> None:
    resnet().save_pretrained(tmp_path / "ours")
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    (tmp_path / "ours" / "config.json").write_text(json.dumps({**config, "architecture": "resnet18", "model_args": {}}))
    reason = "ValueError: its architecture must be a DDFResNet, got 'resnet18')"
    assert message(tmp_path / "ours", DDFResNet) == MEND.format("DDFResNet") + reason
    guided_network(4).save_pretrained(tmp_path / "guided")
    assert message(tmp_path / "guided", Detector).startswith(MEND.format("Detector") + "TypeError: ")
    assert message(tmp_path / "guided", DDFResNet) == MEND.format("DDFResNet") + "KeyError: 'architecture')"


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    resnet().save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"^the network's arguments must be such as JSON can hold, .*: Object of"):
        resnet(act_layer=nn.SiLU).save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_network_that_timm_did_not_make(tmp_path: Path) -> None:
    from ddfnet.models.resnet import DDFBasicBlock

    with pytest.raises(ValueError, match=r"must be one that timm\.create_model made"):
        DDFResNet(DDFBasicBlock, (1, 1, 1, 1)).save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


# --- without the extra ----------------------------------------------------------------------------------------------


def test_without_huggingface_hub_folders_work(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['huggingface_hub', 'timm', 'torchvision']))\n"
        "from ddfnet.depth.network import GuidedUpsampler, default_model\n"
        "network = default_model()\n"
        "network.save_pretrained(sys.argv[1])\n"
        "print(GuidedUpsampler.from_pretrained(sys.argv[1]).scale_factor)\n"
        "for call in (network.push_to_hub, GuidedUpsampler.from_pretrained):\n"
        "    try:\n"
        "        call('user/name')\n"
        "    except ModuleNotFoundError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    line = "repositories of the Hugging Face Hub need huggingface_hub: pip install 'ddfnet[models]'"
    assert done.stdout.splitlines() == ["16", line, line]
