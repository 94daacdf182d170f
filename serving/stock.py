"""Rows of a release and, behind them, of items that came since: nothing of the release is copied."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from recsys.vocab import Vocabulary
from recsys.voting import seal


class Names:
    """A vocabulary with more ids behind it."""

    def __init__(self, base: Vocabulary, more: list[str]):
        self.base, self.more = base, more
        self._row = {id: len(base) + place for place, id in enumerate(more)}

    def __len__(self) -> int:
        return len(self.base) + len(self.more)

    def row(self, id: str) -> int:
        """Return the row of an id, 0 where it is unknown."""
        return self.base.row(id) or self._row.get(id, 0)

    def rows(self, ids: Iterable[str]) -> np.ndarray:
        """Return the rows of many ids, (N,) int64."""
        return np.array(self.base.listed(ids) if not self.more else list(map(self.row, ids)), np.int64)

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
