"""Files in tar archives, with every check that the format and its compression have."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from ddfnet.data.hidden import is_hidden
from ddfnet.errors import DataError
from ddfnet.reading import read_file

_OPENERS: dict[bytes, Callable[..., Any]] = {  # by the first bytes
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x5d\0\0": lzma.open,  # the format before xz
}
_LARGEST = 1 << 28  # bytes of a file: an image is smaller, and a compressed archive can claim any number
_LARGEST_HEADER = 1 << 20  # bytes of long names and the like, which tarfile reads at once
_BLOCK = 1 << 20
_BROKEN = (
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    OverflowError,
    RecursionError,
    MemoryError,
)  # a broken archive can raise all of these


def members(stream: IO[bytes], name: str, *, ahead: bool = False) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each file of a tar archive, compressed by gzip, bzip2 or xz or not at all.

    The archive is read to its last byte, where gzip has its checksum. Folders and hidden files are passed over.

    Args:
        stream: the archive, from its start; it need not seek.
        name: name of the archive in messages.
        ahead: read the whole of a compressed archive before its first file is yielded, and then again. Otherwise the
            files count only when the iteration has come to its end, since a damaged archive may raise as late as that.

    Raises:
        DataError: it is no tar archive, or a damaged one; it holds a link, a device, or a file above 256 MiB.

    Example:
        >>> import io
        >>> import tarfile
        >>> stream = io.BytesIO()
        >>> with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        ...     archive.addfile(tarfile.TarInfo("train/a/0.jpg"))
        >>> _ = stream.seek(0)
        >>> list(members(stream, "images.tar.gz"))
        [('train/a/0.jpg', b'')]
    """
    try:
        content = _decompressed(stream, ahead)
        with tarfile.open(fileobj=content, mode="r|", tarinfo=_Header) as archive:
            for header in archive:
                if _is_content(header, f"{name}/{header.name}"):
                    yield header.name, archive.extractfile(header).read()  # type: ignore[union-attr]
        _read_out(content)
    except DataError:
        raise
    except _BROKEN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name} is no tar archive, or a damaged one: {reason}") from None


@dataclass(frozen=True)
class TarIndex:
    """Files of an uncompressed tar archive by the last parts of their names, each read where it lies.

    It can be pickled, and be read by several processes: the archive is opened for each file.

    Args:
        path: the archive.
        spans: the first byte of each file and the number of its bytes.
    """

    path: Path
    spans: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, path: Path, parts: int) -> TarIndex:
        """Read the headers of an archive, and nothing else.

        Args:
            path: the archive.
            parts: how many parts of the names count, from the last on. So folders around the files do not matter.

        Raises:
            DataError: the file is missing, is no tar archive, or a compressed or damaged one; it holds a link, a
                device, or a file above 256 MiB.

        Example:
            >>> import io, tarfile, tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     path = Path(folder) / "images.tar"
            ...     with tarfile.open(path, "w") as archive:
            ...         header = tarfile.TarInfo("all/images/0.jpg")
            ...         header.size = 4
            ...         archive.addfile(header, io.BytesIO(b"JPEG"))
            ...     TarIndex.of(path, 2).content("images/0.jpg")
            b'JPEG'
        """

        def spans(stream: BinaryIO) -> dict[str, tuple[int, int]]:
            head = stream.read(6)
            if any(head.startswith(magic) for magic in _OPENERS):
                raise DataError("an uncompressed tar archive is required, this one is compressed; decompress it first")
            found = {}
            end = stream.seek(0, 2)
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:", tarinfo=_Header) as archive:
                for header in archive:
                    if _is_content(header, header.name):
                        if header.issparse():
                            raise DataError(f"{header.name} must be stored as it is, got a sparse file")
                        if header.offset_data + header.size > end:
                            raise DataError(f"the archive ends within {header.name}; copy it again")
                        found["/".join(PurePosixPath(header.name).parts[-parts:])] = header.offset_data, header.size
            return found

        return cls(path, read_file(path, spans, broken=" is no tar archive, or a damaged one"))

    def content(self, name: str) -> bytes:
        """Return a file of the archive.

        Raises:
            DataError: the archive cannot be read any more.
            KeyError: there is no such file in it.
        """
        first, size = self.spans[name]

        def part(stream: BinaryIO) -> bytes:
            stream.seek(first)
            return stream.read(size)

        return read_file(self.path, part)


def _is_content(header: tarfile.TarInfo, name: str) -> bool:
    """Return whether a header is that of a file which counts; raise a `DataError` for what no archive may hold."""
    if header.issym() or header.islnk() or header.isdev():
        raise DataError(
            f"{name} must be a file, got a link or a device; archive the files themselves "
            "(tar --dereference --hard-dereference)"
        )
    if not header.isreg() or is_hidden(PurePosixPath(header.name)):
        return False
    if header.size > _LARGEST:
        raise DataError(f"{name} must have at most {_LARGEST} bytes, got {header.size}")
    return True


class _Header(tarfile.TarInfo):
    """Header of a file; a damaged one raises, while tarfile takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str | None, errors: str) -> _Header:  # type: ignore[override]
        header: Any = super().frombuf(buf, encoding, errors)  # type: ignore[arg-type]
        if header.size < 0 or (header.size > _LARGEST_HEADER and not header.isreg()):
            raise tarfile.ReadError(f"a header claims {header.size} bytes")
        return header  # type: ignore[no-any-return]

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Header:  # type: ignore[override]
        try:
            header: Any = super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise  # the mark at the end
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {archive.offset}, where a file or the end must be") from None
        if header.size < 0:  # an extended header can set it again
            raise tarfile.ReadError(f"a header claims {header.size} bytes")
        return header  # type: ignore[no-any-return]


class _Rejoined:
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self.head, self.stream = head, stream

    def read(self, size: int) -> bytes:
        first, self.head = self.head[:size], self.head[size:]
        return first + self.stream.read(size - len(first))


def _decompressed(stream: IO[bytes], ahead: bool) -> Any:
    head = stream.read(6)
    opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
    rejoined: Any = _Rejoined(head, stream)
    if opener is None:
        return rejoined
    if not ahead:
        return opener(rejoined)
    whole: Any = stream
    if not getattr(stream, "seekable", bool)():  # such as a download
        whole = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the iteration)
        shutil.copyfileobj(rejoined, whole, _BLOCK)
    whole.seek(0)
    _read_out(opener(whole))
    whole.seek(0)
    return opener(whole)


def _read_out(stream: Any) -> None:
    while stream.read(_BLOCK):
        pass
