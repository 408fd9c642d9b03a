"""FilterNorm against equation 3 of the paper, written out with Python's own statistics."""

import math
import statistics

import pytest
import torch

from ddfnet.nn import FilterNorm

HALF = (torch.float16, torch.bfloat16)
DTYPES = (*HALF, torch.float32, torch.float64)


def normalised(taps: list[float]) -> list[float]:
    mean, deviation = statistics.fmean(taps), statistics.stdev(taps)
    return [(tap - mean) / deviation for tap in taps]


def test_spatial_filters_are_normalised_a_pixel_and_head_and_scaled_by_a_constant():
    x = torch.randn(2, 3 * 4, 2, 3, dtype=torch.double)
    result = FilterNorm(3, 2, "spatial", nonlinearity="relu")(x)
    for n, head, row, column in torch.cartesian_prod(*map(torch.arange, (2, 3, 2, 3))).tolist():
        taps = normalised(x[n, head * 4 : head * 4 + 4, row, column].tolist())
        expected = torch.tensor(taps, dtype=torch.double) * math.sqrt(2) / 2
        torch.testing.assert_close(result[n, head * 4 : head * 4 + 4, row, column], expected, rtol=1e-5, atol=0)


def test_channel_filters_are_normalised_a_channel_and_scaled_a_tap():
    norm = FilterNorm(5, (1, 3), "channel", learn_shift=True, dtype=torch.double)
    torch.nn.init.normal_(norm.shift)
    x = torch.randn(2, 15, dtype=torch.double)
    result = norm(x)
    for n, channel in torch.cartesian_prod(torch.arange(2), torch.arange(5)).tolist():
        part = slice(channel * 3, channel * 3 + 3)
        taps = torch.tensor(normalised(x[n, part].tolist()), dtype=torch.double)
        torch.testing.assert_close(result[n, part], taps * norm.scale[part] + norm.shift[part], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 36), (2, 36, 1, 1), (2, 4, 9), (2, 4, 3, 3)], ids=str)
def test_channel_filters_keep_any_layout(shape):
    norm, x = FilterNorm(4, 3, "channel"), torch.randn(2, 36)
    result = norm(x.reshape(shape))
    assert result.shape == shape
    assert torch.equal(result.flatten(1), norm(x))


@pytest.mark.parametrize(
    ("nonlinearity", "kernel_size", "scale"),
    [("relu", 3, math.sqrt(2) / 3), ("linear", 3, 1 / 3), ("relu", 5, math.sqrt(2) / 5), ("linear", (2, 8), 1 / 4)],
    ids=str,
)
def test_the_constant_scale_is_gain_over_k(nonlinearity, kernel_size, scale):
    norm = FilterNorm(2, kernel_size, "spatial", nonlinearity=nonlinearity)
    assert norm.scale == pytest.approx(scale)
    assert not norm.state_dict()


def test_the_learnt_scale_starts_as_noise_of_deviation_gain_over_k_a_tap():
    torch.manual_seed(0)
    scale = FilterNorm(1000, 3, "channel").scale
    assert scale.shape == (9000,)
    assert scale.std().item() == pytest.approx(math.sqrt(2) / 3, rel=0.05)
    assert abs(scale.mean().item()) < 0.02


@pytest.mark.parametrize("kind", ["spatial", "channel"])
def test_what_is_learnt_can_be_chosen(kind):
    assert not FilterNorm(2, 3, kind, learn_scale=False).state_dict()
    state = FilterNorm(2, 3, kind, learn_scale=True, learn_shift=True).state_dict()
    assert {name: tensor.shape for name, tensor in state.items()} == {"scale": (18,), "shift": (18,)}
    assert not state["shift"].any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["spatial", "channel"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1000.3, 1e-7], ids=str)
def test_a_constant_filter_becomes_zeros_with_a_finite_gradient(kind, dtype, value):
    norm = FilterNorm(4, 3, kind, dtype=dtype)
    x = torch.full((2, 36, 3, 3) if kind == "spatial" else (2, 36, 1, 1), value, dtype=dtype, requires_grad=True)
    result = norm(x)
    result.backward(100 * torch.randn_like(result))
    assert not result.any()
    assert x.grad.isfinite().all()
    assert x.grad.any()  # it can still learn


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_an_all_but_constant_filter_has_a_finite_gradient_in_half_types(dtype):
    x = torch.zeros(64, 9, dtype=dtype)
    x[:, 4] = torch.finfo(torch.float16).tiny / 2**10  # the smallest number of float16
    x.requires_grad_()
    result = FilterNorm(1, 3, "channel", learn_scale=False, dtype=dtype)(x)
    result.backward(torch.ones_like(result).index_fill(1, torch.tensor(4), -1))
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() > 1000


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_half_types_are_normalised_in_float32_and_rounded_once(dtype):
    x = torch.randn(2, 18, 5, 5).to(dtype)
    eps = max(1e-6, torch.finfo(dtype).tiny)
    expected = FilterNorm(2, 3, "spatial", eps=eps)(x.float()).to(dtype)
    assert torch.equal(FilterNorm(2, 3, "spatial")(x), expected)


def test_gradients_of_first_and_second_order():
    norm = FilterNorm(2, 2, "spatial", learn_scale=True, learn_shift=True, dtype=torch.double)
    x = torch.randn(2, 8, 2, 1, dtype=torch.double, requires_grad=True)
    call = lambda x, scale, shift: torch.func.functional_call(norm, {"scale": scale, "shift": shift}, (x,))  # noqa: E731
    assert torch.autograd.gradcheck(call, (x, norm.scale, norm.shift))
    assert torch.autograd.gradgradcheck(call, (x, norm.scale, norm.shift))


def test_a_nan_stays_in_its_filter():
    x = torch.randn(2, 2 * 9)
    x[0, 3] = math.nan
    assert FilterNorm(2, 3, "channel")(x).isnan().reshape(2, 2, 9).all(2).tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((2, 1, "spatial"), {}, "at least two taps"),
        ((2, (1, 1), "channel"), {}, "at least two taps"),
        ((0, 3, "spatial"), {}, "filters must be at least 1, got 0"),
        ((2, 3, "both"), {}, "kind must be 'spatial' or 'channel', got 'both'"),
        ((2, 3, "spatial"), {"eps": 0.0}, r"eps must be above 0, got 0\.0"),
        ((2, 0, "spatial"), {}, "kernel_size must be at least 1"),
        ((2, 3, "spatial"), {"nonlinearity": "x"}, "nonlinearity x"),
    ],
    ids=["one tap", "1x1", "no filter", "kind", "eps", "no tap", "nonlinearity"],
)
def test_wrong_options_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        FilterNorm(*arguments, **options)


@pytest.mark.parametrize(
    ("kind", "shape"), [("spatial", (2, 9, 4, 4)), ("spatial", (18,)), ("channel", (2, 9, 2, 2))], ids=str
)
def test_filters_of_another_number_are_refused(kind, shape):
    with pytest.raises(ValueError, match=r"filters\*K = 2\*9, got "):
        FilterNorm(2, 3, kind)(torch.randn(shape))
