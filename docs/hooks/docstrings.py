"""Extension of griffe that turns docstrings, written for ``help()`` with Sphinx's formulas, into Markdown."""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

_FORMULA = re.compile(r"^\.\. math::\n((?:\n|[ ]{4}.*\n?)+)", re.MULTILINE)
_RETURNS = re.compile(r"^Returns:\n((?:\n|[ ]{4}.*\n?)+)", re.MULTILINE)
_INLINE_FORMULA = re.compile(r":math:`([^`]+)`")
_NAME = re.compile(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)")


class Docstrings(griffe.Extension):
    """Rewriter of formulas, of examples, and of names of the package in backticks, which become links."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite the docstrings when the whole package is loaded, because every name must be known."""
        self._rewrite(pkg)

    def _rewrite(self, thing: griffe.Object) -> None:
        if thing.docstring is not None:
            thing.docstring.value = markdown(thing.docstring.value, thing)
        for member in thing.members.values():
            if not member.is_alias:
                self._rewrite(member)  # type: ignore[arg-type]


def markdown(text: str, thing: griffe.Object) -> str:
    """Convert a docstring to Markdown."""
    text = _FORMULA.sub(_formula, text)
    text = _INLINE_FORMULA.sub(r"$\1$", text)
    # A section would take the text before the first colon for a type; Returns is prose.
    text = _RETURNS.sub(lambda returns: f"**Returns:**\n\n{textwrap.dedent(returns[1])}", text)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)  # a section with code
    return _NAME.sub(lambda name: _link(name[1], thing), text)


def _formula(directive: re.Match[str]) -> str:
    """Return a displayed formula; one with line breaks becomes a split environment, as in Sphinx."""
    formula = textwrap.dedent(directive[1]).strip()
    if "\\\\\n" in formula:
        formula = f"\\begin{{split}}\n{formula}\n\\end{{split}}"
    return f"$$\n{formula}\n$$\n\n"


def _link(name: str, thing: griffe.Object) -> str:
    """Return a link to the documentation of a name; a name that is not documented stays code."""
    try:
        path = thing.resolve(name) if not name.startswith("ddfnet.") else name
    except griffe.NameResolutionError:
        return f"`{name}`"
    return f'<autoref identifier="{path}" optional><code>{name}</code></autoref>'
