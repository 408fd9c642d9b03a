"""Kinds of networks: their registration, their headers, and networks that are larger than a file's weights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ddfnet.depth.network import GuidedUpsampler
from ddfnet.pretrained import (
    Header,
    PretrainedMixin,
    header_of,
    load,
    read_header,
    register_kind,
    registry,
    save,
)

serialise = pytest.importorskip("safetensors.torch").save


@pytest.fixture(autouse=True)
def kinds() -> Iterator[None]:
    """Forget the kinds that a test registers."""
    yield
    for kind in ("stranger", "sub"):
        registry._KINDS.pop(kind, None)


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


# --- files that ask for more than they hold -----------------------------------------------------------------------


def asks_for(tmp_path: Path, **options: Any) -> str:
    """Return the error of a small file whose header has other options."""
    network = GuidedUpsampler(2, channels=4, guide_channels=4)
    file = tmp_path / "a.safetensors"
    header = Header("depth", {**network.init_args, **options})
    file.write_bytes(serialise(network.state_dict(), {name: json.dumps(v) for name, v in header.as_dict().items()}))
    with pytest.raises(ValueError) as raised:
        load(file)
    line = str(raised.value)
    assert "\n" not in line and line.startswith(f"{file}: a network that `ddfnet train` left is required, ")
    return line.partition("(ValueError: ")[2]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"blocks": 2**31}, "its option blocks must be a whole number from 0 to 256, got 2147483648)"),
        ({"channels": 2**31}, "its option channels must be a whole number from 2 to 4096, got 2147483648)"),
        ({"blocks": 10**40}, "its option blocks must be a number of 64 bits, got a number of 133 bits)"),
        ({"blocks": "1"}, "its option blocks must be int, got '1')"),
        ({"blocks": True}, "its option blocks must be int, got True)"),
        ({"carry": "no"}, "its option carry must be bool, got 'no')"),
        ({"norm": ["softmax"]}, "its option norm must be str, got ['softmax'])"),
        ({"norm": "x" * 5000}, "its option norm must be at most 1000 characters, got 5000)"),
        ({"blocks": 256}, "its options must be those of its weights, got such as are of a far larger network)"),
        ({"channels": 4096}, "its options must be those of its weights, got such as are of a far larger network)"),
        ({"channels": 5}, "the weights do not fit this GuidedUpsampler: "),
        ({"pretrained": "/etc/passwd"}, "its option pretrained must be False, for a file brings its own weights, got "),
    ],
    ids=str,
)
def test_a_header_that_the_weights_do_not_justify(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    assert asks_for(tmp_path, **options).startswith(problem)


def test_a_network_of_another_s_class_is_bounded_too(tmp_path: Path) -> None:
    calls = []

    @register_kind("stranger")
    class Deep(nn.Module):
        def __init__(self, depth: int = 1, width: int = 2) -> None:
            super().__init__()
            self.layers = nn.ModuleList(calls.append(0) or nn.Linear(width, width) for _ in range(depth))

    save(Deep(), tmp_path / "a.safetensors")
    assert isinstance(load(tmp_path / "a.safetensors"), Deep)
    for options in ({"depth": 2**40}, {"width": 2**40}):
        save(Deep(), tmp_path / "a.safetensors", header=Header("stranger", options))
        with pytest.raises(ValueError, match="its options must be those of its weights"):
            load(tmp_path / "a.safetensors")
    assert len(calls) < 1000


def test_what_a_file_may_not_have_is_not_saved(tmp_path: Path) -> None:
    network = GuidedUpsampler(2, channels=4, guide_channels=4)
    with pytest.raises(ValueError, match="its option blocks must be a whole number"):
        save(network, tmp_path / "a.safetensors", header=Header("depth", {**network.init_args, "blocks": 10**6}))
    assert not list(tmp_path.iterdir())
