"""Furniture catalogues: what is in them, what may be used of it, and whose it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddfnet.data.depth.rooms.furniture import credits, licence_of, load
from ddfnet.errors import DataError
from tests.furniture_catalogues import MODELS, write_catalogue


def test_the_models_of_a_catalogue(tmp_path: Path) -> None:
    write_catalogue(tmp_path / "a.sh3f")
    catalogue = load(tmp_path)
    assert [model.name for model in catalogue.models] == [f"Test#{name}" for name in MODELS]
    table, clock = catalogue.models[0], catalogue.models[-1]
    assert (table.kind, table.category, table.size, table.elevation) == ("Table", "Living room", (1.2, 0.8, 0.75), 0)
    assert clock.elevation == 1.5
    assert catalogue.licences() == {"CC-BY-3.0": {"A. Maker": 5}}
    assert credits(catalogue.models)[0] == "Test#table (Table), A. Maker, CC-BY-3.0"
    assert not catalogue.skipped


def test_a_list_as_java_writes_it(tmp_path: Path) -> None:
    models = {"chair": {**MODELS["chair"], "name": r"Si\u00e8ge", "modelRotation": "-1 0 0 0 1 0 0 0 -1"}}
    write_catalogue(tmp_path / "a.sh3f", models)
    [model] = load(tmp_path).models
    assert model.kind == "Siège"
    assert model.rotation == (-1, 0, 0, 0, 1, 0, 0, 0, -1)


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("Creative Commons Attribution 3.0 United States license", "CC-BY-3.0-US"),
        (
            f"<p>Released under <a href='x'>Creative Commons Attribution 3.0</a></p> {'You may ' * 9} non-commercial",
            "CC-BY-3.0",
        ),
        ("This file has been released by Jo under the following license: Creative Commons Zero", "CC0-1.0"),
        ("Public domain", "CC0-1.0"),
        ("https://creativecommons.org/licenses/by/4.0/", "CC-BY-4.0"),
        ("Creative Commons Attribution-NonCommercial 3.0", None),
        ("CC-BY-SA 3.0, Attribution 3.0", None),
        ("GNU General Public License", None),
        ("", None),
    ],
)
def test_the_licence_that_a_text_states(text: str, licence: str | None) -> None:
    assert licence_of(text) == licence


def test_the_licence_of_a_model_counts_more_than_its_catalogue(tmp_path: Path) -> None:
    own = {
        "test/table/LICENSE.txt": "Released under\nCreative Commons Zero (Public Domain)",
        "test/cup/123 - LICENSE.html": "<h3>Released under <a href='#'>CC-BY-NC 3.0</a></h3>",
    }
    write_catalogue(tmp_path / "a.sh3f", files=own)
    catalogue = load(tmp_path)
    assert {model.name: model.licence for model in catalogue.models}["Test#table"] == "CC0-1.0"
    assert catalogue.skipped == {
        "Test#cup": "its licence is not CC0 or CC BY (see test/cup/123 - LICENSE.html)",
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": "/test/none.obj"}, "its file test/none.obj is not in the archive"),
        ({"width": "wide"}, "could not convert string to float: 'wide'"),
        ({"height": 0}, "its size is 0.45 x 0.45 x 0.0 m"),
        ({"height": "nan"}, "its size is 0.45 x 0.45 x nan m"),
        ({"modelRotation": "1 0 0"}, "its rotation has 3 numbers, not 9"),
    ],
)
def test_an_entry_that_is_wrong_is_skipped(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    write_catalogue(tmp_path / "a.sh3f", {"table": MODELS["table"], "chair": {**MODELS["chair"], **change}})
    catalogue = load(tmp_path)
    assert [model.name for model in catalogue.models] == ["Test#table"]
    assert catalogue.skipped == {"Test#chair": reason}


def test_a_folder_without_furniture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"furniture catalogues \(\*.sh3f\) are required there, got none; run: apt-get"):
        load(tmp_path)
    with pytest.raises(DataError, match="none/at/all: furniture catalogues"):
        load(tmp_path / "none" / "at" / "all")


def test_a_catalogue_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.sh3f").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"a\.sh3f: a furniture catalogue .* is required, got a broken one"):
        load(tmp_path)


def test_a_catalogue_of_which_nothing_may_be_used(tmp_path: Path) -> None:
    write_catalogue(tmp_path / "a.sh3f", licence="All rights reserved")
    with pytest.raises(DataError, match="no model in it may be used: its licence is not CC0 or CC BY"):
        load(tmp_path)
