"""Rays against triangles, with Embree: what each ray meets first, its colour there, and what is in a light's way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ddfnet.data.depth.rooms.shapes import Array, Material

_LEVELS = 10  # sizes of a texture, each half of the one before
_ASIDE = np.array([1.3e-5, 2.1e-5, 1.7e-5], np.float32)  # metres
_PASSES = 6  # surfaces with a hole in their texture, such as leaves, that one ray may pass


class Triangles(NamedTuple):
    """Triangles of a scene; the arrays have one row per triangle, see `ddfnet.data.depth.rooms.shapes.ModelMesh`.

    Args:
        points: (M, 3, 3), float32.
        normals: (M, 3, 3), float32.
        texels: (M, 3, 2), float32.
        material: (M,), index into the materials of the scene.
        thing: (M,), number of the object.
    """

    points: Array
    normals: Array
    texels: Array
    material: Array
    thing: Array


class Hits(NamedTuple):
    """Surfaces that rays have met; one row per ray.

    Args:
        distance: distance in lengths of the ray's direction; inf where nothing was met.
        triangle: number of the triangle, -1 for none.
        point: where, (N, 3).
        face: normal of the triangle, towards the ray's origin, (N, 3).
        normal: normal of the smooth surface, on the same side, (N, 3).
        colour: linear colour of the surface (N, 3).
        material: number of the material.
    """

    distance: Array
    triangle: Array
    point: Array
    face: Array
    normal: Array
    colour: Array
    material: Array


class Solid:
    """Triangles that are in the way of rays.

    Args:
        points: their corners (M, 3, 3), float32.
    """

    def __init__(self, points: Array) -> None:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        self.scene = EmbreeScene()
        TriangleMesh(self.scene, np.ascontiguousarray(points))

    def meet(self, origins: Array, directions: Array) -> tuple[Array, Array]:
        """Return the number of the triangle that each ray meets first, -1 for none, and how far it goes, at most 1.

        Args:
            origins: (N, 3), float32, metres.
            directions: (N, 3), float32; the ray is as long.
        """
        raw = self._run(origins, directions, output=True)
        return raw["primID"], np.where(raw["primID"] < 0, np.float32(1), raw["tfar"])

    def distances(self, origins: Array, directions: Array) -> Array:
        """Return how far rays go, in lengths of their directions, at most 1; (N,), float32."""
        return self._run(origins, directions, query="DISTANCE").clip(0, 1)

    def blocked(self, origins: Array, directions: Array) -> Array:
        """Return whether something lies on the way from each origin to origin + direction, (N,), bool."""
        return self._run(origins, directions, query="OCCLUDED") >= 0

    def _run(self, origins: Array, directions: Array, **query: Any) -> Any:
        ends = np.ones(len(origins), np.float32)
        return self.scene.run(np.ascontiguousarray(origins), np.ascontiguousarray(directions), ends, **query)


class Tracer(Solid):
    """Scene of coloured surfaces that rays can be sent into.

    Args:
        triangles: its triangles.
        materials: its materials.
    """

    def __init__(self, triangles: Triangles, materials: Sequence[Material]) -> None:
        super().__init__(triangles.points)
        self.triangles = triangles
        self.colours = np.stack([material.colour for material in materials]).astype(np.float32)
        self.gloss = np.array([material.gloss for material in materials], np.float32)
        self.glow = np.array([material.glow for material in materials], np.float32)
        self.atlas = _Atlas(materials)
        self.pierced = np.array([_has_holes(material) for material in materials])
        edges = triangles.points[:, 1:] - triangles.points[:, :1]
        normal = np.cross(edges[:, 0], edges[:, 1])
        area = np.sqrt(dot(normal, normal))
        self.faces = normal / np.maximum(area, np.float32(1e-20))[:, None]
        sides = triangles.texels[:, 1:] - triangles.texels[:, :1]
        plain = np.abs(sides[:, 0, 0] * sides[:, 1, 1] - sides[:, 0, 1] * sides[:, 1, 0])
        self.density = np.sqrt(plain / np.maximum(area, 1e-20))  # texture widths per metre

    def first(self, origins: Array, directions: Array, spread: float) -> Hits:
        """Return what rays meet first; a hole in a texture is passed.

        Args:
            origins: (N, 3), float32, metres.
            directions: (N, 3), float32, of any length.
            spread: width of a ray in metres at one length of its direction, for the sharpness of textures.
        """
        origins, directions = np.ascontiguousarray(origins), np.ascontiguousarray(directions)
        found = self._hits(origins, directions, spread)
        for _ in range(_PASSES if self.pierced.any() else 0):
            open_ = np.flatnonzero(self.pierced[found.material] & (found.colour[:, 0] < 0))
            if not len(open_):
                break
            step = found.distance[open_] + 1e-3
            behind = self._hits(origins[open_] + step[:, None] * directions[open_], directions[open_], spread)
            behind = behind._replace(distance=behind.distance + step)
            for old, new in zip(found, behind, strict=True):
                old[open_] = new
        return found._replace(colour=found.colour.clip(0))

    def _hits(self, origins: Array, directions: Array, spread: float) -> Hits:
        raw = self.scene.run(origins, directions, output=True)
        lost = np.flatnonzero(raw["primID"] < 0)
        if len(lost):  # between two triangles that share an edge, where rounding leaves a crack
            again = self.scene.run(origins[lost] + _ASIDE, directions[lost], output=True)
            for name, values in again.items():
                raw[name][lost] = values
        triangle = raw["primID"]
        distance = np.where(triangle < 0, np.float32(np.inf), raw["tfar"])
        point = origins + np.where(triangle < 0, 0, raw["tfar"])[:, None] * directions
        face = self.faces[triangle]
        face *= np.where(dot(face, directions) > 0, np.float32(-1), np.float32(1))[:, None]
        normal = unit(_mixed(self.triangles.normals[triangle], raw))
        normal *= np.where(dot(normal, face) < 0, np.float32(-1), np.float32(1))[:, None]
        material = self.triangles.material[triangle]
        texels = _mixed(self.triangles.texels[triangle], raw)
        width = raw["tfar"] * spread * self.density[triangle]
        colour = self.colours[material] * self.atlas.sample(material, texels, width)
        return Hits(distance, triangle, point, face, normal, colour, material)

    def blocked(self, origins: Array, directions: Array) -> Array:
        """Return whether something lies on the way, where a texture has no hole."""
        if not self.pierced.any():
            return super().blocked(origins, directions)
        raw = self._run(origins, directions, output=True)
        triangle = raw["primID"]
        hit, material = triangle >= 0, self.triangles.material[triangle]
        holes = np.flatnonzero(hit & self.pierced[material])
        if len(holes):
            texels = _mixed(self.triangles.texels[triangle[holes]], {side: raw[side][holes] for side in "uv"})
            hit[holes] = self.atlas.sample(material[holes], texels, np.zeros(len(holes), np.float32))[:, 0] >= 0
        return hit


def dot(a: Array, b: Array) -> Array:
    """Return the scalar products of the rows of two arrays (N, 3)."""
    return np.einsum("ij,ij->i", a, b)


def unit(rows: Array) -> Array:
    """Return rows (N, 3) divided by their lengths."""
    return rows / np.maximum(np.sqrt(dot(rows, rows)), np.float32(1e-12))[:, None]


def _mixed(corners: Array, raw: dict[str, Array]) -> Array:
    """Return values (N, C) at the hits from those at the corners of their triangles (N, 3, C)."""
    u, v = raw["u"][:, None], raw["v"][:, None]
    return corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v


def _has_holes(material: Material) -> bool:
    return material.texture is not None and bool((material.texture[..., 3] < 128).any())


class _Atlas:
    """Textures of all materials at all sizes in one array, so that one indexing reads those of all rays."""

    def __init__(self, materials: Sequence[Material]) -> None:
        import cv2

        self.mirrored = np.array([material.mirrored for material in materials])
        texels: list[Array] = [np.full((1, 4), 255, np.uint8)]
        self.start = np.zeros((len(materials), _LEVELS), np.int64)
        self.height = np.ones((len(materials), _LEVELS), np.int64)
        self.width = np.ones((len(materials), _LEVELS), np.int64)
        total = 1
        for number, material in enumerate(materials):
            image = material.texture
            if image is None:
                continue
            for level in range(_LEVELS):
                height, width = image.shape[:2]
                self.start[number, level], self.height[number, level], self.width[number, level] = total, height, width
                texels.append(image.reshape(-1, 4))
                total += height * width
                smaller = (max(width // 2, 1), max(height // 2, 1))
                image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
        self.texels = np.concatenate(texels)
        self.light = ((np.arange(256) / 255) ** 2.2).astype(np.float32)

    def sample(self, material: Array, texels: Array, width: Array) -> Array:
        """Return the linear colour (N, 3) at texture coordinates; negative where the texture has a hole.

        Args:
            material: number of the material (N,).
            texels: coordinates (N, 2) in widths and heights of the texture, upwards.
            width: width of the ray there, in widths of the texture.
        """
        pixels = width * self.width[material, 0]
        level = np.floor(np.log2(np.maximum(pixels, 1))).astype(np.int64).clip(0, _LEVELS - 1)
        start, rows, columns = self.start[material, level], self.height[material, level], self.width[material, level]
        u, v = texels[:, 0], 1 - texels[:, 1]
        mirrored = self.mirrored[material]
        u, v = (np.where(mirrored, np.abs((t + 1) % 2 - 1), t % 1) for t in (u, v))
        x, y = u * columns.astype(np.float32) - np.float32(0.5), v * rows.astype(np.float32) - np.float32(0.5)
        left, top = np.floor(x), np.floor(y)
        a, b = (x - left)[:, None], (y - top)[:, None]
        left, top = left.astype(np.int64), top.astype(np.int64)

        def at(row: Array, column: Array) -> Array:
            row = np.where(mirrored, row.clip(0, rows - 1), row % rows)
            column = np.where(mirrored, column.clip(0, columns - 1), column % columns)
            return self.texels[start + row * columns + column]

        corners = [at(top + i, left + j) for i in (0, 1) for j in (0, 1)]
        weights = [(1 - b) * (1 - a), (1 - b) * a, b * (1 - a), b * a]
        colour = sum(self.light[corner[:, :3]] * weight for corner, weight in zip(corners, weights, strict=True))
        opacity = sum(
            corner[:, 3:].astype(np.float32) * weight for corner, weight in zip(corners, weights, strict=True)
        )
        return np.where(opacity < 127.5, np.float32(-1), colour)
