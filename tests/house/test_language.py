"""Language rules: no file breaks them, and each rule finds what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.house import language


@pytest.mark.parametrize("file", language.sources(), ids=lambda file: file.relative_to(language.ROOT).as_posix())
def test_the_file_keeps_the_rules(file: Path) -> None:
    assert not [str(finding) for finding in language.problems(file)]


def findings(folder: Path, name: str, text: str) -> list[str]:
    (folder / name).write_text(text, encoding="utf-8")
    return [finding.text for finding in language.problems(folder / name, folder)]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("the pictures of a folder", "pictures"),
        ("READ_PICTURE", "PICTURE"),
        ("one filter a pixel", "filter a pixel"),
        ("11 pixels a side", "pixels a side"),
        ("a TwinNet", "Twin"),
        ("a run is broken off", "broken off"),
        ("the fastest tier", "tier"),
    ],
)
@pytest.mark.parametrize("name", ["page.md", "kernel.cpp", "recipe.yaml", "module.py"])
def test_a_word_of_the_old_dialect_is_found(tmp_path: Path, name: str, text: str, word: str) -> None:
    [finding] = findings(tmp_path, name, f"\n# {text}\n")
    assert finding.startswith(f"{word!r}: say ")


@pytest.mark.parametrize("text", ["a filter of a pixel", "reads a pixel", "in a row", "the antiers", "per pixel"])
def test_other_words_are_free(tmp_path: Path, text: str) -> None:
    assert not findings(tmp_path, "page.md", text)


@pytest.mark.parametrize(
    ("code", "finding"),
    [
        ('def f():\n    """What it gives."""', "the docstring opens with 'what'"),
        ('def f():\n    """The result."""', "the docstring opens with 'the'"),
        (
            'def f():\n    """A result."""',
            "the docstring of f must open with a verb of VERBS, in the imperative; got 'a'",
        ),
        ('class C:\n    """Which one it is."""', "the docstring opens with 'which'"),
        ('"""A file."""', "the module docstring must be a noun phrase without an article; got 'a'"),
        (
            'def f():\n    """Return.\n\n    Args:\n        a: of it.\n    """',
            "a field opens with 'of', not with a noun",
        ),
        ("parser.add_argument(help='whether to run')", "the help text opens with 'whether'"),
        ("x = 1  # of each", "the comment opens with 'of'"),
        ("def of_network(): pass", "the name of_network begins with a preposition"),
        ("by_name = 1", "the name by_name begins with a preposition"),
        ("def f(fold_after): pass", "the name fold_after is now fuse_epilogue"),
    ],
)
def test_python_that_breaks_a_rule_is_found(tmp_path: Path, code: str, finding: str) -> None:
    assert findings(tmp_path, "module.py", f"{code}\n") == [finding]


@pytest.mark.parametrize(
    "code",
    [
        'def f():\n    """Return the result."""',
        'class C:\n    @property\n    def size(self):\n        """Height and width."""',
        "x = 1  # items of each",
        "# A comment whose second line begins\n# of course with any word\nx = 1",
        "def f(in_channels): pass",
    ],
)
def test_python_that_keeps_the_rules_is_free(tmp_path: Path, code: str) -> None:
    assert not findings(tmp_path, "module.py", f"{code}\n")


def test_a_comment_in_cpp_is_found(tmp_path: Path) -> None:
    assert findings(tmp_path, "kernel.inl", "int a;  // of each\n") == ["the comment opens with 'of'"]
    assert not findings(tmp_path, "kernel.inl", "// Items of each,\n// of course.\nint a;\n")


def test_an_old_file_name_is_found(tmp_path: Path) -> None:
    assert findings(tmp_path, "pixels.inl", "") == ["the file is now channels_last.inl"]


def test_the_glossary_and_the_table_of_renames_may_name_old_words(tmp_path: Path) -> None:
    assert not findings(tmp_path, "CONTRIBUTING.md", "## Glossary\n\n| image | picture |\n\n## Style\n")
    assert len(findings(tmp_path, "CONTRIBUTING.md", "## Glossary\n\n## Style\n\n| image | picture |\n")) == 1
    assert not findings(tmp_path, "CHANGELOG.md", "| `TwinNet` | `SmallResNet` |\n")
    assert len(findings(tmp_path, "CHANGELOG.md", "- pictures\n")) == 1


def test_the_program_lists_the_findings_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("ok\na picture\n")
    assert language.main([str(tmp_path / "docs")]) == 1
    assert capsys.readouterr().out == "docs/a.md:2: 'picture': say image\n1 findings\n"
