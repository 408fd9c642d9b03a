"""`ddfnet demo`: once from end to end, then every way in which it is used wrongly."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("lightning")
pytest.importorskip("skimage")

import torch
from PIL import Image

from ddfnet.cli import filters, pictures
from ddfnet.cli.main import main
from ddfnet.models.twins import TwinNet

Fails = Callable[..., str]


class Page(HTMLParser):
    """What a page loads, what it shows, and whether its tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset", "data") and value]
        if tag == "img":
            self.images.append(values)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    folder, threads = tmp_path_factory.mktemp("work"), torch.get_num_threads()
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder) if hasattr(contextlib, "chdir") else contextlib.nullcontext():
        before = set(Path().iterdir())
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = main(["demo", "--short", "--output", str(folder / "out")])
        torch.set_num_threads(threads)
        left = {path.name for path in set(Path().iterdir()) - before}
    page = (folder / "out" / "index.html").read_text(encoding="utf-8")
    results = json.loads((folder / "out" / "results.json").read_text())
    yield SimpleNamespace(
        status=status,
        out=output.getvalue(),
        err=errors.getvalue(),
        folder=folder,
        left=left,
        page=page,
        results=results,
    )


def test_the_last_line_names_the_page(demo: SimpleNamespace) -> None:
    assert demo.status == 0
    named = Path(demo.out.splitlines()[-1].rpartition("Open ")[2])
    assert named == (demo.folder / "out" / "index.html").resolve()
    assert named.is_file()


def test_it_is_quiet_and_leaves_nothing_else_behind(demo: SimpleNamespace) -> None:
    assert demo.err == ""
    assert "Warning" not in demo.out and "GPU available" not in demo.out
    assert demo.left <= {"out"}, "such as lightning_logs"


def test_results(demo: SimpleNamespace) -> None:
    twins = {twin["mixer"]: twin for twin in demo.results["twins"]}
    assert list(twins) == ["conv", "depthwise", "ddf"]
    assert twins["depthwise"]["parameters"] < twins["ddf"]["parameters"] < twins["conv"]["parameters"]
    assert twins["depthwise"]["macs"] < twins["ddf"]["macs"] < twins["conv"]["macs"]
    for twin in twins.values():
        assert twin["test_accuracy"] > 0.3, "chance is 0.1"
        assert list(twin["milliseconds"]) == ["1", "64"]
        assert all(value > 0 for value in twin["milliseconds"].values())
    assert demo.results["data"]["train"] == 512
    assert demo.results["settings"]["seed"] == 0
    assert demo.results["machine"]["torch"] == torch.__version__


def test_the_same_table_everywhere(demo: SimpleNamespace) -> None:
    table = (demo.folder / "out" / "table.txt").read_text()
    assert table in demo.out + "\n"
    rows = Page(demo.page).rows
    assert [row[0] for row in rows] == [
        "3x3 layer",
        "3x3 convolution",
        "depthwise 3x3 convolution",
        "decoupled dynamic filter",
    ]
    for row, twin in zip(rows[1:], demo.results["twins"], strict=True):
        assert row[1] == f"{twin['test_accuracy']:.2%}"
        assert row[2] == f"{twin['parameters']:,}"
        assert all(cell in table for cell in row)


def test_the_page_needs_nothing_but_itself(demo: SimpleNamespace) -> None:
    page = Page(demo.page)
    assert page.open == []
    assert page.loads and all(load.startswith("data:image/png;base64,") for load in page.loads)
    assert not re.search(r"url\(|@import|<script|<link|https?://", demo.page)


def test_every_picture_of_the_page_decodes_and_is_described(demo: SimpleNamespace) -> None:
    images = Page(demo.page).images
    assert len(images) == 3 * (4 + 3 * 4) + 3 * 2  # maps and kernels of each photograph, strips of channel filters
    for image in images:
        assert image["alt"]
        decoded = Image.open(io.BytesIO(base64.b64decode(str(image["src"]).partition(",")[2])))
        decoded.load()
        assert len(decoded.convert("RGB").getcolors(1 << 20) or []) > 1, "one colour only"


def test_the_page_says_what_it_is(demo: SimpleNamespace) -> None:
    text = " ".join(Page(demo.page).text.split())
    for part in (
        "This was a short run",
        "trained on digits alone and has never seen these photographs",
        torch.__version__,
        "(CC0)",
    ):
        assert part in text
    assert demo.results["machine"]["cpu"] in text
    assert "{{" not in text and "None" not in text


def test_no_output_folder(tmp_path: Path, fails: Fails) -> None:
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "out"
    assert fails(1, "demo", "--output", str(output)) == (
        f"ddfnet: error: cannot write to the folder {output}: Not a directory"
    )


@pytest.mark.parametrize("arguments", [(), ("--short",)])
def test_a_folder_that_is_not_there(tmp_path: Path, fails: Fails, arguments: tuple[str, ...]) -> None:
    missing = tmp_path / "nowhere"
    assert fails(1, "demo", "--data", str(missing), "--output", str(tmp_path / "out"), *arguments) == (
        f"ddfnet: error: {missing}: no such folder"
    )


def test_a_broken_picture_is_named(tmp_path: Path, fails: Fails) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (9, 9), (40 * number, 0, 0)).save(tmp_path / "set" / name / f"{number}.png")
    broken = tmp_path / "set" / "b" / "2.png"
    broken.write_bytes(b"no picture")
    line = fails(1, "demo", "--data", str(tmp_path / "set"), "--output", str(tmp_path / "out"))
    assert line.startswith(f"ddfnet: error: {broken} is a broken picture: ")


def test_a_set_that_is_not_there_and_not_downloaded(tmp_path: Path, fails: Fails) -> None:
    line = fails(1, "demo", "--data", "cifar10", "--root", str(tmp_path), "--output", str(tmp_path / "out"))
    assert line == (
        f"ddfnet: error: cifar10: no intact cifar-10-batches-py in {tmp_path}; give torchvision's root with --root, or "
        f"add --download"
    )


# --- what the pictures show ---------------------------------------------------------------------------------------


def test_recorded_filters_are_those_of_the_layer() -> None:
    network = TwinNet("ddf", 1, 10).eval()
    picture = torch.randn(1, 12, 16)
    recorded = filters.record(network, picture)
    assert [own.spatial.shape[1:] for own in recorded] == [(12, 16), (12, 16), (6, 8), (6, 8)]
    block = network.stages[0][0].body
    x = block[2](block[1](block[0](network.stem(picture[None]))))
    torch.testing.assert_close(recorded[0].spatial, block[3].spatial(x)[0])
    torch.testing.assert_close(recorded[0].channel, block[3].channel(x)[0])
    assert recorded[0].channel.shape == (32, 3, 3)
    assert not block[3].spatial._forward_hooks, "hooks are taken away again"


def test_components_find_the_directions_that_differ() -> None:
    directions = torch.linalg.qr(torch.randn(9, 9)).Q.T[:3]
    mean = torch.randn(9)
    values = torch.randn(3, 20, 30) * torch.tensor([9.0, 4.0, 1.0])[:, None, None]
    spatial = mean[:, None, None] + torch.einsum("dk,dhw->khw", directions, values)
    components = filters.Components.fit([spatial])
    assert components.share == pytest.approx(1, abs=1e-4)
    overlap = components.directions @ directions.T
    assert (overlap.diagonal().abs() > 0.95).all()
    colours = components.colours(spatial)
    assert colours.shape == (20, 30, 3)
    assert colours.min() == 0 and colours.max() == 1
    distances = (spatial - components.mean[:, None, None]).norm(dim=0) / components.mean.norm()
    torch.testing.assert_close(components.departure(spatial), distances)


def test_typical_points_stand_for_each_group() -> None:
    spatial = torch.zeros(9, 64, 64)
    spatial[0, :32, :32] = spatial[1, :32, 32:] = spatial[2, 32:, :32] = spatial[3, 32:, 32:] = 1
    points = filters.typical_points(spatial, 4)
    assert {(y < 32, x < 32) for y, x in points} == {(a, b) for a in (True, False) for b in (True, False)}
    assert all(4 <= value < 60 for point in points for value in point), "away from the edge"


def test_kernels_are_painted_by_sign() -> None:
    uri = pictures.kernel(torch.tensor([[-1.0, 0.0, 1.0]]), 1.0)
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")
    negative, zero, positive = (picture.getpixel((x, 0)) for x in range(3))
    assert negative[2] > negative[0] and positive[0] > positive[2]
    assert min(zero) > 240
