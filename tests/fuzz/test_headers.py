"""Damaged files of networks: each ends in one line, or loads a network that works, in seconds and little memory."""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("timm")
pytest.importorskip("torchvision")
pytest.importorskip("safetensors")

import timm
import torch
from safetensors.torch import save as serialise
from torch import Tensor, nn

from ddfnet.cli.main import main
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.models import DDFResNet, Detector
from ddfnet.models.classifier import complete_preprocessing
from ddfnet.pretrained import header_of, load_with_header, read_card
from tests.fuzzing import Cases

SECONDS = 5.0
MEBIBYTES = 512  # growth of the process in a case, at most
DEEP = "deep"  # stands for lists in lists that Python itself cannot write
SMALL = {"layers": (1, 1, 1), "channels": (2, 2, 4), "block_args": {"heads": 2}}


class Sample(NamedTuple):
    """A network, and a call that shows whether one like it works."""

    network: Any
    call: Callable[[Any], Tensor]


def upsample(network: Any) -> Tensor:
    scale = network.scale_factor
    depth: Tensor = network(torch.rand(1, 1, 4, 4) + 1, torch.rand(1, 3, 4 * scale, 4 * scale)).depth
    return depth


def classify(network: Any) -> Tensor:
    logits: Tensor = network(torch.rand(1, 3, 32, 32))
    return logits


def detect(network: Any) -> Tensor:
    if network.transform.max_size > 128:  # images are as large as a file may ask for
        return torch.zeros(1)
    [found] = network([torch.rand(3, 64, 64)])
    scores: Tensor = found["scores"]
    return scores


@functools.cache
def samples() -> dict[str, Sample]:
    torch.manual_seed(0)
    sizes = {"width": 16, "head_width": 32, "min_size": 64, "max_size": 128}
    return {
        "depth": Sample(GuidedUpsampler(2, channels=4, guide_channels=4).eval(), upsample),
        "classification": Sample(timm.create_model("small_resnet23", num_classes=3, **SMALL).eval(), classify),
        "detection": Sample(Detector(["red"], "mobilenetv3_small_050", **sizes).eval(), detect),
    }


# --- damage -----------------------------------------------------------------------------------------------------------


def odd_value(rng: np.random.Generator) -> Any:
    """Draw a value that a header should not have, or that it may."""
    nested: Any = 1
    for _ in range(int(rng.integers(1, 200))):
        nested = [nested]
    values: list[Any] = [
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        3,
        8,
        2**31,
        2**62,
        10**30,
        -(2**40),
        0.5,
        -0.5,
        1e300,
        math.nan,
        math.inf,
        "",
        "mul",
        "softmax",
        "max",
        "resnet18",
        "vit_giant_patch14_224",
        "hf-hub:user/name",
        "/etc/passwd",
        "http://localhost/a",
        "x" * 5000,
        "\n\x00\u2028",
        [],
        [2**31] * 3,
        ["a"] * 70,
        {},
        {"file": "/etc/passwd"},
        DEEP,
        torch.ones(2),
        {3: 4},
        nested,
    ]
    return values[rng.integers(len(values))]


def damage(content: Any, rng: np.random.Generator) -> Any:
    """Change, remove or add one entry somewhere in dictionaries and lists."""
    if isinstance(content, dict) and content and rng.random() < 0.9:
        name = list(content)[rng.integers(len(content))]
        if rng.random() < 0.15:
            return {key: value for key, value in content.items() if key != name}
        if rng.random() < 0.1:
            extra = ("checkpoint_path", "pretrained_cfg_overlay", "pretrained", "drop_rate", "eps", "wings")
            return {**content, extra[rng.integers(len(extra))]: odd_value(rng)}
        return {**content, name: damage(content[name], rng)}
    if isinstance(content, list) and content and rng.random() < 0.6:
        place = int(rng.integers(len(content)))
        return [*content[:place], damage(content[place], rng), *content[place + 1 :]]
    return odd_value(rng)


def damage_tensors(state: dict[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
    """Change one tensor: its name, shape, type or values; or leave it out."""
    name = list(state)[rng.integers(len(state))]
    value = state[name]
    dtypes = (torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.complex64, torch.bool, torch.uint8)
    changed: list[Callable[[], dict[str, Tensor]]] = [
        dict,
        lambda: {f"{name}_": value},
        lambda: {name: value[None]},
        lambda: {name: value.flatten()[:1]},
        lambda: {name: value.to(dtypes[rng.integers(len(dtypes))])},
        lambda: {name: torch.full_like(value.double(), (math.nan, math.inf, 1e300, -1.0)[rng.integers(4)])},
        lambda: {name: value, "extra": value},
    ]
    return {**{key: own for key, own in state.items() if key != name}, **changed[rng.integers(len(changed))]()}


def damage_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Change some bytes, most of them near either end, where the headers are; or cut the end off."""
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 20))):
        near = int(rng.integers(min(len(damaged), 4000)))
        place = (near, len(damaged) - 1 - near, int(rng.integers(len(damaged))))[rng.integers(3)]
        damaged[place] = rng.integers(256)
    return bytes(damaged[: rng.integers(len(damaged))] if rng.random() < 0.3 else damaged)


# --- files ------------------------------------------------------------------------------------------------------------


def as_json(content: Any) -> Any:
    return json.loads(json.dumps(content))


def dumps(content: Any) -> str:
    """Return JSON, with numbers for tensors, which only checkpoints can hold."""
    return json.dumps(content, default=lambda value: value.tolist()).replace(
        json.dumps(DEEP), "[" * 100_000 + "]" * 100_000
    )


def write_safetensors(file: Path, header: dict[str, Any], state: dict[str, Tensor]) -> None:
    metadata = {name: dumps(value) for name, value in header.items()}
    file.write_bytes(serialise({name: value.clone().contiguous() for name, value in state.items()}, metadata))


def write_checkpoint(file: Path, header: dict[str, Any], state: dict[str, Tensor]) -> None:
    torch.save({"header": header, "state_dict": {f"network.{name}": value for name, value in state.items()}}, file)


def write_timm(file: Path, header: dict[str, Any], state: dict[str, Tensor]) -> None:
    own = header.get("init_args")
    given = own if isinstance(own, dict) else {"model_kwargs": own}
    names = {"model": "name", "num_classes": "num_classes", "model_kwargs": "options"}
    options = {name: given.get(ours) for name, ours in names.items()}
    said, renamed = header.get("preprocessing"), {"size": "img_size", "eval_interpolation": "interpolation"}
    said = said if isinstance(said, dict) else {"mean": said}
    options |= {renamed.get(name, name): value for name, value in said.items()}
    saved = argparse.Namespace()
    vars(saved).update(options)
    torch.save({"args": saved, "state_dict_ema": state, "epoch": 3}, file)


WRITERS = {"a.safetensors": write_safetensors, "a.ckpt": write_checkpoint, "a.pth.tar": write_timm}


def outcome(call: Callable[[], Any]) -> Any:
    """Return a call's result, or None after an error of one line; check its time and memory."""
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        return call()
    except ValueError as error:
        text = str(error)
        assert text and "\n" not in text and "\033" not in text and "weights_only" not in text, text
        assert len(text) < 4000, text
        return None
    finally:
        assert time.process_time() - start < SECONDS
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEBIBYTES * 1024


def check(sample: Sample, network: nn.Module) -> None:
    """Check that a network works; a changed byte of a weight can make it so large that the sums overflow."""
    with torch.inference_mode():
        finite = sample.call(network).isfinite().all()
        assert finite or max(value.double().abs().max() for value in network.state_dict().values()) > 1e4


def convert(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Check that ``ddfnet convert`` writes a file, or one line."""
    out = file.with_name("out.safetensors")
    status = outcome(lambda: main(["convert", str(file), str(out), "--overwrite"]))
    lines = capsys.readouterr().err.splitlines()
    assert (status, len(lines)) in ((0, 0), (1, 1)), lines
    assert all(line.startswith("ddfnet: error: ") for line in lines)
    if status == 0:
        load_with_header(out)


def test_files(cases: Cases, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rng in cases:
        kind = ("depth", "classification", "detection")[rng.integers(3)]
        sample = samples()[kind]
        header, state = as_json(header_of(sample.network).as_dict()), sample.network.state_dict()
        name = list(WRITERS)[rng.integers(3)]
        what = rng.integers(4)
        if what == 0:
            state = damage_tensors(state, rng)
        elif what < 3:
            header = damage(header, rng)
            header = header if isinstance(header, dict) else {"kind": header}
        file = tmp_path / name
        WRITERS[name](file, header, state)
        if what == 3:
            file.write_bytes(damage_bytes(file.read_bytes(), rng))
        card = dumps(damage({"classes": ["a", "b"], "metrics": {"top1": 0.5}}, rng))
        file.with_suffix(".json").write_bytes(damage_bytes(card.encode(), rng) if rng.random() < 0.3 else card.encode())
        outcome(lambda file=file: read_card(file))
        if rng.random() < 0.3:
            convert(file, capsys)
        loaded = outcome(lambda file=file: load_with_header(file))
        if loaded is not None:
            network, said, _ = loaded
            check(samples()[said.kind], network)
            outcome(functools.partial(complete_preprocessing, said.extra.get("preprocessing"), network))


def test_folders(cases: Cases, tmp_path: Path) -> None:
    classes = {"depth": GuidedUpsampler, "classification": DDFResNet, "detection": Detector}
    for kind, sample in samples().items():
        sample.network.save_pretrained(tmp_path / kind)
    for rng in cases:
        kind = list(classes)[rng.integers(3)]
        folder = tmp_path / kind
        whole = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
        config = json.loads(whole["config.json"])
        if rng.random() < 0.7:
            config = damage(copy.deepcopy(config), rng)
        written = dumps(config).encode()
        (folder / "config.json").write_bytes(damage_bytes(written, rng) if rng.random() < 0.1 else written)
        if rng.random() < 0.1:
            (folder / "model.safetensors").write_bytes(damage_bytes(whole["model.safetensors"], rng))
        cls = classes[list(classes)[rng.integers(3)] if rng.random() < 0.1 else kind]
        network = outcome(lambda cls=cls, folder=folder: cls.from_pretrained(folder))
        if network is not None:
            check(samples()[network.kind], network)
        for name, content in whole.items():
            (folder / name).write_bytes(content)
