"""All events in order of time, cut into windows: what may be known when, and what is asked."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.events import HISTORY, milliseconds
from recsys.sessions import SESSION_GAP, Histories, Sessions, histories, ranges, sessionise
from recsys.vocab import Vocabulary, in_order_of_appearance

Catalogue = dict[str, dict[str, Any]]
"""Item id -> what is known about it."""

CELLS = 2**24
"""Scores in one block of queries; bounds the memory of an evaluation, whatever the catalogue's size."""


class Leak(AssertionError):
    """A method was about to learn, or to be shown, something that happens later than what it is asked."""


@dataclass(frozen=True)
class Window:
    """What a method is given to learn: new events, those before them, the vocabulary up to here, and what items are."""

    events: pa.Table
    past: pa.Table
    vocab: Vocabulary
    catalogue: Catalogue


@dataclass(frozen=True)
class Queries:
    """What a method is asked: histories of known items, as of `now` (B,) ms, among `n_items` vocabulary rows."""

    histories: Histories
    now: np.ndarray
    n_items: int

    def __len__(self) -> int:
        return len(self.now)


@dataclass(frozen=True)
class Rules:
    """Which events of a window are asked.

    exclude_seen: nothing from a person's history is recommended, as in serving, so repeats are not asked; filter_unseen: neither are
    items that no method could have learned; need_history: nor the first known item of a timeline.
    """

    exclude_seen: bool = True
    filter_unseen: bool = False
    need_history: bool = False


@dataclass(frozen=True)
class Questions:
    """The events of one window that are to be foretold, in order of time.

    sessions: every timeline, with row 0 for items not learned yet; at (Q,) places in it; begin: when the window begins, ms;
    exclude_seen: whether a history's items are out of play; counts: how many events there were and why some are not asked.
    """

    sessions: Sessions
    at: np.ndarray
    n_items: int
    begin: int
    exclude_seen: bool
    counts: dict[str, int]

    def __len__(self) -> int:
        return len(self.at)

    @property
    def targets(self) -> np.ndarray:
        """The rows that were wanted, 0 for an item not learned yet, (Q,)."""
        return self.sessions.item[self.at]

    def blocks(self) -> Iterator[tuple[Queries, np.ndarray]]:
        """Give queries with their targets, as many at once as `CELLS` allows."""
        size = int(np.clip(CELLS // self.n_items, 1, 1024))
        for first in range(0, len(self), size):
            at = self.at[first : first + size]
            past = histories(self.sessions, at, limit=len(self.sessions))
            assert_only_the_past(self, at, past)
            yield Queries(past, self.sessions.time[at], self.n_items), self.sessions.item[at]


class Timeline:
    """The one place that knows the future; it hands out what may be known when."""

    def __init__(self, events: pa.Table, begins: np.ndarray, catalogue: Catalogue | None = None, gap: float = SESSION_GAP):
        """Cut `events` into windows that begin at `begins` (W,) ms, each ending where the next begins."""
        self.events = events.take(np.argsort(milliseconds(events), kind="stable"))
        self.begins = begins
        self.bounds = np.append(np.searchsorted(milliseconds(self.events), begins), len(events))
        kept = self.events.filter(pc.is_in(self.events["event_type"], value_set=pa.array(sorted(HISTORY))))
        self.vocab = Vocabulary(in_order_of_appearance(kept["item_id"]))
        self.catalogue = catalogue or {}
        self.sessions = sessionise(self.events, self.vocab, gap)

    def __len__(self) -> int:
        return len(self.begins)

    def rows_before(self, window: int) -> int:
        """Return how many vocabulary rows are known when a window begins; rows are numbered in order of appearance."""
        return int(self.sessions.item[self.sessions.place < self.bounds[window]].max(initial=0)) + 1

    def lesson(self, first: int, behind: int) -> Window:
        """Return the windows `first` to `behind` - 1 as something to learn."""
        begin, end = self.bounds[first], self.bounds[behind]
        vocab = Vocabulary(self.vocab.ids[1 : self.rows_before(behind)])
        return Window(self.events.slice(begin, end - begin), self.events.slice(0, begin), vocab, self.catalogue)

    def questions(self, window: int, rules: Rules) -> Questions:
        """Return what is asked in a window, to those who learned everything before it."""
        n_items = self.rows_before(window)
        full = self.sessions
        known = replace(full, item=np.where(full.item < n_items, full.item, 0))
        inside = (full.place >= self.bounds[window]) & (full.place < self.bounds[window + 1])
        at = np.flatnonzero(inside & full.positive)
        at = at[np.argsort(full.place[at])]
        unseen, repeated, first = known.item[at] == 0, _repeats(full)[at], np.diff(histories(known, at, 1).start) == 0
        left_out = np.zeros(len(at), bool)
        counts = {"events": len(at)}
        for name, applies, which in (
            ("repeats left out", rules.exclude_seen, repeated),
            ("unseen left out", rules.filter_unseen, unseen),
            ("without history left out", rules.need_history, first),
        ):
            if applies:
                counts[name] = int((which & ~left_out).sum())
                left_out |= which
        counts |= {"targets": int((~left_out).sum()), "unseen targets": int((unseen & ~left_out).sum()), "items": n_items - 1}
        return Questions(known, at[~left_out], n_items, int(self.begins[window]), rules.exclude_seen, counts)


def assert_unanswered(lesson: Window, questions: Questions) -> None:
    """Raise Leak if a lesson holds an event that is not older than all that is about to be asked."""
    for table in (lesson.events, lesson.past):
        if len(table) and milliseconds(table).max() >= questions.begin:
            raise Leak("a window was about to be learned before it was answered")
    if len(lesson.vocab) > questions.n_items:
        raise Leak("the vocabulary knows items that appear only later")


def assert_only_the_past(questions: Questions, at: np.ndarray, past: Histories) -> None:
    """Raise Leak if a history holds an event that did not come before the one asked, or an item not learned yet."""
    sessions = questions.sessions
    first = sessions.start[sessions.owner[at]]
    inside = ranges(first, at)
    asked = np.repeat(at, at - first)
    if (sessions.time[inside] > sessions.time[asked]).any() or (sessions.place[inside] >= sessions.place[asked]).any():
        raise Leak("a history reaches beyond the event that is asked")
    if (np.diff(past.start) > at - first).any():
        raise Leak("a history is longer than what its owner did before")
    if past.item.max(initial=0) >= questions.n_items or (sessions.time[at] < questions.begin).any():
        raise Leak("a question is not from this window, or its history shows an item that appears only later")


def _repeats(sessions: Sessions) -> np.ndarray:
    """Say which events are about an item that their owner met before, (N,) bool."""
    key = sessions.owner * (int(sessions.item.max(initial=0)) + 1) + sessions.item
    repeated = np.ones(len(key), bool)
    repeated[np.unique(key, return_index=True)[1]] = False
    return repeated
