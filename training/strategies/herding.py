"""Which examples stand best for the others: herding (Welling, ICML 2009), as iCaRL chooses exemplars (Rebuffi et al., CVPR 2017)."""

import numpy as np

from recsys.batches import Examples
from training.strategies.answers import readers
from training.strategies.base import Update

POOL = 20_000
"""Of a larger memory so many are looked at, drawn by chance."""


def herded(vectors: np.ndarray, n: int) -> np.ndarray:
    """Return which `n` of the vectors (N, d) to keep, best first: each brings the mean of those kept nearest to the mean of all.

    iCaRL, algorithm 4.
    """
    mean, summed, left, chosen = vectors.mean(axis=0), np.zeros(vectors.shape[1]), np.ones(len(vectors), bool), list[int]()
    for kept in range(1, min(n, len(vectors)) + 1):
        distance = np.square(mean - (summed + vectors) / kept).sum(axis=1)
        best = int(np.argmin(np.where(left, distance, np.inf)))
        chosen.append(best)
        left[best] = False
        summed = summed + vectors[best]
    return np.array(chosen, np.int64)


def exemplars(update: Update, size: int) -> Examples:
    """Return the examples of the memory that stand for the others, about `size`: of each item that came last, as large a share as it has.

    (Mi et al., RecSys 2020, section 3.2: of an item that is met more often, more are kept.)
    """
    memory = update.memory.examples
    if update.parent is None or not len(memory):
        return Examples.none()
    some = memory if len(memory) <= POOL else memory.take(np.sort(update.rng.choice(len(memory), POOL, replace=False)))
    if len(some) <= size:
        return some
    vectors, item = readers(update.parent, some)
    order = np.argsort(item, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(item[order])) + 1)
    share = size * np.array([len(group) for group in groups]) / len(some)
    most = np.floor(share + update.rng.random(len(groups))).astype(int)  # a rare item's exemplar is kept by chance, all together as many
    return some.take(np.sort(np.concatenate([group[herded(vectors[group], n)] for group, n in zip(groups, most, strict=True) if n])))
