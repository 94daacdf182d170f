"""Sessions -> training examples -> length-bucketed tensors; and how often each item is met."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from recsys.sessions import Sessions, gap_buckets, owner_numbers, ranges

WISHES = 5
"""How many wishes of neighbours are kept for each event."""


@dataclass(frozen=True)
class Examples:
    """Stretches of people's timelines, one after the other: example b owns start[b]:start[b + 1].

    whose (B,) uint64: a number for the name of each one's owner (see Sessions.whose), by which they can be forgotten.
    item (N,) rows, kind (N,) event type codes, gap (N,) buckets, weight (N,) how much each event counts as a target
    (0: context only; the first event of an example has nothing before it and is always context), moment (N,) which
    snapshot of the items' popularity was the newest then (see ItemCounts.stream), -1 for what is remembered from before.
    wish (N, WISHES) rows that might as well have come there, by other people's word, each as likely as the others; 0 where they have none.
    surface (N,) numbers of where the events happened, 0 where they do not say (recsys.events.surface_number).
    """

    start: np.ndarray
    whose: np.ndarray
    item: np.ndarray
    kind: np.ndarray
    gap: np.ndarray
    weight: np.ndarray
    moment: np.ndarray
    wish: np.ndarray
    surface: np.ndarray

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def targets(self) -> np.ndarray:
        """The rows to be predicted, with repetition."""
        return self.item[self.weight > 0]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.start)

    def take(self, which: np.ndarray) -> "Examples":
        """Return some of the examples, in the order asked for."""
        begin, end = self.start[which], self.start[which + 1]
        inside = ranges(begin, end)
        return Examples(_starts(end - begin), self.whose[which], *(getattr(self, f.name)[inside] for f in fields(self)[2:]))

    def join(self, other: "Examples") -> "Examples":
        """Return these examples, then the others."""
        return Examples(
            np.concatenate([self.start, self.start[-1] + other.start[1:]]),
            *(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)[1:]),
        )

    @classmethod
    def none(cls) -> "Examples":
        """Return no examples."""
        return cls(
            np.zeros(1, np.int64),
            np.zeros(0, np.uint64),
            np.zeros(0, np.int32),
            np.zeros(0, np.int8),
            np.zeros(0, np.int8),
            np.zeros(0, np.float32),
            np.zeros(0, np.int16),
            np.zeros((0, WISHES), np.int32),
            np.zeros(0, np.int32),
        )

    def remembered(self) -> "Examples":
        """Return the examples as the past: popularity has moved on since."""
        return replace(self, moment=np.full_like(self.moment, -1))

    def drawn(self, share: float, rng: np.random.Generator) -> np.ndarray:
        """Return what is to be foretold at each event, (N,): its item or, by chance `share`, one that neighbours wish for there."""
        luck, which = rng.random(len(self.item)), rng.integers(0, WISHES, len(self.item))
        wish = self.wish[np.arange(len(which)), which]
        return np.where((luck < share) & (wish > 0), wish, self.item)


def examples(
    sessions: Sessions,
    learn: np.ndarray,
    limit: int,
    moment: np.ndarray | None = None,
    wish: np.ndarray | None = None,
) -> Examples:
    """Cut each timeline into stretches of `limit` inputs, newest first, and keep those with something to learn.

    learn (N,) bool: which events may be targets; of those, only the positive ones of known items count.
    moment (N,), wish (N, WISHES): see Examples.
    """
    known = sessions.item > 0
    weight = (learn & sessions.positive & known).astype(np.float32)[known]
    item, kind, time = sessions.item[known], sessions.kind[known], sessions.time[known]
    count = np.bincount(sessions.owner[known], minlength=len(sessions.owners))
    start = _starts(count)
    stretches = np.maximum(0, -(-(count - 1) // limit))
    owner = np.repeat(np.arange(len(count)), stretches)
    back = np.arange(len(owner)) - np.repeat(_starts(stretches)[:-1], stretches)
    end = start[owner + 1] - back * limit
    begin = np.maximum(start[owner], end - limit - 1)
    learned = np.concatenate([[0], np.cumsum(weight)])
    useful = learned[end] - learned[begin + 1] > 0
    owner, begin, end = owner[useful], begin[useful], end[useful]
    inside, cut = ranges(begin, end), _starts(end - begin)
    gap, weight = gap_buckets(time[inside]), weight[inside]
    gap[cut[:-1]] = 0
    weight[cut[:-1]] = 0
    when = np.zeros(len(inside), np.int16) if moment is None else moment[known][inside].astype(np.int16)
    wish = np.zeros((len(known), WISHES), np.int32) if wish is None else wish
    surface = sessions.surface[known][inside] if len(sessions.surface) else np.zeros(len(inside), np.int32)
    whose = owner_numbers(sessions.owners)[owner]
    return Examples(cut, whose, item[inside], kind[inside], gap, weight, when, wish[known][inside], surface)


@dataclass(frozen=True)
class Batch:
    """Right-padded tensors (B, L): int64 item, kind, gap, target and moment, and weight, 0 where there is nothing to learn.

    next_kind, next_gap, surface: what happens with the target, after which silence, and where (0 where nobody knows).
    """

    item: Tensor
    kind: Tensor
    gap: Tensor
    target: Tensor
    weight: Tensor
    moment: Tensor
    next_kind: Tensor
    next_gap: Tensor
    surface: Tensor

    def __len__(self) -> int:
        return len(self.item)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on another device."""
        return Batch(*(getattr(self, f.name).to(device) for f in fields(self)))

    def join(self, other: "Batch") -> "Batch":
        """Return one batch with the rows of both."""
        length = max(self.item.shape[1], other.item.shape[1])

        def pad(x: Tensor) -> Tensor:
            return torch.nn.functional.pad(x, (0, length - x.shape[1]))

        return Batch(*(torch.cat([pad(getattr(self, f.name)), pad(getattr(other, f.name)).to(self.item.device)]) for f in fields(self)))

    def pieces(self, n: int) -> list["Batch"]:
        """Return the rows in up to `n` batches of like length, each as short as what there is to learn in it allows.

        Joined batches hold short rows padded to long ones; attention over padding is most of a step's cost.
        """
        columns = torch.arange(1, self.weight.shape[1] + 1, device=self.weight.device)
        length = ((self.weight > 0) * columns).amax(1)
        cut = []
        for rows in torch.argsort(length, stable=True).chunk(n):
            until = max(1, int(length[rows[-1]]))
            cut.append(Batch(*(getattr(self, f.name)[rows, :until] for f in fields(self))))
        return cut


def batch(some: Examples, target: np.ndarray | None = None) -> Batch:
    """Turn examples into one batch: each event predicts the next; target (N,): what is foretold in its place."""
    lengths = some.lengths
    inside = np.arange(lengths.max(initial=2))[None, :] < lengths[:, None]

    def grid(column: np.ndarray, dtype: type) -> np.ndarray:
        filled: np.ndarray = np.zeros(inside.shape, dtype)
        filled[inside] = column
        return filled

    seen, kind, gap = (grid(column, np.int64) for column in (some.item, some.kind, some.gap))
    wanted = seen if target is None else grid(target, np.int64)
    last = np.arange(inside.shape[1])[None, :] >= lengths[:, None] - 1
    inputs = np.where(last, 0, seen)  # the last event of an example is only ever a target
    weight = grid(some.weight, np.float32)
    moment, surface = grid(some.moment, np.int64), grid(some.surface, np.int64)
    then = (wanted[:, 1:], weight[:, 1:], moment[:, 1:], kind[:, 1:], gap[:, 1:], surface[:, 1:])
    parts = (inputs[:, :-1], kind[:, :-1], gap[:, :-1], *then)
    return Batch(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))


class Batches:
    """Passes over examples, shuffled anew each time, neighbours in a batch of like length; wishes: see Examples.drawn."""

    def __init__(self, examples: Examples, size: int, seed: int, wishes: float = 0.0):
        self.examples = examples
        self.size = size
        self.seed = seed
        self.wishes = wishes
        self.passes = 0

    def __len__(self) -> int:
        return -(-len(self.examples) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng([self.seed, self.passes])
        self.passes += 1
        order = rng.permutation(len(self.examples))
        lengths = self.examples.lengths
        pool = 50 * self.size
        order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in np.split(order, range(pool, len(order), pool))])
        cuts = np.split(order, range(self.size, len(order), self.size))
        for i in rng.permutation(len(cuts)):
            some = self.examples.take(cuts[i])
            yield batch(some, some.drawn(self.wishes, rng))


IMAGINED = 0.3
"""Views that every item is given beside its real ones."""


@dataclass(frozen=True)
class ItemCounts:
    """How often each item was met, an event counting half after `half_life` ms; when it was first and last seen.

    count (n,) float64 as of `now`; first, last (n,) ms, 0 where never.
    """

    half_life: float
    now: int
    count: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def none(cls, half_life_days: float) -> "ItemCounts":
        empty = np.zeros(0, np.int64)
        return cls(half_life_days * 86_400_000, 0, np.zeros(0), empty, empty)

    def grow(self, rows: int) -> "ItemCounts":
        """Make room for new items."""
        new = rows - len(self.count)
        return ItemCounts(self.half_life, self.now, *(np.pad(column, (0, new)) for column in (self.count, self.first, self.last)))

    def share(self) -> np.ndarray:
        """Return each item's share of what is watched now, (n,) float32."""
        return (self.count / max(self.count.sum(), 1e-12)).astype(np.float32)

    def log_share(self) -> np.ndarray:
        """Return the log of each item's share of what is watched now, (n,) float32; a fraction of a view keeps all above zero."""
        count = self.count + IMAGINED
        return np.log(count / count.sum()).astype(np.float32)

    def stream(self, item: np.ndarray, time: np.ndarray, pieces: int) -> tuple["ItemCounts", np.ndarray, np.ndarray]:
        """Count events piece by piece, as they came; return the counts, a moment for each event, and the snapshots.

        item, time (N,) -> moments (N,) int16, and the log shares just before each piece, (pieces, n) float32: what is
        learned from an event may use the popularity before it, never the event's own.
        """
        counts, moment, snapshots = self, np.zeros(len(item), np.int16), []
        for number, part in enumerate(np.array_split(np.argsort(time, kind="stable"), pieces)):
            snapshots.append(counts.log_share())
            moment[part] = number
            counts = counts.add(item[part], time[part])
        return counts, moment, np.stack(snapshots)

    def add(self, item: np.ndarray, time: np.ndarray) -> "ItemCounts":
        """Return the counts after more events: item (N,) rows, time (N,) ms."""
        if not len(item):
            return self
        now = max(self.now, int(time.max()))
        count = self.count * 0.5 ** ((now - self.now) / self.half_life)
        count += np.bincount(item, 0.5 ** ((now - time) / self.half_life), len(count))
        first, last = self.first.copy(), self.last.copy()
        np.maximum.at(last, item, time)
        unset = np.where(first == 0, np.iinfo(np.int64).max, first)
        np.minimum.at(unset, item, time)
        return ItemCounts(self.half_life, now, count, np.where(unset == np.iinfo(np.int64).max, 0, unset), last)


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
