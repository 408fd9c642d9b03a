"""Groups of parameters for an optimizer, with what predicts filters apart from all others."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ddfnet.nn.branches import ChannelBranch, SpatialBranch


def param_groups(
    model: nn.Module,
    weight_decay: float,
    *,
    lr: float | None = None,
    filter_lr_scale: float = 1.0,
    filter_decay: float | None = None,
    decay_norm_and_bias: bool = False,
) -> list[dict[str, Any]]:
    r"""Group the parameters of a model for an optimizer: branches that predict filters, and all others.

    .. math::
        \eta_{\mathrm{filters}} = s\, \eta, \qquad \lambda_{\mathrm{filters}} = \mathrm{filter\_decay}

    for the learning rate :math:`\eta` and ``filter_lr_scale`` s. The static weight of a layer is none of its branches.

    Args:
        model: any model; each parameter is in one group, those that need no gradient too.
        weight_decay: decay of weights, from 0 on.
        lr: the learning rate, for PyTorch's optimizers and schedules: each group has its own ``lr``. None gives each
            its ``lr_scale``, for timm's schedules.
        filter_lr_scale: factor of the learning rate for the branches that predict filters, from 0 on.
        filter_decay: weight decay of these branches; None for ``weight_decay``.
        decay_norm_and_bias: decay parameters of one dimension too.

    Returns:
        One dict for each learning rate and decay that occurs: ``params``, ``weight_decay`` and ``lr`` or ``lr_scale``.

    Raises:
        ValueError: a number below 0.

    Example:
        >>> import torch
        >>> from ddfnet.nn import DDF2d, param_groups
        >>> groups = param_groups(DDF2d(8), 5e-4, lr=0.1, filter_lr_scale=0.5)
        >>> [(group["lr"], group["weight_decay"], len(group["params"])) for group in groups]
        [(0.05, 0.0005, 3), (0.05, 0.0, 4)]
        >>> optimizer = torch.optim.SGD(groups, momentum=0.9)

    Source: ours; ``lr_scale`` is timm's name.
    """
    numbers = {"weight_decay": weight_decay, "lr": lr, "filter_lr_scale": filter_lr_scale, "filter_decay": filter_decay}
    for name, value in numbers.items():
        if value is not None and not value >= 0:
            raise ValueError(f"{name} must be at least 0, got {value}")
    kinds = (SpatialBranch, ChannelBranch)
    branches = {p for module in model.modules() if isinstance(module, kinds) for p in module.parameters()}
    filter_options = filter_lr_scale, weight_decay if filter_decay is None else filter_decay
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for parameter in model.parameters():
        scale, decay = filter_options if parameter in branches else (1.0, weight_decay)
        decays = parameter.dim() > 1 or decay_norm_and_bias
        groups.setdefault((scale, decay if decays else 0.0), []).append(parameter)
    return [
        {"params": own, "weight_decay": decay} | ({"lr_scale": scale} if lr is None else {"lr": lr * scale})
        for (scale, decay), own in groups.items()
    ]
