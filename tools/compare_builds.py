"""Comparison of two builds of ddfnet, side by side: the cost of a call, of the import, and of ddf_mul_resnet50.

    python tools/compare_builds.py OLD NEW --json benchmarks/results/builds.json

OLD and NEW are checkouts with their libraries built. Each has a process of its own, and the two take turns: in each
round both run a case once, in a random order. A process keeps the memory that it happened to get, which can make all of
its rounds slow, so the rounds are spread over several pairs of processes. A ratio is the median over all rounds of
NEW's time over OLD's; on a busy machine the ratio of the least times is the steadier one.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CASES = {  # name -> calls per round
    "import": 1,
    "call, contiguous": 2000,
    "call, channels_last": 2000,
    **{f"{form}, batch {batch}": 8 // batch for form in ("eager", "fused", "compiled") for batch in (1, 8)},
    "training, batch 8": 1,
}
SEED = 0


def prepare(name: str) -> Callable[[], Any]:
    """Return the call of a case. It runs in a process that has one of the two builds on its path."""
    import torch

    import ddfnet

    torch.manual_seed(SEED)
    if name.startswith("call"):
        x, channel, spatial = torch.randn(1, 512, 7, 7), torch.randn(1, 512, 3, 3), torch.randn(1, 9, 7, 7)
        x = x.to(memory_format=torch.channels_last if "last" in name else torch.contiguous_format)
        return lambda: ddfnet.ddf(x, channel, spatial)
    import ddfnet.models
    import ddfnet.surgery

    model: Any = ddfnet.models.ddf_mul_resnet50().to(memory_format=torch.channels_last)
    images = torch.randn(int(name.split()[-1]), 3, 224, 224).to(memory_format=torch.channels_last)
    if name.startswith("training"):
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)

        def step() -> None:
            optimizer.zero_grad()
            model(images).logsumexp(1).mean().backward()
            optimizer.step()

        return step
    model.eval()
    if name.startswith("fused"):
        model = ddfnet.surgery.fuse(model)
    if name.startswith("compiled"):
        model = torch.compile(model)

    def forward() -> None:
        with torch.inference_mode():
            model(images)

    return forward


def serve() -> None:
    """Answer each line on stdin, a case's name, by the milliseconds per call of one round; a new case is warmed up."""
    call, current = None, ""
    for line in sys.stdin:
        name = line.strip()
        if name != current or call is None:
            call, current = prepare(name), name
            for _ in range(3):
                call()
        before = time.perf_counter()
        for _ in range(CASES[name]):
            call()
        print("ms", (time.perf_counter() - before) / CASES[name] * 1e3, flush=True)


class Build:
    """A checkout and the process that measures it."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder).resolve()
        self.environment = {"PYTHONPATH": str(self.folder), "PATH": "/usr/bin:/bin"}

    def start(self) -> None:
        """Start a process that measures."""
        command = [sys.executable, __file__, "--serve"]
        self.process = subprocess.Popen(
            command, env=self.environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def stop(self) -> None:
        """End the process."""
        self.process.communicate()

    @property
    def commit(self) -> str:
        command = ["git", "rev-parse", "--short=12", "HEAD"]
        return subprocess.check_output(command, cwd=self.folder, text=True).strip()

    def facts(self) -> dict[str, Any]:
        """Return what `ddfnet.env_info` tells of the build and the machine."""
        code = "import json, ddfnet.env_info; print(json.dumps(ddfnet.env_info.facts()))"
        answer: dict[str, Any] = json.loads(subprocess.check_output([sys.executable, "-c", code], env=self.environment))
        return answer

    def milliseconds(self, name: str) -> float:
        """Return the milliseconds per call of one round."""
        if name == "import":
            before = time.perf_counter()
            subprocess.run([sys.executable, "-c", "import ddfnet"], env=self.environment, check=True)
            return (time.perf_counter() - before) * 1e3
        assert self.process.stdin and self.process.stdout
        print(name, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("ms "):
                return float(line.split()[1])
        raise SystemExit(f"{self.folder}: the process has ended in case {name!r}")


def compare(old: Build, new: Build, name: str, rounds: int, pairs: int) -> dict[str, Any]:
    """Return a case's medians in milliseconds, the ratio of the builds with its middle half, and that of the least."""
    times: dict[Build, list[float]] = {old: [], new: []}
    order, shuffle = [old, new], random.Random(SEED).shuffle
    for _ in range(pairs):
        for build in order:
            build.start()
            build.milliseconds(name)  # also compiles, and reads what the import reads
        for _ in range(rounds):
            shuffle(order)
            for build in order:
                times[build].append(build.milliseconds(name))
        for build in order:
            build.stop()
    ratios = sorted(b / a for a, b in zip(times[old], times[new], strict=True))
    return {
        "case": name,
        "old_ms": round(statistics.median(times[old]), 4),
        "new_ms": round(statistics.median(times[new]), 4),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_of_least": round(min(times[new]) / min(times[old]), 3),
        "middle_half": [round(ratios[len(ratios) // 4], 3), round(ratios[-1 - len(ratios) // 4], 3)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old", nargs="?")
    parser.add_argument("new", nargs="?")
    parser.add_argument("--rounds", type=int, default=8, help="rounds per pair of processes (%(default)s)")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of processes (%(default)s)")
    parser.add_argument("--case", action="append", choices=CASES, help="only this; can be given more than once")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    if options.old is None or options.new is None:
        parser.error("two checkouts are required, OLD and NEW")
    old, new = Build(options.old), Build(options.new)
    rows = []
    for name in options.case or CASES:
        rows.append(compare(old, new, name, options.rounds, options.pairs))
        print(json.dumps(rows[-1]), flush=True)
    if options.json:
        result = {
            "what": "builds",
            "command": f"python tools/compare_builds.py OLD NEW --rounds {options.rounds} --pairs {options.pairs}",
            "rounds": options.rounds,
            "pairs": options.pairs,
            "seed": SEED,
            "old": old.commit,
            "machine": new.facts(),
            "results": rows,
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
