"""A folder of your own scenes: photographs in ``rgb/``, their depth maps in ``depth/``, paired by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

from ddfnet.data.depth.scenes import Scene, from_arrays
from ddfnet.depth.io import FORMATS, GUIDES, read, read_guide
from ddfnet.errors import DataError


def load(folder: str | Path, unit: str = "") -> Sequence[Scene]:
    """The scenes of a folder, in the order of their names, read when they are asked for.

    Args:
        folder: has ``rgb/`` with photographs and ``depth/`` with maps of the same size (16-bit PNG, TIFF, NPY, PFM),
            both by the same names without the suffix: rgb/a.jpg and depth/a.png are a pair. Hidden files and those of
            other kinds are passed over.
        unit: of the depth: "m" is reported in cm, anything else as it is.

    Returns:
        A sequence of scenes. A file is read, and found to be broken, when its scene is asked for.

    Raises:
        DataError: a folder is missing or empty, a file has no partner, or two would be its partner.
    """
    root = Path(folder)
    guides, depths = _one_a_name(root / "rgb", GUIDES), _one_a_name(root / "depth", FORMATS)
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
        guide, depth = self.pairs[index]
        scene = from_arrays(
            str(depth),  # messages name the file
            read_guide(guide),
            read(depth).values,
            self.unit,
            f"{guide} and {depth}.",
        )
        return replace(scene, name=depth.stem)


def by_stem(folder: Path, suffixes: Iterable[str]) -> dict[str, list[Path]]:
    """The files of a folder with one of these endings, by their names without it; hidden ones are passed over.

    Raises:
        DataError: the folder cannot be read.
    """
    endings = set(suffixes)
    found: dict[str, list[Path]] = {}
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in endings and not path.name.startswith(".") and path.is_file():
                found.setdefault(path.stem, []).append(path)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
    return found


def _one_a_name(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: this folder is required beside {'depth' if folder.name == 'rgb' else 'rgb'}/")
    found = by_stem(folder, suffixes)
    for first, *others in found.values():
        if others:
            raise DataError(f"{others[0]}: one file a name is required, got {first.name} too; take one away")
    if not found:
        raise DataError(f"{folder}: files are required in it ({', '.join(suffixes)}), got none")
    return {stem: paths[0] for stem, paths in found.items()}
