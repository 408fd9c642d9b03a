"""Snippets, shapes and countable figures of the documentation."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import ddfnet

ROOT = Path(__file__).parents[1]
# A block of text right after a snippet is its output.
SNIPPET = re.compile(r"^```python\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", re.DOTALL | re.MULTILINE)
SHAPE = re.compile(r"^(\w+) = .*# \((\d[\d, ]*)\)", re.MULTILINE)
PRINTED = re.compile(r"^ *print\(.*\)\n# (.+)$", re.MULTILINE)  # "..." at the end stands for the rest of the line
PAGES = [page for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))) if SNIPPET.search(page.read_text())]


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_snippet_runs(page, tmp_path, monkeypatch, capsys):
    pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    scope = {}
    for snippet, output in SNIPPET.findall(page.read_text()):
        exec(compile(snippet, page.name, "exec"), scope)  # each snippet continues the one before
        for name, shape in SHAPE.findall(snippet):
            assert tuple(scope[name].shape) == tuple(map(int, shape.strip(", ").split(","))), name
        printed = capsys.readouterr().out
        assert output in printed
        lines = printed.splitlines()
        for stated in PRINTED.findall(snippet):
            beginning, dots, _ = stated.partition("...")
            assert any(line.startswith(beginning) if dots else line == stated for line in lines), (stated, lines)


def rows(page: str, first: str) -> list[list[str]]:
    """Return the rows of a page's tables whose first cell begins with ``first``."""
    lines = [line for line in (ROOT / "docs" / page).read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip(" *`") for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if row[0].startswith(first)]


def cost(model: torch.nn.Module, *inputs: torch.Tensor) -> tuple[int, float]:
    """Count the parameters, and the MACs of a forward pass."""
    with FlopCounterMode(display=False) as counter:
        model(*inputs)
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() / 2


@pytest.mark.parametrize("depth", ["18", "50", "101", "152"])
def test_the_networks_cost_what_their_table_says(depth):
    timm = pytest.importorskip("timm")
    import ddfnet.models  # noqa: F401  (registers them)

    [row] = rows("models.md", f"ddf_mul_resnet{depth}")
    with torch.device("meta"):
        image = torch.empty(1, 3, 224, 224)
        for name, millions, giga in (row[:3], row[3:6]):
            parameters, macs = cost(timm.create_model(name).eval(), image)
            assert f"{parameters / 1e6:.2f} M" == millions
            assert f"{macs / 1e9:.2f} G" == giga


def evaluated(formula: str) -> float:
    """Evaluate a formula of the operator's page for its map: 256 channels, 200 x 300 pixels, 3x3."""
    return eval(formula.replace("·", "*").replace("²", "**2"), {"n": 200 * 300, "C": 256, "K": 9})


OPERATORS = (
    "depthwise convolution",
    "DDF, one of the filters",
    "DDF, both",
    "a filter per pixel and channel",
    "convolution",
    "a filter per pixel and pair of channels",
)


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_operators_costs_are_their_formulas(operator):
    [(_, macs, giga, formulas, numbers, mebibytes)] = rows("operator.md", operator)
    places = 1 if evaluated(macs) > 1e10 else 2
    assert f"{evaluated(macs) / 1e9:.{places}f} G" == giga
    for formula, number, size in zip(*(cell.split(", or ") for cell in (formulas, numbers, mebibytes)), strict=True):
        count = evaluated(formula)
        assert f"{count:,.0f}" == number
        assert f"{4 * count / 2**20:,.{0 if count > 1e8 else 2}f}" == size


@pytest.mark.parametrize("both", [True, False])
def test_the_operator_counts_by_its_formula(both):
    [(_, formula, *_)] = rows("operator.md", "DDF, both" if both else "DDF, one of the filters")
    with torch.device("meta"):
        x, channel, spatial = torch.empty(1, 256, 200, 300), torch.empty(1, 256, 3, 3), torch.empty(1, 9, 200, 300)
    with FlopCounterMode(display=False) as counter:
        ddfnet.ddf(x, channel, spatial if both else None)
    assert counter.get_total_flops() / 2 == evaluated(formula)
