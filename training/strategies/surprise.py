"""What surprised counts more: an example's weight follows how wrong the parent was about it, within bounds.

Near to importance sampling by loss (Katharopoulos & Fleuret, ICML 2018), whose bound it keeps: noise is surprising, too.
"""

from dataclasses import replace

import torch

from recsys.batches import Batch
from recsys.errors import BadInput
from training.strategies.answers import confusion, drawn
from training.strategies.base import Strategy, Update


class Surprise(Strategy):
    """Weigh each example by (its loss / the batch's mean)^strength, between 1/most and most; a batch weighs as much as before."""

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
        counts = (wrong / wrong.mean().clamp(min=1e-9)).pow(self.strength).clamp(1 / self.most, self.most)
        weight = batch.weight * counts[:, None]
        return replace(batch, weight=weight * (batch.weight.sum() / weight.sum().clamp(min=1e-9)))
