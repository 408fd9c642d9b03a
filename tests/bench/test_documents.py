"""Results files: read as they were written, and other files refused in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ddfnet.bench import documents, layer
from ddfnet.bench.memory import Memory
from ddfnet.bench.registry import CASES, LAYERS

MACHINE = {"cpu": "a processor", "torch": "2.14", "threads": 2}


def document(results, what: str = "op") -> documents.Document:
    return documents.Document(what, "ddfnet bench op", 30, "cpu", "cpu kernel (avx2)", MACHINE, results)


def test_a_file_is_read_as_written(tmp_path: Path, made_up) -> None:
    file = tmp_path / "results.json"
    measured = replace(made_up(CASES["c64"]), memory=(Memory("ddf", "contiguous", 1.5, 6.125),))
    written = document([measured, made_up(CASES["c64"], "forward+backward")])
    documents.write(file, written)
    assert documents.read(file) == written
    fields = json.loads(file.read_text())
    assert fields["seed"] == 0
    assert [summary["direction"] for summary in fields["summary"]] == ["forward", "forward+backward"]

    written = document(list(layer.run([LAYERS["tiny"]], rounds=1)), "layer")
    documents.write(file, written)
    assert documents.read(file) == written


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda fields: fields.pop("what"), r"no results file of this version \(no 'what'\)"),
        (lambda fields: fields.update(what="song"), r"no results file of this version \(no 'song'\)"),
        (lambda fields: fields["machine"].pop("threads"), r"\(no 'threads'\)"),
        (lambda fields: fields.update(machine=None), "no results file of this version"),
        (lambda fields: fields["results"][0]["case"].update(colour="red"), "unexpected keyword argument 'colour'"),
        (lambda fields: fields["results"][0].update(timings=[]), "c64 has no timings of ddf and depthwise"),
        (lambda fields: fields.update(results=[1]), "no results file of this version"),
        (lambda fields: fields.update(results=[]), "holds no results"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, made_up, spoil, message: str) -> None:
    file = tmp_path / "results.json"
    documents.write(file, document([made_up(CASES["c64"])]))
    fields = json.loads(file.read_text())
    spoil(fields)
    file.write_text(json.dumps(fields))
    with pytest.raises(documents.ResultsFileError, match=message):
        documents.read(file)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(documents.ResultsFileError, match="cannot read .*: No such file or directory"):
        documents.read(tmp_path / "missing.json")
    for content in (b"{", b"\xff\xfe", b"[]"):
        (tmp_path / "other.json").write_bytes(content)
        with pytest.raises(documents.ResultsFileError, match="no results file"):
            documents.read(tmp_path / "other.json")
