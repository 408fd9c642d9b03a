"""Random problems for the kernels alone, without torch, on every instruction set that runs here."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "csrc/kernels"
HEADERS = sorted(path for path in KERNELS.rglob("*") if path.suffix in (".h", ".inl"))
ARM = ("aarch64", "arm64")
COMPILER = shutil.which("g++") or shutil.which("clang++")
ARM_COMPILER = shutil.which("aarch64-linux-gnu-g++")
ARM_EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
SANITIZERS = ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def run_kernels(folder: Path, rounds: int, compiler: str, flags: list[str], emulator: list[str]) -> set[str]:
    """Build and run ``run_kernels.cpp``, and return the instruction sets that passed."""
    sources = [*sorted(KERNELS.rglob("*.cpp")), Path(__file__).with_name("run_kernels.cpp")]
    command = [compiler, "-std=c++17", "-Wno-psabi", *flags]

    def compile(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        subprocess.run([*command, "-c", source, "-o", target], check=True)
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile, sources))
    program = folder / "run_kernels"
    subprocess.run([*command, *objects, "-o", program], check=True)
    done = subprocess.run([*emulator, program, str(rounds)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return set(re.findall(rf"^(\w+): {rounds} rounds$", done.stdout, re.MULTILINE))


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
def test_random_problems_under_sanitizers(tmp_path: Path) -> None:
    assert COMPILER is not None
    assert "baseline" in run_kernels(tmp_path, 400, COMPILER, SANITIZERS, [])


@pytest.mark.skipif(ARM_COMPILER is None or ARM_EMULATOR is None, reason="needs a compiler and an emulator for aarch64")
def test_random_problems_on_emulated_neon(tmp_path: Path) -> None:
    assert ARM_COMPILER is not None
    assert ARM_EMULATOR is not None
    flags = ["-O1", "-static"]  # static: the emulator then needs no ARM libraries
    assert run_kernels(tmp_path, 400, ARM_COMPILER, flags, [ARM_EMULATOR]) == {"neon", "baseline"}


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("header", HEADERS, ids=lambda header: str(header.relative_to(KERNELS)))
def test_a_header_includes_what_it_uses(header: Path) -> None:
    """Each parses alone, as an editor sees it."""
    family = next((family for family in ("x86", "neon") if header.stem.startswith(family)), None)
    compiler = ARM_COMPILER if family == "neon" and platform.machine() not in ARM else COMPILER
    if compiler is None or (family == "x86" and platform.machine() in ARM):
        pytest.skip("the header of an instruction set of another architecture")
    command = [compiler, "-std=c++17", "-fsyntax-only", "-Wno-psabi", "-x", "c++", "-"]
    done = subprocess.run(command, input=f'#include "{header}"\n', capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:4000]
