"""Which files `ddfnet upsample` works on: a depth map with its photograph, and where the results go."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddfnet.data.depth.pairs import by_stem
from ddfnet.depth.io import FORMATS, GUIDES
from ddfnet.errors import DataError, UserError, writable_folder


@dataclass(frozen=True)
class Job:
    """One depth map to upsample: what is read, and what is written."""

    depth: Path
    guide: Path
    mask: Path | None
    output: Path
    preview: Path | None

    def results(self) -> list[Path]:
        return [self.output] if self.preview is None else [self.output, self.preview]


def single(options: argparse.Namespace) -> Job:
    """The job of one depth map; refused where it would lose a file."""
    depth: Path = options.depth
    for path, name in ((options.guide, "--guide"), (options.mask, "--mask")):
        if path is not None and path.is_dir():
            raise UserError(f"{name} {path} is a folder, but {depth} is no folder; give a file")
    output = options.output / depth.name if options.output.is_dir() else options.output
    preview = options.preview
    if preview is not None:
        preview = _preview(preview, depth) if preview.is_dir() else preview
        if preview.suffix.lower() != ".png":
            raise UserError(f"--preview {preview}: a preview is a .png file; name it so, or name a folder that exists")
    job = Job(depth, options.guide, options.mask, output, preview)
    if preview is not None and preview.resolve() == output.resolve():
        raise UserError(f"{output} is asked for twice, as --output and as --preview; name two files")
    for path in job.results():
        for source in (depth, options.guide, options.mask):
            if source is not None and source.exists() and path.exists() and path.samefile(source):
                raise UserError(f"{path} would replace an input; write to another name")
        if path.exists() and not options.overwrite:
            raise UserError(f"{path} exists; give --overwrite to replace it, or write to another name")
        if not path.parent.is_dir():
            raise UserError(f"cannot write {path}: there is no folder {path.parent}")
        try:
            writable_folder(path.parent)
        except UserError as error:
            raise UserError(f"cannot write {path}: {error}") from None
    return job


def folder(options: argparse.Namespace) -> tuple[list[Job], list[str]]:
    """The jobs of a folder of depth maps, and a line for each file without a partner."""
    depth, guide, mask = options.depth, options.guide, options.mask
    output, preview = options.output, options.preview
    for path, name in ((guide, "--guide"), (output, "--output"), (preview, "--preview")):
        if path is not None and not path.is_dir() and (name == "--guide" or path.exists()):
            raise UserError(f"{name} {path}: {depth} is a folder, so a folder is required here too")
    if mask is not None and not mask.exists():
        raise UserError(f"--mask {mask}: no such file or folder")
    for result in (output, preview):
        for source in (depth, guide, mask):
            if None not in (result, source) and result.exists() and source.exists() and result.samefile(source):
                raise UserError(f"results in {result} would replace inputs; write to another folder")
    try:
        depths, guides = by_stem(depth, FORMATS), by_stem(guide, GUIDES)
        masks = by_stem(mask, FORMATS) if mask is not None and mask.is_dir() else None
    except DataError as error:
        raise UserError(str(error)) from None
    if not depths:
        raise UserError(f"{depth}: no depth maps in this folder ({', '.join(FORMATS)})")
    for result in (output, preview):
        if result is not None:
            writable_folder(result)
    jobs, problems = [], []
    for stem in sorted(depths.keys() | guides.keys()):
        sources = [("depth map", depth, depths.get(stem, [])), ("guide", guide, guides.get(stem, []))]
        if masks is not None:
            sources.append(("mask", mask, masks.get(stem, [])))
        if problem := _problem(sources):
            problems.append(problem)
            continue
        own, photograph = depths[stem][0], guides[stem][0]
        chosen = mask if masks is None else masks[stem][0]
        jobs.append(Job(own, photograph, chosen, output / own.name, preview and _preview(preview, own)))
    _check_results(jobs)
    return jobs, problems


def _check_results(jobs: Sequence[Job]) -> None:
    """Refuse results that would replace each other, such as a.png's preview and a-preview.png's result."""
    taken: dict[Path, Path] = {}
    for job in jobs:
        for path in job.results():
            if path in taken:
                raise UserError(
                    f"{path} would be written for {taken[path]} and for {job.depth}; give --preview another folder"
                )
            taken[path] = job.depth


def _problem(sources: Sequence[tuple[str, Path, list[Path]]]) -> str | None:
    """Why the files of one name are no pair, in a line that begins with one of them."""
    there = next(paths[0] for _, _, paths in sources if paths)
    for what, root, paths in sources:
        if not paths:
            return f"{there}: there is no {what} of the same name in {root}"
        if len(paths) > 1:
            return f"{paths[0]}: which {what} is meant? {paths[1].name} has the same name; take one away"
    return None


def _preview(root: Path, depth: Path) -> Path:
    return root / f"{depth.stem}-preview.png"
