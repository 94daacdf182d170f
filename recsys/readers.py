"""Files as people have them -> columns of text, with nothing judged yet. One reader per kind of file, any of them gzipped or zstandard."""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from recsys.errors import BadInput, nearest
from recsys.progress import Step, silent

What = Literal["events", "items"]


@dataclass(frozen=True)
class Format:
    """How one kind of file is laid out.

    separator: what stands between two cells; "" is found out. names: of the columns of a file without a header.
    scale: the top of its rating scale.
    """

    kind: Literal["text", "json", "parquet"] = "text"
    separator: str = ""
    names: tuple[str, ...] = ()
    item_names: tuple[str, ...] = ()
    scale: float | None = None
    quoted: bool = True


_RATINGS = ("user_id", "item_id", "rating", "timestamp")
_FILMS = ("item_id", "title", "genres")

FORMATS = {
    "csv": Format(),
    "tsv": Format(separator="\t"),
    "jsonl": Format(kind="json"),
    "parquet": Format(kind="parquet"),
    "recbole": Format(separator="\t", quoted=False),
    "movielens": Format(separator=",", scale=5),
    "movielens-100k": Format(separator="\t", names=_RATINGS, scale=5, quoted=False),
    "movielens-dat": Format(separator="::", names=_RATINGS, item_names=_FILMS, scale=5, quoted=False),
    "movietweetings": Format(separator="::", names=_RATINGS, item_names=_FILMS, scale=10, quoted=False),
    "ader": Format(separator=" ", names=("session_id", "item_id"), quoted=False),
    "yoochoose": Format(separator="\t"),
}

ALIASES = {
    "user_id": "userid user uid visitorid customerid accountid reviewerid memberid",
    "item_id": "itemid item iid movieid movie filmid productid product trackid songid videoid showid contentid articleid asin imdbid",
    "timestamp": "timestamp ts time datetime eventtime timestampms createdat unixreviewtime date",
    "rating": "rating score stars overall",
    "value": "value watchedshare",
    "event_type": "eventtype event action type eventname behavior",
    "session_id": "sessionid session sid visitid",
    "event_id": "eventid",
    "request_id": "requestid",
    "surface": "surface market profilekind",
}
ITEM_ALIASES = {
    "item_id": ALIASES["item_id"] + " id",
    "title": "title movietitle itemtitle name",
    "genres": "genres genre class categories category",
}
"""Names by which a column is known, compared in small letters without anything but letters and digits."""

ADER_EPOCH_MS = 1_451_865_600_000  # Monday 2016-01-04: ADER's periods are weeks without a date, so they get one
WEEK_MS = 7 * 86_400_000

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_CHUNK = 8 << 20
_PERIOD = re.compile(r"period_(\d+)\.txt$")
_TYPED = re.compile(r"^\w+:(token|token_seq|float|float_seq)$")
_DATUM = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?|\d{4}-\d\d-\d\d.*|", re.I)
_JUNK = bytes(set(range(32)) - set(b"\t\n\r\f\x1b"))


@dataclass(frozen=True)
class Raw:
    """A file's rows as text, its columns named as ours where they are known.

    record (N,) the how-manieth of the file each row is, the header included; broken: (record, reason, text) of what is no row.
    """

    path: Path
    format: str
    separator: str
    table: pa.Table
    record: np.ndarray
    broken: list[tuple[int, str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.table) + len(self.broken)

    def text(self, row: int) -> str:
        """Return a row as it reads in the file, or nearly."""
        cells = {name: self.table[name][row].as_py() for name in self.table.column_names}
        if FORMATS[self.format].kind == "text":
            return self.separator.join(cell or "" for cell in cells.values())
        return ", ".join(f"{name}={cell}" for name, cell in cells.items() if cell is not None)

    def line(self, record: int) -> int:
        """Return the line on which a record begins: cells in quotes may have spread over several."""
        rows_before = int(np.searchsorted(self.record, record))
        return int(record + self._extra_lines[rows_before])

    @cached_property
    def _extra_lines(self) -> np.ndarray:
        extra = np.zeros(len(self.table) + 1, np.int64)
        if FORMATS[self.format].kind == "text":
            for column in self.table.columns:
                extra[1:] += pc.fill_null(pc.count_substring(column, "\n"), 0).to_numpy()
        return np.cumsum(extra)


def read_file(
    path: str | Path,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    what: What = "events",
    step: Step = silent,
) -> Raw:
    """Read a file of events or of item metadata, as `format` or as what its name and its first lines say it is.

    `columns` says which of its columns is which of ours: {"user_id": "userId"}.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise BadInput(f"there is no format {format!r}; {nearest(format, FORMATS)}")
    content = _content(path, step)
    name = detect(path, content) if format is None else format
    layout = FORMATS[name]
    try:
        if layout.kind == "parquet":
            raw = _parquet(path, name, content)
        elif layout.kind == "json":
            raw = _json_lines(path, name, content)
        else:
            raw = _text(path, name, layout, content, what)
    except (pa.ArrowException, OSError, csv.Error) as error:  # Arrow calls a damaged Parquet page an OSError
        raise BadInput(f"{path} cannot be read as {name}: {_one_line(error)}; is it damaged, or another format? see --format") from None
    if not len(raw):
        raise BadInput(f"{path} has a header but no rows; nothing to import" if layout.kind == "text" else f"{path} has no rows")
    raw = replace(raw, table=_named(raw, dict(columns or {}), what))
    return _with_weeks(raw) if name == "ader" and what == "events" else raw


def detect(path: Path, content: bytes) -> str:
    """Say which format a file is in, from its name and its first lines."""
    name = _plain_name(path)
    head = content[:65_536].decode("utf-8-sig", errors="replace")
    first = next((line for line in head.splitlines() if line.strip()), "")
    cells = [cell.strip() for cell in first.split("\t")]
    if content[:4] == b"PAR1" or name.endswith((".parquet", ".pq")):
        return "parquet"
    if name.endswith((".jsonl", ".ndjson", ".json")) or first.lstrip().startswith("{"):
        return "jsonl"
    if _PERIOD.search(name):
        return "ader"
    if name.endswith((".inter", ".item")) or all(_TYPED.match(cell) for cell in cells):
        return "recbole"
    if "::" in first:
        items = [line.split("::") for line in head.splitlines()[:1000] if line.count("::") >= 2]
        ids = [cells[len(cells) == 4].strip() for cells in items]  # user::item::rating::time or item::title::genres
        return "movietweetings" if ids and max(map(len, ids)) >= 7 else "movielens-dat"
    if name == "u.data":
        return "movielens-100k"
    if cells == ["SessionId", "ItemId", "Time"]:
        return "yoochoose"
    if first.strip() in ("userId,movieId,rating,timestamp", "movieId,title,genres"):
        return "movielens"
    return "tsv" if len(cells) > 1 else "csv"


def _plain_name(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").removesuffix(".zst")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _content(path: Path, step: Step) -> bytes:
    """Return what a file holds, unpacked."""
    if path.is_dir():
        raise BadInput(f"{path} is a folder; name the files in it, for example {path}/*")
    try:
        with path.open("rb") as file:
            packed = next((codec for magic, codec in _MAGIC.items() if file.read(4).startswith(magic) or file.seek(0)), None)
            file.seek(0)
            if packed is None and path.suffix in (".gz", ".zst") and path.stat().st_size:
                raise BadInput(f"{path} is called {path.suffix} but is not packed that way; unpack it, or rename it if it is plain")
            content = _unpack(file, packed, path, step)
    except FileNotFoundError:
        raise BadInput(f"there is no file {path}; check the name, or give the whole path") from None
    except (OSError, pa.ArrowException) as error:
        why = "is damaged or cut short" if getattr(error, "errno", None) is None else "cannot be read"
        raise BadInput(f"{path} {why}: {_one_line(error)}; nothing of it was taken, fetch it again") from None
    if not content.strip():
        raise BadInput(f"{path} is empty; export it again, or leave it out")
    return content


def _unpack(file: Any, packed: str | None, path: Path, step: Step) -> bytes:
    total, parts = path.stat().st_size, []
    stream = file if packed is None else pa.CompressedInputStream(pa.PythonFile(file, "r"), packed)
    while part := stream.read(_CHUNK):
        parts.append(part)
        step(f"reading {path.name}", file.tell(), total)
    return b"".join(parts)


def _text(path: Path, name: str, layout: Format, content: bytes, what: What) -> Raw:
    """Read cells between separators, with or without a header."""
    _refuse_binary(path, content)
    content = _utf8(content.removeprefix(b"\xef\xbb\xbf"), what)
    separator = layout.separator or _separator(content)
    mark = separator
    if len(separator) > 1:
        content, mark = content.replace(separator.encode(), b"\x1f"), "\x1f"
    elif name == "ader" and b"\t" in content[:1000]:
        separator = mark = "\t"
    names, has_header = _header(content, mark, layout, what)
    broken: list[tuple[int, str, str]] = []

    def refuse(row: Any) -> str:
        few = f"{row.actual_columns} cells where there should be {row.expected_columns}"
        broken.append((row.number, few, row.text.replace("\x1f", separator)))
        return "skip"

    table = pa_csv.read_csv(
        pa.BufferReader(content),
        read_options=pa_csv.ReadOptions(use_threads=False, column_names=names, skip_rows=int(has_header)),
        parse_options=pa_csv.ParseOptions(
            delimiter=mark,
            quote_char='"' if layout.quoted else False,
            newlines_in_values=layout.quoted,
            ignore_empty_lines=False,
            invalid_row_handler=refuse,
        ),
        convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
    )
    end = [*(text for _, _, text in broken[-1:]), *(column[-1].as_py() for column in table.columns if len(table))]
    open_quote = next((cell for cell in end if "\n" in cell), None)
    if layout.quoted and content.count(b'"') % 2 and open_quote is not None:
        raise BadInput(f"{path} has an opening quote that is never closed and swallows all behind it: {open_quote[:100]!r}")
    blank = _is_blank(table)
    record = np.ones(len(table) + len(broken), bool)
    record[[number - 1 - has_header for number, _, _ in broken]] = False
    record = np.flatnonzero(record) + 1 + has_header
    return Raw(path, name, separator, table.filter(pa.array(~blank)), record[~blank], broken)


def _refuse_binary(path: Path, content: bytes) -> None:
    head = content[:65_536]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise BadInput(f"{path} is UTF-16 text; save it as UTF-8")
    if len(head) - len(head.translate(None, _JUNK)) > len(head) / 20:
        raise BadInput(f"{path} is not a text file; {', '.join(FORMATS)} can be read, each plain, .gz or .zst")


def _utf8(content: bytes, what: What) -> bytes:
    """Return text as UTF-8: old film lists are Latin-1; elsewhere a broken letter becomes U+FFFD, which no id may hold."""
    try:
        content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1") if what == "items" else content.decode(errors="replace")
        return text.encode()
    return content


def _separator(content: bytes) -> str:
    first = re.split(rb"[\r\n]", content.lstrip(), maxsplit=1)[0].decode()
    return max(",\t;|", key=first.count)


def _header(content: bytes, mark: str, layout: Format, what: What) -> tuple[list[str], int]:
    """Return the names of the columns and how many lines stand before the first row."""
    skip = len(content) - len(content.lstrip(b"\r\n"))
    skip = content[:skip].count(b"\n")
    first = re.split(rb"[\r\n]", content.lstrip(b"\r\n"), maxsplit=1)[0].decode()
    cells = next(csv.reader([first], delimiter=mark)) if layout.quoted else first.split(mark)
    given = layout.item_names if what == "items" else layout.names
    if given:
        return [*given, *(str(n) for n in range(len(given) + 1, len(cells) + 1))][: max(len(cells), 1)], skip
    names = [cell.strip() for cell in cells]
    if all(_TYPED.match(name) for name in names):
        names = [name.split(":")[0] for name in names]
    elif len(names) > 1 and all(_DATUM.fullmatch(name) for name in names):  # data from the first line on: columns go by number
        return [str(n + 1) for n in range(len(names))], skip
    return [name if name and name not in names[:n] else f"{name}#{n + 1}" for n, name in enumerate(names)], skip + 1


def _is_blank(table: pa.Table) -> np.ndarray:
    blank = np.ones(len(table), bool)
    for column in table.columns:
        blank &= pc.equal(column, "").to_numpy()
    return blank


def _json_lines(path: Path, name: str, content: bytes) -> Raw:
    """Read one JSON object a line."""
    _refuse_binary(path, content)
    content = content.removeprefix(b"\xef\xbb\xbf")
    if content.lstrip()[:1] == b"[":
        raise BadInput(f"{path} is one JSON list; one object a line is needed, as `jq -c '.[]' {path.name}` writes them")
    rows: list[dict[str, Any]] = []
    record: list[int] = []
    broken: list[tuple[int, str, str]] = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
            record.append(number)
        else:
            broken.append((number, "not a JSON object", line.decode(errors="replace")))
    if broken and not rows:
        raise BadInput(f"{path} holds no JSON object on any of its {len(broken)} lines; one object a line is needed")
    names = dict.fromkeys(key for row in rows for key in row)
    table = pa.table({key: pa.array([_json_text(row.get(key)) for row in rows], pa.string()) for key in names})
    return Raw(path, name, ", ", table, np.array(record, np.int64), broken)


def _json_text(cell: Any) -> str | None:
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, list):
        return "|".join(str(entry) for entry in cell)
    return orjson.dumps(cell).decode()


def _parquet(path: Path, name: str, content: bytes) -> Raw:
    """Read a Parquet file; its rows count from 1."""
    table = pq.read_table(pa.BufferReader(content))
    table = pa.table({column: _column_text(table[column]) for column in table.column_names})
    return Raw(path, name, ", ", table, np.arange(1, len(table) + 1))


def _column_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return pc.binary_join(column.cast(pa.list_(pa.string())), "|")
    if pa.types.is_nested(column.type):
        return pa.chunked_array([pa.array([None if cell is None else str(cell) for cell in column.to_pylist()], pa.string())])
    return column.cast(pa.string())


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _named(raw: Raw, columns: dict[str, str], what: What) -> pa.Table:
    """Return the table with our names on the columns that were given or are known by another name."""
    aliases, found = (ITEM_ALIASES if what == "items" else ALIASES), raw.table.column_names
    for ours, theirs in columns.items():
        if ours not in aliases:
            raise BadInput(f"there is no column {ours!r} to fill; {nearest(ours, aliases)}")
        if theirs not in found:
            raise BadInput(f"{raw.path} has no column {theirs!r} for {ours}; it has: {_listed(found)}; {_example(raw, columns, what)}")
        if list(columns.values()).count(theirs) > 1:
            raise BadInput(
                f"--columns gives {theirs!r} to {' and '.join(k for k, v in columns.items() if v == theirs)}; each needs its own"
            )
    names = dict(columns)
    for ours, words in aliases.items():
        free = {_key(name): name for name in reversed(found) if name not in names.values()}
        match = next((free[word] for word in words.split() if word in free), None)
        if ours not in names and match is not None:
            names[ours] = match
    timed = "timestamp" in names or raw.format == "ader"
    complete = "item_id" in names and (what == "items" or (timed and ("user_id" in names or "session_id" in names)))
    if not complete:
        needed = "item_id" if what == "items" else "item_id, timestamp and user_id or session_id"
        raise BadInput(f"{raw.path} has the columns {_listed(found)}; needed: {needed}; {_example(raw, names, what)}")
    ours_of = {theirs: ours for ours, theirs in names.items()}
    return raw.table.rename_columns([ours_of.get(name, f"{name}#" if name in names else name) for name in found])


def printable(text: str) -> str:
    """Return text with whatever would break a line or a terminal written out."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _listed(names: list[str]) -> str:
    return ", ".join(map(printable, names[:12])) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _example(raw: Raw, names: Mapping[str, str], what: What) -> str:
    """Return a --columns to copy, filled in with what is known and with columns still free."""
    free = [name for name in raw.table.column_names if name not in names.values()]
    wanted = ["item_id"] if what == "items" else ["session_id" if "session_id" in names else "user_id", "item_id", "timestamp"]
    known = {ours: theirs for ours, theirs in names.items() if theirs in raw.table.column_names}
    pairs = [f"{ours}={known[ours] if ours in known else free.pop(0) if free else '...'}" for ours in wanted]
    return f"say which is which, for example --columns {printable(','.join(pairs))}"


def _with_weeks(raw: Raw) -> Raw:
    """Give the clicks of period N times in week N: evenly spread, in their order."""
    period = _PERIOD.search(_plain_name(raw.path))
    if period is None:
        raise BadInput(f"{raw.path} has no times and no number; ADER's files are called period_0.txt, period_1.txt, ...")
    rows = len(raw.table)
    time = ADER_EPOCH_MS + int(period[1]) * WEEK_MS + np.arange(rows) * WEEK_MS // max(rows, 1)
    return replace(raw, table=raw.table.append_column("timestamp", pa.array(time).cast(pa.string())))
