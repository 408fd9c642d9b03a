"""``ddfnet scenes render``: a folder of rendered rooms to train guided depth upsampling on."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from ddfnet.arguments import positive_int
from ddfnet.cli._common import SUMMARIES
from ddfnet.errors import DataError, UserError, require

_MODULES = ("embreex", "trimesh", "cv2", "skimage", "PIL", "tqdm")
_LAST_SEED = 2**32 - 1  # NumPy reads a larger one as two numbers
_LEAST, _MOST = 32, 4096  # pixels per side


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "scenes",
        help=SUMMARIES["scenes"],
        description="Renders indoor scenes of real furniture models: images with noise and blur, and exact depth. "
        "The result is the same for the same seed. A folder that is not complete is continued.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    render = actions.add_parser("render", help="make or continue a folder of rendered rooms")
    render.add_argument("--count", type=positive_int, default=2000, metavar="N", help="scenes (%(default)s)")
    render.add_argument("--seed", type=_seed, default=0, metavar="N", help="seed of the set (%(default)s)")
    render.add_argument(
        "--size", type=_size, default=(640, 480), metavar="WxH", help="width and height in pixels (640x480)"
    )
    render.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the scenes")
    render.add_argument("--jobs", type=positive_int, default=1, metavar="N", help="processes (%(default)s)")
    render.add_argument(
        "--furniture",
        type=Path,
        metavar="DIR",
        help="folder of Sweet Home 3D's catalogues, *.sh3f (where Debian's sweethome3d-furniture puts them)",
    )
    render.add_argument(
        "--photographs",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="file or folder for textures, besides the photographs inside scikit-image; may be repeated",
    )
    render.set_defaults(run=run)


def _seed(text: str) -> int:
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > _LAST_SEED:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {_LAST_SEED}, got {text!r}")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
    sides = tuple(map(int, found.groups())) if found else ()
    if len(sides) != 2 or not all(_LEAST <= side <= _MOST for side in sides):
        raise argparse.ArgumentTypeError(f"width x height, {_LEAST} to {_MOST} pixels each, as 640x480, got {text!r}")
    return sides


def run(options: argparse.Namespace) -> int:
    require("rooms", _MODULES)
    from tqdm import tqdm

    from ddfnet.data.depth.rooms import furniture, rendered

    recipe = rendered.Recipe(
        options.seed, options.size, options.furniture or furniture.FOLDER, tuple(options.photographs)
    )
    try:
        rooms = rendered.make(options.output, recipe, options.count, options.jobs)
        for _ in tqdm(rooms, total=options.count, unit="scene", disable=None, file=sys.stderr):
            pass
    except DataError as error:
        raise UserError(str(error)) from None
    facts = json.loads((options.output / rendered.FACTS).read_text())
    skipped = len(facts["skipped"])
    print(
        f"{options.output}: {options.count} scenes, {len(facts['models'])} models; {skipped} skipped, see scenes.json"
    )
    return 0
