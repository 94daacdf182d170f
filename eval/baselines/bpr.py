"""implicit's matrix factorisation by Bayesian personalised ranking (Rendle et al., 2009)."""

import numpy as np
from implicit.cpu.bpr import BayesianPersonalizedRanking
from implicit.recommender_base import ModelFitError
from scipy import sparse

from eval.baselines.popular import Popular
from eval.baselines.shared import People, check, ends, wide
from eval.timeline import Learned, Queries, Window
from recsys.errors import BadInput
from recsys.settings import Settings


class BPR:
    """Fitted once, then trained on with the new data, starting from the vectors that are there.

    implicit 0.7.3 has a partial fit for ALS only; its BPR can neither add a row nor work out a person it was not trained on
    (`recalculate_user` is not implemented). But its `fit` starts from the vectors it finds. So an update gives new people and items
    rows drawn as implicit draws them, then trains `update_iterations` epochs on all that the people of the lesson like; items that
    none of them liked stay bit for bit.

    A person at the moment of the question is worked out from the newest events of the history, the item vectors held fixed, by
    descending BPR's own loss: `steps` gradient steps of `rate`. For the negatives, which implicit draws as often as they are liked,
    stands the mean of the items weighted by just that. One thread, for with more the result would depend on who comes first.
    """

    name = "bpr"
    random = True

    def __init__(
        self,
        settings: Settings,
        factors: int = 128,
        learning_rate: float = 0.15,
        regularization: float = 0.01,
        iterations: int = 150,
        update_iterations: int = 30,
        newest: int = 5,
        fading: float = 1.2,
        steps: int = 10,
        rate: float = 2.5,
        popularity: float = 500.0,
    ):
        check(self.name, 1, 1024, whole=True, factors=factors, iterations=iterations, update_iterations=update_iterations)
        check(self.name, 1, 1000, whole=True, newest=newest, steps=steps)
        check(self.name, 0, 1e6, regularization=regularization, popularity=popularity)
        check(self.name, 1e-6, 10, learning_rate=learning_rate, rate=rate)
        check(self.name, 1e-3, 1e5, fading=fading)
        self.iterations, self.update_iterations = iterations, update_iterations
        self.newest, self.fading, self.steps, self.rate, self.popularity = newest, fading, steps, rate, popularity
        self.random_numbers = np.random.default_rng(settings.training.seed)
        self.model = BayesianPersonalizedRanking(factors, learning_rate, regularization, num_threads=1)
        self.people = People()
        self.popular = Popular(settings)
        self.users, self.items = np.zeros((0, factors + 1), np.float32), np.zeros((0, factors + 1), np.float32)
        self.middle = np.zeros(factors + 1, np.float32)

    def learn(self, window: Window) -> Learned:
        self.popular.learn(window)
        people, items = self.people.add(window)
        if not len(items):
            return Learned()
        liked = self.people.matrix(len(window.vocab))
        first = not len(self.items)
        self.items = self._grown(self.items, liked.shape[1])
        self.users = self._grown(self.users, liked.shape[0])
        self.users[:, -1] = 1.0  # the last column holds the items' biases
        theirs, epochs = liked[people], self.iterations if first else self.update_iterations
        self._train(theirs, people, epochs)
        count = np.asarray(liked.sum(axis=0)).ravel()
        self.middle = (count @ self.items / count.sum()).astype(np.float32)
        return Learned(examples=epochs * theirs.nnz)

    def scores(self, queries: Queries) -> np.ndarray:
        if not len(self.items):
            return self.popular.scores(queries)
        liked = ends(queries.histories, len(self.items), self.newest, self.fading)
        scores = wide(self._users(liked) @ self.items.T, queries.n_items)
        share = self.popular.share(queries.n_items)
        scores += np.float32(self.popularity) * share
        scores[np.diff(liked.indptr) == 0] = share
        return scores

    def size(self) -> int:
        return self.popular.size() + self.items.nbytes

    def _train(self, liked: sparse.csr_matrix, people: np.ndarray, epochs: int) -> None:
        model = self.model
        model.iterations, model.random_state = epochs, int(self.random_numbers.integers(2**31))
        model.user_factors, model.item_factors = self.users[people], self.items
        try:
            model.fit(liked, show_progress=False)
        except ModelFitError:
            raise BadInput(f"bpr.learning_rate = {model.learning_rate:g} is too high: the vectors run away; take a lower one") from None
        self.users[people] = model.user_factors

    def _grown(self, factors: np.ndarray, rows: int) -> np.ndarray:
        new = self.random_numbers.random((rows - len(factors), factors.shape[1]), np.float32) - 0.5
        return np.concatenate([factors, new / (factors.shape[1] - 1)])

    def _users(self, liked: sparse.csr_matrix) -> np.ndarray:
        """Work out people from what they like: (B, rows) weights -> (B, factors + 1), the last being 1."""
        person = np.repeat(np.arange(liked.shape[0]), np.diff(liked.indptr))
        ahead = self.items[liked.indices] - self.middle
        share = liked.data / np.bincount(person, liked.data, liked.shape[0])[person]
        mean = sparse.csr_matrix((share.astype(np.float32), np.arange(len(person)), liked.indptr), shape=(liked.shape[0], len(person)))
        users = np.zeros((liked.shape[0], self.items.shape[1]), np.float32)
        users[:, -1] = 1.0
        for _ in range(self.steps):
            wrong = 1 / (1 + np.exp((users[person] * ahead).sum(axis=1)))
            users[:, :-1] += self.rate * (mean @ (wrong[:, None] * ahead[:, :-1]) - self.model.regularization * users[:, :-1])
        return users
