"""Files of the depth network: saved and loaded without loss; any other file is one line of error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("safetensors")

from safetensors.torch import load_file, save_file

from ddfnet.depth.network import GuidedUpsampler
from ddfnet.pretrained import header_of, load, read_card, save
from tests.guided_networks import network

CARD = {"seed": 0, "metrics": {"x4": [1.5, None]}, "command": "ddfnet train depth"}


def same(a: GuidedUpsampler, b: GuidedUpsampler) -> bool:
    """Tell whether options, weights and results are equal, to the bit."""
    ours, theirs = a.state_dict(), b.state_dict()
    if a.init_args != b.init_args or ours.keys() != theirs.keys():
        return False
    factor = a.scale_factor
    given = torch.rand(1, 1, 5, 4), torch.rand(1, 3, 5 * factor, 4 * factor)
    return all(torch.equal(ours[name], theirs[name]) for name in ours) and torch.equal(
        a.eval()(*given).depth, b.eval()(*given).depth
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    file = tmp_path / "guided.safetensors"
    save(network(4), file, card=CARD)
    return file


def checkpoint(file: Path, made: GuidedUpsampler, **other: Any) -> None:
    """Write a checkpoint as a training does, with all that its state dict may hold."""
    state = {f"network.{name}": value for name, value in made.state_dict().items()}
    content = {"header": header_of(made).as_dict(), "state_dict": {**state, "metric.total": torch.ones(1)}, "epoch": 3}
    torch.save({**content, **other}, file)


def message(file: Path) -> str:
    with pytest.raises(ValueError) as raised:
        load(file, GuidedUpsampler)
    text = str(raised.value)
    assert type(raised.value) is ValueError and "\n" not in text and text.startswith(f"{file}: ")
    return text


# --- there and back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale_factor": 8, "kernel_size": 5, "blocks": 2, "channels": 6},
        {"carry": False, "norm": "filter", "combine": "add"},
        {"norm": "batch", "filters": "spatial"},  # has buffers, one of them of integers
        {"filters": "channel"},
        {"upsampler": "bilinear"},
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_what_is_saved_is_loaded(tmp_path: Path, options: dict[str, Any], suffix: str) -> None:
    made, file = network(seed=3, **options), tmp_path / f"guided{suffix}"
    if suffix == ".ckpt":
        checkpoint(file, made)
    else:
        save(made, file, card=CARD)
    loaded = load(file, GuidedUpsampler)
    assert same(loaded, made)
    assert not any(module.training for module in loaded.modules())


def test_nothing_but_weights_and_card_is_written(saved: Path) -> None:
    assert sorted(path.name for path in saved.parent.iterdir()) == ["guided.json", "guided.safetensors"]
    assert load_file(saved).keys() == network(4).state_dict().keys()


def test_channels_last_weights_are_saved(tmp_path: Path) -> None:
    made = network(4).to(memory_format=torch.channels_last)
    save(made, tmp_path / "guided.safetensors")
    assert same(load(tmp_path / "guided.safetensors", GuidedUpsampler), made)


def test_the_network_that_is_saved_is_left_as_it_was(tmp_path: Path) -> None:
    made = network(4).train()
    save(made, tmp_path / "guided.safetensors")
    assert made.training and all(parameter.requires_grad for parameter in made.parameters())


def test_the_card_lies_beside(saved: Path) -> None:
    assert read_card(saved) == json.loads(saved.with_suffix(".json").read_text()) == CARD
    assert saved.with_suffix(".json").read_text().endswith("}\n")


def test_without_a_card(saved: Path) -> None:
    saved.with_suffix(".json").unlink()
    assert read_card(saved) is None
    assert same(load(saved, GuidedUpsampler), network(4))


def test_a_file_is_replaced(saved: Path) -> None:
    save(network(2, seed=5), saved, card={"seed": 5})
    assert same(load(saved, GuidedUpsampler), network(2, seed=5))
    assert read_card(saved) == {"seed": 5}


@pytest.mark.skipif(os.name != "posix", reason="permissions of Unix")
def test_whoever_may_read_a_new_file_may_read_these(saved: Path) -> None:
    (saved.parent / "other").touch()
    modes = {path.stat().st_mode for path in saved.parent.iterdir()}
    assert len(modes) == 1


# --- a writing that fails ---------------------------------------------------------------------------------


def full(after: int) -> Callable[[int], None]:
    """Return an `os.fsync` that finds the disk full once so many files are on it."""
    left = iter(range(after))

    def fsync(_: int) -> None:
        if next(left, None) is None:
            raise OSError(28, "No space left on device")

    return fsync


def test_where_writing_weights_fails_the_files_are_as_they_were(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()
    monkeypatch.setattr(os, "fsync", full(after=0))
    with pytest.raises(OSError, match="No space left"):
        save(network(4, seed=9), saved, card={"seed": 9})
    assert saved.read_bytes() == before
    assert read_card(saved) == CARD


def test_where_writing_the_card_fails_each_file_is_whole(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full(after=1))
    with pytest.raises(OSError, match="No space left"):
        save(network(4, seed=9), saved, card={"seed": 9})
    assert read_card(saved) == CARD
    assert same(load(saved, GuidedUpsampler), network(4, seed=9))


# --- files that are not ours ------------------------------------------------------------------------------


def test_no_such_file(tmp_path: Path) -> None:
    for file in (tmp_path / "none.safetensors", tmp_path / "none.ckpt", tmp_path):
        assert message(file) == f"{file}: no such file"


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def header_only(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:20])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def text(file: Path) -> None:
    file.write_text("not weights at all\nand a second line\n")


@pytest.mark.parametrize("spoil", [truncated, header_only, empty, text])
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".pt"])
def test_a_broken_file(saved: Path, spoil: Callable[[Path], None], suffix: str) -> None:
    file = saved.with_suffix(suffix)
    if suffix != ".safetensors":
        checkpoint(file, network(4))
    spoil(file)
    assert "a file that `ddfnet train depth` wrote is required, *.safetensors or *.ckpt (" in message(file)


def foreign_safetensors(file: Path, metadata: dict[str, str] | None, **weights: torch.Tensor) -> str:
    save_file(weights, file, metadata=metadata)
    return message(file)


def test_weights_of_another_model(tmp_path: Path) -> None:
    file = tmp_path / "foreign.safetensors"
    options = network(4).init_args
    ours = {name: value.contiguous() for name, value in network(4).state_dict().items()}
    other = {"weight": torch.ones(3)}
    for metadata in (
        None,
        {"format": "pt"},
        {"network": "no JSON"},
        {"network": "[1, 2]"},
        {"network": json.dumps({**options, "wings": 2})},
        {"network": json.dumps({**options, "scale_factor": 3})},
        {"network": json.dumps({**options, "channels": 9})},
        {"network": json.dumps({**options, "upsampler": "bilinear"})},
    ):
        assert "`ddfnet train depth`" in foreign_safetensors(file, metadata, **ours)
    assert "`ddfnet train depth`" in foreign_safetensors(file, {"network": json.dumps(options)}, **other)
    assert "wings" in foreign_safetensors(file, {"network": json.dumps({**options, "wings": 2})}, **ours)
    reason = "scale_factor must be a power of two from 2 on, got 3"
    assert reason in foreign_safetensors(file, {"network": json.dumps({**options, "scale_factor": 3})}, **ours)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {"fc.weight": torch.ones(2)}},  # from another training
        {"network": None, "state_dict": {}},
        {"network": {"scale_factor": 4, "channels": 8, "guide_channels": 8}, "state_dict": {}},
        {"fc.weight": torch.ones(2)},
        [1, 2],
        torch.ones(3),
    ],
    ids=["no options", "options are None", "no weights", "a bare state dict", "a list", "a tensor"],
)
def test_a_checkpoint_of_another_training(tmp_path: Path, content: Any) -> None:
    file = tmp_path / "last.ckpt"
    torch.save(content, file)
    assert "`ddfnet train depth`" in message(file)


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    """A pickle can: what is in it besides numbers is refused."""

    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    file = tmp_path / "last.ckpt"
    checkpoint(file, network(4), callbacks=Payload())
    assert "`ddfnet train depth`" in message(file)
    assert not (tmp_path / "ran").exists()


# --- without the extras -----------------------------------------------------------------------------------


def bare(without: list[str], code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Python where some packages are not installed."""
    missing = f"import sys; sys.modules.update(dict.fromkeys({without}))"
    return subprocess.run([sys.executable, "-c", f"{missing}\n{code}", *arguments], capture_output=True, text=True)


LOADS = """
import torch
import ddfnet
guide = torch.randint(256, (16, 20, 3), dtype=torch.uint8)
print(tuple(ddfnet.upsample_depth(1 + torch.rand(4, 5), guide, model=sys.argv[1]).shape))
"""


def test_loading_needs_safetensors_alone(saved: Path) -> None:
    done = bare(["timm", "numpy", "torchvision", "lightning"], LOADS, str(saved))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(16, 20)\n"


def test_without_safetensors_the_mend_is_named(saved: Path) -> None:
    done = bare(["safetensors"], LOADS, str(saved))
    assert done.returncode == 1
    expected = "ModuleNotFoundError: reading weights needs safetensors: pip install 'ddfnet[upsample]'"
    assert done.stderr.splitlines()[-1] == expected


def test_a_checkpoint_needs_torch_alone(tmp_path: Path) -> None:
    checkpoint(tmp_path / "last.ckpt", network(4))
    done = bare(["safetensors", "timm", "numpy", "torchvision", "lightning"], LOADS, str(tmp_path / "last.ckpt"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(16, 20)\n"
