"""Files and folders that systems leave among a user's own, and that are no data."""

from __future__ import annotations

from pathlib import PurePath

_SYSTEM = ("__MACOSX", "@eaDir")  # macOS's archives have the one, Synology's disks the other, for thumbnails


def is_hidden(path: PurePath) -> bool:
    """Return True if a part of the path is hidden, such as ``.ipynb_checkpoints`` or macOS's ``._0.jpg``.

    Example:
        >>> from pathlib import Path
        >>> is_hidden(Path("cat/._0.jpg")), is_hidden(Path("./cat/0.jpg"))
        (True, False)
    """
    return any(part in _SYSTEM or (part.startswith(".") and part != "..") for part in path.parts)
