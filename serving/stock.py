"""Rows of a release and, behind them, of items that came since: nothing of the release is copied."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numba import njit

from recsys.vocab import Vocabulary
from recsys.voting import seal

PART = 5_000
"""So many ids at once: between two parts other threads come to their turn."""


class Names:
    """A vocabulary with more ids behind it."""

    def __init__(self, base: Vocabulary, more: list[str], slots: np.ndarray | None = None):
        self.base, self.more = base, more
        self._row = {id: len(base) + place for place, id in enumerate(more)}
        self._slots = _by_hash(base.ids[1:]) if slots is None else slots

    def __len__(self) -> int:
        return len(self.base) + len(self.more)

    def row(self, id: str) -> int:
        """Return the row of an id, 0 where it is unknown."""
        return self.base.row(id) or self._row.get(id, 0)

    def and_more(self, more: list[str]) -> "Names":
        """Return the same vocabulary with other ids behind it."""
        return Names(self.base, more, self._slots)

    def rows(self, ids: Iterable[str]) -> np.ndarray:
        """Return the rows of many ids, (N,) int64, 0 where one is unknown.

        They are known by 64 bits of Python's own hash, whose key is another one in each process: a dictionary would fetch the text of each
        from afar to compare it, which takes ten times as long.
        """
        ids = list(ids)
        rows = _found(np.array(list(map(hash, ids)), np.int64), self._slots)
        if self.more:
            for place in (rows == 0).nonzero()[0].tolist():
                rows[place] = self._row.get(ids[place], 0)
        return rows

    def id(self, row: int) -> str:
        """Return the id of a row."""
        return self.base.ids[row] if row < len(self.base) else self.more[row - len(self.base)]


class Rows:
    """A table (n, d), mapped from a file, with more rows (m, d) behind it; asked by row numbers."""

    def __init__(self, base: np.ndarray, more: np.ndarray):
        self.base, self.more = seal(base), seal(more)

    def __len__(self) -> int:
        return len(self.base) + len(self.more)

    @property
    def width(self) -> int:
        """The length of a row."""
        return self.base.shape[1]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return some rows, copied: (R,) int -> (R, d); or the one of a single number, (d,)."""
        if not len(self.more):
            return self.base[rows]
        if np.ndim(rows) == 0:
            return self.base[rows] if rows < len(self.base) else self.more[rows - len(self.base)]
        late = np.asarray(rows) >= len(self.base)
        found = self.base[np.where(late, 0, rows)]
        found[late] = self.more[np.asarray(rows)[late] - len(self.base)]
        return found


def _by_hash(ids: Sequence[str]) -> np.ndarray:
    """Return a table of hashes and rows, counted from 1, (S, 2): each id as near behind the slot of its hash as there was room."""
    slots = np.zeros((1 << (2 * len(ids) + 1).bit_length(), 2), np.int64)
    for start in range(0, len(ids), PART):
        _put(np.array(list(map(hash, ids[start : start + PART])), np.int64), start + 1, slots)
    return slots


@njit(cache=True, nogil=True)
def _put(hashes, row, slots):  # type: ignore[no-untyped-def]
    for hash in hashes:
        slot = _slot(hash, slots)
        if slots[slot, 1] == 0:  # else a second id with the very same 64 bits, which will not happen
            slots[slot, 0], slots[slot, 1] = hash, row
        row += 1


@njit(cache=True, nogil=True)
def _found(hashes, slots):  # type: ignore[no-untyped-def]
    rows = np.empty(len(hashes), np.int64)
    for at in range(len(hashes)):
        rows[at] = slots[_slot(hashes[at], slots), 1]
    return rows


@njit(cache=True, nogil=True)
def _slot(hash, slots):  # type: ignore[no-untyped-def]
    slot = hash & (len(slots) - 1)
    while slots[slot, 1] != 0 and slots[slot, 0] != hash:
        slot = (slot + 1) & (len(slots) - 1)
    return slot
