"""Light in a room: lamps, windows, the sun through them, and what comes from the walls."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ddfnet.data.depth.rooms.plan import Plan, at, box_of, role
from ddfnet.data.depth.rooms.shapes import Array
from ddfnet.data.depth.rooms.tracer import Tracer, dot, unit

_REACH = 1.2  # metres within which surfaces keep the walls' light from each other
_CLEAR = np.float32(2e-3)  # metres: rays start so far above a surface, or they would meet it


class Lamp(NamedTuple):
    """Light from a box or a rectangle.

    Args:
        centre: (3,), metres.
        extent: half of the edges (3, 3).
        facing: direction into which a rectangle shines (3,); 0 for all directions.
        power: (3,), irradiance at a distance of 1 m.
    """

    centre: Array
    extent: Array
    facing: Array
    power: Array


class Sun(NamedTuple):
    """Sunlight through the windows: direction towards the sun (3,), irradiance (3,)."""

    direction: Array
    power: Array


class Light(NamedTuple):
    """All light of a scene; ``ambient`` (2, 3) is what reaches surfaces that look down, and up, from far."""

    plan: Plan
    lamps: list[Lamp]
    sun: Sun | None
    ambient: Array


def draw(rng: np.random.Generator, plan: Plan, eye: Array) -> Light:
    """Draw the light of a room, some of it a flash beside the camera."""
    width, height, length = plan.size
    lamps = []
    daylight = rng.uniform(0.2, 1) if rng.random() < 0.7 else 0.0
    for window in plan.windows:
        centre = at(plan.size, window.wall, (window.start + window.end) / 2, (window.low + window.high) / 2, 0.02)
        facing = at(plan.size, window.wall, 0.0, 0.0, 1.0) - at(plan.size, window.wall, 0.0, 0.0, 0.0)
        along = at(plan.size, window.wall, 1.0, 0.0, 0.0) - at(plan.size, window.wall, 0.0, 0.0, 0.0)
        wide, high = (window.end - window.start) / 2, (window.high - window.low) / 2
        extent = np.stack([along * wide, [0, high, 0], np.zeros(3)])
        lamps.append(Lamp(centre, extent, facing, daylight * 8 * wide * high * _tint(rng, 0.15)))
    hanging = [box_of(thing) for thing in plan.things if role(thing.model) == "ceiling"]
    for _ in range(rng.integers(0 if daylight and plan.windows else 1, 4)):
        if hanging and rng.random() < 0.7:
            low, high_ = hanging[0]
            centre = np.array([(low[0] + high_[0]) / 2, low[1] - 0.12, (low[2] + high_[2]) / 2])
        else:
            centre = np.array(
                [rng.uniform(0.2, 0.8) * width, rng.uniform(1.5, height - 0.1), rng.uniform(0.2, 0.8) * length]
            )
        extent = np.eye(3) * rng.uniform(0.02, 0.25, 3)
        lamps.append(Lamp(centre, extent, np.zeros(3), rng.uniform(1, 6) * _tint(rng, 0.35)))
    if rng.random() < 0.12:
        lamps.append(Lamp(eye + rng.normal(0, 0.05, 3), np.eye(3) * 0.01, np.zeros(3), rng.uniform(2, 8) * np.ones(3)))
    sun = None
    if plan.windows and rng.random() < 0.4:
        wall = plan.windows[0].wall
        outwards = at(plan.size, wall, 0.0, 0.0, 0.0) - at(plan.size, wall, 0.0, 0.0, 1.0)
        direction = outwards + np.array([rng.normal(0, 0.5), rng.uniform(0.2, 1.4), rng.normal(0, 0.5)])
        sun = Sun(direction / np.linalg.norm(direction), rng.uniform(2, 10) * np.array([1.0, 0.93, 0.82]))
    total = sum((lamp.power for lamp in lamps), np.zeros(3)) / (width * length) + 0.03
    ambient = total * rng.uniform(0.25, 1.0) * np.array([rng.uniform(0.5, 0.9), 1.0])[:, None]
    return Light(plan, lamps, sun, ambient)


def _tint(rng: np.random.Generator, strength: float) -> Array:
    """Draw a colour of light, from warm to cool."""
    warmth = rng.uniform(-strength, strength)
    return np.array([1 + warmth, 1 + 0.3 * warmth, 1 - warmth])


class Shading(NamedTuple):
    """Light on surfaces: ``diffuse`` (N, 3), to be multiplied by their colour, and ``gloss`` (N, 3), to be added."""

    diffuse: Array
    gloss: Array


def shade(
    rng: np.random.Generator,
    tracer: Tracer,
    light: Light,
    surface: tuple[Array, Array, Array],
    towards: Array,
    material: Array,
    samples: int,
) -> Shading:
    """Return the light that surfaces get.

    Args:
        rng: source of the positions on lamps.
        tracer: the scene.
        light: its light.
        surface: points, face normals and smooth normals, each (N, 3).
        towards: unit directions to the eye (N, 3).
        material: numbers of their materials (N,).
        samples: rays to each lamp; 0 for light without shadows.
    """
    points, faces, normals = surface
    start = points + _CLEAR * faces
    strength, exponent = tracer.gloss[material].T
    up = normals[:, 1:2] * 0.5 + 0.5
    diffuse = (light.ambient[0] * (1 - up) + light.ambient[1] * up).astype(np.float32)
    if samples:
        diffuse *= _openness(rng, tracer, start, faces, samples)[:, None]
    gloss = np.zeros_like(diffuse)
    for lamp in light.lamps:
        for _ in range(max(samples, 1)):
            spots = rng.uniform(-1, 1, (len(points), 3)).astype(np.float32) if samples else 0 * points
            way = (lamp.centre + spots @ lamp.extent - start).astype(np.float32)
            square = dot(way, way)
            to_lamp = unit(way)
            cosine = dot(to_lamp, normals).clip(0) * (dot(to_lamp, faces) > 0)
            received = cosine / (square + 0.05)
            if lamp.facing.any():
                received = received * (-(to_lamp @ lamp.facing.astype(np.float32))).clip(0)
            if samples:
                lit = np.flatnonzero(received > 0)
                received[lit[tracer.blocked(start[lit], way[lit] * np.float32(0.999))]] = 0
            power = lamp.power.astype(np.float32) / max(samples, 1)
            diffuse += received[:, None] * power
            shine = strength * (exponent + 8) / 25 * dot(unit(to_lamp + towards), normals).clip(0) ** exponent
            gloss += (0.3 * shine * received)[:, None] * power
    if light.sun is not None and samples:
        diffuse += _sunlit(tracer, light, light.sun, start, normals)[:, None] * light.sun.power.astype(np.float32)
    return Shading(diffuse, gloss)


def _openness(rng: np.random.Generator, tracer: Tracer, start: Array, faces: Array, samples: int) -> Array:
    """Return how open the surroundings are (N,), from 0 to 1: the mean free way of random rays, cosine-weighted."""
    total = np.zeros(len(start), np.float32)
    for _ in range(samples):
        ball = unit(np.asarray(rng.standard_normal(start.shape, np.float32)))
        way = unit(ball + faces * np.float32(1.001)) * np.float32(_REACH)
        total += np.sqrt(tracer.distances(start, way))
    return 0.15 + 0.85 * total / samples


def _sunlit(tracer: Tracer, light: Light, sun: Sun, start: Array, normals: Array) -> Array:
    """Return the cosine towards the sun where its light comes in through a window, 0 elsewhere; (N,)."""
    cosine = (normals @ sun.direction.astype(np.float32)).clip(0)
    plan, lit = light.plan, np.zeros(len(start), np.float32)
    for window in plan.windows:
        corner = at(plan.size, window.wall, 0.0, 0.0, 0.0)
        outwards = corner - at(plan.size, window.wall, 0.0, 0.0, 1.0)
        slope = float(outwards @ sun.direction)
        if slope < 0.05:
            continue
        reach = ((corner - start) @ outwards / slope).astype(np.float32) + np.float32(0.04)
        there = start + reach[:, None] * sun.direction.astype(np.float32)
        along = there[:, 0] if window.wall % 2 == 0 else there[:, 2]
        inside = (along > window.start) & (along < window.end)
        inside &= (there[:, 1] > window.low) & (there[:, 1] < window.high) & (cosine > 0)
        found = np.flatnonzero(inside)
        way = reach[found, None] * sun.direction.astype(np.float32)
        lit[found[~tracer.blocked(start[found], way.astype(np.float32))]] = 1
    return lit * cosine
