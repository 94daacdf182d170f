"""The event log: append-only Parquet segments, read from a position.

A segment is named after the offsets of its first event and of the one behind its last: 000000000000-000000141695.parquet. Small ones are
put together into a larger one, which then stands for them. Each says by which version of the schema it was written (recsys.events.SCHEMA).
Only to forget a person is one written anew: their events are gone from it, the others keep their offsets, and which are missing is said in
its metadata.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.errors import BadInput
from recsys.events import SCHEMA, identities
from recsys.files import clear, locked, sha256, write_beside
from recsys.forgotten import Forgotten
from recsys.hidden import hides
from recsys.shared import Moved, Shared, State

SEGMENT_ROWS = 1_000_000

VERSION = b"recsys.schema"
"""Where a segment's metadata says which version of the schema it was written by: counted up when older readers would misread it."""

TOGETHER = 8
"""So many neighbours of like size become one segment: a log that grows by handfuls is rewritten a few times, not each time."""

ERASED = b"erased"
"""In a segment's metadata: the offsets of events that are not there any more; in JSON, of each stretch the first and the one behind it."""

T = TypeVar("T")


@dataclass(frozen=True)
class Position:
    """How much of the log was read: the events before `offset` that happened before `until` (ms; None: no limit).

    Two numbers, not a clock alone: an event that arrives late is behind nobody's back, it waits for the next reader.
    """

    offset: int = 0
    until: int | None = None

    def as_dict(self) -> dict[str, int | None]:
        return {"offset": self.offset, "until": self.until}

    def covers(self, offset: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Say which events were read: their places in the log (N,), their times (N,) in ms -> (N,) bool."""
        inside = offset < self.offset
        return inside if self.until is None else inside & (time < self.until)


class Log:
    """Every event ever accepted, in the order it arrived.

    shared: the journal in a store that says what is in it, where there is one. forgotten: whose past may not come in any more; default: the
    receipts beside the log, in the same home.
    """

    def __init__(self, folder: Path | str, shared: Shared | None = None):
        self.folder, self.shared = Path(folder), shared
        self.forgotten = Forgotten(self.folder.parent / "forgotten")

    def __len__(self) -> int:
        segments = self.segments()
        return _bounds(segments[-1])[1] if segments else 0

    def count(self) -> int:
        """Return how many events there are: as many as the log is long, less those of people who were forgotten."""
        return _whole(lambda: sum(pq.read_metadata(path).num_rows for path in self.segments()))

    def segments(self) -> list[Path]:
        """Return the committed segments, oldest first; a gap between two of them is an error."""
        found, end = list[Path](), 0
        for path in sorted(self.folder.glob("[0-9]*-[0-9]*.parquet"), key=lambda path: (_bounds(path)[0], -_bounds(path)[1])):
            first, behind = _bounds(path)
            if behind <= end:
                continue  # a larger one stands for it
            if first != end:
                raise BadInput(f"the log misses the events {end} to {first} before {path}; restore that segment from a backup")
            found.append(path)
            end = behind
        return found

    def pull(self) -> None:
        """Bring down what other machines have added, where a store is shared."""
        if self.shared:
            with locked(self.folder):
                self.shared.whole(partial(self._follow, self.shared))

    def compact(self) -> int:
        """Put small segments together; return how many there are less. Killed at any point, every event is there once."""
        with locked(self.folder), suppress(Moved):  # where others have put some together meanwhile, that is for the next time
            since, before = self._erasures(), self.segments()
            self._sweep()
            while run := _run(self.segments()):
                parts = [_segment(path) for path in run]
                metadata = dict(SCHEMA.metadata or {})
                metadata |= next((told for part in reversed(parts) if (told := _notes(part.schema.metadata or {}))), {})
                metadata |= _erased_as(np.concatenate([_erased(part.schema) for part in parts]))
                path = self.folder / f"{_bounds(run[0])[0]:012d}-{_bounds(run[-1])[1]:012d}.parquet"
                whole = pa.concat_tables([part.replace_schema_metadata() for part in parts]).replace_schema_metadata(metadata)
                write_beside(path, partial(self._fill, whole, path, since, run), exclusive=True)
                for part in run:
                    part.unlink()
        return len(before) - len(self.segments())

    def append(self, table: pa.Table, notes: dict[str, str] | None = None) -> int:
        """Add the events of `table` that the log does not hold yet (by person and event id), but not the past of whoever was forgotten;
        return how many were added.

        `notes` travel in the metadata of the last segment written, committed with its events or not at all.
        """
        table, added = table.select(SCHEMA.names).cast(SCHEMA), 0
        with locked(self.folder):
            clear(self.folder)
            while True:
                if self.shared:
                    self.shared.whole(partial(self._follow, self.shared))
                since = self._erasures()
                new = self._without_known(table.filter(pa.array(~hides(self.forgotten, table))))
                try:
                    for start in range(0, len(new), SEGMENT_ROWS):
                        part = new.slice(start, SEGMENT_ROWS)
                        last = start + len(part) == len(new)
                        metadata = {
                            **(SCHEMA.metadata or {}),
                            **({k.encode(): v.encode() for k, v in (notes or {}).items()} if last else {}),
                        }
                        self._commit(part.replace_schema_metadata(metadata), since)
                        added += len(part)
                    return added
                except Moved:
                    continue  # another machine has added events, perhaps some of these, or somebody is to be forgotten

    def erase(self, which: Callable[[pa.Table, np.ndarray], np.ndarray]) -> int:
        """Write the segments anew that hold events of which `which` says so, without them; return how many went.

        which: asked with the user_id, session_id and timestamp of events, and their offsets (N,): (N,) bool. All others keep their offsets,
        so every position still means what it meant. Killed at any point, it can simply be run again.
        """
        gone = 0
        with locked(self.folder):
            while True:
                if self.shared:
                    self.shared.whole(partial(self._follow, self.shared))
                since = self._erasures()
                self._sweep()
                try:
                    for path in self.segments():
                        told = _segment(path, ["user_id", "session_id", "timestamp"])
                        hit = which(told, _offsets(told, _bounds(path)[0]))
                        if hit.any():
                            write_beside(path, partial(self._fill, _without(_segment(path), hit, _bounds(path)[0]), path, since, [path]))
                            gone += int(hit.sum())
                    return gone
                except Moved:
                    continue  # another machine has put some together, or somebody else is to be forgotten

    def read(self, after: Position | None = None, upto: Position | None = None, columns: list[str] | None = None) -> pa.Table:
        """Return the events that belong to `upto` (default: all) but not to `after` (default: nothing), in log order."""
        after, upto = after or Position(), upto or Position(len(self))
        names = list(columns or SCHEMA.names)
        parts = _whole(lambda: [_part(table, first, after, upto).select(names) for table, first in self._scan(after, upto, names)])
        return pa.concat_tables([pa.schema([SCHEMA.field(n) for n in names]).empty_table(), *parts])

    def offsets(self) -> np.ndarray:
        """Return the offset of each event that `read` gives, (N,): without gaps, unless somebody was forgotten."""
        parts = _whole(lambda: [_offsets(_segment(path, ["timestamp"]), _bounds(path)[0]) for path in self.segments()])
        return np.concatenate([np.zeros(0, np.int64), *parts])

    def notes(self) -> dict[str, str]:
        """Return the notes of the newest segment that carries any."""
        return _whole(self._notes)

    def _notes(self) -> dict[str, str]:
        for path in reversed(self.segments()):
            if found := _notes(_understood(pq.read_schema(path).metadata, path)):
                return {name.decode(): told.decode() for name, told in found.items()}
        return {}

    def holds(self, table: pa.Table) -> np.ndarray:
        """Say of each event whether the log has it, (N,) bool: the same event id of the same person."""
        return _whole(lambda: self._holds(identities(table)))

    def _holds(self, asked: pa.ChunkedArray) -> np.ndarray:
        found = np.zeros(len(asked), bool)
        for path in self.segments():
            known = identities(_segment(path, ["event_id", "user_id", "session_id"]))
            found |= pc.is_in(asked, value_set=known).to_numpy()
        return found

    def _without_known(self, table: pa.Table) -> pa.Table:
        again = identities(table).to_pandas().duplicated().to_numpy()
        return table.filter(pa.array(~again & ~self.holds(table)))

    def _sweep(self) -> None:
        """Remove what writers left that were killed: halves, and segments that a larger one stands for."""
        clear(self.folder)
        for path in {*self.folder.glob("[0-9]*-[0-9]*.parquet")} - {*self.segments()}:
            path.unlink()

    def _commit(self, part: pa.Table, since: int) -> None:
        first = len(self)
        path = self.folder / f"{first:012d}-{first + len(part):012d}.parquet"
        write_beside(path, partial(self._fill, part, path, since, []), exclusive=True)

    def _fill(self, table: pa.Table, path: Path, since: int, instead: list[Path], beside: Path) -> None:
        """Fill a file that gets the name `path` and stands for others; where a store is shared, that has it first (see Shared.add)."""
        _write(table, beside)
        if self.shared:
            self.shared.add("log", *_bounds(path), len(table), beside, since, [sha256(old) for old in instead])

    def _erasures(self) -> int:
        """Return how often it was heard of somebody who is to be forgotten: before anything is read that is to be written."""
        return self.shared.state.erasures if self.shared else 0

    def _follow(self, shared: Shared, state: State) -> None:
        """Have the segments that a state of the journal names, and none that those stand for."""
        if len(self) > state.end:
            raise BadInput(f"the log in {self.folder} holds events that its store does not; move them out of it, and import them again")
        for segment in state.log:
            path = self.folder / f"{segment.first:012d}-{segment.behind:012d}.parquet"
            written_anew = segment.rows < segment.behind - segment.first  # each time there are less
            if not path.exists() or (written_anew and pq.read_metadata(path).num_rows != segment.rows):
                shared.fetch("log", segment, path)
        self._sweep()

    def _scan(self, after: Position, upto: Position, names: list[str]) -> Iterator[tuple[pa.Table, int]]:
        for path in self.segments():
            first, behind = _bounds(path)
            read_before = behind <= after.offset and (after.until is None or _newest(path) < after.until)
            if first < upto.offset and not read_before:
                yield _segment(path, sorted({*names, "timestamp"})), first


def _segment(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Return a segment as one of today's; what its version of the schema did not know is null."""
    with pq.ParquetFile(path) as file:
        metadata = _understood(file.schema_arrow.metadata, path)
        table = file.read(columns)
    for name in (name for name in columns or SCHEMA.names if name not in table.column_names):
        table = table.append_column(SCHEMA.field(name), pa.nulls(len(table), SCHEMA.field(name).type))
    return table.replace_schema_metadata({**metadata, **(SCHEMA.metadata or {})})


def _understood(metadata: dict[bytes, bytes] | None, path: Path) -> dict[bytes, bytes]:
    """Return what a segment says of itself, unless it was written by a version of the schema that nobody knew when this was written."""
    metadata, known = metadata or {}, int(SCHEMA.metadata[VERSION])
    came = metadata.get(VERSION, b"0").decode(errors="replace")  # those from before there were versions say nothing
    if not came.isdecimal() or int(came) > known:
        raise BadInput(f"{path} is of version {came} of the log's schema, and this recsys reads versions up to {known}; update recsys")
    return metadata


def _without(table: pa.Table, hit: np.ndarray, first: int) -> pa.Table:
    """Return a segment without some of its events, (N,) bool, whose offsets it says are erased."""
    erased = np.union1d(_erased(table.schema), _offsets(table, first)[hit])
    return table.filter(pa.array(~hit)).replace_schema_metadata({**(table.schema.metadata or {}), **_erased_as(erased)})


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def _notes(metadata: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {name: told for name, told in metadata.items() if name.startswith(b"note.")}


def _offsets(table: pa.Table, first: int) -> np.ndarray:
    """Return the offset of each event of a segment, (N,)."""
    erased = _erased(table.schema)
    every = np.arange(first, first + len(table) + len(erased))
    return every if not len(erased) else np.setdiff1d(every, erased, assume_unique=True)


def _erased(schema: pa.Schema) -> np.ndarray:
    """Return the offsets that a segment has no events of any more, ascending."""
    stretches = json.loads((schema.metadata or {}).get(ERASED, b"[]"))
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(first, behind) for first, behind in stretches)])


def _erased_as(offsets: np.ndarray) -> dict[bytes, bytes]:
    """Write offsets, ascending, into metadata; nothing where there are none."""
    if not len(offsets):
        return {}
    parts = np.split(offsets, np.flatnonzero(np.diff(offsets) > 1) + 1)
    return {ERASED: json.dumps([[int(part[0]), int(part[-1]) + 1] for part in parts]).encode()}


def _run(segments: list[Path]) -> list[Path]:
    """Return neighbours that should be one segment, none where all is well: TOGETHER of one size class, with smaller ones between them."""
    rows = [behind - first for first, behind in map(_bounds, segments)]
    size = [(count.bit_length() - 1) // 3 for count in rows]  # the whole part of its logarithm to the base of 8
    for most in sorted(set(size)):
        run, total, alike = list[Path](), 0, 0
        for path, count, which in zip(segments, rows, size, strict=True):
            if which > most or total + count > SEGMENT_ROWS:
                run, total, alike = [], 0, 0
            if which == most or (run and which < most):
                run, total, alike = [*run, path], total + count, alike + (which == most)
            if alike == TOGETHER:
                return run
    return []


def _whole(read: Callable[[], T], times: int = 5) -> T:
    """Read once more where a segment was put together with others meanwhile."""
    for _ in range(times - 1):
        try:
            return read()
        except FileNotFoundError:
            continue
    return read()


@cache
def _newest(path: Path) -> float:
    """Return the time of a segment's newest event, ms, by its statistics; infinite where it has none."""
    about = pq.read_metadata(path)
    _understood(about.metadata, path)
    column = about.schema.names.index("timestamp")
    parts = [about.row_group(number).column(column).statistics for number in range(about.num_row_groups)]
    return max((part.max.timestamp() * 1000 if part is not None and part.has_min_max else np.inf for part in parts), default=-np.inf)


def _bounds(path: Path) -> tuple[int, int]:
    first, behind = path.stem.split("-")
    return int(first), int(behind)


def _part(table: pa.Table, first: int, after: Position, upto: Position) -> pa.Table:
    offset = _offsets(table, first)
    time = table["timestamp"].cast(pa.int64()).to_numpy()
    return table.filter(pa.array(upto.covers(offset, time) & ~after.covers(offset, time)))
