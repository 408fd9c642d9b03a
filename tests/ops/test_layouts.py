"""Memory: formats in and out, views, bytes outside views, unread pixels, empty batches, threads."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import subprocess
import sys

import pytest
import torch
from torch import Tensor

import ddfnet
from tests.ops.cases import FORMATS, Case, assert_close, kernel, kernels

KERNELS = pytest.mark.parametrize("name", kernels())
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16], ids=["float32", "float64", "bfloat16"]
)


def view_into_guards(tensor: Tensor, layout: str) -> tuple[Tensor, Tensor]:
    """Return the same values as a view into a larger tensor of NaN, and that tensor."""
    n, c, h, w = tensor.shape
    if layout == "channels_last":
        base = torch.full((n + 2, h + 4, w + 4, c + 3), float("nan"), dtype=tensor.dtype)
        view = base[1:-1, 2:-2, 2:-2, 1 : c + 1].permute(0, 3, 1, 2)
    else:
        base = torch.full((n + 2, c + 2, h + 4, 2 * w + 5), float("nan"), dtype=tensor.dtype)
        view = (
            base[1:-1, 1:-1, 2:-2, 3 : 3 + 2 * w : 2] if layout == "every_other" else base[1:-1, 1:-1, 2:-2, 3 : 3 + w]
        )
    view.copy_(tensor)
    return view, base


@pytest.mark.supports("views of any strides, nothing around them touched")
@KERNELS
@pytest.mark.parametrize("layout", ["sliced", "every_other", "channels_last"])
@pytest.mark.parametrize("channels", [5, 32])
def test_views_are_read_and_nothing_around_them(name: str, layout: str, channels: int) -> None:
    case = Case("3x3", channels=channels, size=(7, 19))
    tensors = case.tensors(torch.float32)
    leaves = [t.clone().requires_grad_() for t in tensors]
    with kernel(name):
        expected = case.call(*leaves)
        grad = torch.randn_like(expected)
        expected_gradients = torch.autograd.grad(expected, leaves, grad)
        views = [view_into_guards(t, layout)[0].requires_grad_() for t in tensors]
        got = case.call(*views)
        gradients = torch.autograd.grad(got, views, view_into_guards(grad, layout)[0])
    assert_close("output", got, expected.double(), torch.float32)
    for a, b in zip(gradients, expected_gradients, strict=True):
        assert_close("gradient", a, b.double(), torch.float32)


@pytest.mark.skipif(
    not any(n.startswith("cpu-") for n in kernels()), reason="the compiled kernel alone writes through views"
)
@pytest.mark.parametrize("isa", [n.partition("-")[2] for n in kernels() if n.startswith("cpu-")])
@pytest.mark.parametrize("layout", ["sliced", "every_other", "channels_last"])
@DTYPES
def test_kernels_write_their_view_and_nothing_around_it(isa: str, layout: str, dtype: torch.dtype) -> None:
    """Below the public function, which allocates its results: outputs that are views into guarded memory."""
    native = torch.ops.ddfnet
    for channels, combine in itertools.product((3, 32), ("mul", "add")):
        case = Case("3x3", channels=channels, size=(6, 19), combine=combine)
        x, channel, spatial = case.tensors(dtype)
        grad = torch.randn_like(x)
        results = [x, x, channel, spatial]
        views = [view_into_guards(torch.zeros_like(t), layout) for t in results]
        if layout == "channels_last":
            x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
        with kernel(f"cpu-{isa}"):
            native._ddf_out(views[0][0], x, channel, spatial, *case.geometry)
            native._ddf_backward_out(*(v for v, _ in views[1:]), grad, x, channel, spatial, *case.geometry)
        for view, base in views:
            assert not view.isnan().any()
            view.fill_(float("nan"))
            assert base.isnan().all()


@pytest.mark.supports("memory format kept")
@KERNELS
@pytest.mark.parametrize("scale", [None, (2, 2)], ids=["ddf", "ddf_upsample"])
def test_memory_format_of_the_input_is_that_of_the_output(name: str, scale: tuple[int, int] | None) -> None:
    with kernel(name):
        for memory_format in FORMATS:
            case = Case(memory_format, scale=scale)
            x, channel, spatial = case.tensors(torch.float32, memory_format)
            x.requires_grad_()
            out = case.call(x, channel, spatial)
            out.sum().backward()
            assert out.is_contiguous(memory_format=FORMATS[memory_format])
            assert x.grad.is_contiguous(memory_format=FORMATS[memory_format])
        sliced = torch.randn(2, 16, 9, 11).contiguous(memory_format=torch.channels_last)[:, ::2]
        assert ddfnet.ddf(sliced, torch.randn(2, 8, 3, 3), None).is_contiguous()
        one_channel = torch.randn(2, 1, 9, 11).contiguous(memory_format=torch.channels_last)
        assert ddfnet.ddf(one_channel, torch.randn(2, 1, 3, 3), None).is_contiguous()


@pytest.mark.supports("unread pixels never matter")
@KERNELS
@pytest.mark.parametrize("memory_format", FORMATS)
def test_pixels_that_no_tap_reads_never_matter(name: str, memory_format: str) -> None:
    # Stride 3 and kernel 2 leave every third row and column unread; without padding the last ones are too.
    case = Case("unread", kernel=(2, 2), stride=(3, 3), padding=(0, 0), size=(10, 12), channels=32)
    x, channel, spatial = case.tensors(torch.float32, memory_format)
    unread = torch.ones(10, 12, dtype=torch.bool)
    for y, x_ in itertools.product(range(case.positions[0]), range(case.positions[1])):
        unread[y * 3 : y * 3 + 2, x_ * 3 : x_ * 3 + 2] = False
    assert unread.any()
    poisoned = x.masked_fill(unread, float("nan")).contiguous(memory_format=FORMATS[memory_format])
    with kernel(name):
        results = []
        for input in (x, poisoned):
            leaves = [t.clone(memory_format=torch.preserve_format).requires_grad_() for t in (input, channel, spatial)]
            out = case.call(*leaves)
            results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for clean, got in zip(*results, strict=True):
        assert torch.equal(clean, got)
    assert torch.equal(results[1][1][..., unread], torch.zeros_like(x)[..., unread])


@KERNELS
@pytest.mark.parametrize("memory_format", FORMATS)
def test_a_nan_reaches_the_sums_that_read_it_and_no_others(name: str, memory_format: str) -> None:
    """Four of the nine taps read the corner pixel: the other taps' filter gradients stay finite."""
    case = Case("3x3", batch=1, channels=32, size=(6, 7))
    x, channel, spatial = case.tensors(torch.float32, memory_format)
    x[0, 3, 0, 0] = float("nan")
    channel.requires_grad_(), spatial.requires_grad_()
    with kernel(name):
        out = case.call(x, channel, spatial)
        grad_channel, grad_spatial = torch.autograd.grad(out, (channel, spatial), torch.ones_like(out))
    expected = torch.zeros(32, 3, 3, dtype=torch.bool)
    expected[3, :2, :2] = True
    assert torch.equal(grad_channel[0].isnan(), expected)
    assert int(grad_spatial.isnan().sum()) == 4
    assert int(out.isnan().sum()) == 4


@pytest.mark.supports("empty batches")
@KERNELS
def test_empty_batches_have_gradients_of_their_shape(name: str) -> None:
    case = Case("batch-0", batch=0, heads=2)
    leaves = [t.requires_grad_() for t in case.tensors(torch.float32)]
    with kernel(name):
        out = case.call(*leaves)
        out.sum().backward()
    assert out.shape == (0, 8, 9, 11)
    assert [t.grad.shape for t in leaves] == [t.shape for t in leaves]


@pytest.mark.supports("same bits from run to run, forward for any threads")
@KERNELS
@pytest.mark.parametrize("memory_format", FORMATS)
def test_same_bits_from_run_to_run_and_for_any_number_of_threads(name: str, memory_format: str) -> None:
    case = Case("3x3", batch=3, channels=48, size=(40, 44), heads=2)
    case = dataclasses.replace(case, batch=1, size=(7, 9)) if name == "triton" else case
    leaves = [t.requires_grad_() for t in case.tensors(torch.float32, memory_format)]
    grad = torch.randn_like(leaves[0])
    threads = torch.get_num_threads()
    results = []
    try:
        with kernel(name):
            for count in (1, 2, 3, 2):
                torch.set_num_threads(count)
                out = case.call(*leaves)
                results.append([out, *torch.autograd.grad(out, leaves, grad)])
    finally:
        torch.set_num_threads(threads)
    for run in results[1:]:
        assert torch.equal(run[0], results[0][0])
    for a, b in zip(results[1], results[3], strict=True):
        assert torch.equal(a, b)


@pytest.mark.supports("nothing of the kernel times the input stored")
@KERNELS
@pytest.mark.parametrize("memory_format", FORMATS)
def test_nothing_of_the_kernels_times_the_inputs_size_is_stored(name: str, memory_format: str) -> None:
    """torch's own allocations in a call and its backward stay below 6 inputs; the combined filter alone would be 49."""
    case = Case("7x7", kernel=(7, 7), batch=1, channels=32, size=(16, 16) if name == "triton" else (64, 64))
    leaves = [t.requires_grad_() for t in case.tensors(torch.float32, memory_format)]
    largest = 0
    with kernel(name):
        case.call(*leaves).sum().backward()
        gc.collect()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            out = case.call(*leaves)
            out.sum().backward()
    held = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            largest = max(largest, held)
    assert 0 < largest < 6 * leaves[0].nbytes + 4 * leaves[2].nbytes


@pytest.mark.parametrize("combine", ["mul", "add"])
def test_rows_further_apart_than_32_bits_reach(combine: str) -> None:
    """A view whose last row lies more than 2^31 elements from its first: offsets are 64 bits wide."""
    row = 2**30 + 64
    base = torch.zeros(0, dtype=torch.bfloat16).set_(
        torch.UntypedStorage(2 * (2 * row + 64))
    )  # touched where read alone
    x = base.as_strided((1, 2, 3, 8), (8, 4, row, 1))
    x.copy_(torch.randn(1, 2, 3, 8))
    case = Case("3x3", batch=1, channels=2, size=(3, 8), combine=combine)
    _, channel, spatial = case.tensors(torch.bfloat16)
    assert torch.equal(case.call(x, channel, spatial), case.call(x.clone(), channel, spatial))


@KERNELS
def test_a_single_column_may_have_any_stride(name: str) -> None:
    """A dimension of size 1 has no neighbours, however far its stride says that they are."""
    x, channel = torch.randn(512).as_strided((1, 64, 2, 1), (128, 1, 64, 2**40)), torch.randn(1, 64, 3, 3)
    with kernel(name):
        got = ddfnet.ddf(x, channel, None, dilation=(1, 2**22))
        torch.testing.assert_close(got, ddfnet.ddf(x.clone(), channel, None))


@pytest.mark.parametrize("wants", ["input", "channel_filter", "spatial_filter"])
def test_partial_sums_stay_small_where_the_kernel_is_wider_than_the_map(wants: str) -> None:
    """A large kernel on a narrow map: whatever is summed in parts, the parts must not outgrow the tensors."""
    code = f"""
import resource, torch, ddfnet
tensors = dict(input=torch.randn(1, 64, 1000, 1), channel_filter=torch.randn(1, 64, 31, 31),
               spatial_filter=torch.randn(1, 961, 1000, 1))
ddfnet.ddf(torch.randn(1, 64, 10, 1), tensors["channel_filter"], None).sum()
tensors[{wants!r}].requires_grad_()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
ddfnet.ddf(**tensors).sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40 * 1024  # KiB; a sum a row of the map would be 240 MiB
