"""Timelines -> what is learned from them: sessions read from both ends, and softened by what neighbours would have wished for."""

import copy
from dataclasses import replace

import numpy as np

from recsys.batches import WISHES, Examples, examples
from recsys.neighbours import Neighbours
from recsys.sessions import N_GAPS, Sessions, backwards, histories
from recsys.settings import Settings

PARTS = 4
"""The timelines are cut into so many parts; each part asks those who know the others."""

Wishes = tuple[np.ndarray, np.ndarray]
"""For each event the rows that neighbours vote for, (N, WISHES) int32, and the running share of their votes, float16; 0 for nobody."""


def lessons(sessions: Sessions, learn: np.ndarray, moment: np.ndarray, memory: Neighbours, settings: Settings, seed: int) -> Examples:
    """Turn timelines into examples: learn (N,) bool says which events are to be foretold; moment (N,): see Examples; memory: of before.

    A session has little order in itself: who goes from a film to its sequel tells as much when read from the end, so sessions are read both
    ways (a whole life is not: what was popular moves on). The silence *after* an event is another thing than that before it and has buckets
    of its own, so the user tower knows which way it reads.
    """
    limit = settings.data.history
    panel = Panel(sessions, memory, seed) if settings.training.wishes else None
    everyone = np.arange(len(sessions))
    wishes = panel.wishes(sessions, learn, everyone) if panel else None
    found = examples(sessions, learn, limit, moment, wishes)
    if settings.training.both_ways:
        mirror, order = backwards(sessions)
        wishes = panel.wishes(mirror, learn[order], order) if panel else None
        back = examples(mirror, learn[order], limit, moment[order], wishes)
        found = found.join(replace(back, gap=back.gap + np.int8(N_GAPS)))
    return found


class Panel:
    """Neighbours who are asked about timelines that they do not hold themselves.

    Their votes soften the targets: label smoothing (Szegedy et al., CVPR 2016) towards what people in the same place went on to, or
    distillation (Hinton et al., 2015) from a teacher that needs no training.
    """

    def __init__(self, sessions: Sessions, memory: Neighbours, seed: int):
        part = np.random.default_rng([seed, 1]).integers(0, PARTS, len(sessions.owners))
        self.part, self.time = part[sessions.owner], sessions.time
        self.memories = []
        for number in range(PARTS):
            others = copy.copy(memory)
            others.add(sessions.of(part != number))
            self.memories.append(others)

    def wishes(self, sessions: Sessions, learn: np.ndarray, place: np.ndarray) -> Wishes:
        """Ask before each event of `learn` (N,) bool; sessions: the panel's, read in any order; place (N,): where each event was."""
        wish, chance = np.zeros((len(sessions), WISHES), np.int32), np.zeros((len(sessions), WISHES), np.float16)
        part, now = self.part[place], self.time[place]
        for number, memory in enumerate(self.memories):
            at = np.flatnonzero(learn & sessions.positive & (sessions.item > 0) & (part == number))
            query, item, vote = memory.votes(histories(sessions, at, memory.newest), now[at])
            order = np.lexsort((-vote, query))
            query, item, vote = query[order], item[order], vote[order]
            rank = np.arange(len(query)) - np.searchsorted(query, query)
            best = rank < WISHES
            query, item, vote, rank = query[best], item[best], vote[best], rank[best]
            share = np.zeros((len(at), WISHES))
            share[query, rank] = vote
            share = np.cumsum(share, axis=1)
            wish[at[query], rank] = item
            chance[at] = share / np.maximum(share[:, -1:], 1e-12)
        return wish, chance
