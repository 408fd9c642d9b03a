"""Pairs of depth maps and images that the user names: by two patterns, by a list, or one image for all depth maps."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import takewhile
from pathlib import Path

from ddfnet.depth.io import FORMATS, GUIDES, suffix_of
from ddfnet.depth.known_layouts import Pairs, files_of, pairs_of_keys
from ddfnet.errors import DataError

LISTS = ("associations.txt", "association.txt", "associate.txt", "associated.txt", "assoc.txt")
_MEBIBYTES = 64  # size of a list at most; a line has about 80 bytes


def pairs_of_patterns(depth: Path, image: Path, patterns: Sequence[str]) -> Pairs:
    """Pair files by a pattern each, such as ``depth_{}.png`` and ``color_{}.jpg``: ``{}`` is what both share.

    Args:
        depth: folder that the first pattern begins from.
        image: folder that the second one begins from. Without ``{}`` it is one image for all depth maps.
        patterns: the depth maps' and the images', with their suffixes.

    Raises:
        DataError: a pattern is none, a folder cannot be read, or no file is named so.
    """
    own, other = depth / patterns[0], image / patterns[1]
    depths = _matching(own, "depth maps", FORMATS, required=True)
    images = _matching(other, "images", GUIDES, required=False)
    for pattern, found in ((own, depths), (other, images)):
        if not found:
            raise DataError(f"--pairs: there is no file {pattern}")
    if "{}" not in other.name:
        return Pairs([(paths[0], other) for paths in depths.values()])
    return pairs_of_keys(depths, images, where=str(other))


def _matching(pattern: Path, kind: str, suffixes: Collection[str], *, required: bool) -> dict[str, list[Path]]:
    suffix = suffix_of(pattern, suffixes)
    if suffix is None:
        raise DataError(f"--pairs {pattern.name}: {kind} end in {', '.join(suffixes)}")
    if "{}" in str(pattern.parent) or pattern.name.count("{}") > 1 or (required and "{}" not in pattern.name):
        raise DataError(f"--pairs {pattern}: the file's name must have {{}} once, for what differs from pair to pair")
    before, mark, behind = pattern.name.partition("{}")
    if not mark:
        return {"": [pattern]} if pattern.is_file() else {}
    expression = re.compile(f"{re.escape(before)}(.+){re.escape(behind)}")
    found: dict[str, list[Path]] = {}
    for path in files_of(pattern.parent, [suffix]):
        if match := expression.fullmatch(path.name):
            found.setdefault(match[1], []).append(path)
    return found


def pairs_of_one_image(depth: Path, image: Path) -> Pairs:
    """Pair each depth map of a folder with the same image, as of a fixed camera.

    Raises:
        DataError: the folder cannot be read, or has no depth maps.
    """
    depths = [path for path in files_of(depth, FORMATS) if not path.samefile(image)]
    if not depths:
        raise DataError(f"{depth}: no depth maps in this folder ({', '.join(FORMATS)})")
    return Pairs([(path, image) for path in depths])


def find_list(depth: Path, image: Path) -> Path | None:
    """Return the list of pairs that lies in one of the folders, or beside both, if there is one."""
    folders = [depth, image]
    if depth.resolve().parent == image.resolve().parent:
        folders.append(depth.parent)
    places = (folder / name for folder in folders for name in LISTS)
    return next((place for place in places if place.is_file()), None)


def pairs_of_list(file: Path, depth: Path) -> Pairs:
    """Pair files as a list says: on each line a depth map and an image, in either order, with or without times.

    That is the file which TUM's associate.py writes. Lines that begin with ``#`` are passed over.

    Args:
        file: the list; its names begin from its own folder.
        depth: folder of the depth maps, or of all; it tells which column has them.

    Raises:
        DataError: the file cannot be read, or is no such list.
    """
    rows = _rows(file)
    column = _depth_column(rows, depth)
    if column is None:
        raise DataError(f"{file}: which names are the depth maps'? their folder or they must have 'depth' in the name")
    pairs = Pairs(rule=f"by the list {file}")
    for row in rows:
        for path in (row[column], row[1 - column]):
            if not path.is_file():
                pairs.problems.append(f"{path}: no such file, though {file} names it")
                break
        else:
            pairs.found.append((row[column], row[1 - column]))
    return pairs


def _rows(file: Path) -> list[tuple[Path, Path]]:
    """Return the two files of each line."""
    try:
        if file.stat().st_size > _MEBIBYTES << 20:
            raise DataError(f"{file}: a list of pairs has at most {_MEBIBYTES} MiB, this file is larger")
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror or error}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").split()
        if not words or words[0].startswith("#"):
            continue
        names = [word for word in words if suffix_of(word, (*FORMATS, *GUIDES))]
        if len(names) != 2:
            raise DataError(f"{file}, line {number}: a depth map and an image are required, got {len(names)} files")
        rows.append((file.parent / names[0], file.parent / names[1]))
    if not rows:
        raise DataError(f"{file}: a list of pairs is required, there are none in it")
    return rows


def _depth_column(rows: Sequence[tuple[Path, Path]], depth: Path) -> int | None:
    """Return which of the two columns has the depth maps: by their folder, else by the word in their names."""
    columns = [*zip(*rows, strict=True)]
    folders = [{path.parent for path in column} for column in columns]
    inside = [all(folder.is_dir() and folder.samefile(depth) for folder in own) for own in folders]
    if inside[0] != inside[1]:
        return inside.index(True)
    named = [all("depth" in f"{path.parent.name}/{path.name}".lower() for path in column) for column in columns]
    return named.index(True) if named[0] != named[1] else None


def suggested_patterns(depth: Path, image: Path) -> tuple[str, str] | None:
    """Return two patterns that would pair files of two folders: what all names of a folder share, and ``{}``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as root:
        ...     for name in ("d/a_depth.png", "d/b_depth.png", "i/a.jpg", "i/b.jpg"):
        ...         (Path(root) / name).parent.mkdir(exist_ok=True)
        ...         (Path(root) / name).touch()
        ...     suggested_patterns(Path(root) / "d", Path(root) / "i")
        ('{}_depth.png', '{}.jpg')
    """
    patterns, keys = [], []
    for folder, suffixes in ((depth, FORMATS), (image, GUIDES)):
        names = [path.name for path in files_of(folder, suffixes)]
        before = _shared_start(names).rstrip("0123456789")
        behind = _shared_start([name[len(before) :][::-1] for name in names])[::-1].lstrip("0123456789")
        patterns.append(f"{before}{{}}{behind}")
        keys.append({name[len(before) : len(name) - len(behind)] for name in names})
    if depth.samefile(image) or not keys[0] & keys[1] - {""}:
        return None
    return patterns[0], patterns[1]


def _shared_start(names: Sequence[str]) -> str:
    return "".join(letters[0] for letters in takewhile(lambda letters: len({*letters}) == 1, zip(*names, strict=False)))
