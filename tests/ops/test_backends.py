"""Choice of the kernel, and the messages without one."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator

import pytest
import torch

import ddfnet
from ddfnet.ops import backends, library


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
    assert "NotImplementedError" in done.stderr
    assert "DDFNET_CPU_ISA='avx1024' is not an instruction set that runs here: " in done.stderr
