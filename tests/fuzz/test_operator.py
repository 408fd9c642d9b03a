"""Random calls of the operator: right ones against the reference in float64, wrong ones end in one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ddfnet
from ddfnet.ops.geometry import DTYPES, Geometry
from tests.fuzzing import Cases
from tests.ops.cases import FORMATS, TOLERANCE, Case, kernel, kernels

Rng = np.random.Generator
KERNELS = [name for name in kernels() if name != "triton"]
NAMES = ("input", "channel_filter", "spatial_filter")
EXTREME = (2**20, 2**31 - 1, 2**31, 2**40, 2**57, 2**62, 2**63 - 1)
FEW, MANY = 2**20, 2**46  # values: between them a result may take gigabytes, above it no system has the memory


def choose(rng: Rng, values: Any) -> Any:
    return values[int(rng.integers(len(values)))]


def random_pair(rng: Rng, values: Any) -> tuple[int, int]:
    first = choose(rng, values)
    return (first, first) if rng.random() < 0.5 else (first, choose(rng, values))


def random_case(rng: Rng) -> Case:
    """Draw a call whose kernel fits into its map."""
    while True:
        heads = choose(rng, (1, 1, 2, 3))
        scale = random_pair(rng, (1, 2, 3)) if rng.random() < 0.3 else None
        far = rng.random() < 0.2
        sides = (1, 3, 5) if scale else (1, 2, 3, 3, 3, 4, 5, 7, 9)
        case = Case(
            id="drawn",
            batch=choose(rng, (0, 1, 1, 2, 3)),
            channels=heads * choose(rng, (1, 2, 3, 4, 5, 8, 16, 17, 33)),
            size=(int(rng.integers(1, 25)), int(rng.integers(1, 45))),
            kernel=random_pair(rng, sides),
            stride=(1, 1) if scale else random_pair(rng, (1, 2, 3, 5, 40) if far else (1, 1, 2, 3)),
            padding=None if scale or rng.random() < 0.5 else random_pair(rng, range(8)),
            dilation=random_pair(rng, (1, 7, 20, 45, 2**20) if far else (1, 1, 2, 3)),
            heads=heads,
            combine=choose(rng, ("mul", "add")),
            filters=choose(rng, ("both", "both", "spatial", "channel")),
            scale=scale,
        )
        if case.has_output:
            return case


def random_layout(rng: Rng, tensor: Tensor | None) -> Tensor | None:
    """Lay a tensor of four dimensions out in some format, dense or not."""
    if tensor is None or tensor.dim() != 4:
        return tensor
    tensor = tensor.contiguous(memory_format=choose(rng, list(FORMATS.values())))
    kind = choose(rng, ("dense", "dense", "dense", "sliced", "permuted"))
    if kind == "sliced":
        return torch.stack([tensor, tensor], -1)[..., 0]
    return tensor.transpose(0, 3).contiguous().transpose(0, 3) if kind == "permuted" else tensor


def check(name: str, got: Tensor, expected: Tensor, size: Tensor) -> None:
    """Check a result whose terms sum up to ``size`` where none is negative."""
    assert got.shape == expected.shape, name
    least = 1e-7 if got.dtype == torch.float16 else 0  # the subnormal halves
    wrong = (got.double() - expected).abs() > TOLERANCE[got.dtype] * size + least
    assert not wrong.any(), f"{name}: {got[wrong][0]} instead of {expected[wrong][0]}"


def test_right_calls_agree_with_the_reference(cases: Cases) -> None:
    for rng in cases:
        case, name, dtype = random_case(rng), choose(rng, KERNELS), choose(rng, DTYPES)
        torch.manual_seed(int(rng.integers(2**31)))
        tensors = [random_layout(rng, t) for t in case.tensors(dtype)]
        present = [t for t in tensors if t is not None]
        exact = [None if t is None else t.detach().double().requires_grad_() for t in tensors]
        sizes = [None if t is None else t.detach().double().abs().requires_grad_() for t in tensors]
        leaves = [None if t is None else t.requires_grad_() for t in tensors]
        with kernel("reference"):
            expected, size = case.call(*exact), case.call(*sizes)
            grad = random_layout(rng, torch.randn(expected.shape).to(dtype))
            expected_gradients = torch.autograd.grad(expected, [t for t in exact if t is not None], grad.double())
            gradient_sizes = torch.autograd.grad(size, [t for t in sizes if t is not None], grad.double().abs())
        with kernel(name):
            output = case.call(*leaves)
            gradients = torch.autograd.grad(output, present, grad)
        shown = f"{case} on {name} in {dtype}"
        check(f"output of {shown}", output.detach(), expected.detach(), size.detach())
        names = [n for n, t in zip(NAMES, tensors, strict=True) if t is not None]
        for n, *results in zip(names, gradients, expected_gradients, gradient_sizes, strict=True):
            check(f"gradient of {n} of {shown}", *results)


# --- wrong calls ------------------------------------------------------------------------------------------------------


def may_take_gigabytes(values: int) -> bool:
    return FEW < values < MANY


def ends_in_one_line(call: Callable[[], Any], errors: tuple[type[Exception], ...], shown: str) -> None:
    """Check that a call returns, or raises one of these errors with a line of text. Lack of memory is always one."""
    try:
        call()
    except Exception as error:
        text = str(error)
        lacks_memory = isinstance(error, RuntimeError) and "can't allocate memory" in text
        assert lacks_memory or isinstance(error, errors), f"{type(error)} from {shown}"
        assert text, shown
        assert "\n" not in text, f"{text!r} from {shown}"


def wrong_number(rng: Rng) -> Any:
    return choose(rng, (0, -1, 1, 2, 3, 7, 1.5, True, None, "3", (), (1,), (1, 2, 3), [2, 0], *EXTREME, -(2**62)))


def wrong_tensor(rng: Rng, tensor: Tensor | None) -> Any:
    if not isinstance(tensor, Tensor):
        return choose(rng, (None, 1.0, "x", torch.zeros(1, 1, 3, 3)))
    if tensor.is_nested or tensor.is_sparse or tensor.is_meta:
        return tensor
    kind = int(rng.integers(10))
    dim = int(rng.integers(max(tensor.dim(), 1)))
    if kind == 0:
        return tensor.to(choose(rng, (torch.int64, torch.complex64, torch.bool, torch.float16, torch.float64)))
    if kind == 1:
        return tensor[0] if len(tensor) else tensor
    if kind == 2:
        return tensor[None]
    if kind == 3:
        return tensor.narrow(dim, 0, tensor.shape[dim] // 2)
    if kind == 4:
        return torch.cat([tensor, tensor], dim)
    if kind == 5:
        return tensor.to("meta")
    if kind == 6:
        return tensor.to_sparse()
    if kind == 7 and len(tensor):
        return torch.nested.nested_tensor(list(tensor.unbind()), layout=choose(rng, (torch.strided, torch.jagged)))
    if kind == 8:
        return tensor.tolist()
    return None


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_wrong_calls_end_in_one_line(cases: Cases, capfd: pytest.CaptureFixture) -> None:
    for rng in cases:
        case = random_case(rng)
        torch.manual_seed(int(rng.integers(2**31)))
        tensors: list[Any] = case.tensors(torch.float32)
        options: dict[str, Any] = {"dilation": case.dilation, "combine": case.combine, "kernel_size": case.kernel}
        if case.scale is None:
            options |= {"stride": case.stride, "padding": case.padding}
        else:
            options |= {"scale_factor": case.scale}
        for _ in range(int(rng.integers(1, 3))):
            if rng.random() < 0.5:
                index = int(rng.integers(3))
                tensors[index] = wrong_tensor(rng, tensors[index])
            else:
                option = choose(rng, list(options))
                options[option] = wrong_number(rng)
        if may_take_gigabytes(output_values(tensors, options)):
            continue
        function = ddfnet.ddf if case.scale is None else ddfnet.ddf_upsample
        shown = f"{function.__name__} of {list(map(describe, tensors))} with {options}"
        with kernel(choose(rng, KERNELS)):
            ends_in_one_line(
                lambda: function(*tensors, **options),  # noqa: B023
                (ValueError, TypeError, NotImplementedError),
                shown,
            )
    assert "frame #" not in capfd.readouterr().err


def output_values(tensors: list[Any], options: dict[str, Any]) -> int:
    """Return about how many values a result would have, more rather than less; 0 where there is none."""
    input, channel, _ = tensors
    if not isinstance(input, Tensor) or input.is_nested or input.dim() != 4:
        return 0

    def largest(name: str, default: int) -> int:
        value = options.get(name)
        values = value if isinstance(value, tuple | list) else (value,)
        return max([int(v) for v in values if isinstance(v, int)], default=default)

    padding = largest("padding", 0)
    kernel = (
        max(channel.shape[-2:])
        if isinstance(channel, Tensor) and not channel.is_nested and channel.dim() > 1
        else largest("kernel_size", 1)
    )
    if options.get("padding") is None:
        padding = largest("dilation", 1) * kernel // 2
        return input.numel() * max(largest("scale_factor", 1), 1) ** 2 if padding < 2**31 else 0
    grid = math.prod(n + 2 * padding for n in input.shape[2:])
    return input.shape[0] * input.shape[1] * grid


def describe(tensor: Any) -> str:
    if not isinstance(tensor, Tensor) or tensor.is_nested:  # torch refuses its shape with an internal error
        return f"a {type(tensor).__name__}"
    return f"{tuple(tensor.shape)} {tensor.dtype} {tensor.device.type}"


def random_size(rng: Rng) -> int:
    return choose(rng, (0, 1, 1, 2, 3, 3, 8, 9)) if rng.random() < 0.8 else choose(rng, EXTREME)


def random_expanded(rng: Rng, shape: tuple[int, ...]) -> Tensor | None:
    """Return a tensor whose sizes cost no memory; None where torch refuses them."""
    try:
        return torch.ones((1,) * len(shape), dtype=choose(rng, DTYPES)).expand(shape)
    except (RuntimeError, OverflowError):
        return None


def test_wrong_direct_calls_end_in_one_line(cases: Cases, capfd: pytest.CaptureFixture) -> None:
    """Below the public function, whose checks no exported program has: sizes whose products leave 64 bits."""
    for rng in cases:
        pairs = [[random_size(rng) for _ in range(choose(rng, (2, 2, 2, 2, 2, 2, 2, 1, 3)))] for _ in range(5)]
        combine = choose(rng, ("mul", "add", "", "max"))
        n, c, h, w = (random_size(rng) for _ in range(4))
        (ky, kx), (sy, sx), (py, px), (dy, dx), (uy, ux) = ((pair * 2)[:2] for pair in pairs)
        positions = [
            max((size + 2 * p - d * (k - 1) - 1) // max(s, 1) + 1, 0)
            for size, k, s, p, d in ((h, ky, sy, py, dy), (w, kx, sx, px, dx))
        ]
        shapes = [(n, c, h, w), (n, uy * ux * c, ky, kx), (n, uy * ux * ky * kx, *positions)]
        shapes = [tuple(min(size, 2**63 - 1) for size in shape) for shape in shapes]
        if rng.random() < 0.3:
            shapes[int(rng.integers(3))] = tuple(random_size(rng) for _ in range(choose(rng, (3, 4, 4, 5))))
        tensors = [random_expanded(rng, shape) for shape in shapes]
        if rng.random() < 0.7:
            tensors = [None if t is None else t.float() if t.numel() < 9**6 else t for t in tensors]
        if tensors[0] is None:
            continue
        if rng.random() < 0.3:
            tensors[int(rng.integers(1, 3))] = None
        output = (n, c, positions[0] * uy, positions[1] * ux)
        results = [math.prod(output), *(t.numel() for t in tensors if t is not None)]
        if any(map(may_take_gigabytes, results)):
            continue
        grad = random_expanded(rng, tuple(min(size, 2**63 - 1) for size in output))
        shown = f"{[None if t is None else (tuple(t.shape), t.dtype) for t in tensors]} with {pairs} and {combine!r}"
        errors = (ValueError, TypeError, NotImplementedError, RuntimeError)
        with kernel(choose(rng, KERNELS)):
            ends_in_one_line(lambda: torch.ops.ddfnet.ddf(*tensors, *pairs, combine), errors, shown)  # noqa: B023
            if grad is not None:
                ends_in_one_line(
                    lambda: torch.ops.ddfnet.ddf_backward(grad, *tensors, *pairs, combine, [True] * 3),  # noqa: B023
                    errors,
                    shown,
                )
    assert "frame #" not in capfd.readouterr().err


def test_the_fuzzer_draws_what_it_should() -> None:
    """Geometry that the kernels serve by loops of their own, and calls that are right."""
    drawn = [random_case(np.random.default_rng(i)) for i in range(300)]
    assert {case.combine for case in drawn} == {"mul", "add"}
    assert any(case.scale for case in drawn)
    assert any(max(case.dilation) > 1000 for case in drawn)
    assert any(case.batch == 0 for case in drawn)
    assert all(isinstance(case.geometry, Geometry) for case in drawn)
