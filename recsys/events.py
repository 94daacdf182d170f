"""What happened: one schema for every room, and what each event type means."""

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import BadInput, nearest

EVENT_TYPES = ("impression", "click", "play", "watch", "complete", "like", "dislike", "skip", "add_to_list", "undo")
"""Append-only: the place of a type in this tuple is its code in batches and in the towers."""

POSITIVE = frozenset({"click", "play", "watch", "complete", "like", "add_to_list"})
NEGATIVE = frozenset({"dislike", "skip"})
HISTORY = POSITIVE | NEGATIVE
"""Types that belong to a person's history; an impression does not, and an undo takes one of them back (see `taken_back`)."""

PROFILE = HISTORY | {"undo"}
"""Types that a profile holds."""

SCHEMA = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("timestamp", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("event_type", pa.string(), nullable=False),
        pa.field("value", pa.float32()),
        pa.field("session_id", pa.string()),
        pa.field("request_id", pa.string()),
        pa.field("surface", pa.string()),
    ],
    metadata={"recsys.schema": "2"},
)
"""A row has a `user_id`, a `session_id` or both; `value` is a rating or a watched share, 0 to 1; `surface` says where it happened: a
part of the app, a market, a kind of profile, whatever the strategy `heads` is to tell apart."""

CODE = {name: code for code, name in enumerate(EVENT_TYPES)}
IS_POSITIVE = np.array([name in POSITIVE for name in EVENT_TYPES])
IS_HISTORY = np.array([name in HISTORY for name in EVENT_TYPES])
UNDO = CODE["undo"]

CountsAs = Mapping[str, float]
"""Positive event type -> the least value with which it counts."""

EVERYTHING: CountsAs = dict.fromkeys(sorted(POSITIVE, key=EVENT_TYPES.index), -np.inf)

_KEYS = ("recsys-event-id0", "recsys-event-id1")  # pandas wants 16 bytes
_IDENTITY = ("user_id", "session_id", "item_id", "timestamp", "event_type", "value")


def derive_event_ids(columns: pd.DataFrame) -> np.ndarray:
    """Return an id for every row, made from what the row says: the same row always gets the same id.

    columns: user_id, session_id, item_id, timestamp (ms), event_type, value -> (N,) of 32 hex digits.
    """
    frame = columns[list(_IDENTITY)].astype({"timestamp": "int64", "value": "float32"})
    halves = [pd.util.hash_pandas_object(frame, index=False, hash_key=key).to_numpy() for key in _KEYS]
    return np.array([f"{a:016x}{b:016x}" for a, b in zip(*halves, strict=True)], dtype=object)


def positive(text: str) -> CountsAs:
    """Read what counts as "more of this": types, joined by commas, each perhaps with a least value: "play, watch >= 0.5, like"."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, least = (word.strip() for word in part.partition(">="))
        if name not in POSITIVE:
            hint = "write it like watch >= 0.5" if set(name) & set("<>=") else nearest(name, EVERYTHING)
            raise BadInput(f"{name!r} cannot count as positive; {hint}")
        if name in found:
            raise BadInput(f"{name!r} stands there twice")
        try:
            found[name] = float(least) if least else -np.inf
        except ValueError:
            found[name] = np.nan
        if least and not 0 <= found[name] <= 1:
            raise BadInput(f"{part.strip()!r}: write it like watch >= 0.5, a share from 0 to 1")
    return found


def counted(table: pa.Table, counts: CountsAs) -> pa.Table:
    """Return events with those that do not count as positive turned into impressions, which say nothing about taste.

    One without a value counts: nobody knows that it was little. An undo takes back the newest event that counts.
    """
    if counts == EVERYTHING or not len(table):
        return table
    kind, value = table["event_type"], pc.fill_null(table["value"], np.inf)
    idle = pc.and_(pc.is_in(kind, value_set=pa.array(sorted(POSITIVE))), pc.invert(pc.is_in(kind, value_set=pa.array(sorted(counts)))))
    for name, least in counts.items():
        idle = pc.or_(idle, pc.and_(pc.equal(kind, name), pc.less(value, least)))
    place = table.column_names.index("event_type")
    return table.set_column(place, table.schema.field(place), pc.if_else(idle, "impression", kind))


def taken_back(what: Iterable[Hashable], undo: Iterable[bool]) -> list[int]:
    """Return the places of events that count for nothing: every undo, and what it takes back.

    what: whose and which item each event is about, oldest first, an undo behind all others of its moment; undo: which events are undos.
    One takes back the newest event before it that is about the same and was not taken back yet; where there is none it says nothing. So
    the last word before a dislike counts again when the dislike is undone.
    """
    standing: dict[Hashable, list[int]] = {}
    gone = []
    for place, (key, is_undo) in enumerate(zip(what, undo, strict=True)):
        if not is_undo:
            standing.setdefault(key, []).append(place)
            continue
        gone.append(place)
        if standing.get(key):
            gone.append(standing[key].pop())
    return gone


def owners(table: pa.Table) -> pa.ChunkedArray:
    """Return whose each event is, (N,): the user's, or "session:ID" where nobody is signed in."""
    return pc.coalesce(table["user_id"], pc.binary_join_element_wise("session:", table["session_id"], ""))


def identities(table: pa.Table) -> pa.ChunkedArray:
    """Return whose each event is, with its id, (N,): two people may use the same event id for two events."""
    return pc.binary_join_element_wise(owners(table), table["event_id"], "\x1f")


def milliseconds(table: pa.Table) -> np.ndarray:
    """Return the timestamps of an event table as int64 milliseconds since 1970."""
    return table["timestamp"].cast(pa.int64()).to_numpy()


def surface_number(name: str | None) -> int:
    """Return a number for the name of a surface, the same everywhere, 1 to 2^31 - 1; 0 where there is none."""
    if not name:
        return 0
    return 1 + int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) % (2**31 - 1)


def surface_numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Return the number of each event's surface, (N,) int32; (0,) where none has one."""
    if column.null_count == len(column):
        return np.zeros(0, np.int32)
    encoded = column.combine_chunks().dictionary_encode()
    numbers = np.array([*map(surface_number, encoded.dictionary.to_pylist()), 0], np.int32)
    return numbers[pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)]


def type_codes(names: Sequence[str] | pa.ChunkedArray) -> np.ndarray:
    """Return the code of each event type, int8."""
    encoded = pa.chunked_array([pa.array(names)]) if not isinstance(names, pa.ChunkedArray) else names
    encoded = encoded.combine_chunks().dictionary_encode()
    codes = np.array([CODE[name] for name in encoded.dictionary.to_pylist()], dtype=np.int8)
    return codes[encoded.indices.to_numpy()] if len(encoded) else np.zeros(0, np.int8)
