"""The two towers as methods of a replay: fitted once, updated by a strategy, or fitted anew each time."""

from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eval.timeline import Queries, Window
from recsys.sessions import Histories
from recsys.settings import Settings
from training.candidate import Candidate
from training.fit import fit
from training.strategies import parse
from training.update import update

Mode = Literal["update", "frozen", "retrain"]
MODES: tuple[Mode, ...] = ("frozen", "retrain")
"""Methods that are no strategy: learn once and never again; learn everything anew each time."""


class TowersMethod:
    """Towers that learn window by window; a person without a history is shown what is popular."""

    def __init__(self, name: str, settings: Settings):
        self.name = name
        self.mode: Mode = "frozen" if name == "frozen" else "retrain" if name == "retrain" else "update"
        strategy = name if self.mode == "update" else "naive"
        parse(strategy)
        self.settings = settings.model_copy(update={"update": settings.update.model_copy(update={"strategy": strategy})})
        self.candidate: Candidate | None = None

    def learn(self, window: Window) -> None:
        if self.candidate is None or self.mode == "retrain":
            self._take(fit(pa.concat_tables([window.past, window.events]), self.settings, window.catalogue), window)
        elif self.mode == "update":
            past = _of_the_same_people(window.past, window.events)
            self._take(update(self.candidate, window.events, past, self.settings, window.catalogue), window)

    def scores(self, queries: Queries) -> np.ndarray:
        candidate = self.candidate
        assert candidate is not None, "learn comes before scores"
        rows = len(candidate.vocab)
        past = newest(queries.histories, self.settings.data.history, rows)
        scores = np.full((len(queries), queries.n_items), -np.inf, np.float32)
        people = candidate.towers.scale().item() * candidate.towers.user_vectors(past, self.vectors)
        np.matmul(people, self.vectors.T, out=scores[:, :rows])
        scores[:, :rows] += candidate.bias()
        return scores

    def _take(self, candidate: Candidate, window: Window) -> None:
        if candidate.vocab.ids != window.vocab.ids:
            raise AssertionError("the towers number the items otherwise than the evaluator")
        self.candidate, self.vectors = candidate, candidate.item_vectors()


def newest(histories: Histories, limit: int, rows: int) -> Histories:
    """Return the newest `limit` events of each history that are about items below row `rows`."""
    person = np.repeat(np.arange(len(histories)), np.diff(histories.start))
    known = np.flatnonzero(histories.item < rows)
    from_end = np.searchsorted(person[known], person[known], side="right") - np.arange(len(known))
    kept = known[from_end <= limit]
    start = np.concatenate([[0], np.cumsum(np.bincount(person[kept], minlength=len(histories)))])
    gap = histories.gap[kept]
    gap[start[:-1][np.diff(start) > 0]] = 0
    return Histories(start, histories.item[kept], histories.kind[kept], gap)


def _of_the_same_people(past: pa.Table, events: pa.Table) -> pa.Table:
    """Return the part of `past` that is context for the people and sessions in `events`."""
    same = [pc.and_kleene(pc.is_valid(past[id]), pc.is_in(past[id], value_set=pc.unique(events[id]))) for id in ("user_id", "session_id")]
    return past.filter(pc.or_(*same))
