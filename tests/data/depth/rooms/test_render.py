"""Rendered rooms: depth that is exact, light that makes sense, and the same bytes from everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("embreex")
pytest.importorskip("trimesh")
pytest.importorskip("cv2")
pytest.importorskip("skimage")

from ddfnet.data.depth.rooms import camera, furniture, light, plan
from ddfnet.data.depth.rooms.mesh import Builder
from ddfnet.data.depth.rooms.render import Renderer
from ddfnet.data.depth.rooms.shapes import Material
from ddfnet.data.depth.rooms.tracer import Solid, Tracer
from ddfnet.data.depth.textures import photographs
from tests.furniture_catalogues import write_catalogue

SIZE = (96, 64)
ROOM = plan.Plan((4.0, 2.5, 5.0), [], [], [])


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return photographs()


@pytest.fixture
def models(tmp_path: Path) -> tuple[furniture.Model, ...]:
    write_catalogue(tmp_path / "a.sh3f")
    return furniture.load(tmp_path).models


def view_of(*, eye: tuple[float, float, float] = (2.0, 1.2, 0.5), size: tuple[int, int] = SIZE) -> camera.View:
    """Return a camera that looks along z."""
    return camera.View(np.array(eye), np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]]), 80.0, size)


def pixels(view: camera.View) -> tuple[np.ndarray, np.ndarray]:
    y, x = (grid.ravel() + 0.5 for grid in np.mgrid[: view.size[1], : view.size[0]])
    return view.rays(x, y)


def empty_room(images: list[np.ndarray], room: plan.Plan = ROOM) -> Tracer:
    builder = Builder(np.random.default_rng(0), images)
    builder.room(room)
    builder.boxes(room)
    return Tracer(builder.triangles(), builder.materials)


# --- depth ----------------------------------------------------------------------------------------------------------


def test_depth_is_the_distance_along_the_optical_axis(images: list[np.ndarray]) -> None:
    view = view_of()
    hits = empty_room(images).first(*pixels(view), 1 / view.focal)
    origins, directions = pixels(view)
    to_walls = np.where(directions > 0, np.array(ROOM.size) - origins, -origins) / np.where(
        directions, directions, 1e-9
    )
    nearest = to_walls.min(1)
    bare = (hits.point[:, 1] > 0.2) & (np.abs(hits.distance - nearest) < 0.02)  # not the skirting
    assert bare.mean() > 0.7
    np.testing.assert_allclose(hits.distance[bare], nearest[bare], rtol=1e-5)
    np.testing.assert_allclose(hits.point, origins + hits.distance[:, None] * directions, rtol=1e-5, atol=1e-5)


def test_a_box_hides_the_wall_from_its_edge_on(images: list[np.ndarray]) -> None:
    room = ROOM._replace(boxes=[(np.array([1.0, 0.0, 2.5]), np.array([2.0, 2.5, 3.0]))])
    view = view_of()
    distance = empty_room(images, room).first(*pixels(view), 1 / view.focal).distance.reshape(64, 96)
    # x grows to the left; the box's edge at x = 2 is at the middle of the image
    np.testing.assert_allclose(distance[32, 48:80], 2.0, rtol=1e-5)
    assert (distance[32, :48] > 3).all()


def test_every_pixel_has_depth(models: tuple[furniture.Model, ...], images: list[np.ndarray]) -> None:
    renderer = Renderer(models, images, SIZE, seed=3)
    for index in range(4):
        room = renderer(index)
        assert room.image.shape == (64, 96, 3) and room.image.dtype == np.uint8
        assert room.depth.shape == (64, 96) and room.depth.dtype == np.float32
        assert (room.depth > 0.3).all() and (room.depth < 12).all()
        assert room.image.std() > 5


# --- one room, wherever it is made ----------------------------------------------------------------------------------


def test_a_room_depends_on_seed_and_number_alone(models: tuple[furniture.Model, ...], images: list[np.ndarray]) -> None:
    first, second = Renderer(models, images, SIZE, seed=1), Renderer(models, images, SIZE, seed=1)
    second(0)
    one, other = first(7), second(7)
    assert one.quality == other.quality
    assert one.image.tobytes() == other.image.tobytes()
    assert one.depth.tobytes() == other.depth.tobytes()
    assert first(8).depth.tobytes() != one.depth.tobytes()
    assert Renderer(models, images, SIZE, seed=2)(7).depth.tobytes() != one.depth.tobytes()


def test_a_broken_model_is_left_out_and_named(tmp_path: Path, images: list[np.ndarray]) -> None:
    write_catalogue(tmp_path / "a.sh3f", files={"test/table/wood.png": b"no image"})
    renderer = Renderer(furniture.load(tmp_path).models, images, SIZE)
    for index in range(4):
        renderer(index)
    assert list(renderer.broken) == ["Test#table"]
    assert "wood.png cannot be read" in renderer.broken["Test#table"]


# --- textures and holes ---------------------------------------------------------------------------------------------


def leaf(holed: bool) -> Tracer:
    """Return a square of 2 m before a wall, with a texture whose right half is a hole, or green too."""
    builder = Builder(np.random.default_rng(0), [])
    texture = np.zeros((8, 8, 4), np.uint8)
    texture[..., 1] = texture[..., 3] = 255
    texture[:, 4:, 3] = 0 if holed else 255
    green = builder.add_material(Material(np.ones(3, np.float32), texture, (0.0, 10.0)))
    wall = builder.add_material(Material(np.float32([1, 0, 0]), None, (0.0, 10.0)))
    corners = np.array([[0.0, 0, 2], [2, 0, 2], [2, 2, 2], [0, 2, 2]])
    builder.quad(corners, green, np.array([[0, 0], [1, 0], [1, 1], [0, 1]]))
    builder.quad(corners * [9, 9, 1] + [-5, -5, 1], wall, np.zeros((4, 2)))
    return Tracer(builder.triangles(), builder.materials)


def test_a_ray_passes_a_hole_in_a_texture() -> None:
    origins, ahead = np.float32([[0.5, 1, 0], [1.5, 1, 0]]), np.float32([[0, 0, 1], [0, 0, 1]])
    hits = leaf(True).first(origins, ahead, 1e-3)
    np.testing.assert_allclose(hits.distance, [2, 3], rtol=1e-5)
    np.testing.assert_allclose(hits.colour, [[0, 1, 0], [1, 0, 0]], atol=1e-5)
    assert leaf(True).blocked(origins, ahead * 2.5).tolist() == [True, False]
    np.testing.assert_allclose(leaf(False).first(origins, ahead, 1e-3).distance, [2, 2], rtol=1e-5)
    assert leaf(False).blocked(origins, ahead * 2.5).tolist() == [True, True]


def test_a_texture_that_is_far_is_blurred() -> None:
    stripes = np.zeros((64, 64, 4), np.uint8)
    stripes[:, ::2, :3] = 255
    stripes[..., 3] = 255
    builder = Builder(np.random.default_rng(0), [])
    material = builder.add_material(Material(np.ones(3, np.float32), stripes, (0.0, 10.0)))
    builder.quad(
        np.array([[0.0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]]), material, np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    )
    tracer = Tracer(builder.triangles(), builder.materials)
    x = np.linspace(0.2, 0.8, 100, dtype=np.float32)
    origins = np.stack([x, np.full_like(x, 0.5), 0 * x], 1)
    ahead = np.tile(np.float32([0, 0, 1]), (100, 1))
    assert tracer.first(origins, ahead, 1e-3).colour.std() > 0.2
    assert tracer.first(origins, ahead, 0.1).colour.std() < 0.02


# --- light ----------------------------------------------------------------------------------------------------------


def test_a_lamp_lights_less_from_afar_and_not_behind_a_thing(images: list[np.ndarray]) -> None:
    pillar = (np.array([1.9, 0.0, 2.0]), np.array([2.1, 2.5, 2.2]))
    tracer = empty_room(images, ROOM._replace(boxes=[pillar]))
    lamp = light.Lamp(np.array([2.0, 1.0, 1.0]), np.zeros((3, 3)), np.zeros(3), np.ones(3))
    lights = light.Light(ROOM, [lamp], None, np.zeros((2, 3)))
    points = np.float32([[0.5, 0, 1], [1.5, 0, 1], [2.0, 0, 3.5]])
    up = np.tile(np.float32([0, 1, 0]), (3, 1))
    shaded = light.shade(np.random.default_rng(0), tracer, lights, (points, up, up), up, np.zeros(3, int), 2)
    far, near, hidden = shaded.diffuse[:, 0]
    assert near > 2 * far > 0
    assert hidden == 0
    open_ = light.shade(np.random.default_rng(0), tracer, lights, (points, up, up), up, np.zeros(3, int), 0)
    assert open_.diffuse[2, 0] > 0


def test_corners_get_less_of_the_walls_light(images: list[np.ndarray]) -> None:
    lights = light.Light(ROOM, [], None, np.ones((2, 3)))
    points = np.float32([[0.05, 0, 0.05], [2, 0, 2.5]]).repeat(200, 0)
    up = np.tile(np.float32([0, 1, 0]), (400, 1))
    shaded = light.shade(
        np.random.default_rng(0), empty_room(images), lights, (points, up, up), up, np.zeros(400, int), 2
    )
    corner, middle = shaded.diffuse[:200].mean(), shaded.diffuse[200:].mean()
    assert corner < 0.8 * middle
    assert middle <= 1


def test_the_sun_shines_through_a_window_alone(images: list[np.ndarray]) -> None:
    room = ROOM._replace(windows=[plan.Window(0, 1.5, 2.5, 0.5, 2.0)])
    sun = light.Sun(np.array([0, 1.0, -1.0]) / np.sqrt(2), np.ones(3))
    lights = light.Light(room, [], sun, np.zeros((2, 3)))
    points = np.float32([[2, 0, 1], [2, 0, 4], [3.5, 0, 1]])
    up = np.tile(np.float32([0, 1, 0]), (3, 1))
    shaded = light.shade(
        np.random.default_rng(0), empty_room(images, room), lights, (points, up, up), up, np.zeros(3, int), 2
    )
    np.testing.assert_allclose(shaded.diffuse[:, 0], [np.sqrt(0.5), 0, 0], atol=1e-5)


# --- camera ---------------------------------------------------------------------------------------------------------


def test_a_view_is_inside_the_room_and_upright() -> None:
    points = np.float32([[[0, 0, 0], [4, 0, 0], [0, 2.5, 0]]])
    for seed in range(5):
        view = camera.draw(np.random.default_rng(seed), ROOM, Solid(points), np.zeros(1, int), SIZE)
        np.testing.assert_allclose(view.axes @ view.axes.T, np.eye(3), atol=1e-6)
        assert view.axes[1, 1] < -0.5
        assert np.linalg.det(view.axes) == pytest.approx(1)
        assert ((view.eye > 0.2) & (view.eye < np.array(ROOM.size) - 0.2)).all()
        degrees = 2 * np.degrees(np.arctan(SIZE[0] / 2 / view.focal))
        assert 45 <= degrees <= 75


def test_exposure_keeps_bright_bright_and_dark_dark() -> None:
    light_ = np.tile(np.linspace(0.01, 10, 96, dtype=np.float32)[None, :, None], (64, 1, 3))
    for seed in range(5):
        image = camera.expose(np.random.default_rng(seed), light_)
        columns = image.mean((0, 2))
        assert columns[-8:].mean() > columns[40:56].mean() - 1 > columns[:8].mean()
        assert 20 < image.mean() < 250
