"""What is known about the items: append-only Parquet segments; of each column the last word about an item wins."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.files import clear, locked, sha256, write_beside
from recsys.shared import Moved, Shared, State

SCHEMA = pa.schema(
    [
        pa.field("item_id", pa.string()),
        pa.field("title", pa.string()),
        pa.field("genres", pa.list_(pa.string())),
    ]
)
"""Every catalogue has these columns; others are kept as text or numbers."""

WITHDRAWN = "withdrawn"
"""A column of our own: 1 where an item is not to be recommended any more, 0 where it is again."""

SEGMENTS = 32
"""More segments than that are made one."""


class Catalogue:
    """Titles, genres and whatever else the sources said, one row per item. shared: the journal in a store, where there is one."""

    def __init__(self, folder: Path, shared: Shared | None = None):
        self.folder, self.shared = folder, shared

    def segments(self) -> list[Path]:
        """Return the committed segments, oldest first."""
        return sorted(self.folder.glob("[0-9]*.parquet"))

    def add(self, table: pa.Table) -> int:
        """Add what `table` says about its items; return of how many of them anything was new."""
        with locked(self.folder):
            clear(self.folder)
            return self._written(lambda: self.news(table))

    def put(self, table: pa.Table) -> None:
        """Add what `table` says, be it new or not: the cost does not grow with the catalogue, until it is tidied up once in a while."""
        with locked(self.folder):
            clear(self.folder)
            self._written(lambda: table)
            if len(self.segments()) > SEGMENTS:
                self._written(self.read, instead=True)  # says the same as all before it: whoever dies here, or reads now, loses nothing

    def pull(self) -> None:
        """Bring down what other machines have added, where a store is shared."""
        if self.shared:
            with locked(self.folder):
                self.shared.whole(partial(self._follow, self.shared))

    def news(self, table: pa.Table) -> pa.Table:
        """Return the rows that `add` would write: whole items of which `table` says something that was not known."""
        known = self.read()
        table = merge([SCHEMA.empty_table(), table])
        both = merge([known, table])
        before = np.full(len(both), -1)
        before[: len(known)] = np.arange(len(known))  # merge keeps the order of first appearance
        changed = before < 0
        for name in both.column_names:
            old = _at(known[name], before) if name in known.column_names else pa.nulls(len(both), both[name].type)
            changed |= ~_same(_cast(pa.chunked_array([old]) if isinstance(old, pa.Array) else old, both[name].type), both[name])
        return both.filter(pa.array(changed))

    def read(self) -> pa.Table:
        """Return one row per item, first seen first."""
        while True:
            segments = self.segments()
            try:
                return merge([SCHEMA.empty_table(), *(pq.read_table(path) for path in segments)])
            except FileNotFoundError:
                if segments == self.segments():
                    raise  # nobody tidied up meanwhile

    def items(self) -> dict[str, dict[str, Any]]:
        """Return the catalogue for look-ups: item_id -> its row."""
        return {row["item_id"]: row for row in self.read().to_pylist()}

    def _written(self, rows: Callable[[], pa.Table], instead: bool = False) -> int:
        """Commit a segment behind all others, or instead of them; return how many rows it has. Nothing is written of nothing."""
        while True:
            if self.shared:
                self.shared.whole(partial(self._follow, self.shared))
            since = self.shared.state.erasures if self.shared else 0
            table, old = rows(), self.segments()
            number = int(old[-1].stem) + 1 if old else 0
            try:
                if len(table):
                    fill = partial(self._fill, table, number, since, old if instead else [])
                    write_beside(self.folder / f"{number:06d}.parquet", fill, exclusive=True)
            except Moved:
                continue  # another machine has added something, perhaps this
            for path in old if instead else ():
                path.unlink()
            return len(table)

    def _fill(self, table: pa.Table, number: int, since: int, instead: list[Path], beside: Path) -> None:
        pq.write_table(table, beside, compression="zstd")
        if self.shared:
            self.shared.add("items", number, number + 1, len(table), beside, since, [sha256(old) for old in instead])

    def _follow(self, shared: Shared, state: State) -> None:
        """Have the segments that a state of the journal names, and no others."""
        wanted = {self.folder / f"{segment.first:06d}.parquet": segment for segment in state.items}
        for path, segment in wanted.items():
            if not path.exists():
                shared.fetch("items", segment, path)
        for path in set(self.segments()) - set(wanted):
            path.unlink()


def merge(parts: Sequence[pa.Table]) -> pa.Table:
    """Join tables about items into one row per item; where a later cell is empty the earlier one stays."""
    names = list(dict.fromkeys(name for part in parts for name in part.column_names))
    columns = {name: _joined(name, parts) for name in names}
    ids = columns["item_id"].combine_chunks().dictionary_encode()
    item = ids.indices.to_numpy()
    for name in names:
        last = np.full(len(ids.dictionary), -1)
        rows = np.flatnonzero(columns[name].is_valid().to_numpy())
        last[item[rows]] = rows  # of several rows the last one is kept
        columns[name] = _at(columns[name], last)
    return pa.table(columns)


def _joined(name: str, parts: Sequence[pa.Table]) -> pa.ChunkedArray:
    type = _common({part.schema.field(name).type for part in parts if name in part.column_names} - {pa.null()})
    columns = (_cast(part[name], type) if name in part.column_names else pa.chunked_array([pa.nulls(len(part), type)]) for part in parts)
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], type)


def _common(types: set[pa.DataType]) -> pa.DataType:
    """Return the type that holds what all the sources said."""
    if types and all(pa.types.is_list(type) for type in types):
        return pa.list_(pa.string())
    if types and all(pa.types.is_integer(type) for type in types):
        return pa.int64()
    if types and all(pa.types.is_integer(type) or pa.types.is_floating(type) for type in types):
        return pa.float64()
    return pa.string()


def _cast(column: pa.ChunkedArray, type: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_list(column.type) and pa.types.is_string(type):
        return pc.binary_join(column.cast(pa.list_(pa.string())), "|")  # an empty list is one of nothing at all
    return column.cast(type)


def _at(column: pa.ChunkedArray, rows: np.ndarray) -> pa.ChunkedArray:
    """Return the cells at `rows`; null where a row is -1."""
    return column.take(pa.array(rows, mask=rows < 0))


def _same(a: pa.ChunkedArray, b: pa.ChunkedArray) -> np.ndarray:
    """Say where two columns agree; two empty cells do."""
    if pa.types.is_list(a.type):
        a, b = pc.binary_join(a, "\x1f"), pc.binary_join(b, "\x1f")
    equal = pc.fill_null(pc.equal(a, b), False).to_numpy()
    return equal | (a.is_null().to_numpy() & b.is_null().to_numpy())
