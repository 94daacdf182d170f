"""One rule cuts events into sessions and histories, in worlds small enough to check by hand."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys.events import CODE, SCHEMA
from recsys.sessions import GAP_EDGES, N_GAPS, Sessions, backwards, gap_buckets, histories, ranges, repeats, sessionise
from recsys.vocab import Vocabulary

MINUTE = 60_000
VOCAB = Vocabulary("abcdefgh")


def table(*rows: tuple) -> pa.Table:
    """Events given as (user, session, item, minute, type); the last may be left out."""
    full = [(*row, "watch")[:5] for row in rows]
    columns = {
        "event_id": pa.array([f"{n:03}" for n in range(len(full))]),
        "user_id": pa.array([row[0] for row in full], pa.string()),
        "item_id": pa.array([row[2] for row in full], pa.string()),
        "timestamp": pa.array([int(row[3] * MINUTE) for row in full], pa.int64()).cast(SCHEMA.field("timestamp").type),
        "event_type": pa.array([row[4] for row in full], pa.string()),
        "value": pa.nulls(len(full), pa.float32()),
        "session_id": pa.array([row[1] for row in full], pa.string()),
        "request_id": pa.nulls(len(full), pa.string()),
        "surface": pa.nulls(len(full), pa.string()),
    }
    return pa.table(columns).cast(SCHEMA)


def told(sessions: Sessions) -> list[str]:
    """Each session as the letters of its items."""
    return ["".join(VOCAB.ids[row] for row in sessions.item[sessions.session == n]) for n in np.unique(sessions.session)]


def test_half_an_hour_of_silence_ends_a_session_and_not_a_moment_less() -> None:
    sessions = sessionise(table(("u", None, "a", 0), ("u", None, "b", 30), ("u", None, "c", 60.001)), VOCAB)
    assert told(sessions) == ["ab", "c"]
    assert told(sessionise(table(("u", None, "a", 0), ("u", None, "b", 2)), VOCAB, gap=60)) == ["a", "b"]


def test_the_session_ids_of_the_log_win_over_silence() -> None:
    rows = [("u", "s", "a", 0), ("u", "s", "b", 500), ("u", "t", "c", 501)]
    assert told(sessionise(table(*rows), VOCAB)) == ["ab", "c"]


def test_silence_decides_where_one_of_two_events_has_no_session_id() -> None:
    rows = [("u", "s", "a", 0), ("u", None, "b", 10), ("u", "s", "c", 20), ("u", None, "d", 90)]
    assert told(sessionise(table(*rows), VOCAB)) == ["abc", "d"]


def test_a_timeline_is_in_time_order_and_never_mixes_people() -> None:
    rows = [("u", None, "c", 9), ("v", None, "d", 1), ("u", None, "a", 1), ("u", None, "b", 5), ("v", None, "e", 2)]
    sessions = sessionise(table(*rows), VOCAB)
    assert told(sessions) == ["abc", "de"]
    assert sessions.owners == ["u", "v"]
    assert sessions.start.tolist() == [0, 3, 5]
    assert sessions.owner.tolist() == [0, 0, 0, 1, 1]
    assert sessions.place.tolist() == [2, 3, 0, 1, 4]


def test_events_of_one_moment_stand_by_event_id_as_in_a_profile_whatever_order_they_came_in() -> None:
    came = table(("ann", None, "a", 5), ("ann", None, "b", 5), ("ann", None, "c", 1), ("bob", None, "d", 5))
    came = came.set_column(0, came.schema.field("event_id"), pa.array(["z", "y", "x", "a"]))
    assert told(sessionise(came, VOCAB))[:3] == told(sessionise(came.take([1, 2, 0, 3]), VOCAB))[:3]
    assert sessionise(came, VOCAB).item[:3].tolist() == VOCAB.rows(["c", "b", "a"]).tolist()


def test_who_is_not_signed_in_is_their_session() -> None:
    sessions = sessionise(table((None, "1", "a", 0), (None, "2", "b", 1), (None, "1", "c", 2), ("1", None, "d", 3)), VOCAB)
    assert told(sessions) == ["ac", "b", "d"]
    assert sessions.owners == ["session:1", "session:2", "1"]


UNDONE = [
    ("u", None, "a", 0),
    ("u", None, "a", 1, "dislike"),
    ("u", None, "b", 2),
    ("v", None, "a", 2, "undo"),  # somebody else, who has nothing to take back
    ("u", None, "a", 3, "undo"),  # the dislike; the word before it counts again
    ("u", None, "b", 3),
    ("u", None, "c", 4, "undo"),  # of nothing
    ("u", None, "c", 5),
    ("u", None, "b", 5, "undo"),  # the newer of the two
    ("u", None, "b", 6, "undo"),  # and the older
    ("u", None, "b", 6, "like"),  # of the same moment: an undo stands behind it and takes it back
]


@pytest.mark.parametrize("seed", range(5))
def test_an_undo_takes_the_last_word_back_whatever_order_the_log_has(seed: int) -> None:
    rows = [UNDONE[n] for n in np.random.default_rng(seed).permutation(len(UNDONE))]
    sessions = sessionise(table(*rows), VOCAB)
    assert "".join(told(sessions)) == "abc"  # the like is gone, so the second undo of b took nothing else: one play of it stands
    assert [rows[place] for place in sessions.place] == [UNDONE[0], UNDONE[2], UNDONE[7]]
    assert len(sessionise(table(*rows), VOCAB, undo=False)) == 6


def test_impressions_and_undos_are_left_out_and_dislikes_are_not_positive() -> None:
    rows = [("u", None, "a", 0, "impression"), ("u", None, "b", 1), ("u", None, "c", 2, "undo"), ("u", None, "d", 3, "dislike")]
    sessions = sessionise(table(*rows), VOCAB)
    assert told(sessions) == ["bd"]
    assert sessions.kind.tolist() == [CODE["watch"], CODE["dislike"]]
    assert sessions.positive.tolist() == [True, False]
    assert sessions.place.tolist() == [1, 3]


def test_nothing_makes_no_session() -> None:
    sessions = sessionise(SCHEMA.empty_table(), VOCAB)
    assert (len(sessions), sessions.owners, sessions.start.tolist()) == (0, [], [0])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from([None, "s", "t"]), st.sampled_from("abc"), st.integers(0, 300)), max_size=30)
)
@example([("u", None, "a", 0)] * 8 + [("u", None, "a", 31), ("u", "s", "a", 0), ("u", "s", "a", 31), ("u", None, "a", 0)])
def test_sessions_hold_every_event_once_and_agree_with_the_rule_said_slowly(rows: list[tuple]) -> None:
    sessions = sessionise(table(*rows), VOCAB)
    assert sorted(sessions.place) == list(range(len(rows)))
    slow, last, number = [], None, -1
    for owner in dict.fromkeys(row[0] for row in rows):
        for row in sorted((row for row in rows if row[0] == owner), key=lambda row: row[3]):
            told_both = last is not None and row[1] is not None and last[1] is not None
            same = last is not None and last[0] == row[0] and (row[1] == last[1] if told_both else row[3] - last[3] <= 30)
            number += not same
            slow.append(number)
            last = row
    assert sessions.session.tolist() == slow


def test_a_gap_bucket_tells_how_long_the_silence_was() -> None:
    assert gap_buckets(np.array([0, 0, 10_000, 10_000 + 59_000, 10_000 + 59_000 + 86_400_000])).tolist() == [0, 1, 3, 3, 8]
    assert gap_buckets(np.array([])).tolist() == []
    longest = gap_buckets(np.array([0, 400 * 86_400_000]))
    assert longest[1] == N_GAPS - 1 == len(GAP_EDGES) + 1


def test_a_history_is_what_its_owner_did_before_and_the_newest_of_it() -> None:
    rows = [("u", None, item, n) for n, item in enumerate("abcd")] + [("v", None, "e", 1), ("v", None, "f", 2)]
    sessions = sessionise(table(*rows), VOCAB)
    past = histories(sessions, np.array([0, 2, 3, 4, 5]), limit=2)
    item, kind, gap, length = past.padded()
    assert length.tolist() == [0, 2, 2, 0, 1]
    letters = ["".join(VOCAB.ids[row] for row in line[:n]) for line, n in zip(item, length, strict=True)]
    assert letters == ["", "ab", "bc", "", "e"]
    assert gap[:, 0].tolist() == [0, 0, 0, 0, 0]  # nothing was before the first event of a history
    assert gap[1, 1] == gap_buckets(np.array([0, MINUTE]))[1]
    assert kind[2].tolist() == [CODE["watch"]] * 2
    assert past[1:3].padded()[0].tolist() == item[1:3].tolist()


def test_unknown_items_take_no_place_in_a_history() -> None:
    sessions = sessionise(table(*(("u", None, item, n) for n, item in enumerate(["a", "?", "b", "?", "c"]))), VOCAB)
    item, _, gap, length = histories(sessions, np.array([4]), limit=2).padded()
    assert [VOCAB.ids[row] for row in item[0]] == ["a", "b"]
    assert length.tolist() == [2]
    assert gap[0, 1] == gap_buckets(np.array([0, 2 * MINUTE]))[1]


def test_no_history_pads_to_one_empty_column() -> None:
    item, kind, gap, length = histories(sessionise(table(("u", None, "a", 0)), VOCAB), np.array([0]), 5).padded()
    assert item.shape == kind.shape == gap.shape == (1, 1)
    assert length.tolist() == [0]


def test_ranges_counts_from_each_begin_to_its_end() -> None:
    assert ranges(np.array([5, 1, 9]), np.array([7, 1, 12])).tolist() == [5, 6, 9, 10, 11]
    assert ranges(np.array([], int), np.array([], int)).tolist() == []


def letters(sessions: Sessions) -> list[str]:
    """Each timeline as the letters of its items."""
    items = "".join(VOCAB.ids[row] for row in sessions.item)
    return [items[a:b] for a, b in pairwise(sessions.start.tolist())]


TWO_PEOPLE = table(("u", None, "a", 0), ("u", None, "b", 2, "dislike"), ("u", None, "c", 9), ("u", None, "d", 100), ("v", None, "e", 1))


def test_read_from_its_end_a_session_is_a_timeline_of_its_own_with_silences_as_long_as_they_were() -> None:
    forth = sessionise(TWO_PEOPLE, VOCAB)
    back, order = backwards(forth)
    assert letters(back) == ["cba", "d", "e"]
    assert back.owners == ["u", "u", "v"]
    assert (back.time // MINUTE).tolist() == [0, 7, 9, 100, 1]
    assert order.tolist() == [2, 1, 0, 3, 4]
    assert back.kind.tolist() == forth.kind[order].tolist()
    assert back.place.tolist() == [2, 1, 0, 3, 4]
    assert back.session.tolist() == [0, 0, 0, 1, 2]


def same(one: Sessions, other: Sessions) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("start", "item", "kind", "time", "session", "place"))


EVENTS = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from([None, "s", "t"]), st.sampled_from("abc?"), st.integers(0, 99)), max_size=30
)


@settings(max_examples=50, deadline=None)
@given(EVENTS)
def test_read_from_the_end_twice_every_session_is_as_it_was(rows: list[tuple]) -> None:
    forth = sessionise(table(*rows), VOCAB)
    back, order = backwards(forth)
    again, other = backwards(back)
    assert sorted(order.tolist()) == list(range(len(rows)))
    assert order[other].tolist() == list(range(len(rows)))
    assert again.item.tolist() == forth.item.tolist()
    assert again.time.tolist() == forth.time.tolist()
    assert same(backwards(again)[0], back)
    for a, b in pairwise(back.start.tolist()):
        assert (np.diff(back.time[a:b]) >= 0).all()
        assert np.diff(back.time[a:b]).tolist() == np.diff(forth.time[order[a:b]][::-1])[::-1].tolist()
    assert [back.owners[o] for o in back.owner] == [forth.owners[o] for o in forth.owner[order]]


def test_repeats_are_what_their_owner_met_before_whatever_was_said_of_it() -> None:
    rows = [("u", None, "a", 0), ("u", None, "b", 1, "dislike"), ("u", None, "a", 2), ("u", None, "b", 3), ("v", None, "a", 4)]
    assert repeats(sessionise(table(*rows), VOCAB)).tolist() == [False, False, True, True, False]
    assert repeats(sessionise(SCHEMA.empty_table(), VOCAB)).tolist() == []


@settings(max_examples=50, deadline=None)
@given(EVENTS)
def test_repeats_agree_with_the_rule_said_slowly(rows: list[tuple]) -> None:
    sessions = sessionise(table(*rows), VOCAB)
    pairs = list(zip(sessions.owner.tolist(), sessions.item.tolist(), strict=True))
    assert repeats(sessions).tolist() == [pair in pairs[:n] for n, pair in enumerate(pairs)]


def test_whose_an_event_is_has_the_same_number_in_every_log() -> None:
    one = sessionise(table(("u", None, "a", 0), ("v", None, "b", 1), ("u", None, "c", 2)), VOCAB)
    other = sessionise(table(("w", None, "a", 0), ("u", None, "b", 1)), VOCAB)
    u, also_u, v = one.whose.tolist()
    assert u == also_u != v
    assert dict(zip(other.owners, other.whose.tolist(), strict=True))["u"] == u
    assert len({u, v, *other.whose.tolist()}) == 3


def test_the_newest_of_each_history_and_whose_each_event_is() -> None:
    rows = [*[("u", None, item, n) for n, item in enumerate("abcd")], ("v", None, "e", 0), ("w", None, "f", 0), ("w", None, "g", 1)]
    sessions = sessionise(table(*rows), VOCAB)
    past = histories(sessions, np.array([3, 4, 6]), 10)
    newest = past.newest(2)
    assert [VOCAB.ids[row] for row in newest.item] == ["b", "c", "f"]
    assert newest.start.tolist() == [0, 2, 2, 3]
    some = past.where(np.array([False, True, False, False]))  # everybody stays, some with nothing
    assert ([VOCAB.ids[row] for row in some.item], some.start.tolist(), some.time.tolist()) == (["b"], [0, 1, 1, 1], [MINUTE])
    assert newest.time.tolist() == [MINUTE, 2 * MINUTE, 0]
    assert past.newest(10).item.tolist() == past.item.tolist()
    whose, item = past.pairs()
    assert (whose.tolist(), item.tolist()) == ([0, 0, 0, 2], past.item.tolist())
