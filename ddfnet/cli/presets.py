"""Configurations that come with the package, by their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent / "configs"
_OPTION = "--config"


def resolve(arguments: Sequence[str]) -> list[str]:
    """The arguments with ``--config NAME`` naming the package's file, where there is no file of that name here.

    Example:
        >>> from ddfnet.cli.presets import resolve
        >>> [Path(argument).name for argument in resolve(["--config", "detection-coco-1x", "--threads", "1"])]
        ['--config', 'detection-coco-1x.yaml', '--threads', '1']
    """
    resolved: list[str] = []
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option == _OPTION and equals:
            argument = f"{_OPTION}={_file(value)}"
        elif index and arguments[index - 1] == _OPTION:
            argument = _file(argument)
        resolved.append(argument)
    return resolved


def _file(name: str) -> str:
    own = FOLDER / f"{name}.yaml"
    return str(own) if own.is_file() and not Path(name).exists() else name
