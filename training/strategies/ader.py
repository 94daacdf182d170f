"""ADER (Mi, Lin & Faltings, RecSys 2020): exemplars chosen by herding, and distilled with a weight that follows the data."""

import math

from torch import Tensor

from recsys.batches import Batch, Examples
from recsys.batches import batch as as_batch
from recsys.errors import BadInput
from recsys.towers import Towers
from training.strategies.answers import drawn
from training.strategies.base import Strategy, Update
from training.strategies.distill import taught
from training.strategies.herding import exemplars


class Ader(Strategy):
    """Add lambda * divergence from the parent on exemplars alone; the new sessions are learned as they come.

    lambda = weight * sqrt(old items / all items * exemplars / new examples) (section 3.3): the more is new, the less the past holds.
    size: exemplars; items: old items that a step compares.
    """

    name = "ader"

    def __init__(self, weight: float = 1.0, size: int = 5000, items: int = 1000):
        if weight < 0:
            raise BadInput(f"ader.weight is how much exemplars count, 0 or more; got {weight}")
        if size < 1:
            raise BadInput(f"ader.size is how many exemplars stand for the past, 1 or more; got {size}")
        if items < 2:
            raise BadInput(f"ader.items is how many old items are compared in a step, 2 or more; got {items}")
        self.weight, self.size, self.items = weight, size, items
        self.exemplars = Examples.none()

    def prepare(self, towers: Towers, update: Update) -> None:
        """Choose the exemplars, as the parent sees them."""
        self.exemplars = exemplars(update, self.size)

    def adapted(self, items: int, known: int, new: int) -> float:
        """Return the weight of the past: items and known count row 0; new: how many examples are."""
        if not new or items < 2:
            return 0.0
        return self.weight * math.sqrt((known - 1) / (items - 1) * len(self.exemplars) / new)

    def penalties(self, towers: Towers, batch: Batch, update: Update) -> dict[str, Tensor]:
        """Return the divergence from the parent on as many exemplars as the batch is large."""
        if update.parent is None or update.known < 3 or not len(self.exemplars):
            return {}
        some = self.exemplars.take(update.rng.integers(0, len(self.exemplars), min(len(batch), len(self.exemplars))))
        past = as_batch(some).to(batch.item.device)
        rows = drawn(update.known, self.items, update).to(batch.item.device)
        weight = self.adapted(len(towers.items.ids.weight), update.known, update.learned)
        return {"ader": weight * taught(towers, past, rows, update, 1.0)}
