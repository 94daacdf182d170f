"""Items that keep the company of what was watched (item-based neighbours: Sarwar et al., 2001; IKNN of Hidasi et al., 2016)."""

import numpy as np
from scipy import sparse

from eval.baselines.popular import Popular
from eval.baselines.shared import check, ends, fade, grown, only, pairs, wide, with_context
from eval.timeline import Learned, Queries, Window
from recsys.settings import Settings


class ItemKnn:
    """Likeness of two items = timelines that hold both / (sqrt(timelines that hold one * timelines that hold the other) + shrink).

    `shrink` holds down what rests on few timelines. Two items count as together where they stand at most `reach` places apart, in a
    timeline without its repeats. A timeline counts half after `half_life` days: an item from the day it was met, a pair from the day of its
    later item. The likeness to the newest items of a history is added up.
    """

    name = "itemknn"
    random = False

    def __init__(
        self,
        settings: Settings,
        shrink: float = 20.0,
        reach: int = 100,
        newest: int = 5,
        fading: float = 3.0,
        half_life: float = 150.0,
        popularity: float = 1.0,
    ):
        check(self.name, 0, 1e6, shrink=shrink)
        check(self.name, 1, 1000, whole=True, reach=reach, newest=newest)
        check(self.name, 1e-3, 1e5, fading=fading, half_life=half_life)
        check(self.name, 0, 1e3, popularity=popularity)
        self.shrink, self.reach, self.newest, self.fading = shrink, reach, newest, fading
        self.half_life, self.popularity = half_life, popularity
        self.popular = Popular(settings)
        self.together = sparse.csr_matrix((1, 1), dtype=np.float32)
        self.count = np.zeros(1, np.float32)
        self.now = 0

    def learn(self, window: Window) -> Learned:
        counted = self.popular.learn(window)
        sessions, new = with_context(window)
        rows = len(window.vocab)
        first = np.zeros(len(sessions), bool)
        first[np.unique(sessions.owner * rows + sessions.item, return_index=True)[1]] = True
        sessions, new = only(sessions, first), new[first]
        now = int(sessions.time.max(initial=self.now))
        kept = np.float32(fade(self.now, now, self.half_life))
        worth = np.asarray(fade(sessions.time, now, self.half_life), np.float32)
        self.count = np.pad(self.count * kept, (0, rows - len(self.count)))
        self.count += np.bincount(sessions.item[new], worth[new], rows).astype(np.float32)
        self.together = grown(self.together * kept, rows)
        for earlier, later in pairs(sessions, new, self.reach):
            pair = sparse.csr_matrix((worth[later], (sessions.item[earlier], sessions.item[later])), shape=self.together.shape)
            self.together = self.together + pair + pair.T
        self.now = now
        self.likeness = self._likeness()
        return counted

    def scores(self, queries: Queries) -> np.ndarray:
        alike = ends(queries.histories, self.likeness.shape[0], self.newest, self.fading) @ self.likeness
        return self.popular.blended(wide(alike.toarray(), queries.n_items), self.popularity)

    def size(self) -> int:
        return self.likeness.data.nbytes + self.likeness.indices.nbytes + self.likeness.indptr.nbytes + self.popular.size()

    def _likeness(self) -> sparse.csr_matrix:
        likeness = self.together.tocsr(copy=True)
        row = np.repeat(np.arange(len(self.count)), np.diff(likeness.indptr))
        likeness.data /= np.sqrt(self.count[row] * self.count[likeness.indices]) + self.shrink + 1e-12
        return likeness
