import numpy as np
import pytest

from eval.slices import HISTORY, deciles, kept, slices, sub
from eval.timeline import Questions, Rules, Timeline
from tests.replay_worlds import DAY, log_of


def the_world(rules: Rules = Rules(exclude_seen=False)) -> tuple[Questions, dict[str, dict[str, np.ndarray]]]:  # noqa: B008
    """Days 0 and 1 are learned; in row order a, b (day 0), c (day 1). Day 2 is asked: ann a, ann d, bob c, cat a, cat c, ann d."""
    log = log_of(
        ("ann", "a", 0), ("ann", "b", 1), ("bob", "a", 2),
        ("bob", "c", DAY),
        ("ann", "a", 2 * DAY), ("ann", "d", 2 * DAY + 1), ("bob", "c", 2 * DAY + 2), ("cat", "a", 2 * DAY + 3), ("cat", "c", 2 * DAY + 4),
        ("ann", "d", 2 * DAY + 5),
    )  # fmt: skip
    questions = Timeline(log, np.array([0, DAY, 2 * DAY]) * 1000).questions(2, rules)
    return questions, slices(questions, first_new_row=3, count=np.array([0, 2, 1, 1]))


def test_every_slice_of_the_small_world():
    _, found = the_world()
    held = {group: {name: np.flatnonzero(mask).tolist() for name, mask in names.items() if mask.any()} for group, names in found.items()}
    assert held == {
        "item": {"unseen": [1, 5], "new": [2, 4], "old": [0, 3]},
        "user": {"new": [3, 4], "old": [0, 1, 2, 5]},
        "target": {"repeat": [0, 2], "novel": [1, 3, 4, 5]},  # ann's second d is a repeat, but nobody can know: d was never learned
        "history": {"0": [3], "1": [4], "2-3": [0, 1, 2, 5]},  # ann's d is not known and does not count
        "popularity": {"1": [0, 3], "4": [2, 4], "none": [1, 5]},
    }


def test_each_group_shares_out_all_that_is_wanted_and_names_are_always_there():
    _, found = the_world()
    assert list(found) == ["item", "user", "target", "history", "popularity"]
    for names in found.values():
        assert (np.sum(list(names.values()), axis=0) == 1).all()
    assert list(found["history"]) == list(HISTORY)
    assert list(found["popularity"]) == [*map(str, range(1, 11)), "none"]


def test_a_session_asked_whole_is_sliced_by_item_and_by_what_came_before_it():
    log = log_of(
        ("ann", "a", 0), ("ann", "b", 1), ("bob", "c", 2),
        ("ann", "a", DAY), ("ann", "c", DAY + 1), ("ann", "d", DAY + 2),
    )  # fmt: skip
    questions = Timeline(log, np.array([0, DAY]) * 1000).questions(1, Rules(exclude_seen=False, whole_sessions=True))
    assert len(questions) == 1
    found = slices(questions, 1, np.array([0, 1, 1, 1]))
    assert questions.relevant.tolist() == [1, 3, 0]
    assert found["target"]["repeat"].tolist() == [True, False, False]
    assert found["item"]["unseen"].tolist() == [False, False, True]
    assert found["history"]["2-3"].tolist() == [True, True, True]  # c and d came within the session, not before it


def test_who_first_comes_as_the_window_begins_is_new_all_through_it():
    log = log_of(("bob", "a", 0), ("zoe", "a", DAY), ("zoe", "a", DAY + 1))
    questions = Timeline(log, np.array([0, DAY]) * 1000).questions(1, Rules(exclude_seen=False))
    assert slices(questions, 1, np.array([0, 1]))["user"]["new"].tolist() == [True, True]


@pytest.mark.parametrize(
    ("events", "name"), [(0, "0"), (1, "1"), (2, "2-3"), (3, "2-3"), (4, "4-7"), (8, "8-15"), (31, "16-31"), (32, "32+")]
)
def test_history_is_cut_where_its_names_say(events, name):
    log = log_of(("bob", "a", 0), *(("ann", "a", second) for second in range(events)), ("ann", "a", DAY))
    questions = Timeline(log, np.array([0, DAY]) * 1000).questions(1, Rules(exclude_seen=False))
    found = slices(questions, 1, np.array([0, 1]))["history"]
    assert [which for which, mask in found.items() if mask.any()] == [name]


def test_deciles_count_the_items_that_are_more_popular():
    assert deciles(np.array([0, *range(20)])).tolist() == [0, *(10 - row // 2 for row in range(20))]
    assert deciles(np.array([0, 9, 1, 1, 1, 1])).tolist() == [0, 1, 3, 3, 3, 3]  # one of five is ahead of the others
    assert deciles(np.array([0])).tolist() == [0]


def test_a_sub_keeps_the_masked_and_drops_empty_queries():
    ranks, start = np.array([1, 2, 3, 4, 5, 6]), np.array([0, 2, 3, 3, 6])
    mask = np.array([False, True, False, True, False, True])
    found, bounds = sub(ranks, start, mask)
    assert found.tolist() == [2, 4, 6]
    assert bounds.tolist() == [0, 1, 3]
    assert kept(start, mask).tolist() == [True, False, False, True]
    nothing, bounds = sub(ranks, start, np.zeros(6, bool))
    assert (nothing.tolist(), bounds.tolist()) == ([], [0])
