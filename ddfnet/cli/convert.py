"""``ddfnet convert``: official weights, or a checkpoint of a training, as a safetensors file that says where from."""

from __future__ import annotations

import argparse
import hashlib
import re
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ddfnet import __version__
from ddfnet.errors import UserError, require

if TYPE_CHECKING:
    from torch import nn

_MODULES = ("safetensors", "timm", "torchvision")
_NAME = re.compile(r"ddf_(mul|add)_resnet\d+")


class Converted(NamedTuple):
    """A network with its weights, the header that makes it again, and what gave the weights their names."""

    network: nn.Module
    header: dict[str, Any]
    mapping: str


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "convert",
        help="official weights, or a checkpoint of a training, to safetensors",
        description="Writes the weights of an official DDF-ResNet, or those of a *.ckpt of `ddfnet train`, to a "
        "safetensors file. Its header says how the network is made and what the weights come from. `ddfnet evaluate`, "
        "`ddfnet upsample` and timm's create_model read it. Nothing in the checkpoint is run.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="*.pth, *.pth.tar, *.safetensors or *.ckpt")
    parser.add_argument("output", type=Path, metavar="OUT", help="the *.safetensors file")
    parser.add_argument(
        "--network",
        metavar="NAME",
        help="what official weights are of, such as ddf_mul_resnet50: they do not say (by the name of their file)",
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

    from ddfnet.models import network_files

    converted = _training(source) if source.suffix == ".ckpt" else _official(source, options.network)
    network, header, mapping = converted
    provenance = {
        "source": source.name,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "ddfnet": __version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "mapping": mapping,
    }
    try:
        network_files.save(network, output, None, {**header, "provenance": provenance})
    except OSError as error:
        raise UserError(str(error)) from None
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    print(f"{output}: {type(network).__name__}, {millions:.2f} M parameters")
    return 0


def _official(file: Path, name: str | None) -> Converted:
    import timm

    from ddfnet import compat
    from ddfnet.loading import load_weights
    from ddfnet.models import classifier_files

    given = "--network"
    if name is None:
        found = _NAME.search(file.name)
        if found is None:
            raise UserError(f"{file}: nothing in it says which network it is of; give --network ddf_mul_resnet50")
        name, given = found[0], f"{file}: its network"
    names = [each for each in timm.list_models() if _NAME.fullmatch(each)]
    if name not in names:
        raise UserError(f"{given} must be {', '.join(names[:-1])} or {names[-1]}, got {name!r}")
    try:
        weights = compat.load_official(file)
        classes = len(weights["fc.weight"]) if "fc.weight" in weights else 0
        network: Any = classifier_files.create(name, classes, {})
        load_weights(network, weights)
    except Exception as error:  # what reading a broken file can raise has no end
        raise UserError(f"{file}: {_reason(error)}") from None
    header = {
        "network": {"name": name, "num_classes": classes, "options": {}},
        "preprocessing": classifier_files.preprocessing(network.pretrained_cfg),
    }
    return Converted(network, header, "ddfnet.compat.load_official")


def _training(file: Path) -> Converted:
    """Of a checkpoint that ``ddfnet train`` left, whose weights have their names already."""
    import torch

    from ddfnet.depth import weights_files
    from ddfnet.models import classifier_files, detection_files

    mapping = "ddfnet train"
    try:
        network = torch.load(file, map_location="cpu", weights_only=True)["network"]
        if "name" in network:
            module, made_of, preprocessing = classifier_files.load(file)
            return Converted(module, {"network": made_of, "preprocessing": preprocessing}, mapping)
        of_task = detection_files if "classes" in network else weights_files
        return Converted(of_task.load(file), {"network": network}, mapping)
    except Exception as error:
        raise UserError(f"{file}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """One line; torch's own advice on files with code in them is to run it."""
    text = str(error).strip().partition("\n")[0]
    return "it must hold weights alone, and code in it is not run" if "eights only" in text else text
