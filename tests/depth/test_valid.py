"""Valid depth, of tensors and arrays alike."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ddfnet.depth.valid import MISSING, valid_depth

VALUES = [2.5, 0.0, -0.0, math.nan, math.inf, -math.inf, -1.0, 65535.0]
CASES = [
    ({}, [True, False, False, False, False, False, True, True]),
    ({"missing": (*MISSING, 65535, -1)}, [True, False, False, False, False, False, False, False]),
    ({"missing": ()}, [True, True, True, False, False, False, True, True]),
]


@pytest.mark.parametrize(("options", "expected"), CASES)
def test_finite_and_not_missing(options: dict, expected: list[bool]) -> None:
    array = valid_depth(np.array(VALUES), **options)
    assert isinstance(array, np.ndarray) and array.dtype == bool and array.tolist() == expected
    assert valid_depth(torch.tensor(VALUES), **options).tolist() == expected


def test_a_mask_decides_alone_but_for_what_is_no_number() -> None:
    mask = [True, True, False, True]
    depth = [1.0, 0.0, 3.0, math.nan]
    assert valid_depth(torch.tensor(depth), torch.tensor(mask)).tolist() == [True, True, False, False]
    assert valid_depth(np.array(depth), np.array(mask), missing=(0,)).tolist() == [True, False, False, False]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "float16"])
def test_any_type_of_numbers(dtype: str) -> None:
    depth = np.array([[0, 7], [255, 1]], dtype)
    assert valid_depth(depth, missing=(0, 255, -1)).tolist() == [[False, True], [False, True]]
