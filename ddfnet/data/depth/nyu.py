"""NYU Depth V2, labelled part: 1449 images of rooms with their depth in metres, 480x640.

The file is ``nyu_depth_v2_labeled.mat`` (2.8 GB) from Silberman et al., "Indoor segmentation and support inference from
RGBD images", ECCV 2012: https://cs.nyu.edu/~silberman/datasets/nyu_depth_v2.html. It is read image by image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from ddfnet.data.depth.scenes import Scene, from_arrays
from ddfnet.errors import DataError
from ddfnet.reading import reading

MD5 = "a3a66613390119e6d46827a7aaa3c132"
TRAIN = 1000  # the first thousand; the others are the test part, a split of Li et al. that all have used since

# RMSE of plain bilinear upsampling on the test part under `pac` (table of NVlabs/pacnet's README, cm). It is torch's
# `interpolate(align_corners=False)`, half a pixel off: `bilinear-half-pixel` among the methods, not `bilinear`.
HALF_PIXEL_BILINEAR_CM = {4: 5.43, 8: 8.36, 16: 12.90}

_checked: dict[tuple[str, int, int], str] = {}  # file, bytes, time of change -> MD5: hashing it takes seconds


def load(file: str | Path, split: str = "test", verify: bool = True) -> Sequence[Scene]:
    """Return the scenes of one part, which are read on access.

    Args:
        file: nyu_depth_v2_labeled.mat.
        split: "train" (the first 1000) or "test" (the other 449).
        verify: compare the file's MD5 with the published one, once per process.

    Returns:
        A sequence of scenes, depth in metres. It can be pickled.

    Raises:
        DataError: the file is missing, is not that data set, or has another MD5.
        ValueError: an unknown split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    path = Path(file)
    if verify:
        _verify(path)
    with _open(path) as archive:
        count = _count(path, archive)
    numbers = range(count)[:TRAIN] if split == "train" else range(count)[TRAIN:]
    if not numbers:
        raise DataError(f"{path}: more than {TRAIN} images are required for a test part, got {count}")
    return NyuScenes(path, numbers)


class NyuScenes(Sequence[Scene]):
    """Scenes of a file, by their numbers in it; see `load`."""

    def __init__(self, path: Path, numbers: range) -> None:
        self.path, self.numbers = path, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Scene: ...

    @overload
    def __getitem__(self, index: slice) -> NyuScenes: ...

    def __getitem__(self, index: int | slice) -> Scene | NyuScenes:
        if isinstance(index, slice):
            return NyuScenes(self.path, self.numbers[index])
        number = self.numbers[index]
        # Opened each time: a handle would not survive a fork or pickling.
        with _open(self.path) as archive, reading(self.path):
            guide = archive["images"][number].transpose(2, 1, 0)  # MATLAB's order: (3, W, H)
            depth = archive["depths"][number].T
        part = "training" if number < TRAIN else "test"
        origin = f"NYU Depth V2, labelled part: image {number + 1}, of the {part} split."
        return from_arrays(f"nyu {number + 1}", guide, depth, "m", origin)


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise DataError(f"{path}: reading it requires h5py; pip install 'ddfnet[train]'") from None
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: nyu_depth_v2_labeled.mat is required, which HDF5 can open: {error}") from None


def _count(path: Path, archive: Any) -> int:
    shapes = [tuple(archive[name].shape) if name in archive else None for name in ("images", "depths")]
    images, depths = shapes
    fits = depths is not None and len(depths) == 3 and images == (depths[0], 3, *depths[1:])
    if depths is None or not fits or archive["images"].dtype != "uint8":
        raise DataError(
            f"{path}: images (N, 3, W, H), uint8, and depths (N, W, H) are required, got {images} and {depths}; "
            "is it nyu_depth_v2_labeled.mat?"
        )
    return int(depths[0])


def _verify(path: Path) -> None:
    try:
        status = path.stat()
        key = str(path.resolve()), status.st_size, status.st_mtime_ns
        if key not in _checked:
            digest = hashlib.md5(usedforsecurity=False)
            with path.open("rb") as stream:
                while block := stream.read(1 << 22):
                    digest.update(block)
            _checked[key] = digest.hexdigest()
    except OSError as error:
        raise DataError(f"{path}: nyu_depth_v2_labeled.mat is required: {error}") from None
    if _checked[key] != MD5:
        raise DataError(f"{path}: MD5 {MD5} is required, got {_checked[key]}; download it again, or pass verify=False")
