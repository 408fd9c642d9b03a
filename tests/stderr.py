"""Lines that commands write to stderr."""

from __future__ import annotations


def lines(text: str) -> list[str]:
    """Split it, without notes on the machine, such as that its bfloat16 is slow."""
    return [line for line in text.splitlines() if not line.startswith("ddfnet: note: ")]
