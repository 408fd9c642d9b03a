"""Page of the demo with everything inside itself, and its figures as files beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ddfnet import files
from ddfnet.errors import UserError

TEMPLATES = Environment(loader=PackageLoader("ddfnet", "demo"), autoescape=True, undefined=StrictUndefined)


def write(output: Path, results: dict[str, Any], shown: dict[str, Any], tables: Sequence[str]) -> Path:
    """Write index.html, results.json and table.txt.

    Args:
        output: the folder.
        results: for results.json and the page.
        shown: contents of the page's parts besides the results, by their names.
        tables: for table.txt.

    Returns:
        The path of the page.
    """
    page = TEMPLATES.get_template("page.html.jinja").render(results=results, **shown)
    try:
        files.atomic_write(output / "table.txt", "\n\n".join(tables) + "\n")
        files.atomic_write(output / "results.json", json.dumps(results, indent=2) + "\n")
        files.atomic_write(output / "index.html", page)
    except OSError as error:
        raise UserError(str(error)) from None
    return output / "index.html"
