"""Tar archives: what is read, and that no damage passes for content."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddfnet.data.archives import members
from ddfnet.errors import DataError

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
FILES = {f"train/{name}/{number}.bin": np.random.default_rng(number).bytes(700) for name in "ab" for number in range(4)}


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(content))


def tar(files: dict[str, bytes] = FILES, **options: object) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", **options) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            add(archive, name, content)
    return stream.getvalue()


def read(content: bytes, *, ahead: bool = False) -> dict[str, bytes]:
    return dict(members(io.BytesIO(content), "a.tar", ahead=ahead))


def refused(content: bytes, *, ahead: bool = False) -> str:
    with pytest.raises(DataError) as raised:
        read(content, ahead=ahead)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("compress", [bytes, *COMPRESSIONS.values()])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_file_is_read(compress: Callable[[bytes], bytes], form: int, ahead: bool) -> None:
    files = FILES | {"long" * 24 + "/" + "name" * 24: b"content"}
    assert read(compress(tar(files, format=form)), ahead=ahead) == files


def test_a_stream_that_cannot_seek() -> None:
    class Download:
        def __init__(self, content: bytes) -> None:
            self.stream = io.BytesIO(content)

        def read(self, size: int) -> bytes:
            return self.stream.read(size)

    for content in (tar(), gzip.compress(tar())):
        assert dict(members(Download(content), "a.tar", ahead=True)) == FILES  # type: ignore[arg-type]


def test_folders_and_hidden_files_are_passed_over() -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        add(archive, "./a", type=tarfile.DIRTYPE)
        add(archive, "./a/._0.bin", b"Mac OS X")
        add(archive, ".DS_Store", b"Mac OS X")
        add(archive, "./a/0.bin", b"content")
    assert read(stream.getvalue()) == {"./a/0.bin": b"content"}


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_any_damage_of_a_compressed_archive_is_found(name: str) -> None:
    """Flip bits one by one: the files are the right ones, or the archive is refused."""
    whole, rng = COMPRESSIONS[name](tar()), np.random.default_rng(0)
    refusals = 0
    for _ in range(300):
        broken = bytearray(whole)
        broken[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        try:
            assert read(bytes(broken)) == FILES
        except DataError as error:
            assert str(error).startswith("a.tar is no tar archive, or a damaged one: ")
            refusals += 1
    assert refusals > 290


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_damaged_archive_gives_nothing_when_it_is_read_ahead(name: str) -> None:
    whole = bytearray(COMPRESSIONS[name](tar()))
    whole[-6 if name == "gz" else len(whole) // 2] ^= 1
    files = members(io.BytesIO(whole), "a.tar", ahead=True)
    with pytest.raises(DataError, match="a damaged one"):
        next(files)


@pytest.mark.parametrize("compress", [bytes, *COMPRESSIONS.values()])
def test_an_archive_cut_short_at_any_place(compress: Callable[[bytes], bytes]) -> None:
    content = tar({name: FILES[name] for name in list(FILES)[:3]})
    end = 3 * (512 + 1024)  # the mark at the end, then padding
    whole = compress(content[: end + 1024])
    for length in range(0, len(whole) if compress is not bytes else end, 37):
        assert "is no tar archive, or a damaged one: " in refused(whole[:length])


def test_a_damaged_header_is_not_the_end() -> None:
    broken = bytearray(tar())
    broken[512 + 1024 + 10] ^= 1  # in the second name; the checksum of the header does not fit
    line = refused(bytes(broken))
    assert (
        line == "a.tar is no tar archive, or a damaged one: bad checksum at byte 1536, where a file or the end must be"
    )


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(kind: bytes) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        add(archive, "train/a/0.jpg", type=kind, linkname="train/a/0.jpg")
    assert refused(stream.getvalue()) == (
        "a.tar/train/a/0.jpg must be a file, got a link or a device; archive the files themselves "
        "(tar --dereference --hard-dereference)"
    )


def header(**fields: object) -> bytes:
    info = tarfile.TarInfo("a")
    for name, value in fields.items():
        setattr(info, name, value)
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("size", [-1, -512, 1 << 40])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_sizes_that_no_file_has(size: int, kind: bytes) -> None:
    line = refused(header(size=size, type=kind) + bytes(2048))
    assert "a header claims " in line or line == f"a.tar/a must have at most 268435456 bytes, got {size}"


def test_long_names_of_long_names() -> None:
    line = refused(header(size=0, type=tarfile.GNUTYPE_LONGNAME) * 5000 + bytes(1024))
    assert line.startswith("a.tar is no tar archive, or a damaged one: ")


@pytest.mark.parametrize("content", [b"", b"no archive", b"no archive" * 100, b"\x1f\x8b", b"BZh9"])
def test_no_archive(content: bytes, tmp_path: Path) -> None:
    assert refused(content).startswith("a.tar is no tar archive, or a damaged one: ")
    assert refused(content, ahead=True).startswith("a.tar is no tar archive, or a damaged one: ")
