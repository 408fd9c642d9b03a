"""Sharding of the weights over processes by torch's FSDP."""

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


class FullyShardedStrategy(DDPStrategy):
    """Lightning's DDP strategy with sharded weights, gradients and optimizer state.

    The weights of a block are gathered when it computes, forward and backward. Parameters keep their names and shapes,
    and checkpoints hold full tensors: a run may be resumed with more or fewer processes, sharded or not. Lightning's
    own ModelParallelStrategy has no gradient scaling for float16, and its FSDPStrategy neither clips by norm nor runs
    on the CPU.

    Source: Zhao et al., PyTorch FSDP, VLDB 2023; it is ``torch.distributed.fsdp.fully_shard``.
    """

    def configure_ddp(self) -> None:
        """Shard the network, where DDP would wrap it."""
        model = self.lightning_module
        assert model is not None
        self.shard(model)
        # Lightning makes the processes' tensors equal before it evaluates, but shards differ.
        names = [name for name, _ in model.named_parameters()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, names)

    def shard(self, model: Any) -> None:
        """Shard ``model.network`` in-place: each block by itself, and then the rest."""
        network: nn.Module = model.network
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # the only one that can be sharded
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for module in [*_blocks(network), network]:
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
        for method in getattr(model, "forward_methods", ()):
            register_fsdp_forward_method(network, method)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = full_tensors(super().lightning_module_state_dict())
        return state

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        state: dict[str, Any] = full_tensors(super().optimizer_state(optimizer))
        return state

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        super().load_optimizer_state_dict(checkpoint)
        for optimizer in self.optimizers:
            for parameter, state in optimizer.state.items():
                state |= {name: _shard_like(value, parameter) for name, value in state.items()}

    def teardown(self) -> None:
        """Leave the shards in place; DDP would move the network to the CPU and unwrap it."""
        assert self.cluster_environment is not None and self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()


def full_tensors(tree: Any) -> Any:
    """Replace the sharded tensors of a tree by full ones on the CPU; every process must call this."""
    return tree_map_only(DTensor, lambda value: value.full_tensor().cpu(), tree)


def local_tensor(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor, or the tensor itself where it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _blocks(network: nn.Module) -> list[nn.Module]:
    """Return the composite modules within sequential containers, inner ones first."""
    sequences = (module for module in network.modules() if isinstance(module, nn.Sequential))
    blocks = (each for sequence in sequences for each in sequence if any(True for _ in each.children()))
    return list(dict.fromkeys(blocks))[::-1]


def _shard_like(value: Any, parameter: Tensor) -> Any:
    """Return this process's shard of an optimizer's state, if the state has the shape of its sharded parameter."""
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value
