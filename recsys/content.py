"""What an item is, as hashed features: title words, genres, any other column. No torch here."""

import re
from typing import Any
from zlib import crc32

import numpy as np

from recsys.catalogue import WITHDRAWN

_WORD = re.compile(r"\w+")


def features(item: dict[str, Any], buckets: int) -> list[int]:
    """Return the feature buckets of one item, each once, sorted: {"title": "Heat (1995)", "genres": ["Crime"]}.

    Text is split into lower-case words, a list counts each entry whole, a number counts as written.
    """
    told = {column: cell for column, cell in item.items() if column not in ("item_id", WITHDRAWN) and cell is not None}
    names = {f"{column}={value}" for column, cell in told.items() for value in _values(cell)}
    return sorted({crc32(name.encode()) % buckets for name in names})


def placed(table: np.ndarray, buckets: list[int]) -> np.ndarray:
    """Return where content alone puts an item, as the item tower does: table (buckets, d) -> unit vector (d,), zeros without content."""
    summed = table[buckets].sum(axis=0)
    return (summed / max(1e-12, float(np.linalg.norm(summed)))).astype(np.float32)


def _values(cell: Any) -> list[str]:
    if isinstance(cell, str):
        return _WORD.findall(cell.lower())
    if isinstance(cell, (list, tuple)):
        return [str(entry).lower() for entry in cell]
    return [str(cell)]
