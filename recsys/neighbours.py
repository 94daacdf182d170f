"""An instance memory of recent timelines: those nearest to a history vote for what comes next. Nothing is trained. No torch here.

The family of V-SKNN (Ludewig and Jannach, 2018) and STAN (Garg et al., 2019).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from recsys.events import IS_POSITIVE
from recsys.sessions import Histories, Sessions, ranges

DAY = 86_400_000.0
BLOCK = 64
"""Queries answered at once; bounds the memory that one call takes."""


@dataclass
class Neighbours:
    """What people liked, one timeline each: a person's, or a session's where nobody was signed in.

    The defaults were tuned on the first cycles of DIGINETICA; the result is flat around them.
    """

    capacity: int = 500_000  # timelines kept, newest first
    length: int = 200  # newest events kept of a timeline
    newest: int = 10  # events of a history that look for neighbours
    candidates: int = 1000  # newest occurrences of an item that are looked at
    nearest: int = 500  # timelines that may vote
    fading: float = 2.0  # an event that lies so many places back in the history counts 1/e
    days: float = 30.0  # a timeline that ended so long ago counts 1/e
    distance: float = 4.0  # an item that stands so far from the match in its timeline gets 1/e of the vote
    reach: int = 20  # and beyond this none at all
    before: float = 0.6  # what came before the match, against what came after
    itself: float = 2.0  # the match itself, against what came next
    normalise: float = 0.25  # power of a timeline's length that its vote is divided by

    def __post_init__(self) -> None:
        self.owner, self.item, self.time = np.zeros(0, np.uint64), np.zeros(0, np.int32), np.zeros(0, np.int64)
        self._arrange()

    def __len__(self) -> int:
        return len(self.start) - 1

    def add(self, sessions: Sessions) -> None:
        """Remember positive events of known items; an owner that is known already gets a longer timeline."""
        keep = sessions.positive & (sessions.item > 0)
        names = pd.util.hash_array(np.array(sessions.owners, dtype=object))
        self.owner = np.concatenate([self.owner, names[sessions.owner[keep]]])
        self.item = np.concatenate([self.item, sessions.item[keep]])
        self.time = np.concatenate([self.time, sessions.time[keep]])
        self._arrange()

    def scores(self, histories: Histories, now: np.ndarray, n_items: int) -> np.ndarray:
        """Return how much the neighbours speak for every item: now (B,) ms -> (B, n_items) float32, 0 where nobody does."""
        dense = np.zeros((len(histories), n_items), np.float32)
        for first in range(0, len(histories), BLOCK):
            part = slice(first, first + BLOCK)
            query, item, vote = self.votes(histories[part], now[part])
            shape = (len(now[part]), n_items)
            dense[part] = sparse.coo_array((vote.astype(np.float32), (query, item)), shape=shape).toarray()
        return dense

    def votes(self, histories: Histories, now: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return query, item and vote, (V,) each; an item may get many votes."""
        query, timeline, match, weight = self._nearest(*self._similar(histories, now))
        begin = np.maximum(self.start[timeline], match - self.reach)
        end = np.minimum(self.start[timeline + 1], match + self.reach + 1)
        place = ranges(begin, end)
        step = place - np.repeat(match, end - begin)
        share = np.exp((1 - np.abs(step)) / self.distance) * np.where(step > 0, 1.0, self.before)
        share[step == 0] = self.itself
        return np.repeat(query, end - begin), self.item[place], np.repeat(weight, end - begin) * share

    def _arrange(self) -> None:
        """Sort events into timelines, oldest timeline first, drop what is too old, and list where each item occurs."""
        order = np.lexsort((self.time, self.owner))  # stable: events of one moment stay in the order they came
        owner, time = self.owner[order], self.time[order]
        opens = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]])) if len(owner) else np.zeros(0, np.int64)
        end = np.append(opens[1:], len(owner))[: len(opens)]
        age = np.lexsort((owner[opens], time[end - 1]))[-self.capacity :]
        begin, end = np.maximum(opens, end - self.length)[age], end[age]
        take = order[ranges(begin, end)]
        self.owner, self.item, self.time = self.owner[take], self.item[take], self.time[take]
        self.start = np.concatenate([[0], np.cumsum(end - begin)])
        self._ended = self.time[self.start[1:] - 1]
        self._timeline = np.repeat(np.arange(len(self)), end - begin)
        self._postings = np.argsort(self.item, kind="stable")  # of one item: the oldest timeline first
        self._posting = np.searchsorted(self.item[self._postings], np.arange(self.item.max(initial=0) + 2))

    def _similar(self, histories: Histories, now: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return query, timeline, the place of the match and the similarity, for every timeline that shares an item.

        Of several shared items the match is the one that stands latest in the history.
        """
        begin = np.maximum(histories.start[:-1], histories.start[1:] - self.newest)
        length = histories.start[1:] - begin
        place = ranges(begin, histories.start[1:])
        query = np.repeat(np.arange(len(histories)), length)
        back = np.repeat(histories.start[1:], length) - 1 - place
        item = histories.item[place]
        known = (item < len(self._posting) - 1) & IS_POSITIVE[histories.kind[place]]
        query, back, item = query[known], back[known], item[known]

        end = self._posting[item + 1]
        begin = np.maximum(self._posting[item], end - self.candidates)
        match = self._postings[ranges(begin, end)]
        query, back = np.repeat(query, end - begin), np.repeat(back, end - begin)
        timeline = self._timeline[match]

        key = query * len(self) + timeline
        order = np.argsort(key * self.newest + back, kind="stable")
        if not len(key):
            return query, timeline, match, np.zeros(0)
        first = np.flatnonzero(np.concatenate([[True], np.diff(key[order]) != 0]))
        similarity = np.add.reduceat(np.exp(-back[order] / self.fading), first)
        query, timeline, match = query[order][first], timeline[order][first], match[order][first]
        age = np.maximum(0, now[query] - self._ended[timeline]) / DAY
        size = (self.start[timeline + 1] - self.start[timeline]).astype(float)
        return query, timeline, match, similarity * np.exp(-age / self.days) / size**self.normalise

    def _nearest(self, query: np.ndarray, timeline: np.ndarray, match: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, ...]:
        order = np.lexsort((-timeline, -weight, query))
        place = np.arange(len(order)) - np.searchsorted(query, query)  # query is sorted: its place among its own
        order = order[place < self.nearest]
        return query[order], timeline[order], match[order], weight[order]
