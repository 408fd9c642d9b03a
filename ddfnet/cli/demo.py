"""``ddfnet demo``: upsample a real depth map, train three small networks, and write a page about both."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from ddfnet import env_info
from ddfnet.arguments import positive_int
from ddfnet.cli._common import SUMMARIES, quiet
from ddfnet.errors import DataError, UserError, require, writable_folder

_MODULES = (
    "lightning",
    "jsonargparse",
    "torchmetrics",
    "torchvision",
    "timm",
    "sklearn",
    "skimage",
    "cv2",
    "safetensors",
    "matplotlib",
    "jinja2",
)


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help=SUMMARIES["demo"],
        description="Upsamples the depth map of a real scene eightfold, beside the usual methods. Trains three "
        "networks that differ in one layer (convolution, depthwise convolution, DDF) on real images and shows the "
        "filters that DDF predicts for photographs. Writes one page about both.",
    )
    parser.add_argument(
        "--depth-model",
        default="auto",
        metavar="FILE",
        help="weights of the depth network, as `ddfnet train depth` leaves them, *.safetensors or *.ckpt (those of "
        "the package)",
    )
    parser.add_argument(
        "--data",
        default="digits",
        metavar="NAME|DIR",
        help="images for the three: digits (comes with scikit-learn), fashion-mnist, cifar10, or a folder with a "
        "sub-folder per class, below train and test (or val) if it has them (%(default)s)",
    )
    parser.add_argument(
        "--root", type=Path, default=Path("data"), metavar="DIR", help="folder of torchvision's sets (%(default)s)"
    )
    parser.add_argument("--download", action="store_true", help="let torchvision fetch the set into --root")
    parser.add_argument(
        "--size", type=positive_int, default=32, metavar="N", help="height and width of a folder's images (%(default)s)"
    )
    parser.add_argument("--epochs", type=positive_int, metavar="N", help="passes over the training split")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and order (%(default)s)")
    parser.add_argument(
        "--threads",
        type=positive_int,
        metavar="N",
        help="threads of torch and OpenCV (training on small images: 1)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("ddfnet-demo"), metavar="DIR", help="folder of the page (%(default)s)"
    )
    parser.add_argument(
        "--short", action="store_true", help="seconds instead of minutes: part of the scene, a few images"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    require("demo", _MODULES)
    writable_folder(options.output)
    quiet()
    import torch

    from ddfnet.demo import depth, depth_images, mixers, page
    from ddfnet.tasks.classification.comparison import SMALL

    start = time.perf_counter()
    try:
        print(f"reading {options.data}", flush=True)
        splits = mixers.load(options)
        network = depth.load(options.depth_model)
        if options.threads:
            torch.set_num_threads(options.threads)
        print(f"upsampling the depth map of Motorcycle {depth.FACTOR}x, four ways", flush=True)
        upsampled = depth.measure(network, short=options.short)
        print(f"\n{upsampled.table()}\n")
        if not options.threads and min(splits.size) < SMALL:
            torch.set_num_threads(1)  # on maps of 8x8 threads cost more than they save
        trained = mixers.compare(splits, options)
        print(f"\n{trained.table()}\n")
        shown = {"depth": depth_images.shown(upsampled), "mixers": trained.shown()}
    except DataError as error:
        raise UserError(str(error)) from None
    results = {
        "command": " ".join(["ddfnet", *sys.argv[1:]]) if sys.argv[1:] else "ddfnet demo",
        "depth": upsampled.results(),
        **trained.results(),
        "machine": env_info.facts(),
        "seconds": round(time.perf_counter() - start, 1),
    }
    written = page.write(options.output, results, shown, [upsampled.table(), trained.table()])
    print(f"{results['seconds']:.0f} s in all. Open {written.resolve()}")
    return 0
