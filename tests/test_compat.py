"""Official names against the official layers' arithmetic."""

import argparse
import copy
import inspect
import math
import sys

import pytest
import torch
import torch.nn.functional as F

import ddfnet.models  # noqa: F401  (registers its networks as soon as timm is there)
from ddfnet import compat
from ddfnet.nn import DDF2d, DDFConv2d
from ddfnet.pretrained import load, save
from ddfnet.surgery import fuse
from tests.inductor import check_training_is_lowered
from tests.meta_device import check_reset, check_reset_statistics
from tests.official_layers import OfficialPack, each_head, filter_norm, official_channel, official_spatial, unfold_ddf


def signature(function):
    return {
        name: parameter.default for name, parameter in inspect.signature(function).parameters.items() if name != "self"
    }


def check_same(ours, official, shape=(1, 3, 64, 64)):
    """Check that two modules compute the same in float64."""
    x = 1e-2 * torch.randn(shape, dtype=torch.float64)
    with torch.no_grad():
        results = [module.eval().double()(x) for module in (ours, official)]
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-12)


REQUIRED = inspect.Parameter.empty
SIGNATURES = {
    "ddf": {
        "features": REQUIRED,
        "channel_filter": REQUIRED,
        "spatial_filter": REQUIRED,
        "kernel_size": 3,
        "dilation": 1,
        "stride": 1,
        "kernel_combine": "mul",
        "version": "",
    },
    "FilterNorm": {
        "in_channels": REQUIRED,
        "kernel_size": REQUIRED,
        "filter_type": REQUIRED,
        "nonlinearity": "linear",
        "running_std": False,
        "running_mean": False,
    },
    "DDFPack": {
        "in_channels": REQUIRED,
        "kernel_size": 3,
        "stride": 1,
        "dilation": 1,
        "head": 1,
        "se_ratio": 0.2,
        "nonlinearity": "relu",
        "kernel_combine": "mul",
    },
    "DDFUpPack": {
        "in_channels": REQUIRED,
        "kernel_size": 3,
        "scale_factor": 2,
        "dilation": 1,
        "head": 1,
        "se_ratio": 0.2,
        "nonlinearity": "linear",
        "dw_kernel_size": 3,
        "joint_channels": -1,
        "kernel_combine": "mul",
    },
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_the_official_ones_in_their_order(name):
    assert list(signature(getattr(compat, name)).items()) == list(SIGNATURES[name].items())


class TestOperator:
    @pytest.mark.parametrize("combine", ["mul", "add"])
    @pytest.mark.parametrize(("k", "dilation", "stride"), [(3, 1, 1), (5, 2, 1), (3, 1, 2), (3, 2, 2)], ids=str)
    def test_it_is_the_official_one(self, k, dilation, stride, combine):
        x, channel = torch.randn(2, 4, 8, 10), torch.randn(2, 4, k, k)
        spatial = torch.randn(2, k * k, 8 // stride, 10 // stride)
        result = compat.ddf(x, channel, spatial, k, dilation, stride, combine, "f")
        torch.testing.assert_close(result, unfold_ddf(x, channel, spatial, k, dilation, stride, combine))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_mixed_dtypes_are_widened(self, dtype):
        x = torch.randn(1, 2, 5, 5).half()
        channel, spatial = torch.randn(1, 2, 3, 3, dtype=dtype), torch.randn(1, 9, 5, 5)
        result = compat.ddf(x, channel, spatial)
        assert result.dtype == dtype
        torch.testing.assert_close(result, unfold_ddf(x.to(dtype), channel, spatial.to(dtype), 3))

    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"version": "x"}, ValueError, "version must be '', 'o' or 'f', got 'x'"),
            ({"kernel_size": 5}, ValueError, "kernel_size must agree"),
            ({"stride": 2}, ValueError, r"size \(3, 3\), got \(1, 9, 5, 5\)"),
            ({"kernel_combine": "x"}, ValueError, "combine must be"),
            ({"features": None}, TypeError, r"input must be a torch\.Tensor"),
        ],
        ids=lambda value: str(value) if isinstance(value, dict) else "",
    )
    def test_wrong_arguments_are_refused(self, change, error, message):
        tensors = {
            "features": torch.randn(1, 2, 5, 5),
            "channel_filter": torch.randn(1, 2, 3, 3),
            "spatial_filter": torch.randn(1, 9, 5, 5),
        }
        with pytest.raises(error, match=message):
            compat.ddf(**{**tensors, **change})


class TestFilterNorm:
    @pytest.mark.parametrize("running", [False, True])
    @pytest.mark.parametrize("kind", ["spatial", "channel"])
    def test_it_is_the_official_one(self, kind, running):
        norm = compat.FilterNorm(4, 3, kind, "relu", running, running)
        assert list(norm.state_dict()) == (["std", "mean"] if running else [])
        if running:
            torch.nn.init.normal_(norm.mean)
        shape = (2, 36, 5, 6) if kind == "spatial" else (2, 36, 1, 1)
        for deviation in (1, 1e-4, 1e-8):
            x = deviation * torch.randn(shape, dtype=torch.float64)
            expected = filter_norm(x.unflatten(1, (4, 9)), 1).flatten(1, 2)
            expected = expected * (norm.std[:, None, None] if running else math.sqrt(2) / 3)
            expected = expected + norm.mean[:, None, None] if running else expected
            expected = expected if kind == "spatial" else expected.flatten(1)
            torch.testing.assert_close(norm.double()(x), expected, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(norm.float()(x.float()), expected.float(), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("kind", ["spatial", "channel"])
    def test_constant_filters_are_finite_forward_and_backward(self, kind, dtype):
        norm = compat.FilterNorm(4, 3, kind, "relu", True, True).to(dtype)
        x = torch.full((2, 36, 3, 3) if kind == "spatial" else (2, 36, 1, 1), 0.3, dtype=dtype, requires_grad=True)
        result = norm(x)
        result.backward(torch.randn_like(result))
        assert torch.equal(result, torch.zeros_like(result))  # the start of its mean
        assert all(tensor.grad.isfinite().all() for tensor in (x, norm.std, norm.mean))

    def test_its_mean_starts_at_zero(self):
        assert not compat.FilterNorm(4, 3, "spatial", running_mean=True).mean.any()

    def test_a_wrong_type_is_refused(self):
        with pytest.raises(ValueError, match="kind must be 'spatial' or 'channel', got 'both'"):
            compat.FilterNorm(4, 3, "both")


class TestDDFPack:
    def test_its_keys_are_the_official_ones(self):
        shapes = {name: tuple(tensor.shape) for name, tensor in compat.DDFPack(10, head=2).state_dict().items()}
        assert shapes == {
            "spatial_branch.0.weight": (18, 10, 1, 1),
            "spatial_branch.0.bias": (18,),
            "channel_branch.1.weight": (2, 10, 1, 1),
            "channel_branch.1.bias": (2,),
            "channel_branch.3.weight": (90, 2, 1, 1),
            "channel_branch.3.bias": (90,),
            "channel_branch.4.std": (90,),
        }

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"kernel_size": 5, "dilation": 2},
            {"stride": 2, "kernel_combine": "add"},
            {"head": 2, "se_ratio": 0.5, "nonlinearity": "linear"},
        ],
        ids=str,
    )
    def test_it_is_the_official_one(self, options):
        layer = compat.DDFPack(8, **options)
        k, stride = layer.kernel_size, layer.stride
        gain = 1 if options.get("nonlinearity") == "linear" else math.sqrt(2)
        x, state = torch.randn(2, 8, 8, 10, dtype=torch.float64), layer.double().state_dict()
        spatial = official_spatial(state, "spatial_branch", x, k, gain, stride)
        channel = official_channel(state, "channel_branch", x, k)
        expected = each_head(x, channel, spatial, k, layer.dilation, stride, layer.kernel_combine)
        torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize(("size", "stride"), [((7, 7), 2), ((220, 5), 3)], ids=str)
    def test_a_stride_need_not_divide_the_map(self, size, stride):
        expected = tuple(math.ceil(n / stride) for n in size)
        assert compat.DDFPack(8, stride=stride)(torch.randn(1, 8, *size)).shape == (1, 8, *expected)

    def test_few_channels(self):
        assert compat.DDFPack(1)(torch.randn(2, 1, 6, 6)).shape == (2, 1, 6, 6)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_half_types(self, dtype):
        layer, x = compat.DDFPack(8), torch.randn(2, 8, 6, 6)
        with torch.autocast("cpu", dtype):
            assert layer(x).dtype == dtype
        result = layer.to(dtype)(x.to(dtype).to(memory_format=torch.channels_last))
        assert result.dtype == dtype
        result.sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"head": 3}, "heads must divide channels"),
            ({"kernel_size": 1}, "kernel_size must be odd and at least 3, got 1"),
            ({"kernel_size": 4}, "kernel_size must be odd and at least 3, got 4"),
            ({"se_ratio": 0}, "reduction must be above 0"),
        ],
        ids=str,
    )
    def test_wrong_options_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            compat.DDFPack(8, **options)

    def test_other_inputs_are_refused(self):
        with pytest.raises(ValueError, match=r"the input of DDFPack must be .* C = 8, got \(1, 7, 5, 5\)"):
            compat.DDFPack(8)(torch.randn(1, 7, 5, 5))


class TestDDFUpPack:
    def test_its_keys_are_the_official_ones(self):
        own = {name for name in compat.DDFUpPack(8).state_dict() if "_branch.3." in name}
        channel = {f"channel_branch.3.{i}.{part}" for i in (1, 3) for part in ("weight", "bias")} | {
            "channel_branch.3.4.std"
        }
        names = ("0.weight", "0.bias", "1.0.weight", "1.0.bias")
        assert own == channel | {f"spatial_branch.3.{name}" for name in names}
        joint = {name for name in compat.DDFUpPack(8, joint_channels=3).state_dict() if "_branch.3." in name}
        assert joint == channel | {f"spatial_branch.3.0.{part}" for part in ("weight", "bias")}

    def test_it_has_as_many_parameters_as_the_official_one(self):
        assert sum(parameter.numel() for parameter in compat.DDFUpPack(256).parameters()) == 560_368

    @pytest.mark.parametrize("joint_channels", [-1, 3], ids=["own", "joint"])
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"kernel_size": 5},
            {"dw_kernel_size": 5, "scale_factor": 3},
            {"head": 2, "kernel_combine": "add", "dilation": 2},
        ],
        ids=str,
    )
    def test_it_is_the_official_one(self, options, joint_channels):
        layer = compat.DDFUpPack(8, joint_channels=joint_channels, **options).double()
        k, s, state = layer.kernel_size, layer.scale_factor, layer.state_dict()
        x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
        guide = None if joint_channels < 1 else torch.randn(2, joint_channels, 5, 6, dtype=torch.float64)
        outputs = []
        for i in range(s * s):
            prefix, source = f"spatial_branch.{i}", guide
            if source is None:
                weight = state[f"{prefix}.0.weight"]
                source = F.conv2d(x, weight, state[f"{prefix}.0.bias"], padding=weight.shape[-1] // 2, groups=8)
                prefix = f"{prefix}.1"
            spatial = official_spatial(state, prefix, source, k, 1)
            channel = official_channel(state, f"channel_branch.{i}", x, k)
            outputs.append(each_head(x, channel, spatial, k, layer.dilation, 1, layer.kernel_combine))
        expected = F.pixel_shuffle(torch.stack(outputs, 2).flatten(1, 2), s)
        torch.testing.assert_close(layer(x, guide), expected, rtol=1e-9, atol=1e-9)

    def test_the_guidance_is_resized_to_the_input(self):
        layer = compat.DDFUpPack(8, joint_channels=3)
        x, guide = torch.randn(2, 8, 5, 6), torch.randn(2, 3, 13, 24)
        resized = F.interpolate(guide, (5, 6), mode="bilinear", antialias=True)
        assert torch.equal(layer(x, guide), layer(x, resized))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"head": 3}, "heads must divide channels"),
            ({"kernel_size": 2}, "kernel_size must be odd and at least 3, got 2"),
            ({"dw_kernel_size": 4}, "dw_kernel_size must be odd, .* got 4"),
            ({"scale_factor": 0}, "scale_factor must be at least 1, got 0"),
        ],
        ids=str,
    )
    def test_wrong_options_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            compat.DDFUpPack(8, **options)

    def test_missing_guidance_is_refused(self):
        with pytest.raises(ValueError, match=r"the guidance of DDFUpPack must be .* C = 3, got \(1, 8, 5, 5\)"):
            compat.DDFUpPack(8, joint_channels=3)(torch.randn(1, 8, 5, 5))


class TestLoadOfficial:
    """An official checkpoint is made here the way its authors made theirs: DDFPack in the place of timm's conv2."""

    @pytest.fixture
    def networks(self):
        """Return an official network and ours, with one bottleneck per stage."""
        timm = pytest.importorskip("timm")
        from tests.official_networks import official_resnet

        ours = timm.create_model("ddf_mul_resnet50", layers=(1, 1, 1, 1), num_classes=10)
        return official_resnet(), ours.eval()

    @pytest.mark.parametrize("combine", ["mul", "add"])
    @pytest.mark.parametrize("depth", [50, 101])
    def test_all_names_and_shapes(self, depth, combine):
        timm = pytest.importorskip("timm")
        from tests.official_networks import LAYERS, official_resnet

        with torch.device("meta"):
            official = official_resnet(LAYERS[depth], 1000, combine).state_dict()
            ours = timm.create_model(f"ddf_{combine}_resnet{depth}").state_dict()
        block = "layer2.0.conv2"  # 128 channels, a bottleneck of a fifth of them
        shapes = {
            "spatial_branch.0.weight": (9, 128, 1, 1),
            "spatial_branch.0.bias": (9,),
            "channel_branch.1.weight": (25, 128, 1, 1),
            "channel_branch.1.bias": (25,),
            "channel_branch.3.weight": (1152, 25, 1, 1),
            "channel_branch.3.bias": (1152,),
            "channel_branch.4.std": (1152,),
        }
        own = {name: tuple(value.shape) for name, value in official.items() if name.startswith(f"{block}.")}
        assert own == {f"{block}.{name}": shape for name, shape in shapes.items()}
        converted = compat.load_official(official)
        assert {name: value.shape for name, value in converted.items()} == {
            name: value.shape for name, value in ours.items()
        }

    @pytest.mark.parametrize(
        ("source", "wrap"),
        [(source, wrap) for source in ("dict", "file") for wrap in ("plain", "state_dict", "model", "module")]
        + [("safetensors", "plain"), ("safetensors", "module")],  # they hold tensors alone
        ids=str,
    )
    def test_ours_computes_what_the_official_network_does(self, networks, source, wrap, tmp_path):
        official, ours = networks
        checkpoint = official.state_dict()
        if wrap == "module":
            checkpoint = {f"module.{name}": tensor for name, tensor in checkpoint.items()}
        elif wrap != "plain":
            checkpoint = {"epoch": 129, wrap: checkpoint, "args": argparse.Namespace(lr=0.4)}
        if source == "file":
            torch.save(checkpoint, tmp_path / "checkpoint.pth.tar")
            checkpoint = str(tmp_path / "checkpoint.pth.tar")
        elif source == "safetensors":
            pytest.importorskip("safetensors.torch").save_file(checkpoint, tmp_path / "model.safetensors")
            checkpoint = tmp_path / "model.safetensors"
        ours.load_state_dict(compat.load_official(checkpoint))
        check_same(ours, official)

    def test_it_loads_a_network_or_says_what_does_not_fit(self, networks):
        official, ours = networks
        compat.load_official(official.state_dict(), ours)
        assert torch.equal(ours.fc.weight, official.fc.weight)
        state = {name: value + 1 for name, value in official.state_dict().items()}
        before = copy.deepcopy(ours.state_dict())
        state["layer1.0.conv2.channel_branch.4.std"] = torch.ones(9 * 32)
        state["fc.bias"] = torch.ones(5)
        with pytest.raises(ValueError) as raised:
            compat.load_official(state, ours)
        assert str(raised.value) == (
            "the weights do not fit this DDFResNet: layer1.0.conv2.channel.norm.scale must be (576,), got (288,); "
            "fc.bias must be (10,), got (5,)"
        )
        assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())

    def test_it_is_saved_and_read_again(self, networks, tmp_path):
        official, ours = networks
        compat.load_official(official.state_dict(), ours)
        save(ours, tmp_path / "ours.safetensors")
        check_same(load(tmp_path / "ours.safetensors"), official)
        ours.save_pretrained(tmp_path / "folder")
        check_same(type(ours).from_pretrained(tmp_path / "folder"), official)
        check_same(fuse(ours.double()), official)
        torch.save(official.state_dict(), tmp_path / "official.pth")
        timm = pytest.importorskip("timm")
        options = {"layers": (1, 1, 1, 1), "num_classes": 10, "pretrained": True}
        for file in ("official.pth", "ours.safetensors"):
            overlay = {"file": str(tmp_path / file), "num_classes": 10}
            check_same(timm.create_model("ddf_mul_resnet50", pretrained_cfg_overlay=overlay, **options), official)

    @pytest.mark.parametrize("given", [True, False], ids=["layer given", "state dict"])
    def test_a_layers_state_dict(self, given):
        official, ours = OfficialPack(8, head=2), DDF2d(8, heads=2)
        if given:
            compat.load_official(official.state_dict(), ours)
        else:
            ours.load_state_dict(compat.load_official(official.state_dict()))
        x = 1e-4 * torch.randn(2, 8, 6, 6)
        for module in (official.channel_branch[3], official.spatial_branch[0], ours.channel.expand, ours.spatial.conv):
            torch.nn.init.zeros_(module.bias)  # the filters are as small as the map
        torch.testing.assert_close(ours(x), official(x))
        check_same(ours, official, (2, 8, 6, 6))
        check_same(copy.deepcopy(ours), official, (2, 8, 6, 6))
        check_same(fuse(torch.nn.Sequential(ours)), official, (2, 8, 6, 6))

    def test_a_layer_of_its_own_has_the_option(self):
        official, ours = OfficialPack(8), DDFConv2d(8, 8, 3, padding=1, bias=False, norm_eps=1e-10)
        state = compat.load_official(official.state_dict())
        ours.ddf.load_state_dict({name: state[name] for name in state})  # the tensors alone
        check_same(ours, official, (2, 8, 6, 6))

    @pytest.mark.parametrize(
        "state", [{}, DDF2d(4).state_dict(), torch.nn.Linear(2, 2).state_dict()], ids=["empty", "ours", "other"]
    )
    def test_other_checkpoints_are_refused(self, state):
        with pytest.raises(ValueError, match="no checkpoint of the official DDF networks"):
            compat.load_official(state)

    def test_code_in_a_file_is_not_run(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return exec, ("raise SystemExit",)

        torch.save({"state_dict": Trap()}, tmp_path / "trap.pth")
        with pytest.raises(ValueError, match=r"trap\.pth: it must hold weights alone, and code in it is not run, got"):
            compat.load_official(tmp_path / "trap.pth")

    def test_files_that_are_missing_or_broken_are_one_line(self, tmp_path):
        for name in ("none.pth", "broken.pth", "broken.safetensors", "folder"):
            if name.startswith("broken"):
                (tmp_path / name).write_bytes(b"no weights")
            (tmp_path / "folder").mkdir(exist_ok=True)
            with pytest.raises(ValueError) as raised:
                compat.load_official(tmp_path / name)
            line = str(raised.value)
            assert line.startswith(f"{tmp_path / name}: ") and "\n" not in line
        with pytest.raises(ValueError, match="its weights must be tensors by name, got int for 'x'"):
            compat.load_official({**compat.DDFPack(16).state_dict(), "x": 3})

    def test_safetensors_files_need_the_package(self, tmp_path, monkeypatch):
        (tmp_path / "model.safetensors").touch()
        monkeypatch.setitem(sys.modules, "safetensors", None)
        with pytest.raises(ModuleNotFoundError, match=r"needs safetensors: pip install 'ddfnet\[upsample\]'"):
            compat.load_official(tmp_path / "model.safetensors")


def test_a_file_without_a_state_dict_is_refused(tmp_path) -> None:
    file = tmp_path / "tensor.pth"
    torch.save(torch.zeros(3), file)
    with pytest.raises(ValueError, match="must hold a dict of names and tensors, got Tensor"):
        compat.load_official(file)
    with pytest.raises(ValueError, match="must hold a dict of names and tensors, got dict"):
        compat.load_official({0: torch.zeros(3)})


def test_memory_from_the_meta_device_gets_the_constructors_values() -> None:
    check_reset(lambda: compat.FilterNorm(8, 3, "spatial", "relu", True, True))
    check_reset(lambda: compat.DDFPack(8, head=2))
    check_reset_statistics(lambda: compat.DDFUpPack(16))


def test_compiled_training_has_symbols_for_sizes() -> None:
    model = torch.nn.Sequential(compat.DDFPack(8, head=2), compat.DDFUpPack(8))
    check_training_is_lowered(model, lambda n, h, w: (torch.randn(n, 8, h, w),))
