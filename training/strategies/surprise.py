"""What surprised counts more: an example's weight follows how wrong the parent was about it, within bounds.

After importance sampling by loss (Katharopoulos & Fleuret, ICML 2018), but without its correction: they weigh what is drawn more often
less, so that the objective stays; here it is the objective that changes. Bounded, for noise is surprising, too.
"""

from dataclasses import replace

import torch

from recsys.batches import Batch
from recsys.errors import BadInput
from training.strategies.answers import confusion, drawn
from training.strategies.base import Strategy, Update


class Surprise(Strategy):
    """Weigh each example by a multiple of its loss^strength, between 1/most and most; the one with which a batch weighs as before."""

    name = "surprise"

    def __init__(self, strength: float = 0.5, most: float = 3.0):
        if strength < 0:
            raise BadInput(f"surprise.strength is how much confusion counts, 0 or more; got {strength}")
        if most < 1:
            raise BadInput(f"surprise.most is how many times as much as usual an example may count, 1 or more; got {most}")
        self.strength, self.most = strength, most

    def weights(self, batch: Batch, update: Update) -> Batch:
        """Say how much each example counts; a first fit has no parent to be surprised, so all count alike."""
        if update.parent is None:
            return batch
        with torch.no_grad():
            wrong = confusion(update.parent, batch, drawn(update.known, 500, update).to(batch.item.device), update)
        counts = within((wrong / wrong.max().clamp(min=1e-9)).pow(self.strength).clamp(min=1e-30), batch.weight.sum(1), self.most)
        return replace(batch, weight=batch.weight * counts[:, None])


def within(counts: torch.Tensor, weight: torch.Tensor, most: float) -> torch.Tensor:
    """Return c * counts for the c with which, cut to 1/most and most, they leave the sum of `weight` as it is: (B,), (B,) -> (B,)."""
    low, high = 1 / most / counts.max(), most / counts.min()
    for _ in range(40):
        middle = low.sqrt() * high.sqrt()
        less = ((middle * counts).clamp(1 / most, most) * weight).sum() < weight.sum()
        low, high = torch.where(less, middle, low), torch.where(less, high, middle)
    return (high * counts).clamp(1 / most, most)
