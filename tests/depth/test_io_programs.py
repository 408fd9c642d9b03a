"""Libraries that read the results back: what the docs' table says of each format and type."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddfnet.depth import io
from ddfnet.depth.io import DepthFormat, formats


def opencv(path: Path) -> Any:
    cv2 = pytest.importorskip("cv2")
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def pillow(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


def rasterio(path: Path) -> Any:
    module = pytest.importorskip("rasterio")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of files without a georeference
        with module.open(path) as file:
            return file.read(1)


def open3d(path: Path) -> Any:
    """Read by Open3D, of which 0.20.0 was tried by hand: its wheel has 105 MB, and is not in the extra ``dev``."""
    module = pytest.importorskip("open3d")
    return np.asarray(module.io.read_image(str(path)))


def openexr(path: Path) -> Any:
    module = pytest.importorskip("OpenEXR")
    with module.File(str(path), separate_channels=True) as file:
        return file.channels()["Z"].pixels


def h5py(path: Path) -> Any:
    with pytest.importorskip("h5py").File(path) as file:
        return file["depth"][()]


def numpy(path: Path) -> Any:
    found = np.load(path)
    return found if isinstance(found, np.ndarray) else found["depth"]


READERS: dict[str, Callable[[Path], Any]] = {
    "OpenCV": opencv,
    "Pillow": pillow,
    "rasterio": rasterio,
    "Open3D": open3d,
    "OpenEXR": openexr,
    "h5py": h5py,
    "NumPy": numpy,
}
CASES = [(format, program, dtype) for format in formats() for program in format.programs for dtype in format.dtypes]


def ends_of(dtype: str) -> np.ndarray:
    """Return a map with the ends of a type and its fine steps."""
    kind = np.dtype(dtype)
    limits: Any = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
    values = np.linspace(1, 100, 35).reshape(7, 5).astype(kind)
    values[0, :3] = limits.min, limits.max, 0
    return values


@pytest.mark.parametrize(
    ("format", "program", "dtype"), CASES, ids=[f"{format.name}-{program}-{dtype}" for format, program, dtype in CASES]
)
def test_who_reads_the_results(tmp_path: Path, format: DepthFormat, program: str, dtype: str) -> None:
    if format.package:
        pytest.importorskip(format.package[0])
    values = ends_of(dtype)
    path = tmp_path / f"a{format.suffixes[0]}"
    io.write(path, values)
    try:
        found = READERS[program](path)
    except Exception as error:
        assert dtype not in format.programs[program], error
        return
    reads = found is not None and np.array_equal(found, values)
    assert reads == (dtype in format.programs[program]), "the library and the format's `programs` differ"
