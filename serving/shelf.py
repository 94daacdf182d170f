"""What is known about the items of a release, by column: which of them a filter lets through."""

import json
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.catalogue import WITHDRAWN
from recsys.errors import BadInput, nearest
from recsys.vocab import Vocabulary
from serving.stock import Names

WORDS = ("any", "all", "none", "min", "max")
"""any, all, none: a list of values of which the item has at least one, every one, not one; min, max: bounds of a number, inclusive."""

KEPT = 64
"""Filters whose answers are remembered, those asked last: an app asks for the same few shelves again and again."""

Filters = Mapping[str, Mapping[str, Any]]


class Shelf:
    """The catalogue in the rows of one vocabulary. A filter names columns; an item must meet what is said of each of them.

    An item of which a column says nothing has no value there: it meets `none`, and nothing else.
    """

    def __init__(self, catalogue: pa.Table, vocab: Vocabulary | Names):
        rows = vocab.rows(catalogue["item_id"].to_pylist()) if len(catalogue) else np.zeros(0, np.int32)
        known = np.flatnonzero(rows > 0)
        self.n, self.rows = len(vocab), rows[known]
        ours = [name for name in ("item_id", WITHDRAWN) if name in catalogue.column_names]
        self.table = catalogue.take(known).drop_columns(ours) if len(catalogue) else None
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()
        self._by_row: dict[str, tuple[np.ndarray, pa.Array]] = {}

    @property
    def columns(self) -> list[str]:
        """What can be filtered by."""
        return sorted(self.table.column_names) if self.table is not None else []

    def fitting(self, column: str, value: Any) -> Any:
        """Return a value as a column holds it; raise BadInput where that would turn what is known of all other items into texts."""
        if self.table is None or column not in self.table.column_names:
            return value
        kind = self.table[column].type
        if pa.types.is_list(kind):
            return value if isinstance(value, list) else [str(value)]
        numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if isinstance(value, list) or (numbers and not isinstance(value, (int, float))):
            raise BadInput(f"{column}: this column holds {'numbers' if numbers else 'texts'}, one an item; got {str(value)[:80]!r}")
        return value

    def let_through(self, filters: Filters) -> np.ndarray:
        """Return which rows meet all of it, (n,) bool, not to be written to; raise BadInput on what makes no sense."""
        key = json.dumps(filters, sort_keys=True, default=str)
        found = self._kept.pop(key, None)
        if found is None:
            found = np.ones(self.n, bool)
            for column, condition in filters.items():
                found &= self._meets(column, condition)
            found[0] = False
            found.flags.writeable = False
        self._kept[key] = found
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return found

    def values(self, column: str, rows: np.ndarray) -> list[list[Hashable]]:
        """Return what a column says of some rows: one value, several, or nothing."""
        assert self.table is not None
        if column not in self._by_row:
            place = np.full(self.n, -1)
            place[self.rows] = np.arange(len(self.rows))
            self._by_row[column] = (place, self.table[column].combine_chunks())
        place, cells = self._by_row[column]
        found = [cells[at].as_py() if at >= 0 else None for at in place[rows].tolist()]
        return [value if isinstance(value, list) else [] if value is None else [value] for value in found]

    def _meets(self, column: str, condition: Mapping[str, Any]) -> np.ndarray:
        if self.table is None or column not in self.table.column_names:
            hint = nearest(column, self.columns) if self.columns else "nothing is known of the items"
            raise BadInput(f"filters: no item has a column {column!r}; {hint}")
        if not isinstance(condition, Mapping) or not condition:
            raise BadInput(f'filters.{column}: say what it must be, such as {{"any": ["..."]}}; there are: {", ".join(WORDS)}')
        found = np.ones(self.n, bool)
        for word, value in condition.items():
            if word not in WORDS:
                raise BadInput(f"filters.{column}: there is no {word!r}; {nearest(word, WORDS)}")
            found &= self._within(column, word, value) if word in ("min", "max") else self._among(column, word, value)
        return found

    def _among(self, column: str, word: str, values: Any) -> np.ndarray:
        if not isinstance(values, list) or not values or not all(isinstance(value, (str, int, float)) for value in values):
            raise BadInput(f"filters.{column}.{word} is a list of values; got {json.dumps(values, default=str)[:80]}")
        assert self.table is not None
        cells, rows = self.table[column].combine_chunks(), self.rows
        if pa.types.is_list(cells.type):
            rows, cells = self.rows[pc.list_parent_indices(cells).to_numpy()], pc.list_flatten(cells)
        wanted = list(dict.fromkeys(_as(value, cells.type) for value in values))
        try:
            sought = pa.array(wanted, cells.type)
        except (UnicodeError, pa.ArrowException):  # half of a character
            raise BadInput(f"filters.{column}.{word}: {json.dumps(values, default=str)[:80]} holds what is no text") from None
        place = pc.index_in(cells, value_set=sought, skip_nulls=True).fill_null(-1).to_numpy(zero_copy_only=False)
        hits = np.unique(np.stack([rows[place >= 0], place[place >= 0]]), axis=1)  # an item may say a thing twice
        count = np.bincount(hits[0], minlength=self.n)
        if word == "all":
            return count == len(wanted)
        return (count > 0) if word == "any" else (count == 0)

    def _within(self, column: str, word: str, bound: Any) -> np.ndarray:
        assert self.table is not None
        cells = self.table[column]
        if not isinstance(bound, (int, float)) or isinstance(bound, bool) or not abs(bound) <= 1e300:
            raise BadInput(f"filters.{column}.{word} is a number; got {json.dumps(bound, default=str)[:80]}")
        if not (pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type)):
            raise BadInput(f"filters.{column}.{word}: {column!r} holds {cells.type}, no numbers; use any, all or none")
        value = pc.fill_null(cells.cast(pa.float64()), float("nan")).to_numpy()
        met = np.zeros(self.n, bool)
        with np.errstate(invalid="ignore"):
            met[self.rows] = value >= bound if word == "min" else value <= bound
        return met


def _as(value: Any, type: pa.DataType) -> Any:
    """Return a value as a column's type would say it; what it could never hold stays what it is not: a text."""
    if pa.types.is_string(type):
        return value if isinstance(value, str) else str(value)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    if not pa.types.is_integer(type):
        return number
    return int(number) if number.is_integer() and abs(number) < 2**63 else None
