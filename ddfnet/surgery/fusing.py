"""Copies of models for inference: DDF layers as one operator, batch norms and ReLUs folded into the layers."""

from __future__ import annotations

import copy
import inspect
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ddfnet.nn import DDF2d, DDFConv2d, FusedDDF2d
from ddfnet.nn.branches import ChannelBranch, SpatialBranch
from ddfnet.nn.layer_op import is_hooked
from ddfnet.surgery._utils import alteration, check_model
from ddfnet.surgery.selection import DDF_LAYERS

_log = logging.getLogger(__name__)

_Model = TypeVar("_Model", bound=nn.Module)


def fuse(model: _Model) -> _Model:
    r"""Copy a model for inference, with DDF layers as one operator each and batch norms folded into the layers.

    .. math::
        \gamma \frac{(W x + b) - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta = (s W)\, x + (s (b - \mu) + \beta), \qquad
        s = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}

    worked out in float64 and rounded once. Names and results of the model stay, but for rounding.

    Each `ddfnet.nn.DDF2d` becomes a `ddfnet.nn.FusedDDF2d`. A 2d batch norm (``nn.BatchNorm2d``, ``nn.SyncBatchNorm``,
    torchvision's ``FrozenBatchNorm2d``, timm's ``BatchNormAct2d``, whose activation stays) is folded into the
    ``nn.Conv2d``, ``nn.ConvTranspose2d`` with groups=1, `ddfnet.nn.DDF2d` or `ddfnet.nn.DDFConv2d` before it, and so
    are those that normalise predicted filters. An ``nn.ReLU`` is folded into a ``DDF2d``, or a ``DDFConv2d`` without a
    1x1 convolution, with a batch norm between them or without. ``nn.Identity`` takes the place of a folded layer.
    Layers stay as they are where a change could be noticed: if another layer uses the map between the two, if one of
    them is called more than once, has hooks or is in a module that has, if the model reads its parameters, if it is of
    a subclass, parametrised or has a method that was replaced on the instance, if a batch norm has no running
    statistics.

    Folded layers, and the batch norms that stay, are logged at level INFO: ``logging.basicConfig(level="INFO")``;
    ``compare(model, fused)`` is a report of it. To undo it, drop the copy.

    Args:
        model: in any mode; it stays as it is. Its wiring is found by tracing ``forward`` with `torch.fx`, in
            evaluation mode, where arguments that have a default have that; nothing is computed.

    Returns:
        The copy, in evaluation mode, whose parameters need no gradient: they hold batch norms whose statistics have
        become constants, so training them would be training another network. Train ``model`` and fuse it anew. State
        dicts go from one fused copy to another, not between it and ``model``.

    Raises:
        NotImplementedError: `torch.fx` cannot trace the model, or the copy, where it calls layers other than by name
            (from a plain list) or reads attributes of a batch norm.
        RuntimeError: ``copy.deepcopy`` cannot copy the model; where it is pruned, make that permanent first.
        TypeError: a model that is not one.

    Example:
        >>> import torch
        >>> import ddfnet.surgery
        >>> from torch import nn
        >>> model = nn.Sequential(
        ...     nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), ddfnet.nn.DDF2d(8), nn.BatchNorm2d(8), nn.ReLU()
        ... )
        >>> fast = ddfnet.surgery.fuse(model)
        >>> [type(layer).__name__ for layer in fast]
        ['Conv2d', 'Identity', 'ReLU', 'FusedDDF2d', 'Identity', 'Identity']
        >>> x = torch.randn(2, 3, 16, 16)
        >>> torch.allclose(fast(x), model.eval()(x), atol=1e-5)
        True

    Source: ours, with `torch.nn.utils.fusion`; folding a batch norm into the convolution before it is common knowledge,
    as in Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference,
    CVPR 2018, section 3.2.
    """
    check_model(model)
    fused = copy.deepcopy(model).eval().requires_grad_(False)
    wiring = _Wiring(fused)
    with torch.no_grad():
        for layer, norm, relu in [*wiring.chains()]:
            _fold(fused, layer, fused.get_submodule(norm) if norm else None, relu=bool(relu))
            for name in filter(None, (norm, relu)):
                _remove(fused, name)
            _log.info("%s: folded %s", layer, " and ".join(filter(None, (norm, relu))))
        for module in [*fused.modules()]:
            if type(module) is DDF2d and not any(alteration(part) for part in module.modules()):
                fused = _substitute(fused, module, FusedDDF2d(module))
    # A module that the model has a second way to is still called, and an attribute of a batch norm is gone.
    _Wiring(fused)
    for name, module in fused.named_modules():
        if isinstance(module, _norms()):
            _log.info("%s: stays", name)
    return fused


# --- what can be folded -------------------------------------------------------------------------------------------


def _norms() -> tuple[type[nn.Module], ...]:
    """Return the batch norms that are folded: PyTorch's, and those of libraries that are imported already."""
    others = (_loaded("torchvision.ops", "FrozenBatchNorm2d"), _loaded("timm.layers", "BatchNormAct2d"))
    return (nn.BatchNorm2d, nn.SyncBatchNorm, *(norm for norm in others if norm is not None))


def _loaded(library: str, name: str) -> Any:
    return getattr(sys.modules.get(library), name, None)


def _has_activation(norm: nn.Module) -> bool:
    return type(norm) is _loaded("timm.layers", "BatchNormAct2d")


def _end(layer: nn.Module) -> nn.Module | None:
    """Return the part of a layer that a batch norm after it is folded into, or None.

    A subclass has none: it may not use its weights as they are, as ``timm.layers.StdConv2d`` does not.
    """
    end: nn.Module = layer
    if type(layer) is DDFConv2d:
        end = layer.ddf if layer.pointwise is None else layer.pointwise
    takes = type(end) in (nn.Conv2d, DDF2d) or (type(end) is nn.ConvTranspose2d and end.groups == 1)
    return end if takes else None


class _Tracer(fx.Tracer):
    """Takes as wholes what can be folded, what has hooks, and DDF layers, whose checks fx cannot follow."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        whole = is_hooked(m) or isinstance(m, (nn.Conv2d, *DDF_LAYERS, *_norms()))
        return whole or super().is_leaf_module(m, module_qualified_name)


class _Wiring:
    """Connections between the modules of a model.

    Args:
        model: in evaluation mode.

    Raises:
        NotImplementedError: fx cannot trace the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._nodes: list[fx.Node] = []
        self._read: set[Tensor] = set()  # by the model itself
        self._calls: Counter[nn.Module] = Counter()  # a module's children are called with it
        if isinstance(model, DDF_LAYERS):
            self._calls.update(model.modules())
            return
        tensors = dict(model.named_parameters(remove_duplicate=False))
        for node in _trace(model).nodes:
            if node.op == "call_module":
                self._nodes.append(node)
                self._calls.update(self._module(node).modules())
            elif node.op == "get_attr" and node.target in tensors:
                self._read.add(tensors[node.target])

    def chains(self) -> Iterator[tuple[str, str | None, str | None]]:
        """Yield the names of a layer, and of the batch norm and the ReLU that can be folded into it."""
        for name, branch in self._model.named_modules():
            if isinstance(branch, (SpatialBranch, ChannelBranch)):
                conv = "conv" if isinstance(branch, SpatialBranch) else "expand"
                taken = branch.get_submodule(conv)
                if _end(taken) and self._is_free(taken) and self._is_norm(branch.norm) and self._is_free(branch.norm):
                    yield f"{name}.{conv}".lstrip("."), f"{name}.norm".lstrip("."), None
        for node in self._nodes:
            end = _end(self._module(node))
            if end is None or not self._is_free(self._module(node)):
                continue
            norm, relu = None, None
            following = self._next(node)
            if following is not None and self._is_norm(self._module(following)):
                norm = str(following.target)
                # An activation of its own comes before what follows it.
                following = None if _has_activation(self._module(following)) else self._next(following)
            if following is not None and type(end) is DDF2d and type(self._module(following)) is nn.ReLU:
                relu = str(following.target)
            if norm or relu:
                yield str(node.target), norm, relu

    def _module(self, node: fx.Node) -> nn.Module:
        return self._model.get_submodule(str(node.target))

    def _next(self, node: fx.Node) -> fx.Node | None:
        """Return the only call that uses a call's result, ``nn.Identity`` aside, if its module can be folded."""
        while len(node.users) == 1:
            (user,) = node.users
            if user.op != "call_module":
                return None
            if type(self._module(user)) is not nn.Identity or alteration(self._module(user)):
                return user if self._is_free(self._module(user)) else None
            node = user
        return None

    def _is_norm(self, module: nn.Module) -> bool:
        # Without statistics it normalises by those of the batch, in evaluation too.
        return type(module) in _norms() and isinstance(module.running_mean, Tensor)

    def _is_free(self, module: nn.Module) -> bool:
        """Return whether the module can change or go with no effect on any other than the next."""
        return all(
            self._calls[part] == 1 and not alteration(part) and self._read.isdisjoint(part.parameters())
            for part in module.modules()
        )


def _trace(model: nn.Module) -> fx.Graph:
    # A forward pass may write to attributes, here fx's proxies: it runs in a copy that shares the tensors.
    tensors = (*model.parameters(), *model.buffers())
    replica = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    # To fx every argument is a tensor, so "if mask is not None" would be taken.
    parameters = inspect.signature(model.forward).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    try:
        return _Tracer().trace(replica, defaults)
    except Exception as error:  # whatever a forward pass raises when it gets proxies
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotImplementedError(
            f"fuse needs a model that torch.fx can trace, and this {type(model).__name__} is none: {reason}; fuse a "
            "submodule that can be traced, as in model.backbone = fuse(model.backbone)"
        ) from error


# --- folding ------------------------------------------------------------------------------------------------------


def _fold(model: nn.Module, name: str, norm: Any, *, relu: bool) -> None:
    """Fold a batch norm and a ReLU into the layer of this name."""
    layer = model.get_submodule(name)
    end: Any = _end(layer)
    if not isinstance(end, DDF2d):
        values = _folded(end.weight, end.bias, norm, transpose=isinstance(end, nn.ConvTranspose2d))
        end.weight, end.bias = (nn.Parameter(value.to(end.weight), requires_grad=False) for value in values)
        return
    bias = layer.bias if isinstance(layer, DDFConv2d) else None
    scale, shift = None, None
    if norm is not None or bias is not None:
        like = next(end.parameters())
        if norm is None:
            norm = nn.BatchNorm2d(end.channels, eps=0, device=like.device)  # the identity
        # To a batch norm the filter is a depthwise 1x1 convolution with weights of one.
        weight, shift = _folded(torch.ones(end.channels, 1, 1, 1, device=like.device), bias, norm)
        scale = weight.flatten()
    _substitute(model, end, FusedDDF2d(end, scale, shift, relu=relu))
    if isinstance(layer, DDFConv2d):
        layer.bias = None


def _folded(weight: Tensor, bias: Tensor | None, norm: Any, *, transpose: bool = False) -> tuple[Tensor, Tensor]:
    """Return a convolution's weight and bias with the batch norm after it, in float64."""
    folded = fuse_conv_bn_weights(
        _double(weight),
        _double(bias),
        _double(norm.running_mean),
        _double(norm.running_var),
        norm.eps,
        _double(norm.weight),
        _double(norm.bias),
        transpose,
    )
    return folded[0].detach(), folded[1].detach()


def _double(tensor: Any) -> Any:
    """Convert a tensor to float64 on the CPU, because not every device has that dtype."""
    return tensor if tensor is None else (tensor if tensor.is_meta else tensor.detach().cpu()).double()


def _remove(model: nn.Module, name: str) -> None:
    """Put the parts of a folded layer that stay, if any, in its place."""
    old: Any = model.get_submodule(name)
    new: nn.Module = nn.Identity()
    if _has_activation(old):
        new = nn.Sequential()
        new.drop, new.act = old.drop, old.act
    _substitute(model, old, new.eval())


def _substitute(model: _Model, old: nn.Module, new: nn.Module) -> _Model:
    """Put a module in the place of another under every name, and return the model, which may be the module itself."""
    if model is old:
        return new  # type: ignore[return-value]
    for name, module in [*model.named_modules(remove_duplicate=False)]:
        if module is old:
            model.set_submodule(name, new)
    return model
