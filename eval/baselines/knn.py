"""The nearest remembered timelines vote (recsys.neighbours, in the family of V-SKNN and STAN)."""

import numpy as np

from eval.baselines.popular import Popular
from eval.baselines.shared import check
from eval.timeline import Learned, Queries, Window
from recsys.again import returns
from recsys.neighbours import Neighbours
from recsys.sessions import sessionise
from recsys.settings import Settings


class Knn:
    """Their votes, mixed with what is popular; where nobody votes the popular comes first. The other defaults are the memory's own.

    returning: by what the score of the item before the newest is multiplied, for people go back (see recsys.again); where what somebody
    had is left out, it does nothing.
    """

    name = "knn"
    random = False

    def __init__(
        self,
        settings: Settings,
        nearest: int = Neighbours.nearest,
        newest: int = Neighbours.newest,
        fading: float = Neighbours.fading,
        days: float = Neighbours.days,
        popularity: float = 1.0,
        returning: float = 50.0,
    ):
        check(self.name, 1, 100_000, whole=True, nearest=nearest)
        check(self.name, 1, 1000, whole=True, newest=newest)
        check(self.name, 1e-3, 1e5, fading=fading, days=days)
        check(self.name, 0, 1e3, popularity=popularity, returning=returning)
        self.popularity, self.returning = popularity, returning
        self.memory = Neighbours(nearest=nearest, newest=newest, fading=fading, days=days)
        self.popular = Popular(settings)

    def learn(self, window: Window) -> Learned:
        self.memory.add(sessionise(window.events, window.vocab))
        return self.popular.learn(window)

    def scores(self, queries: Queries) -> np.ndarray:
        scores = self.popular.blended(self.memory.scores(queries.histories, queries.now, queries.n_items), self.popularity)
        had = returns(queries.histories)
        before = had.place == 1
        scores[had.query[before], had.item[before]] *= self.returning
        return scores

    def size(self) -> int:
        return self.memory.bytes + self.popular.size()
