"""Every shape that is timed anywhere in this project, by name and by group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

SEED = 0  # of all tensors and parameters
DIRECTIONS = ("forward", "forward+backward")  # of operator and layer
INFERENCE, COMPILED, TRAINING = "inference", "inference compiled", "training step"  # of networks


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

    Example:
        >>> print(Case("small", (2, 8, 12, 12), stride=2))
        small: 2x8x12x12, 3x3, stride 2, float32
    """

    name: str
    shape: tuple[int, int, int, int]
    kernel_size: int = 3
    stride: int = 1
    dilation: int = 1
    heads: int = 1
    dtype: str = "float32"
    combine: str = "mul"

    @property
    def output_size(self) -> tuple[int, int]:
        """Rows and columns, with the default padding: conv2d's formula."""
        span = self.dilation * (self.kernel_size - 1)
        rows, columns = ((size + 2 * (span // 2) - span - 1) // self.stride + 1 for size in self.shape[2:])
        return rows, columns

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


@dataclass(frozen=True)
class LayerCase:
    """One call of ``DDF2d(channels)``.

    Args:
        name: how it is asked for.
        channels: in and out.
        size: pixels a side, or rows.
        batch: maps.
        columns: pixels, of a map that is not square.

    Example:
        >>> print(LayerCase("px14", 256, 14, 8))
        px14: 8x256x14x14
    """

    name: str
    channels: int
    size: int
    batch: int
    columns: int | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the input and the output, (N, C, H, W)."""
        return self.batch, self.channels, self.size, self.columns or self.size

    def __str__(self) -> str:
        return f"{self.name}: {'x'.join(map(str, self.shape))}"


@dataclass(frozen=True)
class NetworkCase:
    """One batch through a network, and through the network that it takes the place of; timm's names.

    Args:
        name: how it is asked for.
        batch: pictures.
        size: pixels a side.
        model: the network with decoupled dynamic filters.
        baseline: the one without.

    Example:
        >>> print(NetworkCase("b8", 8))
        b8: ddf_mul_resnet50 and resnet50, 8x3x224x224
    """

    name: str
    batch: int
    size: int = 224
    model: str = "ddf_mul_resnet50"
    baseline: str = "resnet50"

    def __str__(self) -> str:
        return f"{self.name}: {self.model} and {self.baseline}, {self.batch}x3x{self.size}x{self.size}"


@dataclass(frozen=True)
class DepthCase:
    """A depth map, given at every ``factor``-th pixel of a photograph, that is enlarged to the photograph's size.

    Args:
        name: how it is asked for.
        width, height: of the photograph, in pixels.
        factor: pixels of the photograph from one sample to the next, along both axes.

    Example:
        >>> print(DepthCase("vga-x8", 640, 480, 8))
        vga-x8: 640x480, 8x
    """

    name: str
    width: int
    height: int
    factor: int

    @property
    def shape(self) -> str:
        """As pictures are described, width first."""
        return f"{self.width}x{self.height}"

    @property
    def megapixels(self) -> float:
        return self.width * self.height / 1e6

    def __str__(self) -> str:
        return f"{self.name}: {self.shape}, {self.factor}x"


@dataclass(frozen=True)
class FamilyCase:
    """One call of an operator of `ddfnet.family`, with what its paper takes besides the map.

    Args:
        name: how it is asked for.
        operator: of `ddfnet.family`.
        shape: of the map, (N, C, H, W); before it is enlarged, where it is.
        kernel_size: taps a side.
        group_channels: of involution, which share a filter.
        frames: of kernel prediction, each with C/frames channels.

    Example:
        >>> print(FamilyCase("pac", "pac", (2, 8, 6, 7), 5))
        pac: 2x8x6x7, 5x5
    """

    name: str
    operator: str
    shape: tuple[int, int, int, int]
    kernel_size: int
    group_channels: int = 16
    frames: int = 8

    def __str__(self) -> str:
        return f"{self.name}: {'x'.join(map(str, self.shape))}, {self.kernel_size}x{self.kernel_size}"


AnyCase = Case | LayerCase | NetworkCase | DepthCase | FamilyCase


def _with_batch(batch: int, cases: Sequence[Case]) -> tuple[Case, ...]:
    return tuple(replace(case, name=f"{case.name}-b{batch}", shape=(batch, *case.shape[1:])) for case in cases)


def _by_name(cases: Iterable[Case]) -> dict[str, Case]:
    return {case.name: case for case in cases}


# Every 3x3 of ResNet-50 at 224x224 that has a shape of its own.
_RESNET50 = (
    Case("c64", (8, 64, 56, 56)),
    Case("c128-s2", (8, 128, 56, 56), stride=2),
    Case("c128", (8, 128, 28, 28)),
    Case("c256-s2", (8, 256, 28, 28), stride=2),
    Case("c256", (8, 256, 14, 14)),
    Case("c512-s2", (8, 512, 14, 14), stride=2),
    Case("c512", (8, 512, 7, 7)),
)
# A feature pyramid over a picture of 800x1200; on the first map the paper's table 2 measures.
_FPN = (
    Case("p2", (2, 256, 200, 300)),
    Case("p3", (2, 256, 100, 150)),
    Case("p4", (2, 256, 50, 75)),
    Case("p5", (2, 256, 25, 38)),
)
# One argument changed at a time; half types also where the map is smaller, and larger than most caches.
_OPTIONS = (
    Case("c128-k5", (8, 128, 28, 28), kernel_size=5),
    Case("c128-k7", (8, 128, 28, 28), kernel_size=7),
    Case("c128-d2", (8, 128, 28, 28), dilation=2),
    Case("c128-g4", (8, 128, 28, 28), heads=4),
    Case("c128-add", (8, 128, 28, 28), combine="add"),
    Case("c64-bf16", (8, 64, 56, 56), dtype="bfloat16"),
    Case("c64-f16", (8, 64, 56, 56), dtype="float16"),
    Case("c128-bf16", (8, 128, 28, 28), dtype="bfloat16"),
    Case("c128-f16", (8, 128, 28, 28), dtype="float16"),
    Case("p3-bf16", (2, 256, 100, 150), dtype="bfloat16"),
    Case("p3-f16", (2, 256, 100, 150), dtype="float16"),
)
# The maps of the paper's table A, of one width.
_TABLE_A = tuple(Case(f"a{size}", (32, 256, size, size)) for size in (7, 14, 28, 56, 112, 224))
_named = _by_name((*_RESNET50, *_FPN))

GROUPS: dict[str, tuple[Case, ...]] = {
    "default": tuple(_named[name] for name in ("c64", "c128", "c256", "p2")),
    "resnet50": (*_with_batch(1, _RESNET50), *_RESNET50),
    # What an R-CNN of that name filters: the backbone's maps, and the pyramid's largest.
    "resnet50-fpn": (*_with_batch(1, _RESNET50), *_RESNET50, _named["p2"]),
    "fpn": _FPN,
    "options": _OPTIONS,
    "table2": (_named["p2"],),
    "tableA": _TABLE_A,
    # Says that the benchmark works, and nothing about speed.
    "tiny": (Case("tiny", (2, 8, 12, 12)),),
}
CASES = _by_name(case for group in GROUPS.values() for case in group)

# The widths of ResNet-50's 3x3 convolutions change with the map; one width for all maps shows what the map alone does.
_LAYERS = tuple(LayerCase(f"px{size}", 256, size, 8) for size in (7, 14, 28, 56, 112))
LAYER_GROUPS: dict[str, tuple[LayerCase, ...]] = {
    "default": _LAYERS,
    # The paper gives formulas in its table 1; this is a map on which its full dynamic filter can be measured too.
    "table1": (LayerCase("px14-b1", 256, 14, 1),),
    "table2": (LayerCase("p2", 256, 200, 2, columns=300),),
    # Without the maps of 224 pixels: each is 1.5 GiB, and the check in double precision would hold some 20 GiB.
    "tableA": tuple(LayerCase(f"{case.name}-b32", case.channels, case.size, 32) for case in _LAYERS),
    "tiny": (LayerCase("tiny", 8, 6, 2),),
}
LAYERS = {case.name: case for group in LAYER_GROUPS.values() for case in group}

NETWORKS = {f"b{batch}": NetworkCase(f"b{batch}", batch) for batch in (1, 8, 16, 32)} | {
    "tiny": NetworkCase("tiny", 2, 32, "ddf_mul_resnet18", "resnet18")
}

# A depth camera's photograph, and a full-HD one whose rows every factor divides.
DEPTHS = {
    name: DepthCase(name, width, height, factor)
    for size, width, height in (("vga", 640, 480), ("hd", 1920, 1088))
    for factor in (4, 8, 16)
    for name in [f"{size}-x{factor}"]
} | {"tiny": DepthCase("tiny", 64, 48, 4)}

# By the kernel of its paper, or the one that its code has by default.
_KERNELS = {
    "carafe": 5,
    "involution": 7,
    "adaptive_conv": 7,
    "joint_bilateral": 7,
    "pac": 5,
    "pac_transpose": 5,
    "kernel_prediction": 5,
    "dynamic_depthwise": 7,
    "local_mean": 3,
    "local_softmax": 3,
}


def _family(shape: tuple[int, int, int, int], suffix: str = "") -> tuple[FamilyCase, ...]:
    return tuple(FamilyCase(f"{name}{suffix}", name, shape, kernel) for name, kernel in _KERNELS.items())


# A pyramid's map, as detectors enlarge it; and one that says that the benchmark works.
FAMILY_GROUPS: dict[str, tuple[FamilyCase, ...]] = {
    "default": _family((2, 256, 100, 152)),
    "tiny": _family((1, 16, 8, 10), "-tiny"),
}
FAMILY = {case.name: case for group in FAMILY_GROUPS.values() for case in group}
