"""How good a ranking is: pure functions of the exact rank of the one item that was wanted."""

import numpy as np

MISS = np.iinfo(np.int64).max
"""The rank of a target that could not be answered: never learned, or excluded."""

Pairs = tuple[np.ndarray, np.ndarray]
"""Query numbers and item rows, one pair each."""


def ranks(scores: np.ndarray, target: np.ndarray, excluded: Pairs | None = None) -> np.ndarray:
    """Return the exact rank of each target in the full catalogue: 1 + the others that score as high or higher.

    scores (B, n) by vocabulary row, target (B,) rows, excluded: what may not be recommended -> (B,) int64.
    Ties count against us and a NaN stands ahead of everything. Row 0, the unknown item, is no candidate; as a target it is a MISS,
    and so is a target that is excluded.
    """
    ahead = ~(scores < scores[np.arange(len(target)), target][:, None])
    ahead[:, 0] = False
    if excluded is not None:
        ahead[excluded] = False
    in_play = ahead[np.arange(len(target)), target]
    return np.where(in_play, np.count_nonzero(ahead, axis=1), MISS)


def recall(ranks: np.ndarray, k: int) -> np.ndarray:
    """Return 1 where the target is among the best k, (B,) -> (B,)."""
    return (ranks <= k).astype(np.float64)


def mrr(ranks: np.ndarray, k: int) -> np.ndarray:
    """Return 1 / rank where the target is among the best k, else 0, (B,) -> (B,)."""
    return np.where(ranks <= k, 1 / np.minimum(ranks, k), 0.0)


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """Return 1 / log2(1 + rank) where the target is among the best k, else 0, (B,) -> (B,); with one target the ideal is 1."""
    return np.where(ranks <= k, 1 / np.log2(1 + np.minimum(ranks, k)), 0.0)


def top(scores: np.ndarray, k: int, excluded: Pairs | None = None) -> np.ndarray:
    """Return the rows of the best k items, best first, (B, n) -> (B, k); row 0 where there are fewer.

    `scores` is written to: what may not be recommended becomes -inf.
    """
    scores[:, 0] = -np.inf
    if excluded is not None:
        scores[excluded] = -np.inf
    k = min(k, scores.shape[1])
    best = np.argpartition(scores, -k, axis=1)[:, -k:]
    values = np.take_along_axis(scores, best, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.where(np.take_along_axis(values, order, axis=1) > -np.inf, np.take_along_axis(best, order, axis=1), 0)


def coverage(shown: np.ndarray, n_items: int) -> float:
    """Return the share of the catalogue that stood in at least one list; shown: rows with 0 for none, any shape."""
    return len(np.setdiff1d(shown, [0])) / n_items if n_items else 0.0
