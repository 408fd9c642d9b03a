#!/usr/bin/env bash
# Pillow's nearest-neighbour resize takes other pixels from 16-bit images than from 8-bit, 32-bit and float ones.
#
# Expected: images of one size, resized by the same call, have their blocks in the same places, whatever their mode is,
# so that a 16-bit depth map and its 8-bit mask still fit.
# Seen with Pillow 13.0.0: where the centre of a new pixel lies on the border of two old ones, mode I;16 and modes L, I,
# F and RGB round to different sides: from 256 to 1920 pixels, 7.5x as for a phone's depth map, 67 of the 255 borders
# are off by one pixel. The cause is in src/libImaging/Geometry.c: L, I, F and RGB go through ImagingScaleAffine, which
# adds up the step from pixel to pixel, and I;16 through ImagingGenericTransform, which multiplies it.
# Way around: enlarge arrays with numpy.repeat or by indices, the map and its mask with the same ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet pillow==13.0.0 numpy
cat >"$folder/check.py" <<'PYTHON'
import numpy as np
import PIL
from PIL import Image

print("Pillow", PIL.__version__)
for old, new in ((2, 15), (4, 10), (256, 1920)):
    row, found = np.arange(old) % 250 + 1, {}
    for mode, dtype in (("L", "uint8"), ("I;16", "uint16"), ("I", "int32"), ("F", "float32")):
        image = Image.fromarray(np.tile(row, (2, 1)).astype(dtype))
        assert image.mode == mode
        found[mode] = np.array(image.resize((new, 2), Image.Resampling.NEAREST))[0].astype(int)
    differing = {mode: int((each != found["L"]).sum()) for mode, each in found.items()}
    print(f"{old} to {new}: pixels that differ from mode L's: {differing}")
    assert differing["I;16"] > 0 and differing["I"] == differing["F"] == 0, "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
