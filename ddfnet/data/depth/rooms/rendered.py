"""Folders of rendered rooms: made once, in the layout of `ddfnet.data.depth.folder`, and continued where they ended."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddfnet.data.depth.rooms import furniture as catalogues
from ddfnet.data.depth.rooms.plan import role
from ddfnet.data.depth.rooms.render import Rendered, Renderer
from ddfnet.data.depth.textures import photographs
from ddfnet.errors import UserError, writable_folder
from ddfnet.files import atomic_write

FACTS = "scenes.json"
_SUFFIXES = (".jpg", ".png")
_VERSION = 1  # raise it with each change that alters the image or the depth of a seed and a number


@dataclass(frozen=True)
class Recipe:
    """Recipe of a set of rooms.

    Args:
        seed: seed of the set.
        size: width and height in pixels.
        furniture: folder of the furniture catalogues.
        more_photographs: files and folders for textures, besides those inside scikit-image.
    """

    seed: int
    size: tuple[int, int]
    furniture: Path
    more_photographs: tuple[Path, ...]

    def renderer(self) -> Renderer:
        """Return the renderer of the set.

        Raises:
            DataError: the furniture or the photographs are missing or broken.
        """
        models = catalogues.load(self.furniture).models
        return Renderer(models, photographs(self.more_photographs), self.size, seed=self.seed)


def make(output: Path, recipe: Recipe, count: int, jobs: int = 1) -> Iterator[int]:
    """Render the rooms 0 to count - 1 that a folder does not have yet.

    Each gets ``rgb/000123.jpg`` or ``.png`` and ``depth/000123.png``, 16 bit, in millimetres, rounded: the depth is
    exact to 0.5 mm. The same recipe gives the same files, whatever ``jobs`` is. ``scenes.json`` has the recipe, and
    the credit of each model.

    Args:
        output: the folder, made if needed.
        recipe: seed, size and sources of the rooms.
        count: number of rooms.
        jobs: processes.

    Yields:
        The number of each room that is ready, those that were there first.

    Raises:
        DataError: the furniture or the photographs are missing or broken.
        UserError: the folder has rooms of another recipe, or cannot be written to.
    """
    facts = _facts(recipe, catalogues.load(recipe.furniture))
    recipe.renderer()  # now: what is missing is found here, not by the processes
    for folder in (output, output / "rgb", output / "depth"):
        writable_folder(folder)
    broken = _broken_before(output / FACTS, facts)
    _write(output / FACTS, _json(facts, broken))
    missing = []
    for index in range(count):
        if _is_there(output, index):
            yield index
        else:
            missing.append(index)
    for index, found in _rendered(output, recipe, missing, jobs):
        if found.keys() - broken.keys():
            broken |= found
            _write(output / FACTS, _json(facts, broken))
        yield index


def _facts(recipe: Recipe, catalogue: catalogues.Catalogue) -> dict[str, Any]:
    return {
        "rooms": _VERSION,
        "seed": recipe.seed,
        "size": list(recipe.size),
        "photographs": [str(path) for path in recipe.more_photographs],
        "depth": "16 bit, millimetres along the optical axis",
        "models": catalogues.credits(model for model in catalogue.models if role(model) is not None),
        "skipped": catalogue.skipped,
    }


def _broken_before(file: Path, facts: dict[str, Any]) -> dict[str, str]:
    """Return the models that an earlier run found broken; refuse to continue a folder of another recipe."""
    if not file.exists():
        return {}
    try:
        before = json.loads(file.read_text())
        different = [key for key in facts if key != "skipped" and before.get(key) != facts[key]]
        skipped: dict[str, str] = dict(before["skipped"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file}: cannot be read: {error}; take it away, or choose another folder") from None
    if different:
        raise UserError(
            f"{file.parent} has rooms with other {', '.join(different)}; choose another folder, or take it away"
        )
    return skipped


def _is_there(output: Path, index: int) -> bool:
    name = name_of(index)
    return (output / "depth" / f"{name}.png").exists() and any(
        (output / "rgb" / f"{name}{suffix}").exists() for suffix in _SUFFIXES
    )


def name_of(index: int) -> str:
    """Return the name of a room's files, such as "000123"."""
    return f"{index:06d}"


def _rendered(output: Path, recipe: Recipe, indices: list[int], jobs: int) -> Iterator[tuple[int, dict[str, str]]]:
    """Render rooms, and return the number of each with the models found broken so far."""
    if jobs == 1 or len(indices) < 2:
        _start(output, recipe)
        yield from map(_one, indices)
        return
    context = multiprocessing.get_context("spawn")  # Embree's threads do not survive a fork
    pool = ProcessPoolExecutor(min(jobs, len(indices)), context, _start, (output, recipe))
    try:
        for task in as_completed([pool.submit(_one, index) for index in indices]):
            yield task.result()
    except BrokenProcessPool:
        raise UserError("a process was ended from outside, perhaps for want of memory; give fewer --jobs") from None
    finally:
        pool.shutdown(cancel_futures=True)


_own: dict[str, Any] = {}  # renderer and folder of this process


def _start(output: Path, recipe: Recipe) -> None:
    import cv2

    cv2.setNumThreads(1)
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    _own.update(output=output, renderer=recipe.renderer())


def _one(index: int) -> tuple[int, dict[str, str]]:
    renderer: Renderer = _own["renderer"]
    save(_own["output"], index, renderer(index))
    return index, dict(renderer.broken)


def save(output: Path, index: int, room: Rendered) -> None:
    """Write a room's image and depth; see `make`."""
    import cv2

    millimetres = np.round(room.depth * 1000).astype(np.uint16)
    suffix, options = ".png", [cv2.IMWRITE_PNG_COMPRESSION, 4]
    if room.quality is not None:
        suffix, options = ".jpg", [cv2.IMWRITE_JPEG_QUALITY, room.quality]
    name = name_of(index)
    image = cv2.imencode(suffix, room.image[..., ::-1], options)[1].tobytes()
    depth = cv2.imencode(".png", millimetres, [cv2.IMWRITE_PNG_COMPRESSION, 4])[1].tobytes()
    _write(output / "depth" / f"{name}.png", depth)
    _write(output / "rgb" / f"{name}{suffix}", image)


def _write(file: Path, content: str | bytes) -> None:
    try:
        atomic_write(file, content)
    except OSError as error:
        raise UserError(f"{error}; free some space and run the command again: it continues where it ended") from None


def _json(facts: dict[str, Any], broken: dict[str, str]) -> str:
    skipped = dict(sorted({**facts["skipped"], **broken}.items()))
    return json.dumps({**facts, "skipped": skipped}, indent=1, ensure_ascii=False) + "\n"
