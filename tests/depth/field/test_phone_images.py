"""Guides of phones: AVIF by Pillow, HEIC by pillow-heif, which the message names."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from ddfnet.depth import io
from ddfnet.errors import DataError

HALVES = np.zeros((48, 64, 3), np.uint8)
HALVES[:, :32] = 200, 100, 50


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
def test_avif_is_read_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the left side comes to the top
    Image.fromarray(HALVES).save(tmp_path / "a.avif", quality=95, exif=exif)
    found = io.read_guide(tmp_path / "a.avif").astype(int)
    assert found.shape == (64, 48, 3)
    assert np.abs(found[:28] - (200, 100, 50)).max() < 12 and found[36:].max() < 12


@pytest.mark.parametrize("name", ["a.heic", "a.HEIF", "a.jpg"])  # phones send HEIC as .jpg, too
def test_heic_is_read(tmp_path: Path, name: str) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(Image.fromarray(HALVES)).save(tmp_path / "b.heic", quality=95)
    (tmp_path / "b.heic").rename(tmp_path / name)
    found = io.read_guide(tmp_path / name).astype(int)
    assert found.shape == HALVES.shape
    assert np.abs(found[:, :28] - (200, 100, 50)).max() < 12 and found[:, 36:].max() < 12


def test_without_the_package_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DataError, match=r"a HEIC image needs pillow-heif, .* pip install 'ddfnet\[formats\]'"):
        io.read_guide(tmp_path / "a.heic")


def test_a_broken_heic(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    with pytest.raises(DataError) as raised:
        io.read_guide(tmp_path / "a.heic")
    assert str(raised.value).startswith(f"{tmp_path / 'a.heic'}: ") and "\n" not in str(raised.value)


def test_folders_pair_them_by_name() -> None:
    assert {".heic", ".heif", ".avif"} <= set(io.GUIDES)
