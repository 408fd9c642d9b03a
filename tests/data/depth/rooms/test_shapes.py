"""Meshes of furniture models: their size and place, their textures, and what is wrong with broken ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trimesh")

from ddfnet.data.depth.rooms import furniture, shapes
from ddfnet.errors import DataError
from tests.furniture_catalogues import MODELS, box_mesh, write_catalogue


def load(
    folder: Path, name: str = "table", entry: dict[str, object] | None = None, **files: str | bytes
) -> shapes.ModelMesh:
    changed = {f"test/{name}/{file.replace('_', '.')}": content for file, content in files.items()}
    write_catalogue(folder / "a.sh3f", {name: {**MODELS[name], **(entry or {})}}, files=changed)
    [model] = furniture.load(folder).models
    return shapes.load(model)


def test_a_mesh_has_the_size_of_its_catalogue_and_stands_on_0(tmp_path: Path) -> None:
    shape = load(tmp_path)
    np.testing.assert_allclose(shape.points.min((0, 1)), [-0.6, 0, -0.4], atol=1e-6)
    np.testing.assert_allclose(shape.points.max((0, 1)), [0.6, 0.75, 0.4], atol=1e-6)
    assert len(shape.points) == 12
    edges = shape.points[:, 1:] - shape.points[:, :1]
    across = np.einsum("mk,mck->mc", np.cross(edges[:, 0], edges[:, 1]), shape.normals)
    assert (across > 0).all()


def test_a_mesh_is_turned_before_it_is_scaled(tmp_path: Path) -> None:
    narrow = box_mesh().replace("v 0.5 ", "v 0.1 ")
    turned = load(tmp_path, entry={"modelRotation": "0 0 -1 0 1 0 1 0 0"}, box_obj=narrow)
    np.testing.assert_allclose(np.ptp(turned.points, (0, 1)), [1.2, 0.75, 0.8], atol=1e-6)


def test_a_texture_takes_the_place_of_the_colour(tmp_path: Path) -> None:
    table, cup = load(tmp_path), load(tmp_path, "cup")
    [wood], [green] = table.materials, cup.materials
    assert wood.texture is not None
    assert wood.texture[0, 0].tolist() == [255, 0, 0, 255]
    assert wood.colour.tolist() == [1, 1, 1]
    assert green.texture is None
    np.testing.assert_allclose(green.colour, np.array([0.2, 0.6, 0.2]) ** 2.2, atol=0.01)
    assert table.texels.max() == 1


def test_glass_is_left_out(tmp_path: Path) -> None:
    glass = "newmtl skin\nKd 1 1 1\nd 0.2\n"
    with pytest.raises(DataError, match="it has no face that can be seen"):
        load(tmp_path, box_mtl=glass)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"box_obj": "nothing"}, "it has no face that can be seen"),
        ({"box_obj": "v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n"}, "a corner is not finite"),
        ({"box_obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n"}, "IndexError"),
        ({"box_obj": "mtllib none.mtl\n" + box_mesh()}, "none.mtl cannot be read"),
        ({"box_mtl": "newmtl skin\nmap_Kd none.png\n"}, "none.png cannot be read"),
        ({"wood_png": b"no image"}, "wood.png cannot be read: cannot identify image file"),
    ],
)
def test_a_broken_model_is_named_with_a_reason(tmp_path: Path, files: dict[str, str | bytes], reason: str) -> None:
    with pytest.raises(DataError, match=rf"Test#table: a\.sh3f has a broken test/table/box\.obj: .*{reason}"):
        load(tmp_path, **files)
