"""Preview of a result: its colours and its size."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("PIL")

from ddfnet.depth.preview import preview


def test_near_is_bright_and_missing_is_grey() -> None:
    depth, guide = np.full((600, 800), 3.0), np.zeros((600, 800, 3), np.uint8)
    depth[:200], depth[250:350, 350:450] = 0, 1
    for nearer in ("small", "large"):
        page = np.asarray(preview(depth, depth > 0, guide, depth, depth, nearer=nearer)).astype(int)
        step = (page.shape[1] - 14) // 3
        ours = page[34 + 570 + 34 :, step + 14 :][:570, :760]  # the second of the second row
        assert (ours[50, 50] == 150).all()
        front, wall = ours[285, 380], ours[550, 50]
        assert (front.sum() > wall.sum()) == (nearer == "small")


def test_huge_maps_make_a_page_of_the_usual_size() -> None:
    low, guide = np.arange(1, 9001).reshape(30, 300), np.zeros((90, 9000, 3), np.uint8)
    page = preview(low, low > 0, guide, np.kron(low, np.ones((3, 30))), np.kron(low, np.ones((3, 30))))
    assert page.size[0] == 3 * 760 + 4 * 14
