import numpy as np
import pytest

from recsys.events import CODE, EVENT_TYPES
from recsys.refused import ENOUGH, disliked, factors, readable
from recsys.sessions import Histories


def history(*people: str) -> Histories:
    """People as words of item and kind, such as "1play 2dislike"; a minute apart."""
    told = [word for person in people for word in person.split()]
    start = np.cumsum([0, *(len(person.split()) for person in people)])
    item = np.array([int(word[0]) for word in told], np.int64)
    kind = np.array([CODE[word[1:]] for word in told], np.int8)
    return Histories(start, item, kind, np.arange(len(told)) * 60_000)


def test_disliked_is_what_the_last_word_says_so_of_each_person_once() -> None:
    query, item = disliked(history("1dislike 2dislike 1play 3skip", "", "1play 1dislike 1dislike 0dislike 2watch"))
    assert list(zip(query.tolist(), item.tolist(), strict=True)) == [(0, 2), (2, 1)]


def test_nobody_dislikes_anything_where_nothing_was_said() -> None:
    assert [len(column) for column in disliked(history("", "1play"))] == [0, 0]
    assert [len(column) for column in disliked(history())] == [0, 0]


def test_near_copies_are_hidden_and_the_rest_pushed_by_what_it_is_most_like() -> None:
    vectors = np.array([[1, 0], [0.96, 0.28], [0.8, 0.6], [0, 1], [-1, 0], [0, 0]], np.float32)
    pushed = factors(vectors, np.float32([[1, 0]]))
    np.testing.assert_allclose(pushed, [0, 0, np.exp(-1.6), 1, 1, 1], rtol=1e-6)
    both = factors(vectors, np.float32([[1, 0], [0, 1]]))
    np.testing.assert_allclose(both, [0, 0, np.exp(-1.6), 0, 1, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("learned", "read"),
    [({}, [1, 4]), ({"dislike": ENOUGH}, [1, 2, 4, 2]), ({"dislike": ENOUGH - 1, "skip": ENOUGH}, [1, 3, 4])],
)
def test_towers_read_a_dislike_or_skip_only_once_they_have_learned_what_it_is(learned: dict[str, int], read: list[int]) -> None:
    counts = np.array([learned.get(name, 0) for name in EVENT_TYPES])
    found = readable(history("1play 2dislike 3skip", "4like", "2dislike"), counts)
    assert found.item.tolist() == read
    assert len(found) == 3
