"""Pairs of depth maps and images in the layouts that data sets and cameras have.

Each depth map holds one number, and so does its image: so the pairs that the tool is given can be read off.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddfnet.depth import io
from ddfnet.depth.known_layouts import LAYOUTS, SUBFOLDERS, TUM
from tests.upsampling import Run, refused


def files(root: Path, depths: dict[str, int], images: dict[str, int]) -> Path:
    for name, number in depths.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        io.write(root / name, np.full((3, 4), number, np.uint16))
    for name, number in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 12), (number, 0, 0)).save(root / name, quality=100, subsampling=0)
    return root


def pairs(calls: list[dict[str, Any]]) -> dict[int, int]:
    """Return the number in each depth map that was upsampled, and that of its image; JPEG may miss it by one."""
    return {int(call["depth"][0, 0]): int(call["guide"][0, 0, 0]) for call in calls}


def near(got: dict[int, int], expected: dict[int, int]) -> bool:
    return got.keys() == expected.keys() and all(abs(got[key] - expected[key]) <= 1 for key in got)


SEQUENCES = {  # name: depth maps, images, the pairs, the rule
    "7-Scenes": (
        {"frame-000000.depth.png": 1, "frame-000001.depth.png": 2},
        {"frame-000000.color.png": 100, "frame-000001.color.png": 200},
        {1: 100, 2: 200},
        "2 pairs as in 7-Scenes and ScanNet's frames: {}.depth with {}.color",
    ),
    "Replica": (
        {"results/depth000000.png": 1, "results/depth000001.png": 2},
        {"results/frame000000.jpg": 100, "results/frame000001.jpg": 200},
        {1: 100, 2: 200},
        "2 pairs as in Replica: depth{} with frame{}",
    ),
    "NYU raw": (
        {"d-1294886363.011060-3085676.png": 1, "d-1294886363.111060-3085677.png": 2},
        {
            "r-1294886363.000000-2878518.ppm": 100,
            "r-1294886363.030000-2878519.ppm": 150,
            "r-1294886363.120000-2878520.ppm": 200,
        },
        {1: 100, 2: 200},
        "2 pairs as in NYU raw: d-{time}-* with r-{time}-*, at most 0.02 s apart; "
        "1 images without a depth map are left out",
    ),
    "RealSense's rs-convert": (
        {"take_Depth_1591104137012.08374023437500.png": 1, "take_Depth_1591104137045.50000000000000.png": 2},
        {"take_Color_1591104137012.90000000000000.png": 100, "take_Color_1591104137046.00000000000000.png": 200},
        {1: 100, 2: 200},
        "2 pairs as in RealSense's rs-convert: *_Depth_{time} with *_Color_{time}, at most 0.02 s apart",
    ),
    "RealSense Viewer": (
        {"shot_Depth.png": 1},
        {"shot_Color.png": 100},
        {1: 100},
        "1 pairs as in RealSense Viewer: {}_Depth with {}_Color",
    ),
    "usual names": (
        {"depth_1.png": 1, "depth_2.png": 2},
        {"color_1.jpg": 100, "color_2.jpg": 200},
        {1: 100, 2: 200},
        "2 pairs as in usual names: depth_{} with color_{}",
    ),
    "TUM": (
        {"depth/1305031102.160407.png": 1, "depth/1305031102.194330.png": 2},
        {
            "rgb/1305031102.143000.png": 50,
            "rgb/1305031102.175304.png": 100,
            "rgb/1305031102.211214.png": 200,
        },
        {1: 100, 2: 200},
        "2 pairs as in TUM: {time} with {time}, at most 0.02 s apart; 1 images without a depth map are left out",
    ),
    "ScanNet export": (
        {"depth/0.png": 1, "depth/20.png": 2, "depth/100.png": 3},
        {"color/0.jpg": 100, "color/20.jpg": 150, "color/100.jpg": 200},
        {1: 100, 2: 150, 3: 200},
        "3 pairs as in TUM, ScanNet and Open3D: equal names in {0}/depth and {0}/color",
    ),
}


@pytest.mark.parametrize("layout", SEQUENCES)
def test_a_known_layout_is_found_and_said(tmp_path: Path, calls: list, run: Run, layout: str) -> None:
    depths, images, expected, rule = SEQUENCES[layout]
    root = files(tmp_path / "sequence", depths, images)
    (root / "pose.txt").write_text("1 0 0 0\n")
    done = run(root, "-o", tmp_path / "out")
    assert done.status == 0 and near(pairs(calls), expected)
    assert done.err == f"ddfnet: note: {rule.replace('{0}', str(root))}\n"
    assert done.out == f"{len(expected)} of {len(expected)} written to {tmp_path / 'out'}\n"
    calls.clear()
    assert run(root, "--guide", root, "-o", tmp_path / "again").status == 0
    assert near(pairs(calls), expected)


def test_portable_graymaps_of_nyu(tmp_path: Path, calls: list, run: Run) -> None:
    root = files(tmp_path / "s", {"d-10.000000-1.pgm": 1}, {"r-10.004000-7.ppm": 100})
    assert run(root, "-o", tmp_path / "out").status == 0 and near(pairs(calls), {1: 100})


@pytest.mark.parametrize("order", ["rgb first", "depth first", "without times"])
def test_an_associations_file_decides(tmp_path: Path, calls: list, run: Run, order: str) -> None:
    """Times would pair 1 with the image 100, names would pair nothing; the list says otherwise."""
    root = files(
        tmp_path / "tum",
        {"depth/1.010000.png": 1, "depth/2.010000.png": 2},
        {"rgb/1.000000.png": 100, "rgb/9.5.png": 200},
    )
    rows = [("1.01 depth/1.010000.png", "9.5 rgb/9.5.png"), ("2.01 depth/2.010000.png", "1.0 rgb/1.000000.png")]
    if order == "rgb first":
        rows = [row[::-1] for row in rows]
    if order == "without times":
        rows = [(first.split()[1], second.split()[1]) for first, second in rows]
    (root / "associations.txt").write_text("# comment\n\n" + "".join(f"{first} {second}\n" for first, second in rows))
    for arguments in ((root,), (root / "depth", "--guide", root / "rgb")):
        calls.clear()
        done = run(*arguments, "-o", tmp_path / str(len(arguments)))
        assert done.status == 0 and near(pairs(calls), {1: 200, 2: 100})
        assert done.err == f"ddfnet: note: 2 pairs by the list {root}/associations.txt\n"
    calls.clear()
    (root / "associations.txt").rename(tmp_path / "tum" / "mine.csv")
    assert run(root, "-o", tmp_path / "own", "--associations", root / "mine.csv").status == 0
    assert near(pairs(calls), {1: 200, 2: 100})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("depth/1.png\n", "associations.txt, line 1: a depth map and an image are required, got 1 files"),
        ("# nothing\n", "a list of pairs is required, there are none in it"),
        ("a/1.png b/1.png\n", "which names are the depth maps'?"),
        ("depth/1.png rgb/8.png\n", "rgb/8.png: no such file, though"),
        ("", "a list of pairs is required, there are none in it"),
    ],
)
def test_a_broken_list_is_one_line(tmp_path: Path, calls: list, run: Run, text: str, said: str) -> None:
    root = files(tmp_path / "s", {"depth/1.png": 1, "a/1.png": 1}, {"rgb/1.png": 100, "b/1.png": 100})
    (root / "associations.txt").write_text(text)
    refused(run(root, "-o", tmp_path / "out"), said)
    assert not calls and not (tmp_path / "out").exists()


def test_times_too_far_apart_are_a_failure_that_names_the_gap(tmp_path: Path, calls: list, run: Run) -> None:
    root = files(tmp_path / "s", {"depth/1.00.png": 1, "depth/5.00.png": 2}, {"rgb/1.01.png": 100, "rgb/4.95.png": 200})
    done = run(root, "-o", tmp_path / "out")
    assert done.status == 1 and near(pairs(calls), {1: 100}) and "1 of 2 written" in done.out
    line = "depth/5.00.png: no image within 0.02 s of it, the nearest is 4.95.png, 0.05 s away; --max-gap allows more"
    assert line in done.err
    calls.clear()
    assert run(root, "-o", tmp_path / "all", "--max-gap", 0.05).status == 0
    assert near(pairs(calls), {1: 100, 2: 200})


def test_two_patterns(tmp_path: Path, calls: list, run: Run) -> None:
    root = files(
        tmp_path / "s",
        {"a_dep_1.png": 1, "a_dep_10.png": 2, "a_dep_3.png": 3, "other.png": 9},
        {"pic/1-left.jpg": 100, "pic/10-left.jpg": 200, "pic/7-left.jpg": 250},
    )
    done = run(root, "-o", tmp_path / "out", "--pairs", "a_dep_{}.png", "pic/{}-left.jpg")
    assert done.status == 1 and near(pairs(calls), {1: 100, 2: 200})
    assert f"{root}/a_dep_3.png: there is no image for '3' in {root}/pic/{{}}-left.jpg" in done.err
    calls.clear()
    more = ("--guide", root / "pic", "--pairs", "a_dep_{}.png", "{}-left.jpg")
    assert run(root, "-o", tmp_path / "two", *more).status == 1
    assert near(pairs(calls), {1: 100, 2: 200})


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (("a.png", "b.jpg"), "the file's name must have {} once"),
        (("{}{}.png", "b.jpg"), "the file's name must have {} once"),
        (("{}/a.png", "b.jpg"), "the file's name must have {} once"),
        (("{}.doc", "b.jpg"), "depth maps end in .png"),
        (("{}.png", "{}.doc"), "images end in .jpg"),
        (("no{}.png", "b.jpg"), "there is no file "),
        (("{}.png", "no.jpg"), "there is no file "),
    ],
)
def test_patterns_that_are_none(tmp_path: Path, calls: list, run: Run, patterns: tuple[str, str], said: str) -> None:
    root = files(tmp_path / "s", {"a.png": 1}, {"b.jpg": 100})
    refused(run(root, "-o", tmp_path / "out", "--pairs", *patterns), "--pairs", said)


def test_one_image_for_many_maps(tmp_path: Path, calls: list, run: Run) -> None:
    root = files(tmp_path / "s", {"1.png": 1, "2.png": 2, "3.tif": 3}, {"view.png": 100})
    view = root / "view.png"  # among the depth maps, and no depth map itself
    alone = files(tmp_path / "alone", {}, {"one.png": 100})
    refused(
        run(root, "--guide", alone, "-o", tmp_path / "a"), f"give --guide {alone}/one.png if it is the image of all"
    )
    assert run(root, "--guide", view, "-o", tmp_path / "a").status == 0
    assert near(pairs(calls), {1: 100, 2: 100, 3: 100})
    calls.clear()
    assert run(root, "-o", tmp_path / "b", "--pairs", "{}.png", "view.png").status == 1  # the view itself is refused
    assert near(pairs(calls), {1: 100, 2: 100})


def test_no_map_is_its_own_guide(tmp_path: Path, calls: list, run: Run) -> None:
    root = files(tmp_path / "s", {"a.png": 1, "b.png": 2, "sub/a.png": 1}, {})
    itself, out = "it would be the depth map and its guide at once", tmp_path / "o.png"
    refused(run(root / "a.png", "--guide", root / "a.png", "-o", out), root / "a.png", itself)
    refused(run(root, "--guide", root, "-o", tmp_path / "out"), "no depth map has an image", "as the files are named")
    refused(run(root, "-o", tmp_path / "out", "--pairs", "{}.png", "{}.png"), "no depth map has an image")
    (root / "link.png").symlink_to(root / "a.png")
    os.link(root / "b.png", root / "sub" / "b.png")
    refused(run(root / "link.png", "--guide", root / "a.png", "-o", out), itself)
    refused(run(root / "b.png", "--guide", root / "sub" / "b.png", "-o", out), itself)
    done = run(root / "sub", "--guide", root, "-o", tmp_path / "out")
    assert done.status == 1 and f"{root}/sub/b.png: {itself}" in done.err
    assert "1 of 3 written" in done.out and not out.exists()  # sub/a.png is a copy of a.png: a file of its own


def test_a_map_and_an_image_of_one_name_in_one_folder(tmp_path: Path, calls: list, run: Run) -> None:
    root = files(tmp_path / "s", {"a.png": 1, "b.png": 2}, {"a.jpg": 100, "b.jpg": 200})
    done = run(root, "-o", tmp_path / "out")
    assert (done.status, done.err) == (0, "") and near(pairs(calls), {1: 100, 2: 200})


def test_names_that_pair_nothing_end_with_status_1(tmp_path: Path, calls: list, run: Run) -> None:
    root = files(tmp_path / "s", {"depth/a_d.png": 1, "depth/b_d.png": 2}, {"rgb/a_c.jpg": 100, "rgb/b_c.jpg": 200})
    done = run(root / "depth", "--guide", root / "rgb", "-o", tmp_path / "out")
    refused(done, f"{root}/depth: no depth map has an image in {root}/rgb", "--pairs '{}_d.png' '{}_c.jpg'")
    assert not (tmp_path / "out").exists() and not calls
    assert (
        run(root / "depth", "--guide", root / "rgb", "-o", tmp_path / "out", "--pairs", "{}_d.png", "{}_c.jpg").status
        == 0
    )
    assert near(pairs(calls), {1: 100, 2: 200})


def test_results_never_land_among_the_inputs(tmp_path: Path, calls: list, run: Run) -> None:
    root = files(tmp_path / "s", {"depth/0.png": 1}, {"color/0.jpg": 100})
    for folder in (root, root / "depth"):
        refused(run(root, "-o", folder, "--overwrite"), f"results in {folder} would replace inputs")
    assert run(root, "-o", root / "sharp").status == 0 and near(pairs(calls), {1: 100})


def test_options_of_folders_are_refused_for_a_file(tmp_path: Path, calls: list, run: Run) -> None:
    root = files(tmp_path / "s", {"a.png": 1}, {"b.jpg": 100})
    out = ("-o", tmp_path / "out.png")
    refused(run(root / "a.png", *out), "--guide is required with a single depth map")
    more = ("--guide", root / "b.jpg", *out)
    refused(run(root / "a.png", *more, "--pairs", "{}.png", "{}.jpg"), "--pairs is for folders")
    refused(run(root / "a.png", *more, "--associations", root / "b.jpg"), "--associations is for folders")


def test_the_docs_name_every_layout() -> None:
    page = (Path(__file__).parents[3] / "docs" / "guided.md").read_text()
    _, _, table = page.partition("| found by itself | depth map | image |\n|---|---|---|\n")
    rows = [row.split(" | ") for row in table.partition("\n\n")[0].splitlines()]
    for layout in (*LAYOUTS, TUM):
        said = [(depth, image) for name, depth, image in rows if layout.name in name]
        assert any(f"{layout.depth}`" in depth and f"{layout.image}`" in image for depth, image in said), layout
    assert all(f"`{image}/{{}}`" in rows[-1][2] for _, image in SUBFOLDERS)
