"""The inner loops of the instance memory, compiled by numba: who is near a history, and what they vote for.

Compiled once on a machine and kept beside this file, or in numba's own folder where that cannot be written; for one type of each argument,
which is why callers `seal` what is theirs: an array that may be written to is another type. Between two of these loops numpy, which is far
better at it, sorts the keys.
"""

# mypy: allow-untyped-defs
import numpy as np
from numba import njit

DAY = 86_400_000.0


def seal(array: np.ndarray) -> np.ndarray:
    """Return a view of an array that cannot be written to, which is how one in a file comes."""
    view = array.view()
    view.flags.writeable = False
    return view


@njit(cache=True, nogil=True)
def occurrences(query, back, item, posting, code, candidates, line, shift):
    """Return where the newest `candidates` occurrences of each event's item are: keys of query, timeline, back and place, (K,) int64.

    query, back, item (E,); a code is a timeline << line | a place, and has room for `back << shift` between the two.
    """
    total = 0
    for event in range(len(item)):
        total += min(candidates, posting[item[event] + 1] - posting[item[event]])
    keys, at = np.empty(total, np.int64), 0
    for event in range(len(item)):
        more = query[event] << (line + 32) | back[event] << shift
        high = posting[item[event] + 1]
        for place in range(max(posting[item[event]], high - candidates), high):
            keys[at] = code[place] + more
            at += 1
    return keys


@njit(cache=True, nogil=True)
def votes(keys, weight, now, owner, start, ended, owners, items, times, share, shrink, nearest, days, line, shift):
    """Let the timelines that are nearest to each query vote; return keys of query, item and number (V,) int64, and the votes (V,) float64.

    keys (K,) as from `occurrences`, sorted, so that the first of a timeline is the match that stands latest in the history; weight (B, H)
    by query and back; now (B,); owner (B,), whose own timeline has no vote, or (0,). The number, in the lowest 24
    bits, is the place of the vote.
    """
    mask, reach = (1 << shift) - 1, len(share) // 2
    timelines, matches, similar = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64), np.empty(len(keys), np.float64)
    worth, ends, found, at = np.empty(len(keys), np.float64), np.zeros(len(now), np.int64), 0, 0
    while at < len(keys):
        query, timeline, match, sum = keys[at] >> (line + 32), keys[at] >> line & 0xFFFFFFFF, keys[at] & mask, 0.0
        same = keys[at] >> line
        while at < len(keys) and keys[at] >> line == same:
            sum += weight[query, keys[at] >> shift & (weight.shape[1] - 1)]
            at += 1
        if len(owner) == 0 or owners[timeline] != owner[query]:
            sum *= shrink[start[timeline + 1] - start[timeline]]
            timelines[found], matches[found], similar[found] = timeline, match, sum
            worth[found] = sum * (1 / (1 + abs(now[query] - ended[timeline]) / (DAY * days)))
            found += 1
        ends[query] = found
    chosen, many, low = np.empty(found, np.int64), np.zeros(len(now), np.int64), 0
    total = 0
    for query in range(len(now)):
        high = max(low, ends[query])
        limit, ties = -np.inf, 0
        if high - low > nearest:
            limit = np.partition(worth[low:high], high - low - nearest)[high - low - nearest]
            for one in range(low, high):
                ties += worth[one] > limit
            ties = nearest - ties  # so many of those at the limit, the last ones
            for one in range(high - 1, low - 1, -1):
                if worth[one] == limit:
                    if ties == 0:
                        worth[one] = -np.inf
                    else:
                        ties -= 1
        for one in range(low, high):
            if worth[one] >= limit:
                chosen[total] = one
                total += 1
        many[query] = total
        low = high
    room = 0
    for which in chosen[:total]:
        timeline = timelines[which]
        room += min(2 * reach + 1, start[timeline + 1] - start[timeline])
    out, vote, count, at = np.empty(room, np.int64), np.empty(room, np.float64), 0, 0
    for query in range(len(now)):
        for which in chosen[at : many[query]]:
            first, middle, end = start[timelines[which]], start[timelines[which]] + matches[which], start[timelines[which] + 1]
            for place in range(max(first, middle - reach), min(end, middle + reach + 1)):
                much = similar[which] * share[place - middle + reach]
                vote[count] = much * (1 / (1 + abs(now[query] - times[place]) / (DAY * days)))
                out[count] = (query << 31 | items[place]) << 24 | count
                count += 1
        at = many[query]
    return out[:count], vote[:count]


@njit(cache=True, nogil=True)
def summed(keys, vote):
    """Add up the votes of one query for one item, in the order they came: keys sorted -> query (V,), item (V,), vote (V,) float32."""
    query, item, total = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64), np.empty(len(keys), np.float32)
    found, at, number = 0, 0, (1 << 24) - 1
    while at < len(keys):
        pair, sum = keys[at] >> 24, 0.0
        while at < len(keys) and keys[at] >> 24 == pair:
            sum += vote[keys[at] & number]
            at += 1
        query[found], item[found], total[found] = pair >> 31, pair & 0x7FFFFFFF, sum
        found += 1
    return query[:found], item[:found], total[:found]
