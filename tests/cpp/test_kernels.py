"""The kernels alone, under AddressSanitizer and UndefinedBehaviorSanitizer, each instruction set that runs here."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("g++") or shutil.which("clang++")
FLAGS = ["-std=c++17", "-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-Wno-psabi"]


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
def test_random_problems_under_sanitizers(tmp_path: Path) -> None:
    sources = [*sorted((ROOT / "csrc/kernels").glob("*.cpp")), Path(__file__).with_name("run_kernels.cpp")]

    def compile(source: Path) -> Path:
        target = tmp_path / f"{source.stem}.o"
        subprocess.run([COMPILER, *FLAGS, "-c", source, "-o", target], check=True)
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile, sources))
    program = tmp_path / "run_kernels"
    subprocess.run([COMPILER, *FLAGS, *objects, "-o", program], check=True)
    done = subprocess.run([program, "400"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "baseline: 400 rounds" in done.stdout
