"""implicit's matrix factorisation by alternating least squares (Hu, Koren and Volinsky, 2008)."""

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse
from threadpoolctl import threadpool_limits

from eval.baselines.popular import Popular
from eval.baselines.shared import People, check, ends, wide
from eval.timeline import Learned, Queries, Window
from recsys.settings import Settings


class ALS:
    """Fitted once, then kept up to date by implicit's own partial fit of the people and items that are new or did something.

    A person is solved for at the moment of the question from the newest events of the history, the item vectors held fixed; somebody
    without a history is shown what is popular. rounds: how often an update solves for people and then for items.
    """

    name = "als"
    random = True

    def __init__(
        self,
        settings: Settings,
        factors: int = 192,
        regularization: float = 0.4,
        alpha: float = 110.0,
        iterations: int = 15,
        rounds: int = 2,
        newest: int = 30,
        fading: float = 1.2,
        popularity: float = 60.0,
    ):
        check(self.name, 1, 1024, whole=True, factors=factors, iterations=iterations, rounds=rounds, newest=newest)
        check(self.name, 0, 1e6, regularization=regularization, popularity=popularity)
        check(self.name, 1e-3, 1e5, alpha=alpha, fading=fading)
        self.rounds, self.newest, self.fading, self.popularity = rounds, newest, fading, popularity
        with threadpool_limits(1, "blas"):  # implicit brings its own threads; BLAS threads beside them fight for the cores
            self.model = AlternatingLeastSquares(
                factors,
                regularization,
                alpha,
                iterations=iterations,
                num_threads=settings.training.threads,
                random_state=settings.training.seed,
            )
        self.people = People()
        self.popular = Popular(settings)

    def learn(self, window: Window) -> Learned:
        self.popular.learn(window)
        people, items = self.people.add(window)
        if not len(items):
            return Learned()
        liked = self.people.matrix(len(window.vocab))
        with threadpool_limits(1, "blas"):
            if self.model.item_factors is None:
                self.model.fit(liked, show_progress=False)
                return Learned(examples=self.model.iterations * liked.nnz)
            return Learned(examples=self._partial_fit(liked, people, items))

    def scores(self, queries: Queries) -> np.ndarray:
        if self.model.item_factors is None:
            return self.popular.scores(queries)
        liked = ends(queries.histories, len(self.model.item_factors), self.newest, self.fading)
        with threadpool_limits(1, "blas"):
            people = self.model.recalculate_user(np.arange(len(queries)), liked)
            scores = wide(people @ self.model.item_factors.T, queries.n_items)
        share = self.popular.share(queries.n_items)
        scores += np.float32(self.popularity) * share
        scores[np.diff(liked.indptr) == 0] = share
        return scores

    def size(self) -> int:
        return self.popular.size() + (0 if self.model.item_factors is None else self.model.item_factors.nbytes)

    def _partial_fit(self, liked: sparse.csr_matrix, people: np.ndarray, items: np.ndarray) -> int:
        """Solve for these people and items anew; return how many likes of the people were gone through."""
        new = liked.shape[1] - len(self.model.item_factors)
        self.model.item_factors = np.pad(self.model.item_factors, ((0, new), (0, 0)))
        theirs, its = liked[people], liked.T.tocsr()[items]
        for _ in range(self.rounds):
            self.model.partial_fit_users(people, theirs)
            self.model.partial_fit_items(items, its)
        return self.rounds * theirs.nnz
