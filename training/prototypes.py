"""Where an item is found: its own vector, and how far it leans towards the people who went on to it."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from recsys.batches import Examples, batch
from recsys.sessions import N_GAPS
from recsys.towers import Towers

AT_ONCE = 8192
"""Events that the user tower reads at once."""

LEANS = (0.0, 0.5, 1.0)
"""What is tried for `Prototypes.lean`."""

UNMEASURED = 0.5
"""What it is after a first fit."""


@dataclass(frozen=True)
class Prototypes:
    """What the item vectors of an index are made of, beside the items' own.

    people (n, d) float32: the mean of what the user tower makes of the histories that an item followed, as training cuts them, zeros where
    nobody did; remembered ones count whatever the strategy trains on. Sampled negatives leave a rare item where few steps have put it, and
    a step that moves the user tower leaves all items behind; the mean of those who went on to an item is right at once
    (nearest-mean-of-exemplars: iCaRL, Rebuffi et al., CVPR 2017; prototypes: Snell et al., NeurIPS 2017). lean: how much that counts beside
    the item's own vector. Anonymous sessions gain one to two points of recall@20 by 1; where people have long histories and popularity
    leads it does harm, so every update measures it anew (training.fusing).
    """

    people: np.ndarray
    lean: float

    def of(self, vectors: np.ndarray, lean: float | None = None) -> np.ndarray:
        """Return the unit vectors that items are found at, (n, d), from their own; row 0 stays all zeros."""
        places = vectors + np.float32(self.lean if lean is None else lean) * self.people
        return places / np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-12)

    def halfway(self, best: float) -> float:
        """Return a lean half way to what would have been best: one week is not like the next."""
        return (self.lean + best) / 2


def people(towers: Towers, known: Iterable[Examples], before: np.ndarray | None = None) -> np.ndarray:
    """Return the mean user vector before each item, (n, d) float32, over the examples that are read forwards.

    before (m, d): what it was for the first m items; it stays for those that nobody in `known` went on to.
    """
    vectors = torch.from_numpy(towers.item_vectors())
    summed, count = torch.zeros_like(vectors), torch.zeros(len(vectors))
    for some in known:
        forwards = np.flatnonzero(some.gap[some.start[:-1]] < N_GAPS)
        forwards = forwards[np.argsort(some.lengths[forwards], kind="stable")]
        part = np.cumsum(some.lengths[forwards]) // AT_ONCE
        for which in np.split(forwards, np.flatnonzero(np.diff(part)) + 1) if len(forwards) else []:
            reading, item = _before(towers, some.take(which), vectors)
            summed.index_add_(0, item, reading)
            count.index_add_(0, item, torch.ones(len(item)))
    found = (summed / count.clamp(min=1)[:, None]).numpy()
    if before is not None:
        found[: len(before)] = np.where(count[: len(before), None].numpy() > 0, found[: len(before)], before)
    return found


def askers(towers: Towers, known: Examples, vectors: np.ndarray, n: int) -> np.ndarray:
    """Return who `n` people were, each before one of the targets in examples, (n, d), spread over all; fewer where there are few."""
    forwards = np.flatnonzero(known.gap[known.start[:-1]] < N_GAPS)
    if not len(forwards):
        return np.zeros((0, vectors.shape[1]), np.float32)
    reading = _before(towers, known.take(_spread(forwards, n)), torch.from_numpy(vectors))[0].numpy()
    return _spread(reading, n)


def _spread(of: np.ndarray, n: int) -> np.ndarray:
    return of[np.unique(np.linspace(0, len(of) - 1, min(n, len(of)), dtype=np.int64))]


@torch.inference_mode()
def _before(towers: Towers, some: Examples, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return who somebody was before each target, (T, d), and the target's row, (T,)."""
    towers.eval()
    made = batch(some)
    learned = made.weight > 0
    return towers.users(vectors[made.item], made.kind, made.gap, made.surface)[learned], made.target[learned]
