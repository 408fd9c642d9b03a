"""Two real scenes of the Middlebury stereo benchmarks, inside other packages: for tests, never for training.

Their maps are disparities, in pixels: near surfaces have larger values.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from ddfnet.data.depth.photographs import skimage_file
from ddfnet.data.depth.scenes import Scene, from_arrays
from ddfnet.depth.io import read, read_guide
from ddfnet.errors import DataError
from ddfnet.images import read_image

OPENCV_SAMPLES = "/usr/share/doc/opencv-doc/examples/data"  # where Debian's package opencv-doc puts them


def motorcycle() -> Scene:
    """Load Motorcycle (Middlebury 2014) at 500x741, inside scikit-image's package; 7 % of its pixels have no disparity.

    Returns:
        The scene; the disparity is in pixels of this size.

    Raises:
        DataError: this scikit-image was packaged without it.
    """
    import numpy as np

    guide = np.asarray(read_image(BytesIO(skimage_file("motorcycle_left.png")), "motorcycle_left.png"))
    with np.load(BytesIO(skimage_file("motorcycle_disp.npz"))) as arrays:
        disparity = arrays["arr_0"]  # inf where the benchmark has no value
    origin = (
        "Motorcycle of the Middlebury 2014 stereo benchmark (Scharstein et al., GCPR 2014), a quarter of its "
        "resolution, as scikit-image carries it."
    )
    return from_arrays("motorcycle", guide, disparity, "px", origin)


def aloe(folder: str | Path = OPENCV_SAMPLES) -> Scene:
    """Load Aloe (Middlebury 2006) at 1110x1282, among OpenCV's samples; 3 % of its pixels have no disparity.

    Args:
        folder: folder of aloeL.jpg and aloeGT.png.

    Returns:
        The scene; the disparity is in whole pixels.

    Raises:
        DataError: the files are missing or broken.
    """
    try:
        guide = read_guide(Path(folder) / "aloeL.jpg")
        disparity = read(Path(folder) / "aloeGT.png").values  # 0 where there is no value
    except DataError as error:
        raise DataError(
            f"Aloe requires OpenCV's samples aloeL.jpg and aloeGT.png: {error}; "
            "install Debian's opencv-doc or name the folder samples/data of OpenCV's sources"
        ) from None
    origin = (
        "Aloe of the Middlebury 2006 stereo benchmark (Hirschmueller and Scharstein, CVPR 2007), full size, "
        "as OpenCV's samples have it."
    )
    return from_arrays("aloe", guide, disparity, "px", origin)
