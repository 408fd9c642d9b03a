"""What the documentation shows runs: every snippet in Python, in the order of its page, with the shapes it states."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHAPE = re.compile(r"^(\w+) = .*# \((\d[\d, ]*)\)", re.MULTILINE)
PAGES = [page for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))) if SNIPPET.search(page.read_text())]


@pytest.mark.skipif(not PAGES, reason="the sources are not here, only the tests")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_snippet_runs(page, tmp_path, monkeypatch):
    pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    scope = {}
    for snippet in SNIPPET.findall(page.read_text()):
        exec(compile(snippet, page.name, "exec"), scope)  # each goes on from the one before
        for name, shape in SHAPE.findall(snippet):
            assert tuple(scope[name].shape) == tuple(map(int, shape.strip(", ").split(","))), name
