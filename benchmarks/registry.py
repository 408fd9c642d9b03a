"""Every shape that is timed anywhere in this project, by name and by group."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One call of ``ddf`` with both filters and the default padding.

    Args:
        name: how it is asked for.
        shape: of the input, (N, C, H, W).
        kernel_size: taps a side.
        stride, dilation: pixels.
        heads: spatial filters a pixel.
        dtype: of all tensors, as torch names it.
        combine: how the filters meet, "mul" or "add".
    """

    name: str
    shape: tuple[int, int, int, int]
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    heads: int = 1
    dtype: str = "float32"
    combine: str = "mul"

    def __str__(self) -> str:
        parts = [
            f"{self.name}: {'x'.join(map(str, self.shape))}",
            f"{self.kernel_size}x{self.kernel_size}",
            f"stride {self.stride}" * (self.stride > 1),
            f"dilation {self.dilation}" * (self.dilation > 1),
            f"{self.heads} heads" * (self.heads > 1),
            self.combine * (self.combine != "mul"),
            self.dtype,
        ]
        return ", ".join(filter(None, parts))


GROUPS: dict[str, tuple[Case, ...]] = {
    # One layer of each early ResNet-50 stage, and the map on which the paper's table 2 measures.
    "default": (
        Case("c64", (8, 64, 56, 56)),
        Case("c128", (8, 128, 28, 28)),
        Case("c256", (8, 256, 14, 14)),
        Case("p2", (2, 256, 200, 300)),
    ),
    # Every 3x3 of ResNet-50 at 224x224 that has a shape of its own.
    "resnet50": (
        Case("c64", (8, 64, 56, 56)),
        Case("c128-s2", (8, 128, 56, 56), stride=2),
        Case("c128", (8, 128, 28, 28)),
        Case("c256-s2", (8, 256, 28, 28), stride=2),
        Case("c256", (8, 256, 14, 14)),
        Case("c512-s2", (8, 512, 14, 14), stride=2),
        Case("c512", (8, 512, 7, 7)),
    ),
    # A feature pyramid over a picture of 800x1200.
    "fpn": (
        Case("p2", (2, 256, 200, 300)),
        Case("p3", (2, 256, 100, 150)),
        Case("p4", (2, 256, 50, 75)),
        Case("p5", (2, 256, 25, 38)),
    ),
    # One argument changed at a time.
    "options": (
        Case("c128-k5", (8, 128, 28, 28), kernel_size=5),
        Case("c128-d2", (8, 128, 28, 28), dilation=2),
        Case("c128-g8", (8, 128, 28, 28), heads=8),
        Case("c128-add", (8, 128, 28, 28), combine="add"),
        Case("c128-bf16", (8, 128, 28, 28), dtype="bfloat16"),
        Case("c128-f16", (8, 128, 28, 28), dtype="float16"),
    ),
    # Says that the benchmark works, and nothing about speed.
    "tiny": (Case("tiny", (2, 8, 12, 12)),),
}

CASES: dict[str, Case] = {case.name: case for group in GROUPS.values() for case in group}
