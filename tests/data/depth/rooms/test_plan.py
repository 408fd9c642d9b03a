"""Plans of rooms: nothing stands in another thing, in a wall or in the air."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from ddfnet.data.depth.rooms import furniture, plan
from tests.furniture_catalogues import MODELS, write_catalogue

OTHERS = {
    "rug": {"name": "Carpet", "category": "Living room", "width": 200, "depth": 100, "height": 2},
    "lamp": {"name": "Ceiling lamp", "category": "Lights", "width": 30, "depth": 30, "height": 20, "elevation": 230},
    "door": {"name": "Door", "category": "Doors and windows", "width": 90, "depth": 12, "height": 205},
    "window": {"name": "Window", "category": "Doors and windows", "width": 90, "depth": 12, "height": 120},
    "tree": {"name": "Pine", "category": "Exterior", "width": 90, "depth": 90, "height": 200},
    "bus": {"name": "Bus", "category": "Miscellaneous", "width": 250, "depth": 1200, "height": 240},
    "pole": {"name": "Pole", "category": "Miscellaneous", "width": 5, "depth": 5, "height": 300},
}


@pytest.fixture
def models(tmp_path: Path) -> list[furniture.Model]:
    write_catalogue(tmp_path / "a.sh3f", {**MODELS, **OTHERS})
    return list(furniture.load(tmp_path).models)


def furnished(models: list[furniture.Model], seed: int) -> plan.Plan:
    return plan.Planner(np.random.default_rng(seed), plan.group_models(models)).furnish()


def test_where_models_belong(models: list[furniture.Model]) -> None:
    names = {
        role: [model.name.removeprefix("Test#") for model in found] for role, found in plan.group_models(models).items()
    }
    assert names == {
        "floor": ["table", "chair", "shelves"],
        "small": ["cup"],
        "wall": ["clock"],
        "rug": ["rug"],
        "ceiling": ["lamp"],
        "door": ["door"],
    }


def test_what_is_solid_does_not_meet(models: list[furniture.Model]) -> None:
    for seed in range(20):
        room = furnished(models, seed)
        standing = [plan.box_of(thing) for thing in room.things if plan.role(thing.model) not in ("rug", "door")]
        assert len(standing) + len(room.boxes) > 2
        for (low, high), (other_low, other_high) in itertools.combinations([*standing, *room.boxes], 2):
            assert not ((low < other_high - 1e-6) & (other_low < high - 1e-6)).all()


def test_all_is_in_the_room_and_on_its_floor_wall_or_ceiling(models: list[furniture.Model]) -> None:
    for seed in range(20):
        room = furnished(models, seed)
        size = np.array(room.size)
        for thing in room.things:
            low, high = plan.box_of(thing)
            kind = plan.role(thing.model)
            if kind != "door":  # it is let into the wall
                assert (low >= -1e-6).all() and (high <= size + 1e-6).all()
            if kind in ("floor", "rug", "door"):
                assert low[1] < 0.003
            elif kind == "wall":
                assert min(low[0], low[2], size[0] - high[0], size[2] - high[2]) < 0.003
            else:
                assert size[1] - high[1] < 0.003


def test_nothing_is_before_a_window(models: list[furniture.Model]) -> None:
    rooms = [furnished(models, seed) for seed in range(20)]
    assert any(room.windows for room in rooms)
    for room in rooms:
        for window in room.windows:
            ends = [plan.at(room.size, window.wall, along, level, 0.2) for along, level in
                    ((window.start, window.low), (window.end, window.high))]  # fmt: skip
            low, high = np.minimum(*ends), np.maximum(*ends)
            for thing in room.things:
                other_low, other_high = plan.box_of(thing)
                assert not ((low < other_high) & (other_low < high)).all()


def test_the_front_of_what_stands_at_a_wall_looks_into_the_room(models: list[furniture.Model]) -> None:
    for seed in range(10):
        room = furnished(models, seed)
        for thing in room.things:
            if plan.role(thing.model) == "wall":
                front = np.array([np.sin(thing.angle), 0, np.cos(thing.angle)])
                middle = np.array(room.size) / 2
                assert front @ (middle - thing.position) > 0


def test_small_things_stand_on_the_surface_that_is_found(models: list[furniture.Model]) -> None:
    room = furnished(models, 1)
    cup = plan.group_models(models)["small"]
    rng = np.random.default_rng(0)
    placed = plan.small_things(rng, room, cup, lambda low, high, height: 0.75 if height > 0.75 else None, 30)
    assert placed
    assert all(thing.position[1] == pytest.approx(0.75, abs=0.002) for thing in placed)
    for one, other in itertools.combinations(placed, 2):
        (low, high), (other_low, other_high) = plan.box_of(one), plan.box_of(other)
        assert not ((low < other_high) & (other_low < high)).all()
    assert not plan.small_things(rng, room, cup, lambda low, high, height: None, 30)
    assert not plan.small_things(rng, room, [], lambda low, high, height: 0.75, 30)
