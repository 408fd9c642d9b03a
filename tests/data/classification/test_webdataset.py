"""Shards: which addresses are taken, and that none of them runs a command unasked."""

from __future__ import annotations

import functools
import gzip
import io
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("webdataset")

from ddfnet.data.classification.webdataset import samples, urls
from ddfnet.errors import DataError


def write(file: Path, compress: Callable[[bytes], bytes] = bytes) -> Path:
    """Write a shard with two samples."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("0.jpg", "0.cls", "1.jpg", "1.cls"):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(compress(stream.getvalue()))
    return file


def keys(found: list[str]) -> list[str]:
    return [f"{sample['__key__']}{sample['jpg'].decode()}" for sample in samples(found)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve the folder over http."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    serving = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()


BOTH = ["00.jpg", "11.jpg"]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_files_and_addresses(tmp_path: Path, server: str, compress: Callable[[bytes], bytes]) -> None:
    file = write(tmp_path / "a.tar", compress)
    assert keys(urls(str(file), None, True)) == BOTH
    assert keys(urls(f"{server}/a.tar", None, True)) == BOTH
    assert keys(urls(f"{file}::{server}/a.tar", None, True)) == 2 * BOTH
    write(tmp_path / "b.tar", compress)
    assert keys(urls(f"{tmp_path}/{{a,b}}.tar", None, True)) == 2 * BOTH


def test_an_address_that_is_not_there(server: str) -> None:
    with pytest.raises(DataError, match=r"nothing\.tar is "):
        keys(urls(f"{server}/nothing.tar", None, True))


def test_a_list_longer_than_a_path_can_be(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tar")
    assert len(urls("::".join([str(file)] * 500), None, True)) == 500


def test_a_damaged_compressed_shard_gives_no_sample(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tar", gzip.compress)
    content = bytearray(file.read_bytes())
    content[-6] ^= 1  # a bit in the checksum
    file.write_bytes(content)
    with pytest.raises(DataError, match="is no tar archive, or a damaged one: CRC check failed"):
        next(samples([str(file)]))


@pytest.mark.parametrize("before", ["", " ", "\t", "\x01", "{0..1}.tar::", "{a,b}.tar::"])
@pytest.mark.parametrize(
    "address", ["pipe:{}", "PIPE:{}", "file:{}", "s3://{}", "gs://{}", "hf://{}", "ais://{}", "ftp://{}", "hdfs://{}"]
)
def test_an_address_that_runs_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("0", "1", "a", "b"):
        write(tmp_path / f"{name}.tar")
    command = before + address.format("touch ran #.tar")
    for path, part, training in ((command, None, True), ("0.tar", command, False), (str(tmp_path), command, False)):
        with pytest.raises(DataError, match="a shard must be a file or an address of http"):
            keys(urls(path, part, training))
    assert not (tmp_path / "ran").exists()


def test_a_variable_that_holds_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WDS_DATA", "pipe:touch ran #")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="a shard must be a file or an address of http"):
        urls("${DATA}.tar", None, True)
    with pytest.raises(DataError, match="files or addresses of shards are required, got "):
        urls("${NOTHING}.tar", None, True)
    assert not (tmp_path / "ran").exists()


def test_the_environment_rewrites_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    write(tmp_path / "a.tar")
    monkeypatch.setenv("GOPEN_REWRITE", f"http=pipe:touch {tmp_path}/ran #;/=pipe:touch {tmp_path}/ran #")
    assert keys(urls(f"{server}/a.tar", None, True)) == BOTH
    assert keys(urls(str(tmp_path / "a.tar"), None, True)) == BOTH
    assert not (tmp_path / "ran").exists()


def test_a_file_whose_name_reads_like_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "pipe:touch ran #" / "train-0.tar")
    monkeypatch.chdir(tmp_path)
    assert keys(urls("pipe:touch ran #", None, True)) == BOTH
    assert keys(urls("pipe:touch ran #/train-0.tar", None, True)) == BOTH
    assert not (tmp_path / "ran").exists()


def test_a_command_that_is_allowed(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tar")
    assert keys(urls(f"pipe:cat {file}", None, True, allow_pipe=True)) == BOTH
    for wrong in ("PIPE:true", "nothing://a.tar"):
        with pytest.raises(DataError, match=f"{wrong} is "):
            keys(urls(wrong, None, True, allow_pipe=True))
