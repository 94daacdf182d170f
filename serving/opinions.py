"""What towers, neighbours and popularity say of the items that may come first: the inner loop of a list, compiled by numba."""

# mypy: allow-untyped-defs
import numpy as np
from numba import njit

from recsys.fusion import BEST


@njit(cache=True, nogil=True)
def opinions(nearest, voted, vote, popular, others, base, late, bias, share, user, scale, weights, depth):
    """Return rows (C,), ascending, what each of the three says of them (3, C), and the most that any other row can have.

    Looked at are the rows `nearest` to the towers, the `depth` with most votes, `popular` ones, the most popular first, and `others`; voted
    (V,) ascending, and their vote, as a share of all. A row's vector is in base (n, d) or, behind it, in late (m, d). scale turns inner
    products into logits; weights (2,) of votes and popularity.
    """
    unheard, least_vote = 0.0, -1.0
    if len(voted) > depth:
        ordered = np.partition(vote, len(vote) - depth)
        least_vote = ordered[len(vote) - depth]
        for one in ordered[: len(vote) - depth]:
            unheard = max(unheard, one)
    rows, count = np.empty(len(nearest) + len(voted) + len(popular) + len(others), np.int64), 0
    for some in (nearest, popular, others):
        for row in some:
            rows[count] = row
            count += 1
    for at in range(len(voted)):
        if vote[at] >= least_vote:
            rows[count] = voted[at]
            count += 1
    rows, found = np.sort(rows[:count]), 0
    for at in range(count):
        if at == 0 or rows[at] != rows[found - 1]:
            rows[found] = rows[at]
            found += 1
    rows = rows[:found]

    logit = np.empty(found, np.float64)
    for at in range(found):
        row = rows[at]
        product = _dot(base[row], user) if row < len(base) else _dot(late[row - len(base)], user)
        logit[at] = scale * (product + bias[row])
    best = np.empty(len(nearest), np.float64)
    for at in range(len(nearest)):
        best[at] = logit[np.searchsorted(rows, nearest[at])]
    lowest, total = 0.0, 0.0
    if len(best):
        lowest = best.min()
        if len(best) > BEST:
            best = np.partition(best, len(best) - BEST)[len(best) - BEST :]
        highest = max(best.max(), -1e30)
        total = highest + np.log(max(np.exp(best - highest).sum(), 1e-30))

    said, rest, next_vote = np.zeros((3, found)), 1 - weights.sum(), 0
    for at in range(found):
        row = rows[at]
        said[0, at] = rest * np.exp(logit[at] - total)
        while next_vote < len(voted) and voted[next_vote] < row:
            next_vote += 1
        if next_vote < len(voted) and voted[next_vote] == row:
            said[1, at] = weights[0] * vote[next_vote]
        said[2, at] = weights[1] * share[row]
    last = np.exp(lowest - total) if len(nearest) else 1.0
    least = share[popular[-1]] if len(popular) else 0.0
    return rows, said, rest * last + weights[0] * unheard + weights[1] * least


@njit(cache=True, nogil=True, fastmath=True)
def _dot(a, b):
    sum = np.float32(0)
    for at in range(len(a)):
        sum += a[at] * b[at]
    return sum
