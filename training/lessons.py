"""Timelines -> what is learned from them: sessions read from both ends, and softened by what neighbours would have wished for."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from recsys.batches import WISHES, Examples, examples
from recsys.neighbours import Neighbours
from recsys.sessions import N_GAPS, Sessions, backwards, border, histories
from recsys.settings import Settings

BEST = 20
"""Wishes are drawn from so many items, those with the most votes."""

AT_ONCE = 2_000
"""Events that a thread asks neighbours about at once; bounds the memory that their answers take."""


def lessons(sessions: Sessions, learn: np.ndarray, moment: np.ndarray, neighbours: Neighbours, settings: Settings, seed: int) -> Examples:
    """Turn timelines into examples: learn (N,) bool says which events are to be foretold; moment (N,): see Examples.

    neighbours: those who are asked for wishes; that they know these timelines already does no harm. A session has little order in itself:
    who goes from a film to its sequel tells as much when read from the end, so sessions are read both ways (a whole life is not: what was
    popular moves on). The silence *after* an event is another thing than that before it and has buckets of its own, so the user tower knows
    which way it reads. Where what is foretold is the next session, a session has no order to be read in, and what a history begins with
    is no target, for nothing comes before it.
    """
    limit, share, rng = settings.data.history, settings.training.wishes, np.random.default_rng([seed, 1])
    threads = settings.training.threads
    wish = wishes(sessions, learn, sessions.time, neighbours, rng, threads) if share else None
    found = examples(sessions, learn, limit, moment, wish)
    if settings.model.objective == "next_session":
        return behind_a_session(found, border(settings.data.session_gap))
    if settings.training.both_ways:
        mirror, order = backwards(sessions)
        wish = wishes(mirror, learn[order], sessions.time[order], neighbours, rng, threads) if share else None
        back = examples(mirror, learn[order], limit, moment[order], wish)
        found = found.join(replace(back, gap=back.gap + np.int8(N_GAPS)))
    return found


def behind_a_session(found: Examples, border: int) -> Examples:
    """Return the examples with their first session as context only, without those that have no other to learn."""
    sessions = np.concatenate([[0], np.cumsum(found.gap >= border)])  # how many borders stand before each event
    inside = sessions[1:] > np.repeat(sessions[found.start[:-1]], found.lengths)
    found = replace(found, weight=found.weight * inside)
    learned = np.concatenate([[0], np.cumsum(found.weight)])
    return found.take(np.flatnonzero(np.diff(learned[found.start]) > 0))


def wishes(
    sessions: Sessions, learn: np.ndarray, time: np.ndarray, neighbours: Neighbours, rng: np.random.Generator, threads: int = 1
) -> np.ndarray:
    """Return draws from what others wish for in the place of each event of `learn` (N,) bool: (N, WISHES) rows, 0 for nothing.

    Neighbours are asked with what came before the event, as of its time (N,), ms; its owner's own timeline has no vote. The wishes soften
    the targets: label smoothing (Szegedy et al., CVPR 2016) towards what people in the same place went on to, or distillation (Hinton et
    al., 2015) from a teacher that needs no training. How many threads ask does not change the answer.
    """
    wish = np.zeros((len(sessions), WISHES), np.int32)
    targets = np.flatnonzero(learn & sessions.positive & (sessions.item > 0))
    owner = sessions.whose

    def drawn(at: np.ndarray, luck: np.ndarray) -> np.ndarray:
        query, item, vote = neighbours.votes(histories(sessions, at, neighbours.newest), time[at], owner[at])
        return _drawn(query, item, vote, luck)

    parts = np.split(targets, range(AT_ONCE, len(targets), AT_ONCE))
    with ThreadPoolExecutor(threads) as pool:
        for at, found in zip(parts, pool.map(drawn, parts, [rng.random((len(at), WISHES)) for at in parts]), strict=True):
            wish[at] = found
    return wish


def _drawn(query: np.ndarray, item: np.ndarray, vote: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """Draw from the best votes of each query, (V,) each and sorted by it, as likely as they say: luck (Q, WISHES) from 0 to 1 -> rows."""
    first = np.searchsorted(query, np.arange(len(luck)))
    rank = np.arange(len(query)) - first[query]
    key = query << 51 | (2**31 - 1 - vote.view(np.int32).astype(np.int64)) << 20 | rank  # the bits of positive votes sort as they do
    key.sort()  # of integers: far cheaper than to sort by two columns
    order = first[query] + (key & (2**20 - 1))
    item, vote = item[order], vote[order]
    best = rank < BEST
    rows, chance = np.zeros((len(luck), BEST), np.int32), np.zeros((len(luck), BEST))
    rows[query[best], rank[best]], chance[query[best], rank[best]] = item[best], vote[best]
    until = np.cumsum(chance, axis=1)
    luck = luck * until[:, -1:]
    return np.take_along_axis(rows, (until[:, None, :] <= luck[:, :, None]).sum(axis=2).clip(max=BEST - 1), axis=1)
