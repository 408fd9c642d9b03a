"""Files of networks: those from before 0.1.0, and the cards beside files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ddfnet import pretrained
from ddfnet.pretrained import Header, load, read_card, read_header

safetensors = pytest.importorskip("safetensors.torch")

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


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "cannot be read: Expecting property name"),
        ("[1]", "must hold a dictionary, got list"),
        ("3", "must hold a dictionary, got int"),
        ("[" * 100_000, "cannot be read: maximum recursion depth"),
        (b"\xff", "cannot be read: 'utf-8' codec can't decode"),
    ],
    ids=["broken", "list", "number", "deep", "bytes"],
)
def test_a_malformed_card_is_one_line(tmp_path: Path, content: str | bytes, problem: str) -> None:
    card = tmp_path / "a.json"
    card.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError) as raised:
        read_card(tmp_path / "a.safetensors")
    line = str(raised.value)
    assert line.startswith(f"{tmp_path / 'a.safetensors'}: its card {card} {problem}") and "\n" not in line
