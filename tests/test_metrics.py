from itertools import pairwise

import numpy as np
import pytest
import torch
from torchmetrics.functional import retrieval

from eval import metrics
from eval.metrics import METRICS, MISS

NAN, INF = np.nan, np.inf


def one_each(*items: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(len(items) + 1), np.array(items)


def barred(rows: list[list[float]], excluded: metrics.Pairs | None = None) -> np.ndarray:
    scores = np.array(rows, np.float32)
    metrics.bar(scores, excluded)
    return scores


def test_rank_is_one_plus_the_others_that_score_as_high_or_higher():
    scores = barred([[9, 0.1, 0.4, 0.3, 0.2], [9, 0.5, 0.5, 0.5, 0.1]])
    assert metrics.ranks(scores, *one_each(3, 1)).tolist() == [2, 3]  # ties count against us, row 0 does not count


def test_an_excluded_item_is_out_of_the_race_and_as_a_target_a_miss():
    scores = barred([[0, 0.1, 0.4, 0.3, 0.2]] * 2, (np.array([0, 0, 1]), np.array([2, 2, 3])))
    assert metrics.ranks(scores, *one_each(3, 3)).tolist() == [1, MISS]


def test_the_unknown_item_is_never_found():
    assert metrics.ranks(barred([[5, 1, 1]]), *one_each(0)).tolist() == [MISS]


def test_a_method_that_says_the_same_of_everything_or_nan_gains_nothing():
    scores = barred([[0, 1, 1, 1], [0, NAN, 2, 3], [0, 5, NAN, 3], [0, -INF, -INF, 1]])
    assert metrics.ranks(scores, *one_each(2, 1, 1, 1)).tolist() == [3, MISS, 2, MISS]


def test_wanted_items_are_ranked_among_each_other_too():
    scores = barred([[0, 4, 3, 2, 1], [0, 1, 2, 3, 4]])
    assert metrics.ranks(scores, np.array([0, 3, 4]), np.array([2, 4, 1, 2])).tolist() == [2, 4, 1, 3]


def test_wanted_items_that_tie_stand_behind_the_others_but_not_on_one_place():
    scores = barred([[0, 7, 5, 5, 5, 1], [0, 7, 5, 5, 5, 1]])  # of the three at 5 the one nobody wanted comes first
    found = metrics.ranks(scores, np.array([0, 2, 5]), np.array([2, 4, 3, 0, 0]))
    assert sorted(found[:2].tolist()) == [3, 4]
    assert found[2:].tolist() == [4, MISS, MISS]


def test_ranks_agree_with_a_slow_obvious_loop():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 6, (50, 12)).astype(np.float32)
    start = np.concatenate([[0], np.cumsum(rng.integers(1, 5, 50))])
    relevant = np.concatenate([rng.choice(12, n, replace=False) for n in np.diff(start)])
    query, item = rng.integers(0, 50, 80), rng.integers(0, 12, 80)
    slow = []
    for b in range(50):
        wanted, out = relevant[start[b] : start[b + 1]].tolist(), {0, *item[query == b].tolist()}
        order = sorted(set(range(12)) - out, key=lambda i: (-scores[b, i], i in wanted))
        slow.append(sorted(order.index(i) + 1 if i in order else MISS for i in wanted))
    metrics.bar(scores, (query, item))
    fast = metrics.ranks(scores, start, relevant)
    assert [sorted(fast[a:b].tolist()) for a, b in pairwise(start)] == slow
    assert len({rank for ranks in slow for rank in ranks}) > 8
    assert MISS in fast


def test_figures_of_one_wanted_item_by_hand():
    ranks = np.array([1, 2, 3, 4, MISS])
    start = np.arange(6)
    for name in ("recall", "hit_rate"):
        assert METRICS[name](ranks, start, 3).tolist() == [1, 1, 1, 0, 0]
    for name in ("mrr", "map"):
        assert METRICS[name](ranks, start, 3) == pytest.approx([1, 1 / 2, 1 / 3, 0, 0])
    assert metrics.ndcg(ranks, start, 3) == pytest.approx([1, 0.63093, 0.5, 0, 0], abs=1e-5)  # 1/log2(2), 1/log2(3), 1/log2(4)


def test_figures_of_several_wanted_items_by_hand():
    # the first wants three and finds two of them, out of order; the second wants two and finds none; the third wants five, k is 3
    ranks, start, k = np.array([3, 9, 1, MISS, 4, 2, 1, 3, 5, 4]), np.array([0, 3, 5, 10]), 3
    assert metrics.recall(ranks, start, k) == pytest.approx([2 / 3, 0, 3 / 5])
    assert metrics.hit_rate(ranks, start, k).tolist() == [1, 0, 1]
    assert metrics.mrr(ranks, start, k).tolist() == [1, 0, 1]
    assert metrics.map(ranks, start, k) == pytest.approx([(1 / 1 + 2 / 3) / 3, 0, 1])
    ideal = 1 + 0.63093 + 0.5
    assert metrics.ndcg(ranks, start, k) == pytest.approx([(1 + 0.5) / ideal, 0, 1], abs=1e-5)


def test_figures_of_no_query_are_none():
    nothing = np.zeros(0, np.int64)
    assert {name: of(nothing, np.zeros(1, np.int64), 5).tolist() for name, of in METRICS.items()} == {name: [] for name in METRICS}


@pytest.mark.parametrize("k", [1, 3, 10])
def test_figures_agree_with_torchmetrics(k):
    rng = np.random.default_rng(k)
    theirs = {
        "recall": retrieval.retrieval_recall,
        "ndcg": retrieval.retrieval_normalized_dcg,
        "mrr": retrieval.retrieval_reciprocal_rank,
        "hit_rate": retrieval.retrieval_hit_rate,
        "map": retrieval.retrieval_average_precision,
    }
    assert theirs.keys() == METRICS.keys()
    scores = rng.permuted(np.tile(np.arange(13, dtype=np.float32), (40, 1)), axis=1)  # no ties: theirs break them as sorting happens to
    scores[:, 0] = 0
    start = np.concatenate([[0], np.cumsum(rng.integers(1, 7, 40))])
    relevant = np.concatenate([1 + rng.choice(12, n, replace=False) for n in np.diff(start)])
    metrics.bar(scores)
    ranks = metrics.ranks(scores, start, relevant)
    for b in range(40):
        preds, target = torch.from_numpy(scores[b, 1:] + 1), torch.zeros(12, dtype=torch.bool)
        target[relevant[start[b] : start[b + 1]] - 1] = True
        hits, wanted = int((ranks[start[b] : start[b + 1]] <= k).sum()), int(target.sum())
        for name, of in theirs.items():
            expected = float(of(preds, target, top_k=k))
            if name == "map":  # theirs is the mean over the hits, so that a method gains by finding fewer
                expected *= hits / min(k, wanted)
            assert METRICS[name](ranks, start, k)[b] == pytest.approx(expected, abs=1e-6), (name, b)


def test_top_lists_the_best_first_and_never_what_is_excluded():
    scores = barred([[9, 0.1, 0.4, 0.3, 0.2], [9, 0.1, -INF, -INF, -INF]], (np.array([0]), np.array([2])))
    assert metrics.top(scores, 3).tolist() == [[3, 4, 1], [1, 0, 0]]


def test_top_has_k_places_where_the_catalogue_has_fewer():
    assert metrics.top(barred([[0, 1, 2]]), 5).tolist() == [[2, 1, 0, 0, 0]]
