"""Where an item is found leans towards the people who went on to it."""

import numpy as np
import pytest
import torch
from test_sessions import VOCAB, table

from recsys.batches import Examples
from recsys.sessions import Sessions, histories, sessionise
from recsys.settings import load_settings
from recsys.towers import Towers
from training.lessons import lessons
from training.prototypes import Prototypes, people

SETTINGS = load_settings(
    overrides={"model.dim": 8, "model.heads": 2, "model.features": 16, "training.wishes": 0, "data.history": 4}, environ={}
)
LIVES = sessionise(
    table(
        ("u", None, "a", 0), ("u", None, "b", 1), ("u", None, "c", 400), ("u", None, "b", 401),
        ("v", None, "d", 0), ("v", None, "b", 7), ("v", None, "a", 8, "dislike"), ("v", None, "e", 900),
    ),
    VOCAB,
)  # fmt: skip


@pytest.fixture(scope="module")
def towers() -> Towers:
    torch.manual_seed(3)
    return Towers(SETTINGS.model, [[]] * len(VOCAB), SETTINGS.data.history)


def slowly(towers: Towers, sessions: Sessions) -> dict[str, np.ndarray]:
    """The mean of the user vectors before each liked item, one event at a time, as serving would make them."""
    vectors, found = towers.item_vectors(), dict[str, list[np.ndarray]]()
    for at in range(len(sessions)):
        past = histories(sessions, np.array([at]), SETTINGS.data.history)
        if len(past.item) and sessions.positive[at]:
            found.setdefault(VOCAB.ids[sessions.item[at]], []).append(towers.user_vectors(past, vectors)[0])
    return {item: np.mean(before, axis=0) for item, before in found.items()}


def test_an_items_people_are_those_who_went_on_to_it(towers: Towers) -> None:
    some = lessons(LIVES, np.ones(len(LIVES), bool), np.zeros(len(LIVES)), None, SETTINGS, 0)  # type: ignore[arg-type]
    assert (some.gap >= 12).any(), "sessions are read from their end as well, which says nothing about what came next"
    found, expected = people(towers, [some]), slowly(towers, LIVES)
    assert sorted(expected) == ["b", "c", "e"]  # a opens a life, and was disliked in another
    for item in VOCAB.ids:
        np.testing.assert_allclose(found[VOCAB.row(item)], expected.get(item, np.zeros(8)), atol=1e-5)


def test_who_is_remembered_counts_as_much_as_who_is_new_whatever_the_pieces(towers: Towers, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = np.ones(len(LIVES), bool)
    some = lessons(LIVES, everything, np.zeros(len(LIVES)), None, SETTINGS, 0)  # type: ignore[arg-type]
    whole = people(towers, [some])
    halves = people(towers, [some.take(np.arange(1)), some.take(np.arange(1, len(some)))])
    np.testing.assert_allclose(halves, whole, atol=1e-6)
    monkeypatch.setattr("training.prototypes.AT_ONCE", 2)
    np.testing.assert_allclose(people(towers, [some]), whole, atol=1e-6)


def test_an_item_is_found_between_its_own_vector_and_its_people_and_one_without_people_at_its_own() -> None:
    own = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    made = Prototypes(np.array([[0, 0], [0, 1], [0, 0]], np.float32), 1.0)
    np.testing.assert_allclose(made.of(own), [[0, 0], [0.5**0.5, 0.5**0.5], [0, 1]], atol=1e-6)
    np.testing.assert_allclose(made.of(own, 0.0), own)
    np.testing.assert_allclose(made.of(own, 0.75)[1], [0.8, 0.6], atol=1e-6)


def test_who_went_on_to_an_item_before_stays_until_somebody_does_again(towers: Towers) -> None:
    some = lessons(LIVES, np.ones(len(LIVES), bool), np.zeros(len(LIVES)), None, SETTINGS, 0)  # type: ignore[arg-type]
    before = np.full((len(VOCAB) - 1, 8), 7, np.float32)  # the newest item was not there yet
    found, anew = people(towers, [some], before), people(towers, [some])
    went = np.isin(np.arange(len(VOCAB)), [VOCAB.row(item) for item in "bce"])
    np.testing.assert_array_equal(found[went], anew[went])
    assert (found[:-1][~went[:-1]] == 7).all()
    assert not found[-1].any()


def test_with_nobody_to_ask_all_items_stand_where_they_are(towers: Towers) -> None:
    nobody = Examples.none()
    assert not people(towers, [nobody]).any()
    assert not people(towers, []).any()
