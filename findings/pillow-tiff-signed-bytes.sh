#!/usr/bin/env bash
# Pillow takes numbers of a TIFF for others: signed bytes for unsigned ones, unsigned 32 bits for signed ones.
#
# Expected: the values of the file, or a refusal.
# Seen with Pillow 13.0.0: SampleFormat 2 with 8 bits opens as mode L, and -1 is 255; SampleFormat 1 with 32 bits opens as
# mode I, whose numbers are signed, and 3000000000 is -1294967296. PhotometricInterpretation 0 (white is zero) inverts 8
# bits, and leaves 16 as they are.
# Way around: read the type from the tags, by tifffile.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet pillow==13.0.0 tifffile==2026.3.3 numpy
cat >"$folder/check.py" <<'PYTHON'
import sys

import numpy as np
import PIL
import tifffile
from PIL import Image

path = sys.argv[1]


def both(values, **options):
    tifffile.imwrite(path, values, **options)
    with Image.open(path) as image:
        return image.mode, np.asarray(image).ravel().tolist(), tifffile.imread(path).ravel().tolist()


print("Pillow", PIL.__version__, "tifffile", tifffile.__version__)
cases = {
    "signed bytes": (np.array([[-1, 2]], np.int8), {}, ("L", [255, 2])),
    "unsigned 32 bits": (np.array([[3_000_000_000, 2]], np.uint32), {}, ("I", [-1_294_967_296, 2])),
    "8 bits, white is zero": (np.array([[10, 20]], np.uint8), {"photometric": "miniswhite"}, ("L", [245, 235])),
    "16 bits, white is zero": (np.array([[10, 20]], np.uint16), {"photometric": "miniswhite"}, ("I;16", [10, 20])),
}
for name, (values, options, seen) in cases.items():
    mode, pillow, stored = both(values, **options)
    print(f"{name}: stored {stored}, Pillow {mode} {pillow}")
    assert stored == values.ravel().tolist()
    assert (mode, pillow) == seen, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/check.py" "$folder/a.tif"
