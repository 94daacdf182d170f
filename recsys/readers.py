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


def read_file(path: str | Path, format: str | None = None, columns: Mapping[str, str] | None = None, what: What = "events", step: Step = silent) -> Raw:
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
    except pa.ArrowException as error:
        raise BadInput(f"{path} cannot be read as {name}: {_one_line(error)}; is it damaged, or another format? see --format") from None
    if not len(raw):
        raise BadInput(f"{path} has a header but no rows" if layout.kind == "text" else f"{path} has no rows")
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
        raise BadInput(f"there is no file {path}") from None
    except OSError as error:
        why = "is damaged or cut short" if error.errno is None else "cannot be read"
        raise BadInput(f"{path} {why}: {_one_line(error)}; nothing of it was taken, fetch it again") from None
    if not content.strip():
        raise BadInput(f"{path} is empty")
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
    if layout.quoted and content.count(b'"') % 2 and len(table) and any("\n" in str(column[-1]) for column in table.columns):
        raise BadInput(f"{path} has an opening quote that is never closed, in or before its last {len(str(table.slice(len(table) - 1)))} characters")
    blank = _is_blank(table)
    record = np.setdiff1d(np.arange(1 + has_header, 1 + has_header + len(table) + len(broken)), [number for number, _, _ in broken])
    return Raw(path, name, separator, table.filter(pa.array(~blank)), record[~blank], broken)
