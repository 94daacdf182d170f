"""A row number, once given, never changes; row 0 is for whatever is not known."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from recsys.vocab import Vocabulary, in_order_of_appearance

ids = st.lists(st.text(min_size=1, max_size=4))


def test_rows_go_by_first_appearance_and_start_at_one() -> None:
    vocab = Vocabulary(["b", "a", "b"])
    assert [vocab.row(id) for id in ("b", "a", "c")] == [1, 2, 0]
    assert len(vocab) == 3
    assert "a" in vocab
    assert "c" not in vocab


def test_an_item_that_is_called_like_the_unknown_row_gets_a_row_of_its_own() -> None:
    vocab = Vocabulary(["<unknown>", "a"])
    assert (vocab.row("<unknown>"), vocab.row("a"), len(vocab)) == (1, 2, 3)


@given(ids, ids)
def test_growing_moves_no_row(old: list[str], new: list[str]) -> None:
    before = Vocabulary(old)
    after = before.grow(new)
    assert after.ids[: len(before)] == before.ids
    assert all(after.row(id) == before.row(id) for id in before.ids)
    assert set(after.ids) - {"<unknown>"} == {*old, *new} - {"<unknown>"}
    assert len(set(after.ids)) == len(after.ids)


@given(ids)
def test_growing_by_what_is_known_changes_nothing(known: list[str]) -> None:
    assert Vocabulary(known).grow(known).ids == Vocabulary(known).ids


def test_a_column_is_encoded_as_its_ids_are_one_by_one() -> None:
    vocab = Vocabulary(["a", "b"])
    column = pa.chunked_array([["b", "x"], [], ["a", "b"]], pa.string())
    assert vocab.encode(column).tolist() == vocab.rows(column.to_pylist()).tolist() == [2, 0, 1, 2]
    assert vocab.encode(pa.chunked_array([], pa.string())).tolist() == []


def test_order_of_appearance_names_each_id_once() -> None:
    assert in_order_of_appearance(pa.chunked_array([["b", "a"], ["b", "c"]])) == ["b", "a", "c"]
