"""Triangles of a planned room: its walls and openings, its boxes, and the models at their places."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ddfnet.data.depth.rooms.plan import Plan, Thing, Window, at, length_of
from ddfnet.data.depth.rooms.shapes import Array, Material, ModelMesh
from ddfnet.data.depth.rooms.surfaces import covering, repainted
from ddfnet.data.depth.rooms.tracer import Triangles

# Sides of a box, by the numbers of its corners.
_SIDES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))


class Builder:
    """Triangles and materials of a scene, collected part by part.

    Args:
        rng: source of all draws.
        photographs: images for textures.
    """

    def __init__(self, rng: np.random.Generator, photographs: Sequence[Array]) -> None:
        self.rng, self.photographs = rng, photographs
        self.parts: list[Triangles] = []
        self.materials: list[Material] = []
        self.things = 0

    def triangles(self) -> Triangles:
        """Return all triangles so far."""
        return Triangles(*(np.ascontiguousarray(np.concatenate(column)) for column in zip(*self.parts, strict=True)))

    def add_material(self, material: Material) -> int:
        self.materials.append(material)
        return len(self.materials) - 1

    def quad(self, corners: Array, material: int, texels: Array) -> None:
        """Add a flat quadrangle (4, 3) with texture coordinates (4, 2)."""
        order = np.array([[0, 1, 2], [0, 2, 3]])
        points = np.asarray(corners, np.float32)[order]
        normal = np.cross(points[0, 1] - points[0, 0], points[0, 2] - points[0, 0])
        length = np.linalg.norm(normal)
        if length < 1e-12:
            return
        normals = np.broadcast_to(np.float32(normal / length), (2, 3, 3))
        self._part(points, normals, np.asarray(texels, np.float32)[order], np.full(2, material))

    def _part(self, points: Array, normals: Array, texels: Array, material: Array) -> None:
        thing = np.full(len(points), self.things, np.int32)
        self.parts.append(Triangles(points, normals, texels, material.astype(np.int32), thing))

    def box(self, low: Array, high: Array, material: int, metres: float) -> None:
        """Add a box whose texture is so wide; 0 to spread it over the greatest side once."""
        corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
        for side in _SIDES:
            face = corners[list(side)]
            flat = int(np.argmin(np.ptp(face, 0)))
            axes = [axis for axis in (0, 2, 1) if axis != flat]
            spread = metres or np.maximum(np.ptp(face[:, axes], 0), 1e-9)
            self.quad(face, material, (face[:, axes] - low[axes]) / spread)
        self.things += 1

    def room(self, plan: Plan) -> None:
        """Add floor, ceiling, walls with their windows, and skirting."""
        rng = self.rng
        width, height, length = plan.size
        floor = self.add_material(covering(rng, self.photographs, plain=0.12, gloss=rng.choice([0, 0, 0.1, 0.4, 0.8])))
        ceiling = self.add_material(covering(rng, self.photographs, plain=0.8))
        for level, material in ((0.0, floor), (height, ceiling)):
            corners = np.array([[0, level, 0], [width, level, 0], [width, level, length], [0, level, length]])
            self.quad(corners, material, corners[:, [0, 2]] / rng.uniform(0.5, 3))
            self.things += 1
        shared = self.add_material(covering(rng, self.photographs, plain=0.45))
        for wall in range(4):
            own = rng.random() < 0.3
            self._wall(plan, wall, self.add_material(covering(rng, self.photographs, plain=0.4)) if own else shared)
            self.things += 1
        if rng.random() < 0.7:
            self._skirting(plan)
        for window in plan.windows:
            self._window(plan, window)
            self.things += 1

    def _wall(self, plan: Plan, wall: int, material: int) -> None:
        """Add a wall around its windows, in strips."""
        metres = self.rng.uniform(0.6, 3)
        height, length = plan.size[1], length_of(plan.size, wall)
        along = 0.0
        for window in sorted(window for window in plan.windows if window.wall == wall):
            strips = (
                (along, window.start, 0.0, height),
                (window.start, window.end, 0.0, window.low),
                (window.start, window.end, window.high, height),
            )
            for strip in strips:
                self._strip(plan, wall, strip, material, metres)
            along = window.end
        self._strip(plan, wall, (along, length, 0.0, height), material, metres)

    def _strip(
        self, plan: Plan, wall: int, strip: tuple[float, float, float, float], material: int, metres: float
    ) -> None:
        start, end, low, high = strip
        sides = np.array([[start, low], [end, low], [end, high], [start, high]])
        corners = np.array([at(plan.size, wall, along, level, 0.0) for along, level in sides])
        self.quad(corners, material, sides / metres)

    def _skirting(self, plan: Plan) -> None:
        rng = self.rng
        material = self.add_material(covering(rng, self.photographs, plain=0.8))
        height, thick = rng.uniform(0.05, 0.15), rng.uniform(0.008, 0.012)
        for wall in range(4):
            ends = at(plan.size, wall, 0.0, 0.0, 0.0), at(plan.size, wall, length_of(plan.size, wall), height, thick)
            self.box(np.minimum(*ends), np.maximum(*ends), material, 1.0)

    def _window(self, plan: Plan, window: Window) -> None:
        """Add an opening: its reveal, its frame and its pane, which shows a bright view."""
        rng = self.rng
        deep = -rng.uniform(0.06, 0.25)
        ledge = self.add_material(covering(rng, self.photographs, plain=0.9))
        view = covering(rng, self.photographs, plain=0.15)._replace(glow=rng.uniform(0.6, 4))
        pane = self.add_material(view)
        corners = [(window.start, window.low), (window.end, window.low), (window.end, window.high)]
        corners.append((window.start, window.high))
        back = np.array([at(plan.size, window.wall, along, level, deep) for along, level in corners])
        front = np.array([at(plan.size, window.wall, along, level, 0.0) for along, level in corners])
        spread = np.array(corners) / max(window.end - window.start, window.high - window.low)
        self.quad(back, pane, spread)
        for i in range(4):
            j = (i + 1) % 4
            self.quad(np.stack([front[i], front[j], back[j], back[i]]), ledge, np.zeros((4, 2)))
        bar = rng.uniform(0.03, 0.08)
        uprights = np.linspace(window.start, window.end, rng.integers(2, 5))
        rails = np.linspace(window.low, window.high, rng.integers(2, 5))
        parts = [(edge - bar / 2, edge + bar / 2, window.low, window.high) for edge in uprights]
        parts += [(window.start, window.end, edge - bar / 2, edge + bar / 2) for edge in rails]
        for start, end, low, high in parts:
            ends = (
                at(plan.size, window.wall, start, low, deep),
                at(plan.size, window.wall, end, high, deep + 0.04),
            )
            self.box(np.minimum(*ends), np.maximum(*ends), ledge, 1.0)

    def boxes(self, plan: Plan) -> None:
        """Add the plain boxes of a plan: posters show a photograph, pillars a covering."""
        rng = self.rng
        for low, high in plan.boxes:
            thin = np.ptp([low, high], axis=0).min() < 0.06
            cover = covering(rng, self.photographs, plain=0.05 if thin else 0.5, gloss=0.2 * thin)
            self.box(low, high, self.add_material(cover), 0 if thin else rng.uniform(0.5, 2))

    def thing(self, thing: Thing, shape: ModelMesh) -> None:
        """Add a model at its place, some of its surfaces in other colours or with other textures."""
        rng = self.rng
        c, s = math.cos(thing.angle), math.sin(thing.angle)
        turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]], np.float32)
        points = shape.points @ turn.T + np.array(thing.position, np.float32)
        texels, numbers = shape.texels.copy(), []
        change = rng.random() < 0.6
        for number, material in enumerate(shape.materials):
            own = repainted(rng, material, self.photographs) if change else material
            numbers.append(self.add_material(own))
            if own.mirrored:
                of = shape.material == number
                texels[of] = _draped(shape.points[of], rng.uniform(0.15, 1.2))
        self._part(points, shape.normals @ turn.T, texels, np.array(numbers)[shape.material])
        self.things += 1


def _draped(points: Array, metres: float) -> Array:
    """Return texture coordinates (M, 3, 2) of triangles seen along the axis that they face most."""
    normal = np.abs(np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]))
    axes = np.array([[2, 1], [0, 2], [0, 1]])[normal.argmax(1)]
    return np.take_along_axis(points, axes[:, None, :].repeat(3, 1), 2) / np.float32(metres)
