from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain

import numpy as np
import pyarrow as pa
import pytest

from recsys.batches import WISHES, Batches, Examples, ItemCounts, batch, examples
from recsys.events import SCHEMA
from recsys.sessions import sessionise
from recsys.vocab import Vocabulary

DAY = 86_400_000


def table(rows):
    """Rows of (user, item, seconds, event_type)."""
    user, item, seconds, kind = zip(*rows, strict=True)
    n = len(rows)
    said = {"event_id": [str(i) for i in range(n)], "user_id": user, "item_id": item, "event_type": kind}
    said["timestamp"] = [datetime.fromtimestamp(s, UTC) for s in seconds]
    return pa.table({field.name: pa.array(said.get(field.name, [None] * n), field.type) for field in SCHEMA}, schema=SCHEMA)


@pytest.fixture
def sessions():
    rows = [("ann", item, second, "play") for second, item in enumerate("abcdef")]
    return sessionise(table([*rows, ("bob", "a", 9, "play"), ("bob", "b", 10, "dislike"), ("bob", "c", 11, "like")]), Vocabulary("abcdef"))


def test_stretches_are_cut_from_the_newest_event_back(sessions):
    found = examples(sessions, np.ones(len(sessions), bool), limit=3)
    assert [found.take(np.array([i])).item.tolist() for i in range(len(found))] == [[3, 4, 5, 6], [1, 2, 3], [1, 2, 3]]


def test_every_positive_event_but_a_first_one_is_a_target_once(sessions):
    found = examples(sessions, np.ones(len(sessions), bool), limit=3)
    assert sorted(found.targets.tolist()) == [2, 3, 3, 4, 5, 6]  # bob's dislike of b is none


def test_only_what_is_to_be_learned_is_a_target_the_rest_is_context(sessions):
    learn = np.zeros(len(sessions), bool)
    learn[5] = True  # ann's last
    found = examples(sessions, learn, limit=3)
    assert (found.item.tolist(), found.weight.tolist()) == ([3, 4, 5, 6], [0, 0, 0, 1])


def test_a_batch_predicts_each_next_event_and_pads_on_the_right(sessions):
    made = batch(examples(sessions, np.ones(len(sessions), bool), limit=5).take(np.array([1, 0])))
    assert made.item.tolist() == [[1, 2, 0, 0, 0], [1, 2, 3, 4, 5]]
    assert made.target.tolist() == [[2, 3, 0, 0, 0], [2, 3, 4, 5, 6]]
    assert made.weight.tolist() == [[0, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert made.next_kind[:, :-1].tolist() == made.kind[:, 1:].tolist()
    assert made.next_gap[1, :-1].tolist() == made.gap[1, 1:].tolist()
    assert made.next_gap[1, -1] > 0  # the silence before the last target is not in `gap`


def stretch(*items):
    """One example in which every event but the first is to be learned."""
    n = len(items)
    zeros, weight = np.zeros(n, np.int8), np.array([0, *[1] * (n - 1)], np.float32)
    return without_wishes(np.array([0, n]), np.array(items, np.int32), zeros, zeros, weight, np.zeros(n, np.int16))


def without_wishes(start, item, *rest):
    """Examples for which no neighbour had a word."""
    return Examples(
        start, np.zeros(len(start) - 1, np.uint64), item, *rest, np.zeros((len(item), WISHES), np.int32), np.zeros(len(item), np.int32)
    )


def wishing(*wish, item=(9, 9, 9)):
    """One example with wishes: for each event WISHES rows, or one that stands for all."""
    rows = [row if isinstance(row, list) else [row] * WISHES for row in wish]
    return replace(stretch(*item), wish=np.array(rows, np.int32))


def test_without_wishes_every_event_is_foretold_as_it_was_and_with_nothing_else_only_wishes_are():
    some, rng = wishing(1, 0, [3, 4, 3, 4, 4]), np.random.default_rng(0)
    for _ in range(50):
        assert some.drawn(0.0, rng).tolist() == [9, 9, 9]
        first, second, third = some.drawn(1.0, rng).tolist()
        assert (first, second) == (1, 9)  # nobody wished for anything at the second
        assert third in (3, 4)


def test_each_of_the_wishes_is_drawn_as_often_as_the_others():
    n = 20_000
    some = wishing(*[[5, 6, 6, 7, 8]] * n, item=[9] * n)
    count = np.bincount(some.drawn(0.4, np.random.default_rng(1)), minlength=10) / n
    assert count[5:].tolist() == pytest.approx([0.08, 0.16, 0.08, 0.08, 0.6], abs=0.01)
    assert count[:5].sum() == 0


def test_what_is_foretold_can_be_another_item_and_what_was_seen_stays():
    some = stretch(1, 2, 3).join(stretch(4, 5))
    made, plain = batch(some, np.array([11, 12, 13, 14, 15])), batch(some)
    assert made.target.tolist() == [[12, 13], [15, 0]]
    assert (
        (made.item.tolist(), made.weight.tolist()) == (plain.item.tolist(), plain.weight.tolist()) == ([[1, 2], [4, 0]], [[1, 1], [1, 0]])
    )


def test_a_pass_draws_its_wishes_anew_by_the_share_it_was_given():
    some = wishing(5, 5, 5, item=(1, 2, 3))
    assert [made.target.tolist() for made in Batches(some, 1, seed=0)] == [[[2, 3]]]
    assert [made.target.tolist() for made in Batches(some, 1, seed=0, wishes=1.0)] == [[[5, 5]]]
    half = Batches(some, 1, seed=0, wishes=0.5)
    assert len({str(made.target.tolist()) for _ in range(20) for made in half}) > 1
    first, second = (Batches(some, 1, 4, 0.5) for _ in range(2))
    assert [m.target.tolist() for _ in range(9) for m in first] == [m.target.tolist() for _ in range(9) for m in second]


def test_what_is_taken_joined_or_remembered_keeps_its_wishes():
    one, two = wishing(1, 2, 3), wishing(4, 5, item=(8, 8))
    both = one.join(two).remembered()
    assert both.wish[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert both.take(np.array([1, 0])).wish[:, 0].tolist() == [4, 5, 1, 2, 3]
    assert both.take(np.array([1])).drawn(1.0, np.random.default_rng(0)).tolist() == [4, 5]


def test_wishes_stand_by_the_events_they_are_for(sessions):
    wish = np.zeros((len(sessions), WISHES), np.int32)
    wish[:, 0] = 100 + np.arange(len(sessions))
    unknown = replace(sessions, item=np.where(np.arange(len(sessions)) == 2, 0, sessions.item))  # which takes no place in an example
    found = examples(unknown, np.ones(len(sessions), bool), 3, wish=wish)
    item = dict(enumerate(unknown.item.tolist()))
    assert [item[place - 100] for place in found.wish[:, 0].tolist()] == found.item.tolist()
    assert 102 not in found.wish


def test_joined_batches_keep_their_rows():
    one, two = stretch(1, 2), stretch(3, 4, 5)
    assert batch(one).join(batch(two)).target.tolist() == batch(one.join(two)).target.tolist() == [[2, 0], [4, 5]]


def test_pieces_hold_all_there_is_to_learn_and_no_more_padding_than_they_must():
    whole = batch(stretch(1, 2).join(stretch(3, 4, 5, 6, 7)).join(stretch(8, 9)).join(stretch(1, 3, 5)))
    pieces = whole.pieces(2)
    assert [piece.target.tolist() for piece in pieces] == [[[2], [9]], [[3, 5, 0, 0], [4, 5, 6, 7]]]
    assert [piece.item.tolist() for piece in pieces] == [[[1], [8]], [[1, 3, 0, 0], [3, 4, 5, 6]]]


def test_a_pass_meets_every_example_once_in_an_order_of_its_own(sessions):
    found = examples(sessions, np.ones(len(sessions), bool), limit=1)
    passes = Batches(found, size=2, seed=3)
    first, second = ([sorted(made.target.flatten().tolist()) for made in passes] for _ in range(2))
    assert sorted(chain(*first)) == sorted(chain(*second)) == sorted(found.targets.tolist())
    assert first != second
    assert [sorted(made.target.flatten().tolist()) for made in Batches(found, size=2, seed=3)] == first


def test_counts_halve_with_every_half_life():
    counts = ItemCounts.none(half_life_days=1).grow(3).add(np.array([1, 1, 2]), np.array([0, DAY, DAY]))
    assert counts.count.tolist() == [0, 1.5, 1]
    assert counts.add(np.array([2]), np.array([3 * DAY])).count.tolist() == [0, 1.5 / 4, 1 / 4 + 1]


def test_counts_do_not_depend_on_how_the_events_came_in_pieces():
    rng = np.random.default_rng(0)
    item, time = rng.integers(1, 9, 100), np.sort(rng.integers(1, 40 * DAY, 100))
    whole = ItemCounts.none(7).grow(9).add(item, time)
    pieces = ItemCounts.none(7).grow(9).add(item[:30], time[:30]).add(item[30:], time[30:])
    np.testing.assert_allclose(pieces.count, whole.count)
    assert pieces.first.tolist() == whole.first.tolist()
    assert pieces.last.tolist() == whole.last.tolist()


def test_streaming_counts_end_where_adding_does_and_no_event_sees_itself():
    item, time = np.array([1, 2, 1, 2]), np.array([0, DAY, 2 * DAY, 3 * DAY])
    none = ItemCounts.none(half_life_days=1).grow(3)
    counts, moment, shares = none.stream(item, time, pieces=2)
    np.testing.assert_allclose(counts.count, none.add(item, time).count)
    assert moment.tolist() == [0, 0, 1, 1]
    assert shares[0].tolist() == none.log_share().tolist()
    np.testing.assert_allclose(shares[1], none.add(item[:2], time[:2]).log_share())
    np.testing.assert_allclose(np.exp(shares).sum(1), 1, rtol=1e-6)


def test_shares_are_of_what_is_watched_now():
    counts = ItemCounts.none(half_life_days=1).grow(4).add(np.array([1, 1, 2]), np.array([0, DAY, DAY]))
    assert counts.share().tolist() == pytest.approx([0, 0.6, 0.4, 0])
    assert ItemCounts.none(1).grow(3).share().tolist() == [0, 0, 0]
