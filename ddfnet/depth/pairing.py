"""Jobs of ``ddfnet upsample``: a depth map, its guide and mask, and the files of the results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddfnet.depth.io import FORMATS, GUIDES, stem_of
from ddfnet.errors import DataError, UserError, writable_folder


@dataclass(frozen=True)
class Job:
    """One depth map to upsample: the files that are read, and those that are written."""

    depth: Path
    guide: Path
    mask: Path | None
    output: Path
    preview: Path | None

    def results(self) -> list[Path]:
        """Return the files that are written."""
        return [self.output] if self.preview is None else [self.output, self.preview]


def single(
    depth: Path, guide: Path, mask: Path | None, output: Path, preview: Path | None, *, overwrite: bool = False
) -> Job:
    """Return the job of one depth map.

    Args:
        depth: a file.
        guide: a file.
        mask: a file, or None.
        output: a file, or a folder for one of the depth map's name.
        preview: likewise, or None.
        overwrite: whether results may be there already.

    Raises:
        UserError: a folder in place of a file, a result that cannot be written, or one that would replace an input,
            another result, or without ``overwrite`` any file.
    """
    for path, name in ((guide, "--guide"), (mask, "--mask")):
        if path is not None and path.is_dir():
            raise UserError(f"{name} {path} is a folder, but {depth} is no folder; give a file")
    output = output / depth.name if output.is_dir() else output
    if preview is not None:
        preview = _preview(preview, depth) if preview.is_dir() else preview
        if preview.suffix.lower() != ".png":
            raise UserError(f"--preview {preview}: a preview is a .png file; name it so, or name a folder that exists")
    if preview is not None and preview.resolve() == output.resolve():
        raise UserError(f"{output} is asked for twice, as --output and as --preview; name two files")
    job = Job(depth, guide, mask, output, preview)
    for path in job.results():
        for source in (depth, guide, mask):
            if source is not None and source.exists() and path.exists() and path.samefile(source):
                raise UserError(f"{path} would replace an input; write to another name")
        if path.exists() and not overwrite:
            raise UserError(f"{path} exists; give --overwrite to replace it, or write to another name")
        if not path.parent.is_dir():
            raise UserError(f"cannot write {path}: there is no folder {path.parent}")
        try:
            writable_folder(path.parent)
        except UserError as error:
            raise UserError(f"cannot write {path}: {error}") from None
    return job


def folder(
    depth: Path, guide: Path, mask: Path | None, output: Path, preview: Path | None
) -> tuple[list[Job], list[str]]:
    """Return the jobs of a folder of depth maps, paired by name, and a line for each file without a partner.

    Args:
        depth: a folder.
        guide: a folder.
        mask: a folder, a file for all, or None.
        output: a folder, made where there is none.
        preview: likewise, or None.

    Raises:
        UserError: a file in place of a folder, no depth maps, results that would replace inputs or each other.
    """
    for path, name in ((guide, "--guide"), (output, "--output"), (preview, "--preview")):
        if path is not None and not path.is_dir() and (name == "--guide" or path.exists()):
            raise UserError(f"{name} {path}: {depth} is a folder, so a folder is required here too")
    if mask is not None and not mask.exists():
        raise UserError(f"--mask {mask}: no such file or folder")
    for result in (output, preview):
        for source in (depth, guide, mask):
            if result is not None and source is not None and result.exists() and result.samefile(source):
                raise UserError(f"results in {result} would replace inputs; write to another folder")
    try:
        depths, guides = files_by_stem(depth, FORMATS), files_by_stem(guide, GUIDES)
        masks = files_by_stem(mask, FORMATS) if mask is not None and mask.is_dir() else None
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
            assert mask is not None
            sources.append(("mask", mask, masks.get(stem, [])))
        if problem := _problem(sources):
            problems.append(problem)
            continue
        own, image = depths[stem][0], guides[stem][0]
        chosen = mask if masks is None else masks[stem][0]
        jobs.append(Job(own, image, chosen, output / own.name, preview and _preview(preview, own)))
    _check_results(jobs)
    return jobs, problems


def files_by_stem(folder: Path, suffixes: Iterable[str]) -> dict[str, list[Path]]:
    """Return the files of a folder with one of these suffixes, by their stems; hidden files are passed over.

    Raises:
        DataError: the folder cannot be read.
    """
    wanted = tuple(suffixes)
    found: dict[str, list[Path]] = {}
    try:
        for path in sorted(folder.iterdir()):
            stem = stem_of(path, wanted)
            if stem is not None and not path.name.startswith(".") and path.is_file():
                found.setdefault(stem, []).append(path)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
    return found


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
    """Return a line that says why the files of one name are no pair; it begins with one of them."""
    first = next(paths[0] for _, _, paths in sources if paths)
    for kind, root, paths in sources:
        if not paths:
            return f"{first}: there is no {kind} of the same name in {root}"
        if len(paths) > 1:
            return f"{paths[0]}: which {kind} is meant? {paths[1].name} has the same name; take one away"
    return None


def _preview(root: Path, depth: Path) -> Path:
    return root / f"{depth.stem}-preview.png"
