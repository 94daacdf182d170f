"""Generative replay (Shin et al., NeurIPS 2017): what the parent makes up takes the place of a past that may not be kept."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from recsys.batches import WISHES, Batch, Examples
from recsys.batches import batch as as_batch
from recsys.errors import BadInput
from recsys.sessions import N_GAPS
from recsys.towers import Towers
from training.strategies.base import Strategy, Update

CELLS = 2**23
"""Scores in memory at once."""


class Generate(Strategy):
    """Train on the new sessions and, beside them, on sessions that the parent makes up: item by item, as likely as it finds them.

    A release of such a strategy holds no session of anybody: neither a replay memory nor the neighbours' sessions, nor what another
    strategy had kept. Figures of items stay (first and last seen, popularity, the mean vector of who went on to it), and older releases
    keep what they hold. What an event was and how long after the last is drawn from the new sessions. share: of a batch; sessions: made
    up for an update; length: their items.
    """

    name = "generate"
    private = True
    excludes: ClassVar[dict[str, str]] = {
        "replay": "there is no past to replay where none is kept",
        "ader": "there are no exemplars where none is kept",
        "agem": "there is no memory to ask where none is kept",
        "gem": "there is no memory to ask where none is kept",
        "der": "it keeps sessions, and none may be kept",
    }

    def __init__(self, share: float = 0.5, sessions: int = 2000, length: int = 10):
        if not 0 < share < 1:
            raise BadInput(f"generate.share is the made-up part of a batch, more than 0 and less than 1; got {share}")
        if sessions < 1:
            raise BadInput(f"generate.sessions is how many are made up, 1 or more; got {sessions}")
        if length < 2:
            raise BadInput(f"generate.length is how many items a made-up session has, 2 or more; got {length}")
        self.share, self.sessions, self.length = share, sessions, length
        self.new, self.past = Examples.none(), Examples.none()

    def select(self, examples: Examples, update: Update) -> Examples:
        """Look at what events are like now, and let the parent make up the past."""
        self.new = examples
        if update.parent is not None and update.known > 2 and len(examples):
            self.past = self._made_up(update.parent, update)
        return examples

    def mix(self, batch: Batch, update: Update) -> Batch:
        """Add the share of made-up examples to a batch."""
        n = round(len(batch) * self.share / (1 - self.share))
        if not n or not len(self.past):
            return batch
        return batch.join(as_batch(self.past.take(update.rng.integers(0, len(self.past), n))))

    @torch.no_grad()
    def _made_up(self, parent: Towers, update: Update) -> Examples:
        """Return sessions that the parent draws: the first item by how popular it is, each next by its own score, none twice."""
        rng, n, length = update.rng, self.sessions, min(self.length, parent.users.place.num_embeddings)
        liked, forwards = self.new.weight > 0, self.new.gap < N_GAPS  # what is made up is read forwards, as the parent makes it up
        like = rng.choice(np.flatnonzero(liked & forwards if (liked & forwards).any() else liked), (n, length))
        kind, gap, where = self.new.kind[like], self.new.gap[like], self.new.surface[like]
        gap[:, 0] = 0
        popular = update.objective.log_share[0, : update.known].double()
        vectors, item = parent.items(torch.arange(update.known)), np.zeros((n, length), np.int64)
        for some in np.array_split(np.arange(n), -(-n * update.known // CELLS)):
            told = item[some], kind[some], gap[some], where[some]
            seen = np.arange(update.known) == np.zeros((len(some), 1))  # row 0 is no item
            for place in range(length):
                scores = _next(parent, vectors, *told, place, popular) if place else popular.expand(len(some), -1)
                chance = np.where(seen, -np.inf, scores.numpy())
                told[0][:, place] = np.argmax(chance - np.log(-np.log(rng.random(chance.shape))), axis=1)  # by the softmax (Gumbel)
                seen[np.arange(len(some)), told[0][:, place]] = True
            item[some] = told[0]
        return Examples(
            start=np.arange(0, n * length + 1, length),
            whose=np.zeros(n, np.uint64),
            item=item.astype(np.int32).ravel(),
            kind=kind.ravel(),
            gap=gap.ravel(),
            weight=np.tile((np.arange(length) > 0).astype(np.float32), n),
            moment=np.zeros(n * length, np.int16),  # the popularity that they were drawn under
            wish=np.zeros((n * length, WISHES), np.int32),
            surface=self.new.surface[like].ravel(),
        )


def _next(
    parent: Towers, vectors: Tensor, item: np.ndarray, kind: np.ndarray, gap: np.ndarray, where: np.ndarray, place: int, popular: Tensor
) -> Tensor:
    """Return the parent's scores of every row after the first `place` events of some sessions, (n, known)."""
    told = [torch.from_numpy(column[:, :place].astype(np.int64)) for column in (item, kind, gap)]
    asked = torch.from_numpy(where[:, 1 : place + 1].astype(np.int64))
    users = parent.users(vectors[told[0]], told[1], told[2], asked)[:, -1]
    return parent.scale().double() * (users @ vectors.T).double() + parent.popularity.double() * popular
