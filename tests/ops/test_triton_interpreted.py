"""GPU kernels, interpreted: widths of indices and sizes of tiles, which other kernels do not have."""

from __future__ import annotations

import pytest
import torch

import ddfnet
from ddfnet.ops.triton import config, launcher


@pytest.mark.parametrize("is_large", [False, True], ids=["32 bits", "64 bits"])
def test_indices_do_not_overflow(is_large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the interpreter's check of every sum and product of indices, in both widths."""
    from triton.runtime import interpreter

    monkeypatch.setattr(interpreter.interpreter_builder, "options", interpreter.InterpreterOptions())
    if is_large:
        monkeypatch.setattr(launcher, "_INT32_MAX", 0)
    tensors = torch.randn(1, 3, 4, 5), torch.randn(1, 3, 3, 3), torch.randn(1, 9, 2, 3)
    leaves = [tensor.requires_grad_() for tensor in tensors]
    results = {}
    for backend in ("reference", "triton"):
        with ddfnet.ops.backend(backend):
            output = ddfnet.ddf(*leaves, stride=2)
            results[backend] = [output, *torch.autograd.grad(output.square().sum(), leaves)]
    for got, expected in zip(results["triton"], results["reference"], strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["planar", "last"])
def test_results_do_not_depend_on_tiles(memory_format: torch.memory_format) -> None:
    """Tiles of several sizes, some of which reach over every border, and partial sums that are added up."""
    shapes = (1, 5, 5, 6), (1, 5, 3, 3), (1, 9, 5, 6)
    input, channel, spatial = (torch.randn(shape) for shape in shapes)
    leaves = [t.contiguous(memory_format=memory_format).requires_grad_() for t in (input, channel, spatial)]

    def results() -> list[torch.Tensor]:
        output = ddfnet.ddf(*leaves)
        return [output, *torch.autograd.grad(output.square().sum(), leaves)]

    with ddfnet.ops.backend("reference"):
        expected = results()
    tiles = [
        {"fwd": config.Tile(2, 4, 2, 1, 1, True, False), "bwd_input": config.Tile(4, 2, 4, 4, 1, True, True)},
        {"fwd": config.Tile(8, 2, 3, 3, 1, True, False), "bwd_input": config.Tile(2, 8, 1, 1, 1, False, False)},
        {"bwd_filters": config.FilterTile(2, 2, 3, 2, 3)},
        {"bwd_filters": config.FilterTile(1, 4, 2, 4, 1)},
        {"bwd_filters": config.PlanarTile(2, 2, 3, 2, 3)},
        {"bwd_filters": config.PlanarTile(4, 4, 2, 1, 1)},
        {"bwd_filters": config.PlanarTile(8, 1, 32, 8, 3)},  # from a table that was made on a larger map
    ]

    class Table(dict):
        def get(self, key: str, default: object = None) -> object:
            return next(
                (config.LaunchConfig(tile, 1) for kernel, tile in self.items() if f" {kernel} " in key), default
            )

    for table in tiles:
        with ddfnet.ops.backend("triton"), config.use_table(Table(table)):
            for got, wanted in zip(results(), expected, strict=True):
                torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("row", range(7))
def test_an_infinite_pixel_spreads_as_in_the_reference(row: int) -> None:
    """Also from rows that two tiles of the planar kernel read, of which only one may use them."""
    input = torch.randn(1, 2, 7, 5)
    input[0, 1, row, 2] = torch.inf
    leaves = [t.requires_grad_() for t in (input, torch.randn(1, 2, 3, 3), torch.randn(1, 9, 7, 5))]
    weights = torch.rand(1, 2, 7, 5) + 0.1

    def gradients(backend: str) -> list[torch.Tensor]:
        tile = config.PlanarTile(8, 2, 4, 1, 3)

        class Table(dict):
            def get(self, key: str, default: object = None) -> object:
                return config.LaunchConfig(tile, 1) if " bwd_filters " in key else default

        with ddfnet.ops.backend(backend), config.use_table(Table()):
            return list(torch.autograd.grad(ddfnet.ddf(*leaves), leaves, weights))

    for got, expected in zip(gradients("triton"), gradients("reference"), strict=True):
        assert torch.equal(got.isnan(), expected.isnan())
        torch.testing.assert_close(got, expected, equal_nan=True)
