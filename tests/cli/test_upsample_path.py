"""Path of a depth map through the package, from the command line to the operator: downward, floor by floor."""

from __future__ import annotations

import sys
from itertools import groupby, pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import ddfnet
from ddfnet.cli.main import main
from tests.house.imports import FLOOR, floor
from tests.upsampling import pair

PACKAGE = Path(ddfnet.__file__).parent


def module_name(frame: FrameType) -> str | None:
    """Return the module of the package that a frame's code is in."""
    file = Path(frame.f_code.co_filename)
    if PACKAGE not in file.parents:
        return None
    return ".".join(("ddfnet", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def has_map(frame: FrameType) -> bool:
    """Tell whether an argument of a call is a map."""
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount]
    return any(getattr(frame.f_locals.get(name), "ndim", 0) >= 2 for name in names)


def traced(*arguments: str) -> list[tuple[str, str, bool]]:
    """Run a command; return the calling and the called module of each call, and whether a map was handed over.

    The calls end with the first of the operator.
    """
    calls: list[tuple[str, str, bool]] = []
    reached = False

    def record(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal reached
        if event != "call" or reached or (called := module_name(frame)) is None:
            return
        caller = frame.f_back
        while caller is not None and module_name(caller) is None:  # torch's own frames, as in Module.__call__
            caller = caller.f_back
        calls.append((called if caller is None else str(module_name(caller)), called, has_map(frame)))
        reached = frame.f_code.co_name == "ddf_upsample"

    sys.setprofile(record)
    try:
        assert main(arguments) == 0
    finally:
        sys.setprofile(None)
    assert reached, "the operator was called"
    return calls


@pytest.fixture
def calls(tmp_path: Path, network: Path) -> list[tuple[str, str, bool]]:
    depth, guide = pair(tmp_path)
    arguments = ("upsample", depth, "--guide", guide, "-o", tmp_path / "out.png", "--model", network, "--tile", "16")
    main([*map(str, arguments), "--overwrite"])  # first imports and the loading of kernels are no part of the path
    return traced(*map(str, arguments), "--overwrite")


def rises(caller: str, called: str) -> bool:
    """Tell whether a module is on a higher floor than another."""
    return FLOOR.get(floor(called), 0) > FLOOR.get(floor(caller), 0)


def test_calls_go_down(calls: list[tuple[str, str, bool]]) -> None:
    """But for functions that were handed down: decoders, starts of layers, recorded functions, and a kind's class."""
    callers = {caller for caller, called, _ in calls if rises(caller, called)}
    handed = {"ddfnet.images", "ddfnet.reading", "ddfnet.nn.starts", "ddfnet.ops.recording"}
    assert callers <= {*handed, "ddfnet.pretrained.registry"}


def test_the_map_climbs_back_at_most_twice(calls: list[tuple[str, str, bool]]) -> None:
    """As data: the modules that are handed the map, in the order of their calls."""
    route = [name for name, _ in groupby(called for _, called, with_map in calls if with_map)]
    assert route[0].startswith("ddfnet.depth.") and route[-1] == "ddfnet.ops.functional"
    climbs = [(a, b) for a, b in pairwise(route) if rises(a, b)]
    assert len(climbs) <= 2, climbs
    assert len(set(route)) <= 12, sorted(set(route))
