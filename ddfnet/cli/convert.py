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
from ddfnet.errors import UserError, keep_inputs, require

if TYPE_CHECKING:
    from torch import nn

    from ddfnet.pretrained import Content, Header

_MODULES = ("safetensors", "timm", "torchvision")
_NAME = re.compile(r"ddf_(mul|add)_resnet\d+")


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help=SUMMARIES["convert"],
        description="Writes the weights of a checkpoint to a safetensors file: those of `ddfnet train`, of timm's "
        "train.py, of an official DDF-ResNet, or of a network that --network names. Its header has the arguments of "
        "the network and the origin of the weights. `ddfnet evaluate`, `ddfnet upsample` and timm's create_model read "
        "it. Averaged weights are taken where there are any. No code in the checkpoint is run.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="*.pth, *.pth.tar, *.safetensors or *.ckpt")
    parser.add_argument("output", type=Path, metavar="OUT", help="the *.safetensors file")
    parser.add_argument(
        "--network",
        metavar="NAME",
        help="network of weights that do not say it, such as ddf_mul_resnet50 (by default from the name of their file)",
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
    keep_inputs(output, [source])
    if output.exists() and not options.overwrite:
        raise UserError(f"{output} exists; give --overwrite to replace it, or write to another name")

    from ddfnet.pretrained import save

    network, header, mapping, note = _read(source, options.network)
    if note is not None:
        print(f"note: {note}")
    provenance = {
        "source": source.name,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "ddfnet": __version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "mapping": mapping,
        **({} if note is None else {"note": note}),
    }
    try:
        save(network, output, header=header._replace(extra={**header.extra, "provenance": provenance}))
    except (OSError, ValueError) as error:
        raise UserError(f"{source}: {error}" if isinstance(error, ValueError) else str(error)) from None
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    print(f"{output}: {type(network).__name__}, {millions:.2f} M parameters")
    return 0


def _read(file: Path, name: str | None) -> tuple[nn.Module, Header, str, str | None]:
    """Return the network of a file, its header, what gave the weights their names, and a note."""
    from ddfnet.models.classifier import classifier_of, complete_preprocessing
    from ddfnet.pretrained import header_of, network_of, read, reading_weights

    name = None if name is None else _network_name(file, name)  # before the file is opened
    try:
        with reading_weights(file):
            content = read(file)
        if content.program == "ddfnet" and name is not None:
            raise UserError(f"--network is for weights that do not say it, and {file} is of `ddfnet train`")
        if content.header is None:
            name = name or _network_name(file, None)
        with reading_weights(file):
            if content.header is None or name is not None:
                network = classifier_of(content.weights, str(name))
                header = header_of(network)
            else:
                network, header = network_of(content.header, content.weights), content.header
            if header.kind == "classification" and content.program != "ddfnet":
                said = complete_preprocessing(header.extra.get("preprocessing"), network)
                header = header._replace(extra={**header.extra, "preprocessing": said})
            return network, header, _mapping(content), content.note
    except ValueError as error:
        raise UserError(str(error)) from None


def _mapping(content: Content) -> str:
    from ddfnet import compat

    if compat.is_official(content.weights):
        return "ddfnet.compat.load_official"
    return {"ddfnet": "ddfnet train", "timm": "timm's train.py"}.get(content.program or "", "names as they were")


def _network_name(file: Path, name: str | None) -> str:
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
