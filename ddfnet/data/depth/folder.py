"""Scenes of a folder: images in ``rgb/``, their depth maps in ``depth/``, paired by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np

from ddfnet.data.depth.scenes import Scene, from_arrays
from ddfnet.depth.io import FORMATS, GUIDES, read, read_guide
from ddfnet.depth.known_layouts import files_by_stem
from ddfnet.depth.valid import valid_depth
from ddfnet.errors import DataError


def load(folder: str | Path, unit: str = "") -> Sequence[Scene]:
    """Return the scenes of a folder in the order of their names, which are read on access.

    Args:
        folder: has ``rgb/`` with images and ``depth/`` with maps of the same size, in any of `ddfnet.depth.io.FORMATS`;
            both have the same names without the suffix: rgb/a.jpg and depth/a.png are a pair. Hidden files and those of
            other kinds are passed over.
        unit: unit of the depth: "m" is reported in cm, any other as it is.

    Returns:
        A sequence of scenes. A broken file is found when its scene is accessed.

    Raises:
        DataError: a folder is missing or empty, a file has no partner, or two would be its partner.
    """
    root = Path(folder)
    guides, depths = _one_per_stem(root / "rgb", GUIDES), _one_per_stem(root / "depth", FORMATS)
    for name, here, there in ((root / "depth", guides, depths), (root / "rgb", depths, guides)):
        if lonely := sorted(here.keys() - there.keys()):
            raise DataError(
                f"{here[lonely[0]]}: a file of the same name is required in {name}, there is none"
                + (f" (nor for {len(lonely) - 1} others)" if len(lonely) > 1 else "")
                + "; add it, or take this one away"
            )
    return FolderScenes([(guides[stem], depths[stem]) for stem in sorted(guides)], unit)


class FolderScenes(Sequence[Scene]):
    """Scenes by the paths of their images and depth maps; see `load`."""

    def __init__(self, pairs: Sequence[tuple[Path, Path]], unit: str) -> None:
        self.pairs, self.unit = pairs, unit

    def __len__(self) -> int:
        return len(self.pairs)

    @overload
    def __getitem__(self, index: int) -> Scene: ...

    @overload
    def __getitem__(self, index: slice) -> FolderScenes: ...

    def __getitem__(self, index: int | slice) -> Scene | FolderScenes:
        if isinstance(index, slice):
            return FolderScenes(self.pairs[index], self.unit)
        guide, depth = self.pairs[index]
        found = read(depth)
        # A scene's missing depth is 0; a GeoTIFF can name another value.
        values = found.values
        if found.missing is not None:
            values = values * valid_depth(values, missing=(found.missing,))
        whole = np.iinfo(values.dtype) if values.dtype.kind in "iu" else None
        scene = from_arrays(
            str(depth),  # messages name the file
            read_guide(guide),
            values,
            self.unit,
            f"{guide} and {depth}.",
            limits=(whole.min, whole.max) if whole else None,
        )
        return replace(scene, name=depth.stem)


def _one_per_stem(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: this folder is required beside {'depth' if folder.name == 'rgb' else 'rgb'}/")
    found = files_by_stem(folder, suffixes)
    for first, *others in found.values():
        if others:
            raise DataError(f"{others[0]}: one file per name is required, got {first.name} too; take one away")
    if not found:
        raise DataError(f"{folder}: files are required in it ({', '.join(suffixes)}), got none")
    return {stem: paths[0] for stem, paths in found.items()}
