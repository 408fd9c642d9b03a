"""Error over an image that is moved against the depth map: the page quotes the results file."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_has_the_figures_of_the_file() -> None:
    share = json.loads((ROOT / "reproduce" / "field" / "registration.json").read_text())["share"]
    page = (ROOT / "docs" / "guided.md").read_text()
    assert f"| image moved by, pixels | {' | '.join(share)} |" in page
    assert f"| RMSE, share of aligned bilinear's | {' | '.join(f'{value:.2f}' for value in share.values())} |" in page
    assert share["1"] < share["2"] < 1 < share["4"]  # as the text says
