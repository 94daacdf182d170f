"""Towers, neighbours and popularity in one answer: against a slow loop, and the weights against trying them all by hand."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import ReleaseDamaged
from recsys.fusion import BEST, FILE, LENGTHS, TRIED, Fusion, Votes, bucket, largest, learned, lifts, mix, without

NOBODY: Votes = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
BUCKETS = len(LENGTHS) + 1


def votes_of(*pairs: tuple[int, int, float]) -> Votes:
    query, item, vote = np.array(sorted(pairs)).reshape(-1, 3).T
    return query.astype(np.int64), item.astype(np.int64), vote.astype(np.float32)


def world(queries: int, items: int, seed: int = 0, hidden: float = 0.2) -> tuple[np.ndarray, Votes, np.ndarray]:
    """Random logits, some of them -inf, votes for a few that may be recommended, for some queries none, and shares of popularity."""
    rng = np.random.default_rng(seed)
    logits = (3 * rng.normal(size=(queries, items))).astype(np.float32)
    logits[rng.random(logits.shape) < hidden] = -np.inf
    logits[:, 0], logits[:, -1] = -np.inf, 0
    voted = (rng.random(logits.shape) < 0.2) & ~np.isneginf(logits)
    voted[::4] = False
    query, item = np.nonzero(voted)
    popular = rng.pareto(1, items) * (np.arange(items) > 0)
    return logits, (query, item, rng.random(len(query)).astype(np.float32)), popular / popular.sum()


def mixed_slowly(logits: np.ndarray, votes: Votes, popular: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """One query after the other, one item after the other, in double precision."""
    out = np.full(logits.shape, -np.inf)
    for q, row in enumerate(logits.astype(float)):
        total = sum(np.exp(x) for x in sorted(row)[::-1][:BEST])
        mine = {i: v for p, i, v in zip(*(column.tolist() for column in votes), strict=True) if p == q}
        for i, x in enumerate(row):
            if x > -np.inf:
                by_votes = mine.get(i, 0.0) / sum(mine.values()) if mine else 0.0
                a, b = weights[q]
                out[q, i] = (1 - a - b) * np.exp(x) / total + a * by_votes + b * popular[i]
    return out


@pytest.mark.parametrize("items", [30, 2 * BEST + 50])
def test_the_mixture_agrees_with_a_slow_obvious_loop(items: int) -> None:
    logits, votes, popular = world(12, items)
    weights = np.random.default_rng(1).dirichlet([1, 1, 1], 12)[:, :2]
    expected = mixed_slowly(logits, votes, popular, weights)
    np.testing.assert_allclose(mix(logits.copy(), votes, popular, weights), expected, rtol=1e-4, atol=1e-7)


def test_what_the_three_expect_adds_up_to_one_where_all_is_known() -> None:
    logits, votes, _ = world(8, 40)
    evenly = np.full(40, 1 / 40)
    found = mix(logits.copy(), votes, evenly, np.tile([0.5, 0.0], (8, 1)))
    voted = np.unique(votes[0])
    assert len(voted) == 6
    np.testing.assert_allclose(np.where(np.isneginf(found), 0, found).sum(1)[voted], 1, rtol=1e-5)


def test_what_cannot_be_recommended_stays_so_whoever_speaks_for_it() -> None:
    logits = np.array([[-np.inf, 0.0, -np.inf, 1.0]], np.float32)
    found = mix(logits, votes_of((0, 2, 5.0), (0, 3, 1.0)), np.array([0, 0.1, 0.9, 0]), np.array([[0.4, 0.4]]))
    assert np.isneginf(found[0]).tolist() == [True, False, True, False]


def test_where_everything_is_hidden_nothing_is_recommended_and_nothing_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = mix(np.full((1, 3), -np.inf, np.float32), NOBODY, np.ones(3) / 3, np.array([[0.4, 0.3]]))
    assert np.isneginf(found).all()


@pytest.mark.parametrize("columns", [5, 79, 80, 81, 95, 96, 1000])
@pytest.mark.parametrize("kind", ["distinct", "tied", "mostly hidden"])
def test_the_largest_are_those_of_a_sort(columns: int, kind: str) -> None:
    rng = np.random.default_rng(columns)
    values = rng.normal(size=(30, columns)).astype(np.float32)
    if kind == "tied":
        values = np.round(values)
    if kind == "mostly hidden":
        values[rng.random(values.shape) < 0.97] = -np.inf
    before = values.copy()
    assert np.array_equal(np.sort(largest(values, 5), axis=1), np.sort(values, axis=1)[:, -5:])
    assert np.array_equal(values, before)


@pytest.mark.parametrize("weights", [(0.0, 0.0), (0.8, 0.0)])
def test_where_nobody_votes_the_order_is_that_of_the_towers(weights: tuple[float, float]) -> None:
    logits, _, popular = world(10, 60)
    found = mix(logits.copy(), NOBODY, popular, np.tile(weights, (10, 1)))
    assert (np.argsort(-found, kind="stable") == np.argsort(-logits, kind="stable")).all()


def test_with_no_weight_the_votes_say_nothing_and_with_all_of_it_the_towers_do_not() -> None:
    logits, votes, popular = world(9, 60)
    found = mix(logits.copy(), votes, popular, np.zeros((9, 2)))
    assert np.array_equal(found, mix(logits.copy(), NOBODY, popular, np.zeros((9, 2))))
    only_votes = mix(logits.copy(), votes, popular, np.tile([1.0, 0.0], (9, 1)))
    assert np.array_equal(only_votes, mix(np.where(np.isneginf(logits), logits, 0), votes, popular, np.tile([1.0, 0.0], (9, 1))))
    only_popular = mix(logits.copy(), votes, popular, np.tile([0.0, 1.0], (9, 1)))
    seen = ~np.isneginf(logits)
    np.testing.assert_allclose(only_popular[seen], np.tile(popular, (9, 1))[seen], rtol=1e-6)


def test_one_strong_voice_or_many_weak_ones_only_shares_of_the_votes_count() -> None:
    logits, (query, item, vote), popular = world(9, 60)
    weights = np.tile([0.4, 0.3], (9, 1))
    loud = mix(logits.copy(), (query, item, 1000 * vote), popular, weights)
    np.testing.assert_allclose(loud, mix(logits.copy(), (query, item, vote), popular, weights), rtol=1e-5)


def test_new_is_what_was_first_met_a_week_ago_at_most_and_not_what_was_never_met() -> None:
    week, now = 7 * 86_400_000, 10**12
    first = np.array([0, now, now - week, now - week - 1, 1])
    np.testing.assert_array_equal(lifts(first, now, 1.5), np.float32([1, 1.5, 1.5, 1, 1]))
    np.testing.assert_array_equal(lifts(first, 1000, 1.5), np.float32([1, 1.5, 1.5, 1.5, 1.5]))  # a log younger than a week


def test_votes_for_what_is_hidden_are_left_out() -> None:
    votes = votes_of((0, 1, 1.0), (0, 2, 2.0), (1, 1, 3.0), (1, 2, 4.0))
    query, item, vote = without(votes, np.array([0, 1, 1]), np.array([2, 1, 9]), 10)
    assert list(zip(query.tolist(), item.tolist(), vote.tolist(), strict=True)) == [(0, 1, 1.0), (1, 2, 4.0)]
    assert [len(column) for column in without(NOBODY, np.array([0]), np.array([1]), 10)] == [0, 0, 0]


def test_each_length_of_history_has_its_bucket() -> None:
    lengths = np.array([1, 2, 3, 5, 6, 10, 11, 25, 26, 500])
    assert bucket(lengths).tolist() == [0, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    weights = np.arange(2 * BUCKETS, dtype=float).reshape(BUCKETS, 2) / 100
    fusion = Fusion(weights, np.zeros((BUCKETS, len(TRIED))), np.zeros(BUCKETS))
    assert fusion.of(lengths).tolist() == weights[[0, 1, 2, 2, 3, 3, 4, 4, 5, 5]].tolist()


def test_what_is_tried_are_weights_that_leave_something_or_nothing_to_the_towers() -> None:
    pairs = {tuple(pair) for pair in TRIED.tolist()}
    assert len(pairs) == len(TRIED) == 21
    assert pairs == {(a / 5, b / 5) for a in range(6) for b in range(6) if a + b <= 5}


def quality_slowly(
    logits: np.ndarray, votes: Votes, popular: np.ndarray, length: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """ndcg@20 under each weight, summed by length: rank every item of every question, an equal before the target."""
    quality, asked = np.zeros((BUCKETS, len(TRIED))), np.zeros(BUCKETS)
    for number, weights in enumerate(TRIED):
        scores = mixed_slowly(logits, votes, popular, np.tile(weights, (len(logits), 1)))
        for q, wanted in enumerate(target.tolist()):
            own = scores[q, wanted]
            rank = 1 + sum(other >= own - 1e-12 for i, other in enumerate(scores[q]) if i != wanted)
            quality[bucket(length[q]), number] += 1 / np.log2(1 + rank) if rank <= 20 and own > 0 else 0.0
    np.add.at(asked, bucket(length), 1)
    return quality, asked


def questions(seed: int, n: int = 40, items: int = 45) -> tuple[np.ndarray, Votes, np.ndarray, np.ndarray, np.ndarray]:
    """Questions in which every film has a twin that everybody thinks as much of, so that each rank is a tie."""
    logits, (query, item, vote), popular = world(n, items, seed)
    rng = np.random.default_rng(seed + 100)
    target = np.where(rng.random(n) < 0.5, items - 1, rng.integers(1, items, n))  # of which some are hidden
    twice = (np.concatenate([query, query]), np.concatenate([item, item + items]), np.concatenate([vote, vote]))
    order = np.lexsort((twice[1], twice[0]))
    both = tuple(column[order] for column in twice)
    return np.hstack([logits, logits]), both, np.hstack([popular, popular]) / 2, rng.choice([1, 2, 4, 8, 15, 30], n), target  # type: ignore[return-value]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_weights_go_half_way_to_those_that_trying_all_of_them_finds_best(seed: int) -> None:
    asking = questions(seed)
    before = Fusion.start(0.3, 0.1)
    found = learned(before, *asking)
    quality, asked = quality_slowly(*asking)
    assert (asked > 0).all()
    np.testing.assert_allclose(found.quality, quality, rtol=1e-5)
    assert found.asked.tolist() == asked.tolist()
    told = np.ptp(quality, axis=1) > 1e-9  # a length that was asked in vain keeps its weights
    assert found.weights[~told].tolist() == before.weights[~told].tolist()
    chosen = [tuple(pair) for pair in np.round(2 * found.weights - before.weights, 6)[told].tolist()]
    for row, pair in zip(quality[told], chosen, strict=True):
        assert row[tried(pair)] == pytest.approx(row.max())
    assert len(set(chosen)) > 1


def tried(pair: tuple[float, ...]) -> int:
    """Which of TRIED a pair is."""
    (number,) = np.flatnonzero(np.isclose(TRIED, pair).all(1)).tolist()
    return int(number)


def test_asking_many_is_asking_each() -> None:
    asking = questions(5, n=600, items=8)
    quality, asked = quality_slowly(*asking)
    found = learned(Fusion.start(0.3, 0.1), *asking)
    np.testing.assert_allclose(found.quality, quality, rtol=1e-5)
    assert found.asked.sum() == asked.sum() == 600


def test_asking_does_not_write_to_what_it_was_given() -> None:
    asking = questions(3)
    before = [np.copy(part) for part in (asking[0], *asking[1], *asking[2:])]
    learned(Fusion.start(0.3, 0.1), *asking)
    assert all(np.array_equal(a, b) for a, b in zip(before, (asking[0], *asking[1], *asking[2:]), strict=True))


def an_expert_knows(who: str) -> tuple[np.ndarray, Votes, np.ndarray, np.ndarray, np.ndarray]:
    """One question about item 3 of 60 that only one of the three can answer; the others name all items but it."""
    high, low = np.ones(60), np.zeros(60)
    low[3], high[[0, 3]] = 1, 0
    logits = np.where((low if who == "towers" else high) > 0, 0, -50).astype(np.float32)[None]
    logits[0, 0] = -np.inf
    named = np.flatnonzero(low if who == "neighbours" else high)
    popular = low if who == "popularity" else high
    votes = (np.zeros(len(named), np.int64), named, np.ones(len(named), np.float32))
    return logits, votes, popular / popular.sum(), np.array([1]), np.array([3])


def test_whoever_knows_better_gains_weight_for_that_length_and_no_other() -> None:
    before = Fusion.start(0.0, 0.0)
    for who, place in (("neighbours", 0), ("popularity", 1)):
        found = learned(before, *an_expert_knows(who))
        assert found.weights[0, place] >= 0.1
        assert found.weights[0, 1 - place] == 0
        assert not found.weights[1:].any()
    towers = learned(Fusion.start(0.6, 0.4), *an_expert_knows("towers"))
    assert towers.weights[0].sum() <= 0.9
    assert towers.weights[1:].tolist() == [[0.6, 0.4]] * 5


def test_a_length_that_was_asked_in_vain_keeps_its_weights() -> None:
    logits, votes, popular, length, target = an_expert_knows("neighbours")
    logits[0, 3] = -np.inf  # hidden: nothing that is tried answers this
    before = Fusion.start(0.4, 0.2)
    found = learned(before, logits, without(votes, np.array([0]), np.array([3]), 60), popular, length, target)
    assert not found.quality.any()
    assert found.weights.tolist() == before.weights.tolist()


def test_where_all_that_is_tried_does_as_well_nothing_is_learned() -> None:
    logits = np.array([[-np.inf, 1.0]], np.float32)  # one item: the answer is right whoever gives it
    before = Fusion.start(0.4, 0.2)
    found = learned(before, logits, votes_of((0, 1, 1.0)), np.array([0.0, 1.0]), np.array([1]), np.array([1]))
    assert np.ptp(found.quality[0]) == 0
    assert found.weights.tolist() == before.weights.tolist()


def test_what_was_measured_before_fades() -> None:
    first, second = questions(0), questions(1)
    one = learned(Fusion.start(0.3, 0.1), *first)
    two = learned(one, *second, fading=0.5)
    alone = learned(Fusion.start(0.3, 0.1), *second)
    np.testing.assert_allclose(two.quality, 0.5 * one.quality + alone.quality)
    np.testing.assert_allclose(two.asked, 0.5 * one.asked + alone.asked)
    assert (np.ptp(two.quality, axis=1) > 0).all()
    for row, pair in zip(two.quality, 2 * two.weights - one.weights, strict=True):
        assert row[tried(pair)] == pytest.approx(row.max())
    usual = learned(one, *second)
    np.testing.assert_allclose(usual.quality, 0.7 * one.quality + alone.quality)


def test_a_fusion_that_was_written_reads_back(tmp_path: Path) -> None:
    made = learned(Fusion.start(0.3, 0.1), *questions(0))
    made.write(tmp_path)
    read = Fusion.read(tmp_path)
    for name in ("weights", "quality", "asked"):
        np.testing.assert_allclose(getattr(read, name), getattr(made, name), atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    read.write(tmp_path)
    assert vars(Fusion.read(tmp_path)).keys() == vars(read).keys()
    assert all(np.array_equal(getattr(Fusion.read(tmp_path), name), getattr(read, name)) for name in vars(read))


def damaged(**changed: object) -> str:
    made = Fusion.start(0.3, 0.1)
    whole = {name: value.tolist() for name, value in vars(made).items()}
    return json.dumps({name: value for name, value in (whole | changed).items() if value is not None})


DAMAGED = {
    "no file": None,
    "empty": "",
    "cut off": damaged()[:-5],
    "a list": "[]",
    "a number": "7",
    "a column missing": damaged(asked=None),
    "one weight too few": damaged(weights=[[0.1, 0.2]] * 5),
    "one weight for each": damaged(weights=[0.1] * 6),
    "ragged": damaged(weights=[[0.1, 0.2]] * 5 + [[0.1]]),
    "words": damaged(asked=["many"] * 6),
    "other lengths": damaged(asked=[0.0] * 7),
    "other tries": damaged(quality=[[0.0] * 10] * 6),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_fusion_is_refused_in_one_line_with_the_way_out(what: str, tmp_path: Path) -> None:
    if (text := DAMAGED[what]) is not None:
        (tmp_path / FILE).write_text(text)
    with pytest.raises(ReleaseDamaged, match="roll back with: recsys rollback") as caught:
        Fusion.read(tmp_path)
    assert "\n" not in str(caught.value)
    assert FILE in str(caught.value)
