"""Scenes in tar archives: an image and a depth map of 8 bits each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ddfnet.data.archives import TarIndex
from ddfnet.data.depth.scenes import Scene
from ddfnet.errors import DataError
from ddfnet.images import read_image
from ddfnet.reading import reading

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_Pair = tuple[str, str]  # names of an image and of its depth map in the archive, FOLDER/FILE
_Make = Callable[[str, "Array", "Array"], Scene]


def load(file: str | Path, pairs: Sequence[_Pair], make: _Make, size: tuple[int, int] | None = None) -> ArchivedScenes:
    """Return the scenes of an archive, which are read on access.

    Args:
        file: the tar archive, not compressed; folders around its own do not matter.
        pairs: the images and depth maps that it must have, in the order of the scenes.
        make: function that is given the name of a depth map, the image (H, W, 3), uint8, and the depth map (H, W),
            uint8, and returns the scene. It must be a module's own, to be pickled.
        size: (H, W) that all must have; None where each depth map has its image's.

    Returns:
        The scenes. They can be pickled.

    Raises:
        DataError: the file is missing, no such archive, or a file in it is missing.
    """
    archive = TarIndex.of(Path(file), 2)
    if missing := [name for pair in pairs for name in pair if name not in archive.spans]:
        raise DataError(
            f"{file}: {missing[0]} is required in the archive, there is none"
            + (f" (nor {len(missing) - 1} other files)" if len(missing) > 1 else "")
            + "; is it the right one, and whole?"
        )
    return ArchivedScenes(archive, pairs, make, size)


class ArchivedScenes(Sequence[Scene]):
    """Scenes by the names of their images and depth maps in an archive; see `load`."""

    def __init__(self, archive: TarIndex, pairs: Sequence[_Pair], make: _Make, size: tuple[int, int] | None) -> None:
        self.archive, self.pairs, self.make, self.size = archive, pairs, make, size

    def __len__(self) -> int:
        return len(self.pairs)

    @overload
    def __getitem__(self, index: int) -> Scene: ...

    @overload
    def __getitem__(self, index: slice) -> ArchivedScenes: ...

    def __getitem__(self, index: int | slice) -> Scene | ArchivedScenes:
        if isinstance(index, slice):
            return ArchivedScenes(self.archive, self.pairs[index], self.make, self.size)
        guide, depth = self.pairs[index]
        image, values = self._guide(guide), self._depth(depth)
        for name, array in ((guide, image), (depth, values)):
            required = image.shape[:2] if self.size is None else self.size
            if array.shape[:2] != required:
                raise DataError(
                    f"{self.archive.path}/{name} must have {required[1]}x{required[0]} pixels, "
                    f"got {array.shape[1]}x{array.shape[0]}"
                )
        return self.make(depth, image, values)

    def _guide(self, name: str) -> Array:
        import numpy as np

        return np.asarray(read_image(BytesIO(self.archive.content(name)), f"{self.archive.path}/{name}"))

    def _depth(self, name: str) -> Array:
        from ddfnet.depth.io.pillow import Png

        place = f"{self.archive.path}/{name}"
        with reading(place, broken=" is a broken image"):
            values: Array = Png().read(BytesIO(self.archive.content(name))).values
        if values.dtype != "uint8":
            raise DataError(f"{place} must have 8 bits, got {values.dtype}")
        return values
