"""Language rules of the project, as a program: ``python tests/house/language.py [PATH ...]`` lists what breaks a rule.

CONTRIBUTING.md has the reasons and the glossary. The rules are mechanical and find only a part; readers find the rest.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (".ci", "benchmarks", "csrc", "ddfnet", "docs", "examples", "findings", "reproduce", "tests", "tools")
PROSE = {".md", ".yaml", ".yml", ".toml", ".jinja", ".sh", ""}
CPP = {".cpp", ".h", ".inl"}
FOREIGN = {  # files that quote the words
    "tests/house/language.py",
    "tests/house/test_language.py",
}


class Finding(NamedTuple):
    """Place in a file, and the rule that it breaks."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}"


# --- words ------------------------------------------------------------------------------------------------

_COUNTED = (
    "one|two|three|four|half|filters?|values?|numbers?|pixels|samples|bytes|taps|weights|images|times?|kernels?|"
    "calls?|MACs|FLOPs|[um]?s|ms|seconds|milliseconds|scores?|counts?|items|cycles|operations?|products|"
    "instructions?|barriers?|channels?|scenes|steps|boxes|rectangles|MiB|GiB|KiB|memory|results|columns|rows|"
    "parameters?|convolutions?|multiply-adds?|once|twice|both|layers|gradients?|sums?|loads?|threads?|files?"
)
_PER = (
    "pixel|sub-pixel|channel|tap|sample|side|megapixel|head|image|row|class|batch|step|epoch|stage|layer|process|"
    "second|thread|position|cell|level|window|vector|lane|element|scene|item|call|box|query|tile|axis|size|output"
)
WORDS = {  # regular expression: the field's term
    r"(?i)pictures?": "image",
    r"(?i)\btwins?\b|\btwin_|_twins?\b|Twin(?=[A-Z])": "the name of the network",
    r"(?i)\blegs?\b": "segment of a resumed run",
    r"(?i)\btiers?\b": "instruction set, ISA",
    r"\bby which\b": "a main clause",
    r"(?i)\b(?:go|goes|gone|going) on with\b|\bbroken off\b": "resume, interrupt",
    r"\bwhole or not at all\b": "atomic, atomically",
    r"\b(?:somebody|nobody|anybody) \w+s\b": "the object itself, such as a hook",
    r"\bnames? right\b": "top-1 accuracy",
    rf"\b(?:{_COUNTED}) an? (?:{_PER})\b(?! of)": "per pixel, per channel, per ...",
}
ALLOWED = {  # path: regular expression of words that it may have
    "reproduce/table7/": r"\btwin\b",  # the name of a run in committed results
    "tests/reproduce/test_table7.py": r"\btwin\b",
}

# --- names ------------------------------------------------------------------------------------------------

PREFIXES = re.compile(r"_*(?:of|by|in)_")
FOREIGN_PREFIXED = {"in_chans", "in_channels", "in_channels_list", "in_dims", "in_features", "in_planes"}
NAMES = {  # old name: the field's term
    "filter_whole": "FusedDDF2d",
    "plain_kernels": "fast_path",
    "is_plain": "is_dense_eager",
    "call_plain": "fast_path",
    "remember": "cache_static_args",
    "grid_size": "conv_output_size",
    "begin": "reset_zero_init",
    "begin_static": "starts.static",
    "centres": "window_centers",
    "centred": "is_centered",
    "compressed": "compressed_channels",
    "made_with": "model_args",
    "_made_of": "model_args",
    "made_of": "model_args",
    "opened": "open_weights",
    "shipped": "default_model",
    "Finish": "Epilogue",
    "After": "Epilogue",
    "after_scale": "epilogue_scale",
    "after_shift": "epilogue_shift",
    "relu_after": "epilogue_relu",
    "fold_after": "fuse_epilogue",
    "Parcel": "PretrainedMixin",
    "TwinNet": "SmallResNet",
    "Place": "AxisAlignment",
    "places": "align",
    "_cuts": "tile_slices",
    "_wider": "pad_slice",
    "_within": "relative_slice",
    "_in_passes": "_upsample_recursive",
    "reach": "receptive_radius",
    "target_reach": "target_receptive_radius",
    "Legs": "ResumeHistory",
    "Pace": "StepTimer",
    "Finite": "StopOnNonFinite",
    "WholeCheckpoints": "AtomicCheckpointIO",
    "Consecutive": "ResumableBatchSampler",
    "Passes": "EpochBatchSampler",
    "Even": "EqualLengthLoader",
    "own_share": "per_rank_batch_size",
    "first_learning_rate": "warmup_lr",
    "last_learning_rate": "min_lr",
    "filter_rate": "filter_lr_scale",
    "decay_vectors": "decay_norm_and_bias",
    "measured_crop": "crop_pct",
    "measured_interpolation": "eval_interpolation",
    "erase": "random_erase",
    "whole": "atomic_open, gather, ...",
    "load_weights": "load_state_dict_checked",
    "amount": "format_si",
    "drawn": "sample_inputs",
    "leave": "save_artifacts",
    "BoxedPictures": "DetectionAnnotations",
    "Collector": "AnnotationBuilder",
}
TRITON_NAMES = {  # in ddfnet/ops/triton, and also for variables
    "digit": "unravel",
    "there": "mask_*",
    "ok": "mask_*",
    "of_channel": "offs_c",
    "kept": "cf_regs",
    "item": "itemsize",
    "processors": "num_sms",
    "channels_inner": "channels_last",
}
FILES = {  # old file name: the new one
    "checking.py": "verify.py",
    "composed.py": "synthetic.py",
    "counting.py": "handlers.py",
    "exporting.py": "api.py",
    "finite.py": "callbacks.py",
    "legs.py": "callbacks.py",
    "loading.py": "saving.py",
    "machine.py": "env_info.py",
    "network_files.py": "saving.py",
    "pace.py": "callbacks.py",
    "pictures.py": "images.py",
    "planner.py": "estimate.py",
    "quiet.py": "main.py",
    "randomness.py": "seeding.py",
    "subjects.py": "catalog.py",
    "twins.py": "resnet.py",
    "whole.py": "fused.py",
    "pixels.inl": "channels_last.inl",
    "planes.inl": "contiguous.inl",
    "support.inl": "common.inl",
    "tier.inl": "kernels_for_isa.inl",
    "windows.inl": "sliding_window.inl",
}

# --- docstrings and comments --------------------------------------------------------------------------------

OPENINGS = {"how", "of", "that", "the", "this", "what", "where", "whether", "which", "whose", "why"}
COMMENT_OPENINGS = {"of", "what", "whether", "which", "whose"}
FIELD = re.compile(r"\s+[\w*`]+(?:, [\w*`]+)*: (by|of|that|what|which|whose)\b")
VERBS = {*(Path(__file__).parent / "verbs.txt").read_text().split()}  # with which a function's docstring may open
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def _docstring_problem(node: ast.AST, docstring: str) -> str | None:
    first = re.split(r"[\s,.:;(]", docstring.lstrip(), maxsplit=1)[0].lower()
    if first in OPENINGS:
        return f"the docstring opens with {first!r}"
    if isinstance(node, _FUNCTION) and not node.name.startswith("test_") and not _is_property(node):
        if first not in VERBS:
            return f"the docstring of {node.name} must open with a verb of VERBS, in the imperative; got {first!r}"
    elif isinstance(node, ast.Module) and first in {"a", "an"}:
        return f"the module docstring must be a noun phrase without an article; got {first!r}"
    return None


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    names = {ast.unparse(each).rpartition(".")[2] for each in node.decorator_list}
    return bool(names & {"property", "cached_property", "setter"})


def _defined(tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """Yield each name that a module defines: its line, the name, and whether it is only a variable."""
    for node in ast.walk(tree):
        if isinstance(node, (*_FUNCTION, ast.ClassDef)):
            yield node.lineno, node.name, False
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg, False
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr, False
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id, True


def _name_problem(name: str, is_variable: bool, in_triton: bool) -> str | None:
    if PREFIXES.match(name) and name not in FOREIGN_PREFIXED:
        return f"the name {name} begins with a preposition"
    if in_triton and name in TRITON_NAMES:
        return f"the name {name} is now {TRITON_NAMES[name]}"
    if name in NAMES and not is_variable:
        return f"the name {name} is now {NAMES[name]}"
    return None


def _python_problems(text: str, in_triton: bool) -> Iterator[tuple[int, str]]:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (*_FUNCTION, ast.ClassDef, ast.Module)) and ast.get_docstring(node, clean=False):
            constant = node.body[0].value  # type: ignore[attr-defined]
            problem = _docstring_problem(node, constant.value)
            if problem:
                yield constant.lineno, problem
            for offset, line in enumerate(constant.value.splitlines()):
                if match := FIELD.match(line):
                    yield constant.lineno + offset, f"a field opens with {match[1]!r}, not with a noun"
        elif isinstance(node, ast.keyword) and node.arg == "help" and isinstance(node.value, ast.Constant):
            first = str(node.value.value).split(" ")[0].lower()
            if first in OPENINGS - {"the"}:
                yield node.value.lineno, f"the help text opens with {first!r}"
    for line, name, is_variable in _defined(tree):
        if problem := _name_problem(name, is_variable, in_triton):
            yield line, problem
    before = -1  # the line of the comment before
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            alone = not token.line[: token.start[1]].strip()
            first = re.split(r"\W", token.string.lstrip("# "), maxsplit=1)[0].lower()
            if first in COMMENT_OPENINGS and not (alone and before == line - 1):
                yield line, f"the comment opens with {first!r}"
            before = line if alone else -1


def _cpp_problems(text: str) -> Iterator[tuple[int, str]]:
    before = False
    for number, line in enumerate(text.splitlines(), 1):
        code, slashes, comment = line.partition("//")
        first = re.split(r"\W", comment.strip(), maxsplit=1)[0].lower()
        if slashes and first in COMMENT_OPENINGS and not (before and not code.strip()):
            yield number, f"the comment opens with {first!r}"
        before = bool(slashes) and not code.strip()


def _word_problems(text: str, allowed: Iterable[str]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        for pattern in allowed:
            line = re.sub(pattern, "", line)
        for pattern, term in WORDS.items():
            for match in re.finditer(pattern, line):
                yield number, f"{match[0]!r}: say {term}"


def _without_glossary(name: str, text: str) -> str:
    """Blank the lines that must name old words: the glossary, and the changelog's table of renames."""
    if name == "CONTRIBUTING.md":
        return re.sub(r"(?ms)^## Glossary$.*?(?=^## )", lambda match: "\n" * match[0].count("\n"), text)
    if name == "CHANGELOG.md":
        return re.sub(r"(?m)^\| .*$", "", text)
    return text


def problems(file: Path, root: Path = ROOT) -> list[Finding]:
    """Check one file.

    Args:
        file: Python, C++ or prose.
        root: folder that the findings' file names begin from.
    """
    name = file.relative_to(root).as_posix()
    text = file.read_text(encoding="utf-8")
    allowed = [pattern for path, pattern in ALLOWED.items() if name.startswith(path)]
    found = [*_word_problems(_without_glossary(name, text), allowed)]
    if file.suffix == ".py":
        found += _python_problems(text, name.startswith("ddfnet/ops/triton/"))
    elif file.suffix in CPP:
        found += _cpp_problems(text)
    if file.name in FILES:
        found.append((1, f"the file is now {FILES[file.name]}"))
    return [Finding(name, line, text) for line, text in sorted(found)]


def sources(root: Path = ROOT) -> list[Path]:
    """List the project's own files that people read."""
    files = [
        path for path in root.iterdir() if path.suffix in {".md", ".py", ".toml", ".yml"} or path.name == "Makefile"
    ]
    for folder in FOLDERS:
        files += (root / folder).rglob("*")
    readable = {".py", *CPP, *PROSE}
    return sorted(
        path
        for path in files
        if path.is_file()
        and path.suffix in readable
        and not {"__pycache__", "build"} & set(path.relative_to(root).parts[1:-1])
        and path.relative_to(root).as_posix() not in FOREIGN
    )


def main(wanted: Iterable[str]) -> int:
    """Print the findings in these files and folders, by default in all, and return how many there are."""
    places = [Path(each).resolve() for each in wanted] or [ROOT]
    root = next((parent for parent in (places[0], *places[0].parents) if (parent / "pyproject.toml").exists()), ROOT)
    found = [
        finding
        for file in sources(root)
        if any(file == place or place in file.parents for place in places)
        for finding in problems(file, root)
    ]
    print(*found, f"{len(found)} findings", sep="\n")  # noqa: T201
    return len(found)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
