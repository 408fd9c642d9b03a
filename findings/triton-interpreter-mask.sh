#!/usr/bin/env bash
# Triton 3.9's interpreter refuses a mask that is the product of a block's comparison and a program number's.
#
# Expected: a kernel that compiles, and that the interpreter of Triton 3.8 runs, runs in that of 3.9: a comparison of a
# program's number with a limit is a truth value like that of a block.
# Seen with Triton 3.9.0: `(offsets < n) & (tl.program_id(0) >= 0)` as the mask of a load raises ValueError, "mask has
# unsupported dtype": the scalar becomes a block of int32, because a comparison keeps the type of its operands inside the
# interpreter. Triton 3.8.0 loads. Kernels that are compiled for a GPU are not concerned.
# Way around: mask != 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/check.py" <<'PYTHON'
import sys

import torch
import triton
import triton.language as tl


@triton.jit
def copy(source, target, n, SIZE: tl.constexpr, AROUND: tl.constexpr):
    offsets = tl.arange(0, SIZE)
    mask = (offsets < n) & (tl.program_id(0) >= 0)
    if AROUND:
        mask = mask != 0
    tl.store(target + offsets, tl.load(source + offsets, mask=mask), mask=mask)


def run(around):
    source, target = torch.arange(8.0), torch.zeros(8)
    try:
        copy[(1,)](source, target, 5, SIZE=8, AROUND=around)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[-1]}"
    return target.tolist()


plain, around = run(False), run(True)
print("Triton", triton.__version__, "| mask as it is:", plain, "| mask != 0:", around)
right = [0.0, 1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0]
assert around == right, "the behaviour has changed"
assert (plain == right) == (sys.argv[1] == "3.8.0"), "the behaviour has changed"
PYTHON
for version in 3.8.0 3.9.0; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/python" -m pip install --quiet torch==2.13.0 numpy
  "$folder/$version/bin/python" -m pip install --quiet "triton==$version"
  TRITON_INTERPRET=1 "$folder/$version/bin/python" "$folder/check.py" "$version"
done
