#!/usr/bin/env bash
# Pillow reads each byte of an uncompressed TIFF with 16-bit colours in planes as a pixel.
#
# Expected: an RGB image whose colours lie in planes of their own (PlanarConfiguration 2), as tifffile and GDAL write it for
# channels-first arrays, has the same pixels as one whose colours lie pixel by pixel, and the same with compression.
# Seen with Pillow 13.0.0: without compression the pixels are wrong and nothing is raised; with zlib they are right.
# Way around: read TIFF with tifffile.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet pillow==13.0.0 numpy tifffile==2026.3.3
cat >"$folder/check.py" <<'PYTHON'
import sys
from importlib.metadata import version

import numpy as np
import tifffile
from PIL import Image

print("Pillow", version("pillow"), "tifffile", version("tifffile"))
values = (np.arange(48).reshape(3, 4, 4) * 1300).astype("uint16")
right = (values >> 8).transpose(1, 2, 0)
for compression in (None, "zlib"):
    tifffile.imwrite(sys.argv[1], values, photometric="rgb", planarconfig="separate", compression=compression)
    assert np.array_equal(tifffile.imread(sys.argv[1]), values)
    pixels = np.array(Image.open(sys.argv[1]).convert("RGB"))
    wrong = int((pixels != right).any(2).sum())
    print(f"compression {compression}: {wrong} of 16 pixels are wrong; pixel (1, 2): {pixels[1, 2]}, stored {right[1, 2]}")
    assert (wrong > 0) == (compression is None), "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/check.py" "$folder/image.tif"
