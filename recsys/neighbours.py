"""An instance memory of recent timelines: those nearest to a history vote for what comes next. Nothing is trained. No torch here.

The family of V-SKNN (Ludewig and Jannach, 2018) and STAN (Garg et al., 2019).
"""

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy import sparse

from recsys import voting
from recsys.errors import BadInput, ReleaseDamaged
from recsys.events import IS_POSITIVE
from recsys.files import write_atomically, write_beside
from recsys.sessions import Histories, Sessions, ranges

DAY = voting.DAY
BLOCK = 32
"""Queries answered at once; bounds the memory that one call takes and keeps it in the caches."""

NOBODY = np.zeros(0, np.uint64)

FOLDER, ABOUT = "neighbours", "about.json"
ARRAYS = {name: np.dtype(kind) for name, kind in {"owner": "u8", "start": "i8", "item": "i4", "time": "i8"}.items()}
INDEX = {name: np.dtype(kind) for name, kind in {"ended": "i8", "posting": "i8", "code": "i8"}.items()}


@dataclass
class Neighbours:
    """What people liked, one timeline each: a person's, or a session's where nobody was signed in.

    What is remembered depends only on which events (owner, item, time) were ever added, not on the order or in how many pieces, nor how
    often. Answers are the same, bit for bit, alone or among other queries. The defaults were tuned on the first cycles of DIGINETICA
    and weeks 6 and 7 of MovieTweetings; the result is flat around them.

    owner (T,) hashes and start (T+1,) where each timeline's events begin, that which ended first before the others; item (N,) and time (N,)
    ms of the events, oldest first.
    """

    capacity: int = 2_500_000  # events kept, the newest; a visit without an account has about 5
    length: int = 200  # newest events kept of a timeline
    newest: int = 10  # events of a history that look for neighbours
    candidates: int = 1000  # occurrences of an item that are looked at, in the timelines that ended last
    nearest: int = 300  # timelines that may vote
    fading: float = 2.0  # an event that lies so many places back in the history counts 1/e
    rarity: float = 1.5  # power of the log of an item's rarity, by which sharing it counts
    days: float = 5.0  # what lies so long ago counts half
    distance: float = 4.0  # an item that stands so far from the match in its timeline gets 1/e of the vote
    reach: int = 20  # and beyond this none at all
    before: float = 0.8  # what came before the match, against what came after
    itself: float = 4.0  # the match itself, against what came next
    normalise: float = 0.25  # power of a timeline's length that its vote is divided by

    def __post_init__(self) -> None:
        for name, low in (("capacity", 1), ("length", 1), ("newest", 1), ("candidates", 1), ("nearest", 1), ("reach", 0)):
            if (value := getattr(self, name)) < low or value != int(value):
                raise BadInput(f"neighbours.{name} is a whole number, {low} or more; got {value}")
        for name in ("fading", "days", "distance"):
            if not (value := getattr(self, name)) > 0:
                raise BadInput(f"neighbours.{name} is more than 0; got {value}")
        self._back = (self.length - 1).bit_length()  # a code is timeline, place back in the history, place in the timeline
        self._line = self._back + (self.newest - 1).bit_length()
        if self._line > 24:
            raise BadInput(f"neighbours.length times neighbours.newest is 16 million at most; got {self.length} times {self.newest}")
        step = np.arange(-self.reach, self.reach + 1)
        self._share = np.exp((1 - np.abs(step)) / self.distance) * np.where(step > 0, 1.0, self.before)
        self._share[self.reach] = self.itself
        self._shrink = np.maximum(1, np.arange(self.length + 1)) ** -float(self.normalise)
        self._fade = np.exp(-np.arange(self.newest) / self.fading)
        self._hold(**{name: np.zeros(int(name == "start"), kind) for name, kind in ARRAYS.items()})

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def bytes(self) -> int:
        """How much memory, or room in a release, the arrays take."""
        return sum(getattr(self, name).nbytes for name in ARRAYS | INDEX)

    def add(self, sessions: Sessions) -> None:
        """Remember positive events of known items; an owner that is known already gets a longer timeline.

        What was remembered before is copied but not sorted again. Not while another thread asks: add to a copy that was read, then swap.
        """
        liked = sessions.positive & (sessions.item > 0)
        names = sessions.whose[liked]
        longer = np.isin(self.owner, names)
        again = ranges(self.start[:-1][longer], self.start[1:][longer])
        owner = np.concatenate([np.repeat(self.owner[longer], np.diff(self.start)[longer]), names])
        item = np.concatenate([self.item[again], sessions.item[liked]])
        time = np.concatenate([self.time[again], sessions.time[liked]])
        owner, start, item, time = _timelines(owner, item, time, self.length)

        owner = np.concatenate([self.owner[~longer], owner])
        begin = np.concatenate([self.start[:-1][~longer], len(self.item) + start[:-1]])
        end = np.concatenate([self.start[1:][~longer], len(self.item) + start[1:]])
        item, time = np.concatenate([self.item, item]), np.concatenate([self.time, time])
        order = _by_age(time[end - 1], owner)
        take = ranges(begin[order], end[order])
        start = np.concatenate([[0], np.cumsum((end - begin)[order])])
        self._hold(*_newest(owner[order], start, item[take], time[take], self.capacity))

    def without(self, whose: np.ndarray) -> "Neighbours":
        """Return a memory that never knew some people: whose (P,) as Sessions.whose has them."""
        kept = ~np.isin(self.owner, whose)
        take = ranges(self.start[:-1][kept], self.start[1:][kept])
        left = replace(self)
        left._hold(self.owner[kept], np.concatenate([[0], np.cumsum(np.diff(self.start)[kept])]), self.item[take], self.time[take])
        return left

    def scores(self, histories: Histories, now: np.ndarray, n_items: int) -> np.ndarray:
        """Return how much the neighbours speak for every item: now (B,) ms -> (B, n_items) float32, 0 where nobody does."""
        dense = np.zeros((len(histories), n_items), np.float32)
        query, item, vote = self.votes(histories, now)
        dense[query, item] = vote
        return dense

    def votes(self, histories: Histories, now: np.ndarray, owner: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return query (V,), item (V,) and vote (V,) float32, sorted by query, then item, each pair once: now (B,) ms.

        Row 0 never gets a vote, nor does an item that nobody voted for. Who is in the memory is a neighbour to themselves too, one of many,
        and votes for what they had already; whoever does not want repeats leaves those out before comparing votes. owner (B,): whose each
        history is (see Sessions.whose); they themselves then have no vote, which is how somebody is asked about what the memory knows.
        """
        blocks = [slice(n, n + BLOCK) for n in range(0, len(histories), BLOCK)]
        parts = [self._block(histories[some], now[some], None if owner is None else owner[some]) for some in blocks]
        if len(parts) == 1:
            return parts[0]
        none = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
        query, item, vote = (np.concatenate(column) for column in zip(none, *parts, strict=True))
        return query + np.repeat(np.arange(len(parts)) * BLOCK, [len(part[0]) for part in parts]), item, vote

    def write(self, folder: Path) -> None:
        """Write the memory, its index and its settings into a release's folder; `read` maps the arrays, so workers share them."""
        arrays = {name: getattr(self, name) for name in ARRAYS | INDEX}
        for name, array in arrays.items():
            write_beside(folder / FOLDER / f"{name}.npy", partial(_save, array))
        about = {"settings": asdict(self), "lengths": {name: len(array) for name, array in arrays.items()}}
        write_atomically(folder / FOLDER / ABOUT, json.dumps(about))

    @classmethod
    def read(cls, folder: Path) -> "Neighbours":
        """Return the memory that was written into `folder`; raise ReleaseDamaged where a file is missing, cut off or another memory's.

        What is inside the arrays is for the hashes of the release's manifest to vouch for.
        """
        path = folder / FOLDER / ABOUT
        try:
            about = json.loads(path.read_text())
            memory, lengths, arrays = cls(**about["settings"]), about["lengths"], {}
            for name, kind in (ARRAYS | INDEX).items():
                path = folder / FOLDER / f"{name}.npy"
                arrays[name] = _load(path)
                if arrays[name].shape != (lengths[name],) or arrays[name].dtype != kind:
                    raise ValueError(f"it holds {arrays[name].dtype} {arrays[name].shape}, not {kind} ({lengths[name]},)")
        except (OSError, EOFError, ValueError, KeyError, TypeError, BadInput) as error:
            raise ReleaseDamaged(f"{path} cannot be read ({error}); roll back with: recsys rollback") from None
        memory._hold(**arrays)
        return memory

    def _hold(self, owner: np.ndarray, start: np.ndarray, item: np.ndarray, time: np.ndarray, **index: np.ndarray) -> None:
        """Take timelines in; without their index, made before, list when each ended and where each item occurs.

        Item i occurs in code[posting[i]:posting[i + 1]], the timeline that ended first before the others.
        """
        self.owner, self.start, self.item, self.time = owner, start, item, time
        if not index:
            place = np.arange(len(item)) - np.repeat(start[:-1], np.diff(start))
            code = np.repeat(np.arange(len(owner)) << self._line, np.diff(start)) | place
            shape = (len(owner), int(item.max(initial=0)) + 1)
            by_item = sparse.csr_array((code, item, start), shape=shape).tocsc()  # a counting sort, which keeps the order
            index = {"ended": time[start[1:] - 1], "posting": by_item.indptr.astype(np.int64), "code": by_item.data}
        self.ended, self.posting, self.code = index["ended"], index["posting"], index["code"]
        self._where = voting.seal(self.posting), voting.seal(self.code)
        self._rare = np.log1p(len(self) / np.maximum(1, np.diff(self.posting))) ** self.rarity
        self._who = tuple(map(voting.seal, (self.start, self.ended, self.owner, self.item, self.time)))

    def _block(self, histories: Histories, now: np.ndarray, owner: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        item, kind = histories.item.astype(np.int64, copy=False), histories.kind.astype(np.int64, copy=False)
        newest = self._rare, self._fade, *self._where, self.newest, self.candidates
        keys, weight = voting.occurrences(histories.start, item, kind, IS_POSITIVE, *newest, self._line, self._back)
        keys.sort()
        now, whose = now.astype(np.int64), NOBODY if owner is None else owner.astype(np.uint64)
        days, (start, ended, owners, items, times) = float(self.days), self._who
        found = voting.near(keys, weight, now, whose, start, ended, owners, self._shrink, days, self._line, self._back)
        limit = voting.limits(found[3], found[4], self.nearest)
        keys, vote = voting.votes(*found, limit, now, start, items, times, self._share, self.nearest, days)  # type: ignore[call-arg]
        keys.sort()
        return voting.summed(keys, vote)


def _timelines(owner: np.ndarray, item: np.ndarray, time: np.ndarray, length: int) -> tuple[np.ndarray, ...]:
    """Sort events by owner, time and item, each once, and keep the newest `length` of an owner -> owner, start, item, time."""
    order = np.lexsort((item, time, owner))
    owner, item, time = owner[order], item[order], time[order]
    once = _changes(owner) | _changes(time) | _changes(item)
    owner, item, time = owner[once], item[once], time[once]
    begin = np.flatnonzero(_changes(owner))
    end = np.append(begin[1:], len(owner))[: len(begin)]
    owner, begin = owner[begin], np.maximum(begin, end - length)
    take = ranges(begin, end)
    return owner, np.concatenate([[0], np.cumsum(end - begin)]), item[take], time[take]


def _by_age(ended: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Return the order by end, then owner. Two sorted runs one after the other are merged, not sorted."""
    order = np.argsort(ended, kind="stable")
    new = _changes(ended[order])
    tied = np.flatnonzero(~new | np.append(~new[1:], False))
    order[tied] = order[tied][np.lexsort((owner[order[tied]], ended[order[tied]]))]
    return order


def _newest(owner: np.ndarray, start: np.ndarray, item: np.ndarray, time: np.ndarray, capacity: int) -> tuple[np.ndarray, ...]:
    """Keep the newest `capacity` events, and the timelines that still have any."""
    excess = len(item) - capacity
    if excess <= 0:
        return owner, start, item, time
    limit = np.partition(time, excess)[excess]
    keep = time > limit
    tied = np.flatnonzero(time == limit)
    if len(tied) > capacity - keep.sum():  # of one moment, those of the last owners and items: any rule will do that no order can change
        whose = owner[np.searchsorted(start, tied, side="right") - 1]
        tied = tied[np.lexsort((item[tied], whose))][len(tied) - (capacity - keep.sum()) :]
    keep[tied] = True
    start = np.concatenate([[0], np.cumsum(keep)])[start]
    left = np.diff(start) > 0
    return owner[left], np.append(start[:-1][left], start[-1]), item[keep], time[keep]


def _changes(sorted: np.ndarray) -> np.ndarray:
    """Say which differ from the one before; the first does."""
    return np.concatenate([np.ones(min(1, len(sorted)), bool), sorted[1:] != sorted[:-1]])


def _save(array: np.ndarray, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _load(path: Path) -> np.ndarray:
    """Map a file; as a plain array, for slices of np.memmap are slow."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
