#!/usr/bin/env bash
# OpenCV's wheels lose the channel of a depth EXR: zeros for a single channel Z, None for V, or no EXR at all.
#
# Expected: the values of the single float channel, whatever its name, or an error.
# Seen with opencv-python-headless 4.14.0.94 (OPENCV_IO_ENABLE_OPENEXR=1): a file with the channel Z, as renderers write
# depth, is read as an image of zeros; with the channel V, as Blender names it, as None; with Y as it is. 5.0.0.93 is built
# without EXR: None for all.
# Way around: the package OpenEXR.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/check.py" <<'PYTHON'
import os
import sys

os.environ["OPENCV_IO_ENABLE_OPENEXR"] = "1"

import cv2
import numpy as np
import OpenEXR

path = sys.argv[1]
values = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
seen = {}
for name in ("Z", "V", "Y"):
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, {name: values}) as file:
        file.write(path)
    with OpenEXR.File(path, separate_channels=True) as file:
        assert np.array_equal(file.channels()[name].pixels, values)
    try:
        found = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        found = None
        print(error)
    if found is None:
        seen[name] = "None"
    else:
        seen[name] = "zeros" if not found.any() else "the values" if np.array_equal(found, values) else "other values"
print("OpenCV", cv2.__version__, "OpenEXR", OpenEXR.__version__, seen)
expected = {"4": {"Z": "zeros", "V": "None", "Y": "the values"}, "5": dict.fromkeys("ZVY", "None")}
assert seen == expected[cv2.__version__[0]], "the behaviour has changed"
PYTHON
for version in 4.14.0.94 5.0.0.93; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/python" -m pip install --quiet "opencv-python-headless==$version" OpenEXR==3.5.3 numpy
  "$folder/$version/bin/python" "$folder/check.py" "$folder/a.exr"
done
