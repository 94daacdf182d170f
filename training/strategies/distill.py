"""Learning without forgetting (Li & Hoiem, ECCV 2016, section 3): the parent's own answers about old items are a second teacher."""

import torch
from torch import Tensor

from recsys.batches import Batch
from recsys.errors import BadInput
from recsys.towers import Towers
from training.strategies.answers import divergence, drawn, logits
from training.strategies.base import Strategy, Update

PLACES = 512
"""At most so many places of a batch are asked in a step, drawn anew each time."""


class Distill(Strategy):
    """Add weight * T^2 KL(parent || towers) over old items, on the new sessions and on those that are replayed.

    items: how many old items a step compares; those are drawn anew in each, all where there are fewer.
    """

    name = "distill"

    def __init__(self, weight: float = 1.0, temperature: float = 1.0, items: int = 1000):
        if weight < 0:
            raise BadInput(f"distill.weight is how much the parent's answers count, 0 or more; got {weight}")
        if temperature <= 0:
            raise BadInput(f"distill.temperature softens the parent's answers, more than 0; got {temperature}")
        if items < 2:
            raise BadInput(f"distill.items is how many old items are compared in a step, 2 or more; got {items}")
        self.weight, self.temperature, self.items = weight, temperature, items

    def penalties(self, towers: Towers, batch: Batch, update: Update) -> dict[str, Tensor]:
        """Return the divergence from the parent; nothing in a first fit, which has none."""
        if update.parent is None or update.known < 3:
            return {}
        rows = drawn(update.known, self.items, update).to(batch.item.device)
        return {"distill": self.weight * taught(towers, batch, rows, update, self.temperature)}


def taught(towers: Towers, batch: Batch, rows: Tensor, update: Update, temperature: float) -> Tensor:
    """Return how far the towers are from the parent about some rows where a batch has something to learn, ()."""
    assert update.parent is not None
    where = batch.weight > 0
    places = torch.nonzero(where)
    if len(places) > PLACES:
        chosen = places[torch.from_numpy(update.rng.choice(len(places), PLACES, replace=False)).to(places.device)]
        where = torch.zeros_like(where)
        where[chosen[:, 0], chosen[:, 1]] = True
    with torch.no_grad():
        told = logits(update.parent, batch, rows, update, where)
    return divergence(told, logits(towers, batch, rows, update, where), batch.weight[where], temperature)
