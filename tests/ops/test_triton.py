"""Devices that the GPU kernels serve, and their tiles.

The other tests of this folder check the results of the kernels, interpreted: `make triton`.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import ddfnet
from ddfnet.ops import backends
from ddfnet.ops.triton import config, launcher
from ddfnet.ops.triton.common import StaticGeometry

CUDA = torch.device("cuda", 0)
GEOMETRY = StaticGeometry(3, 3, 1, 1, 1, 1, 1, 1, False)


def problem(kernel: str = "fwd", **changes: object) -> config.Problem:
    options = {
        "kernel": kernel,
        "channels_last": True,
        "itemsize": 4,
        "batch": 2,
        "heads": 1,
        "channels": 256,
        "height": 200,
        "width": 300,
        "geometry": GEOMETRY,
        "architecture": "sm_90",
        "num_sms": 132,
    }
    return config.Problem(**(options | changes))


# --- devices ------------------------------------------------------------------------------------------------------


def not_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher.triton.knobs.runtime, "interpret", False)


def test_the_cpu_is_served_by_the_interpreter_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    not_interpreted(monkeypatch)
    ok, reason = launcher.can_run(torch.device("cpu"))
    assert not ok
    assert "cpu only where TRITON_INTERPRET=1" in reason


@pytest.mark.parametrize(("capability", "served"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_that_is_too_old_is_a_reason(monkeypatch, capability: tuple[int, int], served: bool) -> None:
    not_interpreted(monkeypatch)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    launcher._architecture.cache_clear()
    ok, reason = launcher.can_run(CUDA)
    launcher._architecture.cache_clear()
    assert ok == served
    assert ("needs compute capability 8.0, this GPU has 7.5" in reason) != served


def test_an_amd_gpu_is_named_by_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    not_interpreted(monkeypatch)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    properties = SimpleNamespace(gcnArchName="gfx942:sramecc+:xnack-")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    launcher._architecture.cache_clear()
    assert launcher.can_run(CUDA) == (True, f"Triton {launcher.triton.__version__}, gfx942")
    launcher._architecture.cache_clear()


def test_a_gpu_that_is_too_old_falls_back_with_a_reason_and_by_name_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    not_interpreted(monkeypatch)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    monkeypatch.setattr(backends, "_serving", {})
    monkeypatch.setattr(backends, "_warned", set())
    monkeypatch.setenv("DDFNET_BACKEND", "auto")
    with pytest.warns(UserWarning, match="PyTorch reference on cuda.* this GPU has 7.0"):
        assert backends.kernels(CUDA).__name__ == "ddfnet.ops.reference"
    with ddfnet.ops.backend("triton"), pytest.raises(NotImplementedError, match="'triton' was asked for .* has 7.0"):
        backends.kernels(CUDA)


def test_a_triton_that_is_missing_is_a_reason() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch\n"
        "from ddfnet.ops import backends\n"
        "print(backends.can_run('triton', torch.device('cuda', 0)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "(False, 'triton is not installed')\n"


# --- tiles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["fwd", "bwd_input", "bwd_filters"])
@pytest.mark.parametrize("taps", [(1, 1), (3, 3), (2, 5), (7, 7), (31, 31)])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_every_tile_is_valid_for_its_kernel(kernel: str, taps, channels_last: bool, itemsize: int) -> None:
    for channels, height, width, scale in ((1, 1, 1, 1), (3, 7, 7, 1), (64, 56, 56, 2), (2048, 9, 300, 3)):
        geometry = GEOMETRY._replace(kernel_h=taps[0], kernel_w=taps[1], scale_h=scale, scale_w=scale)
        asked = problem(
            kernel,
            geometry=geometry,
            channels=channels,
            height=height,
            width=width,
            itemsize=itemsize,
            channels_last=channels_last,
        )
        for tile, warps in config.candidates(asked):
            for size in (tile.BLOCK_W, tile.BLOCK_C, warps):
                assert size & (size - 1) == 0
                assert size >= 1
            assert tile.BLOCK_H % getattr(tile, "STEP_H", 1) == 0
            assert taps[0] % getattr(tile, "TAP_ROWS", 1) == 0
            assert (scale * scale) % getattr(tile, "SUBPIXELS", 1) == 0


def test_partial_sums_do_not_outgrow_the_input() -> None:
    """A partial sum has one float per tap and channel, or per tap and position."""
    for taps, channels_last, size in itertools.product((3, 5, 7, 9, 11, 31), (True, False), (16, 56, 64)):
        geometry = GEOMETRY._replace(kernel_h=taps, kernel_w=taps)
        options = {"channels_last": channels_last, "channels": 1024, "height": size, "width": size}
        asked = problem("bwd_filters", geometry=geometry, **options)
        tile = config.heuristic(asked).tile
        columns, channels = tile.extent
        assert taps**2 <= tile.BLOCK_H * columns
        assert taps**2 * (asked.channels // channels) <= 2 * asked.channels


@pytest.mark.parametrize(
    "tile",
    [
        config.Tile(32, 64, 16, 2, 1, True, False),
        config.FilterTile(32, 4, 5, 8, 3),
        config.PlanarTile(32, 4, 5, 8, 3),
    ],
    ids=lambda tile: type(tile).__name__,
)
def test_a_table_keeps_each_kind_of_tile(tmp_path: Path, tile: config.Tile) -> None:
    config.write_table(tmp_path / "tiles.json", {"key": config.LaunchConfig(tile, 4)})
    [(_, found)] = config.read_table(tmp_path / "tiles.json").items()
    assert found == config.LaunchConfig(tile, 4)
    assert type(found.tile) is type(tile)


def test_a_table_takes_precedence_over_the_heuristic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = problem()
    chosen = config.heuristic(asked)
    other = chosen._replace(num_warps=2 * chosen.num_warps)
    file = tmp_path / "tiles.json"
    config.write_table(file, {asked.key: other})
    monkeypatch.setenv(config.ENVIRONMENT_VARIABLE, str(file))
    assert config.choose(asked) == other
    assert config.choose(problem(batch=64)) == config.heuristic(problem(batch=64))
    with config.use_table({}):
        assert config.choose(asked) == chosen
    assert config.choose(asked) == other


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"num_warps": 3}, "num_warps must be a power of two, got 3"),
        ({"tile": {"BLOCK_W": 0}}, "BLOCK_W must be a positive integer, got 0"),
        ({"tile": {"BLOCK_H": 15}}, "STEP_H must divide BLOCK_H"),
        ({"tile": {"color": 1}}, "color"),
    ],
)
def test_an_invalid_table_is_refused(tmp_path: Path, change: dict, why: str) -> None:
    tile, warps = config.heuristic(problem())
    entry = {"tile": tile._asdict() | change.get("tile", {}), "num_warps": change.get("num_warps", warps)}
    file = tmp_path / "tiles.json"
    file.write_text(json.dumps({"key": entry}))
    with pytest.raises(ValueError, match=f"DDFNET_TRITON_TILES must name a table .*{why}"):
        config.read_table(file)


def test_a_missing_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="DDFNET_TRITON_TILES must name a table .* No such file"):
        config.read_table(tmp_path / "none.json")
