"""Docstrings are written for ``help()``, with Sphinx's formulas; here they become Markdown before they are rendered."""

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
    """Formulas, examples, and links where a name in backticks is one of the package's."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """When all is loaded, so that every name can be looked up."""
        self._rewrite(pkg)

    def _rewrite(self, thing: griffe.Object) -> None:
        if thing.docstring is not None:
            thing.docstring.value = markdown(thing.docstring.value, thing)
        for member in thing.members.values():
            if not member.is_alias:
                self._rewrite(member)  # type: ignore[arg-type]


def markdown(text: str, thing: griffe.Object) -> str:
    """A docstring in Markdown."""
    text = _FORMULA.sub(_formula, text)
    text = _INLINE_FORMULA.sub(r"$\1$", text)
    # Prose, in which a section would look for a type before the first colon.
    text = _RETURNS.sub(lambda returns: f"**Returns:**\n\n{textwrap.dedent(returns[1])}", text)
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)  # a section that is code
    return _NAME.sub(lambda name: _link(name[1], thing), text)


def _formula(directive: re.Match[str]) -> str:
    """A formula by itself; of several lines, as Sphinx takes one, where it has line breaks."""
    formula = textwrap.dedent(directive[1]).strip()
    if "\\\\\n" in formula:
        formula = f"\\begin{{split}}\n{formula}\n\\end{{split}}"
    return f"$$\n{formula}\n$$\n\n"


def _link(name: str, thing: griffe.Object) -> str:
    """A link to where the name is explained, if it is anywhere; in code as it stands."""
    try:
        path = thing.resolve(name) if not name.startswith("ddfnet.") else name
    except griffe.NameResolutionError:
        return f"`{name}`"
    return f'<autoref identifier="{path}" optional><code>{name}</code></autoref>'
