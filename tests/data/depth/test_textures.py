"""Photographs that are found, those that must never be, and the textures that are cut from them."""

import struct
import zlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("cv2")
pytest.importorskip("skimage")

import cv2

from ddfnet.data.depth.textures import photographs, texture
from ddfnet.errors import DataError

CARRIED = 10  # photographs of scikit-image


def noise(height: int = 96, width: int = 120, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write(path: Path, image: np.ndarray) -> Path:
    path.write_bytes(cv2.imencode(path.suffix.lower(), image)[1].tobytes())
    return path


@pytest.fixture
def files_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the names of all files that are read, in lower case."""
    names = []
    read = Path.read_bytes

    def noted(path: Path) -> bytes:
        names.append(path.name.lower())
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    return names


# --- which photographs --------------------------------------------------------------------------------------


def test_scikit_image_carries_ten() -> None:
    images = photographs()
    assert len(images) == CARRIED
    for image in images:
        assert image.dtype == np.uint8 and image.shape[2] == 3 and min(image.shape[:2]) >= 96


def test_files_and_folders_are_added(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    write(folder / "B.PNG", noise(seed=1))
    write(folder / "a.jpeg", noise(100, 96))
    write(folder / "below" / "c.png", noise(150, 150))
    own = write(tmp_path / "own.png", noise(97, 99, seed=2))
    found = photographs([folder, own])[CARRIED:]
    assert [image.shape for image in found] == [(96, 120, 3), (100, 96, 3), (97, 99, 3)]  # none of the sub-folder
    np.testing.assert_array_equal(found[0], noise(seed=1)[..., ::-1])  # red comes first
    np.testing.assert_array_equal(found[2], noise(97, 99, seed=2)[..., ::-1])


def test_grey_and_transparent_images_have_three_channels(tmp_path: Path) -> None:
    write(tmp_path / "grey.png", noise()[..., 0])
    write(tmp_path / "transparent.png", np.concatenate([noise(), noise()[..., :1]], 2))
    write(tmp_path / "wide.png", noise().astype(np.uint16) * 257)
    for image in photographs([tmp_path])[CARRIED:]:
        assert image.shape == (96, 120, 3) and image.dtype == np.uint8


def test_what_is_no_photograph_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "good.png", noise())
    whole = (tmp_path / "good.png").read_bytes()
    write(tmp_path / "icon.png", noise(95, 400))
    write(tmp_path / "high_icon.jpg", noise(400, 95))
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "header.png").write_bytes(whole[:20])
    (tmp_path / "notes.txt").write_text("a photograph is not called so")
    (tmp_path / "another.bin").write_bytes(whole)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "lost.png").symlink_to(tmp_path / "nothing.png")
    assert len(photographs([tmp_path])) == CARRIED + 1


@pytest.mark.parametrize("name", ["nothing", "nothing.png"])
def test_a_missing_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"{name}: no such photograph or folder of photographs"):
        photographs([tmp_path / name])


def test_nothing_in_it(tmp_path: Path) -> None:
    message = r"has no photograph of 96 pixels per side or more \(\.png, \.jpg, \.jpeg\)"
    with pytest.raises(DataError, match=message):
        photographs([tmp_path])
    icon = write(tmp_path / "icon.png", noise(32, 32))
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    for path in (icon, broken, tmp_path):
        with pytest.raises(DataError, match=f"{path.name} {message}"):
            photographs([path])


# --- the scenes that methods are tested on ------------------------------------------------------------------

HELD_BACK = ["aloeL.jpg", "aloeR.jpg", "aloeGT.png", "motorcycle_left.png", "motorcycle_right.png", "ALOEL.JPG"]


@pytest.mark.parametrize("name", HELD_BACK)
def test_a_test_scene_is_never_read(tmp_path: Path, files_read: list[str], name: str) -> None:
    scene = write(tmp_path / name, noise())
    for path in (scene, tmp_path):
        with pytest.raises(DataError) as error:
            photographs([path])
        assert str(error.value) == (
            f"{scene} is held back: its name or its folder's begins as a test scene's does (aloe, motorcycle), on "
            "which nothing may be trained; leave it out, or rename another image"
        )
    write(tmp_path / "other.png", noise(130, 130))
    assert [image.shape for image in photographs([tmp_path])[CARRIED:]] == [(130, 130, 3)]
    assert "other.png" in files_read  # so it is this way that files are read
    assert name.lower() not in files_read


def test_the_motorcycle_itself_is_never_read(files_read: list[str]) -> None:
    """It lies among the photographs that are used."""
    folder = Path(str(files("skimage.data")))
    scene = folder / "motorcycle_left.png"
    content = cv2.imdecode(np.frombuffer(scene.open("rb").read(), np.uint8), cv2.IMREAD_COLOR)
    with pytest.raises(DataError, match=r"motorcycle_left\.png is held back"):
        photographs([scene])
    found = photographs([folder])
    assert len(found) > 2 * CARRIED - 1
    assert all(image.shape != content.shape for image in found)
    assert not any(name.startswith(("motorcycle", "aloe")) for name in files_read)


# --- textures -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return photographs()


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (77, 2), (33, 64), (128, 100)])
def test_a_texture_has_its_size_and_range(images: list[np.ndarray], size: tuple[int, int]) -> None:
    for seed in range(40):
        surface = texture(np.random.default_rng(seed), images, *size)
        assert surface.shape == (*size, 3) and surface.dtype == np.float32
        assert np.isfinite(surface).all() and surface.min() >= 0 and surface.max() <= 1


def test_a_texture_larger_than_every_photograph() -> None:
    surface = texture(np.random.default_rng(1), [noise(96, 96)], 300, 500)
    assert surface.shape == (300, 500, 3) and np.isfinite(surface).all()
    assert surface.std() > 0.01


def test_the_seed_decides_and_the_photographs_stay(images: list[np.ndarray]) -> None:
    before = [image.copy() for image in images]
    first, again, other = (texture(np.random.default_rng(seed), images, 64, 64) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    for image, was in zip(images, before, strict=True):
        np.testing.assert_array_equal(image, was)


def test_most_are_photographs_and_some_are_plain(images: list[np.ndarray]) -> None:
    """Detail is what light leaves: shading is a plane at most, so its second differences are nought."""
    detailed = 0
    for seed in range(150):
        surface = texture(np.random.default_rng(seed), images, 64, 64)
        detailed += float(np.abs(np.diff(surface, 2, axis=1)).mean()) > 1e-3
    assert 0.6 < detailed / 150 < 0.97


def test_textures_show_the_photograph_they_are_given() -> None:
    """Stripes along one axis stay stripes, at some turn: all gradients of a texture are parallel."""
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:] = (127 + 100 * np.sin(np.arange(400) / 8))[:, None]
    parallel = []
    for seed in range(40):
        surface = texture(np.random.default_rng(seed), [stripes], 64, 64).mean(2)
        down, across = np.gradient(surface)
        small, large = np.linalg.eigvalsh(np.cov([down.ravel(), across.ravel()]))
        if large > 1e-4:
            parallel.append(small / large)
    assert len(parallel) > 15 and np.median(parallel) < 0.05


def test_a_scene_is_held_back_by_its_folder_too(tmp_path: Path) -> None:
    """Middlebury's own files are called alike in every scene."""
    (tmp_path / "Aloe").mkdir()
    Image.new("RGB", (128, 128), (9, 8, 7)).save(tmp_path / "Aloe" / "view1.png")
    with pytest.raises(DataError, match=r"Aloe/view1\.png is held back: its name or its folder's begins as"):
        photographs([tmp_path / "Aloe"])


def test_a_photograph_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, read = write(tmp_path / "own.png", noise()), Path.read_bytes

    def denied(path: Path) -> bytes:
        if path == own:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(DataError, match=r"own\.png: cannot be read: Permission denied"):
        photographs([str(own)])


def test_a_header_of_an_absurd_size_is_passed_over(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    Image.new("RGB", (128, 128), (9, 8, 7)).save(good)
    content = bytearray(good.read_bytes())
    content[16:24] = struct.pack(">II", 60000, 60000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    bad.write_bytes(content)
    assert len(photographs([tmp_path])) == len(photographs()) + 1
