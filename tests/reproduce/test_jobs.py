"""Queue of trainings that all run.sh share: all run, so many at a time, and a failure is noticed."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def bash(script: str) -> subprocess.CompletedProcess[str]:
    lines = f"set -euo pipefail\n. reproduce/jobs.sh\n{script}\necho end"
    return subprocess.run(["bash", "-c", lines], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_all_run_also_where_several_end_at_once() -> None:
    done = bash("JOBS=2; each() { sleep 0.3; echo $1; }; for i in 1 2 3 4 5; do start each $i; done; finish")
    assert done.returncode == 0
    *own, last = done.stdout.split()
    assert sorted(own) == ["1", "2", "3", "4", "5"] and last == "end"


def test_one_that_fails_is_noticed_and_the_others_go_on() -> None:
    done = bash("JOBS=1; start false; start echo other; finish")
    assert done.returncode == 1 and done.stdout.split() == ["other"]
