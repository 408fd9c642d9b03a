"""Commands in two processes of torchrun."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence


def torchrun(words: Sequence[str]) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*start, "-m", "ddfnet", *words], check=True, capture_output=True, timeout=600, env=environment)
