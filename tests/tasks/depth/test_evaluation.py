"""Evaluation: the same input for all, bilinear in every table, and protocols that do not mix."""

import math
from dataclasses import replace

import pytest
import torch

from ddfnet.data.depth.protocols import BICUBIC, GDSR, PAC, PROTOCOLS
from ddfnet.data.depth.scenes import Scene
from ddfnet.errors import DataError
from ddfnet.tasks.depth.baselines import METHODS, bilinear
from ddfnet.tasks.depth.evaluation import as_table, average, check_middlebury15, check_nyu, evaluate


def scene(name="room", height=45, width=53, unit="m"):
    depth = torch.rand(height, width) + 1
    guide = torch.randint(256, (3, height, width), dtype=torch.uint8)
    return Scene(name, guide, depth, torch.rand(height, width) < 0.9, unit, "Random.")


def worse(low, low_valid, guide, *, factor, offset):
    """Upsample as bilinear does, and 1 too far everywhere."""
    return bilinear(low, low_valid, guide, factor=factor, offset=offset) + 1


def test_all_methods_get_the_same_input():
    calls = []

    def method(low, low_valid, guide, *, factor, offset):
        calls.append((low, low_valid, guide, factor, offset))
        return torch.ones(guide.shape[1:])

    room = scene()
    rows = evaluate({"a": method, "b": method}, [room], PAC, 4)
    assert [row.method for row in rows] == ["bilinear", "a", "b"]
    low, valid, offset = PAC.lowres(room.depth, room.valid, 4)
    for given in calls:
        assert torch.equal(given[0], low)
        assert torch.equal(given[1], valid)
        assert not valid.all()
        assert torch.equal(given[2], room.guide)
        assert given[3:] == (4, offset)
    assert len(calls) == 2


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_rows(protocol):
    room = scene()
    reference, other = evaluate({"worse": worse}, [room], protocol, 4)
    used = protocol.crop(room, 4)
    low = protocol.lowres(used.depth, used.valid, 4)
    prediction = bilinear(low.depth, low.valid, used.guide, factor=4, offset=low.offset)
    assert reference.rmse == protocol.rmse(prediction, used)
    assert reference.ratio == 1
    assert other.rmse == protocol.rmse(prediction + 1, used)
    assert other.ratio == pytest.approx(other.rmse / reference.rmse)
    assert other.ratio > 1
    for row in (reference, other):
        assert (row.protocol, row.factor, row.scene, row.unit) == (protocol.name, 4, "room", "cm")
        assert row.megapixels == used.depth.numel() / 1e6
        assert row.seconds > 0
        assert row.flying == pytest.approx(row.flying_near_edges * row.near_edges)
    assert reference.flying > 0  # random values lie between the other random values
    assert reference.as_dict()["method"] == "bilinear"


def test_bilinear_is_measured_once_and_first():
    rows = evaluate({"nearest": METHODS["nearest"], "bilinear": METHODS["bilinear"]}, [scene()], PAC, 4)
    assert [row.method for row in rows] == ["bilinear", "nearest"]


def test_a_method_must_fill_and_its_name_is_told():
    def hole(low, low_valid, guide, *, factor, offset):
        return torch.full(guide.shape[1:], math.nan)

    with pytest.raises(ValueError, match="hole: room: a value at every scored pixel is required, got nan or inf at"):
        evaluate({"hole": hole}, [scene()], PAC, 4)


def test_no_sample_is_valid():
    room = scene()
    valid = torch.zeros_like(room.valid)
    valid[20, 20] = True  # not a pixel that 16x takes
    with pytest.raises(DataError, match="room: a valid sample at 16x is required, got none"):
        evaluate({}, [replace(room, valid=valid)], PAC, 16)


def test_the_fastest_of_some_calls_counts():
    calls = []

    def method(low, low_valid, guide, *, factor, offset):
        calls.append(1)
        return torch.ones(guide.shape[1:])

    evaluate({"a": method}, [scene()], PAC, 4, repeats=3)
    assert len(calls) == 3


def test_the_average_is_of_the_images_errors():
    rows = evaluate({"worse": worse}, [scene("a"), scene("b", 64, 64)], PAC, 4)
    reference, other = average(rows)
    assert (reference.scene, other.method) == ("mean of 2", "worse")
    assert reference.rmse == pytest.approx((rows[0].rmse + rows[2].rmse) / 2)
    assert other.ratio == pytest.approx((rows[1].rmse + rows[3].rmse) / (rows[0].rmse + rows[2].rmse))
    assert average([]) == []


def test_what_must_not_be_averaged():
    metres, pixels = (evaluate({}, [scene(unit=unit)], PAC, 4) for unit in ("m", "px"))
    with pytest.raises(ValueError, match="rows of one unit are required for an average, got"):
        average(metres + pixels)
    with pytest.raises(ValueError, match="rows of one factor are required for an average, got"):
        average(metres + evaluate({}, [scene()], PAC, 8))
    with pytest.raises(ValueError, match="results of one protocol are required in a table, got bicubic and pac"):
        average(metres + evaluate({}, [scene()], BICUBIC, 4))
    with pytest.raises(ValueError, match="measured on the same scenes"):
        average(evaluate({"worse": worse}, [scene("a")], PAC, 4) + evaluate({}, [scene("b")], PAC, 4))


def test_a_table_names_its_protocol_and_mixes_none():
    rows = evaluate({"worse": worse}, [scene()], PAC, 4)
    first, _, _, _, *lines = as_table(rows).text.splitlines()
    assert first == "protocol pac"
    assert lines[0].split()[:5] == ["room", "bilinear", "4x", f"{rows[0].rmse:.3f}", "cm"]
    assert len(lines) == 2
    with pytest.raises(ValueError, match="results of one protocol are required in a table, got bicubic and pac"):
        as_table(rows + evaluate({}, [scene()], BICUBIC, 4))
    with pytest.raises(ValueError, match="bilinear is required in every table, there is none for room"):
        as_table(rows[1:])


def test_on_nyu_the_published_bilinear_must_come_out():
    half = {"bilinear-half-pixel": METHODS["bilinear-half-pixel"]}
    rows = evaluate(half, [scene("nyu 1001"), scene("nyu 1002")], PAC, 4)
    with pytest.raises(DataError, match=r"bilinear-half-pixel on NYU at 4x must come to 5.43 cm, got "):
        check_nyu(rows)
    check_nyu([replace(row, rmse=rmse) for row, rmse in zip(rows, (5.0, 5.43, 5.0, 5.436), strict=True)])
    for other in (evaluate(half, [scene()], BICUBIC, 4), evaluate(half, [scene()], PAC, 2), rows[::2], []):
        with pytest.raises(ValueError, match="bilinear-half-pixel under pac at 4x, 8x or 16x is required"):
            check_nyu(other)


@pytest.mark.parametrize(
    ("low", "high", "limits", "expected"),
    [(40, 200, (0, 255), 160 * 0.087510240), (0, 255, None, 255 * 0.087510240), (0, 255, (0, 255), 255 * 0.087050951)],
)
def test_bicubic_under_gdsr_by_hand(low, high, limits, expected):
    """An edge between blocks at 2x: the filter's weights as fractions, down and up again, and no border left out."""
    values = torch.full((8, 16), float(low))
    values[:, 8:] = high
    edge = Scene("edge", torch.zeros(3, 8, 16), values, values > -1, "levels", "Two values.", limits)
    rows = evaluate({"bicubic-pillow": METHODS["bicubic-pillow"]}, [edge], GDSR, 2)
    assert rows[1].rmse == pytest.approx(expected, rel=1e-6)


def test_on_middlebury15_the_known_bicubic_must_come_out():
    pillow = {"bicubic-pillow": METHODS["bicubic-pillow"]}
    rows = evaluate(pillow, [scene("middlebury 01"), scene("middlebury 03")], GDSR, 8)
    with pytest.raises(DataError, match=r"bicubic-pillow on middlebury15 at 8x must come to 3.766 levels, got "):
        check_middlebury15(rows)
    check_middlebury15([replace(row, rmse=rmse) for row, rmse in zip(rows, (5.0, 3.766, 5.0, 3.784), strict=True)])
    for other in (evaluate(pillow, [scene()], BICUBIC, 8), evaluate(pillow, [scene()], GDSR, 2), rows[::2], []):
        with pytest.raises(ValueError, match="bicubic-pillow under gdsr at 4x, 8x or 16x is required"):
            check_middlebury15(other)


def test_what_a_method_cannot_do_names_it_and_the_scene():
    def broken(low, low_valid, guide, *, factor, offset):
        raise DataError("raised KeyError: 'a'")

    with pytest.raises(DataError, match="^broken: room: raised KeyError: 'a'$"):
        evaluate({"broken": broken}, [scene()], PAC, 4)


@pytest.mark.parametrize("factor", [4, 8, 16])
def test_on_motorcycle_the_filters_come_out_as_they_are_known_to(factor):
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2, "ximgproc"):
        pytest.skip("this OpenCV was built without ximgproc")
    from ddfnet.data.depth.middlebury import motorcycle

    names = ("bilinear-half-pixel", "bicubic", "joint-bilateral", "guided-filter")
    rows = evaluate({name: METHODS[name] for name in names}, [motorcycle()], PAC, factor)
    ratios = {row.method: row.ratio for row in rows}
    assert 0.87 <= ratios["guided-filter"] <= 0.98
    assert 0.80 <= ratios["joint-bilateral"] <= 0.98
    assert 1.0 < ratios["bilinear-half-pixel"] < 1.1
    assert ratios["bicubic"] > 1.0
