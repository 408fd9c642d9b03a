"""Networks for the tests of guided upsampling: small, never trained, and with filters as sharp as a trained one's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

import ddfnet
from ddfnet.depth.network import GuidedUpsampler


def network(scale_factor: int = 4, *, sharp: float = 20.0, seed: int = 0, **options: Any) -> GuidedUpsampler:
    """Return a network in which every path counts: no layer starts at zero, and the carrying filters choose.

    As they are initialised the carrying filters are all but bilinear, and no test would see what they read.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        made = GuidedUpsampler(scale_factor, **{"channels": 8, "guide_channels": 8, **options})
        for stage in made.stages:
            if stage.logits is not None:
                stage.logits.weight.mul_(sharp)
            if stage.correction is not None:
                torch.nn.init.normal_(stage.correction.weight, std=0.1)
        for head in made.heads or ():
            torch.nn.init.normal_(head.weight, std=0.1)
    return made.eval()


def check_threads(call: Callable[[], torch.Tensor]) -> None:
    """Check that the result of a call does not depend on the number of threads.

    On some CPUs torch's own convolutions round otherwise when they share out their work. With them the result is the
    same up to that; with them on one thread it is the same to the bit, for that much is ours.
    """
    before, forward = torch.get_num_threads(), torch.nn.Conv2d._conv_forward

    def alone(self: torch.nn.Conv2d, *tensors: Any) -> torch.Tensor:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        result = forward(self, *tensors)
        torch.set_num_threads(threads)
        return result

    def results() -> list[torch.Tensor]:
        found = []
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(call())
        return found

    try:
        with mock.patch.object(torch.nn.Conv2d, "_conv_forward", alone):
            one, two = results()
            assert torch.equal(one.view(torch.int32), two.view(torch.int32))
        torch.testing.assert_close(*results(), rtol=1e-5, atol=1e-5, equal_nan=True)
    finally:
        torch.set_num_threads(before)


def upsampling_call(size: tuple[int, int], ratio: int, tile: int) -> Callable[[], list[torch.Tensor]]:
    """Return a call of `upsample_depth` for `ddfnet.bench.memory`, after a small one like it."""
    model = network(ratio)
    depth, guide = (
        torch.rand(size) + 1,
        torch.randint(256, (size[0] * ratio, size[1] * ratio, 3), dtype=torch.uint8),
    )

    def call(rows: int = size[0]) -> list[torch.Tensor]:
        return [ddfnet.upsample_depth(depth[:rows], guide[: rows * ratio], model=model, tile=tile)]

    call(8)
    return call
