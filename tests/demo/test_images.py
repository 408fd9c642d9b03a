"""Images of a self-contained page, decoded again."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import torch
from PIL import Image

from ddfnet.demo import images


def decoded(uri: str) -> Image.Image:
    kind, _, data = uri.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert kind == f"data:image/{str(image.format).lower()}"
    return image.convert("RGB")


def test_a_map_goes_from_low_to_high_and_is_grey_where_it_is_missing() -> None:
    values = torch.tensor([[2.0, 3.0, 4.0], [1.0, 9.0, torch.nan]])
    uri = images.mapped(values, 2.0, 4.0, "viridis", values.isnan(), 77)
    low, middle, high, below, above, missing = (decoded(uri).getpixel((i % 3, i // 3)) for i in range(6))
    assert low == below == (68, 1, 84), "viridis begins dark blue"
    assert high == above == (253, 231, 36), "and ends yellow"
    assert middle[1] > max(middle[0], middle[2]), "over green"
    assert missing == (77, 77, 77)


def test_the_ramp_has_the_colours_of_maps() -> None:
    steps = torch.linspace(0, 1, 255)[None]
    nowhere = torch.zeros_like(steps, dtype=torch.bool)
    ramp = np.asarray(decoded(images.ramp("magma")))
    np.testing.assert_array_equal(ramp, np.asarray(decoded(images.mapped(steps, 0, 1, "magma", nowhere, 9))))
    assert len(np.unique(ramp[0], axis=0)) == 255


def test_photographs_stay_what_they_are() -> None:
    across = np.linspace(0, 255, 40).astype(np.uint8)
    image = np.stack(np.broadcast_arrays(across, across[:30, None], np.uint8(90)), axis=-1)
    np.testing.assert_array_equal(np.asarray(decoded(images.png(image))), image)
    compressed = np.asarray(decoded(images.jpeg(image))).astype(int)
    assert np.abs(compressed - image).mean() < 3


def test_boxes_are_where_they_were_asked_for() -> None:
    grey = np.full((100, 160, 3), 128, np.uint8)
    marked = np.asarray(decoded(images.boxed(grey, [(20, 30, 40, 60)]))).astype(int)
    rows, columns = np.nonzero(np.abs(marked - 128).max(axis=2) > 60)
    assert (rows.min(), rows.max()) == (20, 59) and (columns.min(), columns.max()) == (30, 89)
    assert np.abs(marked[50:56, 60:80] - 128).max() < 20, "what is inside can be seen"


def test_kernels_are_painted_by_sign() -> None:
    uri = images.kernel(torch.tensor([[-1.0, 0.0, 1.0]]), 1.0)
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
    negative, zero, positive = (image.getpixel((x, 0)) for x in range(3))
    assert negative[2] > negative[0] and positive[0] > positive[2]
    assert min(zero) > 240
