"""Hook that turns formulas into MathML, which browsers draw without a script and without a download."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

# Output of pymdownx.arithmatex for $...$ and $$...$$.
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Turn the formulas of a page, including those of its docstrings, into MathML."""
    return _FORMULA.sub(_drawn, content)


def _drawn(formula: re.Match[str]) -> str:
    tag, latex = formula[1], html.unescape(formula[2])
    drawn = convert(latex, display="block" if tag == "div" else "inline")
    return f'<{tag} class="formula">{drawn}</{tag}>'
