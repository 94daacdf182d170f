"""Sequential rules: who had this had that some steps later (SR of Ludewig and Jannach, 2018; Kamehkhosh et al., 2017)."""

import numpy as np
from scipy import sparse

from eval.baselines.popular import Popular
from eval.baselines.shared import check, ends, fade, grown, pairs, wide, with_context
from eval.timeline import Learned, Queries, Window
from recsys.settings import Settings


class SequentialRules:
    """A rule `earlier -> later` weighs 1/steps for every time the two stood so many steps apart in a timeline.

    The rules of the newest items of a history are added up. A rule counts half after `half_life` days.
    """

    name = "rules"
    random = False

    def __init__(
        self,
        settings: Settings,
        steps: int = 10,
        newest: int = 6,
        fading: float = 2.3,
        half_life: float = 75.0,
        popularity: float = 3.0,
    ):
        check(self.name, 1, 1000, whole=True, steps=steps, newest=newest)
        check(self.name, 1e-3, 1e5, fading=fading, half_life=half_life)
        check(self.name, 0, 1e3, popularity=popularity)
        self.steps, self.newest, self.fading, self.half_life, self.popularity = steps, newest, fading, half_life, popularity
        self.popular = Popular(settings)
        self.weight = sparse.csr_matrix((1, 1), dtype=np.float32)
        self.now = 0

    def learn(self, window: Window) -> Learned:
        counted = self.popular.learn(window)
        sessions, new = with_context(window)
        now = int(sessions.time.max(initial=self.now))
        self.weight = grown(self.weight * np.float32(fade(self.now, now, self.half_life)), len(window.vocab))
        for earlier, later in pairs(sessions, new, self.steps):
            weight = fade(sessions.time[later], now, self.half_life) / (later - earlier)
            rules = (sessions.item[earlier], sessions.item[later])
            self.weight = self.weight + sparse.csr_matrix((weight.astype(np.float32), rules), shape=self.weight.shape)
        self.now = now
        return counted

    def scores(self, queries: Queries) -> np.ndarray:
        told = ends(queries.histories, self.weight.shape[0], self.newest, self.fading) @ self.weight
        return self.popular.blended(wide(told.toarray(), queries.n_items), self.popularity)

    def size(self) -> int:
        return self.weight.data.nbytes + self.weight.indices.nbytes + self.weight.indptr.nbytes + self.popular.size()
