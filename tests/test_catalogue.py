"""The catalogue only ever grows; of each column the last word about an item wins."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recsys.catalogue import Catalogue, merge
from recsys.content import features


def rows(*items: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(items))


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    return Catalogue(tmp_path / "items")


HEAT = {"item_id": "a", "title": "Heat (1995)", "genres": ["Crime"]}
ALIEN = {"item_id": "b", "title": "Alien", "genres": None}


def test_an_empty_catalogue_has_the_three_columns_and_makes_no_folder(catalogue: Catalogue) -> None:
    assert catalogue.read().column_names == ["item_id", "title", "genres"]
    assert catalogue.items() == {}
    assert not catalogue.folder.exists()


def test_what_was_added_is_read_back_in_its_order(catalogue: Catalogue) -> None:
    assert catalogue.add(rows(ALIEN, HEAT)) == 2
    assert catalogue.read().to_pylist() == [ALIEN, HEAT]
    assert catalogue.items()["a"] == HEAT


def test_adding_the_same_again_adds_nothing(catalogue: Catalogue) -> None:
    catalogue.add(rows(HEAT, ALIEN))
    assert catalogue.add(rows(HEAT, ALIEN)) == 0
    assert catalogue.add(rows({"item_id": "a"})) == 0
    assert len(catalogue.segments()) == 1


def test_the_last_word_about_an_item_wins_and_old_segments_stay_as_they_were(catalogue: Catalogue) -> None:
    catalogue.add(rows(HEAT, ALIEN))
    (old,) = catalogue.segments()
    before = old.read_bytes()
    assert catalogue.add(rows({"item_id": "b", "title": "Aliens", "genres": ["Horror", "Sci-Fi"]}, HEAT)) == 1
    assert catalogue.items()["b"] == {"item_id": "b", "title": "Aliens", "genres": ["Horror", "Sci-Fi"]}
    assert old.read_bytes() == before
    assert len(catalogue.segments()) == 2


def test_an_empty_cell_says_nothing(catalogue: Catalogue) -> None:
    catalogue.add(rows(HEAT))
    catalogue.add(rows({"item_id": "a", "minutes": 170}))
    assert catalogue.items()["a"] == {**HEAT, "minutes": 170}


def test_one_changed_genre_is_a_change(catalogue: Catalogue) -> None:
    catalogue.add(rows(HEAT))
    assert catalogue.add(rows({**HEAT, "genres": ["Crime", "Drama"]})) == 1


def test_sources_that_disagree_about_a_type_meet_in_the_wider_one(catalogue: Catalogue) -> None:
    catalogue.add(rows({"item_id": "a", "year": 1995, "code": 7}))
    catalogue.add(rows({"item_id": "b", "year": 1995.5, "code": "x7"}))
    assert [row["year"] for row in catalogue.read().to_pylist()] == [1995.0, 1995.5]
    assert [row["code"] for row in catalogue.read().to_pylist()] == ["7", "x7"]


def test_merging_keeps_one_row_per_item() -> None:
    merged = merge([rows({"item_id": "a", "n": 1}, {"item_id": "b", "n": 2}, {"item_id": "a", "n": 3}), rows({"item_id": "b", "n": None})])
    assert merged.to_pylist() == [{"item_id": "a", "n": 3}, {"item_id": "b", "n": 2}]


def test_a_row_of_the_catalogue_becomes_content_features(catalogue: Catalogue) -> None:
    catalogue.add(rows({**HEAT, "year": 1995}, ALIEN))
    items = catalogue.items()
    assert len(features(items["a"], 1 << 30)) == 4  # heat, 1995, crime, year
    assert len(features(items["b"], 1 << 30)) == 1


def test_a_text_a_list_and_an_empty_list_in_one_column_leave_the_rest_readable(tmp_path):
    catalogue = Catalogue(tmp_path)
    for n, cast in enumerate((["Pacino", "De Niro"], "Streep", [], 7)):
        catalogue.put(pa.Table.from_pylist([{"item_id": f"i{n}", "title": f"t{n}", "cast": cast}]))
    assert [(row["item_id"], row["title"], row["cast"]) for row in catalogue.read().to_pylist()] == [
        ("i0", "t0", "Pacino|De Niro"),
        ("i1", "t1", "Streep"),
        ("i2", "t2", ""),
        ("i3", "t3", "7"),
    ]
