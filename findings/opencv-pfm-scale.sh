#!/usr/bin/env bash
# OpenCV divides the values of a PFM file by the scale in its header; Pillow returns them as they are stored.
#
# Expected: one disparity map, read by two libraries, has one set of values. The third line of a PFM file is a number whose
# sign is the byte order; its size is a unit for whoever displays the image, and readers of stereo data leave it alone:
# programs that write 1/255 there, as Middlebury's do, store disparities in pixels all the same.
# Seen with opencv-python-headless 4.14.0.94 and 5.0.0.93 and Pillow 13.0.0: at a scale of -0.003922 OpenCV's disparities
# are 255 times too large, without a message. At -1, which OpenCV itself writes, both agree.
# Way around: multiply OpenCV's values by the absolute value of the scale, or read with Pillow.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/check.py" <<'PYTHON'
import sys

import cv2
import numpy as np
import PIL
from PIL import Image

print("OpenCV", cv2.__version__, "Pillow", PIL.__version__)
stored = np.array([[10, 20], [40, 80]], "<f4")
for scale in ("-1", "-0.003922"):
    with open(sys.argv[1], "wb") as file:
        file.write(f"Pf\n2 2\n{scale}\n".encode() + stored[::-1].tobytes())  # rows from the bottom
    pillow = np.array(Image.open(sys.argv[1]))
    opencv = cv2.imread(sys.argv[1], cv2.IMREAD_UNCHANGED)
    print(f"scale {scale}: stored {stored.tolist()}, Pillow {pillow.tolist()}, OpenCV {opencv.round(2).tolist()}")
    assert np.array_equal(pillow, stored), "Pillow's behaviour has changed"
    assert np.allclose(opencv, stored / abs(float(scale))), "OpenCV's behaviour has changed"
PYTHON
for version in 4.14.0.94 5.0.0.93; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/python" -m pip install --quiet "opencv-python-headless==$version" pillow==13.0.0 numpy
  "$folder/$version/bin/python" "$folder/check.py" "$folder/map.pfm"
done
