"""All benchmark cases of this project, by name and by group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

SEED = 0  # for all tensors and parameters
DIRECTIONS = ("forward", "forward+backward")  # for operator and layer
INFERENCE, COMPILED, TRAINING = "inference", "inference compiled", "training step"  # for networks


@dataclass(frozen=True)
class Case:
    """One call of ``ddf`` with both filters and the default padding.

    Args:
        name: the name on the command line.
        shape: the shape of the input, (N, C, H, W).
        kernel_size: taps per side.
        stride, dilation: in pixels.
        heads: spatial filters per pixel.
        dtype: the dtype of all tensors, by its name in torch.
        combine: the combination of the filters, "mul" or "add".

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
        """Rows and columns of the output, with the default padding."""
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
        name: the name on the command line.
        channels: input and output channels.
        size: pixels per side, or rows.
        batch: samples.
        columns: columns of a map that is not square.

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
        """Shape of input and output, (N, C, H, W)."""
        return self.batch, self.channels, self.size, self.columns or self.size

    def __str__(self) -> str:
        return f"{self.name}: {'x'.join(map(str, self.shape))}"


@dataclass(frozen=True)
class NetworkCase:
    """One batch through a network and through the network that it replaces, by their names in timm.

    Args:
        name: the name on the command line.
        batch: images.
        size: pixels per side.
        model: the network with decoupled dynamic filters.
        baseline: the network without.

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
    """A depth map with a sample at every ``factor``-th pixel of a guide image, upsampled to the size of that image.

    Args:
        name: the name on the command line.
        width, height: the size of the guide image, in pixels.
        factor: pixels of the guide image from one sample to the next, along both axes.

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
        """Size of the guide image, as it is usually written, width first."""
        return f"{self.width}x{self.height}"

    @property
    def megapixels(self) -> float:
        return self.width * self.height / 1e6

    def __str__(self) -> str:
        return f"{self.name}: {self.shape}, {self.factor}x"


@dataclass(frozen=True)
class FamilyCase:
    """One call of an operator of `ddfnet.family`, with the arguments of its paper.

    Args:
        name: the name on the command line.
        operator: the name of the operator in `ddfnet.family`.
        shape: the shape of the input, (N, C, H, W), before any upsampling.
        kernel_size: taps per side.
        group_channels: channels that share a filter, for involution.
        frames: frames of C/frames channels each, for kernel prediction.

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


def _index(cases: Iterable[Case]) -> dict[str, Case]:
    return {case.name: case for case in cases}


# The different shapes of the 3x3 convolutions of ResNet-50 at 224x224.
_RESNET50 = (
    Case("c64", (8, 64, 56, 56)),
    Case("c128-s2", (8, 128, 56, 56), stride=2),
    Case("c128", (8, 128, 28, 28)),
    Case("c256-s2", (8, 256, 28, 28), stride=2),
    Case("c256", (8, 256, 14, 14)),
    Case("c512-s2", (8, 512, 14, 14), stride=2),
    Case("c512", (8, 512, 7, 7)),
)
# A feature pyramid over an image of 800x1200; the first map is that of the paper's table 2.
_FPN = (
    Case("p2", (2, 256, 200, 300)),
    Case("p3", (2, 256, 100, 150)),
    Case("p4", (2, 256, 50, 75)),
    Case("p5", (2, 256, 25, 38)),
)
# One argument changed at a time; half types also on a smaller map and on one larger than most caches.
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
# The maps of the paper's table A, all with the same channels.
_TABLE_A = tuple(Case(f"a{size}", (32, 256, size, size)) for size in (7, 14, 28, 56, 112, 224))
_named = _index((*_RESNET50, *_FPN))

GROUPS: dict[str, tuple[Case, ...]] = {
    "default": tuple(_named[name] for name in ("c64", "c128", "c256", "p2")),
    "resnet50": (*_with_batch(1, _RESNET50), *_RESNET50),
    # The maps of an R-CNN of that name: those of the backbone, and the largest of the pyramid.
    "resnet50-fpn": (*_with_batch(1, _RESNET50), *_RESNET50, _named["p2"]),
    "fpn": _FPN,
    "options": _OPTIONS,
    "table2": (_named["p2"],),
    "tableA": _TABLE_A,
    # Shows that the benchmark works; its times mean nothing.
    "tiny": (Case("tiny", (2, 8, 12, 12)),),
}
CASES = _index(case for group in GROUPS.values() for case in group)

# In ResNet-50 the channels of the 3x3 convolutions change with the map; the same channels show the effect of the map.
_LAYERS = tuple(LayerCase(f"px{size}", 256, size, 8) for size in (7, 14, 28, 56, 112))
LAYER_GROUPS: dict[str, tuple[LayerCase, ...]] = {
    "default": _LAYERS,
    # The paper's table 1 has formulas; on this map its full dynamic filter can be measured too.
    "table1": (LayerCase("px14-b1", 256, 14, 1),),
    "table2": (LayerCase("p2", 256, 200, 2, columns=300),),
    # Not with maps of 224 pixels: each is 1.5 GiB, and the check in double precision would hold some 20 GiB.
    "tableA": tuple(LayerCase(f"{case.name}-b32", case.channels, case.size, 32) for case in _LAYERS),
    "tiny": (LayerCase("tiny", 8, 6, 2),),
}
LAYERS = {case.name: case for group in LAYER_GROUPS.values() for case in group}

NETWORKS = {f"b{batch}": NetworkCase(f"b{batch}", batch) for batch in (1, 8, 16, 32)} | {
    "tiny": NetworkCase("tiny", 2, 32, "ddf_mul_resnet18", "resnet18")
}

# The image of a depth camera, and a full-HD image with a height that every factor divides.
DEPTHS = {
    name: DepthCase(name, width, height, factor)
    for size, width, height in (("vga", 640, 480), ("hd", 1920, 1088))
    for factor in (4, 8, 16)
    for name in [f"{size}-x{factor}"]
} | {"tiny": DepthCase("tiny", 64, 48, 4)}

# The kernel size in the paper, or the default of its code.
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


# A map of a pyramid, as detectors upsample it; and one that shows that the benchmark works.
FAMILY_GROUPS: dict[str, tuple[FamilyCase, ...]] = {
    "default": _family((2, 256, 100, 152)),
    "tiny": _family((1, 16, 8, 10), "-tiny"),
}
FAMILY = {case.name: case for group in FAMILY_GROUPS.values() for case in group}
