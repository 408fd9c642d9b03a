"""Hooks that turn the repository into a site: links, docstrings, formulas. `make docs` fails on a warning."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace

import griffe
import pytest

ROOT = Path(__file__).parents[1]


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"hook_{name}", ROOT / "docs" / "hooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


repository, mathematics, docstrings = hook("repository"), hook("mathematics"), hook("docstrings")


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("README.md", "overview.md"),
        ("docs/gpu.md", "gpu.md"),
        ("docs/api/nn.md", "api/nn.md"),
        ("reproduce/table7/README.md", "reproduce/table7/README.md"),
        ("reproduce/table7", "reproduce/table7/README.md"),
        ("reproduce/table7/results", "reproduce/table7/results/index.md"),
    ],
)
def test_where_a_file_lies_on_the_site(path, place):
    assert repository.place(ROOT / path) == place


@pytest.mark.parametrize(
    ("page", "before", "after"),
    [
        ("README.md", "docs/guided.md#training", "guided.md#training"),
        ("README.md", "reproduce/table7", "reproduce/table7/README.md"),
        ("docs/detection.md", "../reproduce/table6/README.md", "reproduce/table6/README.md"),
        ("docs/index.md", "../README.md#install", "overview.md#install"),
        ("docs/api/nn.md", "../layers.md", "../layers.md"),
        ("reproduce/table5/README.md", "../../docs/scale.md", "../../scale.md"),
        ("reproduce/table7/README.md", "results", "results/index.md"),
        ("reproduce/table7/README.md", "../../README.md", "../../overview.md"),
        ("docs/index.md", "https://arxiv.org/abs/2104.14107", "https://arxiv.org/abs/2104.14107"),
        ("docs/index.md", "no-such-page.md", "no-such-page.md"),  # MkDocs then warns
        ("docs/index.md", "../../outside.md", "../../outside.md"),
        ("docs/index.md", "#where-to-begin", "#where-to-begin"),
    ],
)
def test_links_lead_from_page_to_page(page, before, after):
    source = ROOT / page
    file = SimpleNamespace(abs_src_path=str(source), src_uri=repository.place(source))
    moved = repository.on_page_markdown(f"see [a page]({before}).", SimpleNamespace(file=file))
    assert moved == f"see [a page]({after})."


PAGES = sorted({*ROOT.glob("docs/**/*.md"), *(page for pattern in repository.PAGES for page in ROOT.glob(pattern))})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_from_file_to_file_too(page):
    links = re.findall(r"\]\(([^)\s#]+)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_a_docstring_in_markdown():
    module = griffe.visit("ddfnet", Path("ddfnet.py"), "class DDF2d: ...\ndef ddf(): ...\n")
    text = r"""Filter, see `DDF2d` and `ddfnet.family.CARAFE`, ``literal`` and `unknown`.

.. math::
    y = \frac{a}{b},
    \quad a

.. math::
    a, \\
    b

where :math:`W_c` is one.

Example:
    >>> 1
    1
"""
    result = docstrings.markdown(text, module["ddf"])
    ours, others = "<code>DDF2d</code>", "<code>ddfnet.family.CARAFE</code>"
    assert f'<autoref identifier="ddfnet.DDF2d" optional>{ours}</autoref> and' in result
    link = f'<autoref identifier="ddfnet.family.CARAFE" optional>{others}</autoref>'
    assert f"{link}, ``literal`` and `unknown`." in result
    assert result.endswith(r"""

$$
y = \frac{a}{b},
\quad a
$$

$$
\begin{split}
a, \\
b
\end{split}
$$

where $W_c$ is one.

Examples:
    >>> 1
    1
""")


def test_formulas_are_drawn_by_the_browser():
    inline = r'<span class="arithmatex">\(a &lt; b\)</span>'
    block = '<div class="arithmatex">\\[\n\\sum_i x_i\n\\]</div>'
    drawn = mathematics.on_page_content(f"<p>of {inline}</p>{block}")
    assert "arithmatex" not in drawn and "\\sum" not in drawn
    assert '<span class="formula"><math' in drawn and "&#x0003C;" in drawn
    assert '<div class="formula"><math' in drawn and 'display="block"' in drawn
