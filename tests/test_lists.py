import numpy as np
import pytest
from scipy import sparse

from eval import lists
from eval.timeline import Rules, Timeline
from tests.replay_worlds import DAY, log_of

SHOWN = np.array([[1, 2], [1, 0], [1, 3]], np.int32)
"""Of the items 1 to 4 the first is shown three times, 2 and 3 once, 4 never; one place is empty."""


def test_coverage_counts_what_stood_in_a_list_among_all_items():
    assert lists.coverage(SHOWN, 5) == 3 / 4
    assert np.isnan(lists.coverage(SHOWN[:0], 1))


def test_gini_is_nought_for_equals_one_for_a_single_item_and_right_between():
    assert lists.gini(np.array([[1, 2], [3, 4]]), 5) == pytest.approx(0)
    assert lists.gini(np.array([[2], [2]]), 5) == pytest.approx(1)
    assert lists.gini(SHOWN, 5) == pytest.approx((-3 * 0 - 1 * 1 + 1 * 1 + 3 * 3) / (3 * 5))
    assert lists.gini(np.array([[1]]), 2) == 0
    assert np.isnan(lists.gini(np.zeros((2, 2), int), 5))


def test_novelty_is_the_mean_bits_of_what_is_shown():
    share = np.array([0, 0.5, 0.25, 0.25, 0])
    assert lists.novelty(SHOWN, share) == pytest.approx((1 + 2 + 1 + 1 + 2) / 5)
    assert np.isnan(lists.novelty(np.zeros((1, 2), int), share))


def test_shares_are_smoothed_so_that_the_never_seen_is_finite():
    share = lists.share(np.array([9, 5, 1, 0]))
    assert share == pytest.approx(np.array([0, 6, 2, 1]) / 9)
    assert lists.novelty(np.array([[3]]), share) == pytest.approx(np.log2(9))


def test_diversity_is_one_minus_the_mean_cosine_of_pairs():
    items = sparse.csr_matrix(np.array([[0, 0], [1, 0], [0, 2], [3, 3], [0, 0]]))  # cosines: 1-2: 0, 1-3 and 2-3: sqrt(1/2)
    assert lists.intra_list_diversity(np.array([[1, 2]]), items) == pytest.approx(1)
    assert lists.intra_list_diversity(np.array([[1, 1]]), items) == pytest.approx(0)
    three = 1 - 2 * np.sqrt(0.5) / 3
    assert lists.intra_list_diversity(np.array([[1, 2, 3]]), items) == pytest.approx(three)
    assert lists.intra_list_diversity(np.array([[1, 2, 3], [2, 1, 0]]), items) == pytest.approx((three + 1) / 2)


def test_diversity_leaves_out_items_without_features_and_lists_of_one():
    items = sparse.csr_matrix(np.array([[0, 0], [1, 0], [0, 2], [3, 3], [0, 0]]))
    assert lists.intra_list_diversity(np.array([[1, 2, 4], [3, 4, 0]]), items) == pytest.approx(1)
    assert np.isnan(lists.intra_list_diversity(np.array([[3, 4], [0, 0]]), items))
    assert np.isnan(lists.intra_list_diversity(np.zeros((0, 2), int), items))


def test_diversity_looks_at_a_fixed_sample(monkeypatch):
    rng = np.random.default_rng(0)
    items = sparse.csr_matrix(rng.random((50, 4)))
    shown = rng.integers(1, 50, (900, 5))
    once = lists.intra_list_diversity(shown, items)
    assert once == lists.intra_list_diversity(shown, items)
    monkeypatch.setattr(lists, "SAMPLE", 900)
    whole = lists.intra_list_diversity(shown, items)
    assert once != whole
    assert once == pytest.approx(whole, abs=0.02)


def a_timeline():
    log = log_of(("ann", "a", 0), ("ann", "b", 1), ("ann", "b", 2), ("bob", "b", 3), ("bob", "a", DAY), ("bob", "c", DAY + 1))
    timeline = Timeline(log, np.array([0, DAY]) * 1000)
    return timeline.vocab.ids, timeline.questions(1, Rules(exclude_seen=False))


def test_items_are_their_content_where_the_catalogue_says_something():
    ids, questions = a_timeline()
    catalogue = {"a": {"item_id": "a", "genres": ["Crime", "Drama"]}, "b": {"item_id": "b", "genres": ["Crime"]}, "c": {"genres": ["War"]}}
    found = lists.features(questions, ids, catalogue)
    assert found.shape == (3, lists.BUCKETS)  # c was not learned and is not there
    assert (found @ found.T).toarray().tolist() == [[0, 0, 0], [0, 2, 1], [0, 1, 1]]


@pytest.mark.parametrize("catalogue", [{}, {"a": {"item_id": "a", "title": None}}, {"c": {"item_id": "c", "title": "later"}}])
def test_items_are_who_met_them_before_the_window_where_it_does_not(catalogue):
    ids, questions = a_timeline()
    assert lists.features(questions, ids, catalogue).toarray().tolist() == [[0, 0], [1, 0], [1, 1]]  # ann met a and b, bob b
