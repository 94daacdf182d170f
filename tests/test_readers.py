"""Every kind of file reads to the same events, plain, gzipped and zstandard."""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.errors import BadInput
from recsys.events import milliseconds
from recsys.intake import read_events
from recsys.readers import FORMATS, detect, read_file

# One small log, told in each format: user 1 rates film 0010 at t=1000000000 s, user 2 rates film 20 ten seconds later.
FILES = {
    "csv": ("log.csv", "userId,movieId,score,ts\n1,0010,4.0,1000000000\n2,20,2.5,1000000010\n"),
    "csv with semicolons": ("log.csv", "user;item;rating;time\n1;0010;4.0;1000000000\n2;20;2.5;1000000010\n"),
    "csv with quotes": ("log.csv", 'user,note,item,rating,time\n1,"a, ""b""\nc",0010,4.0,1000000000\n2,,20,2.5,1000000010\n'),
    "csv with windows line ends": ("log.csv", "\ufeffuser,item,rating,time\r\n1,0010,4.0,1000000000\r\n2,20,2.5,1000000010\r\n"),
    "tsv": ("log.tsv", "uid\tproduct_id\trating\tdatetime\n1\t0010\t4.0\t2001-09-09T01:46:40Z\n2\t20\t2.5\t2001-09-09T03:46:50+02:00\n"),
    "jsonl": (
        "log.jsonl",
        '{"user": 1, "item": "0010", "rating": 4.0, "timestamp": 1000000000000}\n\n'
        '{"user": 2, "item": 20, "rating": 2.5, "timestamp": 1000000010000, "more": [1]}\n',
    ),
    "recbole": (
        "log.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t0010\t4.0\t1000000000\n2\t20\t2.5\t1000000010.0\n",
    ),
    "movielens": ("ratings.csv", "userId,movieId,rating,timestamp\n1,0010,4.0,1000000000\n2,20,2.5,1000000010\n"),
    "movielens-dat": ("ratings.dat", "1::0010::4::1000000000\n2::20::2.5::1000000010\n"),
    "movielens-100k": ("u.data", "1\t0010\t4\t1000000000\n2\t20\t2.5\t1000000010\n"),
}
SECONDS = np.array([1_000_000_000, 1_000_000_010])


def write(folder: Path, name: str, content: str | bytes, packed: str = "") -> Path:
    data = content.encode() if isinstance(content, str) else content
    path = folder / f"{name}{packed}"
    path.write_bytes({"": lambda b: b, ".gz": gzip.compress, ".zst": lambda b: pa.Codec("zstd").compress(b, asbytes=True)}[packed](data))
    return path


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", sorted(FILES))
def test_every_format_tells_the_same_events(tmp_path: Path, kind: str, packed: str) -> None:
    path = write(tmp_path, *FILES[kind], packed)
    intake = read_events([path])
    assert intake.report.formats == [kind.split()[0]]
    assert intake.table["user_id"].to_pylist() == ["1", "2"]
    assert intake.table["item_id"].to_pylist() == ["0010", "20"]
    assert (milliseconds(intake.table) == SECONDS * 1000).all()
    assert intake.table["event_type"].to_pylist() == ["watch", "watch"]
    assert intake.table["value"].to_pylist() == pytest.approx([0.8, 0.5])


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_parquet_reads_numbers_times_and_lists(tmp_path: Path, packed: str) -> None:
    table = pa.table(
        {
            "user_id": pa.array([1, 2]),
            "item_id": pa.array(["0010", "20"]).dictionary_encode(),
            "rating": pa.array([4.0, 2.5]),
            "ts": pa.array(SECONDS * 1_000_000_000).cast(pa.timestamp("ns")),
            "tags": pa.array([["a", "b"], None]),
        }
    )
    pq.write_table(table, tmp_path / "plain.parquet")
    path = write(tmp_path, "log.parquet", (tmp_path / "plain.parquet").read_bytes(), packed)
    assert read_file(path).table["tags"].to_pylist() == ["a|b", None]
    events = read_events([path]).table
    assert events["user_id"].to_pylist() == ["1", "2"]
    assert events["item_id"].to_pylist() == ["0010", "20"]
    assert (milliseconds(events) == SECONDS * 1000).all()


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_movietweetings_keeps_leading_zeros_and_rates_up_to_ten(tmp_path: Path, packed: str) -> None:
    events = read_events([write(tmp_path, "ratings.dat", "1::0054890::9::1381945744\n2::1408101::10::1381945745\n", packed)])
    assert events.report.formats == ["movietweetings"]
    assert events.table["item_id"].to_pylist() == ["0054890", "1408101"]
    assert events.table["value"].to_pylist() == pytest.approx([0.9, 1.0])


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_a_period_file_of_ader_becomes_evenly_spread_clicks_of_its_week(tmp_path: Path, packed: str) -> None:
    paths = [write(tmp_path, f"period_{n}.txt", text, packed) for n, text in ((2, "9 5\n9 6\n"), (0, "7 1\n8 2\n7 3\n7 4\n"))]
    events = read_events(paths).table
    week = 7 * 86_400_000
    assert events["item_id"].to_pylist() == ["1", "2", "3", "4", "5", "6"]
    assert events["session_id"].to_pylist() == ["7", "8", "7", "7", "9", "9"]
    assert events["user_id"].null_count == 6
    assert set(events["event_type"].to_pylist()) == {"click"}
    start = milliseconds(events)[0]
    assert (milliseconds(events) - start).tolist() == [0, week // 4, week // 2, 3 * week // 4, 2 * week, 2 * week + week // 2]


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_yoochoose_has_sessions_without_users_and_seconds_with_fractions(tmp_path: Path, packed: str) -> None:
    events = read_events(
        [write(tmp_path, "train.tsv", "SessionId\tItemId\tTime\n3\t2147\t1396437466.94\n3\t2148\t1396438212.318\n", packed)]
    )
    assert events.report.formats == ["yoochoose"]
    assert milliseconds(events.table).tolist() == [1_396_437_466_940, 1_396_438_212_318]
    assert events.table["session_id"].to_pylist() == ["3", "3"]
    assert events.table["event_type"].to_pylist() == ["click", "click"]


def test_every_format_has_a_test_of_its_own() -> None:
    assert {kind.split()[0] for kind in FILES} | {"parquet", "movietweetings", "ader", "yoochoose"} == set(FORMATS)


def test_a_file_without_a_header_takes_its_columns_by_number(tmp_path: Path) -> None:
    path = write(tmp_path, "clicks.txt", "1,2014-04-07T10:51:09.277Z,214536502,0\n")
    with pytest.raises(BadInput, match=r"has the columns 1, 2, 3, 4; needed: item_id, timestamp and user_id or session_id"):
        read_file(path)
    events = read_events([path], columns={"session_id": "1", "timestamp": "2", "item_id": "3"}).table
    assert events["item_id"].to_pylist() == ["214536502"]
    assert milliseconds(events).tolist() == [1_396_867_869_277]


def test_a_missing_column_is_named_with_what_came_and_a_way_out(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "who,movieId,rating,timestamp\n1,2,3,1000000000\n")
    with pytest.raises(BadInput) as caught:
        read_file(path)
    message = str(caught.value)
    assert "has the columns who, movieId, rating, timestamp" in message
    assert message.endswith("--columns user_id=who,item_id=movieId,timestamp=timestamp")
    assert len(message.splitlines()) == 1
    assert read_file(path, columns={"user_id": "who"}).table["user_id"].to_pylist() == ["1"]


def test_what_was_said_about_a_column_wins_over_what_its_name_suggests(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "user_id,item_id,ts,viewer\na,b,1000000000,c\n")
    assert read_events([path], columns={"user_id": "viewer"}).table["user_id"].to_pylist() == ["c"]


@pytest.mark.parametrize(
    ("columns", "format", "message"),
    [
        ({"user_id": "nobody"}, None, "has no column 'nobody' for user_id; it has: user, item, ts"),
        ({"user": "user"}, None, "there is no column 'user' to fill; did you mean 'user_id'"),
        ({"user_id": "user", "item_id": "user"}, None, "gives 'user' to user_id and item_id; each needs its own"),
        (None, "cvs", "there is no format 'cvs'; did you mean 'csv'"),
    ],
)
def test_an_unknown_column_or_format_is_refused(tmp_path: Path, columns: dict[str, str] | None, format: str | None, message: str) -> None:
    path = write(tmp_path, "log.csv", "user,item,ts\n1,2,1000000000\n")
    with pytest.raises(BadInput, match=message):
        read_file(path, format, columns)


SPOILT = {
    "empty": ("log.csv", b"", "is empty"),
    "blank": ("log.csv", b"\n\n \n", "is empty"),
    "header only": ("log.csv", b"user,item,ts\n", "has a header but no rows"),
    "cut gzip": ("log.csv.gz", gzip.compress(b"user,item,ts\n" + b"1,2,1000000000\n" * 1000)[:-20], "is damaged or cut short"),
    "cut zstandard": ("log.csv.zst", pa.Codec("zstd").compress(b"user,item,ts\n" * 99, asbytes=True)[:-5], "is damaged or cut short"),
    "broken gzip": ("log.csv.gz", gzip.compress(b"x" * 100)[:12] + b"\xff" * 30, "is damaged or cut short"),
    "plain under a packed name": ("log.csv.gz", b"user,item,ts\n1,2,1000000000\n", "is called .gz but is not packed"),
    "binary": ("log.csv", bytes(range(256)) * 40, "is not a text file"),
    "utf-16": ("log.csv", "user,item,ts\n1,2,1000000000\n".encode("utf-16"), "is UTF-16 text"),
    "no parquet": ("log.parquet", b"PAR1 or so they said", "cannot be read as parquet"),
    "json list": ("log.json", b'[{"user": 1}]', "is one JSON list; one object a line"),
    "no json": ("log.jsonl", b"user,item\n1,2\n", "holds no JSON object on any of its 2 lines"),
    "open quote": (
        "log.csv",
        b'user,item,ts\n1,2,1000000000\n1,"2,1\n3,4,1000000000\n',
        "has an opening quote that is never closed",
    ),
}


@pytest.mark.parametrize("case", sorted(SPOILT))
def test_a_spoilt_file_is_refused_in_one_line_that_names_it(tmp_path: Path, case: str) -> None:
    name, content, message = SPOILT[case]
    path = write(tmp_path, name, content)
    with pytest.raises(BadInput, match=message) as caught:
        read_events([path])
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no file .*nowhere\.csv"):
        read_file(tmp_path / "nowhere.csv")
    with pytest.raises(BadInput, match="is a folder; name the files in it"):
        read_file(tmp_path)


def test_gzip_is_recognised_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(gzip.compress(b"user,item,ts\n1,2,1000000000\n"))
    assert len(read_events([path]).table) == 1


def test_the_line_of_a_row_counts_what_stands_before_it(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", 'user,note,item,ts\n1,"a\nb",2,1000000000\n\nshort\n3,c,4,1000000001\n')
    raw = read_file(path)
    assert [raw.line(int(record)) for record in raw.record] == [2, 6]
    assert [(raw.line(record), reason) for record, reason, _ in raw.broken] == [(5, "1 cells where there should be 4")]
    assert raw.text(1) == "3,c,4,1000000001"


def test_the_format_follows_from_name_and_first_lines() -> None:
    assert detect(Path("x"), b"1::0054890::9::1381945744") == "movietweetings"
    assert detect(Path("x"), b"1::1193::5::978300760") == "movielens-dat"
    assert detect(Path("x"), b"user_id:token\titem_id:token") == "recbole"
    assert detect(Path("PERIOD_3.txt.gz"), b"1 2") == "ader"
    assert detect(Path("x"), b'{"user": 1}') == "jsonl"
    assert detect(Path("x"), b"PAR1....") == "parquet"


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "\ufeffwer,item,ts\n1,2,1000000000\n")
    assert read_file(path, columns={"user_id": "wer"}).table.column_names == ["user_id", "item_id", "timestamp"]


def test_a_damaged_parquet_page_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user": ["u"] * 500, "item": [str(n) for n in range(500)], "ts": range(10**9, 10**9 + 500)}), path)
    sound = path.read_bytes()
    path.write_bytes(sound[:20] + b"\xff" * 200 + sound[220:])
    with pytest.raises(BadInput, match=r"log\.parquet cannot be read as parquet"):
        read_file(path)


def test_names_with_line_breaks_and_old_line_ends_do_not_break_the_message(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", "we\u2028r,item,ts\r1,2,1000000000\r")
    with pytest.raises(BadInput, match=r"has the columns we\\u2028r, item, ts") as caught:
        read_file(path)
    assert len(str(caught.value).splitlines()) == 1


def test_quoted_line_breaks_survive_in_files_of_many_blocks(tmp_path: Path) -> None:
    rows = 40_000
    path = write(
        tmp_path, "log.csv", "user,note,item,ts\n" + "".join(f'u{n},"one\n{"x" * 50}\nthree",i,{10**9 + n}\n' for n in range(rows))
    )
    raw = read_file(path)
    assert raw.broken == []
    assert raw.table["user_id"].to_pylist() == [f"u{n}" for n in range(rows)]
    assert raw.line(int(raw.record[-1])) == 2 + 3 * (rows - 1)
