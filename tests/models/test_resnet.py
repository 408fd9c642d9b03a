"""Networks that timm lists, in every way that timm uses them."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.utils.flop_counter import FlopCounterMode

timm = pytest.importorskip("timm")

import ddfnet.models  # noqa: E402, F401
from ddfnet.models.resnet import DDFBasicBlock, DDFBottleneck  # noqa: E402
from ddfnet.nn import DDF2d, FilterNorm  # noqa: E402
from tests.meta_device import check_reset_statistics  # noqa: E402

NAMES = timm.list_models("ddf_*")
SMALL = ("ddf_mul_resnet18", "ddf_add_resnet50")  # both blocks, both ways to combine: for tests that need values


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def on_meta(name, **options):
    """Create a network without memory and arithmetic, for its shapes alone."""
    return timm.create_model(name, device="meta", **options).eval()


def image(*size, n=1, channels=3, device="meta"):
    return torch.randn(n, channels, *size, device=device)


def layers(model):
    return [module for module in model.modules() if isinstance(module, DDF2d)]


def test_the_papers_networks_are_registered():
    expected = {f"ddf_{combine}_resnet{depth}" for combine in ("mul", "add") for depth in (18, 50, 101, 152)}
    assert expected <= set(NAMES)


def test_importing_the_package_does_not_register_them():
    code = "import sys, ddfnet; assert 'timm' not in sys.modules and 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("combine", ["mul", "add"])
@pytest.mark.parametrize(
    ("depth", "millions", "blocks", "block", "reduction"),
    [
        (18, 7.69, 16, DDFBasicBlock, 0.5),
        (50, 16.84, 16, DDFBottleneck, 0.2),
        (101, 28.15, 33, DDFBottleneck, 0.2),
        (152, 37.46, 50, DDFBottleneck, 0.2),
    ],
    ids=["18", "50", "101", "152"],
)
def test_they_are_the_papers(depth, millions, blocks, block, reduction, combine):
    model = on_meta(f"ddf_{combine}_resnet{depth}")
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)
    assert len(layers(model)) == blocks
    assert all(isinstance(each, block) for each in model.layer1)
    for layer in layers(model):
        assert layer.combine == combine
        assert layer.channel.reduce.out_channels == int(reduction * layer.channels)
    convolutions = [m for stage in (model.layer1, model.layer4) for m in stage.modules() if isinstance(m, nn.Conv2d)]
    assert {conv.kernel_size for conv in convolutions} == {(1, 1)}
    assert not [name for name in model.state_dict() if name.endswith("pointwise.bias")]


def test_macs_of_the_50():
    with FlopCounterMode(display=False) as counter:
        on_meta("ddf_mul_resnet50")(image(224, 224))
    counts = counter.get_flop_counts()["Global"]
    assert counter.get_total_flops() // 2 == pytest.approx(2.273e9, rel=1e-3)
    # The paper counts two multiply-adds per tap, one to combine and one to apply, where the operator does 3 FLOPs.
    taps = counts[torch.ops.ddfnet.ddf] / 3
    assert counter.get_total_flops() / 2 + taps / 2 == pytest.approx(2.298e9, rel=0.01)


@pytest.mark.parametrize("depth", [18, 50, 101, 152])
def test_mul_and_add_share_their_keys(depth):
    mul, add = (on_meta(f"ddf_{combine}_resnet{depth}").state_dict() for combine in ("mul", "add"))
    assert {name: tensor.shape for name, tensor in mul.items()} == {name: tensor.shape for name, tensor in add.items()}


@pytest.mark.parametrize("name", NAMES)
class TestEveryNetwork:
    def test_any_size(self, name):
        model = on_meta(name)
        for size in ((224, 224), (97, 65), (33, 220), (1, 1)):
            assert model(image(*size, n=2)).shape == (2, 1000)

    def test_heads(self, name):
        model = on_meta(name, num_classes=0)
        assert model(image(64, 64)).shape == (1, model.num_features)
        model = on_meta(name, num_classes=7, in_chans=5)
        assert model(image(64, 64, channels=5)).shape == (1, 7)
        model.reset_classifier(3)
        assert model(image(64, 64, channels=5)).shape == (1, 3)
        assert model.forward_features(image(64, 64, channels=5)).shape == (1, model.num_features, 2, 2)

    @pytest.mark.parametrize("output_stride", [8, 16, 32])
    def test_features(self, name, output_stride):
        model = on_meta(name, features_only=True, output_stride=output_stride)
        features = model(image(96, 64))
        assert [feature.shape[1] for feature in features] == model.feature_info.channels()
        strides = [min(stride, output_stride) for stride in (2, 4, 8, 16, 32)]
        assert model.feature_info.reduction() == strides
        assert [tuple(feature.shape[2:]) for feature in features] == [(96 // s, 64 // s) for s in strides]

    def test_configuration(self, name):
        model = on_meta(name)
        assert model.pretrained_cfg["architecture"] == name
        assert timm.data.resolve_model_data_config(model)["input_size"] == (3, 224, 224)
        with pytest.raises(RuntimeError, match=f"No pretrained weights exist for {name}"):
            on_meta(name, pretrained=True)


def test_dilation_takes_the_place_of_stride():
    model = on_meta("ddf_mul_resnet50", output_stride=8)
    assert {layer.dilation for layer in layers(model.layer3)} == {(1, 1), (2, 2)}
    assert layers(model.layer4)[-1].dilation == layers(model.layer4)[-1].padding == (4, 4)
    assert {layer.stride for layer in layers(model.layer4)} == {(1, 1)}


@pytest.mark.parametrize(
    ("block_args", "millions"),
    [
        ({"reduction": 0.3}, 18.091),
        ({"reduction": 0.4}, 19.353),
        ({"filters": "spatial"}, None),
        ({"filters": "channel"}, None),
        ({"norm": "batch"}, None),
        ({"norm": "sigmoid", "heads": 2, "combine": "add"}, None),
    ],
    ids=str,
)
def test_the_papers_ablations_are_block_args(block_args, millions):
    model = on_meta("ddf_mul_resnet50", block_args=block_args)
    assert model(image(64, 64)).shape == (1, 1000)
    if millions is not None:
        assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=5e-4)
    for layer in layers(model):
        assert layer.filters == block_args.get("filters", "both")
        assert (layer.heads, layer.combine) == (block_args.get("heads", 1), block_args.get("combine", "mul"))
        norms = sum(isinstance(module, FilterNorm) for module in layer.modules())
        assert norms == (0 if "norm" in block_args else 1 if "filters" in block_args else 2)
    assert {layer.combine for layer in layers(on_meta("ddf_add_resnet50", block_args={"heads": 1}))} == {"add"}


@pytest.mark.parametrize("option", [{"cardinality": 2}, {"block_reduce_first": 2}], ids=str)
def test_blocks_that_a_depthwise_filter_cannot_be_are_refused(option):
    with pytest.raises(NotImplementedError, match=r"cardinality=1 and block_reduce_first=1.*use heads"):
        on_meta("ddf_mul_resnet50", **option)


def test_other_options_of_timms_resnet():
    model = on_meta(
        "ddf_mul_resnet50", aa_layer=timm.layers.BlurPool2d, stem_type="deep", avg_down=True, drop_path_rate=0.1
    )
    assert model(image(64, 64)).shape == (1, 1000)
    assert {layer.stride for layer in layers(model)} == {(1, 1)}


@pytest.fixture(params=SMALL, scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def trained(name):
    """Return a shallow network with running statistics of its inputs; tests must not change it."""
    torch.manual_seed(0)
    model = timm.create_model(name, layers=(1, 1, 1, 1), num_classes=10, zero_init_last=False)
    for _ in range(3):
        model(torch.randn(4, 3, 64, 64))
    return model.eval()


def test_every_parameter_gets_a_gradient(name):
    model = timm.create_model(name, num_classes=10, zero_init_last=False)
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert not without
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_activations_start_as_large_as_those_of_a_resnet(name):
    plain = timm.create_model(name[name.index("resnet") :], features_only=True, zero_init_last=False)
    model = timm.create_model(name, features_only=True, zero_init_last=False)
    x = torch.randn(4, 3, 64, 64)
    for feature, reference in zip(model(x), plain(x), strict=True):
        assert feature.std().item() == pytest.approx(reference.std().item(), rel=0.5)


def test_the_last_normalisation_of_a_block_starts_with_zeros(name):
    model = timm.create_model(name)
    last = "bn2" if "18" in name else "bn3"
    assert not any(getattr(block, last).weight.any() for stage in (model.layer1, model.layer4) for block in stage)


def test_gradient_checkpointing_changes_nothing(trained):
    model, x = copy.deepcopy(trained), torch.randn(1, 3, 64, 64)
    model(x).sum().backward()
    expected = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    model.zero_grad()
    model.set_grad_checkpointing()
    model(x).sum().backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[key])


def test_channels_last_throughout(trained):
    model, x = copy.deepcopy(trained).to(memory_format=torch.channels_last), torch.randn(2, 3, 64, 64)
    formats = []
    for layer in layers(model):
        layer.register_forward_hook(
            lambda _, inputs, output: formats.extend(
                tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (*inputs, output)
            )
        )
    result = model(x.to(memory_format=torch.channels_last))
    assert formats == [True] * 2 * len(layers(model))
    torch.testing.assert_close(result, trained(x), rtol=1e-3, atol=1e-3)


def test_bfloat16(trained):
    x = torch.randn(2, 3, 64, 64)
    expected = trained(x)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = trained(x)
    for result in (autocast, copy.deepcopy(trained).bfloat16()(x.bfloat16())):
        assert result.dtype == torch.bfloat16
        assert (result - expected).abs().max() < 0.05 * expected.abs().max()


def test_state_dicts_go_round(trained, tmp_path):
    name = trained.pretrained_cfg["architecture"]
    torch.save(trained.state_dict(), tmp_path / "model.pth")
    other = timm.create_model(
        name, layers=(1, 1, 1, 1), num_classes=10, checkpoint_path=str(tmp_path / "model.pth")
    ).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(other(x), trained(x))


@torch.no_grad()  # tests/nn compiles gradients, which are slow to trace
def test_compiled_in_one_graph(trained):
    torch._dynamo.reset()
    dynamic = "18" in trained.pretrained_cfg["architecture"]  # slow to trace, so only once
    compiled = torch.compile(trained, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for size in ((2, 3, 64, 96), (3, 3, 65, 99)):
        x = torch.randn(size)
        torch.testing.assert_close(compiled(x), trained(x), rtol=1e-4, atol=1e-4)


def test_exported_with_dynamic_sizes(trained):
    shapes = ({0: Dim("n", max=64), 2: Dim("h", min=33, max=512), 3: Dim("w", min=33, max=512)},)
    program = torch.export.export(trained, (torch.randn(2, 3, 64, 96),), dynamic_shapes=shapes)
    x = torch.randn(1, 3, 71, 80)
    torch.testing.assert_close(program.module()(x), trained(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_a_channels_last_network_copies_no_map(training: bool) -> None:
    """No operator gets a map in another layout than it wants: between the layers nothing is copied."""
    model = timm.create_model("ddf_mul_resnet50").to(memory_format=torch.channels_last).train(training)
    images = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last)
    with torch.set_grad_enabled(training):
        model(images)
        with torch.profiler.profile(record_shapes=True) as profile:
            model(images)
            images.contiguous()  # a copy that must be found
    copies = [
        event.input_shapes[0]
        for event in profile.events()
        if event.name in ("aten::copy_", "aten::contiguous")
        and len(event.input_shapes[0]) == 4
        # torch fills results with a broadcast bias by copy_ too
        and (event.name != "aten::copy_" or event.input_shapes[0] == event.input_shapes[1])
    ]
    assert copies[-1] == [2, 3, 64, 64]
    assert all(shape == [2, 3, 64, 64] for shape in copies)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ddf_mul_resnet18", {"layers": (1, 1, 1, 1), "block_args": {"zero_init": True}}),
        ("ddf_add_resnet50", {"layers": (1, 1, 1, 1), "block_args": {"norm": "batch"}, "zero_init_last": False}),
        ("small_resnet23", {"mixer": "conv", "block_args": {"attn_layer": "se"}}),
        ("small_resnet23", {"block_args": {"static": True}}),
    ],
    ids=["zero-init", "batch norm", "small", "static"],
)
def test_memory_from_the_meta_device_gets_the_constructors_values(name, options):
    check_reset_statistics(lambda: timm.create_model(name, num_classes=10, **options))
