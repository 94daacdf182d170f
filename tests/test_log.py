"""The log: each event once, in the order of arrival, in segments that never change."""

import multiprocessing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import log as log_module
from recsys.errors import BadInput
from recsys.events import SCHEMA
from recsys.log import Log, Position


def events(*rows: tuple[str, int]) -> pa.Table:
    """Events of one user, given as (event id, time in ms)."""
    return pa.Table.from_pylist(
        [{"event_id": id, "user_id": "u", "item_id": f"item of {id}", "timestamp": time, "event_type": "watch"} for id, time in rows],
        pa.schema([SCHEMA.field(name).with_type(pa.int64()) if name == "timestamp" else SCHEMA.field(name) for name in SCHEMA.names]),
    ).cast(SCHEMA)


def ids(table: pa.Table) -> list[str]:
    return table["event_id"].to_pylist()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log")


def test_an_empty_log_reads_as_no_events_and_makes_no_folder(log: Log) -> None:
    assert len(log) == 0
    assert log.read().schema.equals(SCHEMA)
    assert ids(log.read()) == []
    assert log.notes() == {}
    assert not log.folder.exists()


def test_what_was_appended_is_read_back_in_the_order_it_came(log: Log) -> None:
    assert log.append(events(("b", 2), ("a", 1))) == 2
    assert log.append(events(("c", 0))) == 1
    assert ids(log.read()) == ["b", "a", "c"]
    assert log.read(columns=["item_id"]).column_names == ["item_id"]
    assert [path.name for path in log.segments()] == ["000000000000-000000000002.parquet", "000000000002-000000000003.parquet"]


def test_an_event_is_written_once_whether_doubled_inside_or_known_before(log: Log) -> None:
    assert log.append(events(("a", 1), ("a", 9), ("b", 2))) == 2
    assert log.append(events(("b", 2), ("c", 3), ("a", 1))) == 1
    assert log.append(events(("a", 1))) == 0
    assert ids(log.read()) == ["a", "b", "c"]
    assert len(log.segments()) == 2


def test_holds_says_which_ids_are_known(log: Log) -> None:
    log.append(events(("a", 1)))
    log.append(events(("b", 2)))
    assert log.holds(events(("b", 7), ("x", 8), ("a", 9))).tolist() == [True, False, True]


def test_two_people_may_use_the_same_event_id(log: Log) -> None:
    ann, bob = events(("e-1", 1)), events(("e-1", 2))
    bob = bob.set_column(bob.schema.get_field_index("user_id"), "user_id", pa.array(["bob"]))
    assert log.append(pa.concat_tables([ann, bob])) == 2
    assert log.append(bob) == 0


def test_old_segments_stay_bit_for_bit(log: Log) -> None:
    log.append(events(("a", 1)))
    (old,) = log.segments()
    before = old.read_bytes()
    log.append(events(("a", 1), ("b", 2)))
    assert old.read_bytes() == before


def test_a_long_table_is_cut_into_segments_and_read_across_them(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "SEGMENT_ROWS", 2)
    log.append(events(*((str(n), n) for n in range(5))), notes={"note.from": "test"})
    assert [path.stem[-1] for path in log.segments()] == ["2", "4", "5"]
    assert ids(log.read(Position(1), Position(4))) == ["1", "2", "3"]
    assert [b"note.from" in pq.read_schema(path).metadata for path in log.segments()] == [False, False, True]


def test_the_newest_notes_are_found_behind_segments_without_any(log: Log) -> None:
    log.append(events(("a", 1)), {"note.stream": "1-0"})
    log.append(events(("b", 1)), {"note.stream": "2-0"})
    log.append(events(("c", 1)))
    assert log.notes() == {"note.stream": "2-0"}


def test_a_position_divides_the_log_by_arrival(log: Log) -> None:
    log.append(events(("a", 10), ("b", 20), ("c", 30)))
    assert ids(log.read(after=Position(1))) == ["b", "c"]
    assert ids(log.read(upto=Position(1))) == ["a"]
    assert ids(log.read(Position(1), Position(2))) == ["b"]
    assert ids(log.read(Position(3), Position(3))) == []


def test_a_position_with_a_date_leaves_later_events_for_the_next_reader(log: Log) -> None:
    log.append(events(("a", 10), ("z", 90), ("b", 20)))
    week1 = Position(len(log), until=50)
    assert ids(log.read(upto=week1)) == ["a", "b"]
    assert ids(log.read(after=week1)) == ["z"]


def test_an_event_that_arrives_late_is_read_by_the_next_reader_exactly_once(log: Log) -> None:
    log.append(events(("a", 10), ("z", 90)))
    week1 = Position(len(log), until=50)
    log.append(events(("late", 5), ("b", 60)))
    week2 = Position(len(log), until=70)
    week3 = Position(len(log), until=100)
    told = [ids(log.read(upto=week1)), ids(log.read(week1, week2)), ids(log.read(week2, week3))]
    assert told == [["a"], ["late", "b"], ["z"]]


def test_reading_step_by_step_reads_everything_once(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "SEGMENT_ROWS", 3)
    position, told = Position(), []
    for step in range(6):
        log.append(events(*((f"{step}.{n}", (step * 7 + n * 13) % 40) for n in range(4))))
        reached = Position(len(log), until=step * 8)
        told += ids(log.read(position, reached))
        position = reached
    told += ids(log.read(position))
    assert sorted(told) == sorted(ids(log.read()))


def test_a_segment_that_is_gone_is_an_error_that_names_it(log: Log) -> None:
    for n in range(3):
        log.append(events((str(n), n)))
    log.segments()[1].unlink()
    with pytest.raises(BadInput, match=r"misses the events 1 to 2 before .*000000000002-000000000003.parquet; restore"):
        log.read()
    with pytest.raises(BadInput, match="misses the events"):
        log.append(events(("x", 9)))


def test_what_a_crash_left_half_written_is_not_read(log: Log) -> None:
    log.append(events(("a", 1)))
    (log.folder / ".000000000001-000000000002.parquet.12345678.tmp").write_bytes(b"half")
    assert ids(log.read()) == ["a"]
    assert log.append(events(("b", 1))) == 1


def _write(folder: Path, names: list[str], go: "multiprocessing.synchronize.Barrier") -> None:
    go.wait(30)
    for name in names:
        Log(folder).append(events((name, 1), ("shared", 2)))


def test_two_writers_at_once_lose_nothing_and_double_nothing(log: Log) -> None:
    context = multiprocessing.get_context("spawn")
    go = context.Barrier(2)
    names = [[f"{writer}-{n}" for n in range(15)] for writer in range(2)]
    writers = [context.Process(target=_write, args=(log.folder, part, go)) for part in names]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert sorted(ids(log.read())) == sorted([*names[0], *names[1], "shared"])
