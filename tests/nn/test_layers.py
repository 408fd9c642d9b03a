"""Promises of every layer: dtypes, devices, memory formats, empty batches, copies, and PyTorch's transformations."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.export import Dim

from ddfnet.family import CARAFE, DySample
from ddfnet.nn import DDF2d, DDFConv2d, DDFUpsample2d, FilterNorm
from tests.inductor import check_training_is_lowered

# Options for the constructor, and the channels of the inputs; the second input of a layer is a guide thrice the size.
CASES = {
    "CARAFE": (CARAFE, (8,), {"up_group": 2, "up_kernel": 3, "compressed_channels": 4}, (8,)),
    "DySample": (DySample, (8,), {"dyscope": True}, (8,)),
    "DySample pl": (DySample, (8, 2, "pl", 2), {}, (8,)),
    "DDF2d": (DDF2d, (8,), {}, (8,)),
    "DDF2d softmax add": (DDF2d, (8,), {"heads": 2, "stride": 2, "norm": "softmax", "combine": "add"}, (8,)),
    "DDF2d batch even": (DDF2d, (8, 4), {"padding": 0, "norm": "batch"}, (8,)),
    "DDF2d sigmoid wide": (DDF2d, (8, 3), {"padding": 2, "norm": "sigmoid", "filters": "spatial"}, (8,)),
    "DDF2d none same": (DDF2d, (8, 2), {"padding": "same", "norm": "none", "filters": "channel"}, (8,)),
    "DDFConv2d": (DDFConv2d, (8, 12, 3), {"padding": 1}, (8,)),
    "DDFConv2d depthwise": (DDFConv2d, (8, 8, 3), {"padding": "same"}, (8,)),
    "DDFUpsample2d": (DDFUpsample2d, (8,), {}, (8,)),
    "DDFUpsample2d guide": (DDFUpsample2d, (8,), {"guide_channels": 3}, (8, 3)),
    "DDFUpsample2d output": (
        DDFUpsample2d,
        (8, (2, 3)),
        {"guide_channels": 3, "guide_at": "output", "heads": 4},
        (8, 3),
    ),
}


class Case:
    def __init__(self, layer, arguments, options, channels):
        self.build = lambda **factory: layer(*arguments, **options, **factory)
        self.layer = self.build().eval()
        self.channels = channels

    def inputs(self, n=2, height=9, width=11):
        scales = (1, 3)[: len(self.channels)]
        return tuple(torch.randn(n, c, height * s, width * s) for c, s in zip(self.channels, scales, strict=True))


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    return Case(*request.param)


def error(result, expected):
    return ((result.float() - expected).abs().max() / expected.abs().max()).item()


def numpy_ints(value):
    """Return the value with numpy's integers for Python's."""
    if isinstance(value, tuple):
        return tuple(map(numpy_ints, value))
    return np.int64(value) if type(value) is int else value


@pytest.mark.parametrize("name", CASES)
def test_integers_of_numpy_are_integers(name):
    layer, arguments, options, channels = CASES[name]
    converted = {key: numpy_ints(value) for key, value in options.items()}
    expected = Case(layer, arguments, options, channels)
    got = layer(*numpy_ints(arguments), **converted).eval()
    got.load_state_dict(expected.layer.state_dict())
    inputs = expected.inputs()
    assert torch.equal(got(*inputs), expected.layer(*inputs))
    assert all(type(side) is int for key in ("kernel_size", "stride") for side in getattr(got, key, ()))


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged, torch.sparse_coo], ids=str)
def test_tensors_that_are_not_dense_are_a_type_error(case, layout):
    def convert(tensor):
        if layout == torch.sparse_coo:
            return tensor.to_sparse()
        return torch.nested.nested_tensor(list(tensor), layout=layout)

    inputs = case.inputs()
    for index in range(len(inputs)):
        wrong = [convert(tensor) if i == index else tensor for i, tensor in enumerate(inputs)]
        with pytest.raises(TypeError, match=r"must be a dense \(strided\) tensor, got"):
            case.layer(*wrong)
    with pytest.raises(TypeError, match="the input of FilterNorm must be a dense"):
        FilterNorm(1, 3, "spatial")(convert(torch.randn(2, 9, 4, 4)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_modules_and_autocast(case, dtype):
    inputs = case.inputs()
    expected = case.layer(*inputs)
    with torch.autocast("cpu", dtype):
        result = case.layer(*inputs)
    assert result.dtype == dtype
    assert error(result, expected) < 10 * torch.finfo(dtype).eps

    half = copy.deepcopy(case.layer).to(dtype)
    result = half(*(x.to(dtype) for x in inputs))
    assert result.dtype == dtype
    assert error(result, expected) < 10 * torch.finfo(dtype).eps
    result.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in half.parameters())


def test_every_parameter_has_a_gradient(case):
    layer = case.layer.train()
    layer(*case.inputs()).square().sum().backward()
    assert not [name for name, parameter in layer.named_parameters() if parameter.grad is None]
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_channels_last_stays_channels_last(case):
    inputs = case.inputs()
    expected = case.layer(*inputs)
    result = case.layer(*(x.to(memory_format=torch.channels_last) for x in inputs))
    assert expected.is_contiguous()
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert not result.is_contiguous()
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_an_empty_batch(case):
    shape = case.layer(*case.inputs()).shape
    result = case.layer(*(x.requires_grad_() for x in case.inputs(n=0)))
    assert result.shape == (0, *shape[1:])
    result.sum().backward()
    assert not any(parameter.grad.any() for parameter in case.layer.parameters())


def test_device_and_dtype_reach_every_parameter(case):
    layer = case.build(device="meta", dtype=torch.bfloat16)
    floating = [tensor for tensor in layer.state_dict().values() if tensor.is_floating_point()]
    assert {(tensor.device.type, tensor.dtype) for tensor in floating} == {("meta", torch.bfloat16)}
    assert layer(*(x.to("meta", torch.bfloat16) for x in case.inputs())).dtype == torch.bfloat16


def test_copies_and_state_dicts(case, tmp_path):
    inputs = case.inputs()
    expected = case.layer(*inputs)
    assert torch.equal(copy.deepcopy(case.layer)(*inputs), expected)
    torch.save(case.layer.state_dict(), tmp_path / "layer.pt")
    other = case.build().eval()
    other.load_state_dict(torch.load(tmp_path / "layer.pt", weights_only=True))
    assert torch.equal(other(*inputs), expected)


def test_compiled_once_for_many_sizes(case):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(case.layer, fullgraph=True, dynamic=True, backend=counter)
    compiled(*case.inputs(4, 10, 13)).sum().backward()  # all of them different, for equal sizes are taken to be one
    compilations = counter.frame_count
    for size in ((2, 9, 11), (3, 12, 14), (5, 13, 17)):
        inputs = case.inputs(*size)
        expected = case.layer(*inputs)
        result = compiled(*inputs)
        torch.testing.assert_close(result, expected)
        parameters = list(case.layer.parameters())
        gradients = (torch.autograd.grad(output.square().sum(), parameters) for output in (result, expected))
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-3)
    assert counter.frame_count == compilations > 0


def test_exported_with_dynamic_sizes(case):
    n, dims = Dim("n", max=64), [(Dim(f"h{i}", min=6, max=512), Dim(f"w{i}", min=6, max=512)) for i in range(2)]
    shapes = tuple({0: n, 2: dims[i][0], 3: dims[i][1]} for i in range(len(case.channels)))
    program = torch.export.export(case.layer, case.inputs(), dynamic_shapes=shapes)
    inputs = case.inputs(5, 17, 20)
    torch.testing.assert_close(program.module()(*inputs), case.layer(*inputs))


def test_functional_transformations(case):
    inputs, parameters = case.inputs(), dict(case.layer.named_parameters())

    def loss(parameters, *inputs):
        return torch.func.functional_call(case.layer, parameters, inputs).square().sum()

    whole = torch.func.grad(loss)(parameters, *inputs)
    loss(parameters, *inputs).backward()
    each = torch.func.vmap(torch.func.grad(loss), (None, *(0 for _ in inputs)))(
        parameters, *(x.unsqueeze(1) for x in inputs)
    )
    for name, parameter in parameters.items():
        torch.testing.assert_close(whole[name], parameter.grad, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(each[name].sum(0), parameter.grad, rtol=1e-3, atol=1e-2)

    if isinstance(case.layer, DySample):
        with pytest.raises(NotImplementedError, match="forward AD with grid_sampler_2d"):
            torch.func.jvp(case.layer, inputs, inputs)
        return
    layer = case.layer.double()
    inputs = tuple(x.double() for x in inputs)
    directions = tuple(torch.randn_like(x) for x in inputs)
    _, derivative = torch.func.jvp(layer, inputs, directions)
    ahead, behind = (layer(*(x + e * d for x, d in zip(inputs, directions, strict=True))) for e in (1e-6, -1e-6))
    torch.testing.assert_close(derivative, (ahead - behind) / 2e-6, rtol=1e-4, atol=1e-5)


def test_every_layer_has_its_own_filter_norm():
    net = nn.Sequential(DDF2d(4), DDFConv2d(4, 6, 3), DDFUpsample2d(6))
    norms = [module for module in net.modules() if isinstance(module, FilterNorm)]
    assert [norm.kind for norm in norms] == ["spatial", "channel"] * 3
    assert len(set(map(id, norms))) == 6


def test_layers_and_compat_need_torch_alone():
    code = (
        "import sys\n"
        "for name in ('timm', 'torchvision', 'safetensors', 'lightning', 'PIL'):\n"
        "    sys.modules[name] = None  # an import of it raises\n"
        "import ddfnet, ddfnet.nn, ddfnet.compat\n"
        "assert 'ddfnet.models' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Without DySample: the check's kernels do nothing, and grid_sample's gradient would read places that none has written.
@pytest.mark.parametrize("name", [name for name in CASES if CASES[name][0] is not DySample])
def test_compiled_training_has_symbols_for_sizes(name):
    case = Case(*CASES[name])
    check_training_is_lowered(case.layer.train(), case.inputs)


def test_compiled_training_of_dysample_goes_on_at_other_sizes():
    torch._dynamo.reset()
    model = nn.Sequential(DySample(8, dyscope=True), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    compiled = torch.compile(model)
    for size in ((12, 16), (16, 20)):
        x = torch.randn(2, 8, *size)
        parameters = list(model.parameters())
        gradients, expected = (torch.autograd.grad(each(x).square().mean(), parameters) for each in (compiled, model))
        torch.testing.assert_close(gradients, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("norm", ["batch", "sigmoid", "none"])
def test_compiled_training_of_several_heads_has_symbols_for_sizes(norm):
    check_training_is_lowered(DDF2d(8, heads=2, norm=norm), lambda n, h, w: (torch.randn(n, 8, h, w),))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("heads", [1, 2])
def test_compiled_training_goes_on_at_other_sizes(heads: int, memory_format: torch.memory_format) -> None:
    """Inductor makes its graph for any size at the second one."""
    torch._dynamo.reset()
    model = nn.Sequential(DDF2d(8, heads=heads), nn.Conv2d(8, 8, 3, padding=1))
    compiled = torch.compile(model)
    for size in ((12, 16), (16, 20), (20, 24)):
        x = torch.randn(2, 8, *size).to(memory_format=memory_format)
        parameters = list(model.parameters())
        gradients, expected = (torch.autograd.grad(each(x).square().mean(), parameters) for each in (compiled, model))
        torch.testing.assert_close(gradients, expected, rtol=1e-3, atol=1e-6)
