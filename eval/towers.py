"""The two towers as methods of a replay: fitted once, updated by a strategy, or fitted anew each time."""

from time import perf_counter
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from eval.timeline import Queries, Window
from recsys.sessions import Histories, of_the_same_people
from recsys.settings import Settings
from recsys.towers import Towers
from training.candidate import Candidate
from training.fit import fit
from training.strategies import parse
from training.update import update

Mode = Literal["update", "frozen", "recounted", "retrain"]
MODES: tuple[Mode, ...] = ("frozen", "recounted", "retrain")
"""Methods that are no strategy: learn once and never again; the same, but count popularity on and place new items without a step of
training; learn everything anew each time."""


class FirstFit:
    """The first fit, done once for all methods of a replay that start from it, and how long it took."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.towers: Towers | None = None
        self.seconds = 0.0

    def fit(self, events: pa.Table, settings: Settings, window: Window) -> tuple[Candidate, float]:
        """Return the candidate of a fit under `settings`, and the seconds of it that another method has spent."""
        if self.towers is not None:
            return fit(events, settings, window.catalogue, trained=self.towers), self.seconds
        started = perf_counter()
        candidate = fit(events, settings, window.catalogue)
        self.towers, self.seconds = candidate.towers, perf_counter() - started
        return candidate, 0.0


class TowersMethod:
    """Towers that learn window by window; a person without a history is shown what is popular."""

    def __init__(self, name: str, settings: Settings, first: FirstFit):
        self.name = name
        self.first = first
        self.mode: Mode = next((mode for mode in MODES if mode == name), "update")
        changed: dict[str, Any] = {"strategy": name if self.mode == "update" else "naive"}
        parse(changed["strategy"])
        if self.mode == "recounted":
            changed["epochs"] = 0
        self.settings = settings.model_copy(update={"update": settings.update.model_copy(update=changed)})
        self.candidate: Candidate | None = None

    def learn(self, window: Window) -> float:
        if self.candidate is None:
            candidate, borrowed = self.first.fit(window.events, self.settings, window)
            self._take(candidate, window)
            return borrowed
        if self.mode == "retrain":
            self._take(fit(pa.concat_tables([window.past, window.events]), self.settings, window.catalogue), window)
        elif self.mode != "frozen":
            past = of_the_same_people(window.past, window.events)
            self._take(update(self.candidate, window.events, past, self.settings, window.catalogue), window)
        return 0.0

    def scores(self, queries: Queries) -> np.ndarray:
        candidate = self.candidate
        assert candidate is not None, "learn comes before scores"
        rows = len(candidate.vocab)
        past = newest(queries.histories, self.settings.data.history, rows)
        scores = np.full((len(queries), queries.n_items), -np.inf, np.float32)
        np.matmul(candidate.towers.user_vectors(past, self.vectors), self.vectors.T, out=scores[:, :rows])
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
    return Histories(start, histories.item[kept], histories.kind[kept], histories.time[kept])
