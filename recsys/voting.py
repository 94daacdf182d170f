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
def occurrences(start, item, kind, positive, rare, fade, posting, code, newest, candidates, line, shift):
    """Return where the newest `candidates` occurrences are of what each history ends in, and what it counts to share that.

    Histories: start (B + 1,), item and kind (N,); looked for are the newest events of each that are positive, by kind. rare (n,) is what an
    item counts, fade what an event counts that lies so far back. Keys of query, timeline, back and place (K,) int64: a code is a timeline
    << line | a place, and has room for `back << shift` between the two. Weights (B, H) by query and back.
    """
    weight, total = np.zeros((len(start) - 1, 1 << (line - shift)), np.float64), 0
    for query in range(len(start) - 1):
        for back in range(min(newest, start[query + 1] - start[query])):
            row = item[start[query + 1] - 1 - back]
            if row < len(rare) and positive[kind[start[query + 1] - 1 - back]]:
                weight[query, back] = fade[back] * rare[row]
                total += min(candidates, posting[row + 1] - posting[row])
    keys, at = np.empty(total, np.int64), 0
    for query in range(len(start) - 1):
        for back in range(min(newest, start[query + 1] - start[query])):
            row = item[start[query + 1] - 1 - back]
            if row < len(rare) and positive[kind[start[query + 1] - 1 - back]]:
                more, high = query << (line + 32) | back << shift, posting[row + 1]
                for place in range(max(posting[row], high - candidates), high):
                    keys[at] = code[place] + more
                    at += 1
    return keys, weight


@njit(cache=True, nogil=True)
def near(keys, weight, now, owner, start, ended, owners, shrink, days, line, shift):
    """Return the timelines that share something with each query: timeline (N,), match (N,), similarity (N,), what that is worth now (N,),
    and where those of each query end, (B,).

    keys (K,) as from `occurrences`, sorted, so that the first of a timeline is the match that stands latest in the history; weight (B, H)
    by query and back; now (B,); owner (B,), whose own timeline is left out, or (0,).
    """
    timelines, matches, similar = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64), np.empty(len(keys), np.float64)
    worth, ends, found, at = np.empty(len(keys), np.float64), np.zeros(len(now), np.int64), 0, 0
    while at < len(keys):
        same, match, sum = keys[at] >> line, keys[at] & ((1 << shift) - 1), 0.0
        query, timeline = same >> 32, same & 0xFFFFFFFF
        while at < len(keys) and keys[at] >> line == same:
            sum += weight[query, keys[at] >> shift & (weight.shape[1] - 1)]
            at += 1
        if len(owner) == 0 or owners[timeline] != owner[query]:
            timelines[found], matches[found], similar[found] = timeline, match, sum
            found += 1
        ends[query] = found
    low = 0
    for query in range(len(now)):
        ends[query] = max(low, ends[query])
        for one in range(low, ends[query]):  # nothing here waits for what was fetched before
            timeline = timelines[one]
            similar[one] *= shrink[start[timeline + 1] - start[timeline]]
            worth[one] = similar[one] * (1 / (1 + abs(now[query] - ended[timeline]) / (DAY * days)))
        low = ends[query]
    return timelines[:found], matches[:found], similar[:found], worth[:found], ends


def limits(worth: np.ndarray, ends: np.ndarray, nearest: int) -> np.ndarray:
    """Return what a timeline must be worth to be among the `nearest` of its query, (B,); -inf where there are no more."""
    limit, low = np.full(len(ends), -np.inf), 0
    for query, high in enumerate(ends.tolist()):
        if high - low > nearest:
            limit[query] = np.partition(worth[low:high], high - low - nearest)[high - low - nearest]
        low = high
    return limit


@njit(cache=True, nogil=True)
def votes(timelines, matches, similar, worth, ends, limit, now, start, items, times, share, nearest, days):
    """Let the timelines that are nearest to each query vote; return keys of query, item and number (V,) int64, and the votes (V,) float64.

    The first five as from `near`, of which worth is written to; limit (B,) as from `limits`. The number, in the lowest 24 bits, is the
    place of the vote.
    """
    reach, chosen, many, low, total = len(share) // 2, np.empty(len(worth), np.int64), np.zeros(len(now), np.int64), 0, 0
    for query in range(len(now)):
        high = ends[query]
        if high - low > nearest:
            ties = nearest
            for one in range(low, high):
                ties -= worth[one] > limit[query]
            for one in range(high - 1, low - 1, -1):  # of those at the limit the last ones
                if worth[one] == limit[query]:
                    if ties == 0:
                        worth[one] = -np.inf
                    else:
                        ties -= 1
        for one in range(low, high):
            chosen[total] = one
            total += worth[one] >= limit[query]
        many[query] = total
        low = high
    first, end, room = np.empty(total, np.int64), np.empty(total, np.int64), 0
    for at in range(total):
        timeline = timelines[chosen[at]]
        middle = start[timeline] + matches[chosen[at]]
        first[at], end[at] = max(start[timeline], middle - reach), min(start[timeline + 1], middle + reach + 1)
        room += end[at] - first[at]
    out, vote, count, begin = np.empty(room, np.int64), np.empty(room, np.float64), 0, 0
    for query in range(len(now)):
        for at in range(begin, many[query]):
            which = chosen[at]
            back = start[timelines[which]] + matches[which] - reach
            for place in range(first[at], end[at]):
                much = similar[which] * share[place - back]
                vote[count] = much * (1 / (1 + abs(now[query] - times[place]) / (DAY * days)))
                out[count] = (query << 31 | items[place]) << 24 | count
                count += 1
        begin = many[query]
    return out, vote


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
