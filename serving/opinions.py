"""The inner loops of a list, compiled by numba: what may be in it, what the three experts say, and who comes first.

Rows that somebody may not be recommended are `own` (O,), ascending, 0 among them, and all where `out` (n + 1,) is true, or (0,) for none.
"""

# mypy: allow-untyped-defs
import numpy as np
from numba import njit

from recsys.fusion import BEST

FEW = 64
"""So many are kept in order while looking; where more are wanted, all are parted."""


@njit(cache=True, nogil=True)
def first(rows, own, out, k):
    """Return the places of the first `k` rows that may be recommended; what is no row, -1, may not."""
    places, count = np.empty(min(k, len(rows)), np.int64), 0
    for at in range(len(rows)):
        if count == len(places):
            break
        if not _barred(rows[at], own, out):
            places[count] = at
            count += 1
    return places[:count]


@njit(cache=True, nogil=True)
def opinions(nearest, voted, vote, own, out, popular, others, factor, base, late, bias, share, user, scale, weights, depth):
    """Return rows (C,), each once, what each of the three says of them (3, C), and the most that any other row can have.

    Looked at are the rows `nearest` to the towers, `others`, the `depth` most `popular` and the `depth` with most votes. popular (n,), the
    most popular first; voted (V,) ascending, with their vote; nearest and others are let in by the caller. What is said of the others is
    multiplied by their factor. A row's vector is in base (n, d) or, behind it, in late (m, d). scale turns inner products into logits;
    weights (2,) of votes and popularity.
    """
    heard, total_vote, before = np.empty(len(voted), np.float64), 0.0, 0
    for at in range(len(voted)):
        while before < len(own) and own[before] < voted[at]:
            before += 1
        hidden = (before < len(own) and own[before] == voted[at]) or (len(out) > 0 and out[voted[at]])
        heard[at] = -1.0 if hidden else vote[at]
        total_vote += 0.0 if hidden else vote[at]
    least_vote, unheard = _largest(heard, depth)

    room = len(nearest) + len(others) + min(depth, len(popular)) + len(voted)
    slots = 64
    while slots < 2 * room:
        slots *= 2
    rows, vote_of, table, count = np.empty(room, np.int64), np.zeros(room), np.zeros(slots, np.int64), 0
    for some in (nearest, others):
        for row in some:
            slot = _slot(table, rows, row)
            if table[slot] == 0:
                rows[count] = row
                count += 1
                table[slot] = count
    looked, least_share = 0, 0.0
    for row in popular:
        if looked == depth:
            break
        if not _barred(row, own, out):
            looked, least_share, slot = looked + 1, share[row], _slot(table, rows, row)
            if table[slot] == 0:
                rows[count] = row
                count += 1
                table[slot] = count
    for at in range(len(voted)):
        if heard[at] >= 0:
            slot = _slot(table, rows, voted[at])
            if table[slot] == 0 and heard[at] >= least_vote:
                rows[count] = voted[at]
                count += 1
                table[slot] = count
            if table[slot] > 0:
                vote_of[table[slot] - 1] = heard[at]
    rows = rows[:count]

    logit = np.empty(count, np.float64)
    for at in range(count):
        row = rows[at]
        product = _dot(base[row], user) if row < len(base) else _dot(late[row - len(base)], user)
        logit[at] = scale * (product + bias[row])
    best, lowest, total = logit[: len(nearest)], 0.0, 0.0
    if len(best):
        lowest = best.min()
        if len(best) > BEST:
            best = _parted(best, len(best) - BEST)[len(best) - BEST :]
        highest = max(best.max(), -1e30)
        total = highest + np.log(max(np.exp(best - highest).sum(), 1e-30))

    said, rest, each = np.empty((3, count)), 1 - weights.sum(), weights[0] / max(total_vote, 1e-12)
    for at in range(count):
        said[0, at] = rest * np.exp(logit[at] - total)
        said[1, at] = each * vote_of[at]
        said[2, at] = weights[1] * share[rows[at]]
    for at in range(len(factor)):
        place = table[_slot(table, rows, others[at])] - 1
        for who in range(3):
            said[who, place] *= factor[at]
    last = np.exp(lowest - total) if len(nearest) else 1.0
    return rows, said, rest * last + each * unheard + weights[1] * least_share


@njit(cache=True, nogil=True)
def best(rows, said, factor, k):
    """Return the rows of the best `k` (K,), best first and of equals the lowest row, their scores and who says most for each.

    rows (C,), said (3, C); factor (C,) of the scores, or (0,). What scores nothing is left out.
    """
    score, places, count = np.empty(len(rows), np.float64), np.empty(min(k, len(rows)), np.int64), 0
    for at in range(len(rows)):
        score[at] = said[0, at] + said[1, at] + said[2, at]
        if len(factor):
            score[at] *= factor[at]
    for at in range(len(rows)):
        if score[at] > 0 and (count < len(places) or _before(at, places[count - 1], score, rows)):
            place = count if count < len(places) else count - 1
            count = place + 1
            while place > 0 and _before(at, places[place - 1], score, rows):
                places[place] = places[place - 1]
                place -= 1
            places[place] = at
    places = places[:count]
    source = np.zeros(count, np.int64)
    for at in range(count):
        for who in range(1, 3):
            if said[who, places[at]] > said[source[at], places[at]]:
                source[at] = who
    return rows[places], score[places], source


@njit(cache=True, nogil=True)
def _before(one, other, score, rows):
    return score[one] > score[other] or (score[one] == score[other] and rows[one] < rows[other])


@njit(cache=True, nogil=True)
def _barred(row, own, out):
    place = np.searchsorted(own, row)
    return row <= 0 or (place < len(own) and own[place] == row) or (len(out) > 0 and out[row])


@njit(cache=True, nogil=True)
def _slot(table, rows, row):
    """Return where a row stands in a table of places, counted from 1, or the empty slot where it would."""
    mask = len(table) - 1
    slot = (row * 0x9E3779B1 >> 8) & mask
    while table[slot] != 0 and rows[table[slot] - 1] != row:
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True)
def _largest(values, k):
    """Return the k-th largest of values that are not negative, -1 where there are no more than k, and the one behind it, or 0."""
    if k >= len(values):
        return -1.0, 0.0
    if k > FEW:
        ordered = _parted(values, len(values) - k)
        return ordered[len(values) - k], max(0.0, ordered[: len(values) - k].max())
    top = np.full(k + 1, -1.0)
    for value in values:
        if value > top[k]:
            place = k
            while place > 0 and top[place - 1] < value:
                top[place] = top[place - 1]
                place -= 1
            top[place] = value
    return top[k - 1], max(0.0, top[k])


@njit(cache=True, nogil=True)
def _parted(values, at):
    """Return values so that what a sort would put there is at one place, and nothing larger before it (Hoare's FIND, 1961).

    As numpy.partition, which takes three seconds to compile.
    """
    parted, low, high = values.copy(), 0, len(values) - 1
    while low < high:
        middle, left, right = parted[(low + high) // 2], low, high
        while left <= right:
            while parted[left] < middle:
                left += 1
            while parted[right] > middle:
                right -= 1
            if left <= right:
                parted[left], parted[right] = parted[right], parted[left]
                left, right = left + 1, right - 1
        if at <= right:
            high = right
        elif at >= left:
            low = left
        else:
            break
    return parted


@njit(cache=True, nogil=True, fastmath=True)
def _dot(a, b):
    sum = np.float32(0)
    for at in range(len(a)):
        sum += a[at] * b[at]
    return sum
