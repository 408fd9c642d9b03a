"""Errors of `ddfnet.upsample_depth`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddfnet.pretrained import save
from tests.depth_maps import ARRAY, GUIDE, GUIDE_TENSOR, NETWORK, TENSOR, upsample

ALIKE = "must be a NumPy array or a torch.Tensor, as the others are"
REAL = "depth must be real numbers of at most 64 bits"
BYTES = "guide must be uint8, 0 to 255"
CONVERT = "scale it to that range and convert it"
TYPES: list[tuple[dict[str, Any], str]] = [
    ({"depth": [[1.0]]}, f"depth {ALIKE}, got list"),
    ({"guide": GUIDE.tolist()}, f"guide {ALIKE}, got list"),
    ({"guide": GUIDE_TENSOR}, f"guide {ALIKE}, got Tensor"),
    ({"valid": TENSOR > 1}, f"valid {ALIKE}, got Tensor"),
    ({"depth": TENSOR}, "guide must be a torch.Tensor as depth is, got ndarray"),
    (
        {"depth": TENSOR, "guide": GUIDE_TENSOR, "valid": ARRAY > 1},
        "valid must be a torch.Tensor as depth is, got ndarray",
    ),
    ({"depth": ARRAY > 1}, f"{REAL}, got bool"),
    ({"depth": ARRAY + 1j}, f"{REAL}, got complex128"),
    ({"depth": ARRAY.astype(str)}, f"{REAL}, got <U32"),
    ({"depth": ARRAY.astype(object)}, f"{REAL}, got object"),
    ({"depth": ARRAY.astype("datetime64[s]")}, f"{REAL}, got datetime64[s]"),
    ({"depth": TENSOR > 1, "guide": GUIDE_TENSOR}, "depth must be real numbers, got torch.bool"),
    ({"depth": TENSOR + 1j, "guide": GUIDE_TENSOR}, "depth must be real numbers, got torch.complex128"),
    ({"guide": GUIDE / 255}, f"{BYTES}, got float64; {CONVERT}"),
    ({"guide": GUIDE.astype(">u2")}, f"{BYTES}, got >u2; {CONVERT}"),
    ({"guide": GUIDE.astype(object)}, f"{BYTES}, got object; {CONVERT}"),
    ({"depth": TENSOR, "guide": GUIDE_TENSOR.int()}, f"{BYTES}, got torch.int32; {CONVERT}"),
    ({"valid": np.ones(ARRAY.shape, np.uint8)}, "valid must be bool, got uint8; compare it, as in mask > 0"),
    (
        {"depth": TENSOR, "guide": GUIDE_TENSOR, "valid": TENSOR},
        "valid must be bool, got torch.float64; compare it, as in mask > 0",
    ),
    (
        {"depth": TENSOR.to_sparse(), "guide": GUIDE_TENSOR},
        "depth must be dense, got torch.sparse_coo; give depth.to_dense()",
    ),
    ({"model": 8}, "model must be 'auto', a file or a GuidedUpsampler, got int"),
    ({"model": torch.nn.Identity()}, "model must be 'auto', a file or a GuidedUpsampler, got Identity"),
]
ALL_WRONG = "all of it is 0, nan, inf or masked out"
OFFSET = "offset must be a number or (y, x), in pixels of the guide"
RATIO = "ratio must be a number or (y, x), in pixels of the guide"
TILE = "tile must be None or a whole number of pixels from 1 on"


def beside(last: int, axis: str, samples: int, where: str) -> str:
    return (
        f"ratio and offset must put every sample within half a ratio of the guide's pixels 0 to {last}, along {axis} "
        f"they put {samples} on {where}; without them the samples cover the guide evenly"
    )


VALUES: list[tuple[dict[str, Any], str]] = [
    ({"depth": ARRAY[0]}, "depth must be (h, w), at least one sample, got (7,)"),
    ({"depth": GUIDE[:6, :7]}, "depth must be (h, w), at least one sample, got (6, 7, 3)"),
    ({"depth": ARRAY[:0]}, "depth must be (h, w), at least one sample, got (0, 7)"),
    ({"guide": GUIDE[..., 0]}, "guide must be (H, W, 3), RGB, got (20, 25)"),
    ({"guide": GUIDE.repeat(2, axis=2)}, "guide must be (H, W, 3), RGB, got (20, 25, 6)"),
    (
        {"guide": GUIDE[:, :6]},
        "guide must be at least as large as depth (6, 7), got (20, 6); were the two exchanged?",
    ),
    (
        {"guide": GUIDE[:5]},
        "guide must be at least as large as depth (6, 7), got (5, 25); were the two exchanged?",
    ),
    ({"valid": np.ones((7, 6), bool)}, "valid must be of depth's shape (6, 7), got (7, 6)"),
    ({"depth": ARRAY * 0}, f"depth (6, 7) has no valid sample: {ALL_WRONG}"),
    ({"depth": np.full((2, 3), np.nan)}, f"depth (2, 3) has no valid sample: {ALL_WRONG}"),
    ({"depth": np.full((2, 3), -np.inf)}, f"depth (2, 3) has no valid sample: {ALL_WRONG}"),
    ({"valid": ARRAY < 0}, f"depth (6, 7) has no valid sample: {ALL_WRONG}"),
    ({"offset": np.nan}, f"{OFFSET}, got nan"),
    ({"offset": (1, np.inf)}, f"{OFFSET}, got (1, inf)"),
    ({"offset": (1, 2, 3)}, f"{OFFSET}, got (1, 2, 3)"),
    ({"offset": "1"}, f"{OFFSET}, got '1'"),
    ({"ratio": np.inf}, f"{RATIO}, got inf"),
    ({"ratio": (1, 2, 3)}, f"{RATIO}, got (1, 2, 3)"),
    ({"ratio": "4"}, f"{RATIO}, got '4'"),
    ({"ratio": (4, 0.5)}, "ratio must be at least 1, got 0.5"),
    ({"ratio": 8}, beside(19, "y", 6, "3.5 to 43.5")),
    ({"ratio": (20 / 6, 5)}, beside(24, "x", 7, "2 to 32")),
    ({"ratio": 3, "offset": -1.75}, beside(19, "y", 6, "-1.75 to 13.25")),
    ({"offset": (1, 25)}, beside(24, "x", 7, "25 to 46.4286")),
    ({"offset": -40}, beside(19, "y", 6, "-40 to -23.3333")),
    (
        {"depth": TENSOR, "guide": GUIDE_TENSOR.to("meta")},
        "guide must be on depth's device cpu, got meta; give guide.to(depth.device)",
    ),
    (
        {"depth": TENSOR, "guide": GUIDE_TENSOR, "valid": (TENSOR > 1).to("meta")},
        "valid must be on depth's device cpu, got meta; give valid.to(depth.device)",
    ),
    (
        {"guide": np.ma.masked_equal(GUIDE, 0)},
        "guide must have all its pixels, got a masked array; give guide.data, or guide.filled()",
    ),
    (
        {"depth": np.array([[1, 2**53]])},
        "depth of integers must lie between -2**53 and 2**53, got 1 to 9007199254740992; subtract what all share",
    ),
    (
        {"depth": np.array([[-(2**60), 3]])},
        "depth of integers must lie between -2**53 and 2**53, got -1152921504606846976 to 3; subtract what all share",
    ),
    (
        {"depth": np.array([[-1e308, 1.5e308]])},
        "depth must have a range that float64 holds, got -1e+308 to 1.5e+308; scale it",
    ),
    ({"tile": 0}, f"{TILE}, got 0"),
    ({"tile": -3}, f"{TILE}, got -3"),
    ({"tile": 2.5}, f"{TILE}, got 2.5"),
    ({"model": "nowhere.safetensors"}, "nowhere.safetensors: no such file"),
    ({"model": Path("nowhere.ckpt")}, "nowhere.ckpt: no such file"),
]


def names(value: Any) -> str | None:
    return "-".join(value) if isinstance(value, dict) else None


@pytest.mark.parametrize(("wrong", "message"), TYPES, ids=names)
def test_type_errors(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as raised:
        upsample(**wrong)
    assert str(raised.value) == message


@pytest.mark.parametrize(("wrong", "message"), VALUES, ids=names)
def test_value_errors(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        upsample(**wrong)
    assert str(raised.value) == message


def test_a_broken_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"not one")
    with pytest.raises(ValueError, match="broken.safetensors: a file that `ddfnet train depth` wrote is required"):
        upsample(model=tmp_path / "broken.safetensors")


def test_without_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(NETWORK, tmp_path / "small.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs safetensors: pip install 'ddfnet\[upsample\]'"):
        upsample(model=tmp_path / "small.safetensors")
