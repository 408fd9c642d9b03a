"""Hook that adds files outside of docs/ to the site, without copies and with links that also work in the repository.

Markdown outside of docs/, such as README.md and the pages beside the results, becomes a page at the same path. Links
lead from file to file, so that they work where the repository is read; this hook turns them into links from page to
page. Other linked files (configurations, results, folders) are added to the site unchanged.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "reproduce/*/*.md", "benchmarks/results/*.md")

_LINK = re.compile(r"(?<=\]\()(?P<path>[^)\s#:]+)(?P<rest>#[^)\s]*)?(?=\))")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside of docs/, and the files that pages link to."""
    for path in sorted(path for pattern in PAGES for path in ROOT.glob(pattern)):
        files.append(File.generated(config, place(path), abs_src_path=str(path)))
    for page in list(files.documentation_pages()):
        for target in _linked(Path(page.abs_src_path)):
            _add(files, target, config)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between files of the repository into links between pages."""
    if page.file.abs_src_path is None:  # a list of files that `_add` has made
        return markdown
    source, here = Path(page.file.abs_src_path), Path(page.file.src_uri).parent

    def moved(link: re.Match[str]) -> str:
        target = _target(source, link["path"])
        if target is None:  # no file of the repository: MkDocs reports it
            return link[0]
        return Path(os.path.relpath(place(target), here)).as_posix() + (link["rest"] or "")

    return _LINK.sub(moved, markdown)


def place(path: Path) -> str:
    """Return the site's path of a file of the repository; a folder has that of its README or of its list of files."""
    if path.is_dir():
        path = path / ("README.md" if (path / "README.md").exists() else "index.md")
    if path == ROOT / "README.md":
        return "overview.md"  # at the top, README.md would be the start page
    return path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix()


def _linked(page: Path) -> Iterator[Path]:
    for link in _LINK.finditer(page.read_text()):
        target = _target(page, link["path"])
        if target is not None:
            yield target


def _target(page: Path, link: str) -> Path | None:
    """Return the file or folder of the repository to which a link leads."""
    target = (page.parent / link).resolve()
    return target if target.exists() and target.is_relative_to(ROOT) else None


def _add(files: Files, target: Path, config: Any) -> None:
    """Add a file unchanged, and a folder without a README as a list of its files."""
    if files.get_file_from_path(place(target)) is not None:
        return
    if target.is_file():
        files.append(File.generated(config, place(target), abs_src_path=str(target)))
        return
    inside = sorted(path for path in target.iterdir() if path.is_file())
    listing = "\n".join(f"- [{path.name}]({path.name})" for path in inside)
    title = target.relative_to(ROOT).as_posix()
    page = {"content": f"# {title}\n\n{listing}\n", "inclusion": InclusionLevel.NOT_IN_NAV}
    files.append(File.generated(config, place(target), **page))
    for path in inside:
        _add(files, path, config)
