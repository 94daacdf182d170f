"""What several baselines need: checked settings, the liked events of a lesson, the end of a history, pairs of one timeline."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from scipy import sparse

from eval.timeline import Window
from recsys.errors import BadInput
from recsys.events import IS_POSITIVE
from recsys.sessions import Histories, Sessions, of_the_same_people, ranges, sessionise
from recsys.vocab import Vocabulary

DAY = 86_400_000.0
PAIRS = 2**21
"""Pairs of events that are counted at once; bounds the memory of learning."""


def check(method: str, low: float, high: float, whole: bool = False, **setting: float) -> None:
    """Raise BadInput where a setting is no number from `low` to `high` (both allowed), or not a whole one."""
    for name, value in setting.items():
        number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            raise BadInput(f"{method}.{name} is {kind} from {low:g} to {high:g}; got {value!r}")


def positive(sessions: Sessions) -> Sessions:
    """Return the events that say "more of this" about known items."""
    return only(sessions, sessions.positive & (sessions.item > 0))


def only(sessions: Sessions, which: np.ndarray) -> Sessions:
    """Return some of the events, which (N,) bool; the owners stay, some perhaps without events."""
    count = np.bincount(sessions.owner[which], minlength=len(sessions.owners))
    columns = (sessions.item, sessions.kind, sessions.time, sessions.session, sessions.place)  # no baseline asks where it was
    return Sessions(sessions.owners, np.concatenate([[0], np.cumsum(count)]), *(column[which] for column in columns))


def with_context(window: Window) -> tuple[Sessions, np.ndarray]:
    """Return the whole timelines, up to now, of all who did something in a lesson, and which of their liked events are new, (N,) bool."""
    past = of_the_same_people(window.past, window.events)
    sessions = positive(sessionise(pa.concat_tables([past, window.events]), window.vocab))
    return sessions, sessions.place >= len(past)


def pairs(sessions: Sessions, new: np.ndarray, reach: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Give (earlier, later) places of two events of one timeline, the later one new, at most `reach` steps apart; some at a time."""
    later = np.flatnonzero(new)
    begin = np.maximum(sessions.start[sessions.owner[later]], later - reach)
    total = np.cumsum(later - begin)
    if not total.any():
        return
    edges = np.searchsorted(total, np.arange(0, total[-1], PAIRS), side="right")
    for first, behind in zip(edges, [*edges[1:], len(later)], strict=True):
        part = slice(first, behind)
        yield ranges(begin[part], later[part]), np.repeat(later[part], later[part] - begin[part])


def fade(time: np.ndarray | int, now: int, half_life: float) -> np.ndarray | float:
    """Return what an event of `time` counts at `now` (both ms), 1/2 after `half_life` days."""
    return 0.5 ** ((now - time) / DAY / half_life)


def grown(matrix: sparse.csr_matrix, rows: int) -> sparse.csr_matrix:
    """Return a square matrix with at least so many rows; the new ones are empty."""
    rows = max(rows, matrix.shape[0])
    return sparse.csr_matrix((matrix.data, matrix.indices, np.pad(matrix.indptr, (0, rows - matrix.shape[0]), mode="edge")), (rows, rows))


def ends(histories: Histories, rows: int, newest: int, fading: float) -> sparse.csr_matrix:
    """Return how much each item stands for each history, (B, rows) float32.

    The newest `newest` liked events about items below `rows` count exp(-places from the end / fading); of an item that stands
    there more often the latest counts.
    """
    person = np.repeat(np.arange(len(histories)), np.diff(histories.start))
    kept = np.flatnonzero(IS_POSITIVE[histories.kind] & (histories.item > 0) & (histories.item < rows))
    person, item = person[kept], histories.item[kept]
    back = np.searchsorted(person, person, side="right") - 1 - np.arange(len(person))
    _, latest = np.unique((person * rows + item)[::-1], return_index=True)
    kept = len(person) - 1 - latest
    kept = kept[back[kept] < newest]
    weight = np.exp(-back[kept] / fading).astype(np.float32)
    return sparse.csr_matrix((weight, (person[kept], item[kept])), shape=(len(histories), rows))


def wide(scores: np.ndarray, n_items: int) -> np.ndarray:
    """Return scores (B, rows) or (rows,) with a 0 for every row that was not learned, float32."""
    missing = [(0, 0)] * (scores.ndim - 1) + [(0, n_items - scores.shape[-1])]
    return np.pad(scores, missing).astype(np.float32, copy=False)


class People:
    """Who liked what so far; a person, once met, keeps a row."""

    def __init__(self) -> None:
        self.known = Vocabulary()
        self.person, self.item = np.zeros(0, np.int64), np.zeros(0, np.int32)

    def __len__(self) -> int:
        return len(self.known)

    def add(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Take in a lesson; return who liked something in it and what was liked, distinct rows."""
        sessions = positive(sessionise(window.events, window.vocab))
        self.known = self.known.grow(sessions.owners)
        person = self.known.rows(sessions.owners)[sessions.owner].astype(np.int64)
        self.person, self.item = np.append(self.person, person), np.append(self.item, sessions.item)
        return np.unique(person), np.unique(sessions.item)

    def matrix(self, n_items: int) -> sparse.csr_matrix:
        """Return 1 where a person liked an item, (people, n_items) float32."""
        liked = sparse.csr_matrix((np.ones(len(self.item), np.float32), (self.person, self.item)), shape=(len(self), n_items))
        liked.data[:] = 1.0
        return liked
