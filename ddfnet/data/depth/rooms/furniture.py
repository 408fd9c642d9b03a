"""Catalogues of furniture models: archives of Sweet Home 3D (.sh3f), their sizes, makers and licences."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ddfnet.errors import DataError

FOLDER = Path("/usr/share/sweethome3d/furniture")
"""Folder of Debian's package sweethome3d-furniture."""

_LIST = "PluginFurnitureCatalog.properties"
_LICENCE_FILE = re.compile(r"licen[cs]e[^/]*\.(txt|html?)$", re.IGNORECASE)
_ENTRY = re.compile(r"^([A-Za-z]+)#([0-9]+)\s*=\s*(.*?)\s*$", re.MULTILINE)
_HEADER = re.compile(r"^license\s*=\s*(.*?)\s*$", re.MULTILINE)
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_LARGEST_LIST = 2**24  # bytes of a catalogue's list or a licence; those of Debian have 0.2 MB
_REFUSED = re.compile(r"non-?commercial|\bnc\b|share-?alike|\bsa\b|no-?deriv|\bnd\b|editorial", re.IGNORECASE)
_LICENCES = (  # the first that is found
    ("CC0-1.0", re.compile(r"cc-?0|creative commons zero|public domain|publicdomain/zero", re.IGNORECASE)),
    ("CC-BY-3.0-US", re.compile(r"attribution 3\.0 united states|licenses/by/3\.0/us", re.IGNORECASE)),
    ("CC-BY-3.0", re.compile(r"attribution 3\.0|licenses/by/3\.0", re.IGNORECASE)),
    ("CC-BY-4.0", re.compile(r"attribution 4\.0|licenses/by/4\.0", re.IGNORECASE)),
)


@dataclass(frozen=True)
class Model:
    """Model of a catalogue.

    Args:
        archive: the .sh3f file.
        file: name of the OBJ file inside it.
        name: catalogue and model, such as "Scopia#bed1".
        kind: English name of the thing, such as "Bed".
        category: category, such as "Bedroom".
        size: width, depth and height in metres.
        elevation: height above the floor at which it hangs, in metres; 0 where it stands.
        movable: False for what is built in, such as a radiator.
        rotation: three rows of three, applied to the mesh before it is scaled; empty for none.
        creator: who made it.
        licence: SPDX name of the licence.
    """

    archive: Path
    file: str
    name: str
    kind: str
    category: str
    size: tuple[float, float, float]
    elevation: float
    movable: bool
    rotation: tuple[float, ...]
    creator: str
    licence: str


@dataclass(frozen=True)
class Catalogue:
    """Models that may be used, and a reason for each of the others by its name."""

    models: tuple[Model, ...]
    skipped: dict[str, str]

    def licences(self) -> dict[str, dict[str, int]]:
        """Return the number of models by licence and maker."""
        found: dict[str, Counter[str]] = {}
        for model in self.models:
            found.setdefault(model.licence, Counter())[model.creator] += 1
        return {licence: dict(sorted(makers.items())) for licence, makers in sorted(found.items())}


def load(source: str | Path | Sequence[str | Path] = FOLDER) -> Catalogue:
    """Read the lists of furniture catalogues.

    A model is taken where its licence is CC0 or CC BY. Its own licence file counts more than that of its catalogue.

    Args:
        source: folder with .sh3f files, or these files.

    Returns:
        The models in the order of the files' names and of their lists, and those skipped.

    Raises:
        DataError: the folder or the files are missing, an archive is broken, or nothing in them may be used.

    Example:
        >>> import tempfile, zipfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with zipfile.ZipFile(Path(folder) / "own.sh3f", "w") as archive:
        ...         archive.writestr("PluginFurnitureCatalog.properties", '''license=CC-0
        ... id#1=own#cube
        ... name#1=Cube
        ... category#1=Bedroom
        ... model#1=/cube/cube.obj
        ... width#1=50
        ... depth#1=50
        ... height#1=50''')
        ...         archive.writestr("cube/cube.obj", "")
        ...     catalogue = load(folder)
        >>> [(model.name, model.size, model.licence) for model in catalogue.models]
        [('own#cube', (0.5, 0.5, 0.5), 'CC0-1.0')]
    """
    models: list[Model] = []
    skipped: dict[str, str] = {}
    archives = _archives(source)
    for archive in archives:
        try:
            with zipfile.ZipFile(archive) as content:
                _add(archive, content, models, skipped)
        except (OSError, zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError) as error:
            raise DataError(
                f"{archive}: a furniture catalogue (.sh3f) is required, got a broken one: {error}; install "
                "sweethome3d-furniture again, or take the file away"
            ) from None
    if not models:
        reason = f": {next(iter(skipped.values()))}" if skipped else ""
        raise DataError(f"{archives[0]}: no model in it may be used{reason}; give other catalogues")
    return Catalogue(tuple(models), skipped)


def _archives(source: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(source, (str, Path)):
        return [Path(file) for file in source]
    folder = Path(source)
    found = [folder] if folder.is_file() else sorted(folder.glob("*.sh3f"))
    if not found:
        raise DataError(
            f"{folder}: furniture catalogues (*.sh3f) are required there, got none; run: apt-get install "
            "sweethome3d-furniture, or name a folder that has them"
        )
    return found


def _add(archive: Path, content: zipfile.ZipFile, models: list[Model], skipped: dict[str, str]) -> None:
    """Add the models of one catalogue to one of the two."""
    text = _text(content, _LIST)
    header = _HEADER.search(text)
    whole = licence_of(header[1]) if header else None
    entries: dict[int, dict[str, str]] = {}
    for key, number, value in _ENTRY.findall(text):
        entries.setdefault(int(number), {})[key] = _ESCAPE.sub(lambda code: chr(int(code[1], 16)), value)
    files = set(content.namelist())
    own = {str(PurePosixPath(name).parent): name for name in sorted(files) if _LICENCE_FILE.search(name)}
    for number, entry in sorted(entries.items()):
        name = entry.get("id", f"{archive.stem}#{number}")
        file = entry.get("model", "").lstrip("/")
        licence_file = own.get(str(PurePosixPath(file).parent))
        licence = whole if licence_file is None else licence_of(_text(content, licence_file))
        try:
            if file not in files:
                raise ValueError(f"its file {file or '(none)'} is not in the archive")
            if licence is None:
                raise ValueError(f"its licence is not CC0 or CC BY (see {licence_file or _LIST})")
            models.append(_model(archive, file, name, entry, licence))
        except (ValueError, KeyError) as error:
            skipped[name] = f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _model(archive: Path, file: str, name: str, entry: dict[str, str], licence: str) -> Model:
    width, depth, height = (float(entry[side]) / 100 for side in ("width", "depth", "height"))
    if not all(0 < side < 100 for side in (width, depth, height)):
        raise ValueError(f"its size is {width} x {depth} x {height} m")
    rotation = tuple(map(float, entry.get("modelRotation", "").split()))
    if len(rotation) not in (0, 9):
        raise ValueError(f"its rotation has {len(rotation)} numbers, not 9")
    return Model(
        archive,
        file,
        name,
        entry.get("name", PurePosixPath(file).stem),
        entry.get("category", ""),
        (width, depth, height),
        float(entry.get("elevation") or 0) / 100,
        entry.get("movable", "true") != "false",
        rotation,
        entry.get("creator", "unknown"),
        licence,
    )


def licence_of(text: str) -> str | None:
    """Return the SPDX name of the free licence that a text states, None for any other.

    Example:
        >>> licence_of("Released under Creative Commons Attribution 3.0"), licence_of("Released under CC-BY-NC 3.0")
        ('CC-BY-3.0', None)
    """
    plain = " ".join(re.sub(r"<[^>]*>", " ", text).split())
    released = re.search(r"released (?:by .{0,80}? )?under (.{0,80})", plain, re.IGNORECASE)
    stated = released[1] if released else plain
    if _REFUSED.search(stated):
        return None
    return next((name for name, pattern in _LICENCES if pattern.search(stated)), None)


def _text(content: zipfile.ZipFile, name: str) -> str:
    if content.getinfo(name).file_size > _LARGEST_LIST:
        raise zipfile.BadZipFile(f"{name} is larger than {_LARGEST_LIST} bytes")
    return content.read(name).decode("latin-1")


def credits(models: Iterable[Model]) -> list[str]:
    """Return a credit for each model, as its licence asks: name, kind, maker and licence."""
    return [f"{model.name} ({model.kind}), {model.creator}, {model.licence}" for model in models]
