"""Tools of the field on networks with our layers: timm, torchvision, hooks, profilers, odd maps and views."""

import copy

import pytest
import timm
import torch
from timm.optim import create_optimizer_v2, param_groups_layer_decay
from timm.utils import ModelEmaV3, freeze, get_state_dict, unfreeze
from timm.utils.agc import adaptive_clip_grad
from torch import nn
from torch.profiler import profile
from torchvision.models._utils import IntermediateLayerGetter

import ddfnet.models  # noqa: F401  registers the networks with timm
from ddfnet.nn import DDF2d
from tests.field.conftest import gradients


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return timm.create_model("ddf_mul_resnet18", num_classes=4, zero_init_last=False).eval()


@pytest.fixture
def trained(resnet: nn.Module) -> nn.Module:
    """Return a copy that a test may change."""
    return copy.deepcopy(resnet)


@pytest.fixture
def photographs() -> torch.Tensor:
    return torch.randn(2, 3, 65, 96)


def test_timms_average(trained, photographs):
    average = ModelEmaV3(trained, decay=0.5)
    for parameter in trained.parameters():
        parameter.data.mul_(0.5)
    average.update(trained)
    for ours, mean in zip(trained.parameters(), average.module.parameters(), strict=True):
        torch.testing.assert_close(mean, 1.5 * ours)
    assert average.module(photographs).isfinite().all()
    assert get_state_dict(average).keys() == trained.state_dict().keys()


def test_timms_layer_decay(trained):
    groups = param_groups_layer_decay(trained, weight_decay=0.05, layer_decay=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(trained.parameters()))
    assert len({group["lr_scale"] for group in groups}) > 4, "the stages have rates of their own"


@pytest.mark.parametrize("name", ["adamw", "lamb", "lion", "muon", "adafactor"])
def test_timms_optimizers(trained, photographs, name):
    optimizer = create_optimizer_v2(trained, opt=name, lr=1e-3, weight_decay=0.05)
    before = copy.deepcopy(trained.state_dict())
    gradients(trained, photographs)
    adaptive_clip_grad(trained.parameters())
    optimizer.step()
    changed = [key for key, value in trained.named_parameters() if not torch.equal(value, before[key])]
    assert len(changed) > 0.9 * len(list(trained.parameters()))
    assert all(parameter.isfinite().all() for parameter in trained.parameters())


def test_timms_frozen_batch_norms(trained, photographs):
    expected = trained(photographs)
    freeze(trained, [name for name, _ in trained.named_children()])
    torch.testing.assert_close(trained.train()(photographs), expected, rtol=1e-4, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in trained.parameters())
    unfreeze(trained, [name for name, _ in trained.named_children()])
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in trained.modules())
    torch.testing.assert_close(trained.eval()(photographs), expected, rtol=1e-4, atol=1e-4)


def test_timms_intermediate_maps(resnet, photographs):
    maps = resnet.forward_intermediates(photographs, intermediates_only=True)
    assert [tuple(each.shape[-2:]) for each in maps] == [(33, 48), (17, 24), (9, 12), (5, 6), (3, 3)]


def test_torchvisions_layer_getter(resnet, photographs):
    getter = IntermediateLayerGetter(resnet, {"layer2": "low", "layer4": "high"})
    features = timm.create_model("ddf_mul_resnet18", features_only=True, out_indices=(2, 4)).eval()
    features.load_state_dict(resnet.state_dict(), strict=False)
    result = getter(photographs)
    for name, expected in zip(("low", "high"), features(photographs), strict=True):
        torch.testing.assert_close(result[name], expected)


def test_a_profiler_names_the_operator(images):
    layer = DDF2d(3).eval()
    with profile() as trace:
        layer(images)
    assert any("ddfnet::" in event.key for event in trace.key_averages())


def test_a_summary_by_hooks(network, images):
    shapes = {}
    for name, layer in network.named_children():
        layer.register_forward_hook(lambda layer, inputs, output, name=name: shapes.update({name: tuple(output.shape)}))
    network(images)
    assert shapes["0"] == (4, 8, 7, 9)
    assert shapes["4"] == (4, 8, 14, 18)


def test_a_hook_that_changes_the_output(network, images):
    expected = network.eval()(images)
    handle = network[3].register_forward_hook(lambda layer, inputs, output: output * 0)
    assert not torch.equal(network(images), expected)
    handle.remove()
    torch.testing.assert_close(network(images), expected, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (3, 5), (1, 33), (224, 3)], ids=str)
def test_odd_maps(network, size):
    network.eval()
    image = torch.randn(2, 3, *size)
    whole = network(image)
    torch.testing.assert_close(whole[1:], network(image[1:]))
    assert whole.isfinite().all()


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.flip(-1),
        lambda x: x.transpose(2, 3),
        lambda x: x[:, :, ::2, 1:],
        lambda x: x[:1].expand(4, -1, -1, -1),
        lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        lambda x: x[::2],
    ],
    ids=["flipped", "transposed", "strided", "expanded", "channels_last", "every second"],
)
def test_views(network, images, view):
    network.eval()
    seen = view(images)
    torch.testing.assert_close(network(seen), network(seen.clone(memory_format=torch.contiguous_format)))


def test_half_networks(network, images):
    expected = network.eval()(images)
    result = copy.deepcopy(network).to(torch.bfloat16, memory_format=torch.channels_last)(images.bfloat16())
    assert result.dtype == torch.bfloat16
    assert (result.float() - expected).abs().max() < 0.05 * expected.abs().max()
