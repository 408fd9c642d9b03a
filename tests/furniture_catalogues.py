"""Small furniture catalogues of Sweet Home 3D's layout: boxes with and without a texture."""

from __future__ import annotations

import zipfile
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_FACES = ((1, 2, 4, 3), (5, 7, 8, 6), (1, 5, 6, 2), (3, 4, 8, 7), (1, 3, 7, 5), (2, 6, 8, 4))


def box_mesh(material: str = "skin", library: str = "box.mtl") -> str:
    """Return an OBJ of a cube of one unit around 0, whose faces have texture coordinates."""
    corners = [(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]
    lines = [f"mtllib {library}", *(f"v {x} {y} {z}" for x, y, z in corners)]
    lines += ["vt 0 0", "vt 1 0", "vt 1 1", "vt 0 1", f"usemtl {material}"]
    for face in _FACES:
        first, *others = [f"{corner}/{number}" for number, corner in enumerate(face, 1)]
        lines += [f"f {first} {a} {b}" for a, b in pairwise(others)]
    return "\n".join(lines) + "\n"


def texture() -> bytes:
    """Return a PNG of 8 x 8 pixels, red on the left and blue on the right."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :4, 0] = pixels[:, 4:, 2] = 255
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


MODELS: dict[str, dict[str, Any]] = {
    "table": {"name": "Table", "category": "Living room", "width": 120, "depth": 80, "height": 75},
    "chair": {"name": "Chair", "category": "Living room", "width": 45, "depth": 45, "height": 90},
    "shelves": {"name": "Shelves", "category": "Living room", "width": 90, "depth": 35, "height": 180},
    "cup": {"name": "Cup", "category": "Kitchen", "width": 12, "depth": 12, "height": 12},
    "clock": {"name": "Clock", "category": "Living room", "width": 30, "depth": 5, "height": 30, "elevation": 150},
}
"""Models of `write_catalogue`: those of wood have a texture, the cup has a colour."""


def write_catalogue(
    file: Path,
    models: dict[str, dict[str, Any]] = MODELS,
    *,
    licence: str = "Creative Commons Attribution 3.0",
    files: dict[str, str | bytes] | None = None,
) -> Path:
    """Write a catalogue of boxes.

    Args:
        file: the .sh3f file.
        models: entries of its list, by name.
        licence: licence in the list.
        files: files of the archive that replace or join the usual ones, by name.
    """
    lines = [f"license={licence}"]
    content: dict[str, str | bytes] = {}
    for number, (name, entry) in enumerate(models.items(), 1):
        entry = {"id": f"Test#{name}", "creator": "A. Maker", "model": f"/test/{name}/box.obj", **entry}
        lines += [f"{key}#{number}={value}" for key, value in entry.items()]
        wooden = name != "cup"
        content[f"test/{name}/box.obj"] = box_mesh()
        content[f"test/{name}/box.mtl"] = "newmtl skin\nKd 0.2 0.6 0.2\n" + ("map_Kd wood.png\n" if wooden else "")
        if wooden:
            content[f"test/{name}/wood.png"] = texture()
    content["PluginFurnitureCatalog.properties"] = "\n".join(lines) + "\n"
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in {**content, **(files or {})}.items():
            archive.writestr(name, text)
    return file
