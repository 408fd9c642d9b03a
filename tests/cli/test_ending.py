"""Ends of commands: SIGTERM, a reader that has gone, a backend that cannot serve, memory that is short."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("PIL")

from PIL import Image

from ddfnet.cli import env
from ddfnet.cli._common import SUMMARIES
from ddfnet.depth import io
from tests.upsampling import arguments, depth_map, names, pair

unix = pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
Command = Callable[..., "subprocess.Popen[str]"]

SLOW = """
import time
from ddfnet.depth.io.pillow import Png

def write_like(self, stream, values, source):
    stream.write(b"half of it")
    stream.flush()
    time.sleep({seconds})

Png.write_like = write_like
"""

FIRST = """
from pathlib import Path
from ddfnet.depth import tiling

context = tiling._context

def found(*arguments):
    Path({file!r}).touch()
    return context(*arguments)

tiling._context = found
"""


@pytest.fixture
def command() -> Iterator[Command]:
    """Return a function that starts a command, which ends with the test at the latest."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: object, **options: object) -> subprocess.Popen[str]:
        call = [sys.executable, "-m", "ddfnet", *map(str, words)]
        process = subprocess.Popen(call, text=True, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload]
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def until(found: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def slow_copy(tmp_path: Path, seconds: float) -> tuple[object, ...]:
    """Return the words of a command whose result needs no network and takes its time to be written."""
    (tmp_path / "slow.py").write_text(SLOW.format(seconds=seconds))
    depth, guide = pair(tmp_path)
    Image.open(guide).resize((8, 6)).save(guide)
    (tmp_path / "out").mkdir()
    return "--import", tmp_path / "slow.py", "upsample", depth, "--guide", guide, "-o", tmp_path / "out" / "a.png"


@unix
def test_sigterm_ends_a_command_with_143_and_leaves_no_part(tmp_path: Path, command: Command) -> None:
    process = command(*slow_copy(tmp_path, 600))
    until(lambda: any((tmp_path / "out").iterdir()), process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err, names(tmp_path / "out")) == (143, "", [])


@unix
@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell their processes apart")
def test_what_a_killed_command_left_is_removed_by_the_next(tmp_path: Path, command: Command) -> None:
    words = slow_copy(tmp_path, 600)
    process = command(*words)
    until(lambda: any((tmp_path / "out").iterdir()), process)
    living = command(*words)
    until(lambda: len(names(tmp_path / "out")) == 2, living)
    process.kill()
    process.communicate()
    assert len(names(tmp_path / "out")) == 2
    assert command(*words[2:]).wait(60) == 0
    left = names(tmp_path / "out")
    assert len(left) == 2 and left[1] == "a.png" and f"-{living.pid}-" in left[0]


@unix
def test_sigterm_ends_jobs_of_a_folder_at_their_next_tile(folder: Path, network: Path, command: Command) -> None:
    """These maps have 240 thousand tiles each, so the next one is long before their end."""
    for name in "abcd":
        Image.new("RGB", (1600, 1200)).save(folder / "rgb" / f"{name}.jpg")
        io.write(folder / "depth" / f"{name}.png", depth_map((300, 400)) % 999 + 1)
    words = arguments(folder, "--model", network, "--tile", 4, "--jobs", 2)
    (folder / "first.py").write_text(FIRST.format(file=str(folder / "first")))
    process = command("--import", folder / "first.py", "upsample", *words)
    until((folder / "first").exists, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err, names(folder / "out")) == (143, "", [])


@unix
@pytest.mark.parametrize(
    ("words", "environment"),
    [
        *((words, {}) for words in (("--help",), ("env",), *((name, "--help") for name in SUMMARIES))),
        (("env",), {"PYTHONUNBUFFERED": "1"}),  # where each line fails by itself
    ],
)
def test_a_reader_that_has_gone_is_no_traceback(
    words: tuple[str, ...], environment: dict[str, str], command: Command
) -> None:
    read, write = os.pipe()
    os.close(read)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = command(*words, stdout=write, env=buffered | environment)
    os.close(write)
    _, err = process.communicate()
    assert (process.returncode, err) == (141, "")


@unix
def test_a_reader_of_errors_that_has_gone_is_no_traceback(command: Command, tmp_path: Path) -> None:
    depth, guide = pair(tmp_path)
    read, write = os.pipe()
    os.close(read)
    call = [sys.executable, "-m", "ddfnet", "upsample", depth, "--guide", guide, "-o", tmp_path / "out.jpg"]
    done = subprocess.run(call, stdout=subprocess.PIPE, stderr=write)
    os.close(write)
    assert (done.returncode, done.stdout) == (141, b"")


@pytest.mark.parametrize(
    ("backend", "said"), [("triton", "cannot serve a tensor on cpu"), ("fastest", "DDFNET_BACKEND must be one of")]
)
@pytest.mark.parametrize("name", ["upsample", "bench"])
def test_a_backend_that_cannot_serve_is_one_line(
    tmp_path: Path, network: Path, command: Command, name: str, backend: str, said: str
) -> None:
    depth, guide = pair(tmp_path)
    words = {
        "upsample": ("upsample", depth, "--guide", guide, "-o", tmp_path / "out.png", "--model", network),
        "bench": ("bench", "op", "--case=tiny", "--rounds=1", "--no-compile"),
    }[name]
    process = command(*words, stdout=subprocess.DEVNULL, env=os.environ | {"DDFNET_BACKEND": backend})
    _, err = process.communicate()
    assert process.returncode == 1
    [line] = err.splitlines()
    assert line.startswith("ddfnet: error: ") and said in line


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=repr,
)
def test_memory_that_is_short_is_one_line(
    monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str], error: Exception
) -> None:
    def short() -> None:
        raise error

    monkeypatch.setattr(env, "collect", short)
    assert fails(1, "env").startswith("ddfnet: error: not enough memory; ")
