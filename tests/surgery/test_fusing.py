"""`fuse` keeps the results of a model, but for rounding, and leaves the layers that it must not fold."""

import copy
import logging
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.export import Dim
from torch.nn.utils import prune

import ddfnet
from ddfnet.nn import DDF2d, DDFConv2d, DDFUpsample2d, FusedDDF2d
from ddfnet.surgery import fuse
from tests.alterations import ALTERATIONS, replace_forward


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def randomised(model):
    """Return the model as if it had been trained: every normalisation does something, and every bias."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.3)
        elif tensor.dim() == 1 and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return model


def norms(model):
    return [name for name, module in model.named_modules() if "BatchNorm" in type(module).__name__]


def kinds(model):
    return [type(module).__name__ for module in model]


def error(result, expected):
    return ((result - expected).abs().max() / expected.abs().max()).item()


def check(model, x, tolerance=1e-12):
    """Return the fused model after a check that it computes the same as the model in evaluation mode."""
    fused = fuse(model)
    expected = copy.deepcopy(model).eval()(x)
    assert expected.isfinite().all()
    assert error(fused(x), expected) < tolerance
    return fused


class TestNetworks:
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)], ids=str)
    @pytest.mark.parametrize("depth", [18, 50])
    @pytest.mark.parametrize("combine", ["mul", "add"])
    def test_ddf_resnets(self, combine, depth, dtype, tolerance):
        timm = pytest.importorskip("timm")
        import ddfnet.models  # noqa: F401

        name = f"ddf_{combine}_resnet{depth}"
        model = randomised(timm.create_model(name, num_classes=10, zero_init_last=False)).to(dtype).eval()
        fused = check(model, torch.randn(2, 3, 64, 48, dtype=dtype), tolerance)
        assert not norms(fused)
        layers = [layer for layer in fused.modules() if isinstance(layer, FusedDDF2d)]
        relus = [module for module in fused.modules() if type(module) is nn.ReLU]
        if depth == 18:  # a 1x1 convolution follows the filter and takes the batch norm
            assert not any(layer.relu for layer in layers)
        else:
            assert all(layer.relu for layer in layers)
            assert len(relus) == 1 + 2 * 16 + 16  # the stem's, two of three of a block, and the channel branch's

    @pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "regnetx_002"])
    def test_timms_own(self, name):
        timm = pytest.importorskip("timm")
        model = randomised(timm.create_model(name, num_classes=10)).double().eval()
        assert not norms(check(model, torch.randn(2, 3, 64, 64, dtype=torch.float64), 1e-10))

    def test_torchvisions(self):
        torchvision = pytest.importorskip("torchvision")
        model = randomised(torchvision.models.mobilenet_v3_small(num_classes=10)).double().eval()
        assert not norms(check(model, torch.randn(2, 3, 64, 64, dtype=torch.float64), 1e-10))

    def test_convolutions_of_timm_that_fx_cannot_follow_stay(self):
        timm = pytest.importorskip("timm")
        model = randomised(timm.create_model("tf_mobilenetv3_small_minimal_100", num_classes=10)).double().eval()
        fused = check(model, torch.randn(2, 3, 64, 64, dtype=torch.float64), 1e-10)
        same = [m for m in fused.modules() if isinstance(m, nn.Conv2d) and type(m) is not nn.Conv2d]
        assert len(norms(fused)) == len(same) < len(norms(model))

    @pytest.mark.parametrize("options", [{"features_only": True}, {"checkpointing": True}], ids=str)
    def test_what_timm_offers_besides(self, options):
        timm = pytest.importorskip("timm")
        checkpointing = options.pop("checkpointing", False)
        model = randomised(timm.create_model("resnet18", **options)).eval()
        if checkpointing:
            model.set_grad_checkpointing()
        fused, x = fuse(model), torch.randn(1, 3, 64, 64)
        assert not norms(fused)
        for result, expected in zip(fused(x), model(x), strict=True):
            assert error(result, expected) < 1e-4


LAYERS = {
    "conv": lambda: nn.Conv2d(8, 8, 3),
    "conv without bias": lambda: nn.Conv2d(8, 8, 3, bias=False),
    "conv grouped reflecting": lambda: nn.Conv2d(8, 8, 3, 2, 1, groups=4, padding_mode="reflect"),
    "transposed conv": lambda: nn.ConvTranspose2d(8, 8, 3, 2),
    "DDF2d": lambda: DDF2d(8),
    "DDF2d strided add": lambda: DDF2d(8, stride=2, combine="add", heads=2),
    "DDF2d same even": lambda: DDF2d(8, 2, padding="same", filters="spatial"),
    "DDF2d batch": lambda: DDF2d(8, norm="batch"),
    "DDFConv2d": lambda: DDFConv2d(8, 8, 3),
    "DDFConv2d without bias": lambda: DDFConv2d(8, 8, 3, bias=False),
    "DDFConv2d pointwise": lambda: DDFConv2d(8, 8, 3, pointwise=True, norm="batch"),
}
NORMS = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(8),
    "not affine": lambda: nn.BatchNorm2d(8, affine=False, eps=0.1),
    "SyncBatchNorm": lambda: nn.SyncBatchNorm(8),
    "FrozenBatchNorm2d": lambda: pytest.importorskip("torchvision").ops.FrozenBatchNorm2d(8),
    "BatchNormAct2d": lambda: pytest.importorskip("timm.layers").BatchNormAct2d(8, act_layer=nn.PReLU),
}


class TestLayers:
    x = torch.randn(2, 8, 9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    @pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
    @pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
    def test_a_batch_norm_is_folded(self, layer, norm):
        model = randomised(nn.Sequential(layer(), norm())).double()
        assert not norms(check(model, self.x))

    @pytest.mark.parametrize("norm", [True, False])
    @pytest.mark.parametrize("layer", [layer for name, layer in LAYERS.items() if "DDF" in name])
    def test_and_a_relu_into_filters_that_come_last(self, layer, norm):
        between = [nn.BatchNorm2d(8)] if norm else []
        model = randomised(nn.Sequential(layer(), nn.Identity(), *between, nn.Identity(), nn.ReLU())).double()
        fused = check(model, self.x)
        takes = not isinstance(fused[0], DDFConv2d) or fused[0].pointwise is None
        assert kinds(fused)[1:-1] == ["Identity"] * (len(model) - 2)
        assert kinds(fused)[-1] == ("Identity" if takes else "ReLU")

    def test_an_activation_in_a_batch_norm_comes_before_the_one_that_follows(self):
        layers = pytest.importorskip("timm.layers")
        model = nn.Sequential(DDF2d(8), layers.BatchNormAct2d(8, act_layer=nn.Softplus), nn.ReLU())
        assert kinds(check(randomised(model).double(), self.x)) == ["FusedDDF2d", "Sequential", "ReLU"]

    def test_what_follows_a_convolution_or_another_activation_stays(self):
        model = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), nn.BatchNorm2d(8), DDF2d(8), nn.GELU(), nn.ReLU())
        expected = ["FusedDDF2d" if kind == "DDF2d" else kind for kind in kinds(model)]
        assert kinds(check(randomised(model).double(), self.x)) == expected

    def test_a_fused_model_loads_the_state_of_another(self):
        build = lambda: nn.Sequential(nn.Conv2d(8, 8, 1), DDF2d(8), nn.BatchNorm2d(8), nn.ReLU()).double()  # noqa: E731
        one, other = (fuse(randomised(build())) for _ in range(2))
        assert error(other(self.x), one(self.x)) > 1e-3
        other.load_state_dict(one.state_dict())
        assert torch.equal(other(self.x), one(self.x))

    def test_a_layer_that_nothing_follows_is_one_operator_too(self):
        model = nn.Sequential(DDF2d(8), nn.Sigmoid()).double()
        assert kinds(check(model, self.x)) == ["FusedDDF2d", "Sigmoid"]
        assert type(fuse(DDF2d(8))) is FusedDDF2d

    @pytest.mark.parametrize("build", [lambda: DDF2d(8, norm="batch"), lambda: DDFUpsample2d(8, norm="batch")])
    def test_a_layer_by_itself(self, build):
        layer = randomised(build()).double()
        fused = check(layer, self.x)
        assert len(norms(layer)) == 2 and not norms(fused)

    def test_a_filter_that_was_folded_before_stays(self):
        norm = nn.BatchNorm2d(8)
        model = randomised(nn.Sequential(DDF2d(8), norm, nn.BatchNorm2d(8), nn.ReLU())).double()
        once = check(model, self.x)
        assert kinds(once) == ["FusedDDF2d", "Identity", "BatchNorm2d", "ReLU"]
        assert kinds(check(once, self.x)) == kinds(once)

    def test_rounded_once(self):
        model = randomised(nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), DDF2d(8), nn.BatchNorm2d(8)))
        fused, exact = fuse(model), fuse(copy.deepcopy(model).double())
        for part in ("0.weight", "0.bias", "2.epilogue_scale", "2.epilogue_shift"):
            assert torch.equal(fused.state_dict()[part], exact.state_dict()[part].float()), part


class Net(nn.Module):
    """A convolution and a batch norm, and whatever a case makes of them."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.ddf, self.ddf_norm = (
            nn.Conv2d(8, 8, 1),
            nn.BatchNorm2d(8),
            DDF2d(8),
            nn.BatchNorm2d(8),
        )
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.ddf_norm(self.ddf(self.norm(self.conv(x))))


class SharedConv(Net):
    def forward(self, x):
        return self.norm(self.conv(self.conv(x)))


class SharedNorm(Net):
    def forward(self, x):
        return self.norm(self.ddf(self.norm(self.conv(x))))


class SharedInside(Net):
    """Net with a convolution inside a layer that another layer has too."""

    def __init__(self):
        super().__init__()
        self.ddf = DDFConv2d(8, 8, 3, padding=1, pointwise=True)
        self.conv = self.ddf.pointwise

    def forward(self, x):
        return self.ddf_norm(self.ddf(self.conv(x)))


class TwoUsers(Net):
    def forward(self, x):
        x = self.conv(x)
        x = self.ddf(self.norm(x) + x)
        return self.ddf_norm(x) + x


class Reads(Net):
    def forward(self, x):
        x = nn.functional.conv2d(x, self.conv.weight)
        return self.norm(self.conv(x)) * self.ddf_norm.bias[:, None, None] + self.ddf_norm(self.ddf(x))


class Subclass(Net):
    """Weights that are normalised before they are used."""

    class Standardised(nn.Conv2d):
        def forward(self, x):
            return self._conv_forward(x, self.weight / self.weight.norm(), self.bias)

    def __init__(self):
        super().__init__()
        self.conv = self.Standardised(8, 8, 1)
        self.ddf_norm.register_forward_hook(lambda module, args, output: None)


class Parametrised(Net):
    def __init__(self):
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.conv)
        self.ddf_norm.register_forward_pre_hook(lambda module, args: None)


class Pruned(Net):
    def __init__(self):
        super().__init__()
        prune.random_unstructured(self.conv, "weight", 0.5)
        self.ddf.channel.expand.register_forward_hook(lambda module, args, output: None)


class NoStatistics(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(8, track_running_stats=False)
        self.ddf_norm = nn.BatchNorm2d(8, track_running_stats=False)


class Watched(Net):
    """Net with modules whose hooks change their inputs and outputs."""

    def __init__(self):
        super().__init__()
        self.inner, self.other = nn.Sequential(self.conv), nn.Sequential(nn.Identity(), self.ddf, self.ddf_norm)
        self.inner.register_forward_hook(lambda module, args, output: output * 2)
        self.other.register_forward_pre_hook(lambda module, args: (args[0] * 2,))

    def forward(self, x):
        return self.other(self.norm(self.inner(x)))


class WatchedBetween(Net):
    def __init__(self):
        super().__init__()
        self.between, self.filtered = nn.Identity(), nn.Identity()
        self.between.register_forward_hook(lambda module, args, output: output * 2)
        self.filtered.register_forward_pre_hook(lambda module, args: (args[0] * 2,))

    def forward(self, x):
        return self.ddf_norm(self.filtered(self.ddf(self.norm(self.between(self.conv(x))))))


class GroupedTransposed(Net):
    def __init__(self):
        super().__init__()
        self.conv, self.ddf = nn.ConvTranspose2d(8, 8, 1, groups=4), nn.Sequential(DDF2d(8), nn.Dropout())


STAY = [
    SharedConv,
    SharedNorm,
    SharedInside,
    TwoUsers,
    Reads,
    Subclass,
    Parametrised,
    Pruned,
    NoStatistics,
    Watched,
    WatchedBetween,
    GroupedTransposed,
]


@pytest.mark.parametrize("net", STAY)
def test_what_must_not_be_folded_stays(net):
    torch.manual_seed(0)
    model = randomised(net()).double()
    fused = check(model, torch.randn(2, 8, 6, 7, dtype=torch.float64))
    assert norms(fused) == norms(model)


ALTERED = {
    "a convolution": lambda net: net.conv,
    "the filter of a DDF2d": lambda net: net.ddf.spatial.conv,
    "the bottleneck of a DDF2d": lambda net: net.ddf.channel.reduce,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("alter", ALTERATIONS.values(), ids=ALTERATIONS)
@pytest.mark.parametrize("choose", ALTERED.values(), ids=ALTERED)
def test_layers_that_compute_something_else_stay(choose, alter):
    torch.manual_seed(0)
    model = randomised(Net())
    alter(choose(model))
    # Before pruning or the old weight norm has run once, its tensors are no leaves and copy.deepcopy refuses them.
    model = model.double().eval()
    x = torch.randn(2, 8, 6, 7, dtype=torch.float64)
    expected = model(x)
    fused = fuse(model)
    assert error(fused(x), expected) < 1e-12
    altered = "norm" if choose(model) is model.conv else "ddf_norm"
    assert norms(fused) == [altered]


@pytest.mark.parametrize("name", ["norm", "ddf_norm", "ddf", "relu", "ddf.spatial.norm", "ddf.channel.act"])
def test_other_layers_whose_forward_was_replaced_stay(name):
    class WithReLU(Net):
        def forward(self, x):
            return self.relu(super().forward(x))

    torch.manual_seed(0)
    model = randomised(WithReLU()).double().eval()
    replace_forward(model.get_submodule(name))
    x = torch.randn(2, 8, 6, 7, dtype=torch.float64)
    expected = model(x)
    assert error(fuse(model)(x), expected) < 1e-12


def test_otherwise_these_are_folded():
    assert not norms(check(randomised(Net()).double(), torch.randn(2, 8, 6, 7, dtype=torch.float64)))


def test_a_relu_that_is_called_twice_stays_where_its_batch_norm_goes():
    class Twice(Net):
        def forward(self, x):
            return self.relu(self.ddf_norm(self.ddf(self.relu(self.norm(self.conv(x))))))

    fused = check(randomised(Twice()).double(), torch.randn(2, 8, 6, 7, dtype=torch.float64))
    assert not norms(fused) and type(fused.relu) is nn.ReLU and not fused.ddf.relu


def test_a_module_of_two_names_goes_under_both():
    model = Net()
    model.alias = nn.ModuleList([model.norm, model.norm])
    fused = check(randomised(model).double(), torch.randn(2, 8, 6, 7, dtype=torch.float64))
    assert not norms(fused) and len(fused.alias) == 2


class Masked(Net):
    """With a mask the batch norm does not follow the convolution; fx takes any argument for a tensor."""

    def forward(self, x, mask=None, *, twice=False):
        x = self.conv(x)
        if mask is not None:
            x = x * mask
        if twice:
            x = self.norm(x)
        return self.norm(x)


def test_arguments_have_their_defaults():
    fused = check(randomised(Masked()).double(), torch.randn(2, 8, 6, 7, dtype=torch.float64))
    assert norms(fused) == ["ddf_norm"]  # it is not called


class TestTheModelStays:
    @pytest.mark.parametrize("training", [True, False])
    def test_as_it_was(self, training):
        class Remembers(Net):
            def forward(self, x):
                self.last = x + torch.ones(1)
                self.times += 1
                return super().forward(self.last)

        calls = []
        model = randomised(Remembers()).train(training)
        model.times, model.last = 3, None
        model.ddf.eval()
        model.relu.register_forward_hook(lambda *_: calls.append(None))
        model.register_forward_hook(lambda *_: calls.append(None))
        state = copy.deepcopy(model.state_dict())
        modules = {name: (id(module), module.training) for name, module in model.named_modules()}
        tensors = {name: (id(p), p.requires_grad, p._version) for name, p in model.named_parameters()}
        fused = fuse(model)

        assert {name: (id(module), module.training) for name, module in model.named_modules()} == modules
        assert {name: (id(p), p.requires_grad, p._version) for name, p in model.named_parameters()} == tensors
        assert state.keys() == model.state_dict().keys()
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
        assert (model.times, model.last, calls) == (3, None, [])
        assert (fused.times, fused.last, len(fused._forward_hooks)) == (3, None, 1)
        assert fused.__dict__.keys() == model.__dict__.keys()
        addresses = {tensor.data_ptr() for tensor in model.state_dict().values()}
        assert addresses.isdisjoint(tensor.data_ptr() for tensor in fused.state_dict().values())

    def test_the_copy_is_for_inference(self):
        fused = fuse(Net().train())
        assert type(fused) is Net
        assert not any(module.training for module in fused.modules())
        assert not any(parameter.requires_grad for parameter in fused.parameters())


class TestErrors:
    def test_control_flow(self):
        class Branches(Net):
            def forward(self, x):
                return self.conv(x) if x.mean() > 0 else x

        message = (
            "fuse needs a model that torch.fx can trace, and this Branches is none: symbolically traced variables "
            r"cannot be used as inputs to control flow; fuse a submodule .* model.backbone = fuse\(model.backbone\)"
        )
        with pytest.raises(NotImplementedError, match=message):
            fuse(Branches())

    def test_a_list_that_keeps_the_batch_norm(self):
        class Listed(Net):
            def __init__(self):
                super().__init__()
                self.layers = [self.conv, self.norm]

            def forward(self, x):
                for layer in self.layers:
                    x = layer(x)
                return x

        with pytest.raises(NotImplementedError, match="this Listed is none: module is not installed as a submodule"):
            fuse(Listed())

    def test_what_is_no_model(self):
        with pytest.raises(TypeError, match=r"^model must be a torch\.nn\.Module, got str$"):
            fuse("x")

    def test_an_attribute_of_the_batch_norm(self):
        class Asks(Net):
            def forward(self, x):
                return super().forward(x) * self.norm.eps

        with pytest.raises(NotImplementedError, match="this Asks is none: 'Identity' object has no attribute 'eps'"):
            fuse(Asks())


class TestTheCopyIsAModel:
    @pytest.fixture
    def model(self):
        layers = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            DDF2d(8),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            DDFConv2d(8, 8, 3, 2, 1),
            nn.BatchNorm2d(8),
            DDFConv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16),
        )
        return randomised(nn.Sequential(*layers)).eval()

    @pytest.fixture
    def x(self):
        return torch.randn(2, 3, 16, 20)

    def test_saved_and_loaded(self, model, x, tmp_path):
        fused, other = fuse(model), fuse(randomised(copy.deepcopy(model)))
        assert not torch.equal(other(x), fused(x))
        torch.save(fused.state_dict(), tmp_path / "fused.pth")
        assert other.load_state_dict(torch.load(tmp_path / "fused.pth")).missing_keys == []
        assert torch.equal(other(x), fused(x))

    def test_copied(self, model, x):
        fused = fuse(model)
        assert torch.equal(copy.deepcopy(fused)(x), fused(x))

    def test_compiled(self, model, x):
        torch._dynamo.reset()
        compiled = torch.compile(fuse(model), fullgraph=True, backend="aot_eager")
        assert error(compiled(x), model(x)) < 1e-4

    def test_exported(self, model, x):
        shapes = ({0: Dim("n", max=64), 2: Dim("h", min=8, max=512), 3: Dim("w", min=8, max=512)},)
        program = torch.export.export(fuse(model), (x,), dynamic_shapes=shapes)
        x = torch.randn(3, 3, 18, 13)
        assert error(program.module()(x), model(x)) < 1e-4

    def test_channels_last(self, model, x):
        fused = fuse(model.to(memory_format=torch.channels_last))
        assert fused[0].weight.is_contiguous(memory_format=torch.channels_last)
        result = fused(x.to(memory_format=torch.channels_last))
        assert result.is_contiguous(memory_format=torch.channels_last)
        assert error(result, model(x)) < 1e-4

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_half_types(self, model, x, dtype):
        expected = model(x)
        for fused in (fuse(model).to(dtype), fuse(copy.deepcopy(model).to(dtype))):
            assert {t.dtype for t in fused.state_dict().values() if t.is_floating_point()} == {dtype}
            assert error(fused(x.to(dtype)).float(), expected) < 20 * torch.finfo(dtype).eps
        with torch.autocast("cpu", dtype):
            assert error(fuse(model)(x).float(), expected) < 20 * torch.finfo(dtype).eps

    def test_on_meta(self, model, x):
        fused = fuse(model.to("meta"))
        assert not norms(fused) and fused(x.to("meta")).shape == (2, 16, 8, 10)


def test_the_log_says_what_was_folded(caplog):
    with caplog.at_level(logging.INFO, "ddfnet.surgery"):
        fuse(nn.Sequential(DDF2d(8, norm="batch"), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8)))
    assert caplog.messages == [
        "0.spatial.conv: folded 0.spatial.norm",
        "0.channel.expand: folded 0.channel.norm",
        "0: folded 1 and 2",
        "3: stays",
    ]


def test_importing_the_package_does_not_import_it():
    code = "import sys, ddfnet; assert 'ddfnet.surgery' not in sys.modules; ddfnet.surgery.fuse(ddfnet.nn.DDF2d(4))"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "surgery" in ddfnet.__all__
