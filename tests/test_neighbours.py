import json
import math
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import BadInput, ReleaseDamaged
from recsys.neighbours import ABOUT, ARRAYS, BLOCK, DAY, FOLDER, INDEX, Neighbours
from recsys.sessions import Histories, Sessions

LATER = 40 * DAY


def timelines(*rows: tuple[str, float, list[int]], kind: int = 1) -> Sessions:
    """Sessions from (owner, day, items); events of one row are a second apart."""
    length = [len(items) for _, _, items in rows]
    return Sessions(
        owners=[owner for owner, _, _ in rows],
        start=np.concatenate([[0], np.cumsum(length)]).astype(np.int64),
        item=np.array([item for _, _, items in rows for item in items], np.int32),
        kind=np.full(sum(length), kind, np.int8),
        time=np.array([int(day * DAY) + 1000 * place for _, day, items in rows for place in range(len(items))], np.int64),
        session=np.repeat(np.arange(len(rows)), length),
        place=np.arange(sum(length)),
    )


def single(events: list[tuple[str, int, int]]) -> Sessions:
    """Sessions from (owner, item, time in ms), in any order."""
    events = sorted(events, key=lambda event: (event[0], event[2]))
    owners = sorted({owner for owner, _, _ in events})
    start = np.concatenate([[0], np.cumsum([sum(owner == name for owner, _, _ in events) for name in owners])]).astype(np.int64)
    item, time = (np.array([event[column] for event in events], kind) for column, kind in ((1, np.int32), (2, np.int64)))
    return Sessions(owners, start, item, np.ones(len(item), np.int8), time, np.zeros(len(item), np.int64), np.arange(len(item)))


def histories(*items: list[int]) -> Histories:
    flat = np.array([item for one in items for item in one], np.int32)
    start = np.concatenate([[0], np.cumsum([len(one) for one in items])]).astype(np.int64)
    return Histories(start, flat, np.ones(len(flat), np.int8), np.zeros(len(flat), np.int64))


def random_rows(rng: np.random.Generator, count: int, items: int = 30) -> list[tuple[str, float, list[int]]]:
    return [(f"p{n}", float(rng.integers(0, 40)), rng.integers(1, items, rng.integers(1, 9)).tolist()) for n in range(count)]


def state(memory: Neighbours) -> dict[str, bytes]:
    return {name: (array := getattr(memory, name)).dtype.str.encode() + array.tobytes() for name in ARRAYS | INDEX}


def slow(memory: Neighbours, rows: list[tuple[str, float, list[int]]], history: list[int], now: float, n_items: int) -> list[float]:
    """The same, one timeline after the other, as one would say it; `candidates` is not looked at."""
    occurs = [item for _, _, items in rows for item in items]
    query = history[::-1][: memory.newest]
    voters = []
    for _, day, items in rows:
        similarity = 0.0
        for back, item in enumerate(query):
            rarity = math.log(1 + len(rows) / max(1, occurs.count(item))) ** memory.rarity
            similarity += items.count(item) * math.exp(-back / memory.fading) * rarity
        if similarity == 0:
            continue
        time = [day * DAY + 1000 * place for place in range(len(items))]
        recency = [1 / (1 + abs(now - moment) / DAY / memory.days) for moment in time]
        weight = similarity / len(items) ** memory.normalise
        match = items.index(next(item for item in query if item in items))
        voters.append((weight * recency[-1], weight, match, items, recency))
    scores = [0.0] * n_items
    for _, weight, match, items, recency in sorted(voters, key=lambda voter: -voter[0])[: memory.nearest]:
        for place, item in enumerate(items):
            if (step := place - match) == 0:
                scores[item] += weight * recency[place] * memory.itself
            elif abs(step) <= memory.reach:
                share = math.exp((1 - abs(step)) / memory.distance) * (1 if step > 0 else memory.before)
                scores[item] += weight * recency[place] * share
    return scores


def test_votes_by_hand():
    memory = Neighbours(fading=1, days=1e12, distance=1, before=0.5, itself=3, normalise=0, rarity=0)
    memory.add(timelines(("a", 0, [1, 2, 3]), ("b", 0, [4, 2])))
    scores = memory.scores(histories([9, 2]), np.array([0]), 10)
    e = np.e
    assert scores[0] == pytest.approx([0, 0.5, 3 + 3, 1, 0.5, 0, 0, 0, 0, 0])
    scores = memory.scores(histories([4, 3]), np.array([0]), 10)  # timeline b matches one place further back: its votes count 1/e
    assert scores[0] == pytest.approx([0, 0.5 / e, 0.5 + 1 / e, 3, 3 / e, 0, 0, 0, 0, 0])


def test_rarity_age_and_length_by_hand():
    memory = Neighbours(fading=1e12, days=2, distance=1, before=0.5, itself=3, normalise=0.5, rarity=2)
    memory.add(timelines(("a", 0, [1, 2]), ("b", 6, [1, 3, 4, 5])))
    scores = memory.scores(histories([1]), np.array([int(6 * DAY) + 3000]), 6)[0]
    common, age = math.log(1 + 2 / 2) ** 2, 1 / (1 + 6 / 2)  # both timelines hold item 1; the older is six days old
    assert scores == pytest.approx(
        [0, 3 * common * (age / 2**0.5 + 1 / 2), age * common / 2**0.5, common / 2, common / 2 / np.e, common / 2 / np.e**2], rel=1e-4
    )
    scores = memory.scores(histories([2]), np.array([int(6 * DAY) + 3000]), 6)[0]
    assert scores[1:3] == pytest.approx(math.log(1 + 2 / 1) ** 2 * age / 2**0.5 * np.array([0.5, 3]), rel=1e-4)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("narrow", [{}, {"nearest": 7}, {"reach": 2, "newest": 3}, {"length": 8, "newest": 1}])
def test_scores_agree_with_a_slow_obvious_loop(seed, narrow):
    rng = np.random.default_rng(seed)
    rows = [(name, day + rng.random(), items) for name, day, items in random_rows(rng, 150)]
    asked = [rng.integers(1, 35, n).tolist() for n in rng.integers(0, 14, 2 * BLOCK + 5)]
    soonest = 42 if "nearest" in narrow else 20  # before a timeline's end it is as recent as any: equals, which rounding would part
    now = rng.integers(int(soonest * DAY), int(50 * DAY), len(asked))
    memory = Neighbours(**narrow)
    memory.add(timelines(*rows))
    fast = memory.scores(histories(*asked), now, 40)
    expected = np.array([slow(memory, rows, one, moment, 40) for one, moment in zip(asked, now, strict=True)])
    assert fast == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert (expected > 0).sum() > 500


def test_votes_are_sorted_and_each_pair_stands_once():
    rng = np.random.default_rng(5)
    memory = Neighbours()
    memory.add(timelines(*random_rows(rng, 200)))
    asked = histories(*([] if n % 7 == 0 else rng.integers(1, 35, 4).tolist() for n in range(3 * BLOCK)))
    now = np.full(len(asked), int(LATER))
    query, item, vote = memory.votes(asked, now)
    pair = query * 1000 + item
    assert (np.diff(pair) > 0).all()
    assert vote.dtype == np.float32
    assert (vote > 0).all()
    dense = memory.scores(asked, now, 40)
    assert dense.dtype == np.float32
    assert np.argwhere(dense).tolist() == np.column_stack([query, item]).tolist()
    assert (dense[query, item] == vote).all()


OWNERS, ITEMS, TIMES = st.sampled_from("abcde"), st.integers(1, 6), st.integers(0, 12)
EVENTS = st.lists(st.tuples(OWNERS, ITEMS, TIMES), max_size=40)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(parts=st.lists(EVENTS, max_size=5), capacity=st.integers(1, 30), length=st.integers(1, 6))
def test_what_is_remembered_depends_only_on_which_events_were_added(parts, capacity, length):
    made = {"capacity": capacity, "length": length}
    whole, windows, backwards = (Neighbours(**made) for _ in range(3))
    whole.add(single([event for part in parts for event in part]))
    for part in parts:
        windows.add(single(part))
    for part in [*parts, *parts][::-1]:
        backwards.add(single(part))
    assert state(whole) == state(windows) == state(backwards)

    distinct = {event for part in parts for event in part}  # and this is what should be left
    kept = [event for name in "abcde" for event in sorted((e for e in distinct if e[0] == name), key=lambda e: (e[2], e[1]))[-length:]]
    left = sorted(time for _, _, time in kept)[-capacity:]
    assert sorted(whole.time.tolist()) == left
    assert len(whole.item) == len(left)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(parts=st.lists(EVENTS, min_size=1, max_size=5))
def test_the_timelines_hold_each_owners_events_in_order_and_the_oldest_come_first(parts):
    memory = Neighbours()
    for part in parts:
        memory.add(single(part))
    expected = {}
    for owner, item, time in sorted({event for part in parts for event in part}, key=lambda event: (event[2], event[1])):
        expected.setdefault(owner, []).append((item, time))
    found = [
        list(zip(memory.item[low:high].tolist(), memory.time[low:high].tolist(), strict=True))
        for low, high in zip(memory.start[:-1], memory.start[1:], strict=True)
    ]
    assert sorted(found) == sorted(expected.values())
    assert [line[-1][1] for line in found] == sorted(line[-1][1] for line in found) == memory.ended.tolist()


def test_adding_window_by_window_is_adding_at_once_bit_for_bit_on_a_larger_world():
    rng = np.random.default_rng(6)
    events = [(f"p{rng.integers(0, 300)}", int(rng.integers(1, 80)), int(day * DAY / 100)) for day in range(4000)]
    for capacity in (10**6, 1500):
        whole, windows = Neighbours(capacity=capacity), Neighbours(capacity=capacity)
        whole.add(single(events))
        for first in range(0, len(events), 300):
            windows.add(single(events[max(0, first - 50) : first + 300]))  # and each window begins with the end of the last
        assert state(whole) == state(windows)
        assert len(whole.item) == min(capacity, 4000)


def test_of_one_moment_the_same_events_are_dropped_whatever_their_owners_do_later():
    first, second = [("a", 1, 5), ("b", 2, 5), ("c", 3, 5)], [("a", 4, 6), ("b", 5, 6), ("c", 6, 6)]
    for later in second:
        whole, windows = Neighbours(capacity=2), Neighbours(capacity=2)
        whole.add(single([*first, later]))
        windows.add(single(first))
        windows.add(single([later]))
        assert state(whole) == state(windows)
        assert len(whole.item) == 2


def test_the_same_event_added_again_does_not_count_twice():
    memory = Neighbours()
    memory.add(timelines(("a", 0, [1, 2]), ("b", 1, [2, 3, 2])))
    before = state(memory)
    memory.add(timelines(("b", 1, [2, 3, 2]), ("a", 0, [1])))
    assert state(memory) == before
    memory.add(timelines(("a", 0.5, [1])))  # the same item at another time is another event
    assert len(memory.item) == 6


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


def test_in_one_timeline_the_newer_event_counts_more():
    memory = Neighbours(before=1, distance=1e9)
    memory.add(timelines(("a", 0, [2])))
    memory.add(timelines(("a", 20, [1])))
    memory.add(timelines(("a", 21, [3])))
    scores = memory.scores(histories([1]), np.array([int(21 * DAY)]), 4)[0]
    assert scores[3] > scores[2] > 0


def test_only_the_nearest_timelines_vote():
    memory = Neighbours(nearest=1)
    memory.add(timelines(("a", 0, [1, 2]), ("b", 0, [1, 5, 3])))
    assert np.flatnonzero(memory.scores(histories([5, 1]), np.array([0]), 6)[0]).tolist() == [1, 3, 5]


def test_of_equally_near_timelines_those_that_ended_last_vote():
    memory = Neighbours(nearest=2, days=1e18)  # so that none is worth less for its age
    memory.add(timelines(("a", 3, [1, 2]), ("b", 1, [1, 3]), ("c", 2, [1, 4])))
    now = np.array([0])
    assert np.flatnonzero(memory.scores(histories([1]), now, 6)[0]).tolist() == [1, 2, 4]


def test_only_the_newest_occurrences_of_an_item_are_looked_at():
    memory = Neighbours(candidates=1)
    memory.add(timelines(("new", 9, [1, 3]), ("old", 0, [1, 2])))
    assert np.flatnonzero(memory.scores(histories([1]), np.array([0]), 4)[0]).tolist() == [1, 3]


def test_the_oldest_events_are_dropped():
    memory = Neighbours(capacity=4, length=2)
    memory.add(timelines(("a", 5, [1, 2, 3]), ("b", 1, [4, 5]), ("c", 3, [6, 7])))
    assert len(memory) == 2
    assert memory.item.tolist() == [6, 7, 2, 3]
    memory.add(timelines(("d", 9, [8])))
    assert memory.item.tolist() == [7, 2, 3, 8]


def test_who_is_remembered_is_one_neighbour_among_others():
    memory = Neighbours()
    memory.add(timelines(("me", 0, [1, 2]), ("you", 0, [2, 3]), ("she", 0, [1, 3])))
    scores = memory.scores(histories([1, 2]), np.array([int(DAY)]), 5)[0]
    assert scores[3] > 0
    alone = Neighbours()
    alone.add(timelines(("me", 0, [1, 2])))
    assert np.flatnonzero(alone.scores(histories([1, 2]), np.array([int(DAY)]), 5)[0]).tolist() == [1, 2]


def test_dislikes_and_unknown_items_are_not_remembered_and_strange_items_ask_nothing():
    memory = Neighbours()
    memory.add(timelines(("a", 0, [1, 2]), kind=6))
    memory.add(timelines(("a", 0, [0, 0])))
    assert len(memory) == 0
    assert not memory.scores(histories([1], []), np.zeros(2, np.int64), 5).any()
    memory.add(timelines(("a", 0, [1, 2])))
    assert not memory.scores(histories([400], []), np.zeros(2, np.int64), 5).any()
    disliked = Histories(np.array([0, 1]), np.array([1], np.int32), np.array([6], np.int8), np.zeros(1, np.int64))
    assert not memory.scores(disliked, np.zeros(1, np.int64), 5).any()
    assert [len(part) for part in memory.votes(histories(), np.zeros(0, np.int64))] == [0, 0, 0]


def test_a_query_is_answered_alone_as_in_company_and_each_time_the_same():
    rng = np.random.default_rng(4)
    memory = Neighbours(nearest=20)
    memory.add(timelines(*((f"p{i}", i % 9, rng.integers(1, 20, 5).tolist()) for i in range(200))))
    asked = [rng.integers(1, 20, 4).tolist() for _ in range(4 * BLOCK + 2)]
    now = np.full(len(asked), int(9 * DAY))
    together = memory.scores(histories(*asked), now, 20)
    assert (memory.scores(histories(*asked), now, 20) == together).all()
    assert all((memory.scores(histories(one), now[:1], 20)[0] == row).all() for one, row in zip(asked, together, strict=True))


def test_a_memory_read_back_answers_and_learns_on_bit_for_bit(tmp_path):
    rng = np.random.default_rng(7)
    memory = Neighbours(nearest=30, days=3.5, length=50)
    memory.add(timelines(*random_rows(rng, 200)))
    memory.write(tmp_path)
    again = Neighbours.read(tmp_path)
    assert [getattr(again, field.name) for field in fields(again)] == [getattr(memory, field.name) for field in fields(memory)]
    assert state(again) == state(memory)
    assert again.bytes == memory.bytes > 0
    asked, now = histories(*(rng.integers(1, 35, 4).tolist() for _ in range(100))), np.full(100, int(LATER))
    assert (again.scores(asked, now, 40) == memory.scores(asked, now, 40)).all()
    for each in (memory, again):
        each.add(timelines(("p3", 41, [4, 5]), ("new", 42, [6])))
    assert state(again) == state(memory)


def test_an_empty_memory_can_be_written_and_read(tmp_path):
    Neighbours().write(tmp_path)
    memory = Neighbours.read(tmp_path)
    assert len(memory) == 0
    assert not memory.scores(histories([1]), np.zeros(1, np.int64), 3).any()


def test_a_damaged_file_is_refused_and_the_way_out_is_named(tmp_path):
    memory = Neighbours()
    memory.add(timelines(("a", 0, [1, 2, 3]), ("b", 1, [1, 2])))
    memory.write(tmp_path)
    files = sorted((tmp_path / FOLDER).iterdir())
    assert len(files) == 8
    for path in files:
        whole = path.read_bytes()
        for broken in (b"", whole[:-3], b"nonsense", None):
            if broken is None:
                path.unlink()
            else:
                path.write_bytes(broken)
            with pytest.raises(ReleaseDamaged, match=rf"{path.name} cannot be read .*roll back with: recsys rollback"):
                Neighbours.read(tmp_path)
        path.write_bytes(whole)
    np.save(tmp_path / FOLDER / "item.npy", np.zeros(4, np.int32))  # a file of another memory
    with pytest.raises(ReleaseDamaged, match=r"item\.npy"):
        Neighbours.read(tmp_path)


def test_a_release_with_settings_nobody_knows_is_refused(tmp_path):
    Neighbours().write(tmp_path)
    path = tmp_path / FOLDER / ABOUT
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, "settings": {"magic": 1}}))
    with pytest.raises(ReleaseDamaged, match="magic"):
        Neighbours.read(tmp_path)


CHANGED = {
    "capacity": 20,
    "length": 2,
    "newest": 1,
    "candidates": 2,
    "nearest": 3,
    "fading": 9.0,
    "rarity": 0.0,
    "days": 60.0,
    "distance": 1.0,
    "reach": 1,
    "before": 0.1,
    "itself": 0.5,
    "normalise": 2.0,
}


@pytest.mark.parametrize("name", [field.name for field in fields(Neighbours)])
def test_every_setting_changes_the_answer(name):
    rng = np.random.default_rng(8)
    rows, asked = random_rows(rng, 100), histories(*(rng.integers(1, 30, 4).tolist() for _ in range(20)))
    as_it_is, changed = Neighbours(), Neighbours(**{name: CHANGED[name]})
    answers = []
    for memory in (as_it_is, changed):
        memory.add(timelines(*rows))
        answers.append(memory.scores(asked, np.full(20, int(LATER)), 30))
    assert not np.allclose(*answers, rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"capacity": 0}, "neighbours.capacity is a whole number, 1 or more; got 0"),
        ({"days": 0.0}, "neighbours.days is more than 0; got 0.0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings, told):
    with pytest.raises(BadInput, match=told):
        Neighbours(**settings)


def test_serving_can_use_it_without_torch():
    code = "import sys, recsys.neighbours; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
