"""Roofline plot: all cases are in it, nothing overlaps, and the same results give the same file."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from ddfnet.bench import roofline
from ddfnet.bench.registry import DIRECTIONS, GROUPS

pytest.importorskip("matplotlib")


def results(made_up):
    cases = GROUPS["resnet50-fpn"]
    return [made_up(case, direction, share=0.3 + 0.04 * i) for i, case in enumerate(cases) for direction in DIRECTIONS]


def test_every_case_is_labelled_with_its_share(tmp_path: Path, made_up) -> None:
    file = tmp_path / "roofline.svg"
    roofline.draw(results(made_up), "a processor, 2 threads", file)
    text = file.read_text()
    for i, case in enumerate(GROUPS["resnet50-fpn"]):
        assert text.count(f">{case.name}  {0.3 + 0.04 * i:.0%}<") == 2
    assert "a processor, 2 threads" in text
    assert text.count("peak 200 GFLOP/s, copy 20 GB/s") == 2
    first = file.read_bytes()
    roofline.draw(results(made_up), "a processor, 2 threads", file)
    assert file.read_bytes() == first
    roofline.draw(results(made_up), "a processor, 2 threads", tmp_path / "roofline.png")
    assert (tmp_path / "roofline.png").read_bytes().startswith(b"\x89PNG")


def test_points_lie_below_their_limit(made_up) -> None:
    [first, *_] = roofline.points(results(made_up), "forward")
    found = {point.name: point for point in roofline.points(results(made_up), "forward")}
    assert len(found) == 15
    assert first.reached == max(point.reached for point in found.values())
    c64 = found["c64-b1"]
    assert c64.reached == pytest.approx(0.3 * c64.possible)
    assert c64.possible == pytest.approx(20 * c64.intensity)


@pytest.mark.parametrize("positions", [[0.5] * 15, [1.2, 1.0, 0.99, 0.0, -0.1], [0.02] * 3, [0.4], [0.5] * 60])
def test_labels_do_not_overlap(positions: list[float]) -> None:
    moved = roofline.spread(positions, 0.05)
    gap = min(0.05, 1 / max(1, len(positions) - 1))
    assert all(a - b > gap - 1e-5 for a, b in itertools.pairwise(moved))
    assert min(moved) >= 0 and max(moved) <= 1


def test_results_without_limits_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of the results has a limit"):
        roofline.draw([], "", tmp_path / "empty.svg")
