"""Differences of a fused copy from its model, as the report has them."""

import copy

import pytest
import torch
from torch import nn

import ddfnet.models  # noqa: F401  registers with timm
from ddfnet.nn import DDF2d
from ddfnet.surgery import compare, fuse


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Sequential(DDF2d(8), nn.BatchNorm2d(8)))


def test_layers_parameters_multiply_adds_and_the_difference():
    before = model().eval()
    report = compare(before, fuse(before), (2, 3, 9, 9))
    rows = {change.name: (change.before, change.after, change.parameters) for change in report.changes}
    assert rows["0"] == ("Conv2d 3x3 3->8", "Conv2d 3x3 3->8", (224, 224))
    assert rows["1"] == ("BatchNorm2d", "Identity", (16, 0))
    assert rows["3.1"] == ("BatchNorm2d", "Identity", (16, 0))
    assert rows["3.0"][:2] == ("DDF2d 3x3 8", "FusedDDF2d 3x3 8")
    assert rows.keys() == {"0", "1", "3.0", "3.1"}
    assert report.parameters[0] - report.parameters[1] == 32
    assert report.macs is not None and report.macs[0] == report.macs[1]
    measured = float(report.begins.removeprefix("within "))
    assert 0 < measured < 1e-5
    assert report.begins in str(report)


def test_a_copy_that_computes_something_else_is_seen():
    before = model().eval()
    other = copy.deepcopy(before)
    with torch.no_grad():
        other[0].bias += 1
    report = compare(before, other, (2, 3, 9, 9))
    assert [change.name for change in report.changes] == ["0"]
    assert float(report.begins.removeprefix("within ")) > 0.1


def test_an_equal_copy_has_no_changes_and_modes_stay():
    before = model().train()
    report = compare(before, copy.deepcopy(before), (2, 3, 9, 9))
    assert report.changes == () and report.begins == "within 0"
    assert all(module.training for module in before.modules())
    assert compare(before, copy.deepcopy(before)).macs is None


def test_a_resnet_by_its_names():
    timm = pytest.importorskip("timm")
    before = timm.create_model("ddf_mul_resnet18", num_classes=4)
    changes = {change.name: change.after for change in compare(before, fuse(before)).changes}
    assert changes["bn1"] == "Identity" and changes["conv1"].startswith("Conv2d 7x7")


@pytest.mark.parametrize(
    ("other", "error", "message"),
    [
        (nn.Sequential(), ValueError, "copy must be a copy of the model"),
        (3, TypeError, "copy must be a torch.nn.Module"),
    ],
    ids=["another", "none"],
)
def test_what_is_no_copy(other, error, message):
    with pytest.raises(error, match=message):
        compare(model(), other)
