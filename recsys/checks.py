"""Cells of text -> ids, times and values, each row accepted or refused with a reason. Whole columns at once."""

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.events import CODE

MAX_ID = 256
EARLIEST_MS = 631_152_000_000  # 1990: nothing was streamed before
LATEST_MS = 4_102_444_800_000  # 2100, where nobody said what time it is
DAY_MS = 86_400_000
SCALES = (1.0, 5.0, 10.0, 100.0)

OTHER_WORDS = {
    **dict.fromkeys(("exposure", "show"), "impression"),
    **dict.fromkeys(("view", "pageview", "detail"), "click"),
    **dict.fromkeys(("played", "stream", "listen"), "play"),
    **dict.fromkeys(("watched", "rating", "rate"), "watch"),
    **dict.fromkeys(("completed", "finish", "purchase", "transaction", "buy"), "complete"),
    **dict.fromkeys(("thumbs_up", "favorite"), "like"),
    **dict.fromkeys(("thumbs_down",), "dislike"),
    **dict.fromkeys(("skipped",), "skip"),
    **dict.fromkeys(("addtocart", "add_to_cart", "cart", "wishlist"), "add_to_list"),
}
"""What other logs call our event types."""

_MISSING = pa.array(["", "nan", "null", "none", "<na>", "nat", "\\n"])
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"
_WHOLE = r"^-?(0|[1-9]\d{0,17})$"
_NUMBER_NOT_CODE = r"^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d{1,3})?$"  # 007 is a code
_UNITS = {"seconds": 1e3, "milliseconds": 1.0, "microseconds": 1e-3, "nanoseconds": 1e-6}
_UNIT_EDGES = (1e11, 1e14, 1e17)
_KINDS = (*_UNITS, "ISO-8601")


class Verdict:
    """Why each row is refused, if it is; of several reasons the first one stands."""

    def __init__(self, rows: int):
        self.code = np.zeros(rows, np.int16)
        self.reasons = [""]

    @property
    def accepted(self) -> np.ndarray:
        return self.code == 0

    def refuse(self, rows: np.ndarray, reason: str) -> None:
        """Refuse the rows of a mask (N,) that nothing was said against yet."""
        rows = rows & self.accepted
        if rows.any():
            self.reasons.append(reason)
            self.code[rows] = len(self.reasons) - 1


def present(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of text without outer blanks, null where a cell is empty or says NaN, null or None."""
    values = column.combine_chunks().dictionary_encode()
    words = pc.utf8_trim_whitespace(values.dictionary)
    words = pc.if_else(pc.is_in(pc.utf8_lower(words), value_set=_MISSING), pa.scalar(None, pa.string()), words)
    return pa.chunked_array([words.take(values.indices)])


def ids(column: pa.ChunkedArray, name: str, verdict: Verdict) -> pa.ChunkedArray:
    """Return a column of ids; refuse what cannot be one. A missing id is for the caller to judge."""
    column = present(column)
    values = column.combine_chunks().dictionary_encode()

    def where(bad: pa.Array) -> np.ndarray:
        rows = np.append(bad.to_numpy(zero_copy_only=False), False)  # the last place: rows without an id
        return rows[pc.fill_null(values.indices, len(bad)).to_numpy()]

    words = values.dictionary
    verdict.refuse(where(pc.match_substring_regex(words, r"\p{Cc}")), f"{name} has control characters")
    verdict.refuse(where(pc.match_substring(words, "\ufffd")), f"{name} is not UTF-8 text")
    verdict.refuse(where(pc.greater(pc.utf8_length(words), MAX_ID)), f"{name} is longer than {MAX_ID} characters")
    if name == "user_id":  # in profiles and timelines that is what a session without a user is called
        verdict.refuse(where(pc.starts_with(words, "session:")), "user_id begins with session:, use session_id for that")
    return column


def event_types(column: pa.ChunkedArray, default: str, verdict: Verdict) -> pa.ChunkedArray:
    """Return a column of our event types: ours, or known by another word; `default` where nothing is said."""
    values = pc.fill_null(present(column), default).combine_chunks().dictionary_encode()
    known = [_event_type(word) for word in values.dictionary.to_pylist()]
    unknown = np.array([name is None for name in known], bool)
    verdict.refuse(unknown[values.indices.to_numpy()] if len(unknown) else np.zeros(0, bool), f"event_type is none of {', '.join(CODE)}")
    return pa.chunked_array([pa.array(known, pa.string()).take(values.indices)])


def _event_type(word: str) -> str | None:
    word = re.sub(r"[\s-]+", "_", word.lower())
    return word if word in CODE else OTHER_WORDS.get(word)


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column of text as float64, NaN where it is no finite number."""
    try:
        found = pc.cast(column, pa.float64())
    except pa.ArrowInvalid:
        plain = pc.match_substring_regex(column, _NUMBER)
        found = pc.cast(pc.if_else(plain, column, pa.scalar(None, pa.string())), pa.float64())
    values = found.combine_chunks().to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(values), values, np.nan)


def scale_of(values: np.ndarray) -> float:
    """Return the top of the scale that ratings were given on: the smallest usual one that holds 999 of 1000."""
    values = values[np.isfinite(values)]
    return next((top for top in SCALES if (values <= top).sum() >= 0.999 * len(values)), SCALES[-1])


def ratings(values: np.ndarray, given: np.ndarray, top: float, verdict: Verdict) -> np.ndarray:
    """Return ratings as 0..1 float32; `given` says which cells held anything at all."""
    verdict.refuse(given & np.isnan(values), "rating is not a number")
    with np.errstate(invalid="ignore"):
        verdict.refuse(values < 0, "rating is negative")
        verdict.refuse(values > top, f"rating is above {top:g}, the top of its scale")
    return (values / top).astype(np.float32)


def times(column: pa.ChunkedArray, verdict: Verdict, now: float | None = None) -> np.ndarray:
    """Return a column of times as int64 ms since 1970: seconds, milliseconds (or finer) or ISO-8601, whichever most rows are.

    Times without a zone are UTC. `now` (s): refuse what is more than a day later.
    """
    column = present(column)
    number = numbers(column)
    ms, kind = _by_magnitude(number)
    told = column.is_valid().to_numpy()
    words = np.flatnonzero(told & np.isnan(number))
    if len(words):
        ms[words], kind[words] = _iso(column.take(pa.array(words)))
    latest = LATEST_MS if now is None else int(now * 1000) + DAY_MS
    with np.errstate(invalid="ignore"):
        sane = (ms >= EARLIEST_MS) & (ms <= latest)
        verdict.refuse(~told, "timestamp is missing or NaN")
        verdict.refuse(kind < 0, "timestamp is neither a number nor an ISO-8601 time")
        verdict.refuse(number < 0, "timestamp is negative")
    usual = _most(kind[sane]) if sane.any() else _most(kind[kind >= 0])
    verdict.refuse(sane & (kind != usual), f"timestamp is not in {_KINDS[usual]} like the rest of its column")
    verdict.refuse(ms < EARLIEST_MS, "timestamp is before 1990")
    verdict.refuse(~sane, "timestamp is in the future")
    return np.where(sane, ms, 0).astype(np.int64)


def _by_magnitude(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return times as float64 ms and which unit each seems to be in, -1 where it is no number."""
    unit = np.searchsorted(_UNIT_EDGES, np.abs(np.nan_to_num(number)), side="right")
    ms = np.round(number * np.array(list(_UNITS.values()))[unit])
    return ms, np.where(np.isnan(number), -1, unit)


def _iso(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    text = pc.replace_substring_regex(column, r"\s*(UTC|GMT)$", "Z").to_pandas()
    found = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    fine = found.notna().to_numpy()
    ms = np.where(fine, found.dt.as_unit("ms").astype("int64").to_numpy(), np.nan)
    return ms, np.where(fine, len(_UNITS), -1)


def _most(kinds: np.ndarray) -> int:
    return int(np.bincount(kinds).argmax()) if len(kinds) else 0


def text_or_number(column: pa.ChunkedArray, text: bool = False) -> pa.ChunkedArray:
    """Return a column of metadata as whole numbers, as numbers or, where one cell is neither (or `text`), as text."""
    words = pc.utf8_trim_whitespace(column)
    words = pc.if_else(pc.equal(words, ""), pa.scalar(None, pa.string()), words)
    for pattern, type in () if text else ((_WHOLE, pa.int64()), (_NUMBER_NOT_CODE, pa.float64())):
        if words.null_count < len(words) and pc.all(pc.match_substring_regex(words, pattern)).as_py():
            return pc.cast(words, type)
    return words


def genres(column: pa.ChunkedArray, space: bool = False) -> pa.ChunkedArray:
    """Return lists from "Crime|Drama" (or "Crime, Drama"; or, with `space`, "Crime Drama"); null where there are none."""
    words = pc.utf8_trim_whitespace(column)
    words = pc.if_else(pc.is_in(words, value_set=pa.array(["", "(no genres listed)"])), pa.scalar(None, pa.string()), words)
    has = lambda mark: pc.any(pc.match_substring(words, mark)).as_py()  # noqa: E731
    mark = "|" if has("|") else " " if space else ","
    return pc.split_pattern_regex(words, rf"\s*{re.escape(mark)}\s*")


def year_of(title: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the year at the end of "Heat (1995)", null where there is none."""
    found = pc.struct_field(pc.extract_regex(title, r"\((?P<year>\d{4})(?:\s?[-–]\s?\d{0,4})?\)\s*$"), "year")
    return pc.cast(found, pa.int64())
