"""Tar archives: what is read, and that no damage passes for content."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddfnet.data.archives import TarIndex, members
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


# --- the index of an archive ----------------------------------------------------------------------------------------


def indexed(content: bytes, folder: Path, parts: int = 2) -> TarIndex:
    (folder / "a.tar").write_bytes(content)
    return TarIndex.of(folder / "a.tar", parts)


def refused_index(content: bytes, folder: Path) -> str:
    with pytest.raises(DataError) as raised:
        indexed(content, folder)
    assert str(raised.value).startswith(f"{folder}/a.tar") and "\n" not in str(raised.value)
    return str(raised.value).removeprefix(f"{folder}/")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_file_of_an_index_is_read_where_it_lies(tmp_path: Path, form: int) -> None:
    files = FILES | {"long" * 24 + "/" + "name" * 24: b"content", "train/a/empty.bin": b"", "train/a/._0.bin": b"Mac"}
    index = pickle.loads(pickle.dumps(indexed(tar(files, format=form), tmp_path, 3)))
    del files["train/a/._0.bin"]
    assert {name: index.content(name) for name in index.spans} == files
    index = indexed(tar(files, format=form), tmp_path, 1)
    assert index.content("name" * 24) == b"content"


def test_an_index_reads_headers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    class Counted(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            found = super().read(size)
            read.append(len(found))
            return found

    content = tar({f"images/{number}.bin": bytes(1 << 20) for number in range(4)})
    monkeypatch.setattr("ddfnet.data.archives.read_file", lambda path, decode, **_: decode(Counted(content)))
    assert len(TarIndex.of(tmp_path, 2).spans) == 4
    assert sum(read) < 10_000


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_no_index_of_a_compressed_archive(tmp_path: Path, name: str) -> None:
    assert refused_index(COMPRESSIONS[name](tar()), tmp_path) == (
        "a.tar: an uncompressed tar archive is required, this one is compressed; decompress it first"
    )


def test_no_index_of_an_archive_cut_short_at_any_place(tmp_path: Path) -> None:
    content = tar({name: FILES[name] for name in list(FILES)[:3]})
    end = 3 * (512 + 1024)  # the mark at the end, then padding
    for length in range(0, end, 37):
        line = refused_index(content[:length], tmp_path)
        start = (
            "a.tar is no tar archive, or a damaged one: ",
            "a.tar: the archive ends within train/a/",
            "a.tar: the file",
        )
        assert line.startswith(start)
    assert refused_index(content[:1000], tmp_path) == "a.tar: the archive ends within train/a/0.bin; copy it again"


def test_no_index_of_links_sparse_files_and_odd_sizes(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        add(archive, "train/a/0.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    assert refused_index(stream.getvalue(), tmp_path).startswith("a.tar: train/a/0.jpg must be a file, got a link or a")
    for size in (-1, 1 << 40):
        for kind in (tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
            line = refused_index(header(size=size, type=kind) + bytes(2048), tmp_path)
            assert "a header claims " in line or line == f"a.tar: a must have at most 268435456 bytes, got {size}"
    sparse = header(size=0, type=tarfile.GNUTYPE_SPARSE) + bytes(2048)
    assert "must be stored as it is, got a sparse file" in refused_index(sparse, tmp_path)


@pytest.mark.parametrize("content", [b"", b"no archive", b"no archive" * 100])
def test_no_index_of_what_is_no_archive(content: bytes, tmp_path: Path) -> None:
    line = refused_index(content, tmp_path)
    assert line.startswith("a.tar is no tar archive, or a damaged one: ") or line == "a.tar: the file is empty"


def test_no_index_of_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="b.tar: cannot be read: No such file or directory"):
        TarIndex.of(tmp_path / "b.tar", 1)
    with pytest.raises(DataError, match=f"{tmp_path}: a file is required, this is a folder"):
        TarIndex.of(tmp_path, 1)
