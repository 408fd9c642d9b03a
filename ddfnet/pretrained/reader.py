"""Files of weights, of this package and of other programs: one reader for all commands.

Nothing in a file is run. A checkpoint holds tensors, plain values and at most an ``argparse.Namespace``, in which
timm's ``train.py`` keeps its options.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddfnet.pretrained.extras import import_extra
from ddfnet.pretrained.fitting import Weights
from ddfnet.pretrained.options import shown
from ddfnet.pretrained.registry import Header

_PREFIX = "network."  # before the names of the network's weights in a checkpoint, which has those of metrics too
_AVERAGES = ("state_dict_ema", "model_ema")  # timm's names; an average is what its training measured
_STATES = (*_AVERAGES, "state_dict", "model", "module")
_WRAPPERS = ("module.", "_orig_mod.")  # before all names: of DataParallel and its like, and of torch.compile
_SAVE_AGAIN = "save its state dict again, with safetensors.torch.save_file"
_LONGEST = 2**20  # characters of an entry of a header
_SHOWN = 2000  # characters of another program's error
_GLOBAL = re.compile(r"GLOBAL (\S+)")


class Content(NamedTuple):
    """Content of a file.

    Attributes:
        header: header of the network; None where the file does not say which network it is of.
        weights: the state dict.
        program: the program that wrote it, ``"ddfnet"`` or ``"timm"``; None where that is unknown.
        note: a remark for the user, such as which of several weights were taken.
    """

    header: Header | None
    weights: dict[str, Tensor]
    program: str | None = None
    note: str | None = None


def read(file: Path) -> Content:
    """Read a file of weights: ``*.safetensors``, or what ``torch.load`` reads without running code.

    A checkpoint is one of ``ddfnet train``, one of timm's ``train.py``, or any that holds a state dict by itself, under
    ``state_dict``, ``model`` or ``module``; with averaged weights beside them, those are taken. The prefixes of
    DataParallel, ``torch.compile`` and ``AveragedModel`` are dropped.

    Raises:
        ValueError: the file is none of these.
        ModuleNotFoundError: safetensors is not installed.
        OSError: the file cannot be opened.
    """
    if file.suffix == ".safetensors":
        metadata, weights = read_safetensors(file)
        header = parse_header(metadata)
        return Content(header, weights if header else _unwrapped(weights), "ddfnet" if header else None)
    return parse_checkpoint(_load(file))


def parse_checkpoint(checkpoint: Any) -> Content:
    """Return the content of a checkpoint that has been read: a dictionary, or a state dict by itself.

    Raises:
        ValueError: it holds no state dict.
    """
    if not isinstance(checkpoint, Mapping) or not all(isinstance(name, str) for name in checkpoint):
        raise ValueError(f"a checkpoint must hold a dict of names and tensors, got {type(checkpoint).__name__}")
    name = next((name for name in _STATES if isinstance(checkpoint.get(name), Mapping)), None)
    if name is None:
        if checkpoint and not any(isinstance(value, Tensor) for value in checkpoint.values()):
            raise ValueError(
                f"it must have weights under {', '.join(_STATES[:-1])} or {_STATES[-1]}, or by themselves, got "
                + (shown(list(checkpoint)[:5]))
            )
        return Content(None, _unwrapped(_tensors(checkpoint)))
    header = parse_header(checkpoint.get("header", checkpoint)) if "state_dict" in checkpoint else None
    if header is not None:
        return Content(header, strip_prefix(_tensors(checkpoint["state_dict"])), "ddfnet")
    weights = _unwrapped(_tensors(checkpoint[name]))
    note = f"the averaged weights are taken, {name}" if name in _AVERAGES else None
    timm = _timm_header(checkpoint)
    return Content(timm, weights, None if timm is None else "timm", note)


def strip_prefix(state: Weights) -> dict[str, Tensor]:
    """Return the network's weights among those of its Lightning module, by their names in the network."""
    return {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}


def parse_header(header: Any) -> Header | None:
    """Return the header that a file of this package has, or None."""
    if not isinstance(header, Mapping):
        raise ValueError(f"its header must be a dictionary, got {type(header).__name__}")
    if "kind" not in header:
        return _infer_header(header) if "network" in header else None
    extra = {name: value for name, value in header.items() if name not in ("kind", "init_args", "format")}
    return Header(header["kind"], header.get("init_args"), extra)


@contextmanager
def reading_weights(file: Path, wanted: str | None = None) -> Iterator[None]:
    """Turn any error of reading a file, or of building its network, into a ValueError of one line.

    Args:
        file: the file, which must exist.
        wanted: the file that is required; None where the error says it.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    try:
        yield
    except ModuleNotFoundError:
        raise
    except Exception as error:  # broken files raise errors of many types
        text = first_line(error)
        if wanted is None:
            raise ValueError(f"{file}: {text}") from None
        reason = f"{type(error).__name__}: {text}"
        raise ValueError(f"{file}: {wanted} is required, *.safetensors or *.ckpt ({reason})") from None


def first_line(error: BaseException) -> str:
    """Return the first line of an error, or its type.

    Torch's advice to run the code in a file is left out. A damaged file may put characters into it that steer a
    terminal; they become question marks.
    """
    text = str(error).strip().partition("\n")[0][:_SHOWN]
    if "eights only" in text or "weights_only" in text:
        return f"it must hold weights alone, and code in it is not run; {_SAVE_AGAIN}"
    return "".join(each if each.isprintable() else "?" for each in text) or type(error).__name__


def read_safetensors(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the metadata and the tensors of a safetensors file."""
    safetensors = import_extra("safetensors", "reading weights needs safetensors: pip install 'ddfnet[upsample]'")
    with safetensors.safe_open(file, "pt") as stream:
        metadata = {name: _from_json(name, value) for name, value in (stream.metadata() or {}).items()}
        return metadata, {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118


def _from_json(name: str, text: str) -> Any:
    """Parse a value of a file's header; other programs' values are plain text."""
    if len(text) > _LONGEST:
        raise ValueError(f"its header's {name} must be at most {_LONGEST} characters, got {len(text)}")
    try:
        return json.loads(text)
    except ValueError:
        return text


def _load(file: Path) -> Any:
    """Load what ``torch.save`` wrote, without running code in it."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # programs, of which torch warns, are refused
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch advises to run the code
        text = str(error)
        if (found := _GLOBAL.search(text)) or "TorchScript" in text:
            what = f"the code {found[1]}" if found else "a TorchScript program"
            raise ValueError(
                f"it must hold weights alone, and code in it is not run, got {what}; {_SAVE_AGAIN}"
            ) from None
        if isinstance(error, pickle.UnpicklingError):
            raise ValueError("it must hold weights that torch.save wrote, got none, or a broken file") from None
        raise


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return a state dict, all of whose values must be tensors."""
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"its weights must be tensors by name, got {type(value).__name__} for {shown(name)}")
    return dict(state)


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights without the prefixes of what was around the network when it was saved."""
    if len(state) > 1 and "n_averaged" in state:  # AveragedModel's
        state = {name: value for name, value in state.items() if name != "n_averaged"}
    while state and (found := next((each for each in _WRAPPERS if all(name.startswith(each) for name in state)), "")):
        state = {name.removeprefix(found): value for name, value in state.items()}
    return {name.replace("._orig_mod.", "."): value for name, value in state.items()}


def _timm_header(checkpoint: Mapping[str, Any]) -> Header | None:
    """Return the header of a checkpoint of timm's ``train.py``, from the options in it."""
    options = checkpoint.get("args")
    if not isinstance(options, argparse.Namespace):
        return None
    given = vars(options)
    name, classes = given.get("model"), given.get("num_classes")
    if not isinstance(name, str) or not isinstance(classes, int):
        return None
    size = given.get("input_size") or [None]
    own = {"in_chans": given.get("in_chans") or size[0], "global_pool": given.get("gp")}
    chosen = {key: value for key, value in own.items() if value}
    arguments = {"name": name, "num_classes": classes, "options": {**chosen, **(given.get("model_kwargs") or {})}}
    preprocessing = {
        "size": given.get("img_size") or size[-1],
        "crop_pct": given.get("crop_pct"),
        "eval_interpolation": given.get("interpolation"),
        "mean": given.get("mean"),
        "std": given.get("std"),
    }
    return Header(
        "classification", arguments, {"preprocessing": {key: value for key, value in preprocessing.items() if value}}
    )


def _infer_header(header: Mapping[str, Any]) -> Header:
    """Infer the header of a file written before 0.1.0, which has no kind. To be removed after that release.

    Such a file has the arguments under ``network``, and a classifier's the ``preprocessing`` beside them.
    """
    arguments = header["network"]
    extra = {name: header[name] for name in ("preprocessing", "provenance") if name in header}
    if "preprocessing" in extra and arguments is None:
        return Header("classification", None, extra)
    if isinstance(arguments, Mapping):
        if "preprocessing" in extra and "name" in arguments:
            return Header("classification", dict(arguments), extra)
        for kind, argument in (("detection", "classes"), ("depth", "scale_factor")):
            if argument in arguments:
                return Header(kind, dict(arguments), extra)
    raise ValueError("its header has no kind, and its network is of none that is known")
