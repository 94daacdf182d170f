import subprocess
import sys

import numpy as np
import pytest

from recsys.neighbours import DAY, Neighbours
from recsys.sessions import Histories, Sessions


def timelines(*rows: tuple[str, int, list[int]], kind: int = 1) -> Sessions:
    """Sessions from (owner, day, items); events of one row are a second apart."""
    length = [len(items) for _, _, items in rows]
    return Sessions(
        owners=[owner for owner, _, _ in rows],
        start=np.concatenate([[0], np.cumsum(length)]),
        item=np.array([item for _, _, items in rows for item in items], np.int32),
        kind=np.full(sum(length), kind, np.int8),
        time=np.array([int(day * DAY) + 1000 * place for _, day, items in rows for place in range(len(items))], np.int64),
        session=np.repeat(np.arange(len(rows)), length),
        place=np.arange(sum(length)),
    )


def histories(*items: list[int]) -> Histories:
    flat = np.array([item for one in items for item in one], np.int32)
    return Histories(
        np.concatenate([[0], np.cumsum([len(one) for one in items])]), flat, np.ones(len(flat), np.int8), np.zeros(len(flat), np.int64)
    )


def slow(memory: Neighbours, rows: list[tuple[str, int, list[int]]], history: list[int], now: float, n_items: int) -> np.ndarray:
    """The same, one timeline after the other, as one would say it."""
    scores = np.zeros(n_items)
    for _, day, items in rows:
        query = history[::-1][: memory.newest]
        hits = [back for back, item in enumerate(query) for other in items if other == item]
        if not hits:
            continue
        ended = day * DAY + 1000 * (len(items) - 1)
        similarity = sum(np.exp(-back / memory.fading) for back in hits)
        weight = similarity * np.exp(-max(0, now - ended) / DAY / memory.days) / len(items) ** memory.normalise
        match = items.index(query[min(hits)])
        for place, item in enumerate(items):
            step = place - match
            share = np.exp((1 - abs(step)) / memory.distance) * (1 if step > 0 else memory.before)
            scores[item] += 0 if abs(step) > memory.reach else weight * (memory.itself if step == 0 else share)
    return scores


def test_votes_by_hand():
    memory = Neighbours(fading=1, days=1e9, distance=1, before=0.5, itself=3, normalise=0)
    memory.add(timelines(("a", 0, [1, 2, 3]), ("b", 0, [4, 2])))
    scores = memory.scores(histories([9, 2]), np.array([0]), 10)
    e = np.e
    assert scores[0] == pytest.approx([0, 0.5, 3 + 3, 1, 0.5, 0, 0, 0, 0, 0])
    scores = memory.scores(histories([4, 3]), np.array([0]), 10)  # timeline b matches one place further back: its votes count 1/e
    assert scores[0] == pytest.approx([0, 0.5 / e, 0.5 + 1 / e, 3, 3 / e, 0, 0, 0, 0, 0])


def test_scores_agree_with_a_slow_obvious_loop():
    rng = np.random.default_rng(3)
    rows = [(f"p{i}", int(rng.integers(0, 40)), rng.integers(1, 30, rng.integers(1, 9)).tolist()) for i in range(300)]
    asked = [rng.integers(1, 35, n).tolist() for n in rng.integers(0, 14, 150)]
    memory = Neighbours(reach=3)
    memory.add(timelines(*rows))
    fast = memory.scores(histories(*asked), np.full(150, 40 * DAY, np.int64), 40)
    expected = np.stack([slow(memory, rows, one, 40 * DAY, 40) for one in asked])
    assert fast == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert (expected > 0).sum() > 1000


def test_the_order_of_adding_does_not_matter_and_a_known_owner_gets_a_longer_timeline():
    whole, parts = Neighbours(), Neighbours()
    whole.add(timelines(("a", 0, [1, 2]), ("b", 1, [2, 3])))
    parts.add(timelines(("b", 1, [2, 3])))
    parts.add(timelines(("a", 0, [1, 2])))
    asked = histories([1], [2], [3])
    now = np.full(3, int(2 * DAY))
    assert (whole.scores(asked, now, 9) == parts.scores(asked, now, 9)).all()
    whole.add(timelines(("b", 2, [7])))
    assert len(whole) == 2
    assert whole.scores(histories([3]), now[:1], 9)[0, 7] > 0


def test_the_newer_of_two_timelines_counts_more():
    memory = Neighbours()
    memory.add(timelines(("old", 0, [1, 2]), ("new", 20, [1, 3])))
    scores = memory.scores(histories([1]), np.array([int(21 * DAY)]), 4)[0]
    assert scores[3] > scores[2] > 0


def test_only_the_nearest_timelines_vote():
    memory = Neighbours(nearest=1)
    memory.add(timelines(("a", 0, [1, 2]), ("b", 0, [1, 5, 3])))
    assert np.flatnonzero(memory.scores(histories([5, 1]), np.array([0]), 6)[0]).tolist() == [1, 3, 5]


def test_only_the_newest_occurrences_of_an_item_are_looked_at():
    memory = Neighbours(candidates=1)
    memory.add(timelines(("new", 9, [1, 3]), ("old", 0, [1, 2])))
    assert np.flatnonzero(memory.scores(histories([1]), np.array([0]), 4)[0]).tolist() == [1, 3]


def test_the_oldest_timelines_and_events_are_dropped():
    memory = Neighbours(capacity=2, length=2)
    memory.add(timelines(("a", 5, [1, 2, 3]), ("b", 1, [4, 5]), ("c", 3, [6, 7])))
    assert len(memory) == 2
    assert sorted(memory.item.tolist()) == [2, 3, 6, 7]
    memory.add(timelines(("d", 9, [8])))
    assert sorted(memory.item.tolist()) == [2, 3, 8]


def test_dislikes_and_unknown_items_are_not_remembered_and_strange_items_ask_nothing():
    memory = Neighbours()
    memory.add(timelines(("a", 0, [1, 2]), kind=6))
    memory.add(timelines(("a", 0, [0, 0])))
    assert len(memory) == 0
    assert not memory.scores(histories([1], []), np.zeros(2, np.int64), 5).any()
    memory.add(timelines(("a", 0, [1, 2])))
    assert not memory.scores(histories([400], []), np.zeros(2, np.int64), 5).any()


def test_a_query_is_answered_alone_as_in_company():
    rng = np.random.default_rng(4)
    memory = Neighbours()
    memory.add(timelines(*((f"p{i}", i % 9, rng.integers(1, 20, 5).tolist()) for i in range(200))))
    asked = [rng.integers(1, 20, 4).tolist() for _ in range(130)]
    now = np.full(130, int(9 * DAY))
    together = memory.scores(histories(*asked), now, 20)
    assert all((memory.scores(histories(one), now[:1], 20)[0] == row).all() for one, row in zip(asked, together, strict=True))


def test_serving_can_use_it_without_torch():
    code = "import sys, recsys.neighbours; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
