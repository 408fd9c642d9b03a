"""Rows of docs/field.md: each names a test that exists."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/field.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| situation")
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_situation_names_its_test(row: list[str]) -> None:
    situation, right, since, test = row
    assert right.startswith(("yes", "no")) and since and situation
    if test.strip(" |") == "none":
        assert right.startswith("no") or "by hand" in right, "what is right has a test, or was tried by hand"
        return
    file, _, function = test.strip(" `|").partition("::")
    assert (ROOT / file).is_file(), f"{file} is not there"
    assert not function or f"def {function}(" in (ROOT / file).read_text(), f"{file} has no {function}"
