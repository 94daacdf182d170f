"""Experience replay (Rolnick et al., NeurIPS 2019): remembered sessions beside the new ones."""

import numpy as np

from recsys.batches import Batch, Examples
from recsys.batches import batch as as_batch
from recsys.errors import BadInput, nearest
from recsys.towers import Towers
from training.strategies.answers import confused, drawn
from training.strategies.base import Strategy, Update
from training.strategies.herding import POOL, exemplars

WAYS = ("reservoir", "recent", "loss", "herding")

HALF = 0.25
"""Share of all that was learned after which a memory counts half, where newer ones are preferred."""

RANKED = 0.7
"""How much a rank counts: chance 1 / rank^0.7 (Schaul et al., ICLR 2016, section 3.3)."""


class Replay(Strategy):
    """Train on the new sessions and, beside them, a sample of remembered ones.

    share: of a batch. size: how many of the memory are used, 0 for all of it (how much is kept at all is update.memory). by: how they are
    drawn: "reservoir", each as likely as the others; "recent", newer ones rather; "loss", rather those that the parent was wrong about;
    "herding", only those that stand best for the others (iCaRL).
    """

    name = "replay"

    def __init__(self, share: float = 0.5, by: str = "reservoir", size: int = 0):
        if not 0 < share < 1:
            raise BadInput(f"replay.share is the remembered part of a batch, more than 0 and less than 1; got {share}")
        if by not in WAYS:
            raise BadInput(f"replay.by is how memories are drawn; {nearest(str(by), WAYS)}")
        if size < 0:
            raise BadInput(f"replay.size is how many memories are used, 0 for all; got {size}")
        self.share, self.by, self.size = share, by, size
        self.past, self.until = Examples.none(), np.zeros(0)

    def prepare(self, towers: Towers, update: Update) -> None:
        """Choose what may be replayed, and how likely each is."""
        self.past = past = self._chosen(update)
        rank = np.arange(len(past))
        chance = np.ones(len(past))
        if self.by == "recent" and len(past):
            chance = 0.5 ** ((len(past) - 1 - rank) / (HALF * len(past)))
        if self.by == "loss" and update.parent is not None and len(past):
            wrong = confused(update.parent, past, drawn(update.known, 500, update), update)
            chance[np.argsort(-wrong, kind="stable")] = 1 / (1 + rank) ** RANKED
        self.until = np.cumsum(chance)

    def mix(self, batch: Batch, update: Update) -> Batch:
        """Add the share of remembered examples to a batch."""
        n = round(len(batch) * self.share / (1 - self.share))
        if not n or not len(self.past):
            return batch
        if self.by in ("reservoir", "herding"):
            which = update.rng.integers(0, len(self.past), n)
        else:
            which = np.searchsorted(self.until, update.rng.random(n) * self.until[-1], side="right")
        past = self.past.take(which)
        return batch.join(as_batch(past, past.drawn(update.wishes, update.rng)))

    def _chosen(self, update: Update) -> Examples:
        past = update.memory.examples
        if self.by == "herding":
            return exemplars(update, self.size or POOL // 10)
        most = self.size or (POOL if self.by == "loss" else len(past))
        return past if len(past) <= most else past.take(np.sort(update.rng.choice(len(past), most, replace=False)))
