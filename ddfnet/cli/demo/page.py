"""The page of the demo, with everything inside itself, and the figures beside it as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ddfnet.cli.errors import UserError

TEMPLATES = Environment(loader=PackageLoader("ddfnet", "cli/demo"), autoescape=True, undefined=StrictUndefined)


def write(output: Path, results: dict[str, Any], shown: dict[str, Any], tables: Sequence[str]) -> Path:
    """Write index.html, results.json and table.txt.

    Args:
        output: the folder.
        results: for results.json and the page.
        shown: what the page's parts show besides, by their names.
        tables: for table.txt.

    Returns:
        The page's path.
    """
    page = TEMPLATES.get_template("page.html.jinja").render(results=results, **shown)
    try:
        (output / "table.txt").write_text("\n\n".join(tables) + "\n")
        (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
        (output / "index.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write to the folder {output}: {error.strerror}") from None
    return output / "index.html"
