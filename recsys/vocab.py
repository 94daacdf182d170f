"""Ids outside, row numbers inside. A row number, once given, never changes."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Vocabulary:
    """An append-only list of ids. Row 0 stands for every id not yet seen."""

    def __init__(self, ids: Iterable[str] = ()):
        self._row: dict[str, int] = {}
        for id in ids:  # in small steps: a server loads a release beside those it answers
            if id not in self._row:
                self._row[id] = len(self._row) + 1
        self.ids = ("<unknown>", *self._row)

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, id: str) -> bool:
        return id in self._row

    def grow(self, ids: Iterable[str]) -> "Vocabulary":
        """Return a vocabulary that also knows `ids`, in their order; the old rows stay where they are."""
        return Vocabulary((*self.ids[1:], *ids))

    def row(self, id: str) -> int:
        """Return the row of an id, 0 where it is unknown."""
        return self._row.get(id, 0)

    def listed(self, ids: Iterable[str]) -> list[int]:
        """Return the rows of many ids, 0 where one is unknown."""
        row = self._row.get
        return [row(id, 0) for id in ids]

    def rows(self, ids: Iterable[str]) -> np.ndarray:
        """Return the rows of many ids, (N,) int32."""
        return np.array(self.listed(ids), np.int32)

    def encode(self, column: pa.ChunkedArray) -> np.ndarray:
        """Return the rows of a column of ids, (N,) int32; every distinct id is looked up once."""
        if not len(column):
            return np.zeros(0, np.int32)
        encoded = column.combine_chunks().dictionary_encode()
        return self.rows(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]


def in_order_of_appearance(column: pa.ChunkedArray) -> list[str]:
    """Return the distinct ids of a column, first seen first."""
    return pc.unique(column).to_pylist()
