"""What is collected: tests of the interpreter only where there is one (TRITON_INTERPRET=1, `make triton`)."""

import torch

from ddfnet.ops import backends

collect_ignore = [] if backends.can_run("triton", torch.device("cpu"))[0] else ["test_triton_interpreted.py"]
