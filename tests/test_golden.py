"""Segments of every version of the schema, as they were written when it was today's: they are read for good."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from worlds import NOW, event_table

from recsys.errors import BadInput
from recsys.events import EVENT_TYPES, SCHEMA
from recsys.log import VERSION, Log, Position

GOLDEN = Path(__file__).parent / "golden"

NAMES = ("event_id", "user_id", "item_id", "timestamp", "event_type", "value", "session_id", "request_id", "surface")
ROWS = [
    ("e0", "ann", "heat", NOW, "impression", None, "s1", "r1", "home"),
    ("e1", "ann", "heat", NOW + 1, "click", None, "s1", "r1", "home"),
    ("e2", "ann", "heat", NOW + 2_500, "watch", 0.25, "s1", None, None),
    ("e2", "bob", "heat", NOW - 86_400_000, "play", None, None, None, None),
    ("e3", None, "Ōkami, “das Spiel”", 0, "like", 1.0, "nobody's", None, "kids, 日本"),
    ("e4", "bob", "heat", 253_402_300_799_999, "dislike", 0.0, "", "", ""),
    ("e5", "ünï", "heat", NOW, "complete", None, "s2", None, None),
    ("e6", "ünï", "seven", NOW, "skip", None, "s2", None, None),
    ("e7", "ünï", "seven", NOW, "add_to_list", None, "s2", None, None),
    ("e8", "ünï", "seven", NOW, "undo", None, "s2", None, None),
]
"""What golden/segment-2.parquet holds."""

SINCE = {"surface": 2}
"""The version by which a column came: in what was written before, it is null."""


def rows(version: int) -> list[tuple[object, ...]]:
    """Return what is read of a golden file."""
    return [tuple(None if SINCE.get(name, 1) > version else cell for name, cell in zip(NAMES, row, strict=True)) for row in ROWS]


def expected(version: int | None = None) -> pa.Table:
    return event_table([dict(zip(NAMES, row, strict=True)) for row in rows(version or today())])


def log_of(golden: Path, folder: Path) -> Log:
    folder.mkdir()
    (folder / f"{0:012d}-{len(ROWS):012d}.parquet").write_bytes(golden.read_bytes())
    return Log(folder)


def named(version: int) -> Path:
    return GOLDEN / f"segment-{version}.parquet"


def today() -> int:
    return int(SCHEMA.metadata[VERSION])


@pytest.mark.parametrize("version", range(1, today() + 1))
def test_a_segment_of_every_version_is_read_event_by_event(version: int, tmp_path: Path) -> None:
    assert {row[4] for row in ROWS} == set(EVENT_TYPES)
    log = log_of(named(version), tmp_path / "log")
    found = log.read()
    assert found.equals(expected(version))
    assert [tuple(row.values()) for row in found.set_column(3, "timestamp", found["timestamp"].cast(pa.int64())).to_pylist()] == rows(
        version
    )
    assert found["timestamp"][5].as_py() == datetime(9999, 12, 31, 23, 59, 59, 999_000, UTC)
    assert log.notes() == {"note.stream.3": "1700000000000-7"}
    assert log.holds(expected()).all()
    assert log.append(expected()) == 0
    assert log.read(Position(9), columns=["item_id"])["item_id"].to_pylist() == ["seven"]


def test_there_is_a_golden_file_of_every_version_and_no_other() -> None:
    assert sorted(GOLDEN.iterdir()) == sorted(map(named, range(1, today() + 1)))
    assert [pq.read_schema(named(n)).metadata[VERSION] for n in range(1, today() + 1)] == [b"%d" % n for n in range(1, today() + 1)]


def test_whoever_changes_the_schema_counts_its_version_up(tmp_path: Path) -> None:
    """A new version needs a golden file of its own, and the older ones stay readable."""
    log = Log(tmp_path)
    log.append(expected(), {"note.stream.3": "1700000000000-7"})
    (segment,) = log.segments()
    written, golden = pq.read_schema(segment), pq.read_schema(named(today()))
    assert written.equals(golden, check_metadata=True), "the schema is not what its version's golden file has: count the version up"
    assert pq.read_metadata(segment).schema.equals(pq.read_metadata(named(today())).schema)  # and to others, who know nothing of Arrow


def relabel(path: Path, version: bytes | None) -> None:
    table = pq.read_table(path)
    metadata = {name: told for name, told in table.schema.metadata.items() if name != VERSION}
    pq.write_table(table.replace_schema_metadata(metadata | ({VERSION: version} if version is not None else {})), path)


@pytest.mark.parametrize("version", [b"3", b"10", b"", b"one", b"\xff", b"-1"])
def test_a_segment_of_a_newer_version_is_refused_by_whoever_reads_it(version: bytes, tmp_path: Path) -> None:
    log = log_of(named(2), tmp_path / "log")
    relabel(log.segments()[0], version)
    way = f"is of version {version.decode(errors='replace')} of the log's schema, and this recsys reads versions up to 2; update recsys"
    for read in (
        log.read,
        log.notes,
        lambda: log.read(Position(10, NOW), columns=["item_id"]),
        lambda: log.holds(expected()),
        lambda: log.append(expected()),
    ):
        with pytest.raises(BadInput, match=way):
            read()
    assert len(list(log.folder.glob("*.parquet"))) == 1


def test_one_that_says_no_version_is_read_and_put_together_it_says_one(tmp_path: Path) -> None:
    log = Log(tmp_path)
    for row in expected().to_batches(max_chunksize=1):
        log.append(pa.Table.from_batches([row]), {"note.at": "1"})
        relabel(log.segments()[-1], None)
    assert log.read().equals(expected())
    log.compact()
    assert [pq.read_schema(path).metadata.get(VERSION) for path in log.segments()] == [b"2", None, None]
    assert log.read().equals(expected())
    assert log.notes() == {"note.at": "1"}
