"""Put DDF-Up in the place of a model's interpolation: of nn.Upsample, and of what a forward pass calls itself."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ddfnet.nn import DDFUpsample2d
from ddfnet.surgery._utils import check_model, evaluation_mode, is_hooked
from ddfnet.surgery.report import Edit, InputShape, Report, operate
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
    Where a call asks for a size, as a pyramid with a map of odd size does, what is too much is cut off.

    Args:
        model: in any mode; nothing of it changes where an error is raised.
        example: a tensor, or a tuple of arguments. The model is called with it once, without gradients and in
            evaluation mode, to see its interpolations.
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
            than nearest or bilinear, ``align_corners=True``, maps that shrink or grow by no whole factor, volumes.
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
    calls = _calls(model, example)
    options = {"kernel_size": kernel_size, "heads": heads, "reduction": reduction, "combine": combine}
    meant = {module: names for names, module in layers(model) if module in calls and matches(names, module)}
    reasons = _reasons(meant, calls)
    if reasons and where is not None:
        module, reason = next(iter(reasons.items()))
        raise ValueError(f"{meant[module][0]} cannot be replaced: {reason}; leave it out of where")
    skipped = [(meant[module][0], reason) for module, reason in reasons.items()]
    edits = [
        Edit(names, module, _served(module, calls[module], options), "identical")
        for module, names in meant.items()
        if module not in reasons
    ]
    if not edits:
        there = [f"{names[0]} does" for names, module in layers(model) if module in calls]
        there += [f"{name} cannot be replaced: {reason}" for name, reason in skipped]
        if model in calls:
            there.append("the model's own forward pass does, and is replaced where the model is a child of another")
        raise ValueError(
            "; ".join([f"where matches no module that interpolates and can be replaced, got {where!r}", *there])
        )
    return operate(model, edits, input_shape, skipped)


# --- what a model interpolates ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """One call of interpolate."""

    channels: int
    scale: tuple[int, int]
    mode: str


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


def _calls(model: nn.Module, example: Any) -> dict[nn.Module, list[_Call | str]]:
    """Return the calls that each module makes itself in one forward pass, or the reason why one cannot be replaced."""
    found: dict[nn.Module, list[list[_Call | str]]] = {}  # one list per pass of a module
    running: list[tuple[nn.Module, list[_Call | str]]] = []

    def enter(module: nn.Module, _: Any) -> None:
        running.append((module, []))

    def exit(module: nn.Module, *_: Any) -> None:
        calls = running.pop()[1]
        if calls:
            found.setdefault(module, []).append(calls)

    def note(arguments: dict[str, Any]) -> Tensor:
        result = F.interpolate(**arguments)
        running[-1][1].append(_call(arguments, result))
        return result

    with evaluation_mode(model) as stack:
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(exit).remove)
        stack.enter_context(_Interpolation(note))
        model(*(example if isinstance(example, tuple) else (example,)))
    # A module that runs several times must do the same each time.
    return {
        module: passes[0] if all(each == passes[0] for each in passes) else ["its calls differ from pass to pass"]
        for module, passes in found.items()
    }


def _reasons(
    meant: dict[nn.Module, tuple[str, ...]], calls: dict[nn.Module, list[_Call | str]]
) -> dict[nn.Module, str]:
    """Return the reasons why selected modules cannot be replaced."""
    reasons = {module: call for module in meant for call in calls[module] if isinstance(call, str)}
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
    scale = tuple(-(-large // small) for small, large in zip(x.shape[2:], result.shape[2:], strict=True))
    for small, large, s in zip(x.shape[2:], result.shape[2:], scale, strict=True):
        # A pyramid's map of odd size is one pixel smaller than twice the next.
        if large < small or not small * s - large < s or (mode == "bilinear" and small * s != large):
            return f"{tuple(x.shape[2:])} to {tuple(result.shape[2:])} is no enlargement by a whole factor"
    return _Call(x.shape[1], (scale[0], scale[1]), mode)


# --- what serves it -----------------------------------------------------------------------------------------------


def _served(module: nn.Module, calls: Sequence[Any], options: dict[str, Any]) -> nn.Module:
    """Return a module with the children and weights of this one, and DDF layers for its calls of interpolate."""
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    upsamplers = nn.ModuleList(
        nn.Identity()
        if call.scale == (1, 1)
        else DDFUpsample2d(
            call.channels,
            call.scale,
            norm="none",
            padding_mode="zeros" if call.mode == "nearest" else "replicate",
            init=call.mode,
            device=like.device,
            dtype=like.dtype,
            **options,
        )
        for call in calls
    )
    if isinstance(module, nn.Upsample) and not is_hooked(module):
        return upsamplers[0].train(module.training)
    kind: Any = type(module)
    served = module.__new__(_serving(kind))
    # Children, weights and hooks are shared, the places where they are kept are not.
    kept = vars(module).items()
    served.__dict__ = {key: copy.copy(value) if isinstance(value, (dict, set)) else value for key, value in kept}
    served.ddf_upsample = upsamplers.train(module.training)
    return served


@functools.cache
def _serving(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass with its own upsamplers where its forward pass calls interpolate."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        upsamplers = iter(self.ddf_upsample)

        def serve(arguments: dict[str, Any]) -> Tensor:
            x, size = arguments["input"], arguments["size"]
            larger = next(upsamplers)(x)
            if size is None:
                return larger
            height, width = (size, size) if isinstance(size, int) else size
            sh, sw = (large // small for small, large in zip(x.shape[2:], larger.shape[2:], strict=True))
            if not (0 <= larger.shape[2] - height < sh and 0 <= larger.shape[3] - width < sw):
                raise ValueError(
                    f"DDF-Up by {sh}x{sw} makes {tuple(larger.shape[2:])} of {tuple(x.shape[2:])}, and "
                    f"{(height, width)} is asked for; replace_upsample was given an example of another factor"
                )
            return larger[:, :, :height, :width]

        with _Interpolation(serve):
            return kind.forward(self, *args, **kwargs)

    def reduced(self: Any, _: Any) -> tuple[Any, ...]:
        """Return the state for a pickle, which knows classes by name: this class has the name of the original."""
        return _rebuilt, (kind,), *object.__reduce_ex__(self, 2)[2:]

    own = {"forward": forward, "__reduce_ex__": reduced, "__module__": kind.__module__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), own)


def _rebuilt(kind: Any) -> nn.Module:
    """Return a module without its state, for a pickle or a copy to fill."""
    serving = _serving(kind)
    return serving.__new__(serving)
