"""Jobs of ``ddfnet upsample``: a depth map, its guide and mask, and the files of the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddfnet.depth.given_pairs import find_list, pairs_of_list, pairs_of_one_image, pairs_of_patterns, suggested_patterns
from ddfnet.depth.io import FORMATS, GUIDES, format_of, stem_of
from ddfnet.depth.known_layouts import MAX_GAP, Pairs, files_by_stem, files_of, pairs_of_folders
from ddfnet.errors import DataError, UserError, keep_inputs, writable_folder

_ITSELF = "it would be the depth map and its guide at once; a guide is an image of its own"


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
        UserError: a missing file, a folder in place of a file, one file as depth map and guide, a result that cannot
            be written, or one that would replace an input, another result, or without ``overwrite`` any file.
    """
    for path, name in ((guide, "--guide"), (mask, "--mask")):
        if path is not None and not path.exists():
            raise UserError(f"{name} {path}: no such file")
        if path is not None and path.is_dir():
            raise UserError(f"{name} {path} is a folder, but {depth} is no folder; give a file")
    if depth.samefile(guide):
        raise UserError(f"{depth}: {_ITSELF}")
    output = output / depth.name if output.is_dir() else output
    if preview is not None:
        preview = _preview(preview, depth) if preview.is_dir() else preview
        if preview.suffix.lower() != ".png":
            raise UserError(f"--preview {preview}: a preview is a .png file; name it so, or name a folder that exists")
    if preview is not None and preview.resolve() == output.resolve():
        raise UserError(f"{output} is asked for twice, as --output and as --preview; name two files")
    job = Job(depth, guide, mask, output, preview)
    for path in job.results():
        keep_inputs(path, (depth, guide, mask))
        if path.exists() and not overwrite:
            raise UserError(f"{path} exists; give --overwrite to replace it, or write to another name")
        if not path.parent.is_dir():
            raise UserError(f"cannot write {path}: there is no folder {path.parent}")
        try:
            writable_folder(path.parent)
        except UserError as error:
            raise UserError(f"cannot write {path}: {error}") from None
    try:
        format_of(output)
    except DataError as error:
        raise UserError(str(error)) from None
    return job


def folder(
    depth: Path,
    guide: Path,
    mask: Path | None,
    output: Path,
    preview: Path | None,
    *,
    patterns: Sequence[str] | None = None,
    associations: Path | None = None,
    max_gap: float = MAX_GAP,
) -> tuple[list[Job], Pairs]:
    """Return the jobs of a folder of depth maps, and the pairs that they are made of.

    The pairs are those of ``patterns``, of a list, of one image for all, or of `pairs_of_folders`. A list that has a
    usual name, such as TUM's associations.txt, is found.

    Args:
        depth: a folder, of the depth maps or of a sequence.
        guide: a folder, the same one perhaps, or one image for all.
        mask: a folder whose files have the depth maps' names, a file for all, or None.
        output: a folder, made where there is none.
        preview: likewise, or None.
        patterns: see `pairs_of_patterns`.
        associations: a list, see `pairs_of_list`.
        max_gap: longest time between a depth map and its image, in seconds, where they are paired by times.

    Returns:
        The jobs, and the pairs with one line in ``problems`` for each file that is in no job.

    Raises:
        UserError: a file in place of a folder, no pairs, results that would replace inputs or each other.
    """
    for path, name in ((guide, "--guide"), (mask, "--mask"), (associations, "--associations")):
        if path is not None and not path.exists():
            raise UserError(f"{name} {path}: no such file or folder")
    for path, name in ((output, "--output"), (preview, "--preview")):
        if path is not None and path.exists() and not path.is_dir():
            raise UserError(f"{name} {path}: {depth} is a folder, so a folder is required here too")
    try:
        pairs = _pairs(depth, guide, patterns, associations, max_gap)
        _refuse_self(pairs)
        masks = _add_masks(pairs, mask)
    except DataError as error:
        raise UserError(str(error)) from None
    if not pairs.found:
        raise UserError(_no_pairs(depth, guide, pairs))
    jobs = [
        Job(own, image, masks[own], output / own.name, preview and _preview(preview, own)) for own, image in pairs.found
    ]
    _check_results(jobs, [path for path in (depth, guide, mask) if path is not None and path.is_dir()])
    for result in (output, preview):
        if result is not None:
            writable_folder(result)
    return jobs, pairs


def _pairs(
    depth: Path, guide: Path, patterns: Sequence[str] | None, associations: Path | None, max_gap: float
) -> Pairs:
    if patterns is not None:
        if not guide.is_dir():
            raise UserError(f"--guide {guide}: with --pairs a folder is required; the second pattern can name a file")
        return pairs_of_patterns(depth, guide, patterns)
    if associations is not None:
        return pairs_of_list(associations, depth)
    if not guide.is_dir():
        return pairs_of_one_image(depth, guide)
    if (found := find_list(depth, guide)) is not None:
        return pairs_of_list(found, depth)
    return pairs_of_folders(depth, guide, max_gap)


def _refuse_self(pairs: Pairs) -> None:
    """Take pairs of a file with itself out: such a result looks right and is the input."""
    found, pairs.found = pairs.found, []
    for depth, image in found:
        if depth.samefile(image):
            pairs.problems.append(f"{depth}: {_ITSELF}")
        else:
            pairs.found.append((depth, image))


def _add_masks(pairs: Pairs, mask: Path | None) -> dict[Path, Path | None]:
    """Return the mask of each depth map; a map whose mask is missing leaves the pairs."""
    if mask is None or not mask.is_dir():
        return dict.fromkeys((depth for depth, _ in pairs.found), mask)
    masks_by_stem, found = files_by_stem(mask, FORMATS), pairs.found
    masks: dict[Path, Path | None] = {}
    pairs.found = []
    for depth, image in found:
        own = masks_by_stem.get(stem_of(depth) or depth.stem, [])
        if not own:
            pairs.problems.append(f"{depth}: there is no mask of the same name in {mask}")
        elif len(own) > 1:
            pairs.problems.append(f"{own[0]}: which mask is meant? {own[1].name} has the same name; take one away")
        else:
            masks[depth] = own[0]
            pairs.found.append((depth, image))
    return masks


def _no_pairs(depth: Path, guide: Path, pairs: Pairs) -> str:
    """Return a line that says that no file has a partner, and how to name the rule."""
    if len(pairs.problems) == 1:
        return pairs.problems[0]
    rule = f" {pairs.rule}" if pairs.rule else ""
    return (
        f"{depth}: no depth map has an image in {guide}{rule} (of {len(pairs.problems)} files, {pairs.problems[0]}); "
        f"{_suggestion(depth, guide)}"
    )


def _suggestion(depth: Path, guide: Path) -> str:
    """Return a rule that would pair files, if there is one."""
    images = files_of(guide, GUIDES) if guide.is_dir() else []
    if len(images) == 1 and not depth.samefile(guide):
        return f"give --guide {images[0]} if it is the image of all"
    if images and (patterns := suggested_patterns(depth, guide)):
        return "give --pairs '{}' '{}'".format(*patterns)
    return "give --pairs 'depth_{}.png' 'color_{}.jpg', as the files are named"


def _check_results(jobs: Sequence[Job], folders: Sequence[Path]) -> None:
    """Refuse results that would replace an input, now or in a second run, or each other.

    The preview of a.png, for example, has the name of the result of a-preview.png.

    Args:
        jobs: jobs of one folder.
        folders: folders of inputs.
    """
    inputs = {folder.resolve() for folder in folders} | {job.depth.parent.resolve() for job in jobs}
    files = {path.resolve() for job in jobs for path in (job.guide, job.mask) if path is not None}
    taken: dict[Path, Path] = {}
    for job in jobs:
        for path in job.results():
            if path.parent.resolve() in inputs or path.resolve() in files:
                raise UserError(f"results in {path.parent} would replace inputs; write to another folder")
            if path in taken:
                raise UserError(
                    f"{path} would be written for {taken[path]} and for {job.depth}; give --preview another folder"
                )
            taken[path] = job.depth


def _preview(root: Path, depth: Path) -> Path:
    return root / f"{depth.stem}-preview.png"
