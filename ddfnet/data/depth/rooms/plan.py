"""Plans of furnished rooms: what stands where, without one thing in another."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ddfnet.data.depth.rooms.furniture import Model
from ddfnet.data.depth.rooms.shapes import Array

_OUTDOORS = ("Exterior", "Vehicles", "Staircases", "Jardin")
_LEFT_OUT = ("sitting", "lying", "horse", "parking", "shipping", "elevator", "chimney", "curtain", "mower", "truck")
_SEATS = ("chair", "stool", "armchair", "puff")
_STANDING = ("stool", "chair", "dustbin", "trash", "basket", "potty", "speaker", "radiator", "puff", "extinguisher")
_AT_WALL = ("sofa", "couch", "bed", "shelves", "bookcase", "wardrobe", "cabinet", "desk", "piano", "fridge", "radiator")
_TABLES = ("table", "desk", "island")
_NO_THEMES = ("Characters", "Lights", "Miscellaneous")
_FROM_WALL = (0.0, 1.5 * math.pi, math.pi, 0.5 * math.pi)  # angle of what stands with its back to a wall
_WIDEST, _TALLEST = 3.6, 2.4  # metres


Surface = Callable[[Array, Array, float], float | None]
"""Height of a flat surface under a box (lowest corner, highest corner) below a height, None where it cannot stand."""


class Thing(NamedTuple):
    """Model at its place: position (x, y, z) of the middle of its base, and its turn about the vertical, radians.

    At angle 0 its front looks along z; at a quarter turn along x.
    """

    model: Model
    position: tuple[float, float, float]
    angle: float


class Window(NamedTuple):
    """Opening in a wall: from ``start`` to ``end`` along it, from ``low`` to ``high`` above the floor, in metres."""

    wall: int
    start: float
    end: float
    low: float
    high: float


class Plan(NamedTuple):
    """Room from 0 to ``size`` (x, y upwards, z); wall 0 is z = 0, 1 is the greatest x, 2 the greatest z, 3 is x = 0."""

    size: tuple[float, float, float]
    things: list[Thing]
    windows: list[Window]
    boxes: list[tuple[Array, Array]]  # pillars, posters and the like: lowest and highest corner


def role(model: Model) -> str | None:
    """Return where a model belongs: "floor", "small", "rug", "wall", "ceiling", "door"; None for nowhere in a room."""
    width, depth, height = model.size
    kind = model.kind.lower()
    if model.category in _OUTDOORS or max(width, depth) > _WIDEST or any(word in kind for word in _LEFT_OUT):
        return None
    if model.category == "Doors and windows":
        return "door" if "door" in kind and 1.8 < height < 2.2 and width < 1.4 else None
    if height > _TALLEST or model.elevation + height > _TALLEST + 0.3:
        return None
    if model.category == "Lights" and model.elevation > 1.5 and "wall" not in kind:
        return "ceiling"
    if model.elevation > 0.05:
        return "wall" if depth < 0.7 else None
    if height <= 0.06:
        return "rug" if width * depth > 0.25 else "small"
    if max(width, depth) <= 0.62 and height <= 0.75 and not any(word in kind for word in _STANDING):
        return "small"
    return "floor"


def group_models(models: Sequence[Model]) -> dict[str, list[Model]]:
    """Return the models of each role, in their order."""
    found: dict[str, list[Model]] = defaultdict(list)
    for model in models:
        if (own := role(model)) is not None:
            found[own].append(model)
    return dict(found)


class Planner:
    """Room that is furnished step by step.

    Args:
        rng: source of all draws.
        models: models of each role, from `group_models`.
    """

    def __init__(self, rng: np.random.Generator, models: dict[str, list[Model]]) -> None:
        self.rng, self.models = rng, models
        self.size = (rng.uniform(3, 7.5), rng.uniform(2.3, 3.2), rng.uniform(3, 7.5))
        self.taken: list[tuple[Array, Array]] = []
        self.things: list[Thing] = []
        self.windows: list[Window] = []
        self.boxes: list[tuple[Array, Array]] = []
        rooms = sorted({model.category for model in models.get("floor", [])} - set(_NO_THEMES))
        self.theme = rooms[rng.integers(len(rooms))] if rooms else ""

    def furnish(self) -> Plan:
        """Return the room with all that stands on its floor and hangs on its walls."""
        rng = self.rng
        self._openings()
        for wall in rng.permutation(4):
            if rng.random() < 0.9:
                self._row(int(wall), rng.uniform(0.3, 1))
        for _ in range(rng.integers(0, 3)):
            self._table()
        for _ in range(rng.integers(1, 9)):
            self._free(self._draw("floor"), jitter=rng.random() < 0.5)
        for _ in range(rng.integers(0, 3)):
            self._free(self._draw("rug"), jitter=rng.random() < 0.3)
        for _ in range(rng.integers(0, 7)):
            self._on_wall(self._draw("wall"))
        for _ in range(rng.integers(0, 6)):
            self._poster()
        if rng.random() < 0.35:
            self._pillar()
        if rng.random() < 0.7:
            self._at_ceiling(self._draw("ceiling"))
        return Plan(self.size, self.things, self.windows, self.boxes)

    def _draw(self, kind: str, words: tuple[str, ...] = ()) -> Model | None:
        """Draw a model of a role, mostly one of the room's theme; None where the catalogue has none."""
        choice = self.models.get(kind, [])
        if words:
            choice = [model for model in choice if any(word in model.kind.lower() for word in words)]
        themed = [model for model in choice if model.category == self.theme]
        if themed and self.rng.random() < 0.65:
            choice = themed
        people = self.rng.random() < 0.15
        choice = [model for model in choice if people or model.category != "Characters"]
        return choice[self.rng.integers(len(choice))] if choice else None

    def _openings(self) -> None:
        rng = self.rng
        if rng.random() < 0.6:
            wall = int(rng.integers(4))
            door = self._draw("door")
            if door is not None:
                along = rng.uniform(0.7, length_of(self.size, wall) - 0.7)
                self.things.append(self._backed(door, wall, along, 0.04 - door.size[1]))  # most of it in the wall
                self._keep_clear(wall, along - door.size[0] / 2, along + door.size[0] / 2, 0.0, 2.1, 0.8)
        for _ in range(rng.integers(0, 3)):
            wall = int(rng.integers(4))
            length = length_of(self.size, wall)
            width = rng.uniform(0.6, min(2.5, length - 1))
            start = rng.uniform(0.4, length - width - 0.4)
            low, high = rng.uniform(0.4, 1.1), rng.uniform(1.7, self.size[1] - 0.15)
            if self._keep_clear(wall, start - 0.1, start + width + 0.1, low, high, 0.25):
                self.windows.append(Window(wall, start, start + width, low, high))

    def _keep_clear(self, wall: int, start: float, end: float, low: float, high: float, deep: float) -> bool:
        """Take the space before a part of a wall; return False, and take nothing, where something is there."""
        ends = at(self.size, wall, start, low, -0.2), at(self.size, wall, end, high, deep)
        box = np.minimum(*ends), np.maximum(*ends)
        if self._meets(box):
            return False
        self.taken.append(box)
        return True

    def _backed(self, model: Model, wall: int, along: float, gap: float) -> Thing:
        """Return a model with its back to a wall, at its height."""
        x, y, z = at(self.size, wall, along, model.elevation, model.size[1] / 2 + gap)
        return Thing(model, (float(x), float(y), float(z)), _FROM_WALL[wall])

    def _add(self, thing: Thing, *, gap: float = 0.01, solid: bool = True) -> bool:
        """Add a thing if it has room, and say so."""
        box = box_of(thing)
        low, high = box[0] - np.array([gap, 0, gap]), box[1] + np.array([gap, 0, gap])
        if (low < -1e-6).any() or (high > np.array(self.size) + 1e-6).any() or self._meets((low, high)):
            return False
        self.things.append(thing)
        if solid:
            self.taken.append(box)
        return True

    def _meets(self, box: tuple[Array, Array]) -> bool:
        return any((box[0] < high).all() and (low < box[1]).all() for low, high in self.taken)

    def _row(self, wall: int, share: float) -> None:
        """Fill a wall with furniture from one end, with gaps and left-out places."""
        rng, length = self.rng, length_of(self.size, wall)
        along = rng.uniform(0.05, 0.8)
        while along < length - 0.4:
            model = self._draw("floor")
            if model is None:
                return
            if rng.random() < share and self._has_back(model):
                width, gap = model.size[0], rng.uniform(0.012, 0.06)
                repeats = int(rng.integers(1, 4)) if width < 0.8 and rng.random() < 0.4 else 1
                for _ in range(repeats):
                    if self._add(self._backed(model, wall, along + width / 2, gap), gap=0.005):
                        along += width + 0.012
            along += rng.uniform(0.02, 0.9)

    def _has_back(self, model: Model) -> bool:
        kind = model.kind.lower()
        width, depth, _ = model.size
        seat = any(word in kind for word in _SEATS)
        return not seat and (any(word in kind for word in _AT_WALL) or not model.movable or depth < 0.8 * width)

    def _table(self) -> None:
        """Place a table with chairs that face it."""
        rng = self.rng
        table, chair = self._draw("floor", _TABLES), self._draw("floor", _SEATS)
        placed = self._free(table, jitter=False)
        if placed is None or chair is None:
            return
        width, depth, _ = placed.model.size
        for _ in range(rng.integers(0, 7)):
            side = int(rng.integers(4))
            along = rng.uniform(-0.4, 0.4) * (width, depth, width, depth)[side]
            away = ((depth, width, depth, width)[side] + chair.size[1]) / 2 + rng.uniform(-0.02, 0.3)
            turn = (math.pi, 1.5 * math.pi, 0.0, 0.5 * math.pi)[side]  # its front looks at the table
            x, z = ((along, away), (away, along), (along, -away), (-away, along))[side]
            c, s = math.cos(placed.angle), math.sin(placed.angle)
            position = (placed.position[0] + x * c + z * s, 0.0, placed.position[2] - x * s + z * c)
            self._add(Thing(chair, position, placed.angle + turn + rng.normal(0, 0.2)), gap=0.0)

    def _free(self, model: Model | None, *, jitter: bool) -> Thing | None:
        """Try some places on the floor."""
        if model is None:
            return None
        rng = self.rng
        for _ in range(12):
            angle = rng.integers(4) * math.pi / 2 + (rng.uniform(-0.8, 0.8) if jitter else 0)
            x, z = rng.uniform(0, self.size[0]), rng.uniform(0, self.size[2])
            thing = Thing(model, (x, 0.002 * (model.size[2] < 0.06), z), float(angle))
            if self._add(thing, solid=model.size[2] >= 0.06):
                return thing
        return None

    def _on_wall(self, model: Model | None) -> None:
        if model is None:
            return
        rng = self.rng
        for _ in range(8):
            wall = int(rng.integers(4))
            along = rng.uniform(0, length_of(self.size, wall))
            if self._add(self._backed(model, wall, along, 0.002), gap=0.0):
                return

    def _poster(self) -> None:
        rng = self.rng
        wall = int(rng.integers(4))
        width, height = rng.uniform(0.2, 1.3, 2)
        along, low = rng.uniform(0.1, length_of(self.size, wall) - 0.1 - width), rng.uniform(0.9, 1.7)
        ends = (
            at(self.size, wall, along, low, 0.0),
            at(self.size, wall, along + width, low + height, rng.uniform(0.01, 0.05)),
        )
        self._box(np.minimum(*ends), np.maximum(*ends))

    def _pillar(self) -> None:
        """Place a pillar, a beam's post or a low wall: a box."""
        rng = self.rng
        sides = rng.uniform(0.1, 0.6, 2) if rng.random() < 0.6 else rng.permutation([0.12, rng.uniform(0.6, 1.6)])
        x, z = rng.uniform(0.2, self.size[0] - 0.2 - sides[0]), rng.uniform(0.2, self.size[2] - 0.2 - sides[1])
        height = self.size[1] if rng.random() < 0.6 else rng.uniform(0.3, 1.3)
        self._box(np.array([x, 0.0, z]), np.array([x + sides[0], height, z + sides[1]]))

    def _box(self, low: Array, high: Array) -> None:
        if (high <= np.array(self.size) + 1e-6).all() and (low >= 0).all() and not self._meets((low, high)):
            self.taken.append((low, high))
            self.boxes.append((low, high))

    def _at_ceiling(self, model: Model | None) -> None:
        if model is None:
            return
        width, _, length = self.size
        x, z = width * self.rng.uniform(0.3, 0.7), length * self.rng.uniform(0.3, 0.7)
        self._add(Thing(model, (x, self.size[1] - model.size[2] - 0.002, z), 0.0))


def length_of(size: tuple[float, float, float], wall: int) -> float:
    """Return the length of a wall in a room of this size."""
    return size[0] if wall % 2 == 0 else size[2]


def at(size: tuple[float, float, float], wall: int, along: float, level: float, inwards: float) -> Array:
    """Return the point (x, y, z) so far along a wall, so high, and so far before it."""
    width, _, length = size
    x, z = ((along, inwards), (width - inwards, along), (along, length - inwards), (inwards, along))[wall]
    return np.array([x, level, z])


def box_of(thing: Thing) -> tuple[Array, Array]:
    """Return the lowest and the highest corner of the box around a thing."""
    width, depth, height = thing.model.size
    c, s = abs(math.cos(thing.angle)), abs(math.sin(thing.angle))
    half = np.array([width * c + depth * s, 0, width * s + depth * c]) / 2
    position = np.array(thing.position)
    return position - half, position + half + np.array([0, height, 0])


def small_things(
    rng: np.random.Generator, plan: Plan, models: Sequence[Model], surface: Surface, number: int
) -> list[Thing]:
    """Place small things on what rays from above meet: table tops, shelves, seats, the floor.

    Args:
        rng: source of all draws.
        plan: the furnished room.
        models: small models.
        surface: heights of what is below points (N, 3), and what room is above; see `ddfnet.data.depth.rooms.render`.
        number: how many are tried.
    """
    hosts = [thing for thing in plan.things if thing.model.size[2] >= 0.25 and min(thing.model.size[:2]) > 0.2]
    placed: list[Thing] = []
    boxes: list[tuple[Array, Array]] = []
    for _ in range(number if models else 0):
        model = models[int(rng.integers(len(models)))]
        angle = float(rng.uniform(0, 2 * math.pi))
        for _ in range(6):
            point = _above(rng, plan, hosts)
            thing = Thing(model, (float(point[0]), 0.0, float(point[2])), angle)
            low, high = box_of(thing)
            inside = (low[[0, 2]] > 0.01).all() and (high[[0, 2]] < np.array(plan.size)[[0, 2]] - 0.01).all()
            height = surface(low, high, float(point[1])) if inside else None
            if height is None:
                continue
            raised = np.array([0, height, 0])
            box = (low + raised, high + raised)
            if not any((box[0] < b).all() and (a < box[1]).all() for a, b in boxes):
                placed.append(thing._replace(position=(thing.position[0], height + 0.001, thing.position[2])))
                boxes.append(box)
                break
    return placed


def _above(rng: np.random.Generator, plan: Plan, hosts: Sequence[Thing]) -> Array:
    """Draw a point over a piece of furniture or inside it, or over the floor."""
    if not hosts or rng.random() < 0.12:
        return np.array([rng.uniform(0, plan.size[0]), 0.05, rng.uniform(0, plan.size[2])])
    host = hosts[int(rng.integers(len(hosts)))]
    low, high = box_of(host)
    point = rng.uniform(low, high)
    if rng.random() < 0.65:
        point[1] = high[1] + 0.01
    return point
