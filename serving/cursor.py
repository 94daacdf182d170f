"""Where a list goes on: what was shown already travels in the cursor, so no page repeats an item, whatever happened in between."""

import base64
import binascii
import json
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import orjson

from recsys.errors import BadInput

SHOWN = 1000
"""Items that a cursor can carry: nobody leafs through more."""


def fingerprints(ids: Sequence[str]) -> np.ndarray:
    """Return a number of 32 bits for each item id, (n,) uint32. Of a million items some share one: then the other is passed over too."""
    try:
        return np.array([crc32(id.encode()) for id in ids], np.uint32)
    except UnicodeEncodeError:  # half of a character
        return np.array([crc32(id.encode("utf-8", "surrogatepass")) for id in ids], np.uint32)


def question(**asked: object) -> int:
    """Return a checksum of what was asked: a cursor goes on with that and with nothing else."""
    try:
        return crc32(orjson.dumps(asked, default=str, option=orjson.OPT_SORT_KEYS))
    except TypeError:  # a very large number, or half of a character
        return crc32(json.dumps(asked, sort_keys=True, default=str).encode())


def encode(asked: int, shown: np.ndarray) -> str:
    """Write a cursor: what was asked, and the fingerprints of what was shown."""
    return base64.urlsafe_b64encode(np.concatenate([[asked], shown]).astype("<u4").tobytes()).decode().rstrip("=")


def decode(cursor: str, asked: int) -> np.ndarray:
    """Return the fingerprints of what was shown, (S,) uint32; raise BadInput for what no answer to this question gave."""
    try:
        numbers = np.frombuffer(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True), "<u4")
    except (binascii.Error, ValueError):
        numbers = np.zeros(0, np.uint32)
    if not 1 <= len(numbers) <= SHOWN + 1:
        raise BadInput("cursor: this is none; send the next_cursor of the last answer, or none for the first page")
    if int(numbers[0]) != asked:
        raise BadInput("cursor: it belongs to another question; send the same parameters as for the page before, or begin without a cursor")
    return numbers[1:].astype(np.uint32)
