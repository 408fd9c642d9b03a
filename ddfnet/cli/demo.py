"""``ddfnet demo``: train three twins on real data, look through the layers of one, and write a page about it."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddfnet.cli import machine
from ddfnet.cli.arguments import positive
from ddfnet.cli.errors import UserError, require, writable_folder
from ddfnet.table import table

if TYPE_CHECKING:
    from ddfnet.data import Splits
    from ddfnet.models.twins import TwinNet
    from ddfnet.tasks.comparison import Row

_MODULES = ("lightning", "torchmetrics", "torchvision", "sklearn", "skimage", "matplotlib", "jinja2")
_EPOCHS = {"digits": 45, "fashion-mnist": 3, "cifar10": 10}  # a folder: 20
_TITLES = {"conv": "3x3 convolution", "depthwise": "depthwise 3x3 convolution", "ddf": "decoupled dynamic filter"}
_BATCH_SIZE = 64
_POINTS = 4  # marked on each photograph
_STRIP = 16  # channels side by side


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="train three small networks in two minutes, and see what the filters look at",
        description="Trains three networks that differ in one layer (convolution, depthwise convolution, DDF) on real "
        "pictures, compares them, and writes a page with the filters that DDF predicts for photographs.",
    )
    parser.add_argument(
        "--data",
        default="digits",
        metavar="NAME|DIR",
        help="digits (comes with scikit-learn), fashion-mnist, cifar10, or a folder with a sub-folder a class, below "
        "train and test (or val) if it has them (%(default)s)",
    )
    parser.add_argument(
        "--root", type=Path, default=Path("data"), metavar="DIR", help="where torchvision's sets are (%(default)s)"
    )
    parser.add_argument("--download", action="store_true", help="let torchvision fetch the set into --root")
    parser.add_argument(
        "--size", type=positive, default=32, metavar="N", help="pixels a side of a folder's pictures (%(default)s)"
    )
    parser.add_argument("--epochs", type=positive, metavar="N", help="passes over the training part")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (%(default)s)")
    parser.add_argument("--threads", type=positive, metavar="N", help="threads of torch (1 for small pictures)")
    parser.add_argument(
        "--output", type=Path, default=Path("ddfnet-demo"), metavar="DIR", help="for the page (%(default)s)"
    )
    parser.add_argument("--short", action="store_true", help="seconds instead of minutes: a few pictures, eight epochs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    require("demo", _MODULES)
    writable_folder(options.output)
    _quiet()
    import torch

    from ddfnet.tasks.comparison import SMALL

    start = time.perf_counter()
    print(f"reading {options.data}", flush=True)
    splits = _load(options)
    if options.threads or min(splits.size) < SMALL:  # threads cost more than they bring on maps of 8x8
        torch.set_num_threads(options.threads or 1)
    epochs = options.epochs or (8 if options.short else _EPOCHS.get(splits.name, 20))
    print(f"{splits.name}: {len(splits.train)} pictures to train on, {len(splits.test)} to test on, {epochs} epochs")
    trained, rows = _compare(splits, epochs, options)
    text = _table(rows)
    print(f"\n{text}\n")
    network, *_ = trained["ddf"]
    shown = _look(network, splits, size=96 if options.short else 256)
    about = {
        "command": " ".join(["ddfnet", *sys.argv[1:]]) if sys.argv[1:] else "ddfnet demo",
        "data": {"name": splits.name, "origin": splits.origin, "train": len(splits.train), "test": len(splits.test)},
        "settings": {"epochs": epochs, "batch_size": _BATCH_SIZE, "seed": options.seed, "short": options.short},
        "machine": machine.facts(),
        "seconds": round(time.perf_counter() - start, 1),
    }
    page = _write(options.output, splits, rows, text, about, shown)
    print(f"{about['seconds']:.0f} s in all. Open {page.resolve()}")
    return 0


def _quiet() -> None:
    """Keep to what the user should read: this command says itself what Lightning and the kernels would say."""
    import lightning  # noqa: F401  (its loggers exist, with levels of their own, from here on)

    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message="ddfnet uses its PyTorch reference")


def _load(options: argparse.Namespace) -> Splits:
    from ddfnet.data import DataError, cifar10, digits, fashion_mnist, folder

    try:
        if options.data == "digits":
            splits = digits.load()
        elif options.data == "fashion-mnist":
            splits = fashion_mnist.load(options.root, download=options.download)
        elif options.data == "cifar10":
            splits = cifar10.load(options.root, download=options.download)
        else:
            splits = folder.load(Path(options.data), size=options.size)
    except DataError as error:
        raise UserError(str(error)) from None
    return splits.few(512, 128) if options.short else splits


def _compare(
    splits: Splits, epochs: int, options: argparse.Namespace
) -> tuple[dict[str, tuple[TwinNet, float, float]], list[Row]]:
    from ddfnet.models.twins import MIXERS
    from ddfnet.tasks import comparison

    trained = {}
    for number, mixer in enumerate(MIXERS, start=1):
        print(f"training {number} of {len(MIXERS)}: {_TITLES[mixer]}", flush=True)
        trained[mixer] = comparison.train(
            mixer, splits, epochs=epochs, batch_size=_BATCH_SIZE, seed=options.seed, bar=sys.stdout.isatty()
        )
    shape = (splits.channels, *splits.size)
    return trained, comparison.rows(trained, shape, rounds=5 if options.short else 50)


def _cells(row: Row) -> list[str]:
    times = [f"{value:.3f}" for value in row.milliseconds.values()]
    return [_TITLES[row.mixer], f"{row.test_accuracy:.2%}", f"{row.parameters:,}", f"{row.macs / 1e6:.2f} M", *times]


def _headers(rows: Sequence[Row]) -> list[str]:
    times = [f"ms a picture, batch {size}" for size in rows[0].milliseconds]
    return ["3x3 layer", "test accuracy", "parameters", "MACs", *times]


def _table(rows: Sequence[Row]) -> str:
    return table(_headers(rows), [_cells(row) for row in rows])


def _look(network: TwinNet, splits: Splits, size: int) -> dict[str, Any]:
    """The photographs and what the first and the last DDF layer predict for them, as pictures for the page."""
    import torch

    from ddfnet.cli import filters, pictures
    from ddfnet.data import DataError, photographs

    try:
        found = photographs.load(size)
    except DataError as error:
        raise UserError(str(error)) from None
    mean, deviation = (torch.tensor(values)[:, None, None] for values in splits.normalisation())
    seen = [_as_seen(photo.image.float() / 255, splits.channels) for photo in found]
    recorded = [filters.record(network, (picture - mean) / deviation) for picture in seen]
    firsts, lasts = [own[0] for own in recorded], [own[-1] for own in recorded]
    first_colours, last_colours = (filters.Components.fit([f.spatial for f in own]) for own in (firsts, lasts))
    departures = [first_colours.departure(own.spatial) for own in firsts]
    distances = torch.cat([d.flatten() for d in departures]).sort().values
    furthest = distances[round(0.99 * (len(distances) - 1))].item()

    all_channels = torch.stack([own.channel for own in firsts])  # (photographs, C, kH, kW)
    channel = int(all_channels.flatten(2).norm(dim=2).mean(0).argmax())
    sections = []
    for photo, picture, first, last, departure in zip(found, seen, firsts, lasts, departures, strict=True):
        points = filters.typical_points(first.spatial, _POINTS)
        scale = size / first.spatial.shape[1]
        spatial = [first.spatial[:, y, x].reshape(first.channel.shape[1:]) for y, x in points]
        applied = [taps * first.channel[channel] for taps in spatial]
        own_full, full = first.channel[channel].abs().max().item(), max(taps.abs().max().item() for taps in spatial)
        applied_full = max(taps.abs().max().item() for taps in applied)
        sections.append(
            {
                "credit": photo.credit,
                "photograph": pictures.photograph(picture.permute(1, 2, 0).squeeze(-1), points, scale),
                "first": pictures.colours(first_colours.colours(first.spatial)),
                "last": pictures.colours(last_colours.colours(last.spatial)),
                "departure": pictures.heat(departure, furthest),
                "channel": _kernel(first.channel[channel], own_full),
                "spatial": [_kernel(taps, full) for taps in spatial],
                "applied": [_kernel(taps, applied_full) for taps in applied],
            }
        )
    strips = _strips([photo.name for photo in found], [own.channel for own in firsts])
    return {
        "sections": sections,
        "strips": strips,
        "channel": channel,
        "channel_change": (all_channels.std(0, correction=0).norm() / all_channels.mean(0).norm()).item(),
        "channels": len(firsts[0].channel),
        "photograph_size": size,
        "first_size": firsts[0].spatial.shape[1],
        "last_size": lasts[0].spatial.shape[1],
        "layers": len(recorded[0]),
        "first_share": first_colours.share,
        "last_share": last_colours.share,
        "furthest": furthest,
        "grey": splits.channels == 1,
    }


def _strips(names: Sequence[str], channel_filters: Sequence[Any]) -> list[dict[str, Any]]:
    """The channel filters (C, kH, kW) of each photograph, sixteen channels at a time, all on one scale."""
    from ddfnet.cli import pictures

    full = max(filters.abs().max().item() for filters in channel_filters)
    parts = zip(*(filters.split(_STRIP) for filters in channel_filters), strict=True)
    return [
        {
            "first": _STRIP * number,
            "last": _STRIP * number + len(part[0]) - 1,
            "rows": [
                {"name": name, "picture": pictures.kernels(filters, full)}
                for name, filters in zip(names, part, strict=True)
            ],
        }
        for number, part in enumerate(parts)
    ]


def _as_seen(picture: Any, channels: int) -> Any:
    """A colour picture as a network for this many channels takes it."""
    from torchvision.transforms.v2 import functional

    return functional.rgb_to_grayscale(picture) if channels == 1 else picture


def _kernel(taps: Any, full: float) -> dict[str, str]:
    from ddfnet.cli import pictures

    numbers = "; ".join(" ".join(f"{value:.2f}" for value in row) for row in taps.tolist())
    return {"picture": pictures.kernel(taps, full), "numbers": numbers}


def _write(
    output: Path, splits: Splits, rows: Sequence[Row], text: str, about: dict[str, Any], shown: dict[str, Any]
) -> Path:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from ddfnet.tasks.comparison import SMALL

    best = max(row.test_accuracy for row in rows)
    half = 1.96 * math.sqrt(best * (1 - best) / len(splits.test))
    environment = Environment(loader=PackageLoader("ddfnet", "cli"), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("demo.html.jinja").render(
        about=about,
        headers=_headers(rows),
        rows=[_cells(row) for row in rows],
        size="x".join(map(str, splits.size)),
        small=min(splits.size) < SMALL,
        one_picture=1 / len(splits.test),
        half_interval=half,
        training=[f"{_TITLES[row.mixer]} {row.training_seconds:.0f} s" for row in rows],
        **shown,
    )
    results = {**about, "twins": [row.as_dict() for row in rows]}
    try:
        (output / "table.txt").write_text(text + "\n")
        (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        (output / "index.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to the folder {output}: {error.strerror}") from None
    return output / "index.html"
