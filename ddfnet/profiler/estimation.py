"""Estimates of a module's cost, layer by layer, without running it: multiply-accumulates and bytes.

A prediction runs the module's own code on PyTorch's fake tensors, which have shapes and no memory, in a copy of the
module that shares no state with it. A measurement runs another copy for real. Both are tracked in the same way: FLOPs
by `torch.utils.flop_counter.FlopCounterMode`, saved tensors by ``saved_tensors_hooks``.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from ddfnet.profiler.results import Estimate, LayerEstimate, TensorShape, Totals, format_shapes
from ddfnet.profiler.tracking import LiveBytes, PassTracker, TrackedCall, backward, storages

_TIMED_PASSES = 3


def estimate(
    module: nn.Module,
    input_shape: Sequence[int] | Sequence[Sequence[int]],
    *,
    dtype: torch.dtype | None = None,
    measure: bool = False,
) -> Estimate:
    r"""Estimate the cost of a module on inputs of this shape, without arithmetic or memory for its maps.

    .. math::
        \mathrm{FLOPs} = \sum_{calls} \mathrm{FLOPs}(call), \qquad \mathrm{MACs} = \mathrm{FLOPs} / 2

    as `torch.utils.flop_counter.FlopCounterMode` counts them: convolutions, matrix products, attention, and the DDF
    with 3 FLOPs per tap for both filters and 2 for one. Operators that it does not count (normalisations, activations,
    sums) cost 0.

    The module stays in its mode, training or evaluation; in both modes the estimate has a pass with gradients and one
    without. Inputs need no gradient. A copy of the module without memory runs: the parameters, buffers, gradients and
    attributes of the module itself and the random number generators stay unchanged. Its hooks run in the copy, because
    many modules need them.

    Args:
        module: module on any device, including the meta device.
        input_shape: (N, C, H, W), or any shape that the module takes; for several inputs, a tuple of shapes.
        dtype: dtype of the inputs; None takes that of the module's first floating parameter, or PyTorch's default.
            Inputs that are not floating are zeros, so that they can be indices.
        measure: also run the module, in the same mode on its own device, on random inputs: about ten passes. On the CPU
            the measured peak is that of PyTorch's allocator, as its profiler sees it; elsewhere that of
            ``torch.accelerator``, which is reset. It includes the workspace of operators, which a prediction cannot
            know; the saved bytes include that of a fused recurrent layer.

    Returns:
        An `Estimate`, which prints as a table: a row for each call of a layer (except ``nn.Identity``) and for each
        module that computes or saves something itself, and totals. The FLOPs and the saved bytes of the rows add up to
        the totals.

    Raises:
        ValueError: ``input_shape`` is not a shape; a layer cannot take its input (the message names the layer), decides
            by the values of a tensor, or has not been initialised; ``measure`` on the meta device.
        TypeError: ``module`` is not a module, or ``dtype`` is not a dtype.

    Example:
        >>> from ddfnet.nn import DDF2d
        >>> from ddfnet.profiler import estimate
        >>> cost = estimate(DDF2d(64, filters="spatial", norm="none"), (2, 64, 56, 56))
        >>> print(cost)
        DDF2d on 2x64x56x56 float32, in training mode: 585 parameters (2.29 KiB), inputs 1.53 MiB
        <BLANKLINE>
        layer         type    shape                     parameters    MACs     output  saved for backward
        ------------  ------  ------------------------  ----------  ------  ---------  ------------------
        spatial.conv  Conv2d  2x64x56x56 -> 2x9x56x56          585  3.61 M  220.5 KiB                 0 B
        (root)        DDF2d   2x64x56x56 -> 2x64x56x56           0  3.61 M   1.53 MiB           220.5 KiB
        <BLANKLINE>
        total                     predicted
        ------------------------  ---------
        forward MACs                 7.23 M
        forward FLOPs               14.45 M
        forward + backward FLOPs    28.90 M
        saved for backward        220.5 KiB
        peak, inference            1.75 MiB
        peak, forward + backward   3.49 MiB
        >>> cost.predicted.macs  # 2*56*56 pixels, 64 channels: 9 taps are predicted for all, 9 applied to each
        7225344.0

    Source: ours; the counting is PyTorch's.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype must be a torch.dtype or None, got {dtype!r}")
    module = getattr(module, "_orig_mod", module)  # the argument of torch.compile
    shapes = _parse_shapes(input_shape)
    _check_initialised(module)
    tensors = [*module.parameters(), *module.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    if measure and device.type == "meta":
        raise ValueError("measure=True needs a module with memory, got one on the meta device; see nn.Module.to_empty")
    if dtype is None:
        dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())

    with _isolated(device):
        layers, predicted = _predict(module, shapes, dtype, device)
        measured = _measure(module, shapes, dtype, device) if measure else None
    parameters = list(module.parameters())
    return Estimate(
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


def _parse_shapes(input_shape: Any) -> tuple[TensorShape, ...]:
    """Return one shape or several as a tuple of shapes."""
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
def _isolated(device: torch.device) -> Iterator[None]:
    """Enable gradients whatever the caller's mode is, and restore all random number generators afterwards."""
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


def _replicate(module: nn.Module, replace: Callable[[Tensor], Tensor]) -> tuple[nn.Module, list[Tensor]]:
    """Copy a module with each tensor replaced, and return the copy and the new tensors.

    `torch.func.functional_call` would run the module itself, and attributes that a forward pass writes would stay.
    """
    memo: dict[int, Any] = {}
    for each in module.modules():
        # Old-style weight_norm and pruning store their result as an attribute, which deepcopy refuses to copy.
        for tensor in (*each._parameters.values(), *each._buffers.values(), *vars(each).values()):
            if isinstance(tensor, Tensor) and id(tensor) not in memo:
                memo[id(tensor)] = replace(tensor)
    tensors = list(memo.values())
    try:
        return copy.deepcopy(module, memo), tensors
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise TypeError(
            f"module must be one that copy.deepcopy can copy, because the copy runs; {type(module).__name__} is not: "
            f"{error}"
        ) from error


def _like(original: Tensor, tensor: Tensor) -> Tensor:
    return nn.Parameter(tensor, original.requires_grad) if isinstance(original, nn.Parameter) else tensor


def _without_memory(fake: FakeTensorMode, tensor: Tensor) -> Tensor:
    """Return a fake tensor; for the meta device on the CPU, where tensors that the module makes itself are."""
    device = torch.device("cpu") if tensor.is_meta else tensor.device
    with fake:
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
        return _like(tensor, empty)


def _with_shared_parameters(tensor: Tensor) -> Tensor:
    """Return a parameter with the same memory and no gradient; copy other tensors, which a forward pass may change."""
    return _like(tensor, tensor.detach() if isinstance(tensor, nn.Parameter) else tensor.detach().clone())


# --- prediction and measurement -----------------------------------------------------------------------------------


def _predict(
    module: nn.Module, shapes: tuple[TensorShape, ...], dtype: torch.dtype, device: torch.device
) -> tuple[tuple[LayerEstimate, ...], Totals]:
    # A module may make real tensors from numbers, and hold real tensors outside its parameters and attributes.
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        fake_device = torch.device("cpu") if device.type == "meta" else device
        inputs = [torch.empty(shape, dtype=dtype, device=fake_device) for shape in shapes]
    replica, tensors = _replicate(module, functools.partial(_without_memory, fake))
    excluded = storages([*tensors, *inputs])
    tracker = PassTracker(replica, excluded)
    with fake:
        try:
            with LiveBytes(excluded) as training:
                totals = tracker.train(inputs)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            if not tracker.open:  # the error comes from the backward pass, and the shapes are right
                raise
            raise _layer_error(error, tracker.open[-1], shapes) from error
        with LiveBytes(excluded) as inference, torch.no_grad():
            replica(*inputs)
    layers = tuple(call.estimate() for call in tracker.calls if call.is_shown())
    return layers, dataclasses.replace(totals, peak_bytes=inference.peak, training_peak_bytes=training.peak)


def _layer_error(error: Exception, call: TrackedCall, shapes: tuple[TensorShape, ...]) -> ValueError:
    """Add the name of the layer to an error that it raised."""
    layer = f"{call.name} ({type(call.module).__name__})"
    if isinstance(error, (DataDependentOutputException, DynamicOutputShapeException)):
        return ValueError(
            f"{layer} decides by the values of a tensor, by {error.func}, and a prediction has none; estimate the "
            "layers before and after it"
        )
    return ValueError(
        f"{layer} does not take {format_shapes(call.inputs)}, which it gets for input_shape {format_shapes(shapes)}: "
        f"{error}"
    )


def _measure(module: nn.Module, shapes: tuple[TensorShape, ...], dtype: torch.dtype, device: torch.device) -> Totals:
    replica, tensors = _replicate(module, _with_shared_parameters)
    make = torch.randn if dtype.is_floating_point or dtype.is_complex else torch.zeros
    inputs = [make(shape, dtype=dtype, device=device) for shape in shapes]

    @torch.no_grad()
    def infer() -> None:
        replica(*inputs)

    def train() -> None:
        backward(replica(*inputs))

    def train_from_zero_grad() -> None:
        replica.zero_grad()
        train()

    totals = PassTracker(replica, storages([*tensors, *inputs])).train(inputs)
    peak = _allocator_peak(infer, device)
    replica.zero_grad()
    training_peak = _allocator_peak(train, device)
    return dataclasses.replace(
        totals,
        peak_bytes=peak,
        training_peak_bytes=training_peak,
        seconds=_seconds(infer),
        training_seconds=_seconds(train_from_zero_grad),
    )


def _allocator_peak(run: Callable[[], None], device: torch.device) -> int:
    """Measure the largest size that PyTorch's allocator handed out at once during a run."""
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
    """Measure the mean time of a few runs."""
    from torch.utils.benchmark import Timer  # imported only to measure, because it takes long

    timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
    return timer.timeit(_TIMED_PASSES).mean
