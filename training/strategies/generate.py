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
    keep what they hold. What an event was, how long after the last, and how many there are is drawn from the new sessions. share: of a
    batch; times: how many are made up for each new one, so that none is learned by heart; sessions: made up for an update, at most;
    length: their items, at most; temperature: below 1 the parent makes up what it is surer of. What is drawn at 1 blurs what is
    known, update by update.
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

    def __init__(self, share: float = 0.5, times: float = 4.0, sessions: int = 100000, length: int = 10, temperature: float = 0.7):
        if not 0 < share < 1:
            raise BadInput(f"generate.share is the made-up part of a batch, more than 0 and less than 1; got {share}")
        if times <= 0:
            raise BadInput(f"generate.times is how many sessions are made up for each new one, more than 0; got {times}")
        if sessions < 1:
            raise BadInput(f"generate.sessions is how many are made up at most, 1 or more; got {sessions}")
        if length < 2:
            raise BadInput(f"generate.length is how many items a made-up session has at most, 2 or more; got {length}")
        if temperature <= 0:
            raise BadInput(f"generate.temperature is 1 for what the parent finds likely, nearer to 0 for the likeliest; got {temperature}")
        self.share, self.times, self.sessions, self.length, self.temperature = share, times, sessions, length, temperature
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
        """Return sessions that the parent draws: the first item by how popular it is, each next by its own score, none twice.

        They are as long as the new ones, so that they count for their share of a batch and not for more.
        """
        rng, most = update.rng, min(self.length, parent.users.place.num_embeddings, update.known - 1)
        n = max(1, min(self.sessions, round(self.times * len(self.new))))
        taught = np.add.reduceat(self.new.weight > 0, self.new.start[:-1], dtype=np.int64)
        length = np.sort(np.clip(rng.choice(taught, n) + 1, 2, most))[::-1]  # the longest stand first
        start, longest = np.append(0, np.cumsum(length)), int(length[0])
        liked, forwards = self.new.weight > 0, self.new.gap < N_GAPS  # what is made up is read forwards, as the parent makes it up
        like = rng.choice(np.flatnonzero(liked & forwards if (liked & forwards).any() else liked), (n, longest))
        item, kind, gap, where = np.zeros_like(like), self.new.kind[like], self.new.gap[like], self.new.surface[like]
        gap[:, 0] = 0
        vectors, popular = parent.items(torch.arange(update.known)), update.objective.log_share[0, : update.known]
        item[:, 0] = 1 + rng.choice(update.known - 1, n, p=popular[1:].double().softmax(0).numpy())
        for place in range(1, longest):
            going_on = np.arange(np.count_nonzero(length > place))
            for some in np.array_split(going_on, -(-len(going_on) * update.known // CELLS)):
                scores = _next(parent, vectors, item[some], kind[some], gap[some], where[some], place, popular)
                scores /= self.temperature
                scores[:, 0] = -torch.inf  # no item
                scores.scatter_(1, torch.from_numpy(item[some, :place]), -torch.inf)
                item[some, place] = _drawn(scores, rng)
        inside = np.arange(longest) < length[:, None]
        return Examples(
            start=start,
            whose=np.zeros(n, np.uint64),
            item=item[inside].astype(np.int32),
            kind=kind[inside],
            gap=gap[inside],
            weight=np.broadcast_to(np.arange(longest) > 0, inside.shape)[inside].astype(np.float32),
            moment=np.zeros(start[-1], np.int16),  # the popularity that they were drawn under
            wish=np.zeros((start[-1], WISHES), np.int32),
            surface=where[inside],
        )


def _next(
    parent: Towers, vectors: Tensor, item: np.ndarray, kind: np.ndarray, gap: np.ndarray, where: np.ndarray, place: int, popular: Tensor
) -> Tensor:
    """Return the parent's scores of every row after the first `place` events of some sessions, (n, known)."""
    told = [torch.from_numpy(column[:, :place].astype(np.int64)) for column in (item, kind, gap)]
    asked = torch.from_numpy(where[:, 1 : place + 1].astype(np.int64))
    users = parent.users(vectors[told[0]], told[1], told[2], asked)[:, -1]
    return torch.addmm(parent.popularity * popular, users * parent.scale(), vectors.T)


def _drawn(scores: Tensor, rng: np.random.Generator) -> np.ndarray:
    """Return a row of each (n, known), drawn by the softmax of its scores: (n,)."""
    reached = scores.sub_(scores.amax(1, keepdim=True)).exp_().cumsum(1, dtype=torch.float64)
    wanted = torch.from_numpy(rng.random(len(scores))[:, None]) * reached[:, -1:]
    return torch.searchsorted(reached, wanted, right=True)[:, 0].clamp(max=scores.shape[1] - 1).numpy()
