"""Which events receipts keep out of a log, or take out of it. Who only reads receipts (recsys.forgotten) needs no arrays for that."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recsys.events import milliseconds, owners
from recsys.forgotten import Forgotten, hashed

AHEAD = 24 * 3_600_000 + 5 * 60_000
"""Milliseconds that an event may be dated ahead when it comes in: a day in a file, for time zones, five minutes over HTTP."""


def hides(receipts: Forgotten, table: pa.Table) -> np.ndarray:
    """Say of each event whether it may not come into the log (again), (N,) bool: somebody forgotten did it, before they asked."""
    until = _until(receipts.folder, receipts.written())
    return _before(table, until) if until and len(table) else np.zeros(len(table), bool)


def did(receipt: dict[str, Any], table: pa.Table, offset: np.ndarray) -> np.ndarray:
    """Say which events of a log, at offsets (N,), were done by who is forgotten, (N,) bool: by them and in their sessions.

    What was there when they asked goes though a clock that is ahead has dated it later; what came in since goes up to when they asked.
    """
    names = (receipt["who"], *receipt["sessions"])
    before, since = (_before(table, dict.fromkeys(names, receipt["at"] + ahead)) for ahead in (AHEAD, 0))
    return np.where(offset < receipt["end"], before, since)


@lru_cache(maxsize=2)
def _until(folder: Path, files: tuple[tuple[str, int, int], ...]) -> dict[str, int]:
    """Return up to when the past of whom is kept out, ms, by the hash of the name; files: a receipt that is written anew is another one,
    by when, for it may get the number of one that is gone.
    """
    receipts = Forgotten(folder).all()
    return {name: receipt["at"] for receipt in receipts for name in (receipt["who"], *receipt["sessions"])}


def _before(table: pa.Table, until: dict[str, int]) -> np.ndarray:
    whose = owners(table).combine_chunks().dictionary_encode()
    last = np.array([until.get(hashed(name), -1) if name is not None else -1 for name in whose.dictionary.to_pylist()] or [-1])
    return milliseconds(table) <= last[whose.indices.fill_null(0).to_numpy(zero_copy_only=False)]
