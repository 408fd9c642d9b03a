"""Script of run.sh that makes results.json and table.md from the runs in runs/table3 and from costs.json.

Results of a training whose folder is missing stay in results.json.
"""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import reporting  # noqa: E402
from rows import REMEDIES, RESULTS, ROWS, SEEDS, concerned  # noqa: E402

RUNS = HERE.parents[1] / "runs" / "table3"
_NOT_RUN = "not run"
_LOGGED = 13  # logged losses of the last epoch: every thirtieth of 390 steps
_KEPT = ("command", "machine", "seed", "seconds", "epochs", "steps")  # fields of a run's card


# --- reading --------------------------------------------------------------------------------------------------------


def run(folder: Path) -> dict[str, Any] | None:
    """Read a run's accuracy after its last epoch and its curves, or its failure; None if it has not ended."""
    card = folder / "model.json"
    if not card.exists():
        log = folder.with_name(folder.name + ".log")
        found = re.findall(r"the loss of step \d+ is \w+", log.read_text()) if log.exists() else []
        return {"diverged": found[-1]} if found else None
    written = json.loads(card.read_text())
    [*files] = sorted((folder / "csv").glob("*/metrics.csv"))
    lines = [line for file in files for line in csv.DictReader(file.open())]
    losses = [float(line["loss"]) for line in lines if line.get("loss")][-_LOGGED:]
    curve = {int(line["epoch"]) + 1: float(line["top1"]) for line in lines if line.get("top1")}
    # The folder of the images is private.
    command = re.sub(r"(?<=--data\.path )\S*/", "", written["command"])
    return {key: written[key] for key in _KEPT} | {
        "command": command,
        "top1": written["metrics"]["top1"],
        "loss": written["metrics"]["val_loss"],
        "training_loss": round(statistics.mean(losses), 4) if losses else None,
        "curve": [curve[epoch] for epoch in sorted(curve) if epoch <= written["epochs"]],
    }


def summary(name: str, runs: Path, earlier: dict[str, Any]) -> dict[str, Any]:
    """Summarise a row: the run of each seed, and mean and deviation of the accuracies in per cent."""
    known = earlier.get("by_seed", {})
    seeds = {
        str(seed): found
        for seed in SEEDS
        if (found := run(runs / f"{name}-{seed}") or known.get(str(seed))) is not None
    }
    values = {seed: 100 * each["top1"] for seed, each in seeds.items() if "top1" in each}
    spread = reporting.spread(values) if values else {"mean": None, "std": None}
    return spread | {"by_seed": seeds, "runs": len(values)}


# --- claims ---------------------------------------------------------------------------------------------------------


def diverged(row: dict[str, Any]) -> int:
    """Count the runs of a row that ended in nan."""
    return sum("diverged" in each for each in row["by_seed"].values())


def difference(rows: dict[str, Any], one: str, other: str) -> tuple[float, float] | None:
    """Return the difference of two rows in points, and its standard error; None if a seed is missing."""
    first, second = rows[one], rows[other]
    if not first["runs"] == second["runs"] == len(SEEDS):
        return None
    error = math.sqrt((first["std"] ** 2 + second["std"] ** 2) / len(SEEDS))
    return first["mean"] - second["mean"], error


def ahead(rows: dict[str, Any], one: str, others: list[str], least: float = 0.0) -> tuple[str, str]:
    """Judge if a row is ahead of others by at least ``least`` points and by more than twice the standard error."""
    found = {other: difference(rows, one, other) for other in others}
    if any(value is None for value in found.values()):
        ended = [name for name in (one, *others) if diverged(rows[name])]
        return ("not settled", f"{' and '.join(ended)} ended in nan") if ended else (_NOT_RUN, "")
    known = {other: value for other, value in found.items() if value is not None}
    holds = all(points >= least and points > 2 * error for points, error in known.values())
    figures = "; ".join(f"{points:+.2f} ± {error:.2f} to {other}" for other, (points, error) in known.items())
    return "holds" if holds else "does not hold", figures


def claims(rows: dict[str, Any]) -> list[dict[str, str]]:
    """Judge each claim of the paper at this scale, with the figures."""
    found = []
    verdict, figures = ahead(rows, "ddf", ["conv"], least=1.0)
    shares = {key: rows["ddf"][key] / rows["conv"][key] for key in ("macs", "parameters")}
    if verdict == "holds" and not (shares["macs"] <= 0.6 and shares["parameters"] <= 0.7):
        verdict = "does not hold"
    costs = f"{shares['macs']:.2f} of the MACs, {shares['parameters']:.2f} of the parameters"
    what = "DDF beats convolution by 1 point or more at 0.6 of the MACs and 0.7 of the parameters or less"
    found.append((what, verdict, "; ".join(filter(None, [figures, costs]))))
    found.append(("both filters beat either alone", *ahead(rows, "ddf", ["spatial", "channel"])))
    found.append(("FilterNorm beats sigmoid and batch norm", *ahead(rows, "ddf", ["sigmoid", "batch"])))
    verdict, figures = _NOT_RUN, ""
    reductions = [rows[name] for name in ("reduction-0.1", "ddf", "reduction-0.4")]
    if all(row["runs"] == len(SEEDS) for row in reductions):
        means = [row["mean"] for row in reductions]
        spread = max(means) - min(means)
        verdict, figures = "holds" if spread <= 0.5 else "does not hold", f"{spread:.2f} points from 0.1 to 0.4"
    found.append(("the reduction hardly matters: half a point at most", verdict, figures))
    return [dict(zip(("claim", "verdict", "figures"), each, strict=True)) for each in found]


# --- writing --------------------------------------------------------------------------------------------------------


def accuracy(row: dict[str, Any]) -> str:
    """Format the accuracy in per cent, with its deviation and notes."""
    notes = []
    if ended := diverged(row):
        notes.append(f"{ended} ended in nan")
    if 0 < row["runs"] < len(SEEDS):
        notes.append(f"{row['runs']} of {len(SEEDS)} seeds")
    note = f" ({', '.join(notes)})" if notes else ""
    if row["mean"] is None:
        return note.strip(" ()") or _NOT_RUN
    return f"{row['mean']:.2f}" + (f" ± {row['std']:.2f}" if row["std"] is not None else "") + note


def table(results: dict[str, Any]) -> list[str]:
    headers = [
        "",
        "paper, top-1 on ImageNet",
        "top-1 on CIFAR-10",
        "parameters",
        "MACs",
        "ms per image, batch 1",
        "batch 128",
    ]
    headers += ["ms per step", "MiB per step"]
    rows = []
    for name, row in results["rows"].items():
        times = row.get("milliseconds", {})
        measured = [times.get("1"), times.get("128"), row.get("step_milliseconds"), row.get("step_mib")]
        cells = [ROWS[name].title, ROWS[name].paper or "-", accuracy(row)]
        cells += [f"{row['parameters'] / 1e3:.0f} k", f"{row['macs'] / 1e6:.2f} M"]
        cells += [_NOT_RUN if value is None else f"{value:.3g}" for value in measured]
        rows.append(cells)
    claimed = [[each["claim"], f"**{each['verdict']}**", each["figures"]] for each in results["claims"]]
    lines = [*reporting.table(headers, rows), "", *reporting.table(["claim", "at this scale", "by"], claimed)]
    if results["remedies"]:
        # A remedy for DDF alone leaves the row of the convolution unchanged.
        both = {name: {"conv": results["rows"]["conv"]} | kinds for name, kinds in results["remedies"].items()}
        tried = [["none", accuracy(results["rows"]["conv"]), accuracy(results["rows"]["ddf"])]]
        tried += [
            [REMEDIES[name].title, *(accuracy(kinds[kind]) for kind in ("conv", "ddf"))] for name, kinds in both.items()
        ]
        lines += ["", *reporting.table(["remedy", "convolution", "DDF"], tried)]
    return lines


def collect(runs: Path, costs: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Collect all results: those of the runs, and those of an earlier results.json."""
    known = {"rows": {}, "remedies": {}} | earlier
    rows = {name: summary(name, runs, known["rows"].get(name, {})) | costs["rows"][name] for name in ROWS}
    remedies = {
        name: {
            kind: summary(f"{kind}-{name}", runs, known["remedies"].get(name, {}).get(kind, {}))
            for kind in concerned(name)
        }
        for name in REMEDIES
    }
    remedies = {name: kinds for name, kinds in remedies.items() if any(kind["by_seed"] for kind in kinds.values())}
    about = {key: costs[key] for key in ("command", "machine", "batch")}
    return {"rows": rows, "claims": claims(rows), "remedies": remedies, "costs": about}


def main() -> None:
    earlier = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results = collect(RUNS, json.loads((HERE / "costs.json").read_text()), earlier)
    lines = table(results)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    (HERE / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
