"""Put a trained network into the package, its card with the errors on the test scenes: run by run.sh."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ddfnet import files

WEIGHTS = Path(__file__).parents[2] / "ddfnet" / "depth" / "weights"
ROWS = 6  # two scenes at three factors
PAIRS = (
    "the scenes of the folders are Middlebury pairs of 2001 to 2006 (middlebury15.tar), seven in each half of the last "
    "training, without Aloe; the trainings before it saw rendered rooms"
)


def main(network: str, results: str, method: str) -> None:
    """Copy the network file; its errors are those of ``method`` in the results."""
    rows = [row for row in json.loads(Path(results).read_text())["rows"] if row["method"] == method]
    if len(rows) != ROWS:
        raise SystemExit(f"{results}: {ROWS} rows of {method} are required, got {len(rows)}")
    card = json.loads(Path(network).with_suffix(".json").read_text())
    card["real_pairs"] = PAIRS
    card["test"] = {f"{row['scene']}_x{row['factor']}": round(row["ratio"], 4) for row in rows}
    card["test_is"] = "RMSE as a share of aligned bilinear's, protocol pac, scenes never trained on"
    files.atomic_write(WEIGHTS / "guided.safetensors", Path(network).read_bytes())
    files.atomic_write(WEIGHTS / "guided.json", json.dumps(card, indent=2) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
