import numpy as np
import pytest

from eval import metrics
from eval.metrics import MISS

NAN, INF = np.nan, np.inf


def test_rank_is_one_plus_the_others_that_score_as_high_or_higher():
    scores = np.array([[9, 0.1, 0.4, 0.3, 0.2], [9, 0.5, 0.5, 0.5, 0.1]], np.float32)
    assert metrics.ranks(scores, np.array([3, 1])).tolist() == [2, 3]  # ties count against us, row 0 does not count


def test_an_excluded_item_is_out_of_the_race_and_as_a_target_a_miss():
    scores = np.array([[0, 0.1, 0.4, 0.3, 0.2]] * 2, np.float32)
    excluded = (np.array([0, 0, 1]), np.array([2, 2, 3]))
    assert metrics.ranks(scores, np.array([3, 3]), excluded).tolist() == [1, MISS]


def test_the_unknown_item_is_never_found():
    assert metrics.ranks(np.array([[5, 1, 1]], np.float32), np.array([0])).tolist() == [MISS]


def test_a_method_that_says_the_same_of_everything_or_nan_gains_nothing():
    scores = np.array([[0, 1, 1, 1], [0, NAN, 2, 3], [0, 5, NAN, 3], [0, -INF, -INF, 1]], np.float32)
    assert metrics.ranks(scores, np.array([2, 1, 1, 1])).tolist() == [3, metrics.MISS, 2, metrics.MISS]


def test_ranks_agree_with_a_slow_obvious_loop():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 6, (50, 12)).astype(np.float32)
    target = rng.integers(0, 12, 50)
    query, item = rng.integers(0, 50, 80), rng.integers(0, 12, 80)
    slow = []
    for b in range(50):
        out = {0, *item[query == b].tolist()}
        others = [i for i in range(12) if i not in out and i != target[b]]
        slow.append(MISS if target[b] in out else 1 + sum(scores[b, i] >= scores[b, target[b]] for i in others))
    assert metrics.ranks(scores, target, (query, item)).tolist() == slow
    assert MISS in slow
    assert len(set(slow)) > 8


def test_figures_by_hand():
    ranks = np.array([1, 2, 3, 4, MISS])
    assert metrics.recall(ranks, 3).tolist() == [1, 1, 1, 0, 0]
    assert metrics.mrr(ranks, 3) == pytest.approx([1, 1 / 2, 1 / 3, 0, 0])
    assert metrics.ndcg(ranks, 3) == pytest.approx([1, 0.63093, 0.5, 0, 0], abs=1e-5)  # 1/log2(2), 1/log2(3), 1/log2(4)


def test_top_lists_the_best_first_and_never_what_is_excluded():
    scores = np.array([[9, 0.1, 0.4, 0.3, 0.2], [9, 0.1, -INF, -INF, -INF]], np.float32)
    assert metrics.top(scores, 3, (np.array([0]), np.array([2]))).tolist() == [[3, 4, 1], [1, 0, 0]]


def test_coverage_is_the_share_of_the_catalogue_shown():
    assert metrics.coverage(np.array([[3, 4, 0], [4, 0, 0]]), 4) == 0.5
    assert metrics.coverage(np.array([0]), 0) == 0
