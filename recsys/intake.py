"""Files in, events in the log: read, judge, sort by time, append; every row that is refused is counted and shown."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table

from recsys import checks, readers
from recsys.catalogue import Catalogue, merge
from recsys.checks import Verdict
from recsys.errors import BadInput
from recsys.events import SCHEMA, derive_event_ids, identities, milliseconds
from recsys.hidden import hides
from recsys.home import Home
from recsys.log import Log
from recsys.progress import Step, silent
from recsys.readers import Raw

EXAMPLES = 3
_IDS = ("user_id", "item_id", "session_id", "event_id", "request_id", "surface")


@dataclass
class Report:
    """What became of the rows of an import: read = refused + duplicates + forgotten + known + added.

    known: already in the log (or the catalogue); forgotten: the past of people who asked to be; refused and examples: by reason. `written`
    is False where nothing was to be.
    """

    what: str
    files: list[str]
    formats: list[str] = field(default_factory=list)
    read: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    duplicates: int = 0
    forgotten: int = 0
    known: int = 0
    added: int = 0
    users: int = 0
    sessions: int = 0
    items: int = 0
    first: str | None = None
    last: str | None = None
    seconds: float = 0.0
    written: bool = False

    @property
    def kept(self) -> int:
        """Rows that are sound, new or not."""
        return self.read - sum(self.refused.values())

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for --json."""
        return {
            "what": self.what,
            "files": self.files,
            "formats": self.formats,
            "read": self.read,
            "kept": self.kept,
            "refused": self.refused,
            "examples": self.examples,
            "duplicates": self.duplicates,
            "forgotten": self.forgotten,
            "already_known": self.known,
            "added": self.added,
            "users": self.users,
            "sessions": self.sessions,
            "items": self.items,
            "first": self.first,
            "last": self.last,
            "seconds": round(self.seconds, 3),
            "rows_per_second": round(self.read / max(self.seconds, 1e-9)),
            "written": self.written,
        }

    def __rich__(self) -> Table:
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        files = self.files[0] if len(self.files) == 1 else f"{len(self.files)} files"
        table.add_row("read", f"{self.read:,} rows of {files} ({', '.join(dict.fromkeys(self.formats))})")
        verb = "added" if self.written else "would be added"
        table.add_row(verb, f"{self.added:,} {self.what}" + (f"; {self.known:,} were known already" if self.known else ""))
        if self.duplicates:
            table.add_row("doubled", f"{self.duplicates:,} rows say what another row says")
        if self.forgotten:
            table.add_row("left out", f"{self.forgotten:,} events of people who were forgotten (recsys forget)")
        for reason, count in self.refused.items():
            table.add_row("refused", f"{count:,} rows: {reason}")
            for example in self.examples[reason]:
                table.add_row("", f"[dim]{example.replace('[', chr(92) + '[')}[/dim]")
        if self.first:
            table.add_row("time", f"{self.first} to {self.last}")
        people = [f"{count:,} {name}" for count, name in ((self.users, "users"), (self.sessions, "sessions")) if count]
        table.add_row("holds", ", ".join([*people, f"{self.items:,} items"]))
        table.add_row("took", f"{self.seconds:.1f} s, {self.read / max(self.seconds, 1e-9):,.0f} rows a second")
        return table

    def refuse(self, raw: Raw, verdict: Verdict, strict: bool) -> None:
        """Count what was refused in one file and keep the first examples; `strict` stops at the first."""
        found = [(record, reason, text) for record, reason, text in raw.broken]
        counts: dict[str, int] = {}
        for _, reason, _ in found:
            counts[reason] = counts.get(reason, 0) + 1
        for code, reason in enumerate(verdict.reasons[1:], 1):
            rows = np.flatnonzero(verdict.code == code)
            counts[reason] = len(rows)
            found += [(int(raw.record[row]), reason, raw.text(int(row))) for row in rows[:EXAMPLES]]
        for record, reason, text in sorted(found):
            shown = self.examples.setdefault(reason, [])
            if len(shown) < EXAMPLES:
                shown.append(f"{raw.path}:{raw.line(record)}: {_short(text)}")
            if strict:
                raise BadInput(
                    f"{raw.path}:{raw.line(record)}: {reason}: {_short(text)}; nothing was written (without --strict, the rest is)"
                )
        for reason, count in counts.items():
            self.refused[reason] = self.refused.get(reason, 0) + count

    def refuse_emptiness(self) -> None:
        """Fail where not one row can be used."""
        if not self.kept:
            reason = max(self.refused, key=lambda reason: self.refused[reason])
            raise BadInput(
                f"none of the {self.read:,} rows can be used: {self.refused[reason]:,} because {reason}, as in {self.examples[reason][0]}; "
                "nothing was written (see --format and --columns)"
            )


@dataclass(frozen=True)
class Intake:
    """Events as they will stand in the log, sorted by time, each once; and what became of the other rows."""

    table: pa.Table
    report: Report


def read_events(
    paths: Sequence[str | Path],
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    step: Step = silent,
    strict: bool = False,
    now: float | None = None,
) -> Intake:
    """Read events from files, all of them sorted by time together; write nothing."""
    began = time.perf_counter()
    raws = _read_all(paths, format, columns, "events", step)
    report = Report("events", [str(raw.path) for raw in raws], [raw.format for raw in raws])
    scale = _common_scale(raws)
    parts = []
    for done, raw in enumerate(raws):
        step("checking rows", done, len(raws) + 1)
        verdict = Verdict(len(raw.table))
        part = _events(raw, scale, verdict, now)
        report.read += len(raw)
        report.refuse(raw, verdict, strict)
        parts.append(part.filter(pa.array(verdict.accepted)))
    report.refuse_emptiness()
    table = _sorted_once(pa.concat_tables(parts), report)
    step("checking rows", 1, 1)
    describe(table, report)
    report.seconds = time.perf_counter() - began
    return Intake(table, report)


def import_events(
    home: Home,
    paths: Sequence[str | Path],
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    step: Step = silent,
    strict: bool = False,
    write: bool = True,
    now: float | None = None,
) -> Report:
    """Read events from files and append to the log of `home` those that it does not hold yet; without `write`, only count them."""
    began = time.perf_counter()
    intake = read_events(paths, format, columns, step, strict, time.time() if now is None else now)
    report, log = intake.report, Log(home.log, home.shared)
    step("writing the log", 0, 1)
    hidden = hides(log.forgotten, intake.table)
    report.added = log.append(intake.table) if write else int((~log.holds(intake.table) & ~hidden).sum())
    step("writing the log", 1, 1)
    report.forgotten = int(hidden.sum())
    report.known = len(intake.table) - report.added - report.forgotten
    report.written = write
    report.seconds = time.perf_counter() - began
    return report


def import_items(
    home: Home,
    paths: Sequence[str | Path],
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    step: Step = silent,
    strict: bool = False,
    write: bool = True,
) -> Report:
    """Read item metadata from files and add to the catalogue of `home` what it does not say yet."""
    began = time.perf_counter()
    intake = read_items(paths, format, columns, step, strict)
    report, catalogue = intake.report, Catalogue(home.items, home.shared)
    report.added = catalogue.add(intake.table) if write else len(catalogue.news(intake.table))
    report.known = len(intake.table) - report.added
    report.written = write
    report.seconds = time.perf_counter() - began
    return report


def read_items(
    paths: Sequence[str | Path],
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    step: Step = silent,
    strict: bool = False,
) -> Intake:
    """Read item metadata from files, one row per item; write nothing."""
    began = time.perf_counter()
    raws = _read_all(paths, format, columns, "items", step)
    report = Report("items", [str(raw.path) for raw in raws], [raw.format for raw in raws])
    parts = []
    for raw in raws:
        verdict = Verdict(len(raw.table))
        id = checks.ids(raw.table["item_id"], "item_id", verdict)
        verdict.refuse(id.is_null().to_numpy(), "item_id is missing")
        report.read += len(raw)
        report.refuse(raw, verdict, strict)
        parts.append(_items(raw, id).filter(pa.array(verdict.accepted)))
    report.refuse_emptiness()
    table = merge(parts)
    report.items = len(table)
    report.duplicates = report.kept - len(table)
    report.seconds = time.perf_counter() - began
    return Intake(table, report)


def _read_all(
    paths: Sequence[str | Path], format: str | None, columns: Mapping[str, str] | None, what: readers.What, step: Step
) -> list[Raw]:
    """Read every file before anything is done with any: one that cannot be read spoils all."""
    if not paths:
        raise BadInput("no file was named")
    return [readers.read_file(path, format, columns, what, step) for path in paths]


def _short(text: str) -> str:
    text = readers.printable(text[:200])
    return text if len(text) <= 120 else f"{text[:119]}…"


def _events(raw: Raw, scale: float, verdict: Verdict, now: float | None) -> pa.Table:
    """Judge the cells of one file; every row stays in place, the verdict says which are to be used."""
    rows = len(raw.table)
    nothing = pa.chunked_array([pa.nulls(rows, pa.string())])
    cell = {name: raw.table[name] if name in raw.table.column_names else nothing for name in SCHEMA.names}
    id = {name: checks.ids(cell[name], name, verdict) for name in _IDS}
    verdict.refuse(id["item_id"].is_null().to_numpy(), "item_id is missing")
    verdict.refuse(id["user_id"].is_null().to_numpy() & id["session_id"].is_null().to_numpy(), "neither user_id nor session_id")
    when = checks.times(cell["timestamp"], verdict, now)
    rating = _rating(raw)
    value = np.full(rows, np.nan, np.float32)
    if rating is not None:
        rating = checks.present(rating)
        top = readers.FORMATS[raw.format].scale or scale
        value = checks.ratings(checks.numbers(rating), rating.is_valid().to_numpy(), top, verdict)
    columns = {
        **id,
        "timestamp": pa.array(when, pa.int64()).cast(SCHEMA.field("timestamp").type),
        "event_type": checks.event_types(cell["event_type"], "click" if rating is None else "watch", verdict),
        "value": pa.array(value, pa.float32(), mask=np.isnan(value)),
    }
    return pa.table({name: columns[name] for name in SCHEMA.names})


def _items(raw: Raw, id: pa.ChunkedArray) -> pa.Table:
    """Return the cells of one file as metadata: genres in lists, a year from `Title (1995)`, numbers as numbers."""
    columns: dict[str, Any] = {"item_id": id}
    for name in raw.table.column_names:
        if name == "genres":
            columns[name] = checks.genres(raw.table[name], space=raw.format == "recbole")
        elif name != "item_id":
            columns[name] = checks.text_or_number(raw.table[name], text=name == "title")
    if "title" in columns and "year" not in columns:
        columns["year"] = checks.year_of(columns["title"])
    return pa.table(columns)


def _rating(raw: Raw) -> pa.ChunkedArray | None:
    return next((raw.table[name] for name in ("value", "rating") if name in raw.table.column_names), None)


def _common_scale(raws: list[Raw]) -> float:
    """Return the scale of the ratings whose format does not tell it; files imported together share one."""
    unscaled = [rating for raw in raws if readers.FORMATS[raw.format].scale is None and (rating := _rating(raw)) is not None]
    return checks.scale_of(np.concatenate([checks.numbers(checks.present(rating)) for rating in unscaled])) if unscaled else 1.0


def _sorted_once(table: pa.Table, report: Report) -> pa.Table:
    """Sort events by time, name those without an id after what they say, and drop what was said before."""
    table = table.take(pa.array(np.argsort(milliseconds(table), kind="stable")))
    nameless = table["event_id"].is_null().to_numpy()
    if nameless.any():
        names = table["event_id"].to_pandas().to_numpy(dtype=object, copy=True)
        frame = table.drop_columns(["event_id", "request_id", "surface", "timestamp"]).to_pandas().assign(timestamp=milliseconds(table))
        names[nameless] = derive_event_ids(frame[nameless])
        table = table.set_column(0, "event_id", pa.array(names, pa.string()))
    again = identities(table).to_pandas().duplicated().to_numpy()
    report.duplicates = int(again.sum())
    return table.filter(pa.array(~again)).cast(SCHEMA)


def describe(table: pa.Table, report: Report) -> None:
    """Put the people, items and time span of an event table that is sorted by time into its report."""
    report.users, report.sessions, report.items = (
        pc.count_distinct(table[name], mode="only_valid").as_py() for name in ("user_id", "session_id", "item_id")
    )
    when = milliseconds(table)
    if len(when):
        report.first, report.last = _iso(when[0]), _iso(when[-1])


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(int(ms) / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
