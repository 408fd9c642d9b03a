"""``ddfnet convert``: official weights, or a checkpoint of a training, to a safetensors file that says its origin."""

from __future__ import annotations

import argparse
import hashlib
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddfnet import __version__
from ddfnet.cli._common import SUMMARIES
from ddfnet.errors import UserError, require

if TYPE_CHECKING:
    from torch import nn

    from ddfnet.pretrained import Header

_MODULES = ("safetensors", "timm", "torchvision")
_NAME = re.compile(r"ddf_(mul|add)_resnet\d+")


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help=SUMMARIES["convert"],
        description="Writes the weights of an official DDF-ResNet, or those of a *.ckpt of `ddfnet train`, to a "
        "safetensors file. Its header has the arguments of the network and the origin of the weights. `ddfnet "
        "evaluate`, `ddfnet upsample` and timm's create_model read it. No code in the checkpoint is run.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="*.pth, *.pth.tar, *.safetensors or *.ckpt")
    parser.add_argument("output", type=Path, metavar="OUT", help="the *.safetensors file")
    parser.add_argument(
        "--network",
        metavar="NAME",
        help="network of official weights, such as ddf_mul_resnet50 (by default from the name of their file)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    require("models", _MODULES)
    source, output = options.checkpoint, options.output
    if not source.is_file():
        raise UserError(f"{source}: no such file")
    if output.suffix != ".safetensors":
        raise UserError(f"{output}: the result is a .safetensors file; name it so")
    if not output.resolve().parent.is_dir():
        raise UserError(f"cannot write {output}: there is no folder {output.resolve().parent}")
    if options.network and source.suffix == ".ckpt":
        raise UserError(f"--network is for official weights, and {source} is of a training, which says it itself")
    if output.exists() and not options.overwrite:
        raise UserError(f"{output} exists; give --overwrite to replace it, or write to another name")

    from ddfnet.pretrained import save

    network, header, mapping = _read(source, options.network)
    provenance = {
        "source": source.name,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "ddfnet": __version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "mapping": mapping,
    }
    try:
        save(network, output, header=header._replace(extra={**header.extra, "provenance": provenance}))
    except OSError as error:
        raise UserError(str(error)) from None
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    print(f"{output}: {type(network).__name__}, {millions:.2f} M parameters")
    return 0


def _read(file: Path, name: str | None) -> tuple[nn.Module, Header, str]:
    """Return the network of a file, its header, and what gave the weights their names."""
    from ddfnet.models.classifier import load_official_classifier
    from ddfnet.pretrained import header_of, load, read_header

    try:
        if file.suffix == ".ckpt":
            return load(file), read_header(file), "ddfnet train"
        network = load_official_classifier(file, _official_name(file, name))
        return network, header_of(network), "ddfnet.compat.load_official"
    except ValueError as error:
        raise UserError(str(error)) from None


def _official_name(file: Path, name: str | None) -> str:
    """Return the network's name: as given, or as found in the name of the file."""
    import timm

    given = "--network"
    if name is None:
        found = _NAME.search(file.name)
        if found is None:
            raise UserError(f"{file}: nothing in it says which network it is of; give --network ddf_mul_resnet50")
        name, given = found[0], f"{file}: its network"
    names = timm.list_models("ddf_*_resnet*")
    if name not in names:
        raise UserError(f"{given} must be {', '.join(names[:-1])} or {names[-1]}, got {name!r}")
    return name
