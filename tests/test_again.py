"""What somebody had already: how much likelier it is again, by how far back it lies."""

from pathlib import Path

import numpy as np
import pytest

from recsys.again import FILE, STEPS, TRIED, Again, gains, returns
from recsys.errors import ReleaseDamaged
from recsys.events import CODE
from recsys.sessions import Histories


def past(*lists: list[int], kinds: dict[tuple[int, int], str] | None = None) -> Histories:
    """Histories of the items given; kinds: other event types than a play, by history and position."""
    flat = [item for items in lists for item in items]
    start = np.concatenate([[0], np.cumsum([len(items) for items in lists])]).astype(np.int64)
    kind = np.full(len(flat), CODE["play"])
    for (person, position), name in (kinds or {}).items():
        kind[start[person] + position] = CODE[name]
    return Histories(start, np.array(flat, np.int64), kind, np.arange(len(flat)))


def test_returns_lists_each_item_once_at_its_newest_place():
    had = returns(past([5, 7, 5, 9, 3], [], [4, 4]))
    assert list(zip(had.query.tolist(), had.item.tolist(), had.place.tolist(), strict=True)) == [
        (0, 3, 0),
        (0, 5, 2),
        (0, 7, 2),
        (0, 9, 1),
        (2, 4, 0),
    ]


def test_returns_of_nobody_and_of_empty_histories_are_none():
    assert len(returns(past()).query) == len(returns(past([], [])).query) == 0


def test_an_item_whose_newest_event_says_no_does_not_return_but_keeps_its_place():
    had = returns(past([1, 2, 1, 3, 2], kinds={(0, 2): "dislike"}))
    assert (had.item.tolist(), had.place.tolist()) == ([2, 3], [0, 1])
    again_liked = returns(past([1, 1], kinds={(0, 0): "dislike"}))
    assert (again_liked.item.tolist(), again_liked.place.tolist()) == ([1], [0])


def slow_gains(logs: np.ndarray, lists: list[list[int]], target: np.ndarray) -> np.ndarray:
    """The same, one question and one trial after the other, by the definition."""
    total = np.zeros(len(TRIED))
    for number, pull in enumerate(TRIED):
        for person, items in enumerate(lists):
            scores = logs[person].copy()
            for item in set(items):
                back = items[::-1].index(item)
                scores[item] += pull[min(back, 2)]
            own = scores[target[person]]
            rank = int((scores >= own).sum())
            if np.isfinite(own) and rank <= 20:
                total[number] += 1 / np.log2(1 + rank)
    return total


@pytest.mark.parametrize("seed", range(4))
def test_gains_are_those_of_the_definition(seed: int):
    rng = np.random.default_rng(seed)
    lists = [rng.integers(1, 40, rng.integers(0, 9)).tolist() for _ in range(30)]
    logs = rng.integers(-3, 4, (30, 40)).astype(np.float32) if seed else rng.normal(size=(30, 40)).astype(np.float32) * 3  # with ties
    logs[:, 0] = -np.inf
    logs[rng.random(logs.shape) < 0.1] = -np.inf
    target = np.array([items[-1 - rng.integers(len(items))] if items and rng.random() < 0.6 else rng.integers(1, 40) for items in lists])
    np.testing.assert_allclose(gains(logs, returns(past(*lists)), target), slow_gains(logs, lists, target), atol=1e-9)


def test_people_who_go_back_to_the_one_before_are_seen_to():
    rng = np.random.default_rng(0)
    lists = [rng.choice(np.arange(1, 60), 5, replace=False).tolist() for _ in range(200)]
    logs = rng.normal(size=(200, 60)).astype(np.float32) * 2
    logs[:, 0] = -np.inf
    found = gains(logs, returns(past(*lists)), np.array([items[-2] for items in lists]))
    learned = Again.start().learned(found, np.zeros(len(TRIED)), 200)
    assert learned.towers[1] == STEPS.max()
    assert learned.towers[0] == learned.towers[2] == STEPS.min()
    assert learned.fused.tolist() == [0.0, 0.0, 0.0], "nothing was told of the fused answer"


def test_what_was_measured_before_fades_and_equals_stay_mild():
    one, two = np.zeros(len(TRIED)), np.zeros(len(TRIED))
    first, second = 5, 9
    one[first], two[second] = 100.0, 80.0
    learned = Again.start().learned(one, one, 2000)
    assert learned.towers.tolist() == TRIED[first].tolist()
    assert learned.learned(two, two, 2000).towers.tolist() == TRIED[second].tolist()  # 80 against 0.7 * 100
    assert learned.learned(two * 0.8, two, 2000).towers.tolist() == TRIED[first].tolist()
    even = np.where(np.isin(np.arange(len(TRIED)), [0, 50]), 30.0, 0.0)
    assert Again.start().learned(even, even, 100).towers.tolist() == [0.0, 0.0, 0.0]


def test_many_small_updates_remember_as_much_as_a_large_one():
    rng = np.random.default_rng(3)
    parts = rng.random((20, 2, len(TRIED))) * 50
    small = Again.start()
    for towers, fused in parts:
        small = small.learned(towers, fused, 100)
    assert small.asked == pytest.approx(sum(100 * 0.7 ** (n / 20) for n in range(20)))
    assert small.quality[0] == pytest.approx(sum(part[0] * 0.7 ** ((19 - n) / 20) for n, part in enumerate(parts)))


@pytest.mark.parametrize("questions", [1, 3, 10, 30, 100])
def test_luck_moves_nothing(questions: int):
    """Where the target is one of the history no more often than the scores say, a few questions do not teach a pull."""
    rng, moved = np.random.default_rng(questions), 0
    for _ in range(40):
        lists = [rng.choice(np.arange(1, 60), 6, replace=False).tolist() for _ in range(questions)]
        logs = (rng.normal(size=(questions, 60)) * 1.5).astype(np.float32)
        chance = np.exp(logs)
        chance[:, 0] = 0
        target = np.array([rng.choice(60, p=row / row.sum()) for row in chance.astype(np.float64)])
        found = gains(logs, returns(past(*lists)), target)
        moved += Again.start().learned(found, found, questions).towers.any()
    assert moved <= 2


def test_numbers_that_were_written_read_back(tmp_path: Path):
    rng = np.random.default_rng(1)
    made = Again.start().learned(rng.random(len(TRIED)) * 90, rng.random(len(TRIED)) * 90, 77)
    assert made.towers.any()
    made.write(tmp_path)
    read = Again.read(tmp_path)
    for name in ("towers", "fused", "quality", "asked"):
        np.testing.assert_allclose(getattr(read, name), getattr(made, name), atol=1e-6)


@pytest.mark.parametrize("what", ["{", "[]", '{"towers": [1, 2], "fused": [0, 0, 0], "quality": []}', '{"towers": "x"}'])
def test_damaged_numbers_are_refused_with_the_way_out(what: str, tmp_path: Path):
    (tmp_path / FILE).write_text(what)
    with pytest.raises(ReleaseDamaged, match="roll back with: recsys rollback"):
        Again.read(tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(ReleaseDamaged, match=FILE):
        Again.read(tmp_path)
