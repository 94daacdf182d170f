"""The weights of an answer are chosen by asking the live release about events that it has not learned."""

from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_sessions import MINUTE, VOCAB, table

from recsys import again, fusion
from recsys.again import TRIED, Again, Returns, returns
from recsys.fusion import Fusion, Votes
from recsys.sessions import Histories, Pairs, Sessions, sessionise
from recsys.vocab import Vocabulary
from training import fusing
from training.candidate import Vectors
from training.fusing import reweighed
from training.prototypes import Prototypes

KNOWN = Vocabulary("abcde")
"""What the parent knows; f, g and h came after it."""


class Parent:
    """A live release that keeps what it is asked; to it all items are alike."""

    vocab = KNOWN
    fusion = Fusion.start(0.3, 0.1)
    again = Again(np.array([1.0, 2.0, -1.0]), np.array([-1.0, 4.0, 2.0]), np.zeros((2, len(TRIED))), 0.0)
    settings = SimpleNamespace(serving=SimpleNamespace(profile_events=4))
    counts = SimpleNamespace(share=lambda: np.full(len(KNOWN), 1 / len(KNOWN)))

    prototypes = Prototypes(np.zeros((len(KNOWN), 2), np.float32), 0.75)

    def vectors(self) -> Vectors:
        own = np.zeros((len(KNOWN), 2))
        return own, self.prototypes.of(own)

    def logits(self, histories: Histories, vectors: Vectors, hidden: Pairs | None) -> np.ndarray:
        return np.zeros((len(histories), len(KNOWN)), np.float32)

    def alone(self, histories: Histories, vectors: Vectors, hidden: Pairs | None) -> np.ndarray:
        return self.logits(histories, vectors, hidden)

    def votes(self, histories: Histories, now: np.ndarray, hidden: Pairs | None) -> Votes:
        self.histories, self.now, self.hidden = histories, now, hidden
        none = np.zeros(0, np.int64)
        return none, none, np.zeros(0, np.float32)


@dataclass(frozen=True)
class Child:
    """What came of an update, before it has weights of its own."""

    settings: Any
    fusion: Any = None
    again: Any = None
    prototypes: Any = None


def next_one(exclude_seen: bool = True) -> Child:
    settings = SimpleNamespace(serving=SimpleNamespace(exclude_seen=exclude_seen))
    return Child(settings, prototypes=Prototypes(np.ones((9, 2), np.float32), 0.0))


def asked(
    monkeypatch: pytest.MonkeyPatch, sessions: Sessions, new: np.ndarray, exclude_seen: bool = True, seed: int = 0
) -> tuple[Parent, list[tuple[str, str, int]]]:
    """Return the parent and, for each question, the history, the item wanted and the minute."""
    parent, wanted = Parent(), dict[str, Any]()
    whole = fusion.learned

    def spy(
        before: Fusion, logits: np.ndarray, votes: Votes, popular: np.ndarray, length: np.ndarray, target: np.ndarray, pull: Votes
    ) -> Fusion:
        wanted.update(before=before, length=length, target=target, pull=pull)
        return whole(before, logits, votes, popular, length, target, pull)

    monkeypatch.setattr(fusion, "learned", spy)
    child = reweighed(next_one(exclude_seen), parent, sessions, new, [seed])  # type: ignore[arg-type]
    assert child.prototypes.lean == parent.prototypes.lean  # all do as well
    assert (child.again is parent.again) == exclude_seen
    for mine, served in zip(wanted["pull"], parent.again.factors(returns(parent.histories)), strict=True):
        assert np.array_equal(mine, served)
    assert wanted["before"] is parent.fusion
    start, items = parent.histories.start.tolist(), "".join(VOCAB.ids[row] for row in parent.histories.item)
    assert wanted["length"].tolist() == np.diff(start).tolist()
    past = [items[a:b] for a, b in pairwise(start)]
    return parent, list(zip(past, [VOCAB.ids[row] for row in wanted["target"]], (parent.now // MINUTE).tolist(), strict=True))


LIFE = sessionise(
    table(*(("u", None, item, minute, kind) for item, minute, kind in [
        ("a", 0, "watch"), ("b", 1, "watch"),  # which the parent has learned
        ("c", 2, "watch"), ("f", 3, "watch"), ("a", 4, "watch"), ("d", 5, "dislike"), ("e", 6, "like"), ("d", 7, "watch"),
    ])),
    VOCAB,
)  # fmt: skip
NEW = LIFE.place >= 2


def test_only_new_and_liked_items_that_the_parent_knows_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    _, questions = asked(monkeypatch, LIFE, NEW)
    # not f, which came after the parent; not a again; not d, which was met before it was liked. f is in no history either, of 4 events
    assert questions == [("ab", "c", 2), ("bcad", "e", 6)]


def test_where_repeats_may_be_recommended_they_are_asked_for_and_nothing_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, questions = asked(monkeypatch, LIFE, NEW, exclude_seen=False)
    assert questions == [("ab", "c", 2), ("abc", "a", 4), ("bcad", "e", 6), ("cade", "d", 7)]
    assert parent.hidden is None


def test_what_a_person_had_is_hidden_from_the_answer_as_in_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, _ = asked(monkeypatch, LIFE, NEW)
    assert parent.hidden is not None
    query, item = parent.hidden
    assert [(q, VOCAB.ids[row]) for q, row in zip(query.tolist(), item.tolist(), strict=True)] == [
        (0, "a"),
        (0, "b"),
        *((1, item) for item in "bcad"),
    ]


def test_who_has_no_history_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("u", None, "f", 0), ("u", None, "a", 1), ("u", None, "b", 2), ("v", None, "c", 0), ("v", None, "d", 1)]
    sessions = sessionise(table(*rows), VOCAB)
    _, questions = asked(monkeypatch, sessions, np.ones(5, bool))
    assert questions == [("a", "b", 2), ("c", "d", 1)]  # before a there was only f, which says nothing


def test_with_nothing_to_ask_the_weights_stay() -> None:
    parent = Parent()
    nobody = (LIFE, np.zeros(len(LIFE), bool)), (sessionise(table(("w", None, "a", 0)), VOCAB), np.ones(1, bool))
    for sessions, new in nobody:
        child = reweighed(next_one(), parent, sessions, new, [0])  # type: ignore[arg-type]
        assert (child.fusion, child.again, child.prototypes.lean) == (parent.fusion, parent.again, parent.prototypes.lean)
        assert len(child.prototypes.people) == 9, "whom the child's own prototypes are of stays"
    assert not hasattr(parent, "histories")


def test_of_many_questions_a_sample_is_asked_and_the_seed_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "QUESTIONS", 5)
    sessions = sessionise(table(*((f"u{n:02}", None, item, n) for n in range(30) for item in "ab")), VOCAB)
    samples = [[minute for _, _, minute in asked(monkeypatch, sessions, np.ones(60, bool), seed=seed)[1]] for seed in (0, 0, 1)]
    assert all(len(set(sample)) == 5 and sample == sorted(sample) for sample in samples)
    assert samples[0] == samples[1] != samples[2]


@pytest.mark.parametrize(("best", "lean"), [(0.0, 0.375), (0.5, 0.625), (1.0, 0.875)])
def test_prototypes_lean_half_way_to_what_would_have_answered_best(monkeypatch: pytest.MonkeyPatch, best: float, lean: float) -> None:
    """Everybody stands at (0, 1) and wants b, which the right lean alone puts there."""
    b = KNOWN.row("b")

    def of(_: Prototypes, vectors: np.ndarray, lean: float | None = None) -> np.ndarray:
        places = np.tile([1.0, 0.0], (len(KNOWN), 1))
        places[b] = [0.0, 1.0] if lean == best else places[b]
        return places

    monkeypatch.setattr(Prototypes, "of", of)
    monkeypatch.setattr(Parent, "alone", lambda _, past, vectors, hidden: np.tile(vectors[1] @ [0.0, 1.0], (len(past), 1)))
    sessions = sessionise(table(*((f"u{n}", None, item, n) for n in range(5) for item in "ab")), VOCAB)
    assert reweighed(next_one(), Parent(), sessions, np.ones(10, bool), [0]).prototypes.lean == lean  # type: ignore[arg-type]


def test_repeats_are_weighed_for_the_towers_alone_and_for_what_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tables of gains: of the bare logits for the towers, and of the mixture as it is served, but without pulls, for the fused."""
    tables: list[tuple[np.ndarray, list[int]]] = []
    honest = again.gains

    def noted(logs: np.ndarray, had: Returns, target: np.ndarray) -> np.ndarray:
        tables.append((logs.copy(), target.tolist()))
        return honest(logs, had, target) + 100.0 * len(tables) * (np.arange(len(TRIED)) == 7 * len(tables))

    monkeypatch.setattr(again, "gains", noted)
    monkeypatch.setattr(Parent, "logits", lambda _, past, vectors, hidden: np.tile(np.arange(6, dtype=np.float32), (len(past), 1)))
    parent = Parent()
    child = reweighed(next_one(False), parent, LIFE, NEW, [0])  # type: ignore[arg-type]
    (alone, target), (fused, same) = tables
    assert target == same == VOCAB.rows("caed").tolist()
    assert alone.tolist() == [list(range(6))] * 4
    votes = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    served = fusion.mix(alone.copy(), votes, parent.counts.share(), np.tile([0.3, 0.1], (4, 1)))
    np.testing.assert_allclose(fused, np.log(served), rtol=1e-5)
    assert child.again.towers.tolist() == TRIED[7].tolist()
    assert child.again.fused.tolist() == TRIED[14].tolist()
    assert child.again.asked == 4
