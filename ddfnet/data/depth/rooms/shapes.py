"""Meshes of furniture models, read with trimesh: triangles, normals, textures, in metres."""

from __future__ import annotations

import zipfile
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from ddfnet.data.depth.rooms.furniture import Model
from ddfnet.errors import DataError

Array = np.ndarray[Any, Any]

_LARGEST_FILE = 2**27  # bytes
_MOST_FACES = 200_000  # more per model cost time, and show nothing at 640 x 480
_LARGEST_TEXTURE = 512  # pixels per side: a model covers about as many of the image
_GREY = (180, 180, 180)  # sRGB of a mesh without a material
_SEE_THROUGH = 0.5  # opacity below which a surface is left out, for its depth would be that of the glass


class Material(NamedTuple):
    """Look of a surface.

    Args:
        colour: (3,), linear light, from 0 to 1; it multiplies the texture.
        texture: (H, W, 4), uint8, sRGB and opacity; None for a plain colour.
        gloss: strength from 0 to 1, and exponent, of its highlights.
        mirrored: whether the texture repeats mirrored, which hides its seams.
        glow: light that it sends out itself, in the units of `ddfnet.data.depth.rooms.light`.
    """

    colour: Array
    texture: Array | None
    gloss: tuple[float, float]
    mirrored: bool = False
    glow: float = 0.0


class ModelMesh(NamedTuple):
    """Triangles with the middle of their base at 0: x to the right, y up, z to the front; metres.

    Args:
        points: corners (M, 3, 3), float32.
        normals: normals at the corners (M, 3, 3), float32.
        texels: texture coordinates at the corners (M, 3, 2), float32, v upwards; 0 where there are none.
        material: index into ``materials`` (M,), int32.
        materials: the materials.
    """

    points: Array
    normals: Array
    texels: Array
    material: Array
    materials: tuple[Material, ...]


def load(model: Model) -> ModelMesh:
    """Read the mesh of a model, turned as its catalogue says and scaled to its size.

    Surfaces of glass are left out: both a camera and the depth that is wanted see through them.

    Args:
        model: model of a catalogue.

    Returns:
        The shape.

    Raises:
        DataError: the mesh or a texture is broken or missing, too large or without a face.
    """
    try:
        archive = _opened(model.archive, model.archive.stat().st_mtime_ns)
        parts = [_part(mesh) for mesh in _meshes(archive, model.file)]
        return _joined([part for part in parts if part is not None], model)
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
        raise DataError(f"{model.name}: {model.archive.name} has a broken {model.file}: {reason}") from None


@lru_cache(maxsize=8)
def _opened(archive: Path, changed: int) -> zipfile.ZipFile:
    """Return an archive as of a time; it stays open, for to read its table of contents takes as long as a mesh does."""
    return zipfile.ZipFile(archive)


class _Files:
    """Files beside a model in its archive, as trimesh asks for them; it passes over broken ones, so they are noted."""

    def __init__(self, archive: zipfile.ZipFile, folder: PurePosixPath) -> None:
        self.archive, self.folder = archive, folder
        self.broken: list[str] = []

    def get(self, name: str) -> bytes:
        from PIL import Image

        try:
            content = _read(self.archive, str(self.folder / name.strip().removeprefix("./").replace("\\", "/")))
            if not name.lower().endswith(".mtl"):
                Image.open(BytesIO(content)).close()
            return content
        except (KeyError, OSError, ValueError) as error:
            self.broken.append(f"{name} cannot be read: {error}")
            raise

    __getitem__ = get


def _read(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _LARGEST_FILE:
        raise ValueError(f"{name} is larger than {_LARGEST_FILE} bytes")
    return archive.read(name)


def _meshes(archive: zipfile.ZipFile, file: str) -> list[Any]:
    import trimesh

    files = _Files(archive, PurePosixPath(file).parent)
    content = _read(archive, file)
    scene = trimesh.load_scene(BytesIO(content), file_type="obj", resolver=files, process=False, split_objects=False)
    if files.broken:
        raise ValueError(files.broken[0])
    meshes = [mesh for _, mesh in sorted(scene.geometry.items()) if len(getattr(mesh, "faces", ()))]
    for mesh in meshes:
        mesh.metadata["smooth"] = b"\nvn " in content
    return meshes


def _part(mesh: Any) -> tuple[Array, Array, Array, Material] | None:
    """Return points, normals and texels at the corners of a mesh, and its material; None for glass."""
    material = getattr(mesh.visual, "material", None)
    options = getattr(material, "kwargs", {})
    opacity = float(options.get("d", ["1"])[0])
    if opacity < _SEE_THROUGH or not len(mesh.faces):
        return None
    points = np.asarray(mesh.vertices, np.float32)[mesh.faces]
    if not np.isfinite(points).all():
        raise ValueError("a corner is not finite")
    if mesh.metadata["smooth"]:
        normals = np.asarray(mesh.vertex_normals, np.float32)[mesh.faces]
    else:
        normals = np.broadcast_to(np.asarray(mesh.face_normals, np.float32)[:, None], points.shape)
    uv = getattr(mesh.visual, "uv", None)
    texels = np.zeros((*points.shape[:2], 2), np.float32) if uv is None else np.asarray(uv, np.float32)[mesh.faces]
    image = getattr(material, "image", None)
    texture = None if image is None or uv is None else _texture(image)
    colour = linear(np.asarray(getattr(material, "diffuse", _GREY)[:3], np.float32) / 255)
    if texture is not None:  # as Sweet Home 3D does: the texture alone
        colour = np.ones(3, np.float32)
    strength = float(np.clip(np.mean(options.get("ks", 0.0)), 0, 1))
    exponent = float(np.clip(np.mean(options.get("ns", 10.0)), 2, 200))
    return points, normals, texels, Material(colour, texture, (strength, exponent))


def _texture(image: Any) -> Array:
    from PIL import Image

    image.draft("RGB", (_LARGEST_TEXTURE, _LARGEST_TEXTURE))
    image = image.convert("RGBA")
    image.thumbnail((_LARGEST_TEXTURE, _LARGEST_TEXTURE), Image.Resampling.BOX)
    return np.asarray(image)


def _joined(parts: list[tuple[Array, Array, Array, Material]], model: Model) -> ModelMesh:
    """Return the parts as one shape, turned, scaled and moved to its base."""
    if not parts:
        raise ValueError("it has no face that can be seen")
    points, normals, texels = (np.concatenate([part[i] for part in parts]) for i in range(3))
    if len(points) > _MOST_FACES:
        raise ValueError(f"it has {len(points)} triangles, more than {_MOST_FACES}")
    counts = [len(part[0]) for part in parts]
    if model.rotation:
        turn = np.array(model.rotation, np.float32).reshape(3, 3)
        points, normals = points @ turn.T, normals @ turn.T
    low, high = points.min((0, 1)), points.max((0, 1))
    extent = high - low
    width, depth, height = model.size
    scale = np.array([width, height, depth], np.float32) / np.maximum(extent, 1e-9)
    scale[extent < 1e-6 * extent.max()] = 1  # a flat one, such as a poster
    middle = np.array([low[0] + high[0], 2 * low[1], low[2] + high[2]], np.float32) / 2
    points = (points - middle) * scale
    normals = normals / scale
    lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
    normals = np.where(lengths > 1e-12, normals / np.maximum(lengths, 1e-12), np.array([0, 1, 0], np.float32))
    return ModelMesh(
        points.astype(np.float32),
        normals.astype(np.float32),
        np.nan_to_num(texels).astype(np.float32),
        np.repeat(np.arange(len(parts), dtype=np.int32), counts),
        tuple(part[3] for part in parts),
    )


def linear(colour: Array) -> Array:
    """Return linear light of an sRGB colour from 0 to 1, float32."""
    return (np.asarray(colour, np.float32).clip(0, 1) ** 2.2).astype(np.float32)
