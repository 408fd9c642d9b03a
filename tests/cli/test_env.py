"""`ddfnet env` on a working installation and on broken ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

import ddfnet
from ddfnet.cli.main import main
from ddfnet.ops import backends
from ddfnet.ops.library import isas


def collected(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["env", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DDFNET_BACKEND", raising=False)


def test_json_agrees_with_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    found = collected(capsys)
    assert found["ddfnet"] == ddfnet.__version__
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()
    assert found["backend"] == {"DDFNET_BACKEND": None, "in_force": "auto", "error": None}
    cpu = found["devices"][0]
    assert cpu["device"] == "cpu"
    assert (cpu["kernel"], cpu["reason"]) == backends.resolve(torch.device("cpu"))
    assert list(cpu["kernels"]) == ["cpu", "triton", "reference"]
    assert cpu["kernels"]["reference"]["can_run"] is True
    assert found["isas"] == isas()
    assert not isas() or isas()[-1] == "baseline"


def test_text_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    found = collected(capsys)
    assert main(["env"]) == 0
    text = capsys.readouterr().out
    cpu = found["devices"][0]
    for part in (found["torch"], found["cpu"], f"served by {cpu['kernel']}: {cpu['reason']}", "DDFNET_BACKEND=not set"):
        assert part in text
    assert f"cannot triton: {cpu['kernels']['triton']['reason']}" in text or "can triton" in text


def test_a_missing_library_is_shown_as_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddfnet.env_info.LIBRARIES", ("pytest", "no-such-library"))
    assert collected(capsys)["libraries"] == {"pytest": pytest.__version__, "no-such-library": None}


def test_the_choice_in_force_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDFNET_BACKEND", "reference")
    found = collected(capsys)
    assert found["backend"] == {"DDFNET_BACKEND": "reference", "in_force": "reference", "error": None}
    assert found["devices"][0]["kernel"] == "reference"


def test_an_invalid_choice_is_reported(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDFNET_BACKEND", "fast")
    found = collected(capsys)
    message = "DDFNET_BACKEND must be one of 'auto', 'cpu', 'triton', 'reference', got 'fast'"
    assert found["backend"] == {"DDFNET_BACKEND": "fast", "in_force": None, "error": message}
    assert (found["devices"][0]["kernel"], found["devices"][0]["reason"]) == ("none", message)
    assert main(["env"]) == 0
    assert f"backend    {message}" in capsys.readouterr().out


def test_a_backend_that_breaks_is_reported(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, device: torch.device) -> tuple[bool, str]:
        raise OSError("no driver")

    monkeypatch.setattr(backends, "can_run", broken)
    cpu = collected(capsys)["devices"][0]
    assert (cpu["kernel"], cpu["reason"]) == ("none", "no driver")
    assert cpu["kernels"]["cpu"] == {"can_run": False, "reason": "OSError: no driver"}
