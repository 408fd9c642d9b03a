"""Programs of `examples/`: each runs in its short form, and the documentation shows them all."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAST = {
    "diffusion_unet.py": r"[ .:#]{8}(  [ .:#]{8}){3}",
    "smp_segmentation.py": r"IoU on the test part: [01]\.\d\d",
    "timm_training.py": r"epoch 1: loss \d+\.\d{3}, top-1 accuracy \d+\.\d% on the test digits",
    "torchvision_detection.py": r"overlap of each digit with the best box: [01]\.\d\d, [01]\.\d\d",
}


def test_all_of_them_are_here_and_in_the_documentation() -> None:
    assert sorted(path.name for path in ROOT.glob("examples/*.py")) == sorted(LAST)
    page = (ROOT / "docs" / "examples.md").read_text()
    assert all(f"python examples/{name}\n" in page for name in LAST)


@pytest.mark.parametrize("name", LAST)
def test_it_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("timm", "torchvision", "sklearn", "skimage", "segmentation_models_pytorch"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name, "--short"])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    assert re.fullmatch(LAST[name], capsys.readouterr().out.strip("\n").splitlines()[-1])
    assert not list(tmp_path.iterdir())
