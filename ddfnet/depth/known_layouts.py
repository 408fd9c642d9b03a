"""Layouts of folders: which image belongs to which depth map, by names, by times, or as known data sets have it."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ddfnet.depth.io import FORMATS, GUIDES, stem_of, suffix_of
from ddfnet.errors import DataError

MAX_GAP = 0.02  # seconds between a depth map and its image, as in TUM's own tool


@dataclass
class Pairs:
    """Depth maps and their images.

    Attributes:
        found: (depth map, image), in the order of the depth maps.
        problems: one line per file without a partner, beginning with the file.
        rule: the rule, for people; empty for files of equal names, and where the user gave it.
        spare: number of images without a depth map, where that is no problem.
    """

    found: list[tuple[Path, Path]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rule: str = ""
    spare: int = 0


@dataclass(frozen=True)
class Layout:
    """Names of a data set's files, without their suffixes.

    In both patterns ``{}`` is the part that a depth map and its image share, ``{time}`` a time, and ``*`` anything.

    Attributes:
        name: the data set or the tool.
        depth: pattern of the depth maps.
        image: pattern of the images.
        unit: seconds per unit of the times; 0 without times.
    """

    name: str
    depth: str
    image: str
    unit: float = 0


# Before a pattern that matches the same names, the one that says more about them.
LAYOUTS = (
    Layout("7-Scenes and ScanNet's frames", "{}.depth", "{}.color"),
    Layout("Replica", "depth{}", "frame{}"),
    Layout("NYU raw", "d-{time}-*", "r-{time}-*", 1.0),
    Layout("RealSense's rs-convert", "*_Depth_{time}", "*_Color_{time}", 1e-3),
    Layout("RealSense Viewer", "{}_Depth", "{}_Color"),
    *(Layout("usual names", "depth_{}", f"{word}_{{}}") for word in ("color", "rgb", "image")),
    *(Layout("usual names", "{}_depth", f"{{}}_{word}") for word in ("color", "rgb", "image")),
)
TUM = Layout("TUM", "{time}", "{time}", 1.0)  # for two folders: in one its patterns tell nothing apart
SUBFOLDERS = tuple(("depth", image) for image in ("rgb", "color", "image", "images"))
RESULTS = "results"  # Replica's folder of both


def pairs_of_folders(depth: Path, image: Path, max_gap: float = MAX_GAP) -> Pairs:
    """Pair the files of two folders, or of one that holds both.

    Two folders: by times where all names are times with a fraction, else by equal names, else by the first of `LAYOUTS`
    that pairs any. One folder: by the first of `LAYOUTS`, else in the subfolders of a sequence, such as depth/ and
    rgb/, else by equal names.

    Args:
        depth: a folder.
        image: a folder.
        max_gap: longest time between a depth map and its image, in seconds.

    Raises:
        DataError: a folder cannot be read, or has none of the files.
    """
    if not depth.samefile(image):
        return _two_folders(depth, image, max_gap)
    for folder in (depth, depth / RESULTS):
        if folder.is_dir():
            depths, images = files_of(folder, FORMATS), files_of(folder, GUIDES)
            if pairs := _known_layout(depths, images, LAYOUTS, max_gap):
                return pairs
    for names in SUBFOLDERS:
        folders = [depth / name for name in names]
        if all(folder.is_dir() for folder in folders):
            pairs = _two_folders(folders[0], folders[1], max_gap)
            pairs.rule = pairs.rule or f"as in TUM, ScanNet and Open3D: equal names in {folders[0]} and {folders[1]}"
            return pairs
    return pairs_of_equal_names(depth, image)


def _two_folders(depth: Path, image: Path, max_gap: float) -> Pairs:
    depths, images = files_of(depth, FORMATS), files_of(image, GUIDES)
    if depths and images and all(re.fullmatch(r"\d+\.\d+", _stem(path)) for path in (*depths, *images)):
        pairs = _known_layout(depths, images, (TUM,), max_gap)
    elif {*map(_stem, depths)} & {*map(_stem, images)}:
        pairs = None
    else:
        pairs = _known_layout(depths, images, LAYOUTS, max_gap)
    return pairs or pairs_of_equal_names(depth, image)


def _known_layout(
    depths: Sequence[Path], images: Sequence[Path], layouts: Iterable[Layout], max_gap: float
) -> Pairs | None:
    """Return the pairs by the first of the layouts that pairs any files."""
    for layout in layouts:
        own, others = (
            _keys(paths, _expression(pattern)) for paths, pattern in ((depths, layout.depth), (images, layout.image))
        )
        if not own or not others:
            continue
        how = f"{layout.depth} with {layout.image}"
        if layout.unit:
            pairs = _nearest_times(own, others, layout.unit, max_gap)
            how += f", at most {max_gap:g} s apart"
        else:
            pairs = pairs_of_keys(own, others, where=f"{images[0].parent}, as {layout.image}")
        if pairs.found or layout.unit:
            pairs.rule = f"as in {layout.name}: {how}"
            return pairs
    return None


def _expression(pattern: str) -> re.Pattern[str]:
    parts = {"{}": "(?P<key>.+)", "{time}": r"(?P<key>\d+(?:\.\d+)?)", "*": ".+"}
    pieces = re.split(r"(\{\}|\{time\}|\*)", pattern)
    return re.compile("".join(parts.get(piece) or re.escape(piece) for piece in pieces))


def _keys(paths: Iterable[Path], expression: re.Pattern[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in paths:
        if match := expression.fullmatch(_stem(path)):
            found.setdefault(match["key"], []).append(path)
    return found


def pairs_of_keys(depths: Mapping[str, list[Path]], images: Mapping[str, list[Path]], *, where: str) -> Pairs:
    """Pair files of equal keys; an image without a depth map is no problem, since cameras often take more.

    Args:
        depths: depth maps by the part of their names that they share with their image.
        images: images likewise.
        where: place of the images, for messages.
    """
    pairs = Pairs(spare=len(images.keys() - depths.keys()))
    for key in sorted(depths):
        own, others = depths[key], images.get(key, [])
        if not others:
            pairs.problems.append(f"{own[0]}: there is no image for {key!r} in {where}")
        elif problem := _ambiguous("depth map", own) or _ambiguous("guide", others):
            pairs.problems.append(problem)
        else:
            pairs.found.append((own[0], others[0]))
    return pairs


def _nearest_times(
    depths: Mapping[str, list[Path]], images: Mapping[str, list[Path]], unit: float, max_gap: float
) -> Pairs:
    """Pair each depth map with the image nearest in time."""
    times = sorted((float(text) * unit, paths[0]) for text, paths in images.items())
    pairs, taken = Pairs(), set()
    for text in sorted(depths, key=float):
        own, time = depths[text][0], float(text) * unit
        at = bisect_left(times, (time, Path()))
        gap, image = min((abs(other - time), path) for other, path in times[max(0, at - 1) : at + 1])
        if gap <= max_gap + 1e-9:  # times of ten digits before the point are rounded in the seventh behind it
            pairs.found.append((own, image))
            taken.add(image)
        else:
            pairs.problems.append(
                f"{own}: no image within {max_gap:g} s of it, the nearest is {image.name}, {gap:.3g} s away; "
                "--max-gap allows more"
            )
    pairs.spare = len(times) - len(taken)
    return pairs


def pairs_of_equal_names(depth: Path, image: Path) -> Pairs:
    """Pair files of two folders, or of one, whose names are equal but for the suffix.

    Raises:
        DataError: a folder cannot be read, or has none of the files.
    """
    depths, images = files_by_stem(depth, FORMATS), files_by_stem(image, GUIDES)
    if not depths:
        raise DataError(f"{depth}: no depth maps in this folder ({', '.join(FORMATS)})")
    if not images:
        raise DataError(f"{image}: no images in this folder ({', '.join(GUIDES)})")
    if depth.samefile(image):  # a depth map is not its own image, nor an image of another suffix a depth map
        images = {stem: [path for path in paths if path not in depths.get(stem, [])] for stem, paths in images.items()}
    pairs = Pairs()
    for stem in sorted(depths.keys() | images.keys()):
        own, others = depths.get(stem, []), images.get(stem, [])
        if not own:
            pairs.problems.append(f"{others[0]}: there is no depth map of the same name in {depth}")
        elif not others:
            pairs.problems.append(f"{own[0]}: there is no guide of the same name in {image}")
        elif problem := _ambiguous("depth map", own) or _ambiguous("guide", others):
            pairs.problems.append(problem)
        else:
            pairs.found.append((own[0], others[0]))
    return pairs


def _ambiguous(kind: str, paths: Sequence[Path]) -> str | None:
    if len(paths) < 2:
        return None
    return f"{paths[0]}: which {kind} is meant? {paths[1].name} has the same name; take one away, or give --pairs"


def files_by_stem(folder: Path, suffixes: Iterable[str]) -> dict[str, list[Path]]:
    """Return the files of a folder with one of these suffixes, by their stems; hidden files are passed over.

    Raises:
        DataError: the folder cannot be read.
    """
    found: dict[str, list[Path]] = {}
    for path in files_of(folder, suffixes):
        found.setdefault(_stem(path), []).append(path)
    return found


def files_of(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Return the files of a folder with one of these suffixes, sorted; hidden files are passed over.

    Raises:
        DataError: the folder cannot be read.
    """
    wanted = tuple(suffixes)
    try:
        return [
            path
            for path in sorted(folder.iterdir())
            if suffix_of(path, wanted) and not path.name.startswith(".") and path.is_file()
        ]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None


def _stem(path: Path) -> str:
    return stem_of(path, (*FORMATS, *GUIDES)) or path.stem
