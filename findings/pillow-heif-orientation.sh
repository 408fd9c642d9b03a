#!/usr/bin/env bash
# pillow-heif drops the orientation of an image that Pillow saves as HEIC: it is shown lying on its side ever after.
#
# Expected: an image with EXIF orientation 6 that is saved as HEIC with its EXIF data is upright for viewers, as it is when
# it is saved as JPEG or AVIF: by the orientation, or by HEIF's own rotation (irot).
# Seen with pillow-heif 1.8.1 and Pillow 13.0.0: the file has neither. Reading takes the orientation away, which is right
# for HEIF, whose readers have to follow irot; but writing does not add an irot.
# Way around: turn the image by ImageOps.exif_transpose before it is saved.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet pillow==13.0.0 pillow-heif==1.8.1
cat >"$folder/check.py" <<'PYTHON'
import io

import PIL
import pillow_heif
from PIL import Image, ImageOps

pillow_heif.register_heif_opener()
print("Pillow", PIL.__version__, "pillow-heif", pillow_heif.__version__)
image, exif = Image.new("RGB", (64, 48)), Image.Exif()
exif[0x0112] = 6
upright = {}
for kind in ("JPEG", "AVIF", "HEIF"):
    content = io.BytesIO()
    image.save(content, kind, exif=exif)
    irot = b"irot" in content.getvalue()
    with Image.open(content) as found:
        upright[kind] = ImageOps.exif_transpose(found).size
        print(f"{kind}: 64 x 48, orientation 6, is upright as {upright[kind]}; irot in the file: {irot}")
assert upright["JPEG"] == upright["AVIF"] == (48, 64)
assert upright["HEIF"] == (64, 48), "the behaviour has changed"
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
