"""Rendered rooms: an image and its exact depth, from a seed and a number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ddfnet.data.depth.rooms import camera, light, mesh, plan
from ddfnet.data.depth.rooms.furniture import Model
from ddfnet.data.depth.rooms.shapes import Array, ModelMesh
from ddfnet.data.depth.rooms.shapes import load as load_shape
from ddfnet.data.depth.rooms.tracer import Hits, Solid, Tracer, dot, unit
from ddfnet.errors import DataError

_SAMPLES = 2  # rays of each kind per pixel; a filter over its neighbours makes them enough
_GRAIN = 2e-5  # square metres: triangles below are details, which do not matter for what can be stood on
_FINE = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))  # samples of a pixel at an edge


class Rendered(NamedTuple):
    """Photograph of a room, and its depth.

    Args:
        image: (H, W, 3), uint8, RGB.
        depth: (H, W), float32, metres along the optical axis, exact at the centres of the pixels; all are valid.
        quality: quality of the JPEG that the camera writes, None where it writes all.
    """

    image: Array
    depth: Array
    quality: int | None


class Renderer:
    """Maker of rooms. Room i depends on the seed, i, the size, the models and the photographs alone.

    Args:
        models: furniture, see `ddfnet.data.depth.rooms.furniture.load`.
        photographs: images for textures, see `ddfnet.data.depth.textures.photographs`.
        size: width and height in pixels.
        seed: seed of the set.
    """

    def __init__(
        self,
        models: Sequence[Model],
        photographs: Sequence[Array],
        size: tuple[int, int] = (640, 480),
        *,
        seed: int = 0,
    ) -> None:
        self.models, self.photographs, self.size, self.seed = plan.group_models(models), photographs, size, seed
        self.broken: dict[str, str] = {}
        self._shape = lru_cache(maxsize=512)(self._load)

    def __call__(self, index: int) -> Rendered:
        """Return room ``index``."""
        rng = np.random.default_rng((self.seed, index))
        room = self._furnished(rng)
        tracer, view = self._built(rng, room)
        return self._photograph(rng, room, tracer, view)

    def _load(self, model: Model) -> ModelMesh | None:
        try:
            return load_shape(model)
        except DataError as error:
            self.broken[model.name] = str(error)
            return None

    def _furnished(self, rng: np.random.Generator) -> plan.Plan:
        room = plan.Planner(rng, self.models).furnish()
        return room._replace(things=[thing for thing in room.things if self._shape(thing.model) is not None])

    def _built(self, rng: np.random.Generator, room: plan.Plan) -> tuple[Tracer, camera.View]:
        """Return the scene with small things on the furniture, and a view into it."""
        builder = mesh.Builder(rng, self.photographs)
        builder.room(room)
        builder.boxes(room)
        for thing in room.things:
            self._add(builder, thing)
        surface = _Surface(builder.triangles().points)
        number = int(np.exp(rng.uniform(np.log(8), np.log(150))))
        for thing in plan.small_things(rng, room, self.models.get("small", []), surface, number):
            self._add(builder, thing)
        tracer = Tracer(builder.triangles(), builder.materials)
        return tracer, camera.draw(rng, room, tracer, tracer.triangles.thing, self.size)

    def _add(self, builder: mesh.Builder, thing: plan.Thing) -> None:
        shape = self._shape(thing.model)
        if shape is not None:
            builder.thing(thing, shape)

    def _photograph(self, rng: np.random.Generator, room: plan.Plan, tracer: Tracer, view: camera.View) -> Rendered:
        width, height = self.size
        lights = light.draw(rng, room, view.eye)
        y, x = (grid.ravel() + 0.5 for grid in np.mgrid[:height, :width])
        origins, directions = view.rays(x, y)
        hits = tracer.first(origins, directions, 1 / view.focal)
        towards = -unit(directions)
        shading = light.shade(
            rng, tracer, lights, (hits.point, hits.face, hits.normal), towards, hits.material, _SAMPLES
        )
        gloss = shading.gloss + _reflected(rng, tracer, lights, hits, towards)
        diffuse, gloss = _smooth(hits, view, (shading.diffuse, gloss))
        colour = hits.colour * (diffuse + tracer.glow[hits.material][:, None]) + gloss
        radiance = colour.reshape(height, width, 3)
        edges = np.flatnonzero(_edges(hits, tracer, radiance))
        if len(edges):
            total = radiance.reshape(-1, 3)[edges].copy()
            for across, down in _FINE:
                fine = tracer.first(*view.rays(x[edges] + across, y[edges] + down), 0.5 / view.focal)
                near = _nearest(fine, hits, edges, self.size)
                total += fine.colour * (diffuse[near] + tracer.glow[fine.material][:, None]) + gloss[near]
            radiance.reshape(-1, 3)[edges] = total / (len(_FINE) + 1)
        image = camera.expose(rng, radiance)
        return Rendered(image, hits.distance.reshape(height, width), camera.quality(rng))


class _Surface:
    """Flat surfaces to stand on, found by rays; see `ddfnet.data.depth.rooms.plan.Surface`."""

    def __init__(self, points: Array) -> None:
        edges = points[:, 1:] - points[:, :1]
        normal = np.cross(edges[:, 0], edges[:, 1])
        self.solid = Solid(points[dot(normal, normal) > (2 * _GRAIN) ** 2])

    def __call__(self, low: Array, high: Array, height: float) -> float | None:
        x, z = (grid.ravel() for grid in np.meshgrid(*(np.linspace(low[i], high[i], 4) for i in (0, 2))))
        origins = np.stack([x, np.full(16, height), z], 1).astype(np.float32)
        down = np.tile(np.array([0, -4, 0], np.float32), (16, 1))
        levels = height - 4 * self.solid.distances(origins, down)
        level = float(levels.max())
        if np.ptp(levels) > 0.012:
            return None
        origins[:, 1] = level + 0.004
        up = np.tile(np.array([0, high[1] - low[1] + 0.01, 0], np.float32), (16, 1))
        return None if self.solid.blocked(origins, up).any() else level


def _reflected(rng: np.random.Generator, tracer: Tracer, lights: light.Light, hits: Hits, towards: Array) -> Array:
    """Return what glossy surfaces mirror (N, 3), less the steeper one looks at them."""
    strength, exponent = tracer.gloss[hits.material].T
    cosine = dot(towards, hits.normal).clip(0, 1)
    shine = strength * (exponent > 40)
    share = shine * (0.04 + 0.5 * (1 - cosine) ** 4)
    found = np.flatnonzero(share > 0.015)
    result = np.zeros_like(hits.point)
    if not len(found):
        return result
    normal = hits.normal[found] + rng.normal(0, 0.5 / exponent[found, None], (len(found), 3))
    way = 2 * dot(towards[found], normal)[:, None] * normal - towards[found]
    start = hits.point[found] + np.float32(2e-3) * hits.face[found]
    seen = tracer.first(start.astype(np.float32), way.astype(np.float32), 0.02)
    lit = light.shade(rng, tracer, lights, (seen.point, seen.face, seen.normal), -way, seen.material, 0)
    mirrored = seen.colour * (0.6 * lit.diffuse + tracer.glow[seen.material][:, None])
    result[found] = np.where(np.isfinite(seen.distance)[:, None], share[found, None] * mirrored, 0)
    return result


def _smooth(hits: Hits, view: camera.View, maps: tuple[Array, Array]) -> tuple[Array, Array]:
    """Return noisy light averaged over neighbours on the same surface, first close ones, then those two pixels off."""
    width, height = view.size
    point, face = (values.reshape(height, width, 3) for values in (hits.point, hits.face))
    tolerance = 0.004 * hits.distance.reshape(height, width) + 0.002
    values = np.concatenate(maps, 1).reshape(height, width, 6)
    for step in (1, 2):
        total, weight = values.copy(), np.ones((height, width, 1), np.float32)
        for down in (-step, 0, step):
            for across in (-step, 0, step):
                if down == across == 0:
                    continue
                here, there = _shifted(down, across)
                apart = np.abs(np.einsum("ijk,ijk->ij", point[there] - point[here], face[here]))
                same = (apart < tolerance[here]) & (np.einsum("ijk,ijk->ij", face[there], face[here]) > 0.9)
                total[here] += values[there] * same[..., None]
                weight[here] += same[..., None]
        values = total / weight
    flat = values.reshape(-1, 6)
    return flat[:, :3], flat[:, 3:]


def _shifted(down: int, across: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return slices of an image and of the same image moved."""
    pairs = []
    for step in (down, across):
        first = slice(max(-step, 0), -step if step > 0 else None)
        pairs.append((first, slice(max(step, 0), step if step < 0 else None)))
    (here_y, there_y), (here_x, there_x) = pairs
    return (here_y, here_x), (there_y, there_x)


def _edges(hits: Hits, tracer: Tracer, radiance: Array) -> Array:
    """Return the pixels at edges of things, of materials, of depth and of colour, (H, W), bool."""
    import cv2

    height, width = radiance.shape[:2]
    material, distance = hits.material.reshape(height, width), hits.distance.reshape(height, width)
    tone = np.log(radiance.mean(-1) + 1e-3)
    edge = np.zeros((height, width), np.uint8)
    for down, across in ((1, 0), (0, 1)):
        here, there = _shifted(down, across)
        step = material[here] != material[there]
        step |= np.abs(distance[here] / distance[there] - 1) > 0.02
        step |= np.abs(tone[here] - tone[there]) > 0.12
        edge[here] |= step
        edge[there] |= step
    return cv2.dilate(edge, np.ones((3, 3), np.uint8)).astype(bool)


def _nearest(fine: Hits, hits: Hits, pixels: Array, size: tuple[int, int]) -> Array:
    """Return for each fine hit the pixel, of its own and the four beside it, whose light suits it best."""
    width, height = size
    row, column = pixels // width, pixels % width
    best = np.full(len(pixels), np.inf, np.float32)
    chosen = pixels.copy()
    for down, across in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)):
        there = (row + down).clip(0, height - 1) * width + (column + across).clip(0, width - 1)
        away = fine.point - hits.point[there]
        cost = (4 * np.abs(dot(away, fine.face)) + np.sqrt(dot(away, away))) / fine.distance
        cost += np.float32(0.3) * (1 - dot(fine.normal, hits.normal[there]))
        better = cost < best
        best[better], chosen[better] = cost[better], there[better]
    return chosen
