"""Predicted costs against numbers worked out by hand and against what PyTorch counts in real runs."""

import copy
import random
import threading

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from ddfnet.nn import DDF2d, DDFConv2d, DDFUpsample2d
from ddfnet.profiler import estimate


def layer_named(cost, name):
    (found,) = [layer for layer in cost.layers if layer.name == name]
    return found


def actual_saved_bytes(module, *inputs):
    """Return the bytes that autograd saves in a real forward pass, without the module's own and the inputs."""
    saved = []
    with saved_tensors_hooks(lambda tensor: saved.append(tensor.detach()) or saved[-1], lambda tensor: tensor):
        module(*inputs)
    memory = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in saved}
    for tensor in (*module.parameters(), *module.buffers(), *inputs):
        memory.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(memory.values())


def actual_flops(module, *inputs):
    with FlopCounterMode(display=False) as counter:
        output = module(*inputs)
        forward = counter.get_total_flops()
        output.backward(torch.ones_like(output))
    return forward, counter.get_total_flops()


class TestByHand:
    """DDF2d with 8 channels and a bottleneck of int(0.2*8) = 1, on 2 x 8 x 5 x 6 in float32."""

    reduce, expand, spatial = 2 * 2 * 8, 2 * 2 * 72, 2 * 2 * 30 * 8 * 9  # FLOPs of the 1x1 convolutions
    ddf = 3 * 9 * 2 * 8 * 30
    pooled, narrow, channel_filter, spatial_filter, output = (
        2 * 8 * 4,
        2 * 4,
        2 * 72 * 4,
        2 * 9 * 30 * 4,
        2 * 8 * 30 * 4,
    )

    @pytest.fixture
    def cost(self):
        return estimate(DDF2d(8, norm="none"), (2, 8, 5, 6))

    def test_parameters(self, cost):
        assert cost.parameters == (8 + 1) + (72 + 72) + (8 * 9 + 9)
        assert cost.parameter_bytes == 4 * cost.parameters
        assert [layer.parameters for layer in cost.layers] == [9, 0, 144, 81, 0]

    def test_flops(self, cost):
        forward = self.reduce + self.expand + self.spatial + self.ddf
        assert cost.predicted.flops == forward
        assert cost.predicted.macs == forward / 2
        # As much again for each weight, and for the maps that come from a weight: expand's input and both filters.
        assert cost.predicted.training_flops == 2 * forward + self.expand + self.ddf

    def test_saved_for_backward(self, cost):
        kept = self.pooled + self.narrow + self.channel_filter + self.spatial_filter
        assert cost.predicted.saved_bytes == kept
        assert cost.input_bytes == 2 * 8 * 30 * 4

    def test_peak(self, cost):
        assert cost.predicted.peak_bytes == self.channel_filter + self.spatial_filter + self.output

    def test_rows(self, cost):
        assert [(layer.name, layer.kind, layer.flops, layer.saved_bytes) for layer in cost.layers] == [
            ("channel.reduce", "Conv2d", self.reduce, self.pooled),
            ("channel.act", "ReLU", 0, self.narrow),
            ("channel.expand", "Conv2d", self.expand, 0),
            ("spatial.conv", "Conv2d", self.spatial, 0),
            ("(root)", "DDF2d", self.ddf, self.channel_filter + self.spatial_filter),
        ]
        last = cost.layers[-1]
        assert (last.inputs, last.outputs, last.output_bytes) == (((2, 8, 5, 6),), ((2, 8, 5, 6),), self.output)
        assert last.macs == 1.5 * 9 * 2 * 8 * 30

    @pytest.mark.parametrize("filters", ["spatial", "channel"])
    def test_one_filter_is_two_flops_a_tap(self, filters):
        cost = estimate(DDF2d(8, filters=filters), (2, 8, 5, 6))
        assert layer_named(cost, "(root)").flops == 2 * 9 * 2 * 8 * 30


@pytest.mark.parametrize(
    ("layer", "shapes"),
    [
        (DDF2d(16), [(2, 16, 14, 14)]),
        (DDF2d(16, static=True), [(2, 16, 14, 14)]),
        (DDF2d(16, 4, stride=2, heads=2, combine="add", norm="batch"), [(2, 16, 13, 14)]),
        (DDFConv2d(8, 12, 3, padding="same"), [(2, 8, 9, 9)]),
        (DDFUpsample2d(8, 3), [(2, 8, 7, 5)]),
        (DDFUpsample2d(8, guide_channels=3, guide_at="output"), [(2, 8, 7, 5), (2, 3, 20, 30)]),
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(), nn.GELU()), [(2, 3, 9, 9)]),
    ],
    ids=["DDF2d", "DDF2d static", "DDF2d add", "DDFConv2d", "DDFUpsample2d", "DDFUpsample2d guide", "Sequential"],
)
def test_predictions_come_true(layer, shapes):
    cost = estimate(layer, shapes, measure=True)
    inputs = [torch.randn(shape) for shape in shapes]
    flops, training_flops = actual_flops(copy.deepcopy(layer), *inputs)
    saved = actual_saved_bytes(copy.deepcopy(layer), *inputs)
    for totals in (cost.predicted, cost.measured):
        assert (totals.flops, totals.training_flops, totals.saved_bytes) == (flops, training_flops, saved)
    assert 0 < cost.predicted.peak_bytes <= cost.measured.peak_bytes
    assert cost.predicted.peak_bytes < cost.predicted.training_peak_bytes <= cost.measured.training_peak_bytes


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", ["ddf_mul_resnet50", "resnet50"])
def test_resnets(name, training):
    timm = pytest.importorskip("timm")
    import ddfnet.models  # noqa: F401  (registers them)

    model, x = timm.create_model(name, num_classes=10).train(training), torch.randn(2, 3, 64, 64)
    cost = estimate(model, tuple(x.shape), measure=training)
    flops, training_flops = actual_flops(model, x)
    for totals in (cost.predicted, cost.measured) if training else (cost.predicted,):
        assert (totals.flops, totals.training_flops) == (flops, training_flops)
        assert totals.saved_bytes == actual_saved_bytes(model, x)
    assert sum(layer.flops for layer in cost.layers) == flops
    assert sum(layer.saved_bytes for layer in cost.layers) == cost.predicted.saved_bytes
    assert sum(layer.parameters for layer in cost.layers) == cost.parameters
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_nothing_is_computed_or_allocated():
    cost = estimate(DDF2d(64, device="meta"), (2**10, 64, 2**14, 2**14))
    assert cost.predicted.peak_bytes == 2**46  # the output alone: the layer is one operator, which keeps no filters
    # The filters, and not the taps times the input: 9 values per pixel for all 64 channels.
    assert layer_named(cost, "(root)").saved_bytes == 4 * 2**10 * 9 * (2**28 + 64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_inputs_have_the_modules_dtype(dtype):
    cost = estimate(DDF2d(8, norm="none", dtype=dtype), (2, 8, 5, 6))
    assert cost.dtype == dtype
    assert (
        cost.predicted.saved_bytes
        == TestByHand().channel_filter * dtype.itemsize // 4 + (64 + 8 + 2160) * (dtype.itemsize) // 4
    )


def test_dtype_of_the_inputs():
    cost = estimate(nn.Embedding(10, 8), (5, 2), dtype=torch.long, measure=True)
    assert cost.input_bytes == 5 * 2 * 8
    assert cost.predicted.peak_bytes == cost.measured.peak_bytes == 5 * 2 * 8 * 4


class TestTheModuleIsLeftAlone:
    class Careless(nn.Module):
        """Draws, counts, and remembers, in every way that a forward pass may change something."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.dropout = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout()
            self.register_buffer("calls", torch.zeros(()))
            self.constants, self.count, self.last = [torch.ones(8, 1, 1)], 0, None

        def forward(self, x):
            self.calls += 1
            self.count += 1
            self.last = self.dropout(self.norm(self.conv(x))) * self.constants[0]
            return self.last * random.random()

    @pytest.mark.parametrize("measure", [False, True], ids=["predicted", "measured"])
    @pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
    def test_whatever_it_does(self, training, measure):
        model = self.Careless().train(training)
        model.conv.register_forward_hook(lambda *_: None)
        model.conv.weight.grad = torch.ones_like(model.conv.weight)
        state = copy.deepcopy(model.state_dict())
        attributes, hooks = dict(vars(model)), [dict(each._forward_hooks) for each in model.modules()]
        drawn, drawn_by_python = torch.get_rng_state(), random.getstate()
        estimate(model, (2, 3, 9, 9), measure=measure)
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
        assert vars(model) == attributes
        assert [dict(each._forward_hooks) for each in model.modules()] == hooks
        assert not any(each._forward_pre_hooks for each in model.modules())
        assert all(each.training == training for each in model.modules())
        assert torch.equal(model.conv.weight.grad, torch.ones_like(model.conv.weight))
        assert model.conv.bias.grad is None
        assert torch.equal(torch.get_rng_state(), drawn)
        assert random.getstate() == drawn_by_python

    def test_after_an_error_too(self):
        model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(4, 8, 3))
        state = copy.deepcopy(model.state_dict())
        with pytest.raises(ValueError):
            estimate(model, (2, 3, 9, 9))
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
        assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())

    @pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
    def test_gradients_are_estimated_where_they_are_off(self, off):
        model = DDF2d(8)
        expected = estimate(model, (2, 8, 5, 6)).predicted
        with off():
            assert estimate(model, (2, 8, 5, 6)).predicted == expected


def test_on_the_meta_device_it_is_as_on_the_cpu():
    on_meta, on_cpu = (estimate(DDF2d(8, device=device), (2, 8, 5, 6)) for device in ("meta", "cpu"))
    assert on_meta == on_cpu


def test_a_layer_that_is_called_twice_has_two_rows():
    conv = nn.Conv2d(8, 8, 3)
    cost = estimate(nn.Sequential(conv, nn.ReLU(), conv), (2, 8, 9, 9))
    assert [(layer.name, layer.parameters) for layer in cost.layers] == [("0", 584), ("1", 0), ("0#2", 0)]
    assert [layer.flops for layer in cost.layers] == [2 * 2 * 8 * 8 * 9 * size * size for size in (7, 0, 5)]
    assert cost.parameters == 584


def test_without_flops_or_parameters():
    cost = estimate(nn.ReLU(), (4, 3), measure=True)
    assert (cost.parameters, cost.predicted.flops, cost.predicted.training_flops, cost.predicted.saved_bytes) == (
        0,
    ) * 4
    assert cost.predicted.peak_bytes == cost.measured.peak_bytes == 4 * 3 * 4


def test_frozen_parameters_save_nothing():
    assert estimate(DDF2d(8).requires_grad_(False), (2, 8, 5, 6), measure=True).predicted.saved_bytes == 0


class Undone(nn.Module):
    """Makes a map whose graph is gone when the forward pass ends."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Conv2d(3, 8, 1), nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sigmoid())

    def forward(self, x):
        self.unused(x)
        return self.used(x).sigmoid()


def test_a_released_tensor_is_not_saved():
    cost = estimate(Undone(), (2, 3, 9, 9), measure=True)
    assert cost.predicted.saved_bytes == cost.measured.saved_bytes == 2 * 8 * 81 * 4


def test_the_training_peak_has_the_gradients_of_the_parameters():
    cost = estimate(nn.Sequential(nn.Linear(99, 99), nn.Linear(99, 99)), (1, 99), measure=True)
    assert cost.parameter_bytes < cost.predicted.training_peak_bytes <= cost.measured.training_peak_bytes


class Checkpointed(nn.Sequential):
    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=False)


def test_checkpointing_saves_its_input_and_computes_twice():
    layers = [nn.Conv2d(3, 8, 1), nn.Sigmoid(), nn.Conv2d(8, 8, 1), nn.Sigmoid()]
    plain = estimate(nn.Sequential(*layers), (2, 3, 9, 9))
    cost = estimate(nn.Sequential(layers[0], Checkpointed(*layers[1:])), (2, 3, 9, 9), measure=True)
    assert cost.predicted.saved_bytes == cost.measured.saved_bytes == 2 * 8 * 81 * 4 < plain.predicted.saved_bytes
    assert cost.predicted.training_flops == cost.measured.training_flops > plain.predicted.training_flops
    assert [layer.name for layer in cost.layers] == ["0", "1.0", "1.1", "1.2", "1"]


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_computed_weights(norm):
    cost = estimate(norm(nn.Linear(4, 8)), (5, 4), measure=True)
    assert cost.predicted.saved_bytes == cost.measured.saved_bytes > 0


def test_a_compiled_module_is_estimated_as_the_original():
    layer = nn.Linear(3, 4)
    assert estimate(torch.compile(layer), (2, 3)) == estimate(layer, (2, 3))


def test_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        cost = estimate(DDF2d(16), (2, 16, 9, 9), measure=True)
    assert cost.predicted.saved_bytes == cost.measured.saved_bytes
    assert layer_named(cost, "(root)").output_bytes == 2 * 16 * 81 * 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    cost = estimate(DDF2d(16, device="cuda"), (2, 16, 64, 64), measure=True)
    assert cost.predicted.saved_bytes == cost.measured.saved_bytes
    assert 0 < cost.predicted.peak_bytes <= cost.measured.peak_bytes


class Attention(nn.Module):
    """Eight heads of 128 queries, keys and values, each 64 long."""

    def __init__(self, mask=None, is_causal=False):
        super().__init__()
        self.queries, self.mask, self.is_causal = nn.Parameter(torch.randn(1, 8, 128, 64)), mask, is_causal

    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(
            self.queries + x, x, x, attn_mask=self.mask, is_causal=self.is_causal
        )


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Attention(), (1, 8, 128, 64)),
        (Attention(is_causal=True), (2, 8, 128, 64)),
        (Attention(mask=torch.zeros(128, 128)), (1, 8, 128, 64)),
        (nn.TransformerEncoderLayer(64, 8, batch_first=True), (2, 128, 64)),
        (nn.TransformerEncoderLayer(64, 8, batch_first=True).eval(), (2, 128, 64)),
    ],
    ids=["attention", "causal", "mask", "transformer, training", "transformer"],
)
def test_attention_is_counted_as_the_torch_that_is_there_counts_it(layer, shape):
    """On the CPU, FlopCounterMode of torch 2.15 counts it, and that of 2.14 does not."""
    flops, training_flops = actual_flops(copy.deepcopy(layer), torch.randn(shape))
    if isinstance(layer, Attention):
        # Two products of 128 x 64 x 128 for each head; the backward pass has five.
        product = 2 * shape[0] * 8 * 128 * 64 * 128
        assert (flops, training_flops) in {(2 * product, 7 * product), (0, 0)}
    cost = estimate(layer, shape, measure=True)
    for totals in (cost.predicted, cost.measured):
        assert (totals.flops, totals.training_flops) == (flops, training_flops)
    assert sum(row.flops for row in cost.layers) == flops


class Undecided(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Locked(nn.Identity):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


SHAPE = r"^input_shape must be a shape, as in \(8, 3, 224, 224\), or for several inputs a tuple of shapes, got "


@pytest.mark.parametrize(
    ("module", "shape", "error", "message"),
    [
        (nn.ReLU(), 3, ValueError, SHAPE + "3$"),
        (nn.ReLU(), "8x3", ValueError, SHAPE + "'8x3'$"),
        (nn.ReLU(), (2, -1), ValueError, SHAPE + r"\(2, -1\)$"),
        (nn.ReLU(), (2.0, 3), ValueError, SHAPE),
        (nn.ReLU(), ((2, 3), 3), ValueError, SHAPE),
        (
            nn.Sequential(nn.Conv2d(3, 8, 3), DDF2d(9)),
            (2, 3, 9, 9),
            ValueError,
            r"^1 \(DDF2d\) does not take 2x8x7x7, which it gets for input_shape 2x3x9x9: the input of DDF2d must be "
            r"\(N, C, H, W\) with C = 9",
        ),
        (nn.Conv2d(3, 8, 3), (2, 4, 9, 9), ValueError, r"^\(root\) \(Conv2d\) does not take 2x4x9x9.* 3 channels"),
        (DDF2d(4), ((2, 4, 9, 9), (2, 3, 9, 9)), ValueError, r"^\(root\) \(DDF2d\) does not take 2x4x9x9 \+ 2x3x9x9"),
        (nn.BatchNorm2d(3), (1, 3, 1, 1), ValueError, "more than 1 value per channel when training"),
        (
            nn.Sequential(nn.Tanh(), Undecided()),
            (2, 3),
            ValueError,
            r"^1 \(Undecided\) decides by the values of a tensor, .*; estimate the layers before and after it",
        ),
        (nn.LazyLinear(3), (2, 3), ValueError, "^weight must have a shape, got a lazy one; run the module once"),
        (Locked(), (2, 3), TypeError, "copy.deepcopy can copy, .* Locked is not: cannot pickle"),
        (torch.relu, (2, 3), TypeError, "^module must be a torch.nn.Module, got builtin_function_or_method$"),
    ],
    ids=lambda value: None if isinstance(value, (str, type)) else str(value)[:20],
)
def test_errors(module, shape, error, message):
    with pytest.raises(error, match=message):
        estimate(module, shape)


def test_errors_of_the_options():
    with pytest.raises(TypeError, match="^dtype must be a torch.dtype or None, got 'float32'$"):
        estimate(nn.ReLU(), (2, 3), dtype="float32")
    with pytest.raises(ValueError, match="^measure=True needs a module with memory, .* see nn.Module.to_empty$"):
        estimate(nn.Linear(3, 3, device="meta"), (2, 3), measure=True)


def test_it_prints_as_a_table():
    text = str(estimate(DDF2d(64), (2, 64, 56, 56), measure=True))
    title, layers, totals = text.split("\n\n")
    assert title == ("DDF2d on 2x64x56x56 float32, in training mode: 9.43 k parameters (36.83 KiB), inputs 1.53 MiB")
    assert "channel.norm    FilterNorm  2x576x1x1 -> 2x576x1x1" in layers
    assert "(root)          DDF2d       2x64x56x56 -> 2x64x56x56           0   5.42 M   1.53 MiB" in layers
    assert "forward FLOPs               18.09 M    18.09 M" in totals
    assert totals.splitlines()[-1].startswith("time, forward + backward          -  ")
    assert "measured" not in str(estimate(DDF2d(64).eval(), (2, 64, 56, 56)))
