"""Composed scenes: the same from everywhere, edges where they belong, and flaws of no more than was asked for."""

import hashlib
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

pytest.importorskip("cv2")
pytest.importorskip("skimage")

import cv2

from ddfnet.data.depth.measurement import _displaced
from ddfnet.data.depth.synthetic import ComposedScenes
from ddfnet.errors import DataError

FLAWS = {"noise": 0.05, "holes": 0.2, "misalignment": 2.0}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Set OpenCV to one thread: its threads do not survive a fork, and a worker would wait for them for ever."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(threads)


def digest(scene: dict[str, torch.Tensor]) -> str:
    content = b"".join(name.encode() + scene[name].numpy().tobytes() for name in sorted(scene))
    return hashlib.sha256(content).hexdigest()


def depth_edges(depth: torch.Tensor, least: float) -> np.ndarray:
    """Mark the pixels on both sides of a step of at least this share of the scene's range."""
    values = depth[0].numpy()
    edges = np.zeros(values.shape, bool)
    across, down = (np.abs(np.diff(values, axis=axis)) > least * np.ptp(values) for axis in (1, 0))
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges


def image_edges(guide: torch.Tensor) -> np.ndarray:
    """Mark the tenth of the pixels with the steepest gradients."""
    grey = cv2.GaussianBlur(guide.float().mean(0).numpy(), (0, 0), 1.0)
    steepness = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return steepness > np.quantile(steepness, 0.9)


# --- one scene, wherever it is made -------------------------------------------------------------------------


def test_another_process_makes_the_same_scenes() -> None:
    code = f"""
import hashlib
from ddfnet.data.depth.synthetic import ComposedScenes
scenes = ComposedScenes(9, 64, seed=5, **{FLAWS})
for i in (8, 0):
    scene = scenes[i]
    content = b"".join(name.encode() + scene[name].numpy().tobytes() for name in sorted(scene))
    print(hashlib.sha256(content).hexdigest())
"""
    root = Path(__file__).parents[2]
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    scenes = ComposedScenes(9, 64, seed=5, **FLAWS)
    assert other.stdout.split() == [digest(scenes[0]), digest(scenes[8])][::-1]


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_make_the_same_scenes(workers: int) -> None:
    scenes = ComposedScenes(6, 64, seed=5, **FLAWS)
    loader = DataLoader(scenes, batch_size=2, num_workers=workers, timeout=60 if workers else 0)
    made = [{name: batch[name][i] for name in batch} for batch in loader for i in range(2)]
    assert [digest(scene) for scene in made] == [digest(scenes[i]) for i in range(6)]


def test_scenes_differ_by_index_and_seed() -> None:
    guides, depths = set(), set()
    for seed in (0, 1, 2):
        scenes = ComposedScenes(6, 64, seed=seed)
        for i in range(6):
            guides.add(scenes[i]["guide"].numpy().tobytes())
            depths.add(scenes[i]["depth"].numpy().tobytes())
    assert len(guides) == len(depths) == 18


def test_neither_the_length_nor_other_random_numbers_matter() -> None:
    expected = digest(ComposedScenes(4, 64, **FLAWS)[3])
    np.random.seed(1)
    torch.manual_seed(1)
    longer = ComposedScenes(100, 64, **FLAWS)
    assert len(longer) == 100
    longer[7]
    assert digest(longer[3]) == expected


# --- what a scene is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flaws", [{}, FLAWS, {"noise": 0.9, "holes": 0.9, "misalignment": 20.0}])
@pytest.mark.parametrize("size", [32, 65])
def test_keys_shapes_and_types(size: int, flaws: dict[str, float]) -> None:
    scenes = ComposedScenes(12, size, **flaws)
    for i in range(12):
        scene = scenes[i]
        assert {name: (tuple(x.shape), x.dtype) for name, x in scene.items()} == {
            "guide": ((3, size, size), torch.uint8),
            "depth": ((1, size, size), torch.float32),
            "measured": ((1, size, size), torch.float32),
            "valid": ((1, size, size), torch.bool),
        }
        assert all(x.is_contiguous() for x in scene.values())
        for name in ("depth", "measured"):
            assert scene[name].isfinite().all() and (scene[name] > 0).all()
        assert scene["depth"].min() < scene["depth"].max()


def test_depth_edges_lie_on_image_edges() -> None:
    """An image of another scene shows what chance makes of it: the tenth that is called an edge."""
    scenes = ComposedScenes(48, 96)
    edges = [depth_edges(scenes[i]["depth"], 0.1) for i in range(48)]
    images = [image_edges(scenes[i]["guide"]) for i in range(48)]
    total = sum(edge.sum() for edge in edges)
    own = sum((edge & image).sum() for edge, image in zip(edges, images, strict=True)) / total
    others = sum((edge & image).sum() for edge, image in zip(edges, images[1:] + images[:1], strict=True))
    assert others / total < 0.2
    assert own > 0.3 and own > 2.5 * others / total


def test_not_every_image_edge_is_a_depth_edge() -> None:
    scenes = ComposedScenes(48, 96)
    alone = total = 0
    for i in range(48):
        image = image_edges(scenes[i]["guide"])
        near = cv2.dilate(depth_edges(scenes[i]["depth"], 0.02).astype(np.uint8), np.ones((7, 7))) > 0
        alone += (image & ~near).sum()
        total += image.sum()
    assert alone / total > 0.1


def test_own_photographs_are_used(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8)
    (tmp_path / "own.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    own = ComposedScenes(4, 64, more_photographs=[tmp_path])
    plain = ComposedScenes(4, 64)
    assert len(own.photographs) == len(plain.photographs) + 1
    assert any(digest(own[i]) != digest(plain[i]) for i in range(4))


# --- flaws --------------------------------------------------------------------------------------------------


def test_without_holes_all_is_valid() -> None:
    scenes = ComposedScenes(10, 64, noise=0.1, misalignment=2.0)
    assert all(scenes[i]["valid"].all() for i in range(10))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.6])
def test_holes_are_no_more_than_asked_for(share: float) -> None:
    """In all scenes together; one may have more, for its last hole is not cut to measure."""
    scenes = ComposedScenes(60, 64, holes=share)
    invalid = [1 - scenes[i]["valid"].float().mean().item() for i in range(60)]
    assert 0.2 * share < np.mean(invalid) <= share
    assert max(invalid) < min(2 * share, 1)
    assert len({round(x, 4) for x in invalid}) > 10  # drawn for each scene


def test_holes_touch_nothing_else() -> None:
    whole, holed = (ComposedScenes(6, 64, holes=share) for share in (0, 0.3))
    for i in range(6):
        assert all(torch.equal(whole[i][name], holed[i][name]) for name in ("guide", "depth", "measured"))


def test_some_holes_lie_at_depth_edges() -> None:
    at_edges = total = everywhere = 0.0
    scenes = ComposedScenes(60, 64, holes=0.3)
    for i in range(60):
        scene = scenes[i]
        edges = depth_edges(scene["depth"], 0.1)
        at_edges += (edges & ~scene["valid"][0].numpy()).sum()
        total += edges.sum()
        everywhere += (~scene["valid"]).float().mean().item() / 60
    assert at_edges / total > 1.3 * everywhere


def test_noise_changes_what_is_measured_alone() -> None:
    clean, noisy = ComposedScenes(30, 64, holes=0.2), ComposedScenes(30, 64, holes=0.2, noise=0.1)
    deviations = []
    for i in range(30):
        before, after = clean[i], noisy[i]
        assert torch.equal(before["depth"], before["measured"])
        assert all(torch.equal(before[name], after[name]) for name in ("guide", "depth", "valid"))
        span = before["depth"].max() - before["depth"].min()
        deviations.append(((after["measured"] - after["depth"]).std() / span).item())
    assert max(deviations) < 0.1 * 1.05  # as drawn, up to the error of a sample of 4096
    assert 0.03 < np.mean(deviations) < 0.07  # half of the most, on average
    assert min(deviations) > 0


@pytest.mark.parametrize("most", [1.0, 3.0])
def test_misalignment_moves_the_edges_of_the_depth(most: float) -> None:
    """Each edge against the nearest old one: no move along it is seen, and none below 0.5 pixels."""
    straight, crooked = ComposedScenes(40, 96), ComposedScenes(40, 96, misalignment=most)
    moves = []
    for i in range(40):
        before, after = straight[i], crooked[i]
        assert torch.equal(before["guide"], after["guide"])
        assert torch.isin(after["depth"], before["depth"]).all()  # edges stay sharp: no value in between
        assert torch.equal(after["depth"], after["measured"]) and after["valid"].all()
        old, new = depth_edges(before["depth"], 0.1), depth_edges(after["depth"], 0.1)
        if old.any() and new.any():
            moves.append(cv2.distanceTransform((~old).astype(np.uint8), cv2.DIST_L2, 5)[new])
    every = np.concatenate(moves)
    assert 0.05 * most < every.mean() < 0.5 * most
    assert np.quantile(every, 0.99) < 3 * most


@pytest.mark.parametrize("deviation", [1.0, 4.0])
def test_a_displacement_has_its_standard_deviation_and_is_smooth(deviation: float) -> None:
    """A ramp shows it: what is there now is where it came from."""
    ramp = np.tile(np.arange(256, dtype=np.float32), (256, 1))
    shares, rough = [], []
    for seed in range(20):
        moved = (_displaced(np.random.default_rng(seed), ramp, deviation) - ramp)[:, 24:-24]
        shares.append(moved.std() / deviation)
        rough.append(np.abs(np.diff(moved, axis=0)).mean() / deviation)
    assert 0.7 < np.mean(shares) < 1.1  # interpolation between the points of the grid takes some of it away
    assert max(rough) < 0.25


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "length must be at least 1 and size at least 32, got length=0 and size=64"),
        ({"size": 31}, "length must be at least 1 and size at least 32, got length=2 and size=31"),
        ({"noise": -0.1}, "noise must be a share from 0 to below 1, got -0.1"),
        ({"noise": 1}, "noise must be a share from 0 to below 1, got 1"),
        ({"holes": 1.0}, "holes must be a share from 0 to below 1, got 1.0"),
        ({"holes": math.nan}, "holes must be a share from 0 to below 1, got nan"),
        ({"noise": math.nan}, "noise must be a share from 0 to below 1, got nan"),
        ({"misalignment": -1}, "misalignment must be pixels from 0 to the size, 64, got -1"),
        ({"misalignment": 65}, "misalignment must be pixels from 0 to the size, 64, got 65"),
        ({"misalignment": math.inf}, "misalignment must be pixels from 0 to the size, 64, got inf"),
        ({"misalignment": math.nan}, "misalignment must be pixels from 0 to the size, 64, got nan"),
        ({"seed": -1}, "seed must be from 0 to 4294967295, got -1"),
        ({"seed": 2**32}, "seed must be from 0 to 4294967295, got 4294967296"),
    ],
)
def test_options_out_of_range(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ComposedScenes(**{"length": 2, "size": 64, **options})


@pytest.mark.parametrize("options", [{"length": 2.0}, {"size": 64.5}, {"seed": 0.5}, {"seed": None}])
def test_what_is_no_whole_number(options: dict[str, float]) -> None:
    with pytest.raises(TypeError, match="length, size and seed must be whole numbers, got "):
        ComposedScenes(**{"length": 2, "size": 64, **options})


@pytest.mark.parametrize("options", [{"seed": 2**32 - 1}, {"seed": np.int64(7)}, {"misalignment": 64}])
def test_options_at_the_end_of_their_range(options: dict[str, float]) -> None:
    assert ComposedScenes(2, 64, **options)[1]["depth"].isfinite().all()


@pytest.mark.parametrize("index", [-1, 2, 100])
def test_a_scene_that_is_not_in_the_set(index: int) -> None:
    with pytest.raises(IndexError, match=f"scene {index} of 2"):
        ComposedScenes(2, 64)[index]


def test_a_missing_photograph(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing.png: no such photograph or folder of photographs"):
        ComposedScenes(2, 64, more_photographs=[tmp_path / "nothing.png"])


@pytest.mark.parametrize("name", ["aloeL.jpg", "motorcycle_left.png"])
def test_the_test_scenes_are_no_photographs(tmp_path: Path, name: str) -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    path = tmp_path / name
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    for place in (path, tmp_path):
        with pytest.raises(DataError, match=f"{name} is held back"):
            ComposedScenes(2, 64, more_photographs=[place])
