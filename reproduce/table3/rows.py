"""Rows of the comparison: the layer in the middle of each block. As a program, it prints the runs of run.sh.

python reproduce/table3/rows.py            # all of it
python reproduce/table3/rows.py --missing  # what results.json does not have
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results.json"
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Row:
    """A network of the comparison.

    Args:
        title: in tables.
        paper: its row of the paper's tables, with top-1 on ImageNet; "" where there is none.
        options: options of `ddfnet.models.resnet.small_resnet23`.
    """

    title: str
    paper: str
    options: dict[str, Any] = field(default_factory=dict)


def _ddf(**options: Any) -> dict[str, Any]:
    return {"mixer": "ddf", "block_args": options} if options else {"mixer": "ddf"}


ROWS = {
    "conv": Row("3x3 convolution", "3a, base: 77.2", {"mixer": "conv"}),
    "depthwise": Row("depthwise 3x3 convolution", "", {"mixer": "depthwise"}),
    "spatial": Row("DDF, spatial filters only", "3a: 74.4", _ddf(filters="spatial")),
    "channel": Row("DDF, channel filters only", "3a: 78.7", _ddf(filters="channel")),
    "ddf": Row("DDF, both, multiplied; FilterNorm; reduction 0.2", "3a, 3b, 3c: 79.1", _ddf()),
    "add": Row("DDF, both, added", "code: 78.8", _ddf(combine="add")),
    "batch": Row("DDF, batch norm for FilterNorm", "3b: 76.0", _ddf(norm="batch")),
    "sigmoid": Row("DDF, sigmoid for FilterNorm", "3b: 78.2", _ddf(norm="sigmoid")),
    "none": Row("DDF, filters as they are predicted", "", _ddf(norm="none")),
    "reduction-0.1": Row("DDF, reduction 0.1", "", _ddf(reduction=0.1)),
    "reduction-0.4": Row("DDF, reduction 0.4", "3c: 79.2", _ddf(reduction=0.4)),
    "se": Row("3x3 convolution with SE", "5: 77.8", {"mixer": "conv", "block_args": {"attn_layer": "se"}}),
    "involution": Row(
        "as involution: spatial filters only, 4 heads, not normalised",
        "",
        _ddf(filters="spatial", heads=4, norm="none"),
    ),
    "weightnet": Row(
        "dynamic depthwise, as DwWeightNet: channel filters, sigmoid",
        "4: 78.0",
        _ddf(filters="channel", norm="sigmoid"),
    ),
}


@dataclass(frozen=True)
class Remedy:
    """Change to try where DDF does not beat the convolution.

    Args:
        title: in tables.
        words: arguments of the command, besides the row's.
        options: options of `ddfnet.nn.DDF2d` besides the row's.
    """

    title: str
    words: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


REMEDIES = {
    "zero-init": Remedy("filters begin equal for all pixels and images", options={"zero_init": True}),
    "zero-init-none": Remedy(
        "the same without FilterNorm: each layer begins as a depthwise convolution",
        options={"zero_init": True, "norm": "none"},
    ),
    "filter-rate-0.2": Remedy(
        "a fifth of the learning rate for what predicts filters", ("--model.filter_lr_scale=0.2",)
    ),
    "filter-no-decay": Remedy("no weight decay for what predicts filters", ("--model.filter_decay=0",)),
    "warmup-3": Remedy("three epochs of warm-up, not one", ("--model.warmup_epochs=3",)),
}


def concerned(name: str) -> tuple[str, ...]:
    """Return the rows that a remedy changes; the convolution too, unless the remedy is about filters alone."""
    remedy = REMEDIES[name]
    filters_alone = all(word.startswith("--model.filter") for word in remedy.words)
    return ("ddf",) if filters_alone else ("conv", "ddf")


def remedied(name: str, kind: str) -> dict[str, Any]:
    """Return the options of a row's network with a remedy."""
    options, own = ROWS[kind].options, REMEDIES[name].options
    return options | {"block_args": options.get("block_args", {}) | own} if own else options


def arguments(options: dict[str, Any]) -> str:
    """Return the arguments of `ddfnet train classification`."""
    return f"--model.network_options={json.dumps(options, separators=(',', ':'))}"


def trainings() -> Iterator[tuple[str, str, int, str]]:
    """Return all runs: part of run.sh, name, seed, arguments of the command."""
    for seed in SEEDS:
        for name, row in ROWS.items():
            yield "rows", name, seed, arguments(row.options)
    for seed in SEEDS:
        for name, remedy in REMEDIES.items():
            for kind in concerned(name):
                yield "remedies", f"{kind}-{name}", seed, " ".join([arguments(remedied(name, kind)), *remedy.words])


def collected(results: dict[str, Any]) -> set[tuple[str, int]]:
    """Name and seed of the trainings that a results.json has."""
    named = dict(results["rows"])
    for remedy, kinds in results["remedies"].items():
        named |= {f"{kind}-{remedy}": found for kind, found in kinds.items()}
    return {(name, int(seed)) for name, found in named.items() for seed in found["by_seed"]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--missing", action="store_true")
    known = collected(json.loads(RESULTS.read_text())) if parser.parse_args().missing else set()
    for part, name, seed, words in trainings():
        if (name, seed) not in known:
            print(f"{part} {name}-{seed} --seed_everything={seed} {words}")


if __name__ == "__main__":
    main()
