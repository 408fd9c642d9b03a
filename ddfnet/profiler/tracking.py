"""Trackers of one pass through a module: FLOPs and saved tensors per layer, and the peak of live bytes."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from ddfnet.profiler.results import LayerEstimate, TensorShape, Totals


def storages(tensors: Sequence[Tensor]) -> set[int]:
    """Return the identities of the tensors' storages."""
    return {tensor.untyped_storage()._cdata for tensor in tensors}


def backward(output: Any) -> None:
    """Run the backward pass from every output that depends on a parameter."""
    outputs = [tensor for tensor in _tensors(output) if tensor.requires_grad]
    if outputs:
        torch.autograd.backward(outputs, [torch.ones_like(tensor) for tensor in outputs])


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


class LiveBytes(TorchDispatchMode):
    """Bytes of the results of operators that are still referenced: ``now``, and the ``peak``.

    Args:
        excluded: storages that do not count.
    """

    def __init__(self, excluded: set[int]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._excluded = excluded
        self._alive: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in self._excluded or key in self._alive:
                continue
            self._alive[key] = weakref.ref(storage, functools.partial(self._release, key, size))
            self.now += size
            self.peak = max(self.peak, self.now)
        return result

    def _release(self, key: int, size: int, _: Any) -> None:
        del self._alive[key]
        self.now -= size


@dataclass(eq=False)
class TrackedCall:
    """A module's call during a pass; `LayerEstimate` explains the fields."""

    module: nn.Module
    name: str
    inputs: tuple[TensorShape, ...]
    parameters: int
    outputs: tuple[TensorShape, ...] = ()
    flops: int = 0
    output_bytes: int = 0
    saved_bytes: int = 0

    def is_shown(self) -> bool:
        """Return True for a layer, and for a module that does something besides calling layers."""
        is_container = isinstance(self.module, (nn.Identity, nn.Sequential)) or any(self.module.children())
        return not is_container or bool(self.flops or self.saved_bytes or self.parameters)

    def estimate(self) -> LayerEstimate:
        """Return the call's row of an `Estimate`."""
        return LayerEstimate(
            name=self.name,
            kind=type(self.module).__name__,
            inputs=self.inputs,
            outputs=self.outputs,
            parameters=self.parameters,
            flops=self.flops,
            output_bytes=self.output_bytes,
            saved_bytes=self.saved_bytes,
        )


class _Saved:
    """Tensor that autograd saves; it is freed with its node."""

    __slots__ = ("__weakref__", "call", "tensor")

    def __init__(self, tensor: Tensor, call: TrackedCall) -> None:
        self.tensor, self.call = tensor, call


class _NoTracker(ModuleTracker):
    """Tracker that does nothing: the real one holds the graph, and with it every saved tensor."""

    def __enter__(self) -> _NoTracker:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


class PassTracker:
    """Tracker of one training pass: the FLOPs and the saved tensors of each call of a layer.

    Args:
        module: module to call; a copy of the user's, because it gets hooks.
        excluded: storages that do not count as saved.
    """

    def __init__(self, module: nn.Module, excluded: set[int]) -> None:
        self.calls: list[TrackedCall] = []  # those that have ended
        self.open: list[TrackedCall] = []
        self._counter = FlopCounterMode(display=False)
        self._counter.mod_tracker = _NoTracker()
        self._module, self._excluded = module, excluded
        self._names = {each: name or "(root)" for name, each in module.named_modules()}
        self._times: dict[nn.Module, int] = {}
        self._seen_parameters: set[nn.Parameter] = set()
        self._attributed_flops = 0
        self._saved: list[weakref.ref[_Saved]] = []

    def train(self, inputs: Sequence[Tensor]) -> Totals:
        """Run a forward and a backward pass. The peaks are 0, because `LiveBytes` finds them."""
        with self._counter:
            output = self._forward(inputs)
            flops = self._counter.get_total_flops()
            self._attribute_saved()
            backward(output)
        return Totals(
            flops=flops,
            training_flops=self._counter.get_total_flops(),
            saved_bytes=sum(call.saved_bytes for call in self.calls),
            peak_bytes=0,
            training_peak_bytes=0,
        )

    def _forward(self, inputs: Sequence[Tensor]) -> Any:
        hooks = []
        for each in self._names:
            hooks.append(each.register_forward_pre_hook(self._enter, prepend=True, with_kwargs=True))
            hooks.append(each.register_forward_hook(self._exit))
        with saved_tensors_hooks(self._save, lambda saved: saved.tensor):
            output = self._module(*inputs)
        # Remove them before the backward pass, in which checkpointing calls layers again.
        for hook in hooks:
            hook.remove()
        return output

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._attribute_flops()
        times = self._times[module] = self._times.get(module, 0) + 1
        own = {parameter for parameter in module._parameters.values() if parameter is not None}
        new = own - self._seen_parameters
        self._seen_parameters |= new
        self.open.append(
            TrackedCall(
                module=module,
                name=self._names[module] + (f"#{times}" if times > 1 else ""),
                inputs=tuple(tuple(tensor.shape) for tensor in _tensors((args, kwargs))),
                parameters=sum(parameter.numel() for parameter in new),
            )
        )

    def _exit(self, module: nn.Module, args: Any, output: Any) -> None:
        self._attribute_flops()
        call = self.open.pop()
        tensors = _tensors(output)
        call.outputs = tuple(tuple(tensor.shape) for tensor in tensors)
        call.output_bytes = sum(tensor.nbytes for tensor in tensors)
        self.calls.append(call)

    def _attribute_flops(self) -> None:
        """Add the FLOPs since the last enter or exit to the current call."""
        total = self._counter.get_total_flops()
        if self.open:
            self.open[-1].flops += total - self._attributed_flops
        self._attributed_flops = total

    def _save(self, tensor: Tensor) -> _Saved:
        # Detached: a result that is saved with its node would keep that node alive, a cycle that nothing collects.
        saved = _Saved(tensor.detach(), self.open[-1])
        self._saved.append(weakref.ref(saved))
        return saved

    def _attribute_saved(self) -> None:
        """Add the bytes of each saved storage to the call that saved it first."""
        seen = set(self._excluded)
        for saved in (reference() for reference in self._saved):
            if saved is None:
                continue
            storage = saved.tensor.untyped_storage()
            if storage._cdata not in seen:
                seen.add(storage._cdata)
                saved.call.saved_bytes += storage.nbytes()
