"""Networks in files, in folders and on the Hugging Face Hub.

A file of a network says what it is: its header has the ``kind`` and the ``init_args`` that build the network again. Any
class joins by one decorator::

    @register_kind("segmentation")
    class Segmenter(nn.Module, PretrainedMixin): ...

after which `save`, `load`, ``ddfnet convert`` and ``ddfnet export`` know it, and it has ``save_pretrained``,
``from_pretrained`` and ``push_to_hub``.
"""

from ddfnet.pretrained.fitting import Weights, load_state_dict_checked
from ddfnet.pretrained.hub import PretrainedMixin
from ddfnet.pretrained.reader import Content, parse_checkpoint, read, reading_weights, strip_prefix
from ddfnet.pretrained.registry import _KINDS as _KINDS
from ddfnet.pretrained.registry import Header, build, check_header, header_of, register_kind
from ddfnet.pretrained.saving import (
    load,
    load_with_header,
    network_of,
    read_card,
    read_header,
    save,
)

__all__ = [
    "Content",
    "Header",
    "PretrainedMixin",
    "Weights",
    "build",
    "check_header",
    "header_of",
    "load",
    "load_state_dict_checked",
    "load_with_header",
    "network_of",
    "parse_checkpoint",
    "read",
    "read_card",
    "read_header",
    "reading_weights",
    "register_kind",
    "save",
    "strip_prefix",
]
