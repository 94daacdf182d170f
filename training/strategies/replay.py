"""Experience replay (Rolnick et al., NeurIPS 2019): remembered sessions beside the new ones."""

from recsys.batches import Batch
from recsys.batches import batch as as_batch
from recsys.errors import BadInput
from training.strategies.base import Strategy, Update


class Replay(Strategy):
    """Train on the new sessions and, beside them, a sample of remembered ones."""

    name = "replay"

    def __init__(self, share: float = 0.5):
        if not 0 < share < 1:
            raise BadInput(f"replay.share is the remembered part of a batch, between 0 and 1; got {share}")
        self.share = share

    def mix(self, batch: Batch, update: Update) -> Batch:
        """Add the share of remembered examples to a batch."""
        n = round(len(batch) * self.share / (1 - self.share))
        if not n or not len(update.memory):
            return batch
        past = update.memory.sample(n, update.rng)
        return batch.join(as_batch(past, past.drawn(update.wishes, update.rng)))
