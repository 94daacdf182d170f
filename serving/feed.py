"""What the user tower reads of histories, laid out for it: compiled by numba, for it runs in every request."""

# mypy: allow-untyped-defs
import numpy as np
from numba import njit

from recsys.sessions import GAP_EDGES


@njit(cache=True, nogil=True)
def feed(start, item, kind, time, base, late, most):
    """Return items (B, L, d) float32, kinds and gaps (B, L) int64, and lengths (B,): of each history the newest `most` events, then zeros.

    start (B + 1,), item, kind and time as in recsys.sessions.Histories; an item's vector is in base (n, d) or, behind it, in late (m, d).
    gaps are those of recsys.sessions.gap_buckets.
    """
    lengths = np.minimum(start[1:] - start[:-1], most)
    longest = lengths.max()
    items = np.empty((len(lengths), longest, base.shape[1]), np.float32)
    kinds, gaps = np.zeros((len(lengths), longest), np.int64), np.zeros((len(lengths), longest), np.int64)
    for row in range(len(lengths)):
        first = start[row + 1] - lengths[row]
        for at in range(lengths[row]):
            event = first + at
            table, place = (base, item[event]) if item[event] < len(base) else (late, item[event] - len(base))
            for number in range(table.shape[1]):
                items[row, at, number] = table[place, number]
            kinds[row, at] = kind[event]
            if at > 0:
                gaps[row, at] = 1 + np.searchsorted(GAP_EDGES, (time[event] - time[event - 1]) / 1000, side="right")
        items[row, lengths[row] :] = 0
    return items, kinds, gaps, lengths
