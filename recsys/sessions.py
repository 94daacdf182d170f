"""Events -> sessions and histories: one rule for training, serving and evaluation. No torch here."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys import events
from recsys.vocab import Vocabulary

SESSION_GAP = 30 * 60.0
"""Seconds of silence after which a person's next event opens a new session."""

GAP_EDGES = np.array([1e-3, 10, 60, 5 * 60, 30 * 60, 3 * 3600, 86_400, 7 * 86_400, 30 * 86_400, 180 * 86_400])
N_GAPS = len(GAP_EDGES) + 2
"""Bucket 0 opens a history, 1 is "the same moment", the last is "more than half a year ago"."""

NOWHERE = np.zeros(0, np.int32)
"""Where no event says where it happened."""


@dataclass(frozen=True)
class Sessions:
    """Events in columns, sorted by owner, then time, then event id.

    owners (U,) names; start (U+1,) where each owner's events begin; item (N,) vocabulary rows;
    kind (N,) event type codes; time (N,) ms; session (N,) a running number that never spans two owners;
    place (N,) where the event stood in the table it came from; surface (N,) numbers of where they happened (recsys.events.surface_number),
    (0,) where no event says that.
    """

    owners: list[str]
    start: np.ndarray
    item: np.ndarray
    kind: np.ndarray
    time: np.ndarray
    session: np.ndarray
    place: np.ndarray
    surface: np.ndarray = field(default_factory=lambda: NOWHERE)

    def __len__(self) -> int:
        return len(self.item)

    @property
    def positive(self) -> np.ndarray:
        """Which events say "more of this", (N,) bool."""
        return events.IS_POSITIVE[self.kind]

    @property
    def whose(self) -> np.ndarray:
        """A number for the name of each event's owner, the same in every log, (N,) uint64."""
        return owner_numbers(self.owners)[self.owner]

    @property
    def owner(self) -> np.ndarray:
        """Which owner each event belongs to, (N,) int64."""
        return np.repeat(np.arange(len(self.owners)), np.diff(self.start))


def owner_numbers(names: Sequence[str]) -> np.ndarray:
    """Return a number for each name, the same in every log, (N,) uint64."""
    return pd.util.hash_array(np.array([*names], dtype=object)) if len(names) else np.zeros(0, np.uint64)


def sessionise(table: pa.Table, vocab: Vocabulary, gap: float = SESSION_GAP, undo: bool = True) -> Sessions:
    """Sort events into each owner's timeline and cut it into sessions.

    The owner is the user, or the session itself where nobody is signed in. A session ends where the log's own
    session id changes or, where it has none, after `gap` seconds of silence. Impressions are left out, and so is what was
    undone (recsys.events.taken_back); without `undo` that stays, as it stood before anybody took it back.
    """
    codes = events.type_codes(table["event_type"])
    keep = np.flatnonzero(events.IS_HISTORY[codes] | (undo & (codes == events.UNDO)))
    table, codes = table.take(keep), codes[keep]
    owner, names = _owners(table)
    time = events.milliseconds(table)
    order = _order(owner, time, table["event_id"])
    if (codes == events.UNDO).any():
        order = _standing(order, owner, time, _codes(table["item_id"]), codes == events.UNDO)
    owner, time, codes = owner[order], time[order], codes[order]
    count = np.bincount(owner, minlength=len(names))
    return Sessions(
        owners=names,
        start=np.concatenate([[0], np.cumsum(count)]),
        item=vocab.encode(table["item_id"])[order],
        kind=codes,
        time=time,
        session=_session_numbers(owner, time, _codes(table["session_id"])[order], gap),
        place=keep[order],
        surface=surface[order] if len(surface := events.surface_numbers(table["surface"])) else NOWHERE,
    )


def backwards(sessions: Sessions) -> tuple[Sessions, np.ndarray]:
    """Return every session as a timeline of its own, read from its end, and which event stands where: (N,) places in `sessions`.

    Times are mirrored within a session, so that they ascend and silences stay as long as they were.
    """
    first = np.flatnonzero(np.diff(sessions.session, prepend=-1) != 0)
    start = np.append(first, len(sessions))
    count = np.diff(start)
    order = np.repeat(first + start[1:] - 1, count) - np.arange(len(sessions))
    ends = np.repeat(sessions.time[first] + sessions.time[start[1:] - 1], count)
    told = ("item", "kind", "session", "place", *(("surface",) if len(sessions.surface) else ()))
    columns = {name: getattr(sessions, name)[order] for name in told}
    owners = [sessions.owners[owner] for owner in sessions.owner[first].tolist()]
    return Sessions(owners=owners, start=start, time=ends - sessions.time[order], **columns), order


def repeats(sessions: Sessions) -> np.ndarray:
    """Say which events are about an item that their owner met before, (N,) bool."""
    key = sessions.owner * (int(sessions.item.max(initial=0)) + 1) + sessions.item
    repeated = np.ones(len(key), bool)
    repeated[np.unique(key, return_index=True)[1]] = False
    return repeated


def of_the_same_people(past: pa.Table, new: pa.Table) -> pa.Table:
    """Return the part of `past` that is context for `new`: the same users, and of those not signed in the same sessions."""
    users, sessions = (pc.unique(new[name].drop_null()) for name in ("user_id", "session_id"))
    same_session = pc.and_(pc.is_null(past["user_id"]), pc.is_in(past["session_id"], value_set=sessions))
    return past.filter(pc.or_(pc.is_in(past["user_id"], value_set=users), same_session))


def gap_buckets(time: np.ndarray) -> np.ndarray:
    """Say how long before each event the last one was, as a bucket: (L,) ms, oldest first -> (L,) int8."""
    if not len(time):
        return np.zeros(0, np.int8)
    seconds = np.diff(time) / 1000
    return np.concatenate([[0], 1 + np.searchsorted(GAP_EDGES, seconds, side="right")]).astype(np.int8)


def border(gap: float) -> int:
    """Return the bucket from which on a silence parts two sessions: that of `gap` seconds, so to the nearest edge below."""
    return 1 + int(np.searchsorted(GAP_EDGES, gap, side="right"))


def _order(owner: np.ndarray, time: np.ndarray, ids: pa.ChunkedArray) -> np.ndarray:
    """Sort by owner and time; events of one moment by their ids, as the profiles in Redis have them."""
    order = np.lexsort((time, owner))
    same = (np.diff(owner[order]) == 0) & (np.diff(time[order]) == 0)
    tied = order[np.append(same, False) | np.insert(same, 0, False)] if len(order) else order
    rank = np.zeros(len(order), np.int64)
    rank[tied] = pc.rank(ids.take(tied), "ascending", tiebreaker="dense").to_numpy() if len(tied) else 0
    return np.lexsort((rank, time, owner))


def _standing(order: np.ndarray, owner: np.ndarray, time: np.ndarray, item: np.ndarray, undo: np.ndarray) -> np.ndarray:
    """Return `order`, the places of events by owner and time, without undos and what they take back; the others (N,) by place."""
    about = owner * (int(item.max()) + 1) + item
    order = order[np.lexsort((undo[order], time[order], owner[order]))]
    concerned = np.flatnonzero(np.isin(about[order], about[undo]))  # few: they are gone through one by one
    gone = events.taken_back(about[order[concerned]].tolist(), undo[order[concerned]].tolist())
    return np.delete(order, concerned[gone])


def _owners(table: pa.Table) -> tuple[np.ndarray, list[str]]:
    column = events.owners(table).combine_chunks().dictionary_encode()
    return column.indices.to_numpy().astype(np.int64), column.dictionary.to_pylist()


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Number the distinct values of a column; -1 where there is none."""
    encoded = column.combine_chunks().dictionary_encode()
    return pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)


def _session_numbers(owner: np.ndarray, time: np.ndarray, given: np.ndarray, gap: float) -> np.ndarray:
    if not len(owner):
        return np.zeros(0, np.int64)
    silent = np.diff(time) > gap * 1000
    told = (given[1:] >= 0) & (given[:-1] >= 0)
    opens = (np.diff(owner) != 0) | np.where(told, given[1:] != given[:-1], silent)
    return np.concatenate([[0], np.cumsum(opens)])


Pairs = tuple[np.ndarray, np.ndarray]
"""Whose and which: numbers of histories and item rows, one pair each."""


@dataclass(frozen=True)
class Histories:
    """What people did before some moment, oldest first, one after the other: person b owns start[b]:start[b + 1].

    item (N,) vocabulary rows, kind (N,) event type codes, time (N,) ms; surface (B,) numbers of where each person is now, for whom
    something is to be found (recsys.events.surface_number), (0,) where nobody says that.
    """

    start: np.ndarray
    item: np.ndarray
    kind: np.ndarray
    time: np.ndarray
    surface: np.ndarray = field(default_factory=lambda: NOWHERE)

    @property
    def gap(self) -> np.ndarray:
        """How long before each event the last one of the same person was, (N,) buckets."""
        gap = gap_buckets(self.time)
        gap[self.start[:-1][np.diff(self.start) > 0]] = 0
        return gap

    def __len__(self) -> int:
        return len(self.start) - 1

    def __getitem__(self, part: slice) -> "Histories":
        first, last, _ = part.indices(len(self))
        inside = slice(self.start[first], self.start[last])
        start, surface = self.start[first : last + 1] - self.start[first], self.surface[first:last]
        return Histories(start, self.item[inside], self.kind[inside], self.time[inside], surface)

    def pairs(self) -> Pairs:
        """Return whose each event is, and its item."""
        return np.repeat(np.arange(len(self)), np.diff(self.start)), self.item

    def where(self, kept: np.ndarray) -> "Histories":
        """Return some of the events, kept (N,) bool; everybody stays, some perhaps with nothing."""
        count = np.bincount(self.pairs()[0][kept], minlength=len(self))
        return Histories(np.concatenate([[0], np.cumsum(count)]), self.item[kept], self.kind[kept], self.time[kept], self.surface)

    def newest(self, limit: int) -> "Histories":
        """Return the newest `limit` events of each."""
        begin = np.maximum(self.start[:-1], self.start[1:] - limit)
        inside = ranges(begin, self.start[1:])
        start = np.concatenate([[0], np.cumsum(self.start[1:] - begin)])
        return Histories(start, self.item[inside], self.kind[inside], self.time[inside], self.surface)

    def padded(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return item, kind, gap as (B, L) int64 filled up with 0 on the right, and the lengths (B,)."""
        length = np.diff(self.start)
        inside = np.arange(max(1, length.max(initial=1)))[None, :] < length[:, None]
        grids = []
        for column in (self.item, self.kind, self.gap):
            grid = np.zeros(inside.shape, np.int64)
            grid[inside] = column
            grids.append(grid)
        return grids[0], grids[1], grids[2], length


def histories(sessions: Sessions, at: np.ndarray, limit: int) -> Histories:
    """Return what each event's owner did before it, and where they are then: at (B,) places in `sessions` -> the newest `limit` of each.

    Events of unknown items (row 0) say nothing and are left out.
    """
    first = sessions.start[sessions.owner[at]]
    known = np.concatenate([[0], np.cumsum(sessions.item > 0)])  # positions among the known events
    begin = np.maximum(known[first], known[at] - limit)
    take = np.flatnonzero(sessions.item > 0)[ranges(begin, known[at])]
    start = np.concatenate([[0], np.cumsum(known[at] - begin)])
    surface = sessions.surface[at] if len(sessions.surface) else NOWHERE
    return Histories(start, sessions.item[take], sessions.kind[take], sessions.time[take], surface)


def ranges(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return begin[0]..end[0]-1, begin[1]..end[1]-1, ... in one array."""
    length = end - begin
    return np.arange(length.sum()) + np.repeat(begin - np.concatenate([[0], np.cumsum(length)[:-1]]), length)
