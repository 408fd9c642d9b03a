"""`ddfnet demo`: once from end to end, then every way in which it is used wrongly."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("lightning")
pytest.importorskip("skimage")

pytest.importorskip("cv2")
pytest.importorskip("safetensors")

import torch
from PIL import Image

from ddfnet.cli.main import main
from ddfnet.data.depth.middlebury import motorcycle
from ddfnet.data.depth.protocols import PAC
from ddfnet.depth.alignment import aligned_bilinear
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.depth.upsample import upsample_depth
from ddfnet.pretrained import load, save

Fails = Callable[..., str]


class Page(HTMLParser):
    """Parsed page: its links, images, tables, captions and open tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.captions: list[str] = []
        self.ids: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset", "data") and value]
        self.ids |= {str(value) for name, value in attributes if name == "id"}
        if tag == "figcaption":
            self.captions.append("")
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
        if "figcaption" in self.open:
            self.captions[-1] += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    folder, threads = tmp_path_factory.mktemp("work"), torch.get_num_threads()
    model = tmp_path_factory.mktemp("model") / "untrained.safetensors"
    torch.manual_seed(0)
    save(GuidedUpsampler(8, channels=8, guide_channels=8), model, card={"data": "nothing", "steps": 0})
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder) if hasattr(contextlib, "chdir") else contextlib.nullcontext():
        before = set(Path().iterdir())
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = main(["demo", "--short", "--output", str(folder / "out"), "--depth-model", str(model)])
        torch.set_num_threads(threads)
        left = {path.name for path in set(Path().iterdir()) - before}
    page = (folder / "out" / "index.html").read_text(encoding="utf-8")
    results = json.loads((folder / "out" / "results.json").read_text())
    yield SimpleNamespace(
        status=status,
        out=output.getvalue(),
        err=errors.getvalue(),
        folder=folder,
        model=model,
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
    mixers = {row["mixer"]: row for row in demo.results["mixers"]}
    assert list(mixers) == ["conv", "depthwise", "ddf"]
    assert mixers["depthwise"]["parameters"] < mixers["ddf"]["parameters"] < mixers["conv"]["parameters"]
    assert mixers["depthwise"]["macs"] < mixers["ddf"]["macs"] < mixers["conv"]["macs"]
    for row in mixers.values():
        assert row["test_accuracy"] > 0.3, "chance is 0.1"
        assert list(row["milliseconds"]) == ["1", "64"]
        assert all(value > 0 for value in row["milliseconds"].values())
    assert demo.results["data"]["train"] == 512
    assert demo.results["settings"]["seed"] == 0
    assert demo.results["machine"]["torch"] == torch.__version__


def test_depth_results(demo: SimpleNamespace) -> None:
    depth = demo.results["depth"]
    assert depth["scene"] == "motorcycle" and depth["protocol"] == "pac" and depth["factor"] == 8
    assert depth["size"] == [240, 360] and depth["low_size"] == [30, 45]
    rows = {row["method"]: row for row in depth["rows"]}
    assert list(rows) == ["bilinear", "bicubic", "joint-bilateral", "ddfnet"]
    for row in rows.values():
        assert row["ratio"] == pytest.approx(row["rmse"] / rows["bilinear"]["rmse"])
        assert row["seconds"] > 0 and 0 < row["flying_near_edges"] < 1
    assert rows["bicubic"]["ratio"] > 1 > rows["joint-bilateral"]["ratio"]
    network = depth["network"]
    assert network["file"] == str(demo.model) and network["card"] == {"data": "nothing", "steps": 0}
    assert network["parameters"] == sum(p.numel() for p in load(demo.model, GuidedUpsampler).parameters())


def test_depth_errors_are_those_of_the_protocol(demo: SimpleNamespace) -> None:
    """Once more, by the public functions alone, on the middle of the scene."""
    whole = motorcycle()
    rows, columns = slice(130, 370), slice(190, 550)
    guide, depth, valid = whole.guide[:, rows, columns], whole.depth[rows, columns], whole.valid[rows, columns]
    scene = replace(whole, guide=guide, depth=depth, valid=valid)
    low, known = depth[3::8, 3::8], valid[3::8, 3::8]
    expected = {
        "bilinear": aligned_bilinear(low, scene.size, valid=known, ratio=8, offset=3),
        "ddfnet": upsample_depth(
            low, guide.permute(1, 2, 0).contiguous(), valid=known, offset=3, model=demo.model, fill=True
        ),
    }
    measured = {row["method"]: row["rmse"] for row in demo.results["depth"]["rows"]}
    for name, upsampled in expected.items():
        assert measured[name] == pytest.approx(PAC.rmse(upsampled, scene), rel=1e-6)
    zooms = demo.results["depth"]["zooms"]
    assert len(zooms) == 2
    for zoom in zooms:
        box = (
            slice(zoom["top"], zoom["top"] + zoom["height"]),
            slice(zoom["left"], zoom["left"] + zoom["width"]),
        )
        counted = PAC.scored(scene)[box]
        error = (expected["bilinear"] - depth)[box][counted]
        assert zoom["rmse"]["bilinear"] == pytest.approx(error.square().mean().sqrt().item(), rel=1e-5)


def test_the_same_tables_everywhere(demo: SimpleNamespace) -> None:
    tables = (demo.folder / "out" / "table.txt").read_text().rstrip("\n").split("\n\n")
    assert len(tables) == 2
    assert all(table in demo.out for table in tables)
    rows = Page(demo.page).rows
    depth, mixers = rows[:5], rows[5:]
    assert [row[0] for row in depth] == ["8x", "bilinear", "bicubic", "joint bilateral (OpenCV)", "ddfnet"]
    for row, result in zip(depth[1:], demo.results["depth"]["rows"], strict=True):
        assert row[1:] == [
            f"{result['rmse']:.3f} px",
            f"{result['ratio']:.3f}",
            f"{result['flying_near_edges']:.1%}",
            f"{result['seconds']:.3f}",
        ]
        assert all(cell in tables[0] for cell in row)
    assert [row[0] for row in mixers] == [
        "3x3 layer",
        "3x3 convolution",
        "depthwise 3x3 convolution",
        "decoupled dynamic filter",
    ]
    for row, scores in zip(mixers[1:], demo.results["mixers"], strict=True):
        assert row[1] == f"{scores['test_accuracy']:.2%}"
        assert row[2] == f"{scores['parameters']:,}"
        assert all(cell in tables[1] for cell in row)


def test_every_method_is_beside_the_others_with_its_own_error(demo: SimpleNamespace) -> None:
    captions = Page(demo.page).captions
    titles = ("bilinear", "bicubic", "joint bilateral (OpenCV)", "ddfnet")
    depth = demo.results["depth"]
    for zoom in depth["zooms"]:
        for title, error in zip(titles, zoom["rmse"].values(), strict=True):
            assert f"{title}, {error:.2f} px" in captions
    for row in depth["rows"]:
        assert f"its errors, {row['rmse']:.2f} px in root mean square" in captions
    for title in ("bilinear", "joint bilateral (OpenCV)", "ddfnet", "as measured"):  # from the side, and more
        assert title in captions


def test_the_page_needs_nothing_but_itself(demo: SimpleNamespace) -> None:
    page = Page(demo.page)
    assert page.open == []
    links = [load for load in page.loads if load.startswith("#")]
    assert links and {link[1:] for link in links} <= page.ids
    images = [load for load in page.loads if load not in links]
    assert images and all(re.match("data:image/(png|jpeg);base64,", image) for image in images)
    assert not re.search(r"url\(|@import|<script|<link|https?://", demo.page)


def test_every_image_of_the_page_decodes_and_is_described(demo: SimpleNamespace) -> None:
    images = Page(demo.page).images
    depth = 3 + 4 + 2 * (2 + 4) + 4 * 2 + 4 * 2  # first of all; from the side; up close; whole maps; composed scenes
    legends = 3 + 1
    mixers = 3 * (4 + 3 * 4) + 3  # maps and kernels of each photograph, strips of channel filters
    assert len(images) == depth + legends + mixers
    for image in images:
        assert image["alt"]
        decoded = Image.open(io.BytesIO(base64.b64decode(str(image["src"]).partition(",")[2])))
        decoded.load()
        assert len(decoded.convert("RGB").getcolors(1 << 20) or []) > 1, "one colour only"


def test_the_page_says_what_it_is(demo: SimpleNamespace) -> None:
    text = " ".join(Page(demo.page).text.split())
    for part in (
        "This was a short run, on the middle of the scene.",
        "This was a short run, on a few images",
        "Motorcycle of the Middlebury 2014 stereo benchmark",
        "from 45x30 to 360x240",
        f"{100 * demo.results['depth']['rows'][3]['ratio']:.0f} % of what bilinear interpolation leaves",
        "Its card says of what it was trained on: nothing.",
        "trained on digits alone and has never seen these photographs",
        torch.__version__,
        "(CC0)",
    ):
        assert part in text
    assert demo.results["machine"]["cpu"] in text
    assert "{{" not in text and "None" not in text
    assert text.index("A small depth map") < text.index("Three networks"), "depth leads"


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


def test_a_depth_network_that_is_not_there(tmp_path: Path, fails: Fails) -> None:
    missing = tmp_path / "nowhere.safetensors"
    assert fails(1, "demo", "--depth-model", str(missing), "--output", str(tmp_path / "out")) == (
        f"ddfnet: error: {missing}: no such file"
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_depth_network_that_is_broken(tmp_path: Path, fails: Fails, suffix: str) -> None:
    broken = tmp_path / f"broken{suffix}"
    broken.write_bytes(b"no network")
    line = fails(1, "demo", "--short", "--depth-model", str(broken), "--output", str(tmp_path / "out"))
    assert line.startswith(f"ddfnet: error: {broken}: a file that `ddfnet train depth` wrote is required, ")


def test_a_broken_model_card_is_named(tmp_path: Path, fails: Fails) -> None:
    file = tmp_path / "model.safetensors"
    save(GuidedUpsampler(2, channels=8, guide_channels=8), file)
    file.with_suffix(".json").write_text("{")
    line = fails(1, "demo", "--short", "--depth-model", str(file), "--output", str(tmp_path / "out"))
    assert line.startswith(f"ddfnet: error: {file}: its card {tmp_path / 'model.json'} cannot be read: ")


def test_a_broken_image_is_named(tmp_path: Path, fails: Fails) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (9, 9), (40 * number, 0, 0)).save(tmp_path / "set" / name / f"{number}.png")
    broken = tmp_path / "set" / "b" / "2.png"
    broken.write_bytes(b"no image")
    line = fails(1, "demo", "--data", str(tmp_path / "set"), "--output", str(tmp_path / "out"))
    assert line.startswith(f"ddfnet: error: {broken}: not a JPEG, PNG, ")


def test_a_set_that_is_not_there_and_not_downloaded(tmp_path: Path, fails: Fails) -> None:
    line = fails(1, "demo", "--data", "cifar10", "--root", str(tmp_path), "--output", str(tmp_path / "out"))
    assert line == (
        f"ddfnet: error: cifar10: no intact cifar-10-batches-py in {tmp_path}; give torchvision's root, or an archive "
        "of train/CLASS and test/CLASS; the demo fetches it with --download"
    )
