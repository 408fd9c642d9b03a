"""Options of timm's networks that a file may have: those that shape the network, by name and type.

A file's options reach ``timm.create_model`` only if they are here, because that function also takes names of files and
repositories, from which it reads. Code that calls it may use any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from timm.models import is_model, list_models, model_entrypoint

from ddfnet.pretrained.options import Rule, check_option, choice, integer, number, several, shown

_FLAG = choice(True, False)
_SHARE = number(0, 1)
_WIDTH = integer(1, 2**16)
_BLOCKS = integer(1, 1000)
_LAYER = (  # timm looks it up among its own layers
    lambda value: value is None or (isinstance(value, str) and re.fullmatch(r"\w{0,32}", value) is not None),
    "the name of a layer of timm's",
)

BLOCK_OPTIONS: dict[str, Rule] = {
    "attn_layer": _LAYER,
    "combine": choice("mul", "add"),
    "filters": choice("both", "spatial", "channel"),
    "heads": _WIDTH,
    "norm": choice("filter", "batch", "sigmoid", "softmax", "none"),
    "norm_eps": number(0, 1),
    "reduction": number(0, 64),
    "static": _FLAG,
    "zero_init": _FLAG,
}
"""Entries of ``block_args``, those of `ddfnet.nn.DDF2d` among them: what is required of each, in code and in words."""

OPTIONS: dict[str, Rule] = {
    "act_layer": _LAYER,
    "aa_layer": _LAYER,
    "avg_down": _FLAG,
    "base_width": _WIDTH,
    "block_reduce_first": integer(1, 64),
    "bn_eps": number(0, 1),
    "bn_momentum": _SHARE,
    "cardinality": _WIDTH,
    "channels": several(_WIDTH),
    "class_token": _FLAG,
    "depth": _BLOCKS,
    "depths": several(_BLOCKS),
    "dims": several(_WIDTH),
    "down_kernel_size": integer(1, 31),
    "drop_block_rate": _SHARE,
    "drop_path_rate": _SHARE,
    "drop_rate": _SHARE,
    "dynamic_img_size": _FLAG,
    "embed_dim": several(_WIDTH, alone=True),
    "global_pool": choice("avg", "max", "avgmax", "catavgmax", "fast", "token", "map", ""),
    "img_size": several(integer(1, 2048), alone=True),
    "in_chans": integer(1, 1024),
    "layers": several(_BLOCKS),
    "mixer": choice("conv", "depthwise", "ddf"),
    "mlp_ratio": number(0, 64),
    "norm_layer": _LAYER,
    "num_classes": integer(0, 2**24),
    "num_heads": several(_WIDTH, alone=True),
    "output_stride": choice(8, 16, 32),
    "pad_type": choice("", "same", "valid"),
    "patch_size": several(integer(1, 256), alone=True),
    "pretrained": choice(False),
    "qkv_bias": _FLAG,
    "replace_stem_pool": _FLAG,
    "stem_stride": integer(1, 4),
    "stem_type": choice("", "deep", "deep_tiered"),
    "stem_width": _WIDTH,
    "window_size": several(integer(1, 64), alone=True),
    "zero_init_last": _FLAG,
}
"""Options of ``timm.create_model``, and of the networks behind it: what is required of each, in code and in words."""

LOADING = (
    "cache_dir",
    "checkpoint_path",
    "device",
    "dtype",
    "exportable",
    "features_only",
    "no_jit",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_model_args",
    "pretrained_strict",
    "scriptable",
)
"""Arguments of `timm.create_model` that name a source of weights, or the device: of no network."""


def check_name(name: str) -> None:
    """Refuse the name of a network that timm does not know, which could be an address of its hub."""
    if not is_model(name):
        ours = list_models(["ddf_*", "small_resnet*"])
        raise ValueError(f"network must be a name that timm knows, such as {', '.join(ours)}, got {shown(name)}")


def check_file_options(name: str, options: Any) -> None:
    """Check the options that a file gives to ``timm.create_model``.

    A network that was registered from outside of timm and of this package has options of its own; it may not have those
    that name a place to read from.

    Args:
        name: a name that timm knows.
        options: options by name, or None.

    Raises:
        ValueError: timm does not know the name; an option is not one that a file may have, or not of its type.

    Example:
        >>> check_file_options("resnet18", {"in_chans": 4})
        >>> check_file_options("resnet18", {"checkpoint_path": "/tmp/a"})
        Traceback (most recent call last):
        ValueError: its option checkpoint_path is none that a file may have; build the network in Python
    """
    check_name(name)
    if options is None:
        return
    if not isinstance(options, Mapping):
        raise ValueError(f"its options must be a dictionary, got {type(options).__name__}")
    listed = model_entrypoint(name).__module__.partition(".")[0] in ("timm", "ddfnet")
    for option, value in options.items():
        if option == "block_args" and listed and isinstance(value, Mapping):
            for inner, own in value.items():
                check_option(inner, own, BLOCK_OPTIONS)
        elif listed or (option in LOADING and value is not False):
            check_option(option, value, OPTIONS)
