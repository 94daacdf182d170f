"""What most people liked lately, the same for everybody."""

import numpy as np

from eval.baselines.shared import check, fade, positive, wide
from eval.timeline import Learned, Queries, Window
from recsys.sessions import sessionise
from recsys.settings import Settings


class Popular:
    """Liked events are counted; one counts half after `half_life` days."""

    name = "popular"
    random = False

    def __init__(self, settings: Settings, half_life: float = 1.0):
        check(self.name, 1e-3, 1e5, half_life=half_life)
        self.half_life = half_life
        self.count = np.zeros(1)
        self.now = 0

    def learn(self, window: Window) -> Learned:
        liked = positive(sessionise(window.events, window.vocab))
        now = int(liked.time.max(initial=self.now))
        self.count = np.pad(self.count * fade(self.now, now, self.half_life), (0, len(window.vocab) - len(self.count)))
        self.count += np.bincount(liked.item, fade(liked.time, now, self.half_life), len(self.count))
        self.now = now
        return Learned(examples=len(liked))

    def scores(self, queries: Queries) -> np.ndarray:
        return np.tile(self.share(queries.n_items), (len(queries), 1))

    def share(self, n_items: int) -> np.ndarray:
        """Return each row's share of all that is liked, (n_items,) float32."""
        return wide(self.count / max(self.count.sum(), 1e-12), n_items)

    def blended(self, votes: np.ndarray, weight: float) -> np.ndarray:
        """Return votes (B, n_items) >= 0 as shares of all votes for a query, plus `weight` times the share of popularity.

        Two chances, mixed: where few films make up half of what is watched popularity says much, in a large shop it says little,
        and the same weight does for both. Where nobody votes, popularity is all there is, whatever its weight. `votes` is written to.
        """
        total = votes.sum(axis=1, keepdims=True)
        votes /= np.where(total > 0, total, 1)
        share = self.share(votes.shape[1])
        votes += np.float32(weight) * share
        votes[total[:, 0] <= 0] = share
        return votes

    def size(self) -> int:
        return 4 * len(self.count)
