"""Kinds of networks: the header that names one, and the class that builds it."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from torch import nn

from ddfnet.kinds import KIND_MODULES
from ddfnet.pretrained.extras import import_extra
from ddfnet.pretrained.fitting import Budget, Weights
from ddfnet.pretrained.options import check_options, shown

_Factory = TypeVar("_Factory", bound=Callable[..., nn.Module])

_KINDS: dict[str, Kind] = {}


class Header(NamedTuple):
    """Header of a file, from which its network is built again.

    Attributes:
        kind: name that the network's class is registered under.
        init_args: arguments of the class, as JSON can hold them; None for a module that cannot be built again.
        extra: further facts, such as the preprocessing of the images.
    """

    kind: str
    init_args: dict[str, Any] | None
    extra: dict[str, Any] = {}  # noqa: RUF012  (never written to)

    def as_dict(self) -> dict[str, Any]:
        """Return the header as one dictionary, as files and checkpoints have it."""
        return {"kind": self.kind, "init_args": self.init_args, **self.extra}


class Kind(NamedTuple):
    """Kind of networks.

    Attributes:
        factory: the class, or the function, that builds its networks.
        check_options: refuses arguments that a file must not give to the factory, by a ValueError.
        rename: gives weights in other programs' names those of the network.
    """

    factory: Callable[..., nn.Module]
    check_options: Callable[[dict[str, Any]], None] | None = None
    rename: Callable[[Weights], Weights] | None = None


def register_kind(
    name: str,
    *,
    check_options: Callable[[dict[str, Any]], None] | None = None,
    rename: Callable[[Weights], Weights] | None = None,
) -> Callable[[_Factory], _Factory]:
    """Register a class of networks, or a function that builds them, under the kind that their files name.

    Networks get the attributes ``kind`` and ``init_args``: the arguments that they were made with, defaults included
    and tuples as lists. An argument called ``pretrained`` is recorded as False, since a file brings its own weights.

    Args:
        name: name of the kind.
        check_options: refuses arguments that a file must not give, by a ValueError; types, sizes and ``pretrained`` are
            checked for every kind, see `ddfnet.pretrained.options`.
        rename: gives weights in other programs' names those of the network.

    Raises:
        ValueError: the kind belongs to another class.
        TypeError: the class takes ``*args``, which have no names.

    Example:
        >>> from torch import nn
        >>> from ddfnet.pretrained import register_kind
        >>> @register_kind("example")
        ... class Example(nn.Module):
        ...     def __init__(self, width=8):
        ...         super().__init__()
        >>> Example(16).kind, Example(16).init_args
        ('example', {'width': 16})

    Source: the recorded arguments are ``save_hyperparameters`` of Lightning, or the mixin of huggingface_hub.
    """

    def register(factory: _Factory) -> _Factory:
        known: Any = _KINDS[name].factory if name in _KINDS else None
        if known is not None and (known.__module__, known.__qualname__) != (factory.__module__, factory.__qualname__):
            raise ValueError(f"kind {name!r} is taken by {known.__module__}.{known.__qualname__}; choose another name")
        made: Any = factory
        if isinstance(factory, type):
            made.kind = name
            made.__init__ = _recording_init(made.__init__)
        else:
            made = _recording_call(factory, name)
        _KINDS[name] = Kind(made, check_options, rename)
        registered: _Factory = made
        return registered

    return register


def kind_of(header: Header) -> Kind:
    """Return the kind that a header names.

    Raises:
        ValueError: no class is registered for it.
    """
    kind = header.kind
    if not isinstance(kind, str):
        raise ValueError(f"its kind must be text, got {type(kind).__name__}")
    if kind not in _KINDS and kind in KIND_MODULES:
        import_extra(KIND_MODULES[kind], f"networks of kind {kind!r} need more: pip install 'ddfnet[models]'")
    if kind not in _KINDS:
        known = ", ".join(map(repr, sorted({*_KINDS, *KIND_MODULES})))
        raise ValueError(
            f"its kind must be one of {known}, got {shown(kind)}; import the module that registers it with "
            "ddfnet.pretrained.register_kind"
        )
    return _KINDS[kind]


def check_header(header: Header) -> None:
    """Check that a network can be built from a header that comes from a file.

    Raises:
        ValueError: no class is registered for the kind; the network cannot be built again; an option that a file must
            not have, in one line that names it.
    """
    known, arguments = kind_of(header), header.init_args
    if arguments is None:
        raise ValueError("its header has no init_args: the network was given as a module, not by its name")
    check_options(arguments, known.factory)
    if known.check_options is not None:
        known.check_options(arguments)


def build(header: Header, weights: Weights | None = None) -> nn.Module:
    """Build the network of a header, without its weights.

    Args:
        header: the header of a file.
        weights: the file's weights: a network that is far larger is not built to its end; None does without.

    Raises:
        ValueError: as `check_header`; or the network is far larger than the weights.
    """
    check_header(header)
    arguments: Any = header.init_args
    with contextlib.nullcontext() if weights is None else Budget(weights):
        return kind_of(header).factory(**arguments)


def header_of(network: nn.Module) -> Header:
    """Return the header of a network whose class is registered.

    Raises:
        ValueError: the class is not registered.
    """
    if (own := getattr(network, "pretrained_header", None)) is not None:  # PretrainedMixin's
        header: Header = own()
        return header
    kind = getattr(network, "kind", None)
    if kind not in _KINDS:
        raise ValueError(
            f"the network's class must be registered with ddfnet.pretrained.register_kind, got {type(network).__name__}"
        )
    return Header(str(kind), getattr(network, "init_args"))  # noqa: B009  (nn.Module types it as a tensor)


def _recording_init(init: Callable[..., None]) -> Callable[..., None]:
    arguments = _Arguments(init, skip=1)

    @functools.wraps(init)
    def recording(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.init_args = arguments.bind(self, *args, **kwargs)  # last, so that a subclass's own arguments win

    return recording


def _recording_call(function: Callable[..., nn.Module], kind: str) -> Callable[..., nn.Module]:
    arguments = _Arguments(function, skip=0)

    @functools.wraps(function)
    def recording(*args: Any, **kwargs: Any) -> nn.Module:
        network: Any = function(*args, **kwargs)
        if not hasattr(type(network), "init_args"):  # a class may know its own better, and the function too
            network.kind = kind
            if "init_args" not in vars(network):
                network.init_args = arguments.bind(*args, **kwargs)
        return network

    return recording


class _Arguments:
    """Arguments of calls by name, as JSON holds them."""

    def __init__(self, function: Callable[..., Any], skip: int) -> None:
        self.signature, self.skip = inspect.signature(function), skip
        kinds = {each.name: each.kind for each in self.signature.parameters.values()}
        self.open = next((name for name, kind in kinds.items() if kind is inspect.Parameter.VAR_KEYWORD), None)
        if inspect.Parameter.VAR_POSITIONAL in kinds.values():
            raise TypeError(f"{function.__qualname__} must take arguments by name, got *args")

    def bind(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        named = dict(list(bound.arguments.items())[self.skip :])
        if self.open is not None:
            named |= named.pop(self.open)
        if "pretrained" in named:
            named["pretrained"] = False
        recorded: dict[str, Any] = _plain(named)
        return recorded


def _plain(value: Any) -> Any:
    """Return a copy with lists for tuples, which is how JSON gives them back."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
