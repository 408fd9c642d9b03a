"""Each operator against loops that are written from its paper's formula, forward and backward."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from ddfnet import family


def randn(*shape):
    return torch.randn(*shape, dtype=torch.double, requires_grad=True)


def at(x, y, z):
    """Return the pixel (…, y, z) of a map, zero outside."""
    inside = 0 <= y < x.shape[-2] and 0 <= z < x.shape[-1]
    return x[..., y, z] if inside else torch.zeros_like(x[..., 0, 0])


def grid(function, height, width):
    """Return a map of the results of a function at each pixel."""
    return torch.stack([torch.stack([function(y, x) for x in range(width)], -1) for y in range(height)], -2)


def window(k):
    return itertools.product(range(-(k // 2), k // 2 + 1), repeat=2)


def agree(function, loops, *tensors):
    """Compare results and gradients of both."""
    result, expected = function(*tensors), loops(*tensors)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)
    weights = torch.randn_like(expected)
    grads, wanted = (torch.autograd.grad((r * weights).sum(), tensors) for r in (result, expected))
    for grad, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, want, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("k", "groups", "s"), [(3, 1, 2), (5, 2, 2), (1, 2, 3)])
def test_carafe(k, groups, s):
    def loops(x, masks):
        def pixel(y, z):
            total = 0
            for t, (dy, dx) in enumerate(window(k)):
                each = torch.stack([masks[:, g * k * k + t, y, z] for g in range(groups)], 1)
                total = total + each.repeat_interleave(4 // groups, 1) * at(x, y // s + dy, z // s + dx)
            return total

        return grid(pixel, 3 * s, 4 * s)

    agree(
        lambda x, m: family.carafe(x, m, k, groups, s), loops, randn(2, 4, 3, 4), randn(2, groups * k * k, 3 * s, 4 * s)
    )


@pytest.mark.parametrize(("groups", "s"), [(1, 2), (2, 2), (2, 3), (4, 1)])
def test_dysample(groups, s):
    def loops(x, offset):
        height, width = x.shape[2:]

        def value(n, c, y, z):
            """Interpolate between four pixels, at the nearest place on the map."""
            y, z = y.clamp(0, height - 1), z.clamp(0, width - 1)
            y0, z0 = min(int(y), height - 2), min(int(z), width - 2)
            (a, b), (d, e) = x[n, c, y0 : y0 + 2, z0 : z0 + 2]
            upper, lower = a + (b - a) * (z - z0), d + (e - d) * (z - z0)
            return upper + (lower - upper) * (y - y0)

        def pixel(big_y, big_z):
            y, i, z, j = *divmod(big_y, s), *divmod(big_z, s)
            each = []
            for n, c in itertools.product(range(2), range(4)):
                first = (c // (4 // groups)) * s * s + i * s + j
                along_x, along_y = (offset[n, axis * groups * s * s + first, y, z] for axis in (0, 1))
                each.append(value(n, c, (big_y + 0.5) / s - 0.5 + along_y, (big_z + 0.5) / s - 0.5 + along_x))
            return torch.stack(each).reshape(2, 4)

        return grid(pixel, s * height, s * width)

    agree(lambda x, o: family.dysample(x, o, s), loops, randn(2, 4, 3, 5), randn(2, 2 * groups * s * s, 3, 5))


def test_dysample_without_offsets_is_bilinear_interpolation():
    x = torch.randn(2, 4, 5, 300)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(family.dysample(x, torch.zeros(2, 8, 5, 300)), expected, rtol=1e-4, atol=1e-4)
    half = family.dysample(x.bfloat16(), torch.zeros(2, 8, 5, 300).bfloat16())
    # Places in bfloat16 would be whole pixels from 128 on.
    torch.testing.assert_close(half.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_involution(stride, dilation):
    def loops(x, weight):
        def pixel(y, z):
            total = 0
            for t, (dy, dx) in enumerate(window(3)):
                each = torch.stack([weight[:, g * 9 + t, y, z] for g in range(2)], 1).repeat_interleave(2, 1)
                total = total + each * at(x, y * stride + dy * dilation, z * stride + dx * dilation)
            return total

        return grid(pixel, *weight.shape[2:])

    weight = randn(2, 18, -(-5 // stride), -(-4 // stride))
    agree(lambda x, w: family.involution(x, w, 3, stride, dilation), loops, randn(2, 4, 5, 4), weight)


def test_adaptive_conv():
    def loops(x, filters):
        def pixel(y, z):
            taps = itertools.product(range(3), range(2))
            return sum(filters[:, y, z, ky, kx, None] * x[:, :, y + ky, z + kx] for ky, kx in taps)

        return grid(pixel, 3, 4)

    agree(family.adaptive_conv, loops, randn(2, 3, 5, 5), randn(2, 3, 4, 3, 2))


@pytest.mark.parametrize("scale", [1, 2])
def test_joint_bilateral(scale):
    def loops(x, guide):
        def pixel(y, z):
            total, weights = 0, 0
            for dy, dx in window(3):
                if 0 <= y + dy < 4 and 0 <= z + dx < 6:
                    away = (dy**2 + dx**2) / (2 * 1.5**2)
                    unlike = (guide[:, :, y, z] - guide[:, :, y + dy, z + dx]).square().sum(1) / (2 * 0.7**2)
                    weight = (-away - unlike).exp()[:, None]
                    total = total + weight * x[:, :, (y + dy) // scale, (z + dx) // scale]
                    weights = weights + weight
            return total / weights

        return grid(pixel, 4, 6)

    def ours(x, guide):
        return family.joint_bilateral(x, guide, 3, sigma_space=1.5, sigma_range=0.7)

    agree(ours, loops, randn(2, 3, 4 // scale, 6 // scale), randn(2, 2, 4, 6))


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_pac(stride, dilation):
    def loops(x, guide, weight, bias):
        def pixel(y, z):
            total = bias
            for t, (dy, dx) in enumerate(window(3)):
                places = (y * stride, z * stride), (y * stride + dy * dilation, z * stride + dx * dilation)
                alike = (-(at(guide, *places[0]) - at(guide, *places[1])).square().sum(1) / 2).exp()
                total = total + alike[:, None] * weight[:, 0].flatten(1)[:, t] * at(x, *places[1])
            return total

        return grid(pixel, -(-5 // stride), -(-4 // stride))

    def ours(x, guide, weight, bias):
        return family.pac(x, guide, weight, bias, stride, dilation=dilation)

    agree(ours, loops, randn(2, 3, 5, 4), randn(2, 2, 5, 4), randn(3, 1, 3, 3), randn(3))


def transposed(x, guide, weight, bias, stride, padding, output_padding, dilation):
    """Spread each pixel of x over the output, weighted by the similarity to the pixels there."""
    *_, height, width = x.shape
    k, reach = weight.shape[-1], dilation * (weight.shape[-1] // 2)
    out_height, out_width = guide.shape[2:]
    out = [[bias.expand(x.shape[0], -1) for _ in range(out_width)] for _ in range(out_height)]
    for i, j, ky, kx in itertools.product(range(height), range(width), range(k), range(k)):
        y, z = i * stride - padding + ky * dilation, j * stride - padding + kx * dilation
        own_y, own_z = i * stride - padding + reach, j * stride - padding + reach
        if 0 <= y < out_height and 0 <= z < out_width:
            alike = (-(guide[:, :, y, z] - guide[:, :, own_y, own_z]).square().sum(1) / 2).exp()
            out[y][z] = out[y][z] + alike[:, None] * weight[:, 0, ky, kx] * x[:, :, i, j]
    return torch.stack([torch.stack(row, -1) for row in out], -2)


@pytest.mark.parametrize(
    ("k", "options"),
    [
        (5, {"stride": 2, "padding": 2, "output_padding": 1, "dilation": 1}),
        (3, {"stride": 3, "padding": 0, "output_padding": 2, "dilation": 1}),
        (3, {"stride": 2, "padding": 1, "output_padding": 0, "dilation": 2}),
    ],
)
def test_pac_transpose(k, options):
    x, weight, bias = randn(2, 3, 3, 2), randn(3, 1, k, k), randn(3)
    plain = F.conv_transpose2d(x, weight, bias, groups=3, **options)
    guide = randn(2, 2, *plain.shape[2:])

    def ours(x, guide, weight, bias):
        return family.pac_transpose(x, guide, weight, bias, **options)

    agree(ours, lambda *tensors: transposed(*tensors, **options), x, guide, weight, bias)
    torch.testing.assert_close(ours(x, torch.zeros_like(guide), weight, bias), plain)


def test_kernel_prediction():
    def loops(frames, kernels):
        def pixel(y, z):
            taps = itertools.product(range(3), enumerate(window(3)))
            sums = (kernels[:, f, t, y, z, None] * at(frames[:, f], y + dy, z + dx) for f, (t, (dy, dx)) in taps)
            return sum(sums) / 3

        return grid(pixel, 4, 5)

    agree(lambda x, k: family.kernel_prediction(x, k, 3), loops, randn(2, 3, 2, 4, 5), randn(2, 3, 9, 4, 5))


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_dynamic_depthwise(stride, dilation):
    def loops(x, weight):
        def pixel(y, z):
            places = [(y * stride + dy * dilation, z * stride + dx * dilation) for dy, dx in window(3)]
            return sum(weight[:, :, t // 3, t % 3] * at(x, *place) for t, place in enumerate(places))

        return grid(pixel, -(-6 // stride), -(-5 // stride))

    def ours(x, weight):
        return family.dynamic_depthwise(x, weight, stride, dilation=dilation)

    agree(ours, loops, randn(2, 3, 6, 5), randn(2, 3, 3, 3))


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_local_softmax(groups):
    def loops(x, logits):
        def pixel(y, z):
            total, weights = 0, 0
            for dy, dx in window(3):
                if 0 <= 2 * y + dy < 5 and 0 <= 2 * z + dx < 6:
                    weight = logits[:, :, 2 * y + dy, 2 * z + dx].exp().repeat_interleave(4 // groups, 1)
                    total, weights = total + weight * x[:, :, 2 * y + dy, 2 * z + dx], weights + weight
            return total / weights

        return grid(pixel, 3, 3)

    agree(lambda x, logits: family.local_softmax(x, logits, 3, 2), loops, randn(2, 4, 5, 6), randn(2, groups, 5, 6))


def test_more_groups_than_are_filtered_at_once():
    x, logits = randn(2, 74, 5, 6), randn(2, 37, 5, 6)
    each = [family.local_softmax(x[:, 2 * g : 2 * g + 2], logits[:, g : g + 1], 3) for g in range(37)]
    torch.testing.assert_close(family.local_softmax(x, logits, 3), torch.cat(each, 1))


def test_large_logits_do_not_overflow():
    x, logits = torch.randn(1, 2, 6, 6), torch.full((1, 1, 6, 6), 1e4)
    logits[..., ::2, :] = -1e4
    assert family.local_softmax(x, logits, 3).isfinite().all()


@pytest.mark.parametrize(("k", "stride"), [(3, 1), (2, 2)])
def test_local_mean(k, stride):
    padding = k // 2 if stride == 1 else 0

    def loops(x):
        def pixel(y, z):
            rows, columns = (range(i * stride - padding, i * stride - padding + k) for i in (y, z))
            inside = [(i, j) for i in rows for j in columns if 0 <= i < 6 and 0 <= j < 8]
            return sum(x[:, :, i, j] for i, j in inside) / len(inside)

        return grid(pixel, 6 // stride, 8 // stride)

    agree(lambda x: family.local_mean(x, k, stride, padding), loops, randn(2, 3, 6, 8))


OPERATORS = {
    "carafe": (lambda x, masks: family.carafe(x, masks, 3), (1, 2, 2, 3), (1, 9, 4, 6)),
    "dysample": (family.dysample, (1, 2, 2, 3), (1, 8, 2, 3)),
    "involution": (lambda x, weight: family.involution(x, weight, 3), (1, 2, 3, 2), (1, 9, 3, 2)),
    "adaptive_conv": (family.adaptive_conv, (1, 2, 4, 3), (1, 2, 2, 3, 2)),
    "joint_bilateral": (lambda x, guide: family.joint_bilateral(x, guide, 3), (1, 2, 2, 3), (1, 2, 2, 3)),
    "pac": (family.pac, (1, 2, 2, 3), (1, 2, 2, 3), (2, 1, 3, 3), (2,)),
    "pac_transpose": (
        lambda x, guide, weight: family.pac_transpose(x, guide, weight, padding=1),
        *((1, 2, 2, 2), (1, 2, 3, 3), (2, 1, 3, 3)),
    ),
    "kernel_prediction": (lambda x, kernels: family.kernel_prediction(x, kernels, 3), (1, 2, 1, 2, 3), (1, 2, 9, 2, 3)),
    "dynamic_depthwise": (family.dynamic_depthwise, (1, 2, 2, 3), (1, 2, 3, 3)),
    "local_softmax": (lambda x, logits: family.local_softmax(x, logits, 3), (1, 2, 2, 3), (1, 1, 2, 3)),
    "local_mean": (lambda x: family.local_mean(x, 3), (1, 2, 2, 3)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_double_backward(name):
    operator, *shapes = OPERATORS[name]
    assert torch.autograd.gradgradcheck(operator, [randn(*shape) for shape in shapes], fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_half_types_are_near_float32(name, dtype):
    operator, *shapes = OPERATORS[name]
    tensors = [torch.randn(shape).to(dtype) for shape in shapes]
    result, expected = operator(*tensors), operator(*(tensor.float() for tensor in tensors))
    assert result.dtype == dtype
    error = (result.float() - expected).abs().max() / expected.abs().max()
    assert error <= 8 * torch.finfo(dtype).eps


def test_dtypes_and_memory_formats_pass_through():
    x = torch.randn(2, 4, 6, 8).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    guide, weight = torch.randn(2, 3, 6, 8).bfloat16(), torch.randn(4, 1, 3, 3).bfloat16()
    for y in (
        family.pac(x, guide, weight),
        family.joint_bilateral(x, guide, 3),
        family.local_softmax(x, x, 3),
        family.carafe(x, torch.randn(2, 9, 12, 16).bfloat16(), 3),
        family.dysample(x, torch.randn(2, 16, 6, 8).bfloat16()),
    ):
        assert y.dtype == torch.bfloat16 and y.isfinite().all()
        assert y.is_contiguous(memory_format=torch.channels_last)


X = torch.randn(2, 4, 6, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: family.carafe(X, torch.randn(2, 25, 6, 8), 5),
            r"masks must be .* = \(2, 25, 12, 16\), got \(2, 25, 6, 8\)",
        ),
        (
            lambda: family.dysample(X, torch.randn(2, 12, 6, 8)),
            r"offset must be \(N, 2\*G\*s\*s, H, W\) with s = 2 for x \(2, 4, 6, 8\), got \(2, 12, 6, 8\)",
        ),
        (lambda: family.dysample(X, torch.randn(2, 1, 6, 8)), r"offset must be .*, got \(2, 1, 6, 8\)"),
        (lambda: family.dysample(X, torch.randn(2, 0, 6, 8)), r"offset must be .*, got \(2, 0, 6, 8\)"),
        (lambda: family.dysample(X, torch.randn(2, 8, 6, 8), 0), "scale_factor must be at least 1, got 0"),
        (lambda: family.dysample(X, torch.randn(2, 8, 8, 6)), r"offset must be .*, got \(2, 8, 8, 6\)"),
        (lambda: family.dysample(X, torch.randn(1, 8, 6, 8)), r"offset must be .*, got \(1, 8, 6, 8\)"),
        (
            lambda: family.dysample(X, torch.randn(2, 24, 6, 8)),
            "the 3 groups of offset must divide the 4 channels",
        ),
        (lambda: family.adaptive_conv(X, X), r"filters must be \(N, H, W, kH, kW\), got \(2, 4, 6, 8\)"),
        (lambda: family.joint_bilateral(X, torch.randn(2, 3, 9, 8), 3), r"larger by a whole factor, got \(9, 8\)"),
        (lambda: family.joint_bilateral(X, X, 4), "kernel_size must be odd, .* got 4"),
        (lambda: family.joint_bilateral(X, X[:1], 3), "guide must have the 2 samples of x, got 1"),
        (lambda: family.joint_bilateral(X[:, :, :0], X, 3), r"no map may be empty, .* \(6, 8\) and \(0, 8\)"),
        (lambda: family.joint_bilateral(X, X[..., :0], 3), r"no map may be empty, .* \(6, 0\) and \(6, 8\)"),
        (lambda: family.joint_bilateral(X, X, 3, sigma_space=0.0), r"^sigma_space must be above 0, got 0\.0$"),
        (lambda: family.joint_bilateral(X, X, 3, sigma_range=-1), "^sigma_range must be above 0, got -1$"),
        (lambda: family.joint_bilateral(X, X, 3, sigma_range=math.nan), "^sigma_range must be above 0, got nan$"),
        (
            lambda: family.pac(X, X, torch.randn(4, 1, 3, 3), torch.randn(1)),
            r"bias must be \(C,\) with C = 4, got \(1,\)",
        ),
        (
            lambda: family.pac_transpose(X, X, torch.randn(4, 1, 3, 3), torch.randn(4, 1)),
            r"bias must be \(C,\) with C = 4, got \(4, 1\)",
        ),
        (lambda: family.pac(X, X[:1], torch.randn(4, 1, 3, 3)), "guide must be"),
        (lambda: family.pac(X, X, torch.randn(4, 4, 3, 3)), r"weight must be \(C, 1, kH, kW\) with C = 4"),
        (lambda: family.pac_transpose(X, X, torch.randn(4, 1, 3, 3)), r"N = 2 and \(13, 17\), got"),
        (lambda: family.pac_transpose(X, X, torch.randn(4, 1, 3, 3), padding=2), "padding must be at most"),
        (lambda: family.kernel_prediction(X, X, 3), "frames must have five dimensions"),
        (lambda: family.kernel_prediction(X[None], X[:, None], 3), "agree in N and T"),
        (lambda: family.local_softmax(X, X[:, :, :5], 3), "logits must be"),
        (lambda: family.local_softmax(X, X[:, :3], 3), "divide"),
        (lambda: family.local_mean(X, 2, padding=2), "padding must leave a pixel"),
    ],
)
def test_wrong_shapes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_tensors():
    with pytest.raises(TypeError, match=r"features must be a torch\.Tensor, got list"):
        family.carafe([1.0], X, 3)
    with pytest.raises(TypeError, match=r"bias must be a torch\.Tensor or None, got float"):
        family.pac(X, X, torch.randn(4, 1, 3, 3), 0.5)
    nested = torch.nested.nested_tensor(list(X))
    for call in (
        lambda: family.carafe(nested, X, 3),
        lambda: family.dysample(X, nested),
        lambda: family.pac(X, nested, torch.randn(4, 1, 3, 3)),
        lambda: family.adaptive_conv(X, nested),
        lambda: family.kernel_prediction(nested, X, 3),
    ):
        with pytest.raises(TypeError, match="must be a dense .* got a nested one"):
            call()
    assert math.isfinite(family.local_mean(X, 3).sum().item())
