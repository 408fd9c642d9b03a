"""Layers with the weights of other code: they compute what that code does, written out as people run it."""

import copy

import pytest
import torch
import torch.nn.functional as F

from ddfnet import family
from tests.meta_device import check_reset


def randomised(layer):
    """Return the layer in double, with weights that all matter."""
    layer = layer.double().eval()
    for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
        if tensor.is_floating_point():
            with torch.no_grad():
                tensor.normal_(0, 0.5)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return layer


def unfolded(x, filters, k, stride=1, padding=0):
    """Return the sum over windows, all of them written out; filters (N, G, K, Ho, Wo)."""
    n, c, groups = *x.shape[:2], filters.shape[1]
    height, width = filters.shape[3:]
    windows = F.unfold(x, k, padding=padding, stride=stride).view(n, groups, c // groups, k * k, height, width)
    return (windows * filters[:, :, None]).sum(3).flatten(1, 2)


@pytest.mark.parametrize(("groups", "scale", "kernel", "dilation"), [(1, 2, 5, 1), (2, 3, 3, 2)])
def test_carafe_of_mmcv(groups, scale, kernel, dilation):
    theirs = torch.nn.ModuleDict(
        {
            "channel_compressor": torch.nn.Conv2d(8, 4, 1),
            "content_encoder": torch.nn.Conv2d(
                4, groups * (kernel * scale) ** 2, 3, padding=dilation, dilation=dilation
            ),
        }
    )
    theirs = randomised(theirs)
    layer = family.CARAFE(
        8, scale, up_kernel=kernel, up_group=groups, encoder_dilation=dilation, compressed_channels=4
    ).double()
    nested = torch.nn.Sequential(layer)
    nested.load_state_dict({f"0.{name}": tensor for name, tensor in theirs.state_dict().items()})
    again = copy.deepcopy(layer)
    torch.nn.init.zeros_(again.encode.weight)
    again.load_state_dict(layer.state_dict())
    x = torch.randn(2, 8, 5, 6, dtype=torch.double)
    assert torch.equal(again(x), layer(x))
    masks = F.pixel_shuffle(theirs["content_encoder"](theirs["channel_compressor"](x)), scale)
    masks = masks.unflatten(1, (groups, -1)).softmax(2)
    repeated = x.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    # A tap is a pixel of x away, which is scale pixels of the repeated map.
    windows = F.unfold(repeated, kernel, dilation=scale, padding=scale * (kernel // 2))
    windows = windows.view(2, groups, 8 // groups, kernel**2, 5 * scale, 6 * scale)
    expected = (windows * masks[:, :, None]).sum(3).flatten(1, 2)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("dyscope", [False, True])
@pytest.mark.parametrize(("style", "scale"), [("lp", 2), ("lp", 3), ("pl", 2)])
def test_dysample_of_its_authors(style, scale, dyscope):
    """With their steps written out; init_pos is their places of the sub-pixels, along x first."""
    layer = randomised(family.DySample(16, scale, style, 2, dyscope))
    at = (torch.arange(scale).double() - (scale - 1) / 2) / scale
    init_pos = torch.stack([at.expand(scale, scale), at[:, None].expand(scale, scale)])[:, None]
    init_pos = init_pos.expand(2, 2, scale, scale).reshape(1, -1, 1, 1)
    state = {**layer.state_dict(), "init_pos": init_pos}
    assert set(state) == {"offset.weight", "offset.bias", "init_pos", *(("scope.weight",) if dyscope else ())}
    again = family.DySample(16, scale, style, 2, dyscope).double()
    again.load_state_dict(state)
    x = torch.randn(2, 16, 5, 6, dtype=torch.double)
    seen = F.pixel_shuffle(x, scale) if style == "pl" else x
    offset = layer.offset(seen) * (layer.scope(seen).sigmoid() * 0.5 if dyscope else 0.25)
    if style == "pl":
        offset = F.pixel_unshuffle(offset, scale)
    middle = torch.stack(torch.meshgrid(torch.arange(6) + 0.5, torch.arange(5) + 0.5, indexing="xy"))
    places = (offset + init_pos).unflatten(1, (2, -1)) + middle[None, :, None]
    places = F.pixel_shuffle(places.flatten(1, 2), scale).unflatten(1, (2, 2)).permute(0, 2, 3, 4, 1).flatten(0, 1)
    places = places * 2 / torch.tensor([6, 5]) - 1
    expected = F.grid_sample(x.reshape(4, 8, 5, 6), places, "bilinear", "border", align_corners=False)
    torch.testing.assert_close(again(x), expected.reshape(2, 16, 5 * scale, 6 * scale))


def test_dysample_begins_nearly_as_bilinear_interpolation():
    x = torch.randn(2, 16, 5, 6)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear")
    for dyscope in (False, True):
        torch.testing.assert_close(family.DySample(16, dyscope=dyscope)(x), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("stride", [1, 2])
def test_involution(stride):
    layer = randomised(family.Involution(32, 7, stride))
    keys = {"conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked"}
    assert set(layer.state_dict()) == {f"conv1.{key}" for key in keys} | {"conv2.conv.weight", "conv2.conv.bias"}
    x = torch.randn(2, 32, 8, 6, dtype=torch.double)
    smaller = x if stride == 1 else F.avg_pool2d(x, stride, stride)
    filters = layer.conv2.conv(F.relu(layer.conv1.bn(layer.conv1.conv(smaller)))).unflatten(1, (2, 49))
    torch.testing.assert_close(layer(x), unfolded(x, filters, 7, stride, padding=3))


def jbu(layer, source, guide):
    """Compute FeatUp's formula, with windows written out."""
    n, k, r = guide.shape[0], layer.diameter, layer.radius
    height, width = guide.shape[2:]
    keys = layer.range_proj(guide)
    windows = F.unfold(F.pad(keys, [r] * 4, mode="reflect"), k).view(n, -1, k * k, height, width)
    temperature = layer.range_temp.exp().clamp(1e-4, 1e4)
    alike = torch.softmax(temperature * torch.einsum("ncthw,nchw->nthw", windows, keys), 1)
    away = torch.linspace(-1, 1, k, dtype=torch.double)
    near = torch.exp(-(away[:, None] ** 2 + away[None] ** 2) / (2 * layer.sigma_spatial**2)).view(1, k * k, 1, 1)
    weights = alike * near
    weights = weights / weights.sum(1, keepdim=True).clamp(1e-7)
    weights = weights + 0.1 * layer.fixup_proj(torch.cat([weights, guide], 1))
    larger = F.pad(F.interpolate(source, (height, width), mode="bicubic"), [r] * 4, mode="reflect")
    return unfolded(larger, weights[:, None], k)


def test_jbu():
    layer = randomised(family.JBU(3, 8, 4))
    assert set(layer.state_dict()) == {"range_temp", "sigma_spatial"} | {
        f"{part}.{i}.{name}" for part in ("range_proj", "fixup_proj") for i in (0, 3) for name in ("weight", "bias")
    }
    source, guide = torch.randn(2, 8, 5, 6).double(), torch.randn(2, 3, 10, 12).double()
    torch.testing.assert_close(layer(source, guide), jbu(layer, source, guide))


def test_jbu_stack():
    stack = randomised(family.JBUStack(4))
    assert {key.split(".")[0] for key in stack.state_dict()} == {"up1", "up2", "up3", "up4", "fixup_proj"}
    source, guide = torch.randn(1, 4, 2, 3).double(), torch.randn(1, 3, 40, 44).double()
    expected = source
    for up in (stack.up1, stack.up2, stack.up3, stack.up4):
        expected = jbu(up, expected, F.adaptive_avg_pool2d(guide, [2 * size for size in expected.shape[2:]]))
    expected = stack.fixup_proj(expected) * 0.1 + expected
    torch.testing.assert_close(stack(source, guide), expected)


def test_they_learn():
    x, guide = torch.randn(2, 16, 8, 8), torch.rand(2, 3, 16, 16)
    for layer, arguments in (
        (family.CARAFE(16), (x,)),
        (family.DySample(16, dyscope=True), (x,)),
        (family.Involution(16, 3, 1), (x,)),
        (family.JBU(3, 16, 4), (x, guide)),
    ):
        layer(*arguments).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


X = torch.randn(1, 8, 8, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: family.CARAFE(8, up_group=3), "divide"),
        (lambda: family.CARAFE(8, up_kernel=4), "^up_kernel must be odd, .* got 4"),
        (lambda: family.CARAFE(8, encoder_kernel=2), "^encoder_kernel must be odd, .* got 2"),
        (lambda: family.DySample(6), "groups must divide channels, got groups=4 and channels=6"),
        (lambda: family.DySample(8, 0), "scale must be at least 1, got 0"),
        (lambda: family.DySample(8, style="pp"), "style must be 'lp' or 'pl', got 'pp'"),
        (
            lambda: family.DySample(12, 3, "pl"),
            "style='pl' needs channels that .* divides, got scale=3 and",
        ),
        (lambda: family.DySample(8)(X[:, :4]), r"the input of DySample must be \(N, C, H, W\) with C = 8"),
        (lambda: family.Involution(16, 4, 1), "^kernel_size must be odd, .* got 4"),
        (lambda: family.Involution(16, 3, 0), "^stride must be at least 1, got 0"),
        (lambda: family.JBU(3, 8, 4)(X, torch.rand(1, 4, 8, 8)), r"the guide of JBU must be .* with C = 3, got \(1, 4"),
        (lambda: family.JBU(3, 8, 4)(X[:, :7], X[:, :3]), r"the features of JBU must be .* with C = 8, got \(1, 7"),
        (lambda: family.JBU(3, 8, 4)(X, X[0, :3]), r"the guide of JBU must be .*; add a batch dimension"),
        (lambda: family.JBU(3, 8, 4)(X, torch.rand(2, 3, 8, 8)), r"with N = 1, .* got \(2, 3, 8, 8\)"),
        (lambda: family.JBUStack(8)(X[:, :7], X[:, :3]), r"the features of JBUStack must be .* with C = 8"),
        (lambda: family.JBUStack(8)(X, X), r"the guide of JBUStack must be .* with C = 3, got \(1, 8"),
        (lambda: family.JBUStack(8)(X, torch.rand(2, 3, 8, 8)), r"with N = 1, .* got \(2, 3, 16, 16\)"),
        (
            lambda: family.CARAFE(8)(torch.randn(1, 4, 5, 5)),
            r"the input of CARAFE must be \(N, C, H, W\) with C = 8",
        ),
        (lambda: family.Involution(24, 7, 1), "channels must be a multiple of group_channels"),
        (lambda: family.Involution(16, 7, 2)(torch.randn(1, 16, 7, 8)), "stride=2 must divide the map"),
        (lambda: family.JBU(3, 8, 4)(torch.randn(1, 8, 2, 2), torch.rand(1, 3, 3, 8)), "H and W above 3"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_tensors():
    with pytest.raises(TypeError, match=r"the features of JBU must be a torch\.Tensor, got list"):
        family.JBU(3, 8, 4)([1.0], X[:, :3])
    with pytest.raises(TypeError, match=r"the guide of JBUStack must be a torch\.Tensor, got NoneType"):
        family.JBUStack(8)(X, None)


@pytest.mark.parametrize(
    "build",
    [
        lambda: family.CARAFE(8, up_group=2),
        lambda: family.DySample(8, dyscope=True),
        lambda: family.Involution(32, 3, stride=2),
        lambda: family.JBU(3, 8, 4),
        lambda: family.JBUStack(8),
    ],
    ids=["CARAFE", "DySample", "Involution", "JBU", "JBUStack"],
)
def test_memory_from_the_meta_device_gets_the_constructors_values(build):
    check_reset(build)
