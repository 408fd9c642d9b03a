"""What is the GPU kernels' own: who is served, and in which tiles.

That the kernels are right is shown by the other tests of this folder, interpreted: `make triton`.
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
import ddfnet.ops.triton as gpu
from ddfnet.ops import backends
from ddfnet.ops.triton import config
from ddfnet.ops.triton.common import Window

CUDA = torch.device("cuda", 0)
WINDOW = Window(3, 3, 1, 1, 1, 1, 1, 1, False)


def problem(kernel: str = "forward", **changes: object) -> config.Problem:
    options = {
        "kernel": kernel,
        "channels_inner": True,
        "item": 4,
        "batch": 2,
        "heads": 1,
        "channels": 256,
        "height": 200,
        "width": 300,
        "window": WINDOW,
        "architecture": "sm_90",
        "processors": 132,
    }
    return config.Problem(**(options | changes))


# --- who is served ------------------------------------------------------------------------------------------------


def not_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.triton.knobs.runtime, "interpret", False)


def test_the_cpu_is_served_by_the_interpreter_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    not_interpreted(monkeypatch)
    ok, reason = gpu.can_run(torch.device("cpu"))
    assert not ok
    assert "cpu only where TRITON_INTERPRET=1" in reason


@pytest.mark.parametrize(("capability", "served"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_that_is_too_old_is_a_reason(monkeypatch, capability: tuple[int, int], served: bool) -> None:
    not_interpreted(monkeypatch)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    gpu._architecture.cache_clear()
    ok, reason = gpu.can_run(CUDA)
    gpu._architecture.cache_clear()
    assert ok == served
    assert ("needs compute capability 8.0, this GPU has 7.5" in reason) != served


def test_an_amd_gpu_is_named_by_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    not_interpreted(monkeypatch)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    properties = SimpleNamespace(gcnArchName="gfx942:sramecc+:xnack-")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    gpu._architecture.cache_clear()
    assert gpu.can_run(CUDA) == (True, f"Triton {gpu.triton.__version__}, gfx942")
    gpu._architecture.cache_clear()


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


@pytest.mark.parametrize("kernel", ["forward", "grad_input", "grad_filters"])
@pytest.mark.parametrize("taps", [(1, 1), (3, 3), (2, 5), (7, 7), (31, 31)])
@pytest.mark.parametrize("channels_inner", [True, False])
@pytest.mark.parametrize("item", [2, 4, 8])
def test_every_tile_is_one_that_the_kernels_take(kernel: str, taps, channels_inner: bool, item: int) -> None:
    for channels, height, width, scale in ((1, 1, 1, 1), (3, 7, 7, 1), (64, 56, 56, 2), (2048, 9, 300, 3)):
        window = WINDOW._replace(kernel_y=taps[0], kernel_x=taps[1], scale_y=scale, scale_x=scale)
        asked = problem(
            kernel,
            window=window,
            channels=channels,
            height=height,
            width=width,
            item=item,
            channels_inner=channels_inner,
        )
        for tile, warps in config.candidates(asked):
            for size in (tile.columns, tile.channels, warps):
                assert size & (size - 1) == 0
                assert size >= 1
            assert tile.rows % getattr(tile, "step", 1) == 0
            assert taps[0] % getattr(tile, "tap_rows", 1) == 0
            assert (scale * scale) % getattr(tile, "subpixels", 1) == 0


def test_partial_sums_do_not_outgrow_the_input() -> None:
    """A part has a float a tap and channel, or a tap and position."""
    for taps, channels_inner, size in itertools.product((3, 5, 7, 9, 11, 31), (True, False), (16, 56, 64)):
        window = WINDOW._replace(kernel_y=taps, kernel_x=taps)
        options = {"channels_inner": channels_inner, "channels": 1024, "height": size, "width": size}
        asked = problem("grad_filters", window=window, **options)
        tile = config.heuristic(asked).tile
        columns, channels = tile.extent
        assert taps**2 <= tile.rows * columns
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
def test_a_table_gives_back_each_kind_of_tile(tmp_path: Path, tile: config.Tile) -> None:
    config.write_table(tmp_path / "tiles.json", {"key": config.Launch(tile, 4)})
    [(_, found)] = config.read_table(tmp_path / "tiles.json").items()
    assert found == config.Launch(tile, 4)
    assert type(found.tile) is type(tile)


def test_a_table_goes_before_the_heuristic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = problem()
    chosen = config.heuristic(asked)
    other = chosen._replace(warps=2 * chosen.warps)
    file = tmp_path / "tiles.json"
    config.write_table(file, {asked.key: other})
    monkeypatch.setenv(config.ENVIRONMENT_VARIABLE, str(file))
    assert config.choose(asked) == other
    assert config.choose(problem(batch=64)) == config.heuristic(problem(batch=64))
    with config.using({}):
        assert config.choose(asked) == chosen
    assert config.choose(asked) == other


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"warps": 3}, "warps must be a power of two, got 3"),
        ({"tile": {"columns": 0}}, "columns must be a positive integer, got 0"),
        ({"tile": {"rows": 15}}, "step must divide rows"),
        ({"tile": {"color": 1}}, "color"),
    ],
)
def test_a_table_with_something_else_in_it_is_refused(tmp_path: Path, change: dict, why: str) -> None:
    tile, warps = config.heuristic(problem())
    entry = {"tile": tile._asdict() | change.get("tile", {}), "warps": change.get("warps", warps)}
    file = tmp_path / "tiles.json"
    file.write_text(json.dumps({"key": entry}))
    with pytest.raises(ValueError, match=f"DDFNET_TRITON_TILES must name a table .*{why}"):
        config.read_table(file)


def test_a_table_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="DDFNET_TRITON_TILES must name a table .* No such file"):
        config.read_table(tmp_path / "none.json")
