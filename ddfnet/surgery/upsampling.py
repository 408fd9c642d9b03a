"""Put DDF-Up in the place of a model's interpolation: of nn.Upsample, and of what a forward pass calls itself."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from ddfnet.nn import DDFUpsample2d
from ddfnet.nn.layer_op import is_hooked
from ddfnet.surgery._utils import check_model, evaluation_mode, replaced_method
from ddfnet.surgery.report import Edit, InputShape, Report, operate, put_new, put_old
from ddfnet.surgery.selection import Where, layers, matcher

_MODES = ("nearest", "bilinear")


def replace_upsample(
    model: nn.Module,
    example: Any,
    where: Where | Sequence[Where] | None = None,
    *,
    input_shape: InputShape | None = None,
    kernel_size: int = 3,
    heads: int = 1,
    reduction: float = 0.2,
    combine: str = "mul",
) -> Report:
    r"""Put DDF-Up in the place of nearest and bilinear interpolation in a model, in the model itself.

    Found is every call of ``torch.nn.functional.interpolate``: those of ``nn.Upsample``, and those that a module's own
    forward pass makes, as torchvision's feature pyramid and the decoders of segmentation-models-pytorch do. Each is
    served by a `ddfnet.nn.DDFUpsample2d` that begins as the interpolation it replaces,

    .. math::
        \mathrm{ddf\_upsample}(x, 1 + 0, b + 0) = \mathrm{interpolate}(x)

    with b the weights of the interpolation, and learns from there to adapt. The new layers are children of the module
    that makes the call, named ``ddf_upsample``, one for each call of its forward pass; its own code runs as it is.
    Where a call asks for a size, as a pyramid with a map of odd size does, what is too much is cut off. That each
    module computes what it did is measured with the example, before anything is changed for good.

    Args:
        model: in any mode; nothing of it changes where an error is raised.
        example: a tensor, or a tuple of arguments. The model is called with it, without gradients and in evaluation
            mode, to see its interpolations, and again to compare.
        where: the modules whose calls are replaced: a pattern of names, a class, a function of name and module, or
            several of them. None is all of them but for those that cannot be, which the report names.
        input_shape: shape of the model's input, for multiply-adds in the report, see `ddfnet.profiler.estimate`.
        kernel_size: taps of the new layers, odd, from 3 on.
        heads, reduction, combine: options of the new layers, see `ddfnet.nn.DDFUpsample2d`.

    Returns:
        A `Report`: module by module what was there, what is there now, parameters and multiply-adds; ``undo()`` puts
        the interpolation back. New layers are in evaluation or training mode as the module is.

    Raises:
        ValueError: no module that ``where`` matches interpolates; or one of them cannot be replaced: another mode
            than nearest or bilinear, ``align_corners=True``, maps that shrink or grow by no whole factor, a pixel that
            is spread over a map, as global pooling does, volumes; a method that was replaced on the instance; other
            results with the new layers, as where a forward pass runs over all children of its module.
        TypeError: a model that is not one, or a ``where`` that is none of those.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from ddfnet import surgery
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Upsample(scale_factor=2, mode="bilinear"))
        >>> x = torch.randn(2, 3, 16, 16)
        >>> before = model(x)
        >>> report = surgery.replace_upsample(model, x)
        >>> [(change.name, change.begins) for change in report.changes]
        [('1', 'identical')]
        >>> torch.allclose(model(x), before, atol=1e-5)
        True

    Source: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021, section 6; the identical start is ours.
    """
    check_model(model)
    matches = matcher("*" if where is None else where)
    calls, results = _calls(model, example)
    options = {"kernel_size": kernel_size, "heads": heads, "reduction": reduction, "combine": combine}
    meant = {module: names for names, module in layers(model) if module in calls and matches(names, module)}
    differing: dict[nn.Module, str] = {}
    while True:
        reasons = _reasons(meant, calls, differing)
        if reasons and where is not None:
            module, reason = next(iter(reasons.items()))
            raise ValueError(f"{meant[module][0]} cannot be replaced: {reason}; leave it out of where")
        skipped = [(meant[module][0], reason) for module, reason in reasons.items()]
        edits = [
            Edit(names, module, _served(module, calls[module], model, options), "identical")
            for module, names in meant.items()
            if module not in reasons
        ]
        if not edits:
            there = [f"{names[0]} does" for names, module in layers(model) if module in calls and module not in meant]
            there += [f"{name} cannot be replaced: {reason}" for name, reason in skipped]
            if model in calls:
                there.append("the model's own forward pass does, and is replaced where the model is a child of another")
            raise ValueError(
                "; ".join([f"where matches no module that interpolates and can be replaced, got {where!r}", *there])
            )
        found = _difference(model, example, edits, results)
        if not found:
            return operate(model, edits, input_shape, skipped)
        differing |= found


# --- what a model interpolates ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """One call of interpolate."""

    channels: int
    scale: tuple[int, int]
    mode: str
    device: torch.device


def _arguments(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> dict[str, Any]:
    """Return the arguments of interpolate by name; torch.compile does not follow ``inspect.signature``."""
    return {
        "input": input,
        "size": size,
        "scale_factor": scale_factor,
        "mode": mode,
        "align_corners": align_corners,
        "recompute_scale_factor": recompute_scale_factor,
        "antialias": antialias,
    }


class _Interpolation(TorchFunctionMode):
    """While it is active, hands each call of interpolate to ``serve``."""

    def __init__(self, serve: Callable[[dict[str, Any]], Tensor]) -> None:
        super().__init__()
        self._serve = serve

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.interpolate:
            return self._serve(_arguments(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


_Results = dict[nn.Module, list[list[Tensor]]]
"""The floating tensors that a module returns, pass by pass."""


def _calls(model: nn.Module, example: Any) -> tuple[dict[nn.Module, list[_Call | str]], _Results]:
    """Return the calls that each module makes itself in one forward pass, or the reason why one cannot be replaced.

    With them come the results of these modules.
    """
    found: dict[nn.Module, list[list[_Call | str]]] = {}  # one list per pass of a module
    results: _Results = {}
    running: list[tuple[nn.Module, list[_Call | str]]] = []

    def enter(module: nn.Module, _: Any) -> None:
        running.append((module, []))

    def exit(module: nn.Module, _: Any, output: Any) -> None:
        calls = running.pop()[1]
        if calls:
            found.setdefault(module, []).append(calls)
            # Cloned, for what follows may write to them.
            results.setdefault(module, []).append([tensor.clone() for tensor in _floating(output)])

    def note(arguments: dict[str, Any]) -> Tensor:
        result = F.interpolate(**arguments)
        running[-1][1].append(_call(arguments, result))
        return result

    with _Interpolation(note):
        _run(model, example, enter, exit)
    # A module that runs several times must do the same each time.
    calls: dict[nn.Module, list[_Call | str]] = {
        module: passes[0] if all(each == passes[0] for each in passes) else ["its calls differ from pass to pass"]
        for module, passes in found.items()
    }
    return calls, results


def _run(model: nn.Module, example: Any, enter: Callable[..., None], exit: Callable[..., None]) -> None:
    """Call the model, with hooks around the call of each of its modules, and the same random numbers each time."""
    with evaluation_mode(model) as stack:
        torch.manual_seed(0)
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(exit).remove)
        # Cloned, for a forward pass may write to its arguments.
        arguments = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, example)
        model(*(arguments if isinstance(arguments, tuple) else (arguments,)))


def _floating(output: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _reasons(
    meant: dict[nn.Module, tuple[str, ...]],
    calls: dict[nn.Module, list[_Call | str]],
    differing: dict[nn.Module, str],
) -> dict[nn.Module, str]:
    """Return the reasons why selected modules cannot be replaced."""
    reasons = {module: call for module in meant for call in calls[module] if isinstance(call, str)}
    for module in meant:
        if method := replaced_method(module):
            reasons[module] = f"its {method} was replaced on the instance, and would not be called: del its {method}"
    reasons |= differing
    # A module also serves the calls of modules inside of it, unless those have layers of their own.
    while True:
        found = {
            module: f"{type(inner).__name__} inside of it interpolates too, and stays"
            for module in meant
            if module not in reasons
            for inner in module.modules()
            if inner is not module and inner in calls and (inner not in meant or inner in reasons)
        }
        if not found:
            return reasons
        reasons |= found


def _call(arguments: dict[str, Any], result: Tensor) -> _Call | str:
    x, mode = arguments["input"], arguments["mode"]
    if x.dim() != 4:
        return f"it interpolates {x.dim() - 2} dimensions, and DDF-Up two"
    if mode not in _MODES:
        return f"mode={mode!r} is neither nearest nor bilinear"
    if arguments["align_corners"] or arguments["antialias"]:
        return "align_corners=True and antialias=True are other weights at every pixel"
    before, after, sized = tuple(x.shape[2:]), tuple(result.shape[2:]), arguments["size"] is not None
    scale = tuple(-(-large // small) for small, large in zip(before, after, strict=True))
    for small, large, s in zip(before, after, scale, strict=True):
        # A pyramid's map of odd size is one pixel smaller than twice the next. With two pixels less, the pixels that
        # are nearest in the map are others.
        if large < small or small * s - large > (sized and mode == "nearest"):
            return f"{before} to {after} is no enlargement by a whole factor"
    # The factor of a pixel is the size of the image. A factor of two that is asked for is that of a decoder, whose
    # smallest map may have one pixel.
    spreads = any(small == 1 < large for small, large in zip(before, after, strict=True))
    if spreads and (sized or (before == (1, 1) and max(scale) > 2)):
        return f"it spreads a pixel, {before} to {after}, as global pooling does; if it does not, give a larger example"
    return _Call(x.shape[1], (scale[0], scale[1]), mode, x.device)


def _difference(model: nn.Module, example: Any, edits: Sequence[Edit], results: _Results) -> dict[nn.Module, str]:
    """Return the first module that computes something else with its new layers, with the reason, or nothing."""
    old = {edit.new: edit.old for edit in edits}
    passes = {module: iter(results[module]) for module in old.values()}
    running: list[nn.Module] = []
    found: dict[nn.Module, str] = {}

    def enter(module: nn.Module, _: Any) -> None:
        if module in old:
            running.append(old[module])

    def exit(module: nn.Module, _: Any, output: Any) -> None:
        if module in old:
            own = running.pop()
            expected = next(passes[own], [])
            if not found and not _agree(_floating(output), expected):
                found[own] = (
                    "its results are others with DDF-Up among its children; does its forward pass run them all?"
                )

    put_new(model, edits)
    try:
        _run(model, example, enter, exit)
    except Exception as error:  # whatever a forward pass raises when it meets layers that it does not know
        if not running and not found:
            raise ValueError(
                f"the model does not run with DDF-Up in the place of its interpolation: {error}"
            ) from error
        if not found:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            found[running[-1]] = f"its forward pass does not run with DDF-Up among its children: {reason}"
    finally:
        put_old(model, edits)
    return found


def _agree(results: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Return whether the tensors are equal but for rounding."""
    if [tensor.shape for tensor in results] != [tensor.shape for tensor in expected]:
        return False
    for result, tensor in zip(results, expected, strict=True):
        sizes = tensor[tensor.isfinite()].abs()
        within = torch.finfo(tensor.dtype).eps ** 0.5 * (sizes.max().item() if sizes.numel() else 0.0)
        if not torch.allclose(result.to(tensor.dtype), tensor, rtol=0, atol=within, equal_nan=True):
            return False
    return True


# --- what serves it -----------------------------------------------------------------------------------------------


def _served(module: nn.Module, calls: Sequence[Any], model: nn.Module, options: dict[str, Any]) -> nn.Module:
    """Return a module with the children and weights of this one, and DDF layers for its calls of interpolate."""
    weights = (p for part in (module, model) for p in part.parameters() if p.is_floating_point())
    dtype = next(weights, torch.empty(0)).dtype
    upsamplers = nn.ModuleList(
        nn.Identity()
        if call.scale == (1, 1)
        else DDFUpsample2d(
            call.channels,
            call.scale,
            norm="none",
            padding_mode="zeros" if call.mode == "nearest" else "replicate",
            init=call.mode,
            device=call.device,
            dtype=dtype,
            **options,
        )
        for call in calls
    )
    kind: Any = type(module)
    if kind.forward is nn.Upsample.forward and not is_hooked(module):
        return upsamplers[0].train(module.training)
    served = module.__new__(_serving(kind))
    served.__dict__ = {name: _kept(value, module, served) for name, value in vars(module).items()}
    served.ddf_upsample = upsamplers.train(module.training)
    return served


def _kept(value: Any, module: nn.Module, served: nn.Module) -> Any:
    """Return an attribute of a module for the one that serves it."""
    if isinstance(value, (dict, set)):  # children, weights and hooks are shared, the places where they are kept are not
        return copy.copy(value)
    if isinstance(value, types.MethodType) and value.__self__ is module:
        return types.MethodType(value.__func__, served)
    return value


@functools.cache
def _serving(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass with its own upsamplers where its forward pass calls interpolate."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        upsamplers = iter(self.ddf_upsample)

        def serve(arguments: dict[str, Any]) -> Tensor:
            upsampler = next(upsamplers, None)
            if upsampler is None:
                raise ValueError(
                    f"{kind.__name__} interpolates more often than the {len(self.ddf_upsample)} times of the example "
                    "that replace_upsample was given; give one that does as often"
                )
            return _serve(upsampler, arguments["input"], arguments["size"], arguments["scale_factor"])

        with _Interpolation(serve):
            return kind.forward(self, *args, **kwargs)

    def reduced(self: Any, _: Any) -> tuple[Any, ...]:
        """Return the state for a pickle, which knows classes by name: this class has the name of the original."""
        return _rebuilt, (kind,), *object.__reduce_ex__(self, 2)[2:]

    own = {"forward": forward, "__reduce_ex__": reduced, "__module__": kind.__module__, "__doc__": kind.__doc__}
    if issubclass(kind, (nn.Sequential, nn.ModuleList)):
        own |= {"__iter__": _own_children, "__len__": lambda self: len(self._modules) - 1}
    return type(kind.__name__, (kind,), own)


def _own_children(self: Any) -> Iterator[nn.Module]:
    """Yield the children that a container had before; its forward pass runs over them."""
    return (child for name, child in self._modules.items() if name != "ddf_upsample")


def _serve(upsampler: Any, x: Tensor, size: Any, scale_factor: Any) -> Tensor:
    """Return what interpolate is asked for."""
    larger: Tensor = upsampler(x)
    sh, sw = getattr(upsampler, "scale_factor", (1, 1))
    if size is None:
        asked = tuple(scale_factor) if isinstance(scale_factor, Sequence) else (scale_factor, scale_factor)
        fits, height, width = asked == (sh, sw), larger.shape[2], larger.shape[3]
    else:
        asked = height, width = (size, size) if isinstance(size, int) else tuple(size)
        fits = 0 <= larger.shape[2] - height < sh and 0 <= larger.shape[3] - width < sw
    if not fits:
        raise ValueError(
            f"DDF-Up by {sh}x{sw} makes {tuple(larger.shape[2:])} of {tuple(x.shape[2:])}, and "
            f"{asked} is asked for; replace_upsample was given an example of another factor"
        )
    return larger[:, :, :height, :width]


def _rebuilt(kind: Any) -> nn.Module:
    """Return a module without its state, for a pickle or a copy to fill."""
    serving = _serving(kind)
    return serving.__new__(serving)
