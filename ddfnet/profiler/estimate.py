"""What a network will cost, layer by layer, before it has run: multiply-adds, and bytes forward and for the backward.

A prediction runs the module's own code on tensors that have shapes and no memory (PyTorch's fake tensors), in a copy of
the module that shares no state with it. A measurement runs another such copy for real. Both are watched in the same
way: FLOPs by `torch.utils.flop_counter.FlopCounterMode`, kept tensors by ``saved_tensors_hooks``.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import random
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from ddfnet.table import format_bytes, format_si, table

__all__ = ["LayerPlan", "Plan", "Totals", "plan"]

Shape = tuple[int, ...]

_TIMED_PASSES = 3


# --- what is planned ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerPlan:
    """One call of a layer, or what a module does itself between the calls of its layers.

    Attributes:
        name: in the module, as in ``named_modules``; "(root)" is the module itself, and "name#2" a second call.
        kind: the layer's class.
        inputs: shapes of the tensors that go in.
        outputs: shapes of those that come out.
        parameters: how many numbers; a parameter counts where it is met first.
        flops: of the forward pass, as FlopCounterMode counts them.
        output_bytes: of the tensors that come out.
        kept_bytes: of the tensors that this call was the first to keep for the backward pass.
    """

    name: str
    kind: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    parameters: int
    flops: int
    output_bytes: int
    kept_bytes: int

    @property
    def macs(self) -> float:
        """Multiply-adds, half the FLOPs; a tap of a DDF with both filters is 3 FLOPs and so 1.5 of them."""
        return self.flops / 2


@dataclass(frozen=True)
class Totals:
    """The whole module's figures, predicted or measured. Bytes are besides parameters, buffers and inputs.

    Attributes:
        flops: of a forward pass, as FlopCounterMode counts them.
        training_flops: of a forward and a backward pass.
        kept_bytes: what autograd holds for the backward pass when the forward pass has ended.
        peak_bytes: the most that is alive at once in a forward pass without gradients.
        training_peak_bytes: the same in a forward and a backward pass, the parameters' gradients among it.
        seconds: a forward pass without gradients; None if predicted.
        training_seconds: a forward and a backward pass; None if predicted.
    """

    flops: int
    training_flops: int
    kept_bytes: int
    peak_bytes: int
    training_peak_bytes: int
    seconds: float | None = None
    training_seconds: float | None = None

    @property
    def macs(self) -> float:
        """Multiply-adds of a forward pass, half its FLOPs."""
        return self.flops / 2


@dataclass(frozen=True)
class Plan:
    """What `plan` found out; ``str`` is a table of it.

    Attributes:
        kind: the module's class.
        training: the mode that the module was in.
        input_shapes: one a input.
        dtype: of the inputs.
        layers: in the order in which they end.
        parameters: how many numbers, each parameter once, those of layers that were not called included.
        parameter_bytes: their size.
        input_bytes: the size of the inputs.
        predicted: without having run.
        measured: by having run, or None.
    """

    kind: str
    training: bool
    input_shapes: tuple[Shape, ...]
    dtype: torch.dtype
    layers: tuple[LayerPlan, ...]
    parameters: int
    parameter_bytes: int
    input_bytes: int
    predicted: Totals
    measured: Totals | None

    def __str__(self) -> str:
        mode = "training" if self.training else "evaluation"
        dtype = str(self.dtype).removeprefix("torch.")
        title = (
            f"{self.kind} on {_shapes(self.input_shapes)} {dtype}, in {mode} mode: "
            f"{format_si(self.parameters)} parameters ({format_bytes(self.parameter_bytes)}), "
            f"inputs {format_bytes(self.input_bytes)}"
        )
        return "\n\n".join([title, self._layer_table(), self._total_table()])

    def _layer_table(self) -> str:
        headers = ["layer", "type", "shape", "parameters", "MACs", "output", "kept for backward"]
        rows = [
            [
                layer.name,
                layer.kind,
                f"{_shapes(layer.inputs)} -> {_shapes(layer.outputs)}",
                format_si(layer.parameters),
                format_si(layer.macs),
                format_bytes(layer.output_bytes),
                format_bytes(layer.kept_bytes),
            ]
            for layer in self.layers
        ]
        return table(headers, rows, left=3)

    def _total_table(self) -> str:
        columns = {"predicted": self.predicted} | ({"measured": self.measured} if self.measured else {})
        lines: dict[str, Callable[[Totals], str]] = {
            "forward MACs": lambda totals: format_si(totals.macs),
            "forward FLOPs": lambda totals: format_si(totals.flops),
            "forward + backward FLOPs": lambda totals: format_si(totals.training_flops),
            "kept for backward": lambda totals: format_bytes(totals.kept_bytes),
            "peak, inference": lambda totals: format_bytes(totals.peak_bytes),
            "peak, forward + backward": lambda totals: format_bytes(totals.training_peak_bytes),
        }
        if self.measured:
            lines["time, inference"] = lambda totals: _time(totals.seconds)
            lines["time, forward + backward"] = lambda totals: _time(totals.training_seconds)
        rows = [[name, *(line(totals) for totals in columns.values())] for name, line in lines.items()]
        return table(["total", *columns], rows)


def _shapes(shapes: Sequence[Shape]) -> str:
    return " + ".join("x".join(map(str, shape)) or "scalar" for shape in shapes) or "none"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.2f} ms"


# --- the public call ----------------------------------------------------------------------------------------------


def plan(
    module: nn.Module,
    input_shape: Sequence[int] | Sequence[Sequence[int]],
    *,
    dtype: torch.dtype | None = None,
    measure: bool = False,
) -> Plan:
    r"""Predict what a module costs on inputs of this shape, without arithmetic or memory for its maps.

    .. math::
        \mathrm{FLOPs} = \sum_{calls} \mathrm{FLOPs}(call), \qquad \mathrm{MACs} = \mathrm{FLOPs} / 2

    as `torch.utils.flop_counter.FlopCounterMode` counts them: convolutions, matrix products, attention, and the DDF
    with 3 FLOPs a tap for both filters and 2 for one. What it does not count (normalisations, activations, sums) is 0.

    The module is planned in the mode that it is in, training or evaluation; for both modes the plan has a pass with
    gradients and one without. Inputs need no gradient. The module runs in a copy without its memory: its parameters,
    buffers, gradients and attributes and the random number generators stay as they are. Its hooks run in the copy,
    for many a module needs them.

    Args:
        module: on any device, the meta device too.
        input_shape: (N, C, H, W) or whatever the module takes; for a module with several inputs a tuple of shapes.
        dtype: of the inputs; None is that of the module's first floating parameter, or PyTorch's default. Inputs that
            are not floating are zeros, as indices.
        measure: whether to run the module too, in the same mode on its own device, on random inputs: some ten passes.
            On the CPU the measured peak is that of PyTorch's allocator, as its profiler saw it; elsewhere that of
            ``torch.accelerator``, whose peak is reset. It has in it what operators take for themselves, which a
            prediction cannot know; of what is kept, that is the workspace of a fused recurrent layer.

    Returns:
        A `Plan`, which prints as a table: a row for each call of a layer (``nn.Identity`` aside) and for each module
        that computes or keeps something itself, and totals. The rows' FLOPs and kept bytes add up to the totals.

    Raises:
        ValueError: a shape that is none; inputs that a layer cannot take, with its name; a layer that decides by
            the values of a tensor, or that has not been initialised; ``measure`` on the meta device.
        TypeError: a module that is not one, or dtype that is not one.

    Example:
        >>> import ddfnet
        >>> from ddfnet.nn import DDF2d
        >>> plan = ddfnet.plan(DDF2d(64, filters="spatial", norm="none"), (2, 64, 56, 56))
        >>> print(plan)
        DDF2d on 2x64x56x56 float32, in training mode: 585 parameters (2.29 KiB), inputs 1.53 MiB
        <BLANKLINE>
        layer         type    shape                     parameters    MACs     output  kept for backward
        ------------  ------  ------------------------  ----------  ------  ---------  -----------------
        spatial.conv  Conv2d  2x64x56x56 -> 2x9x56x56          585  3.61 M  220.5 KiB                0 B
        (root)        DDF2d   2x64x56x56 -> 2x64x56x56           0  3.61 M   1.53 MiB          220.5 KiB
        <BLANKLINE>
        total                     predicted
        ------------------------  ---------
        forward MACs                 7.23 M
        forward FLOPs               14.45 M
        forward + backward FLOPs    28.90 M
        kept for backward         220.5 KiB
        peak, inference            1.75 MiB
        peak, forward + backward   3.49 MiB
        >>> plan.predicted.macs  # 2*56*56 pixels, 64 channels: 9 taps predicted for all, 9 applied to each
        7225344.0

    Source: ours; the counting is PyTorch's.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype must be a torch.dtype or None, got {dtype!r}")
    module = getattr(module, "_orig_mod", module)  # what torch.compile was given
    shapes = _parse(input_shape)
    _check_initialised(module)
    tensors = [*module.parameters(), *module.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    if measure and device.type == "meta":
        raise ValueError("measure=True needs a module with memory, got one on the meta device; see nn.Module.to_empty")
    if dtype is None:
        dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())

    with _undisturbed(device):
        layers, predicted = _predict(module, shapes, dtype, device)
        measured = _measure(module, shapes, dtype, device) if measure else None
    parameters = list(module.parameters())
    return Plan(
        kind=type(module).__name__,
        training=module.training,
        input_shapes=shapes,
        dtype=dtype,
        layers=layers,
        parameters=sum(parameter.numel() for parameter in parameters),
        parameter_bytes=sum(parameter.nbytes for parameter in parameters),
        input_bytes=sum(torch.Size(shape).numel() for shape in shapes) * dtype.itemsize,
        predicted=predicted,
        measured=measured,
    )


def _parse(input_shape: Any) -> tuple[Shape, ...]:
    """One shape or several as a tuple of shapes."""
    given = tuple(input_shape) if isinstance(input_shape, Sequence) else None
    shapes = given if given and all(isinstance(shape, Sequence) for shape in given) else (given,)
    for shape in shapes:
        if shape is None or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise ValueError(
                "input_shape must be a shape, as in (8, 3, 224, 224), or for several inputs a tuple of shapes, got "
                f"{input_shape!r}"
            )
    return tuple(tuple(shape) for shape in shapes)


def _check_initialised(module: nn.Module) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ValueError(f"{name} must have a shape, got a lazy one; run the module once on real input first")


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Gradients on, whatever the caller has, and random numbers as if nothing had run."""
    state = random.getstate()
    devices = [] if device.type in ("cpu", "meta") else [device]
    kind = device.type if devices else "cuda"
    with (
        torch.random.fork_rng(devices, device_type=kind),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        try:
            yield
        finally:
            random.setstate(state)


# --- two copies of a module: one without memory, one that shares the parameters -----------------------------------


def _copied(module: nn.Module, stand_in: Callable[[Tensor], Tensor]) -> tuple[nn.Module, list[Tensor]]:
    """The module with all but its tensors copied, and what stands in for them.

    Not `torch.func.functional_call`, which would have the module itself run: what a forward pass writes to attributes
    would stay.
    """
    memo: dict[int, Any] = {}
    for each in module.modules():
        # An old-style weight_norm, like pruning, leaves its result as an attribute, which deepcopy refuses to copy.
        for tensor in (*each._parameters.values(), *each._buffers.values(), *vars(each).values()):
            if isinstance(tensor, Tensor) and id(tensor) not in memo:
                memo[id(tensor)] = stand_in(tensor)
    tensors = list(memo.values())
    try:
        return copy.deepcopy(module, memo), tensors
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise TypeError(
            f"module must be one that copy.deepcopy can copy, for the copy is what is planned; {type(module).__name__} "
            f"is not: {error}"
        ) from error


def _like(original: Tensor, tensor: Tensor) -> Tensor:
    return nn.Parameter(tensor, original.requires_grad) if isinstance(original, nn.Parameter) else tensor


def _without_memory(fake: FakeTensorMode, tensor: Tensor) -> Tensor:
    """One on the meta device stands in as on the CPU, where what the module makes without a device will be."""
    device = torch.device("cpu") if tensor.is_meta else tensor.device
    with fake:
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
        return _like(tensor, empty)


def _with_shared_parameters(tensor: Tensor) -> Tensor:
    """A parameter's own memory but not its gradient; of anything else, which a forward pass may change, a copy."""
    return _like(tensor, tensor.detach() if isinstance(tensor, nn.Parameter) else tensor.detach().clone())


# --- watching a pass ----------------------------------------------------------------------------------------------


def _storages(tensors: Sequence[Tensor]) -> set[int]:
    return {tensor.untyped_storage()._cdata for tensor in tensors}


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


class _Live(TorchDispatchMode):
    """Bytes of what operators have made and nobody has let go of: now, and at most.

    Args:
        outside: storages that do not count.
    """

    def __init__(self, outside: set[int]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._outside = outside
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in self._outside or key in self._alive:
                continue
            self._alive[key] = weakref.ref(storage, functools.partial(self._freed, key, size))
            self.now += size
            self.peak = max(self.peak, self.now)
        return result

    def _freed(self, key: int, size: int, _: Any) -> None:
        del self._alive[key]
        self.now -= size


@dataclass(eq=False)
class _Call:
    """A module's call while it is watched; see `LayerPlan`."""

    module: nn.Module
    name: str
    inputs: tuple[Shape, ...]
    parameters: int
    outputs: tuple[Shape, ...] = ()
    flops: int = 0
    output_bytes: int = 0
    kept_bytes: int = 0

    def is_shown(self) -> bool:
        """Whether it is a layer's, or does something besides calling layers."""
        passes_on = isinstance(self.module, (nn.Identity, nn.Sequential)) or any(self.module.children())
        return not passes_on or bool(self.flops or self.kept_bytes or self.parameters)

    def plan(self) -> LayerPlan:
        return LayerPlan(
            name=self.name,
            kind=type(self.module).__name__,
            inputs=self.inputs,
            outputs=self.outputs,
            parameters=self.parameters,
            flops=self.flops,
            output_bytes=self.output_bytes,
            kept_bytes=self.kept_bytes,
        )


class _Kept:
    """A tensor as autograd keeps it: it goes when its node goes."""

    __slots__ = ("__weakref__", "call", "tensor")

    def __init__(self, tensor: Tensor, call: _Call) -> None:
        self.tensor, self.call = tensor, call


class _NoTracker(ModuleTracker):
    """FLOPs in all are enough, and what tells them apart by module holds the graph, and with it what that keeps."""

    def __enter__(self) -> _NoTracker:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


class _Watch:
    """Follows a pass through a module: whose turn it is, what is computed and what is kept.

    Args:
        module: which is called; a copy of the user's, for it gets hooks.
        outside: storages that do not count as kept.
    """

    def __init__(self, module: nn.Module, outside: set[int]) -> None:
        self.calls: list[_Call] = []  # that have ended
        self.open: list[_Call] = []
        self.counter = FlopCounterMode(display=False)
        self.counter.mod_tracker = _NoTracker()
        self._module, self._outside = module, outside
        self._names = {each: name or "(root)" for name, each in module.named_modules()}
        self._times: dict[nn.Module, int] = {}
        self._met: set[nn.Parameter] = set()
        self._attributed = 0
        self._kept: list[weakref.ref[_Kept]] = []

    def train(self, inputs: Sequence[Tensor]) -> Totals:
        """A forward and a backward pass. The peaks, which need other means, are 0."""
        with self.counter:
            output = self._forward(inputs)
            flops = self.counter.get_total_flops()
            self._attribute_kept()
            _backward(output)
        return Totals(
            flops=flops,
            training_flops=self.counter.get_total_flops(),
            kept_bytes=sum(call.kept_bytes for call in self.calls),
            peak_bytes=0,
            training_peak_bytes=0,
        )

    def _forward(self, inputs: Sequence[Tensor]) -> Any:
        hooks = []
        for each in self._names:
            hooks.append(each.register_forward_pre_hook(self._enter, prepend=True, with_kwargs=True))
            hooks.append(each.register_forward_hook(self._leave))
        with saved_tensors_hooks(self._keep, lambda kept: kept.tensor):
            output = self._module(*inputs)
        # Before the backward pass, in which checkpointing calls layers again.
        for hook in hooks:
            hook.remove()
        return output

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._attribute_flops()
        times = self._times[module] = self._times.get(module, 0) + 1
        own = {parameter for parameter in module._parameters.values() if parameter is not None} - self._met
        self._met |= own
        self.open.append(
            _Call(
                module=module,
                name=self._names[module] + (f"#{times}" if times > 1 else ""),
                inputs=tuple(tuple(tensor.shape) for tensor in _tensors((args, kwargs))),
                parameters=sum(parameter.numel() for parameter in own),
            )
        )

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._attribute_flops()
        call = self.open.pop()
        tensors = _tensors(output)
        call.outputs = tuple(tuple(tensor.shape) for tensor in tensors)
        call.output_bytes = sum(tensor.nbytes for tensor in tensors)
        self.calls.append(call)

    def _attribute_flops(self) -> None:
        """What was counted since the last change of turns is the current call's."""
        total = self.counter.get_total_flops()
        if self.open:
            self.open[-1].flops += total - self._attributed
        self._attributed = total

    def _keep(self, tensor: Tensor) -> _Kept:
        # Detached, for a result that is kept with its node would keep that node: a cycle that nothing collects.
        kept = _Kept(tensor.detach(), self.open[-1])
        self._kept.append(weakref.ref(kept))
        return kept

    def _attribute_kept(self) -> None:
        seen = set(self._outside)
        for kept in (reference() for reference in self._kept):
            if kept is None:
                continue
            storage = kept.tensor.untyped_storage()
            if storage._cdata not in seen:
                seen.add(storage._cdata)
                kept.call.kept_bytes += storage.nbytes()


def _backward(output: Any) -> None:
    """From every output; nothing where none depends on a parameter."""
    outputs = [tensor for tensor in _tensors(output) if tensor.requires_grad]
    if outputs:
        torch.autograd.backward(outputs, [torch.ones_like(tensor) for tensor in outputs])


# --- predicted and measured ---------------------------------------------------------------------------------------


def _predict(
    module: nn.Module, shapes: tuple[Shape, ...], dtype: torch.dtype, device: torch.device
) -> tuple[tuple[LayerPlan, ...], Totals]:
    # What a module makes of numbers, or holds where nobody looks, may be real.
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        place = torch.device("cpu") if device.type == "meta" else device
        inputs = [torch.empty(shape, dtype=dtype, device=place) for shape in shapes]
    replica, tensors = _copied(module, functools.partial(_without_memory, fake))
    outside = _storages([*tensors, *inputs])
    watch = _Watch(replica, outside)
    with fake:
        try:
            with _Live(outside) as training:
                totals = watch.train(inputs)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if not watch.open:  # it comes from the backward pass, and the shapes are right
                raise
            raise _refusal(error, watch.open[-1], shapes) from error
        with _Live(outside) as inference, torch.no_grad():
            replica(*inputs)
    layers = tuple(call.plan() for call in watch.calls if call.is_shown())
    return layers, dataclasses.replace(totals, peak_bytes=inference.peak, training_peak_bytes=training.peak)


def _refusal(error: Exception, call: _Call, shapes: tuple[Shape, ...]) -> ValueError:
    """The error with the name of the layer that it comes from."""
    layer = f"{call.name} ({type(call.module).__name__})"
    if isinstance(error, (DataDependentOutputException, DynamicOutputShapeException)):
        return ValueError(
            f"{layer} decides by the values of a tensor, by {error.func}, and a prediction has none; plan the layers "
            "before and after it"
        )
    return ValueError(
        f"{layer} does not take {_shapes(call.inputs)}, which it gets for input_shape {_shapes(shapes)}: {error}"
    )


def _measure(module: nn.Module, shapes: tuple[Shape, ...], dtype: torch.dtype, device: torch.device) -> Totals:
    replica, tensors = _copied(module, _with_shared_parameters)
    make = torch.randn if dtype.is_floating_point or dtype.is_complex else torch.zeros
    inputs = [make(shape, dtype=dtype, device=device) for shape in shapes]

    @torch.no_grad()
    def infer() -> None:
        replica(*inputs)

    def train() -> None:
        _backward(replica(*inputs))

    def train_anew() -> None:
        replica.zero_grad()
        train()

    totals = _Watch(replica, _storages([*tensors, *inputs])).train(inputs)
    peak = _allocator_peak(infer, device)
    replica.zero_grad()
    training_peak = _allocator_peak(train, device)
    return dataclasses.replace(
        totals,
        peak_bytes=peak,
        training_peak_bytes=training_peak,
        seconds=_seconds(infer),
        training_seconds=_seconds(train_anew),
    )


def _allocator_peak(run: Callable[[], None], device: torch.device) -> int:
    """The most that PyTorch's allocator handed out at once during a run."""
    if device.type != "cpu":
        torch.accelerator.reset_peak_memory_stats(device)
        before = torch.accelerator.memory_allocated(device)
        run()
        return torch.accelerator.max_memory_allocated(device) - before
    # The CPU's allocator keeps no statistics, but reports to the profiler.
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events: Any = profile.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(itertools.accumulate((change for _, change in changes), initial=0))


def _seconds(run: Callable[[], None]) -> float:
    """Of one run, the mean of a few."""
    from torch.utils.benchmark import Timer  # only where something is measured: it takes long to import

    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return timer.timeit(_TIMED_PASSES).mean
