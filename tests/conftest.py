from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every uninitialised result starts as NaN: a kernel that leaves out a pixel is seen."""
    empty = torch.empty

    def empty_of_nan(*args, **kwargs):
        result = empty(*args, **kwargs)
        return result.fill_(float("nan")) if result.is_floating_point() else result

    monkeypatch.setattr(torch, "empty", empty_of_nan)
    yield
