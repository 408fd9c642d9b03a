"""Script of run.sh that makes results.json and table.md from the results of `ddfnet evaluate detection`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from reporting import spread, table  # noqa: E402

from ddfnet.models.upsamplers import UPSAMPLERS  # noqa: E402
from ddfnet.tasks.detection.evaluation import upsampler_macs  # noqa: E402

PAPER = {  # MACs G, AP_S, AP_M, AP_L, AP: COCO minival, Faster R-CNN with ResNet-50 and a pyramid, one run each
    "nearest": (0.0, 21.2, 41.0, 48.1, 37.4),
    "bilinear": (0.02, 22.1, 41.2, 48.4, 37.6),
    "deconv": (12.57, 21.0, 41.1, 48.5, 37.3),
    "pixelshuffle": (50.18, 21.4, 41.5, 48.6, 37.7),
    "carafe": (2.14, 22.6, 42.0, 49.8, 38.5),
    "ddf": (0.58, 22.1, 42.4, 49.9, 38.6),
}
METRICS = ("AP", "AP50", "AP75", "AP_S", "AP_M", "AP_L")
NOT_RUN = "not run yet"


def costs() -> dict[str, dict[str, float | None]]:
    """Count each upsampler's GMACs at 800x1280 with 256 channels: the paper's where it has one, and ours."""
    return {
        name: {
            "paper": PAPER[name][0] if name in PAPER else None,
            "counted_from_1/64": upsampler_macs(name, 256, 800, 1280, from_pooled=True) / 1e9,
            "counted_from_1/32": upsampler_macs(name, 256, 800, 1280) / 1e9,
        }
        for name in UPSAMPLERS
    }


def seed_of(network: Mapping[str, Any]) -> str:
    """Return the seed of a network's run, from its card or from the name of its folder."""
    card = network["card"]
    return str(card["seed"]) if card else Path(network["file"]).parent.name.rpartition("-")[2]


def runs(results: Mapping[str, Any]) -> dict[str, Any]:
    """Summarise each upsampler: each figure by seed, with mean and standard deviation, and its costs."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for network, row in zip(results["networks"], results["rows"], strict=True):
        found.setdefault(row["upsampler"], {})[seed_of(network)] = row
    return {
        name: {
            "precision": {
                metric: spread({seed: row["precision"][metric] for seed, row in rows.items()})
                for metric in METRICS
                if all(metric in row["precision"] for row in rows.values())
            },
            "classes": {
                each: spread({seed: row["classes"][each] for seed, row in rows.items()})
                for each in next(iter(rows.values()))["classes"]
            },
            "parameters": next(iter(rows.values()))["parameters"],
            "upsampler_parameters": next(iter(rows.values()))["upsampler_parameters"],
            "upsampler_macs": next(iter(rows.values()))["upsampler_macs"],
            "seconds": spread({seed: row["seconds"] for seed, row in rows.items()}),
        }
        for name, rows in found.items()
    }


def percent(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "-"
    deviation = "" if value["std"] is None else f" ± {100 * value['std']:.1f}"
    return f"{100 * value['mean']:.1f}{deviation}"


def main() -> None:
    cost = costs()
    lines = ["Multiply-accumulates of the upsamplers at 800x1280 with 256 channels, in G:", ""]
    lines += table(
        ["", "paper", "counted, from 1/64 as there", "counted, from 1/32 as here"],
        [[name, *("-" if value is None else f"{value:.2f}" for value in each.values())] for name, each in cost.items()],
    )
    summary: dict[str, Any] = {"costs": cost}
    rows: dict[str, Any] = {}
    file = HERE / "results" / "bccd.json"
    if file.exists():
        results = json.loads(file.read_text())
        rows = runs(results)
        summary["bccd"] = {key: results[key] for key in ("command", "data", "machine")} | {"rows": rows}
    lines += ["", "BCCD, test part, in percent; mean and standard deviation of the seeds:", ""]
    classes = next(iter(rows.values()))["classes"] if rows else {}
    headers = ["", *METRICS, *classes, "parameters", "of upsamplers", "their MACs M"]
    lines += table(headers, [bccd_row(name, rows.get(name), len(headers)) for name in UPSAMPLERS])
    (HERE / "results.json").write_text(json.dumps(summary, indent=2) + "\n")
    (HERE / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def bccd_row(name: str, row: Mapping[str, Any] | None, cells: int) -> list[str]:
    if row is None:
        return [name, NOT_RUN, *[""] * (cells - 2)]
    return [
        name,
        *(percent(row["precision"].get(metric)) for metric in METRICS),
        *(percent(value) for value in row["classes"].values()),
        f"{row['parameters'] / 1e6:.3f} M",
        f"{row['upsampler_parameters']:,}",
        f"{row['upsampler_macs'] / 1e6:.1f}",
    ]


if __name__ == "__main__":
    main()
