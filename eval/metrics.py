"""How good a ranking is: pure functions of the exact ranks of what was wanted.

Query q of Q wants the items start[q]:start[q + 1], one at least; ranks (R,) holds the rank of each of them, `MISS` where it has none.
Every figure is (ranks (R,), start (Q + 1,), k) -> (Q,) float64, from 0 to 1.
"""

from collections.abc import Callable

import numpy as np
import torch

from recsys.sessions import Pairs

MISS = np.iinfo(np.int64).max
"""The rank of an item that could not be recommended: never learned, or excluded."""


def bar(scores: np.ndarray, excluded: Pairs | None = None) -> None:
    """Write -inf into `scores` (B, n) for what may not be recommended: row 0, the unknown item, and what is excluded."""
    scores[:, 0] = -np.inf
    if excluded is not None:
        scores[excluded] = -np.inf


def ranks(scores: np.ndarray, start: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return the exact rank of each wanted item in the full catalogue: 1 + the others that score as high or higher.

    scores (B, n) by vocabulary row, start (B + 1,), relevant (R,) rows -> (R,) int64. Ties count against us: a wanted item stands
    behind every other that scores the same, wanted ones take their places one after the other. A NaN stands ahead of everything, and
    to score NaN or -inf is a MISS.
    """
    count = np.diff(start)
    found = np.empty(len(relevant), np.int64)
    for place in range(count.max(initial=0)):
        asked = np.flatnonzero(count > place)
        wanted = start[asked] + place
        found[wanted] = _ranks(scores if len(asked) == len(scores) else scores[asked], relevant[wanted])
    return found if len(relevant) == len(scores) else _one_after_the_other(found, start)


def _ranks(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    own = scores[np.arange(len(target)), target]
    behind = np.count_nonzero(scores < own[:, None], axis=1)
    return np.where(own > -np.inf, scores.shape[1] - behind, MISS)


def _one_after_the_other(ranks: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Part the wanted items of one query that share a rank: n of them at rank r hold r - n + 1 to r."""
    query = _query(start)
    order = np.lexsort((ranks, query))
    same = (query[order][1:] == query[order][:-1]) & (ranks[order][1:] == ranks[order][:-1])
    opens = np.flatnonzero(np.append(True, ~same))
    size = np.diff(opens, append=len(order))
    back = np.repeat(opens + size, size) - 1 - np.arange(len(order))
    parted = ranks.copy()
    parted[order] = np.where(ranks[order] == MISS, MISS, ranks[order] - back)
    return parted


def recall(ranks: np.ndarray, start: np.ndarray, k: int) -> np.ndarray:
    """Return the share of the wanted items that are among the best k."""
    return _sum(ranks <= k, start) / np.diff(start)


def hit_rate(ranks: np.ndarray, start: np.ndarray, k: int) -> np.ndarray:
    """Return 1 where any wanted item is among the best k."""
    return (_sum(ranks <= k, start) > 0).astype(np.float64)


def mrr(ranks: np.ndarray, start: np.ndarray, k: int) -> np.ndarray:
    """Return 1 / rank of the best wanted item if it is among the best k, else 0."""
    best = np.minimum.reduceat(ranks, start[:-1]) if len(start) > 1 else ranks
    return np.where(best <= k, 1 / np.minimum(best, k), 0.0)


def ndcg(ranks: np.ndarray, start: np.ndarray, k: int) -> np.ndarray:
    """Return the sum of 1 / log2(1 + rank) over wanted items among the best k, against the best list there could be.

    That one begins with min(k, wanted) of the wanted (Järvelin & Kekäläinen, 2002, with relevance 0 or 1).
    """
    gain = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(gain)[np.minimum(np.diff(start), k) - 1]
    return _sum(np.where(ranks <= k, gain[np.minimum(ranks, k) - 1], 0.0), start) / ideal


def map(ranks: np.ndarray, start: np.ndarray, k: int) -> np.ndarray:
    """Return the average precision: the precision at each wanted item among the best k, summed, over min(k, wanted)."""
    if len(ranks) == len(start) - 1:
        return mrr(ranks, start, k)  # the same where one is wanted, and much faster
    order = np.lexsort((ranks, _query(start)))
    place = np.empty(len(ranks), np.int64)
    place[order] = np.arange(len(ranks)) - np.repeat(start[:-1], np.diff(start)) + 1  # the query's first hit, its second, ...
    precision = np.where(ranks <= k, place / np.minimum(ranks, k), 0.0)
    return _sum(precision, start) / np.minimum(np.diff(start), k)


METRICS: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "recall": recall,
    "ndcg": ndcg,
    "mrr": mrr,
    "hit_rate": hit_rate,
    "map": map,
}


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """Return the rows of the best k items, best first, (B, n) -> (B, k) int32; 0 where there are fewer that do not score -inf."""
    values, rows = torch.from_numpy(scores).topk(min(k, scores.shape[1]))  # seven times as fast as numpy's argpartition
    best = np.where(values.numpy() > -np.inf, rows.numpy(), 0).astype(np.int32)
    return np.pad(best, ((0, 0), (0, k - best.shape[1])))


def _query(start: np.ndarray) -> np.ndarray:
    """Return which query wants each item, (R,)."""
    return np.repeat(np.arange(len(start) - 1), np.diff(start))


def _sum(values: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Sum values (R,) over each query's items, (Q,)."""
    return np.bincount(_query(start), values, len(start) - 1)
