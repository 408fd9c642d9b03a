"""A folder of your own scenes: photographs in ``rgb/``, their depth maps in ``depth/``, paired by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

from ddfnet.data.scenes import Scene, from_arrays
from ddfnet.data.splits import DataError


def load(folder: str | Path, unit: str = "") -> Sequence[Scene]:
    """The scenes of a folder, in the order of their names, read when they are asked for.

    Args:
        folder: has ``rgb/`` with photographs and ``depth/`` with maps of the same size (16-bit PNG, TIFF, NPY, PFM),
            both by the same names without the suffix: rgb/a.jpg and depth/a.png are a pair. Hidden files are passed
            over.
        unit: of the depth: "m" is reported in cm, anything else as it is.

    Returns:
        A sequence of scenes. A file is read, and found to be broken, when its scene is asked for.

    Raises:
        DataError: a folder is missing or empty, a file has no partner, or two would be its partner.
    """
    root = Path(folder)
    guides, depths = _by_stem(root / "rgb"), _by_stem(root / "depth")
    for name, here, there in ((root / "depth", guides, depths), (root / "rgb", depths, guides)):
        if lonely := sorted(here.keys() - there.keys()):
            raise DataError(
                f"{here[lonely[0]]}: a file of the same name is required in {name}, there is none"
                + (f" (nor for {len(lonely) - 1} others)" if len(lonely) > 1 else "")
                + "; add it, or take this one away"
            )
    return PairedScenes([(guides[stem], depths[stem]) for stem in sorted(guides)], unit)


class PairedScenes(Sequence[Scene]):
    """Scenes by the paths of their photographs and depth maps; see `load`."""

    def __init__(self, pairs: Sequence[tuple[Path, Path]], unit: str) -> None:
        self.pairs, self.unit = pairs, unit

    def __len__(self) -> int:
        return len(self.pairs)

    @overload
    def __getitem__(self, index: int) -> Scene: ...

    @overload
    def __getitem__(self, index: slice) -> PairedScenes: ...

    def __getitem__(self, index: int | slice) -> Scene | PairedScenes:
        if isinstance(index, slice):
            return PairedScenes(self.pairs[index], self.unit)
        from ddfnet.data import depth_files

        guide, depth = self.pairs[index]
        scene = from_arrays(
            str(depth),  # messages name the file
            depth_files.read_guide(guide),
            depth_files.read(depth).values,
            self.unit,
            f"{guide} and {depth}.",
        )
        return replace(scene, name=depth.stem)


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: this folder is required beside {'depth' if folder.name == 'rgb' else 'rgb'}/")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_dir():
            continue
        if path.stem in found:
            raise DataError(f"{path}: one file a name is required, got {found[path.stem].name} too; take one away")
        found[path.stem] = path
    if not found:
        raise DataError(f"{folder}: files are required in it, got none")
    return found
