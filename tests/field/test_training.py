"""Training scripts: PyTorch's tools beside the plain loop."""

import copy
import io
import multiprocessing
import threading
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel, update_bn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from ddfnet.nn import DDF2d
from tests.field.conftest import gradients


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing(network, plain, images, use_reentrant):
    expected = gradients(plain, images)
    images = images.clone().requires_grad_()
    network.zero_grad()
    checkpoint_sequential(network, 3, images, use_reentrant=use_reentrant).square().sum().backward()
    torch.testing.assert_close([p.grad for p in network.parameters()], expected)


def test_saved_tensors_on_the_cpu(network, plain, images):
    expected = gradients(plain, images)
    with torch.autograd.graph.save_on_cpu():
        result = gradients(network, images)
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


def test_averaged_weights(network, images):
    average = AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    average.update_parameters(network)
    before = [parameter.clone() for parameter in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    gradients(network, images)
    optimizer.step()
    average.update_parameters(network)
    expected = [(old + new) / 2 for old, new in zip(before, network.parameters(), strict=True)]
    torch.testing.assert_close(list(average.parameters()), expected)
    update_bn([images], average)
    assert average.eval()(images).isfinite().all()


@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}], ids=str)
def test_optimizers(network, plain, images, options):
    for each in (network, plain):
        # Not Adam, which divides the rounding errors of gradients that are zero by their own size.
        how = options if each is network else {"foreach": False}
        optimizer = torch.optim.SGD(each.parameters(), lr=0.01, momentum=0.9, **how)
        for _ in range(3):
            gradients(each, images)
            optimizer.step()
    torch.testing.assert_close(list(network.parameters()), list(plain.parameters()))


def test_lbfgs_lowers_the_loss(network, images):
    network = network.eval().double()
    optimizer = torch.optim.LBFGS(network.parameters(), max_iter=10, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = (network(images.double()) - 1).square().mean()
        value.backward()
        return value

    first = optimizer.step(loss)
    assert loss() < 0.9 * first


def test_a_gradient_scaler(network, plain, images):
    expected = gradients(plain, images)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0)
    scaler.scale(network(images).square().sum()).backward()
    scaler.unscale_(optimizer)
    torch.testing.assert_close([p.grad for p in network.parameters()], expected, rtol=1e-4, atol=1e-5)


def test_anomaly_detection(network, plain, images):
    expected = gradients(plain, images)
    with warnings.catch_warnings(), torch.autograd.detect_anomaly():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(gradients(network, images), expected, rtol=0, atol=0)


def test_deterministic_algorithms(network, plain, images):
    expected = gradients(plain, images)
    torch.use_deterministic_algorithms(True)
    try:
        torch.testing.assert_close(gradients(network, images), expected, rtol=0, atol=0)
    finally:
        torch.use_deterministic_algorithms(False)


def test_backward_hooks_see_each_layer(network, images):
    seen = []
    for layer in network:
        layer.register_full_backward_hook(lambda layer, inputs, outputs: seen.append(type(layer).__name__))
    gradients(network, images)
    assert seen == [type(layer).__name__ for layer in reversed(network)]


def test_gradients_per_sample(network, images):
    network.eval()
    parameters = dict(network.named_parameters())

    def loss(parameters, image):
        return torch.func.functional_call(network, parameters, (image[None],)).square().sum()

    per_sample = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, images)
    for number, image in enumerate(images):
        expected = gradients(network, image[None])
        torch.testing.assert_close([g[number] for g in per_sample.values()], expected, rtol=1e-4, atol=1e-4)


def test_an_ensemble_by_vmap(network, images):
    networks = [network.eval(), copy.deepcopy(network)]
    for parameter in networks[1].parameters():
        parameter.data.add_(0.1)
    parameters, buffers = torch.func.stack_module_state(networks)
    run = torch.func.vmap(lambda p, b: torch.func.functional_call(network, (p, b), (images,)))
    expected = torch.stack([each(images) for each in networks])
    torch.testing.assert_close(run(parameters, buffers), expected, rtol=1e-4, atol=1e-4)


def test_ddp(network, plain, images, one_process):
    torch.testing.assert_close(gradients(DistributedDataParallel(network), images), gradients(plain, images))


def test_fsdp2(network, plain, images, one_process):
    mesh = dist.init_device_mesh("cpu", (1,))
    for layer in network:
        fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)
    network(images).square().sum().backward()
    result = [parameter.grad.full_tensor() for parameter in network.parameters()]
    torch.testing.assert_close(result, gradients(plain, images))


def test_synchronised_batch_norms(network, images):
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network)).eval()
    assert sum(isinstance(layer, nn.SyncBatchNorm) for layer in synchronised.modules()) == 3
    torch.testing.assert_close(synchronised(images), network.eval()(images))


@pytest.mark.parametrize("normalisation", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrised_branches(normalisation, images):
    layer = nn.Sequential(nn.Conv2d(3, 8, 1), DDF2d(8))
    convolution = next(each for each in layer[1].modules() if isinstance(each, nn.Conv2d))
    normalisation(convolution)
    before = layer(images)
    layer(images).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    assert (layer(images) - before).abs().max() > 1e-6


def test_pruned_branches(network, images):
    convolution = next(each for each in network[3].modules() if isinstance(each, nn.Conv2d))
    prune.l1_unstructured(convolution, "weight", amount=0.5)
    gradients(network, images)
    masked = network.eval()(images)
    prune.remove(convolution, "weight")
    torch.testing.assert_close(network(images), masked, rtol=0, atol=0)


def test_whole_modules_by_pickle(network, images):
    file = io.BytesIO()
    torch.save(network.eval(), file)
    file.seek(0)
    torch.testing.assert_close(torch.load(file, weights_only=False)(images), network(images), rtol=0, atol=0)


def test_training_after_inference_mode(network, plain, images):
    with torch.inference_mode():
        network.eval()(images)
    network.train()
    torch.testing.assert_close(gradients(network, images), gradients(plain, images), rtol=0, atol=0)


def test_weights_created_in_inference_mode(images):
    with torch.inference_mode():
        layer = DDF2d(3)
        first = layer(images)
    with torch.no_grad():
        torch.testing.assert_close(layer(images), first, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved"):  # as conv2d does
        layer(images)


def test_a_default_dtype_and_device():
    torch.set_default_dtype(torch.float64)
    try:
        layer = DDF2d(3)
        assert {parameter.dtype for parameter in layer.parameters()} == {torch.float64}
        assert layer(torch.randn(1, 3, 5, 5)).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert {parameter.device.type for parameter in DDF2d(3).parameters()} == {"meta"}


def test_threads_of_one_process(network, images):
    network.eval()
    with torch.no_grad():
        expected = network(images)
        results = []
        threads = [threading.Thread(target=lambda: results.append(run(network, images))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 8
    for result in results:
        torch.testing.assert_close(result, expected, rtol=0, atol=0)


def run(network, images):
    with torch.no_grad():
        return network(images)


def send(connection, network, images):
    connection.send(run(network, images).tolist())


def test_a_forked_process_after_the_operator_ran(network, images):
    expected = run(network.eval(), images)
    receive, give = multiprocessing.Pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns, because this process has threads
        process = multiprocessing.get_context("fork").Process(target=send, args=(give, network, images))
        process.start()
    assert receive.poll(60), "the forked process hangs"
    torch.testing.assert_close(torch.tensor(receive.recv()), expected)
    process.join(60)
    assert process.exitcode == 0


def test_a_checkpoint_inside_a_checkpoint(network, plain, images):
    expected = gradients(plain, images)
    network.zero_grad()

    def outer(x):
        return network[4:](checkpoint(network[:4], x, use_reentrant=False))

    checkpoint(outer, images, use_reentrant=False).square().sum().backward()
    torch.testing.assert_close([p.grad for p in network.parameters()], expected)
