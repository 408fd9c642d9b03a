"""Paths and conditions of the tests of `tools/`.

The interpreted kernels need TRITON_INTERPRET=1 (`make triton`); the compiled ones must not have it.
"""

import importlib.util
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

collect_ignore = []
if importlib.util.find_spec("triton") is None:
    collect_ignore += ["test_gpu_compile.py", "test_gpu_traffic.py"]
else:
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    collect_ignore += ["test_gpu_compile.py" if interpreted else "test_gpu_traffic.py"]
