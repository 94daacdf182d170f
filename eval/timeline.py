"""All events in order of time, cut into windows: what may be known when, and what is asked."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.events import HISTORY, milliseconds
from recsys.sessions import SESSION_GAP, Histories, Sessions, histories, ranges, sessionise
from recsys.settings import Settings
from recsys.vocab import Vocabulary, in_order_of_appearance

Catalogue = dict[str, dict[str, Any]]
"""Item id -> what is known about it."""

CELLS = 2**24
"""Scores in one block of queries; bounds the memory of an evaluation, whatever the catalogue's size."""


class Leak(AssertionError):
    """A method was about to learn, or to be shown, something that happens later than what it is asked."""


@dataclass(frozen=True)
class Window:
    """What a method is given to learn: new events, those before them, the vocabulary up to here, and what its items are.

    begins: when each time window up to here began, ms; a lesson may span several of them.
    """

    events: pa.Table
    past: pa.Table
    vocab: Vocabulary
    catalogue: Catalogue
    begins: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class Learned:
    """What learning a window took beside the time that passed.

    seconds_borrowed: of work that another method of the replay had done already; examples: how many training examples
    went through the optimizer, with repetition, or how many events were counted where nothing is optimised.
    """

    seconds_borrowed: float = 0.0
    examples: int = 0


@dataclass(frozen=True)
class Queries:
    """What a method is asked: histories of known items, as of `now` (B,) ms, among `n_items` vocabulary rows.

    exclude_seen: whether what is in a history will be left out of the answer.
    """

    histories: Histories
    now: np.ndarray
    n_items: int
    exclude_seen: bool = False

    def __len__(self) -> int:
        return len(self.now)

    def __getitem__(self, part: slice) -> "Queries":
        return replace(self, histories=self.histories[part], now=self.now[part])


Block = tuple[Queries, np.ndarray, np.ndarray]
"""Some queries and what they want: start (B + 1,) and relevant (R,)."""


@dataclass(frozen=True)
class Rules:
    """What is asked of a window.

    whole_sessions: at the start of each session all its items are wanted, instead of each event by itself. exclude_seen: nothing
    from a person's history is recommended, as in serving, so repeats are not asked; filter_unseen: neither are items that no
    method could have learned; need_history: nor what comes before anything known of its owner.
    """

    exclude_seen: bool = True
    filter_unseen: bool = False
    need_history: bool = False
    whole_sessions: bool = False

    def applied(self, settings: Settings) -> Settings:
        """Return settings that serve by the rule on repeats which the questions follow: updates measure themselves by it."""
        serving = settings.serving.model_copy(update={"exclude_seen": self.exclude_seen})
        return settings.model_copy(update={"serving": serving})


@dataclass(frozen=True)
class Questions:
    """What is to be foretold in one window, in order of time.

    sessions: every timeline, with row 0 for items not learned yet; at (Q,): the places in it before which the histories end;
    query q wants the rows relevant[start[q]:start[q + 1]], 0 for an item not learned yet: start (Q + 1,), relevant (R,); begin: when
    the window begins, ms; exclude_seen: whether a history's items are out of play; whole_sessions: whether each query asks for a
    session, at its start; counts: how much there was to ask and why some of it is not asked.
    """

    sessions: Sessions
    at: np.ndarray
    start: np.ndarray
    relevant: np.ndarray
    n_items: int
    begin: int
    exclude_seen: bool
    whole_sessions: bool = False
    counts: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.at)

    @property
    def owner(self) -> np.ndarray:
        """Whose timeline each query is about, (Q,) int64."""
        return self.sessions.owner[self.at]

    def blocks(self) -> Iterator[Block]:
        """Give queries with what they want, as many at once as `CELLS` allows; histories are put together for several blocks at once."""
        size = int(np.clip(CELLS // self.n_items, 1, 1024))
        longest = int((self.at - self.sessions.start[self.owner]).max(initial=1))
        many = size * max(1, CELLS // 8 // (size * longest))
        for begin in range(0, len(self), many):
            part = self.take(np.arange(begin, min(begin + many, len(self))))
            queries = part.queries()
            for first in range(0, len(part), size):
                start = part.start[first : first + size + 1]
                yield queries[first : first + size], start - start[0], part.relevant[start[0] : start[-1]]

    def queries(self) -> Queries:
        """Return all histories at once, checked for leaks; where each is asked is told (recsys.sessions.Histories.surface)."""
        past = histories(self.sessions, self.at, limit=len(self.sessions))
        assert_only_the_past(self, past)
        return Queries(past, self.sessions.time[self.at], self.n_items, self.exclude_seen)

    def take(self, which: np.ndarray) -> "Questions":
        """Return some of the queries, (B,) numbers, in the order asked for."""
        begin, end = self.start[which], self.start[which + 1]
        start = np.concatenate([[0], np.cumsum(end - begin)])
        return replace(self, at=self.at[which], start=start, relevant=self.relevant[ranges(begin, end)])

    def sample(self, size: int) -> np.ndarray:
        """Return the numbers of at most `size` queries, the same at every call, in order of time."""
        chosen = np.random.default_rng(self.begin % 2**32).choice(len(self), min(size, len(self)), replace=False)
        return np.sort(chosen)


class Timeline:
    """The one place that knows the future; it hands out what may be known when."""

    def __init__(self, events: pa.Table, begins: np.ndarray, catalogue: Catalogue | None = None, gap: float = SESSION_GAP):
        """Cut `events` into windows that begin at `begins` (W,) ms, each ending where the next begins."""
        self.events = events.sort_by([("timestamp", "ascending"), ("event_id", "ascending")])  # as timelines have them
        self.begins = begins
        self.bounds = np.append(np.searchsorted(milliseconds(self.events), begins), len(events))
        kept = self.events.filter(pc.is_in(self.events["event_type"], value_set=pa.array(sorted(HISTORY))))
        self.vocab = Vocabulary(in_order_of_appearance(kept["item_id"]))
        self.catalogue = catalogue or {}
        self.sessions = sessionise(self.events, self.vocab, gap, undo=False)  # nobody knew then what would be undone

    def __len__(self) -> int:
        return len(self.begins)

    def rows_before(self, window: int) -> int:
        """Return how many vocabulary rows are known when a window begins; rows are numbered in order of appearance."""
        return int(self.sessions.item[self.sessions.place < self.bounds[window]].max(initial=0)) + 1

    def lesson(self, first: int, behind: int) -> Window:
        """Return the windows `first` to `behind` - 1 as something to learn."""
        begin, end = self.bounds[first], self.bounds[behind]
        vocab = Vocabulary(self.vocab.ids[1 : self.rows_before(behind)])
        catalogue = {id: self.catalogue[id] for id in vocab.ids[1:] if id in self.catalogue}
        return Window(self.events.slice(begin, end - begin), self.events.slice(0, begin), vocab, catalogue, self.begins[:behind])

    def counts_before(self, window: int) -> np.ndarray:
        """Return how many positive events each known item had before a window, (n_items,)."""
        past = self.sessions.positive & (self.sessions.place < self.bounds[window])
        return np.bincount(self.sessions.item[past], minlength=self.rows_before(window))

    def questions(self, window: int, rules: Rules) -> Questions:
        """Return what is asked in a window, of those who learned everything before it."""
        n_items = self.rows_before(window)
        full = self.sessions
        known = replace(full, item=np.where(full.item < n_items, full.item, 0))
        wanted, at = self._sessions(window) if rules.whole_sessions else self._events(window)
        left_out = np.zeros(len(wanted), bool)
        unseen = known.item[wanted] == 0
        counts = {"events": len(wanted)}
        for name, applies, which in (
            ("repeats left out", rules.exclude_seen, _first_meeting(full)[wanted] < at),
            ("unseen left out", rules.filter_unseen, unseen),
            ("without history left out", rules.need_history, np.diff(histories(known, at, 1).start) == 0),
        ):
            if applies:
                counts[name] = int((which & ~left_out).sum())
                left_out |= which
        wanted, at, unseen = wanted[~left_out], at[~left_out], unseen[~left_out]
        opens = np.flatnonzero(np.diff(at, prepend=-1))
        counts |= {"queries": len(opens), "targets": len(wanted), "unseen targets": int(unseen.sum()), "items": n_items - 1}
        return Questions(
            sessions=known,
            at=at[opens],
            start=np.append(opens, len(at)),
            relevant=known.item[wanted],
            n_items=n_items,
            begin=int(self.begins[window]),
            exclude_seen=rules.exclude_seen,
            whole_sessions=rules.whole_sessions,
            counts=counts,
        )

    def _events(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the positive events of a window in order of time, each asked by itself."""
        full = self.sessions
        at = np.flatnonzero(self._inside(window) & full.positive)
        at = at[np.argsort(full.place[at])]
        return at, at

    def _sessions(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the first positive event of each item of each session that begins in a window, and where that session begins."""
        full = self.sessions
        opens = np.diff(full.session, prepend=-1) != 0
        begin = np.flatnonzero(opens)[np.cumsum(opens) - 1]
        wanted = np.flatnonzero(self._inside(window)[begin] & full.positive)
        key = full.session[wanted] * (int(full.item.max(initial=0)) + 1) + full.item[wanted]
        wanted = wanted[np.sort(np.unique(key, return_index=True)[1])]
        wanted = wanted[np.lexsort((full.place[wanted], full.place[begin[wanted]]))]
        return wanted, begin[wanted]

    def _inside(self, window: int) -> np.ndarray:
        place = self.sessions.place
        return (place >= self.bounds[window]) & (place < self.bounds[window + 1])


def assert_unanswered(lesson: Window, questions: Questions) -> None:
    """Raise Leak if a lesson holds anything that is not older than all that is about to be asked."""
    for table in (lesson.events, lesson.past):
        if len(table) and milliseconds(table).max() >= questions.begin:
            raise Leak("a window was about to be learned before it was answered")
    if len(lesson.vocab) > questions.n_items:
        raise Leak("the vocabulary knows items that appear only later")
    if any(id not in lesson.vocab for id in lesson.catalogue):
        raise Leak("the catalogue describes items that appear only later")


def assert_only_the_past(questions: Questions, past: Histories) -> None:
    """Raise Leak if a history holds an event that did not come before what is asked, or an item not learned yet."""
    sessions, at = questions.sessions, questions.at
    first = sessions.start[sessions.owner[at]]
    inside = ranges(first, at)
    asked = np.repeat(at, at - first)
    if (sessions.time[inside] > sessions.time[asked]).any() or (sessions.place[inside] >= sessions.place[asked]).any():
        raise Leak("a history reaches beyond the event that is asked")
    if questions.whole_sessions and (sessions.session[inside] == sessions.session[asked]).any():
        raise Leak("a history holds events of the session that is asked")
    if (np.diff(past.start) > at - first).any():
        raise Leak("a history is longer than what its owner did before")
    if past.item.max(initial=0) >= questions.n_items or (sessions.time[at] < questions.begin).any():
        raise Leak("a question is not from this window, or its history shows an item that appears only later")


def _first_meeting(sessions: Sessions) -> np.ndarray:
    """Return where the owner of each event first met its item, (N,) places in `sessions`."""
    key = sessions.owner * (int(sessions.item.max(initial=0)) + 1) + sessions.item
    _, first, again = np.unique(key, return_index=True, return_inverse=True)
    return first[again]
