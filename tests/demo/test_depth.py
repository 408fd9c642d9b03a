"""Depth part of the demo: its close-ups, its images, and its words about the network."""

from __future__ import annotations

import base64
import io
from html import unescape
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("safetensors")
pytest.importorskip("skimage")

import torch
from PIL import Image
from torch import Tensor

from ddfnet.data.depth.protocols import PAC
from ddfnet.data.depth.scenes import Scene
from ddfnet.demo import depth, depth_images, page
from ddfnet.demo.depth import Crop, UpsampledDepth
from ddfnet.tasks.depth.evaluation import evaluate


@pytest.fixture(scope="module")
def upsampled() -> UpsampledDepth:
    """Make a plane with a nearer square on it and a hole, "upsampled" with known errors; the last without any."""
    truth = torch.linspace(10, 20, 60)[:, None].expand(60, 90).clone()
    truth[20:40, 30:60] = 40
    valid = torch.ones(60, 90, dtype=torch.bool)
    valid[:9, 70:] = False
    guide = torch.randint(256, (3, 60, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scene = Scene("square", guide, torch.where(valid, truth, 0), valid, "px", "A square.")
    maps = {name: truth.clone() for name in depth.TITLES}
    maps["bilinear"][20:40, 27:33] += 8
    maps["bicubic"][20:40, 27:33] += 4
    maps["joint-bilateral"][20:40, 29:31] += 8
    methods: Any = {name: (lambda *_, name=name, **__: maps[name]) for name in maps}
    low = PAC.lowres(scene.depth, valid, 8)
    scored = PAC.scored(scene)
    return UpsampledDepth(
        scene=scene,
        low=low.depth,
        low_valid=low.valid,
        scored=scored,
        maps=maps,
        rows=evaluate(methods, [scene], PAC, 8),
        boxes=depth.worst_boxes(torch.where(scored, maps["bilinear"] - scene.depth, 0), (10, 15), 2),
        network={"file": "auto", "parameters": 12345, "card": {"steps": 6789}},
        threads=1,
    )


def pixels(uri: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")).astype(int)


def test_boxes_are_the_worst_there_are() -> None:
    error = torch.randn(40, 50).square()
    error[:12, :17] = 0
    first, second, third = depth.worst_boxes(error, (11, 16), 3)

    def badness(box: Crop) -> float:
        return error[box.slices].square().sum().item()

    every = [Crop(top, left, 11, 16) for top in range(30) for left in range(35)]
    assert badness(first) == pytest.approx(max(map(badness, every)))

    def apart(one: Crop, other: Crop) -> bool:
        return abs(one.top - other.top) >= 11 or abs(one.left - other.left) >= 16

    assert badness(second) == pytest.approx(max(badness(box) for box in every if apart(box, first)))
    assert apart(third, first) and apart(third, second)


def test_no_more_boxes_than_find_room() -> None:
    assert depth.worst_boxes(torch.ones(10, 10), (6, 6), 3) == [Crop(0, 0, 6, 6)]


def test_the_error_in_a_box_is_of_its_scored_pixels(upsampled: UpsampledDepth) -> None:
    box = Crop(20, 27, 20, 6)
    assert upsampled.rmse("bilinear", box) == pytest.approx(8)
    assert upsampled.rmse("bicubic", box) == pytest.approx(4)
    assert upsampled.rmse("ddfnet", box) == 0
    assert upsampled.rmse("bilinear", Crop(0, 27, 40, 6)) == pytest.approx((64 * 20 / 34) ** 0.5), "6 rows are border"


def test_error_maps_are_on_one_scale(upsampled: UpsampledDepth) -> None:
    wholes = {whole["title"]: pixels(whole["error"]) for whole in depth_images.shown(upsampled)["wholes"]}
    bilinear, bicubic, ours = wholes["bilinear"], wholes["bicubic"], wholes["ddfnet"]
    scored = upsampled.scored.numpy()
    for error in wholes.values():
        assert (error[~scored] == error[0, 0]).all(), "one grey where nothing was scored"
        assert (error[15, 10] == (0, 0, 3)).all(), "black is no error"
    assert (ours[scored] == (0, 0, 3)).all()
    assert bilinear[30, 28].sum() > 600, "the largest error is the brightest"
    assert 100 < bicubic[30, 28].sum() < 600, "and half of it is not"
    assert (wholes["joint bilateral (OpenCV)"][30, 30] == bilinear[30, 30]).all()


def test_maps_are_in_the_same_colours(upsampled: UpsampledDepth) -> None:
    shown = depth_images.shown(upsampled)
    maps = [pixels(whole["depth"]) for whole in shown["wholes"]]
    for other in maps:
        assert (other[:, :20] == maps[0][:, :20]).all(), "the same depth is the same colour"
    np.testing.assert_array_equal(pixels(shown["ours"]), maps[3])
    zoom, box = shown["zooms"][0], upsampled.boxes[0]
    np.testing.assert_array_equal(pixels(zoom["methods"][0]["image"]), maps[0][box.slices])
    np.testing.assert_array_equal(
        pixels(zoom["photograph"]), upsampled.scene.guide.permute(1, 2, 0).numpy()[box.slices]
    )
    near, far = maps[3][30, 45], maps[3][0, 0]
    assert near[0] > 200 > far[0] and near[1] > far[1], "near is yellow, far is blue"
    given = pixels(shown["given"])
    assert given.shape[:2] == upsampled.low.shape
    assert (given[~upsampled.low_valid.numpy()] == 150).all()


def rendered(upsampled: UpsampledDepth, network: dict[str, Any]) -> str:
    results = {"depth": {**upsampled.results(), "network": network}, "settings": {"short": False}}
    text = page.TEMPLATES.get_template("depth.html.jinja").render(results=results, depth=depth_images.shown(upsampled))
    return " ".join(unescape(text).split())


def test_the_package_s_network_never_saw_the_scene(upsampled: UpsampledDepth) -> None:
    text = rendered(upsampled, upsampled.network)
    assert "trained on composed scenes only, such as those below, and never saw this scene" in text
    assert "12,345 parameters, trained in 6,789 steps" in text
    assert "short run" not in text


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (None, "No card beside it says what it was trained on."),
        ({"seed": 5}, "No card beside it says what it was trained on."),
        ({"data": "paintings & prints"}, "Its card says of what it was trained on: paintings & prints."),
    ],
)
def test_of_another_network_only_its_card_is_believed(
    upsampled: UpsampledDepth, card: dict[str, Any] | None, said: str
) -> None:
    text = rendered(upsampled, {"file": "mine.ckpt", "parameters": 7, "card": card})
    assert said in text and "mine.ckpt" in text
    assert "never saw this scene" not in text


def test_what_is_shown_is_what_was_measured() -> None:
    kept: dict[str, Tensor] = {}

    def method(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
        return low * factor + offset

    low = torch.rand(3, 4)
    result = depth._keeping({"m": method}, kept)["m"](low, low > 0, torch.zeros(3, 6, 8), factor=2, offset=0.5)
    assert kept["m"] is result
    torch.testing.assert_close(result, low * 2 + 0.5)
