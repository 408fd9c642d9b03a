"""Compiled library alone: exported programs in a process without this package, and in one without Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ddfnet
from ddfnet.ops import library

pytestmark = pytest.mark.skipif(not library.load()[0], reason="no compiled library here")

EXAMPLE = Path(__file__).parents[2] / "examples/cpp/run_package.cpp"


class Network(nn.Module):
    """Both forms of the operator, with filters that come from the map."""

    def forward(self, x: Tensor) -> Tensor:
        channel = x.mean((2, 3))[:, :, None, None] * torch.ones(3, 3)
        y = ddfnet.ddf(x, channel, x[:, :1].expand(-1, 9, -1, -1), combine="add")
        return ddfnet.ddf_upsample(y, None, y[:, :1].expand(-1, 36, -1, -1).sigmoid(), kernel_size=3, scale_factor=2)


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    x, dim = torch.randn(2, 4, 9, 11), torch.export.Dim
    shapes = ({0: dim("n", min=1), 2: dim("h", min=2), 3: dim("w", min=2)},)
    return torch.export.export(Network(), (x,), dynamic_shapes=shapes)


@pytest.fixture(scope="module")
def package(program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler here")
    file = tmp_path_factory.mktemp("aoti") / "network.pt2"
    return Path(torch._inductor.aoti_compile_and_package(program, package_path=str(file)))


def counting(*shape: int) -> Tensor:
    return torch.linspace(0, 1, torch.Size(shape).numel()).reshape(shape)


def run_alone(load: str, file: Path, tmp_path: Path) -> Tensor:
    """Return what a file's program makes of `counting`, in a process that has loaded only the library."""
    code = (
        "import sys, torch\n"
        "import torch._inductor.codecache\n"  # torch 2.10.0's aoti_load_package does not import it
        f"torch.ops.load_library({str(ddfnet.ops.library_path())!r})\n"
        f"x = torch.linspace(0, 1, 3 * 4 * 6 * 7).reshape(3, 4, 6, 7)\n"
        f"y = {load}({str(file)!r})\n"
        "y = (y.module() if hasattr(y, 'module') else y)(x)\n"
        "assert not any(name.split('.')[0] == 'ddfnet' for name in sys.modules)\n"
        f"torch.save(y, {str(tmp_path / 'y.pt')!r})\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(tmp_path / "y.pt")


def test_an_exported_program_runs_without_the_package(program, tmp_path: Path) -> None:
    torch.export.save(program, tmp_path / "network.pt2")
    got = run_alone("torch.export.load", tmp_path / "network.pt2", tmp_path)
    torch.testing.assert_close(got, Network()(counting(3, 4, 6, 7)))


def test_a_compiled_program_runs_without_the_package(package: Path, tmp_path: Path) -> None:
    got = run_alone("torch._inductor.aoti_load_package", package, tmp_path)
    torch.testing.assert_close(got, Network()(counting(3, 4, 6, 7)))


@pytest.mark.skipif(not EXAMPLE.exists() or shutil.which("g++") is None, reason="needs the checkout and g++")
def test_a_compiled_program_runs_without_python(package: Path, tmp_path: Path) -> None:
    root = Path(torch.__file__).parent
    include = root / "include"
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"
    libraries = ["-ltorch", "-ltorch_cpu", "-lc10", "-ldl"]
    paths = ["-isystem", include, "-isystem", include / "torch/csrc/api/include", f"-L{root / 'lib'}"]
    link = [f"-Wl,-rpath,{root / 'lib'}", "-Wl,--no-as-needed"]
    binary = tmp_path / "run_package"
    subprocess.run(["g++", "-std=c++20", "-O0", abi, EXAMPLE, "-o", binary, *paths, *link, *libraries], check=True)
    command = [binary, ddfnet.ops.library_path(), package, "3", "4", "6", "7"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shape, _, total = done.stdout.strip().rpartition(" ")
    expected = Network()(counting(3, 4, 6, 7))
    assert shape == str(list(expected.shape))
    assert float(total) == pytest.approx(float(expected.double().sum()), rel=1e-5)
