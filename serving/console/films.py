"""What is known of items: search, one item's page, and its vector through the releases. Read-only answers for the console."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fastapi import APIRouter, Query, Request, Response

from recsys.catalogue import WITHDRAWN
from recsys.log import Log
from serving.answers import Reply, there_is_one
from serving.console.kept import Kept
from serving.console.movement import cosines
from serving.engine import Engine
from serving.messages import Id
from serving.snapshot import Snapshot

TOLD = "title", "genres", "year"
"""Columns of the catalogue that a card shows."""

FITTING = 5_000
"""Items that fit a search and are put in order."""

RELEASES = 12
"""Newest releases through which a vector is followed."""

SAMPLE = 500
"""Items whose movement is what is usual."""

EVENTS = 5_000_000
"""Newest events of the log that are looked at for what was done with an item."""

BARS = 24
"""Spans of equal length in which that is counted."""

films = APIRouter(prefix="/v1/console", include_in_schema=False)


@dataclass(frozen=True)
class Index:
    """All items that the catalogue describes or the release knows: ids, titles, and the catalogue's row of each, -1 for none."""

    catalogue: pa.Table
    ids: pa.ChunkedArray
    titles: pa.ChunkedArray

    def search(self, text: str, snapshot: Snapshot, k: int) -> tuple[list[str], int]:
        """Return ids of items whose title or id holds a text, what fits best first and of equals what is watched most; and how many fit."""
        if text:
            fits = pc.or_(*(pc.match_substring(column, text, ignore_case=True) for column in (self.ids, self.titles)))
            places = fits.to_numpy().nonzero()[0]
        else:
            places = np.arange(len(self.ids))
        ids = (
            self.ids.take(pa.array(places)).to_pylist() if text else [snapshot.vocab.id(row) for row in snapshot.popular[:FITTING].tolist()]
        )
        share = snapshot.share[snapshot.vocab.rows(ids)]
        best = np.argsort(-share, kind="stable")[:FITTING].tolist()
        if not text:
            return [ids[at] for at in best[:k]], len(places)
        wanted, titles = text.casefold(), self.titles.take(pa.array(places)).to_pylist()

        def fit(at: int) -> tuple[bool, bool, bool]:
            title = titles[at].casefold()
            return ids[at].casefold() != wanted, not title.startswith(wanted), f" {wanted}" not in f" {title}"

        return [ids[at] for at in sorted(best, key=fit)[:k]], len(places)

    def rows(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return what the catalogue says of some items, those that it has."""
        few = pa.array(list(ids), pa.string())
        if not len(self.catalogue) or not len(few):
            return {}
        found = self.catalogue.filter(pc.is_in(self.catalogue["item_id"], value_set=few)).to_pylist()
        return {row["item_id"]: {name: value for name, value in row.items() if value is not None} for row in found}


@films.get("/items")
async def search(request: Request, q: Annotated[str, Query(max_length=256)] = "", k: Annotated[int, Query(ge=1, le=100)] = 12) -> Response:
    """Return items whose title or id holds `q`, in whatever case; the most popular where it is empty."""
    snapshot = there_is_one(request)
    index = await _index(request, snapshot)
    ids, fitting = await asyncio.to_thread(index.search, q, snapshot, k)
    told = await described(request, snapshot, ids)
    return Reply({"items": [told[id] for id in ids], "fitting": fitting, "searched": len(index.ids)})


@films.get("/about")
async def named(request: Request, item: Annotated[list[Id], Query(max_length=100)]) -> Response:
    """Return title, genres and year of some items, as far as they are known."""
    told = await described(request, there_is_one(request), item)
    return Reply({"items": [told[id] for id in item]})


@films.get("/item")
async def one(request: Request, item: Annotated[Id, Query()]) -> Response:
    """Return all that is known of an item: from the catalogue, the release, and the log."""
    engine: Engine = request.app.state.engine
    snapshot = there_is_one(request)
    index = await _index(request, snapshot)
    rows, learned, (exposure, moves) = await asyncio.gather(
        asyncio.to_thread(index.rows, [item]),
        asyncio.to_thread(_learned, snapshot.folder, item),
        asyncio.to_thread(lambda: (_exposure(request.app.state.home.log, item), _moves(engine, item))),
    )
    row, said = snapshot.vocab.row(item), rows.get(item, {})
    known = 0 < row < len(snapshot.vocab.base)
    withdrawn = item in snapshot.gone or bool(len(snapshot.withdrawn) and row and snapshot.withdrawn[row])
    stage = "released" if known else "shelf" if row else "described" if said else "unknown"
    place = int((snapshot.share > snapshot.share[row]).sum()) + 1 if known and snapshot.share[row] > 0 else None
    told = {**about(snapshot, [item])[0], **{name: said[name] for name in TOLD if name in said}}
    return Reply(
        {
            **told,
            "stage": stage,
            "withdrawn": withdrawn,
            "columns": {name: value for name, value in said.items() if name not in ("item_id", WITHDRAWN)},
            "release": snapshot.id,
            "now": snapshot.now,
            "of": len(snapshot.vocab.base) - 1,
            "place": place,
            "share": float(snapshot.share[row]) if known else None,
            "learned": learned,
            "exposure": exposure,
            "moves": moves,
        }
    )


async def described(request: Request, snapshot: Snapshot, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return what a card says of items: id, title, genres, year, by what the release knows or, where it does not, by the catalogue."""
    found = {item["item_id"]: item for item in about(snapshot, ids)}
    if rest := [id for id, item in found.items() if "title" not in item]:
        rows = await asyncio.to_thread((await _index(request, snapshot)).rows, rest)
        for id, row in rows.items():
            found[id] |= {name: row[name] for name in TOLD if name in row}
    return found


def about(snapshot: Snapshot, ids: Iterable[str]) -> list[dict[str, Any]]:
    """Return what a card says of items by what the release knows."""
    ids = list(ids)
    rows, columns = snapshot.vocab.rows(ids), [name for name in TOLD[1:] if name in snapshot.shelf.columns]
    found = [snapshot.named(id) for id in ids]
    for column in columns:
        for item, values in zip(found, snapshot.shelf.values(column, rows), strict=True):
            if values:
                item[column] = values if column == "genres" else values[0]
    return found


async def _index(request: Request, snapshot: Snapshot) -> Index:
    engine, state = request.app.state.engine, request.app.state
    if not hasattr(state, "items_index"):
        state.items_index = Kept[Index]()
    stock = tuple(engine.catalogue.segments()) if engine.catalogue else ()
    found: Index = await state.items_index.get((snapshot.id, stock), lambda: _made(engine, snapshot))
    return found


def _made(engine: Engine, snapshot: Snapshot) -> Index:
    catalogue = engine.catalogue.read() if engine.catalogue else pa.table({"item_id": pa.array([], pa.string())})
    ids = pa.array(snapshot.vocab.base.ids[1:], pa.string())
    titles = pa.array(snapshot.titles[1 : len(snapshot.vocab.base)], pa.string())
    alone = pc.invert(pc.is_in(ids, value_set=catalogue["item_id"].combine_chunks()))
    both = pa.chunked_array([*catalogue["item_id"].chunks, ids.filter(alone)], pa.string())
    said = catalogue["title"].chunks if "title" in catalogue.column_names else [pa.nulls(len(catalogue), pa.string())]
    return Index(catalogue, both, pc.fill_null(pa.chunked_array([*said, titles.filter(alone)], pa.string()), ""))


def _learned(folder: Path, item: str) -> dict[str, Any] | None:
    """Return what a release has learned of an item: when it was first and last seen (ms), and how often it counts for, older views less."""
    names = ["first_seen", "last_seen", "count"]
    found = pq.read_table(folder / "items.parquet", columns=names, filters=[("item_id", "=", item)], use_threads=False)
    if not len(found):
        return None
    first, last = (found[name].cast(pa.int64())[0].as_py() for name in names[:2])
    return {"first_seen": first, "last_seen": last, "count": found["count"][0].as_py()}


def _exposure(folder: Path, item: str) -> dict[str, Any]:
    """Return what the log says was done with an item: how often each type of event, and when, in spans of equal length."""
    log = Log(folder)
    return _counted(folder, item, tuple((path.name, path.stat().st_ino) for path in log.segments()))


@lru_cache(maxsize=64)
def _counted(folder: Path, item: str, segments: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    """segments: oldest first; the newest are read until they hold EVENTS."""
    kinds, times, looked_at, names = list[str](), list[np.ndarray](), 0, [name for name, _ in segments]
    whole = sum(pq.read_metadata(folder / name).num_rows for name in names)
    while names and looked_at < EVENTS:
        path = folder / names.pop()
        looked_at += pq.read_metadata(path).num_rows
        found = pq.read_table(path, columns=["event_type", "timestamp"], filters=[("item_id", "=", item)], use_threads=False)
        kinds += found["event_type"].to_pylist()
        times.append(found["timestamp"].cast(pa.int64()).to_numpy())
    when = np.concatenate(times) if times else np.zeros(0, np.int64)
    told = {"types": {kind: kinds.count(kind) for kind in sorted(set(kinds))}, "looked_at": looked_at, "events": whole}
    if not len(when):
        return {**told, "first": None, "last": None, "spans": []}
    spans, edges = np.histogram(when, bins=BARS if when.max() > when.min() else 1)
    return {**told, "first": int(when.min()), "last": int(when.max()), "spans": spans.tolist(), "span": int(edges[1] - edges[0])}


def _moves(engine: Engine, item: str) -> list[dict[str, Any]]:
    """Follow an item's vector through the newest releases: its cosine with what it was the release before, and what is usual."""
    ids = engine.registry.ids()[-RELEASES:]
    found, before = list[dict[str, Any]](), None
    for id in ids:
        folder = engine.registry.folder / id
        try:
            made = (folder / "vectors.npy").stat().st_mtime_ns
            row = _row(folder, made, item)
            moved: float | None = None if before is None or not row or not before[1] else _cosine(before[0], before[1], folder, row)
            usual: float | None = None if before is None else _usual(before[0], folder, made)
        except (OSError, pa.ArrowException, ValueError):  # collected meanwhile, or damaged: `recsys verify` says which
            continue
        found.append({"release": id, "known": bool(row), "cosine": moved, "usual": usual})
        before = folder, row
    return found


@lru_cache(maxsize=1024)
def _row(folder: Path, made: int, item: str) -> int:
    found = pq.read_table(folder / "items.parquet", columns=["row"], filters=[("item_id", "=", item)], use_threads=False)
    return int(found["row"][0].as_py()) if len(found) else 0


def _cosine(before: Path, row: int, after: Path, now: int) -> float | None:
    return _median(_vectors(before)[[row]], _vectors(after)[[now]])


@lru_cache(maxsize=64)
def _usual(before: Path, after: Path, made: int) -> float | None:
    """Return the median cosine of items that both releases know: some, at equal distances, by their ids."""
    column = pq.read_table(before / "items.parquet", columns=["item_id", "row"], use_threads=False)
    some = column.take(pa.array(np.unique(np.linspace(0, len(column) - 1, min(SAMPLE, len(column))).astype(np.int64))))
    known = pq.read_table(after / "items.parquet", columns=["item_id", "row"], use_threads=False)
    place = pc.index_in(some["item_id"], value_set=known["item_id"].combine_chunks())
    both = place.is_valid().to_numpy()
    if not both.any():
        return None
    rows = known["row"].take(place.drop_null()).to_numpy()
    return _median(_vectors(before)[some["row"].to_numpy()[both]], _vectors(after)[rows])


def _median(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return the median cosine of rows; None where there is none, or towers are of another width."""
    known = np.zeros(0) if a.shape != b.shape else cosines(a, b)
    known = known[~np.isnan(known)]
    return float(np.median(known)) if len(known) else None


def _vectors(folder: Path) -> np.ndarray:
    found: np.ndarray = np.load(folder / "vectors.npy", mmap_mode="r")
    return found
