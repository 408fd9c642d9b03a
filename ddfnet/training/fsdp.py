"""Training with weights that are shared out over the processes: torch's FSDP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map_only


class Sharded(DDPStrategy):
    """Lightning's DDP, but each process keeps its share of the weights, gradients and the optimizer's state alone.

    A block's weights are put together where it computes, forward and backward. Parameters keep their names and shapes,
    and so do those in checkpoints, which are a single process's: a run may go on in more processes or fewer, with
    shares or without. Of Lightning's own strategies ModelParallelStrategy knows no gradient scaling, which float16 asks
    for, and FSDPStrategy neither clipping by norm nor the CPU.

    Source: Zhao et al., PyTorch FSDP, VLDB 2023; it is ``torch.distributed.fsdp.fully_shard``.
    """

    def configure_ddp(self) -> None:
        """Share out the network, where DDP would wrap it."""
        model = self.lightning_module
        assert model is not None
        self.shard(model)
        # Lightning makes the processes' tensors the same before it evaluates: those that are shares are not.
        names = [name for name, _ in model.named_parameters()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)

    def shard(self, model: Any) -> None:
        """Share out ``model.network``, in place: each block by itself, and then the rest."""
        network: nn.Module = model.network
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # the one that can be cut
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for module in [*_blocks(network), network]:
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
        for method in getattr(model, "forward_methods", ()):
            register_fsdp_forward_method(network, method)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = whole(super().lightning_module_state_dict())
        return state

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        state: dict[str, Any] = whole(super().optimizer_state(optimizer))
        return state

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        super().load_optimizer_state_dict(checkpoint)
        for optimizer in self.optimizers:
            for parameter, state in optimizer.state.items():
                state |= {name: _share(value, parameter) for name, value in state.items()}

    def teardown(self) -> None:
        """Leave the shares where they are: DDP's way takes the network to the CPU, and apart."""
        assert self.cluster_environment is not None and self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()


def whole(tree: Any) -> Any:
    """The same with whole tensors, on the CPU, for those that are shared out; every process must ask."""
    return tree_map_only(DTensor, lambda value: value.full_tensor().cpu(), tree)


def local(tensor: Tensor) -> Tensor:
    """What this process has of a tensor: its share, or all of one that is not shared out."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _blocks(network: nn.Module) -> list[nn.Module]:
    """What networks are made of by the dozen: modules in sequences that are made of modules themselves; inner first."""
    sequences = (module for module in network.modules() if isinstance(module, nn.Sequential))
    blocks = (each for sequence in sequences for each in sequence if any(True for _ in each.children()))
    return list(dict.fromkeys(blocks))[::-1]


def _share(value: Any, parameter: Tensor) -> Any:
    """This process's part of what an optimizer keeps of a parameter, if that is as large as the parameter."""
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
