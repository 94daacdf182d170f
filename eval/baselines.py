"""What every method must be compared with: popular items, nearest sessions, matrix factorisation. No torch here."""

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse
from threadpoolctl import threadpool_limits

from eval.timeline import Queries, Window
from recsys.events import IS_POSITIVE
from recsys.neighbours import Neighbours
from recsys.sessions import Sessions, sessionise
from recsys.settings import Settings
from recsys.vocab import Vocabulary


class Popular:
    """What most people liked lately, the same for everybody."""

    name = "popular"
    half_life = 3.0
    """Days after which an event counts half."""

    def __init__(self, settings: Settings):
        self.count = np.zeros(0)
        self.now = 0

    def learn(self, window: Window) -> float:
        item, time = _liked(sessionise(window.events, window.vocab))
        now = int(time.max(initial=self.now))
        day = 86_400_000.0
        count = self.count * 0.5 ** ((now - self.now) / day / self.half_life)
        fresh = np.bincount(item, 0.5 ** ((now - time) / day / self.half_life), len(window.vocab))
        self.count, self.now = fresh + np.pad(count, (0, len(window.vocab) - len(count))), now
        return 0.0

    def scores(self, queries: Queries) -> np.ndarray:
        return np.tile(self.share(), (len(queries), 1))

    def share(self) -> np.ndarray:
        """Return the popularity of every row, the most popular being 1, (n_items,) float32."""
        return (self.count / max(self.count.max(initial=0), 1e-12)).astype(np.float32)


class Knn:
    """The nearest remembered timelines vote; where nobody votes, and between equals, the popular comes first."""

    name = "knn"

    def __init__(self, settings: Settings):
        self.memory = Neighbours()
        self.popular = Popular(settings)

    def learn(self, window: Window) -> float:
        self.memory.add(sessionise(window.events, window.vocab))
        self.popular.learn(window)
        return 0.0

    def scores(self, queries: Queries) -> np.ndarray:
        scores = self.memory.scores(queries.histories, queries.now, queries.n_items)
        scores /= np.maximum(scores.max(axis=1, keepdims=True), 1e-12)
        scores += 1e-6 * self.popular.share()
        return scores


class ALS:
    """implicit's matrix factorisation, kept up to date by its own partial fit of the people and items that are new or did something."""

    name = "als"
    factors, regularization, alpha, iterations = 64, 0.05, 40.0, 15

    def __init__(self, settings: Settings):
        threads = settings.training.threads
        with threadpool_limits(1, "blas"):  # implicit brings its own threads; BLAS threads beside them fight for the cores
            self.model = AlternatingLeastSquares(
                self.factors,
                self.regularization,
                self.alpha,
                iterations=self.iterations,
                num_threads=threads,
                random_state=settings.training.seed,
            )
        self.people = Vocabulary()
        self.person, self.item = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.popular = Popular(settings)

    def learn(self, window: Window) -> float:
        self.popular.learn(window)
        sessions = sessionise(window.events, window.vocab)
        self.people = self.people.grow(sessions.owners)
        person = self.people.rows(sessions.owners)[sessions.owner][sessions.positive]
        item, _ = _liked(sessions)
        first = not len(self.item)
        self.person, self.item = np.append(self.person, person), np.append(self.item, item)
        liked = self._matrix(self.person, self.item, (len(self.people), len(window.vocab)))
        with threadpool_limits(1, "blas"):
            if first:
                self.model.fit(liked, show_progress=False)
            elif len(item):
                self._partial_fit(liked, np.unique(person), np.unique(item))
        return 0.0

    def scores(self, queries: Queries) -> np.ndarray:
        start = queries.histories.start
        person = np.repeat(np.arange(len(queries)), np.diff(start))
        positive = IS_POSITIVE[queries.histories.kind]
        liked = self._matrix(person[positive], queries.histories.item[positive], (len(queries), queries.n_items))
        with threadpool_limits(1, "blas"):
            people = self.model.recalculate_user(np.arange(len(queries)), liked)
            scores = people @ self.model.item_factors.T
        scores[np.diff(liked.indptr) == 0] = self.popular.share()
        return scores

    def _partial_fit(self, liked: sparse.csr_matrix, people: np.ndarray, items: np.ndarray) -> None:
        new = liked.shape[1] - len(self.model.item_factors)
        self.model.item_factors = np.pad(self.model.item_factors, ((0, new), (0, 0)))
        self.model.partial_fit_users(people, liked[people])
        self.model.partial_fit_items(items, liked.T.tocsr()[items])

    def _matrix(self, person: np.ndarray, item: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
        return sparse.csr_matrix((np.ones(len(item), np.float32), (person, item)), shape=shape)


def _liked(sessions: Sessions) -> tuple[np.ndarray, np.ndarray]:
    return sessions.item[sessions.positive], sessions.time[sessions.positive]
