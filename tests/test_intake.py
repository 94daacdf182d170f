"""Rows are refused one by one with a reason; files that cannot be read stop everything; nothing is written twice."""

import gzip
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from rich.console import Console

from recsys import checks
from recsys.catalogue import Catalogue
from recsys.errors import BadInput
from recsys.events import SCHEMA, milliseconds
from recsys.home import Home
from recsys.intake import Report, import_events, import_items, read_events
from recsys.log import Log

DATA = Path(os.environ.get("RECSYS_DATA") or Path(__file__).parents[2] / "shared" / "data")
real = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real logs: there is no folder {DATA}; set RECSYS_DATA")
GOOD = "u1,i1,1000000000\n"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def log_file(folder: Path, rows: str, header: str = "user_id,item_id,timestamp", name: str = "log.csv") -> Path:
    path = folder / name
    path.write_text(f"{header}\n{rows}")
    return path


REFUSED = {
    "u1,i1,-5": "timestamp is negative",
    "u1,i1,NaN": "timestamp is missing or NaN",
    "u1,i1,": "timestamp is missing or NaN",
    "u1,i1,yesterday": "timestamp is neither a number nor an ISO-8601 time",
    "u1,i1,inf": "timestamp is neither a number nor an ISO-8601 time",
    "u1,i1,86400": "timestamp is before 1990",
    "u1,i1,9000000000": "timestamp is in the future",
    "u1,i1,1000000000000": "timestamp is not in seconds like the rest of its column",
    "u1,i1,2001-09-09T01:46:40Z": "timestamp is not in seconds like the rest of its column",
    "u1,,1000000000": "item_id is missing",
    "u1,nan,1000000000": "item_id is missing",
    ",i1,1000000000": "neither user_id nor session_id",
    "u\x001,i1,1000000000": "user_id has control characters",
    'u1,"i\n1",1000000000': "item_id has control characters",
    f"u1,{'i' * 257},1000000000": "item_id is longer than 256 characters",
    "u1,i1": "2 cells where there should be 3",
    "u1,i1,1000000000,more": "4 cells where there should be 3",
}


@pytest.mark.parametrize("row", sorted(REFUSED))
def test_a_bad_row_is_refused_with_its_reason_and_the_rest_goes_in(home: Home, tmp_path: Path, row: str) -> None:
    path = log_file(tmp_path, f"{GOOD}{row}\nu2,i2,1000000001\nu3,i3,1000000002\n")
    report = import_events(home, [path])
    assert report.refused == {REFUSED[row]: 1}
    assert report.examples[REFUSED[row]][0].startswith(f"{path}:3: ")
    assert (report.read, report.kept, report.added) == (4, 3, 3)
    assert Log(home.log).read()["user_id"].to_pylist() == ["u1", "u2", "u3"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("u1,i1,1000000000,like a lot,0.5", "event_type is none of"),
        ("u1,i1,1000000000,watch,much", "rating is not a number"),
        ("u1,i1,1000000000,watch,-1", "rating is negative"),
    ],
)
def test_a_bad_type_or_value_is_refused(home: Home, tmp_path: Path, row: str, reason: str) -> None:
    path = log_file(tmp_path, f"{row}\nu2,i2,1000000000,Thumbs Up,0.5\nu3,i3,1000000000,,\n", "user_id,item_id,timestamp,event_type,value")
    report = import_events(home, [path])
    (said,) = report.refused
    assert said.startswith(reason)
    events = Log(home.log).read()
    assert events["event_type"].to_pylist() == ["like", "watch"]
    assert events["value"].to_pylist() == [0.5, None]


def test_an_id_that_is_not_utf8_is_refused(home: Home, tmp_path: Path) -> None:
    path = log_file(tmp_path, "")
    path.write_bytes(b"user,item,ts\nu1,caf\xe9,1000000000\nu1,caf\xc3\xa9,1000000000\n")
    assert import_events(home, [path]).refused == {"item_id is not UTF-8 text": 1}
    assert Log(home.log).read()["item_id"].to_pylist() == ["café"]


def test_three_examples_of_a_reason_are_shown_and_all_are_counted(home: Home, tmp_path: Path) -> None:
    path = log_file(tmp_path, GOOD + "u1,i1,-1\n" * 10 + ",,5\n")
    report = import_events(home, [path])
    assert report.refused == {"timestamp is negative": 10, "item_id is missing": 1}
    assert report.examples["timestamp is negative"] == [f"{path}:{line}: u1,i1,-1" for line in (3, 4, 5)]
    assert report.read == report.kept + 11


def test_strict_stops_at_the_first_refused_row_and_writes_nothing(home: Home, tmp_path: Path) -> None:
    path = log_file(tmp_path, GOOD + "u1\nu1,i1,-1\n")
    with pytest.raises(BadInput, match=r"log.csv:3: 1 cells where there should be 3: u1; nothing was written"):
        import_events(home, [path], strict=True)
    assert not home.path.exists()
    assert import_events(home, [log_file(tmp_path, GOOD)], strict=True).added == 1


def test_a_file_without_one_sound_row_is_an_error_and_writes_nothing(home: Home, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none of the 2 rows can be used: 2 because timestamp is negative, as in .*log.csv:2: u1,i1,-1"):
        import_events(home, [log_file(tmp_path, "u1,i1,-1\nu2,i1,-2\n")])
    assert not home.path.exists()


def test_one_file_that_cannot_be_read_stops_the_sound_ones(home: Home, tmp_path: Path) -> None:
    sound, cut = log_file(tmp_path, GOOD), tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(sound.read_bytes() * 1000)[:-20])
    with pytest.raises(BadInput, match=r"cut\.csv\.gz is damaged or cut short"):
        import_events(home, [sound, cut])
    with pytest.raises(BadInput, match="there is no file"):
        import_events(home, [sound, tmp_path / "nowhere.csv"])
    assert not home.path.exists()


def test_importing_the_same_file_twice_adds_nothing(home: Home, tmp_path: Path) -> None:
    path = log_file(tmp_path, GOOD + GOOD + "u2,i1,1000000005\n")
    first, second = import_events(home, [path]), import_events(home, [path])
    assert (first.read, first.duplicates, first.known, first.added) == (3, 1, 0, 2)
    assert (second.read, second.duplicates, second.known, second.added) == (3, 1, 2, 0)
    assert len(Log(home.log)) == 2
    assert len(Log(home.log).segments()) == 1


def test_the_same_event_is_known_again_from_another_file_and_format(home: Home, tmp_path: Path) -> None:
    import_events(home, [log_file(tmp_path, "u1,i1,1000000000,4\nu2,i2,1000000001,5\n", "user_id,item_id,timestamp,rating")])
    other = tmp_path / "log.jsonl"
    same = '{"user": "u1", "item": "i1", "ts": "2001-09-09T01:46:40Z", "rating": 4}'
    other.write_text(same + '\n{"user": "u3", "item": "i1", "ts": "2001-09-10", "rating": 5}')
    assert import_events(home, [other]).known == 1


def test_validate_says_what_import_would_do_and_writes_nothing(home: Home, tmp_path: Path) -> None:
    path = log_file(tmp_path, GOOD + "u1,i1,-1\n")
    would = import_events(home, [path], write=False)
    assert not home.path.exists()
    did = import_events(home, [path])
    differ = {key for key in did.as_dict() if did.as_dict()[key] != would.as_dict()[key]}
    assert differ <= {"written", "seconds", "rows_per_second"}
    again = import_events(home, [path], write=False)
    assert (again.known, again.added) == (1, 0)


def test_events_of_all_files_are_sorted_by_time_together(home: Home, tmp_path: Path) -> None:
    a = log_file(tmp_path, "u1,a,1000000005\nu1,b,1000000001\nu1,c,1000000003\n", name="a.csv")
    b = log_file(tmp_path, "u1,d,1000000004\nu1,e,1000000001\n", name="b.csv")
    import_events(home, [a, b])
    assert Log(home.log).read()["item_id"].to_pylist() == ["b", "e", "c", "d", "a"]


def test_events_of_one_moment_stay_in_the_order_of_their_files(tmp_path: Path) -> None:
    files = [log_file(tmp_path, "".join(f"u,{part}-{n},{1000000000 + n % 2}\n" for n in range(500)), name=f"{part}.csv") for part in "ab"]
    told = [f"{part}-{n}" for second in (0, 1) for part in "ab" for n in range(second, 500, 2)]
    assert read_events(files).table["item_id"].to_pylist() == told


def test_an_event_id_of_the_source_is_kept_and_a_missing_one_is_made(home: Home, tmp_path: Path) -> None:
    import_events(home, [log_file(tmp_path, "u1,i1,1000000000,mine\nu1,i2,1000000001,\n", "user_id,item_id,timestamp,event_id")])
    mine, made = Log(home.log).read()["event_id"].to_pylist()
    assert mine == "mine"
    assert len(made) == 32


def test_the_future_begins_a_day_from_now(tmp_path: Path) -> None:
    path = log_file(tmp_path, "u1,i1,1000000000\nu1,i2,1000086399\nu1,i3,1000086401\n")
    assert len(read_events([path]).table) == 3
    intake = read_events([path], now=1_000_000_000)
    assert intake.report.refused == {"timestamp is in the future": 1}
    assert intake.table["item_id"].to_pylist() == ["i1", "i2"]


@pytest.mark.parametrize(
    "cells",
    [
        ["1000000000", "1000000000.5"],
        ["1000000000000", "1000000000500"],
        ["2001-09-09T01:46:40Z", "2001-09-09T03:46:40.5+02:00"],
        ["2001-09-09 01:46:40", "2001-09-09 01:46:40.500 UTC"],
        ["1e9", "1.0000000005e9"],
    ],
)
def test_seconds_milliseconds_and_iso_times_mean_the_same(cells: list[str]) -> None:
    verdict = checks.Verdict(2)
    assert checks.times(pa.chunked_array([cells]), verdict).tolist() == [1_000_000_000_000, 1_000_000_000_500]
    assert verdict.accepted.all()


@pytest.mark.parametrize(
    ("values", "top"),
    [([0.5, 1], 1), ([0.5, 3, 5], 5), ([1, 7], 10), ([55], 100), ([5] * 2000 + [7], 5), ([5] * 500 + [7], 10), ([], 1)],
)
def test_the_top_of_a_scale_is_the_smallest_usual_one_that_holds_nearly_all(values: list[float], top: float) -> None:
    assert checks.scale_of(np.array(values, float)) == top


def test_files_imported_together_share_one_scale(tmp_path: Path) -> None:
    header = "user_id,item_id,timestamp,rating"
    low = log_file(tmp_path, "u1,i1,1000000000,4\n", header, "low.csv")
    high = log_file(tmp_path, "u1,i2,1000000001,8\n", header, "high.csv")
    assert read_events([low, high]).table["value"].to_pylist() == pytest.approx([0.4, 0.8])


def test_a_report_reads_well_and_fits_into_json(home: Home, tmp_path: Path) -> None:
    import json

    report = import_events(home, [log_file(tmp_path, GOOD + "[red]u1,i1,-1\n")])
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(report)
    shown = console.export_text()
    assert "1 rows: timestamp is negative" in shown
    assert ":3: [red]u1,i1,-1" in shown
    back = json.loads(json.dumps(report.as_dict()))
    assert (back["read"], back["kept"], back["refused"]) == (2, 1, {"timestamp is negative": 1})
    assert (back["first"], back["last"]) == ("2001-09-09T01:46:40Z", "2001-09-09T01:46:40Z")
    assert isinstance(report, Report)


def test_the_table_has_the_schema_of_the_log(tmp_path: Path) -> None:
    assert read_events([log_file(tmp_path, GOOD)]).table.schema.equals(SCHEMA)


# Item metadata


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("movies.csv", "movieId,title,genres\n0010,Heat (1995),Crime|Drama\n20,Untitled,(no genres listed)\n"),
        ("movies.dat", "0010::Heat (1995)::Crime|Drama\n20::Untitled::\n"),
        ("films.item", "item_id:token\tmovie_title:token_seq\tclass:token_seq\n0010\tHeat (1995)\tCrime Drama\n20\tUntitled\t\n"),
        ("films.tsv", "id\tname\tgenre\n0010\tHeat (1995)\tCrime, Drama\n20\tUntitled\t\n"),
        ("films.jsonl", '{"item": "0010", "title": "Heat (1995)", "genres": ["Crime", "Drama"]}\n{"item": 20, "title": "Untitled"}\n'),
    ],
)
def test_item_metadata_reads_the_same_from_every_format(home: Home, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    report = import_items(home, [tmp_path / name])
    assert (report.read, report.added, report.items) == (2, 2, 2)
    assert Catalogue(home.items).read().to_pylist() == [
        {"item_id": "0010", "title": "Heat (1995)", "genres": ["Crime", "Drama"], "year": 1995},
        {"item_id": "20", "title": "Untitled", "genres": None, "year": None},
    ]
    assert import_items(home, [tmp_path / name]).added == 0


def test_other_columns_are_kept_as_numbers_or_text(home: Home, tmp_path: Path) -> None:
    (tmp_path / "films.csv").write_text("item_id,minutes,stars,code,studio\na,90,3.5,007,X\nb,,4,008,\n")
    import_items(home, [tmp_path / "films.csv"])
    assert Catalogue(home.items).read().to_pylist() == [
        {"item_id": "a", "title": None, "genres": None, "minutes": 90, "stars": 3.5, "code": "007", "studio": "X"},
        {"item_id": "b", "title": None, "genres": None, "minutes": None, "stars": 4.0, "code": "008", "studio": None},
    ]


def test_old_film_lists_in_latin_1_keep_their_accents(home: Home, tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_bytes("1::Misérables, Les (1995)::Drama\n".encode("latin-1"))
    import_items(home, [tmp_path / "movies.dat"])
    assert Catalogue(home.items).read()["title"].to_pylist() == ["Misérables, Les (1995)"]


def test_items_without_an_id_are_refused_and_strict_stops_there(home: Home, tmp_path: Path) -> None:
    (tmp_path / "films.csv").write_text("item_id,title\n,Nobody\na,Somebody\n")
    with pytest.raises(BadInput, match=r"films\.csv:2: item_id is missing"):
        import_items(home, [tmp_path / "films.csv"], strict=True)
    assert not home.path.exists()
    would = import_items(home, [tmp_path / "films.csv"], write=False)
    assert (would.added, would.refused, home.path.exists()) == (1, {"item_id is missing": 1}, False)


def test_items_need_an_id_column(home: Home, tmp_path: Path) -> None:
    (tmp_path / "films.csv").write_text("film,name\na,b\n")
    with pytest.raises(BadInput, match="needed: item_id; say which is which, for example --columns item_id=name"):
        import_items(home, [tmp_path / "films.csv"], columns={"title": "film"})


# Real logs, counted by hand once


@real
@pytest.mark.parametrize(
    ("file", "rows", "doubled", "users", "sessions", "items"),
    [
        ("movietweetings/ratings.dat.gz", 141_695, 0, 21_081, 0, 12_611),
        ("movielens-latest-small/ratings.csv", 100_836, 0, 610, 0, 9_724),
        ("yoochoose-100k/train_full.tsv.gz", 70_278, 1, 0, 17_794, 2_933),
        ("diginetica/period_0.txt.gz", 70_739, 0, 0, 15_076, 18_569),
    ],
)
def test_real_logs_come_in_whole(file: str, rows: int, doubled: int, users: int, sessions: int, items: int) -> None:
    intake = read_events([DATA / file])
    report = intake.report
    assert report.refused == {}
    assert (report.read, report.duplicates, len(intake.table)) == (rows, doubled, rows - doubled)
    assert (report.users, report.sessions, report.items) == (users, sessions, items)
    assert (np.diff(milliseconds(intake.table)) >= 0).all()


@real
def test_real_film_lists_come_in_whole(home: Home) -> None:
    assert import_items(home, [DATA / "movietweetings/movies.dat.gz"]).added == 12_611
    films = Catalogue(home.items).read()
    assert films["title"].to_pylist()[2] == "Fantômas - À l'ombre de la guillotine (1913)"
    assert films["item_id"].to_pylist()[0] == "0000628"
    assert films["year"].null_count == 0
    heard = set(read_events([DATA / "movietweetings/ratings.dat.gz"]).table["item_id"].unique().to_pylist())
    assert heard == set(films["item_id"].to_pylist())
    assert pc.all(pc.greater(films["year"], 1850)).as_py()
