"""The log: each event once, in the order of arrival, in segments that never change."""

import multiprocessing
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
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


def test_notes_of_two_writers_are_not_mixed_when_segments_are_put_together(log: Log) -> None:
    """What one Redis gave last says nothing about the streams of another."""
    for n in range(8):
        log.append(events((str(n), n)), {"note.streams": "one", "note.stream.3": "900-0"} if n < 7 else {"note.streams": "other"})
    before = log.notes()
    assert log.compact() == 7
    assert log.notes() == before == {"note.streams": "other"}


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


def grown(log: Log, n: int, by: int = 1, start: int = 0) -> None:
    for first in range(start, n, by):
        log.append(events(*[(f"e{k}", k) for k in range(first, min(n, first + by))]), {"note.at": str(first)})


def test_small_segments_are_put_together_and_everything_is_there_once(log: Log) -> None:
    grown(log, 30)
    before = log.read()
    assert log.compact() == 30 - len(log.segments()) > 20
    assert log.read().equals(before)
    assert log.notes() == {"note.at": "29"}
    assert len(list(log.folder.glob("*.parquet"))) == len(log.segments())
    assert log.compact() == 0
    assert [ids(log.read(Position(n), Position(n + 1))) for n in range(30)] == [[f"e{n}"] for n in range(30)]


def test_a_log_that_grows_by_handfuls_has_few_segments_and_is_rewritten_few_times(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    written = [0]
    honest = log_module._write

    def counted(table: pa.Table, path: Path) -> None:
        written[0] += len(table)
        honest(table, path)

    monkeypatch.setattr(log_module, "_write", counted)
    monkeypatch.setattr(Log, "holds", lambda self, table: np.zeros(len(table), bool))
    for n in range(200):
        grown(log, n + 1, start=n)
        log.compact()
    assert len(log.segments()) <= 3 * 8
    assert written[0] <= 200 * 4  # once, and once for each power of eight
    assert ids(log.read()) == [f"e{n}" for n in range(200)]


def test_large_segments_stay_as_they_are(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "SEGMENT_ROWS", 20)
    grown(log, 160, by=16)
    assert log.compact() == 0
    assert len(log.segments()) == 10


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("kills", range(1, 12))
def test_killed_while_segments_are_put_together_and_run_again(log: Log, monkeypatch: pytest.MonkeyPatch, kills: int) -> None:
    """Before or after the new segment has its name, or between any two of the old ones that go."""
    grown(log, 16)
    left = [kills]
    honest = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        left[0] -= 1
        if not left[0]:
            raise Killed
        honest(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(Killed):
            log.compact()
    assert ids(log.read()) == [f"e{n}" for n in range(16)]
    assert log.notes() == {"note.at": "15"}
    grown(log, 17, start=16)
    log.compact()
    assert ids(log.read()) == [f"e{n}" for n in range(17)]
    assert len(list(log.folder.glob("[0-9]*.parquet"))) == len(log.segments())


def test_who_reads_meanwhile_reads_everything_once(log: Log) -> None:
    """Another process puts segments together, again and again, while this one reads."""
    grown(log, 12)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        done = pool.apply_async(_grow_and_compact, (str(log.folder), 12, 120))
        seen = 0
        while not done.ready():
            found = ids(log.read())
            assert found == [f"e{n}" for n in range(len(found))]
            assert len(found) >= seen
            seen = len(found)
        done.get()
    assert len(log) == 120
    assert np.all(log.holds(events(("e0", 0), ("e119", 119))))


def _grow_and_compact(folder: str, first: int, last: int) -> None:
    log = Log(Path(folder))
    for n in range(first, last):
        grown(log, n + 1, start=n)
        log.compact()


def test_the_log_is_read_by_others_as_it_is(log: Log) -> None:
    grown(log, 20)
    log.compact()
    log.append(events(("last", 99)))
    frame = pd.read_parquet(log.folder)
    assert frame["event_id"].tolist() == ids(log.read())
    assert str(frame["timestamp"].dtype) == "datetime64[ms, UTC]"
    counted = duckdb.sql(f"select event_type, count(*), max(timestamp) from '{log.folder}/*.parquet' group by all").fetchall()
    assert [(kind, n, newest.timestamp()) for kind, n, newest in counted] == [("watch", 21, 0.099)]


def test_what_was_read_wholly_is_not_read_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job looks every half a minute, and its position has a date."""
    log.append(events(("a", 1000), ("b", 2000)))
    log.append(events(("c", 3000), ("d", 5000)))
    log.append(events(("e", 6000)))
    opened: list[str] = []
    honest = log_module._segment
    monkeypatch.setattr(log_module, "_segment", lambda path, columns: (opened.append(path.name), honest(path, columns))[1])
    assert ids(log.read(Position(4, 4000))) == ["d", "e"]
    assert [name[:12] for name in opened] == ["000000000002", "000000000004"]
    assert ids(log.read(Position(4, 2000))) == ["b", "c", "d", "e"]
    assert len(opened) == 5


def numbered(first: int, last: int) -> pa.Table:
    """Events e0, e1, ... of people u0, u1, ..."""
    table = events(*((f"e{n}", n) for n in range(first, last)))
    return table.set_column(1, SCHEMA.field("user_id"), pa.array([f"u{n}" for n in range(first, last)]))


def erase_every(n: int, log: Log) -> int:
    """Erase the events of every n-th person."""
    return log.erase(lambda events, _: np.array([int(user[1:]) % n == 0 for user in events["user_id"].to_pylist()]))


def test_without_the_erased_every_other_event_keeps_its_offset(tmp_path):
    """Against the same log with nothing erased: what any position gives is the same, less what went."""
    whole, log = Log(tmp_path / "whole"), Log(tmp_path / "log")
    for first in range(0, 120, 12):
        for one in (whole, log):
            one.append(numbered(first, first + 12))
    assert erase_every(5, log) == 24
    assert erase_every(5, log) == 0
    assert erase_every(3, log) == 32

    def check() -> None:
        assert len(log) == len(whole)
        for first, behind in ((0, 120), (0, 61), (7, 8), (59, 60), (60, 61), (95, 120)):
            left = [id for id in ids(whole.read(Position(first), Position(behind))) if int(id[1:]) % 3 and int(id[1:]) % 5]
            assert ids(log.read(Position(first), Position(behind))) == left
        assert [f"e{n}" for n in log.offsets()] == ids(log.read())
        assert log.count() == len(log.read())

    check()
    assert log.compact() > 0
    check()
    assert erase_every(7, log) == len({n for n in range(0, 120, 7) if n % 3 and n % 5})
    for one in (whole, log):
        one.append(numbered(120, 126))
    assert ids(log.read(Position(120))) == [f"e{n}" for n in range(120, 126)]


def test_of_what_was_erased_no_file_is_left_not_even_of_writers_that_were_killed(tmp_path):
    log = Log(tmp_path)
    log.append(numbered(0, 8))
    log.append(numbered(8, 16))
    (tmp_path / ".000000000000-000000000008.parquet.12345678.tmp").write_bytes(b"half")
    pq.write_table(log.read(), tmp_path / "000000000000-000000000016.parquet")  # put together, and killed before the parts went
    erase_every(2, log)
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".parquet", ".tmp")] == ["000000000000-000000000016.parquet"]
    assert ids(log.read()) == [f"e{n}" for n in range(1, 16, 2)]
