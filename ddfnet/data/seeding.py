"""Random numbers that depend on what they are for, and on nothing that was drawn before."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derived_seed(*numbers: int) -> int:
    """One number of several, from 0 to 2**64 - 1: the same in whatever process and with whatever Python."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest(), "little")


def reseed(*numbers: int, devices: bool = False) -> None:
    """Set the generators of Python, NumPy and torch by some integers, such as a seed and a picture's place in the run.

    What is drawn next is the same in whatever process and after whatever else, so that a run which is broken off goes
    on as if it had not been.

    Args:
        numbers: any.
        devices: whether accelerators' generators are set too, which takes longer.

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
