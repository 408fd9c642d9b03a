"""Windows of scenes, rendered or real: a data set of random parts of their images and depth maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from ddfnet.data.archives import TarIndex
from ddfnet.data.depth import folder, middlebury15, nyu8
from ddfnet.data.depth.measurement import Measurement
from ddfnet.data.depth.scenes import Scene
from ddfnet.data.depth.synthetic import check_numbers
from ddfnet.errors import DataError


class RoomWindows(Dataset[dict[str, Tensor]]):
    """Windows of the scenes that `ddfnet scenes render` has made, of NYU Depth V2, or of Middlebury.

    Some windows are mirrored, and some have disparities in place of depths, 1 / depth: the unit means nothing, as in
    `ddfnet.data.depth.synthetic.ComposedScenes`. Window i is the same in every process: it depends on the folder,
    ``seed`` and i alone. Any folder of the layout of `ddfnet.data.depth.folder` serves whose depth is valid everywhere.

    Args:
        rooms: a folder with ``rgb/`` and ``depth/``, the maps in millimetres; the file of `ddfnet.data.depth.nyu8`, for
            its training part; or that of `ddfnet.data.depth.middlebury15`, without the first pair, Aloe, on which
            `ddfnet evaluate depth` measures.
        length: number of windows.
        size: pixels per side.
        seed: seed of the windows, below 2**32.
        disparities: share of windows with disparities.
        noise: see `ddfnet.data.depth.measurement.Measurement`.
        holes: see there.
        misalignment: see there.
        sensors: see there.

    Attributes:
        description: where the scenes come from, for the model card.

    Returns:
        From ``[i]``: ``guide`` (3, size, size), uint8; ``depth`` (1, size, size), float32, in metres or 1 / metres (of
        Middlebury in 1/256 of a level of the file, after one is added, so that every value is above 0);
        ``measured``, the same as measured; ``valid`` (1, size, size), bool.

    Raises:
        ValueError: a length or a size below 1; a seed, a share or misalignment out of range.
        TypeError: a length, a size or a seed that is no whole number.
        DataError: the folder has no scenes, the archive is none; on access: a scene is broken or smaller than a window.

    Example:
        >>> from ddfnet.data.depth.rooms.windows import RoomWindows
        >>> RoomWindows("rooms", length=1000, size=256)  # doctest: +SKIP
    """

    def __init__(
        self,
        rooms: str | Path,
        length: int,
        size: int = 256,
        *,
        seed: int = 0,
        disparities: float = 0.35,
        noise: float = 0.0,
        holes: float = 0.0,
        misalignment: float = 0.0,
        sensors: float = 0.0,
    ) -> None:
        check_numbers(length, size, seed, least=1)
        if not 0 <= disparities <= 1:
            raise ValueError(f"disparities must be a share from 0 to 1, got {disparities}")
        self.measurement = Measurement(size, noise=noise, holes=holes, misalignment=misalignment, sensors=sensors)
        self.scenes, self.description = _source(Path(rooms))
        self.length, self.size, self.seed, self.disparities = length, size, seed, disparities

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < self.length:
            raise IndexError(f"window {index} of {self.length}")
        rng = np.random.default_rng((self.seed, index))
        scene = self.scenes[int(rng.integers(len(self.scenes)))]
        height, width = scene.size
        if min(height, width) < self.size:
            raise DataError(f"{scene.origin} A window of {self.size} pixels is required, got {width} x {height}")
        top, left = (int(rng.integers(side - self.size + 1)) for side in (height, width))
        window = (slice(top, top + self.size), slice(left, left + self.size))
        guide, depth = scene.guide.permute(1, 2, 0)[window].numpy(), scene.depth[window].numpy()
        if scene.unit == "levels":
            depth = (depth + 1) / np.float32(256)
        elif scene.unit != "m":
            depth = depth / np.float32(1000)
        if not depth.all():
            raise DataError(f"{scene.origin} A depth that is valid everywhere is required, got 0 in it")
        if rng.random() < 0.5:
            guide, depth = guide[:, ::-1], depth[:, ::-1]
        if rng.random() < self.disparities:
            depth = 1 / depth
        return self.measurement.sample(rng, np.ascontiguousarray(guide), np.ascontiguousarray(depth))


def _source(rooms: Path) -> tuple[Sequence[Scene], str]:
    """Return the scenes, and where they come from, for the model card."""
    if (rooms / "scenes.json").exists():
        kind = "rooms rendered of furniture models, credited in scenes.json of their folder (ddfnet.data.depth.rooms)"
        return folder.load(rooms), kind
    if not rooms.is_file():
        return folder.load(rooms), f"the scenes of the folder {rooms.name}"
    if "RGB/01.png" in TarIndex.of(rooms, 2).spans:
        kind = "14 Middlebury pairs of 2001 to 2006, without Aloe (ddfnet.data.depth.middlebury15)"
        return middlebury15.load(rooms)[1:], kind
    kind = "the training part of NYU Depth V2 in 8 bits, which is for research (ddfnet.data.depth.nyu8)"
    return nyu8.load(rooms, "train"), kind
