"""Photographs with EXIF's orientation beside depth maps that were never turned, or were turned with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ddfnet.depth import io
from ddfnet.depth.orientation import as_stored, edge_agreement, exif_orientation
from tests.upsampling import Run, refused

NOTE = "the guide is taken "


def scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a depth map and an image of four times its size, of rectangles on no symmetric places."""
    random = np.random.default_rng(3)
    depth = np.full((height, width), 4000, np.uint16)
    colours = np.full((height, width, 3), 120, np.uint8)
    for number in range(12):
        top, left = random.integers(0, height * 3 // 4), random.integers(0, width * 3 // 4)
        own = slice(top, top + height // 5), slice(left, left + width // 6)
        depth[own], colours[own] = 900 + 200 * number, random.integers(0, 256, 3)
    return depth, np.kron(colours, np.ones((4, 4, 1), np.uint8))


def save(path: Path, image: np.ndarray, orientation: int) -> Path:
    opened = Image.fromarray(image)
    exif = opened.getexif()
    exif[0x0112] = orientation
    opened.save(path, exif=exif)
    return path


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    opened = Image.fromarray(image)
    opened.getexif()[0x0112] = orientation
    return np.array(ImageOps.exif_transpose(opened))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".png", ".tif"])  # Pillow turns a TIFF when it loads it
def test_the_stored_image_comes_back_from_the_turned(tmp_path: Path, orientation: int, ending: str) -> None:
    stored = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    path = save(tmp_path / f"a{ending}", stored, orientation)
    assert exif_orientation(path) == orientation
    assert np.array_equal(as_stored(io.read_guide(path), orientation), stored)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_heic_file_is_turned_by_its_decoder(tmp_path: Path, orientation: int) -> None:
    """Its EXIF data says "upright" then; the stored image comes back all the same, up to the loss of its coding."""
    pytest.importorskip("pillow_heif").register_heif_opener()
    _, stored = scene(36, 48)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "a.heic", exif=exif.tobytes(), quality=95)
    turned = np.array(Image.open(tmp_path / "a.heic").convert("RGB"))
    assert exif_orientation(tmp_path / "a.heic") == orientation
    assert np.abs(turned.astype(int) - upright(stored, orientation)).mean() < 3
    assert np.abs(as_stored(turned, orientation).astype(int) - stored).mean() < 3


def test_no_orientation_is_upright(tmp_path: Path) -> None:
    Image.new("RGB", (4, 3)).save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"broken")
    save(tmp_path / "c.png", np.zeros((3, 4, 3), np.uint8), 77)
    assert [exif_orientation(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.png")] == [1, 1, 1]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("turned", [False, True])
def test_the_aspect_ratio_tells(tmp_path: Path, calls: list, run: Run, orientation: int, turned: bool) -> None:
    depth, stored = scene(36, 48)
    expected = upright(stored, orientation) if turned else stored
    io.write(tmp_path / "d.png", upright(depth, orientation) if turned else depth)
    save(tmp_path / "g.png", stored, orientation)
    done = run(tmp_path / "d.png", "--guide", tmp_path / "g.png", "-o", tmp_path / "o.png")
    assert done.status == 0 and np.array_equal(calls[0]["guide"], expected)
    how, other = ("as turned by its EXIF data", "stored") if turned else ("as stored", "upright")
    assert f"{NOTE}{how}, only that has the depth map's aspect ratio; --orientation {other} for" in done.err


SQUARE, WIDE = (64, 64), (60, 80)


@pytest.mark.parametrize(
    ("size", "orientation"), [*((WIDE, number) for number in (2, 3, 4)), *((SQUARE, number) for number in range(2, 9))]
)
@pytest.mark.parametrize("turned", [False, True])
def test_the_edges_tell_where_both_fit(
    tmp_path: Path, calls: list, run: Run, size: tuple[int, int], orientation: int, turned: bool
) -> None:
    depth, stored = scene(*size)
    expected = upright(stored, orientation) if turned else stored
    depth = upright(depth, orientation) if turned else depth
    depth[::7, ::5] = 0
    io.write(tmp_path / "d.png", depth)
    save(tmp_path / "g.png", stored, orientation)
    done = run(tmp_path / "d.png", "--guide", tmp_path / "g.png", "-o", tmp_path / "o.png")
    assert done.status == 0 and np.array_equal(calls[0]["guide"], expected)
    assert "its edges are the depth map's" in done.err


def test_where_the_edges_do_not_tell_the_note_asks(tmp_path: Path, calls: list, run: Run) -> None:
    """A plane has no edges; then the stored image is taken."""
    _, stored = scene(60, 80)
    io.write(tmp_path / "d.png", (np.mgrid[:60, :80].sum(0) + 900).astype(np.uint16))
    save(tmp_path / "g.png", stored, 3)
    done = run(tmp_path / "d.png", "--guide", tmp_path / "g.png", "-o", tmp_path / "o.png")
    assert np.array_equal(calls[0]["guide"], stored)
    assert f"{NOTE}as stored, the edges do not tell; look at the result; --orientation upright for" in done.err


def test_the_option_decides(tmp_path: Path, calls: list, run: Run) -> None:
    depth, stored = scene(60, 80)
    io.write(tmp_path / "d.png", depth)
    save(tmp_path / "g.png", stored, 3)
    for chosen, expected in (("stored", stored), ("upright", upright(stored, 3))):
        calls.clear()
        out = tmp_path / f"{chosen}.png"
        done = run(tmp_path / "d.png", "--guide", tmp_path / "g.png", "-o", out, "--orientation", chosen)
        assert (done.status, done.err) == (0, "") and np.array_equal(calls[0]["guide"], expected)
    save(tmp_path / "h.png", stored, 6)
    wrong = ("--guide", tmp_path / "h.png", "-o", tmp_path / "o.png", "--orientation", "upright")
    refused(run(tmp_path / "d.png", *wrong), "a guide of the depth map's aspect ratio is required; it is 240 x 320")


def test_agreement_of_edges() -> None:
    depth, image = scene(60, 80)
    every = np.ones(depth.shape, bool)
    assert edge_agreement(depth, every, image) > 0.85
    noise = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
    assert abs(edge_agreement(depth, every, noise) - 0.5) < 0.1
    assert edge_agreement(depth, every, np.zeros_like(image)) == 0.5
    assert edge_agreement(np.full_like(depth, 7), every, image) == 0.5
    assert edge_agreement(depth, ~every, image) == 0.5
