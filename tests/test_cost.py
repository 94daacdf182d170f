"""What the shortcuts of serving lose, by hand, and the memory of a block."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replay_worlds import DAY, a_log
from run_worlds import TINY, plan

from eval import cost
from eval import replay as replays
from eval.methods import Released, methods
from eval.protocols import prequential
from eval.timeline import Learned, Queries
from eval.towers import TowersMethod
from recsys.sessions import Pairs


class Told:
    """A method that has a release; its index finds other items, and so do its stale vectors."""

    name, random = "told", True

    def __init__(self, index: np.ndarray | None, stale: np.ndarray | None):
        self.index, self.stale = index, stale

    def learn(self, window: Any) -> Learned:
        return Learned()

    def scores(self, queries: Queries) -> np.ndarray:
        raise AssertionError("the probes know how it answered")

    def size(self) -> int:
        return 0

    def save(self, folder: Path) -> int:
        return 0

    def load(self, folder: Path, learned: int) -> bool:
        return False

    def found(self, queries: Queries, seen: Pairs | None, k: int) -> np.ndarray | None:
        return None if self.index is None else np.tile(self.index, (len(queries), 1))

    def stale_scores(self, queries: Queries) -> np.ndarray | None:
        return None if self.stale is None else np.tile(self.stale, (len(queries), 1))


def test_probes_by_hand():
    world = plan()
    questions = world.timeline.questions(4, world.rules)
    ranks = np.where(questions.relevant > 0, 1, 10**9)  # whatever was learned is found
    exact = (questions.relevant > 0).mean()
    likes_2 = -np.abs(np.arange(questions.n_items, dtype=np.float32) - 2)
    assert isinstance(Told(None, None), Released)
    assert cost.probes(Told(None, None), questions, ranks, k=1) == (None, None)
    index_loss, stale_loss = cost.probes(Told(np.array([2]), likes_2), questions, ranks, k=1)
    assert index_loss == pytest.approx(exact - (questions.relevant == 2).mean())
    met = [2 in past for past in np.split(questions.queries().histories.item, questions.queries().histories.start[1:-1])]
    assert stale_loss is not None
    assert stale_loss <= exact - ((questions.relevant == 2) & ~np.array(met)).mean() + 1e-9
    assert cost.probes(methods("popular", TINY)[0], questions, ranks) == (None, None)


@pytest.mark.usefixtures("exported_once")
def test_an_exact_index_loses_nothing_and_the_stale_loss_is_that_of_the_parents_vectors(tmp_path):
    world = plan()
    method = methods("naive", TINY)[0]
    assert isinstance(method, TowersMethod)
    method.learn(world.timeline.lesson(0, 4))
    assert method.found(next(world.timeline.questions(4, world.rules).blocks())[0], None, 3) is None, "nothing is saved yet"
    before, found_at = method.candidate.vectors()
    method.learn(world.timeline.lesson(4, 5))
    method.save(tmp_path)
    questions = world.timeline.questions(5, world.rules)
    queries = questions.queries()
    ranks, shown, _ = replays.answer(method, questions.blocks(), True, 3)
    assert method.found(queries, queries.histories.pairs(), 3).tolist() == shown.tolist()
    index_loss, stale_loss = cost.probes(method, questions, ranks, k=3)
    assert index_loss == 0
    stale = method.stale_scores(queries)
    people = method.candidate.towers.user_vectors(queries.histories.where(queries.histories.item < len(before)).newest(50), before)
    assert stale[:, : len(before)] == pytest.approx(people @ found_at.T + method.candidate.bias()[: len(before)], abs=1e-5)
    assert (stale[:, len(before) :] == -np.inf).all()
    assert stale_loss is not None


def test_the_index_and_the_whole_catalogue_agree_on_what_somebody_had_already(tmp_path):
    world = prequential(a_log(), window_seconds=DAY, train=4, exclude_seen=False)
    method = methods("naive", TINY)[0]
    assert isinstance(method, TowersMethod)
    method.learn(world.timeline.lesson(0, 4))
    method.save(tmp_path)
    queries = world.timeline.questions(4, world.rules).queries()
    plain = method.scores(queries)
    method.line.candidate = replace(method.candidate, again=replace(method.candidate.again, towers=np.array([-4.0, 4.0, 1.0])))
    scores = method.scores(queries)
    pull = (scores - plain)[np.isfinite(plain)] * method.candidate.towers.scale().item()
    assert set(np.round(pull, 3).tolist()) == {-4.0, 0.0, 1.0, 4.0}
    last, before = (queries.histories.item[queries.histories.start[1:] - back] for back in (1, 2))
    which = np.flatnonzero((np.diff(queries.histories.start) > 1) & (last != before))
    assert (scores[which, last[which]] < plain[which, last[which]]).all()
    assert (scores[which, before[which]] > plain[which, before[which]]).all()
    scores[:, 0] = -np.inf  # nobody is recommended the unknown item
    known = np.isfinite(scores[0]).sum()
    for k in (1, 3, known):
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        found = method.found(queries, None, k)
        row = np.arange(len(scores))[:, None]
        np.testing.assert_allclose(scores[row, found], scores[row, best], atol=1e-6)
        assert all(len(set(rows)) == k for rows in found.tolist())
    candidate = method.candidate
    past = queries.histories
    expected = candidate.alone(past, candidate.vectors(), None) / candidate.towers.scale().item()
    asked = np.diff(past.start) > 0
    np.testing.assert_allclose(scores[asked, 1 : known + 1], expected[asked, 1:], atol=1e-5)


def test_memory_is_watched_while_a_block_runs():
    with cost.measured() as spent:
        held = np.ones(30_000_000)
        del held
    assert spent.peak_mb >= cost.resident_mb() + 100
