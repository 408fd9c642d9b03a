"""Choice of the kernel, and the messages without one."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator

import pytest
import torch

import ddfnet
from ddfnet.ops import backends, library, registration
from ddfnet.ops.geometry import Geometry
from tests.ops.cases import FORMATS


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Register again what the choice in force asks for, after the test has undone its changes."""
    yield
    backends.refresh()


X, CHANNEL = torch.randn(1, 4, 5, 5), torch.randn(1, 4, 3, 3)


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    import os

    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_an_unknown_name_is_refused_at_the_call() -> None:
    with pytest.raises(ValueError, match="backend must be one of 'auto', 'cpu', 'triton', 'reference', got 'fast'"):
        ddfnet.ops.backend("fast")


def test_an_unknown_name_in_the_environment_is_refused_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDFNET_BACKEND", "fast")
    backends.refresh()
    with pytest.raises(ValueError, match="DDFNET_BACKEND must be one of 'auto', .* got 'fast'"):
        ddfnet.ddf(X, CHANNEL, None)


def test_the_context_goes_before_the_environment_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDFNET_BACKEND", "reference")
    assert backends.resolve(X.device)[0] == "reference"
    with ddfnet.ops.backend("auto"), ddfnet.ops.backend("triton"):
        assert backends.chosen() == "triton"
    assert backends.chosen() == "reference"
    with pytest.raises(RuntimeError, match="inner"), ddfnet.ops.backend("cpu"):
        raise RuntimeError("inner")
    assert backends.chosen() == "reference"


def test_blocks_that_are_left_in_another_order_leave_no_choice_behind() -> None:
    """Two threads enter blocks, and the first to enter is the first to leave."""
    before = backends.chosen()
    first, second = ddfnet.ops.backend("reference"), ddfnet.ops.backend("triton")
    first.__enter__()
    second.__enter__()
    assert backends.chosen() == "triton"
    first.__exit__(None, None, None)
    assert backends.chosen() == "triton"
    second.__exit__(None, None, None)
    assert backends.chosen() == before


def test_blocks_of_one_name_are_told_apart() -> None:
    first, second, third = (ddfnet.ops.backend(name) for name in ("reference", "auto", "reference"))
    for block in (first, second, third):
        block.__enter__()
    third.__exit__(None, None, None)
    assert backends.chosen() == "auto"
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)


def test_a_look_up_and_a_change_of_the_choice_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that has looked up the reference must not enter it after another has chosen something else."""
    resolve, looked_up = backends.resolve, threading.Event()

    def slow(device: torch.device) -> tuple[str, str]:
        result = resolve(device)
        looked_up.set()
        threading.Event().wait(0.2)
        return result

    with ddfnet.ops.backend("reference"):
        monkeypatch.setattr(backends, "resolve", slow)
        thread = threading.Thread(target=backends.kernels, args=(X.device,))
        thread.start()
        assert looked_up.wait(10)
        with (
            ddfnet.ops.backend("triton"),
            pytest.raises(NotImplementedError, match="'triton' was asked for"),
        ):
            ddfnet.ddf(X, CHANNEL, None)
        thread.join()


@pytest.mark.skipif(not library.can_run(torch.device("cpu"))[0], reason="no compiled kernel here")
@pytest.mark.parametrize("memory_format", FORMATS)
def test_with_other_threads_the_compiled_kernel_serves_by_way_of_the_python_kernel(
    memory_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch frees a kernel while another thread runs it, so the dispatcher must keep what it has."""
    flat = Geometry((3, 3), padding=(1, 1)).flat()
    tensors = [torch.randn(2, n, 5, 6).contiguous(memory_format=FORMATS[memory_format]) for n in (4, 9)]
    tensors.insert(1, torch.randn(2, 4, 3, 3))

    def results() -> list[torch.Tensor]:
        gradients = registration.ddf_backward(tensors[0], *tensors, *flat, [True, True, False])
        return [registration.ddf(*tensors, *flat), *gradients]

    with ddfnet.ops.backend("cpu"):
        expected = results()
        monkeypatch.setattr(backends, "_only_one_thread", lambda: False)
        with ddfnet.ops.backend("reference"):
            assert not backends.is_compiled(X.device)
        assert backends._override is not None
        assert backends.is_compiled(X.device)
        for got, wanted in zip(results(), expected, strict=True):
            assert torch.equal(got, wanted)
            assert got.stride() == wanted.stride()
        monkeypatch.undo()
        backends.refresh()
        assert backends._override is None


def test_calls_while_other_threads_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call is served, whatever the choice is at that moment, and none is left in the end."""
    monkeypatch.setattr(backends, "_only_one_thread", lambda: False)
    before, expected = backends.chosen(), ddfnet.ddf(X, CHANNEL, None)
    failed: list[Exception] = []
    done = threading.Event()

    def choose(name: str) -> None:
        while not done.is_set():
            with ddfnet.ops.backend(name):
                pass

    def call() -> None:
        try:
            while not done.is_set():
                torch.testing.assert_close(ddfnet.ddf(X, CHANNEL, None), expected)
        except Exception as error:
            failed.append(error)

    with ddfnet.ops.backend("reference"):
        pass  # the first choice is made before the threads start
    threads = [threading.Thread(target=choose, args=(name,)) for name in ("reference", "auto")]
    threads += [threading.Thread(target=call) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without the compiled kernel the reference warns
        for thread in threads:
            thread.start()
        done.wait(1)
        done.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert backends.chosen() == before


def test_a_backend_chosen_by_name_does_not_fall_back() -> None:
    with (
        ddfnet.ops.backend("triton"),
        pytest.raises(NotImplementedError, match="'triton' was asked for and cannot serve a tensor on cpu"),
    ):
        ddfnet.ddf(X, CHANNEL, None)


def test_the_choice_holds_in_compiled_graphs() -> None:
    compiled = torch.compile(lambda x: ddfnet.ddf(x, CHANNEL, None), backend="aot_eager")
    compiled(X)
    with ddfnet.ops.backend("triton"), pytest.raises(NotImplementedError, match="'triton' was asked for"):
        compiled(X)


def test_the_cpu_kernel_serves_no_other_device() -> None:
    assert library.can_run(torch.device("cuda", 0)) == (False, "the compiled kernel serves the CPU alone")


def test_without_the_compiled_kernel_the_reference_serves_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ddfnet.ddf(X, CHANNEL, None)
    monkeypatch.setenv("DDFNET_BACKEND", "auto")
    monkeypatch.setattr(library, "load", lambda: (False, "the compiled kernel was not built: no compiler"))
    monkeypatch.setattr(backends, "_warned", set())
    backends.refresh()
    with pytest.warns(UserWarning, match="PyTorch reference on cpu.* was not built: no compiler"):
        got = ddfnet.ddf(X, CHANNEL, None)
    torch.testing.assert_close(got, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ddfnet.ddf(X, CHANNEL, None)
    with ddfnet.ops.backend("cpu"), pytest.raises(NotImplementedError, match="'cpu' was asked for .* no compiler"):
        ddfnet.ddf(X, CHANNEL, None)


def test_a_kernel_that_does_not_load_is_a_reason_and_no_error(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "libddfnet.so"
    file.write_bytes(b"not a library")
    monkeypatch.setattr(library, "_FILE", file)
    ok, reason = library.load.__wrapped__()
    assert not ok
    assert "libddfnet.so does not load" in reason


def test_import_does_no_work() -> None:
    code = (
        "import sys, ddfnet\n"
        "heavy = {'timm', 'torchvision', 'lightning', 'torch._dynamo', 'ddfnet.models', 'ddfnet.ops.triton'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = run(code)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.skipif(not library.can_run(torch.device("cpu"))[0], reason="no compiled kernel here")
def test_an_instruction_set_that_is_not_there_is_said() -> None:
    code = "import torch, ddfnet; ddfnet.ddf(torch.randn(1, 1, 2, 2), torch.randn(1, 1, 1, 1), None)"
    done = run(code, DDFNET_CPU_ISA="avx1024", DDFNET_BACKEND="cpu")
    assert "BackendError: " in done.stderr
    assert "DDFNET_CPU_ISA='avx1024' is not an instruction set that runs here: " in done.stderr
