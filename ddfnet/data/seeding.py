"""Random numbers that depend on their purpose alone, not on earlier draws."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derived_seed(*numbers: int) -> int:
    """Derive one seed from several integers, 0 to 2**64 - 1: the same in every process and every Python."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest(), "little")


def reseed(*numbers: int, devices: bool = False) -> None:
    """Seed the generators of Python, NumPy and torch by integers, such as a seed and an image's position in the run.

    The next draws are the same in every process and after any earlier draws. So a resumed run equals an unbroken one.

    Args:
        numbers: integers that name the purpose.
        devices: seed the generators of accelerators too; that takes longer.

    Example:
        >>> import random
        >>> from ddfnet.data.seeding import reseed
        >>> reseed(0, 17); first = random.random()
        >>> reseed(0, 18); other = random.random()
        >>> reseed(0, 17); (random.random() == first, other == first)
        (True, False)
    """
    state = derived_seed(*numbers)
    random.seed(state)
    np.random.seed(state % 2**32)
    if devices:
        torch.manual_seed(state)
    else:
        torch.default_generator.manual_seed(state)
