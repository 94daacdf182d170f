"""Somebody to forget, among others, and where anything still tells of her."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file
from worlds import SMALLEST, event_table

from recsys.home import Home
from recsys.log import Log
from recsys.neighbours import Neighbours
from recsys.registry import Registry
from recsys.sessions import owner_numbers
from recsys.settings import load_settings
from serving.history import Event
from serving.profiles import Profiles
from serving.wire import Wire
from training import job
from training.candidate import STATE

NAME, SESSION = "alice-3f1c", "tv-77ab"
TRACES = (NAME.encode(), SESSION.encode())
BEGAN = round(time.time() * 1000) - 86_400_000


def rows(first: int, last: int, began: int = BEGAN) -> list[dict[str, object]]:
    """Events of 20 people and, each seventh, hers: half of them in a session before she signed in, which is told once."""
    found = []
    for n in range(first, last):
        who: dict[str, object] = {"user_id": f"u{n * 3 % 20}"}
        if n % 7 == 0:
            who = {"session_id": SESSION} if n % 2 else {"user_id": NAME, "session_id": SESSION if n % 4 == 0 else None}
        event = {"event_id": f"{who.get('user_id') or SESSION}-{n}", "item_id": f"i{n * n % 15}", "timestamp": began + 1000 * n}
        found.append({**event, "event_type": "play", **who})
    return found


def others(events: pa.Table) -> list[dict[str, object]]:
    """Return the events of everybody else, as they are in a log."""
    return [row for row in events.to_pylist() if row["user_id"] != NAME and row["session_id"] != SESSION]


def ids(events: list[dict[str, object]]) -> list[str]:
    return sorted(str(event["event_id"]) for event in events)


def fitted_home(path: Path) -> Home:
    """Return a home with a log and two releases that know her."""
    home = Home(path)
    home.config.parent.mkdir()
    home.config.write_text(f"{SMALLEST}\n[serving]\nport = 0\nwatch_seconds = 0.1\nmeasured = 1.0\n")
    settings = load_settings(home.config, environ={})
    for first, last in ((0, 150), (150, 240)):
        Log(home.log).append(event_table(rows(first, last)))
        job.update_and_publish(home, settings) if first else job.fit_and_publish(home, settings)
    return home


def traces(home: Home) -> list[str]:
    """Return where something tells of her: every byte of every file, Parquet unpacked, and the numbers that stand for her name."""
    whose = owner_numbers([NAME, f"session:{SESSION}"])
    found = []
    for path in (path for path in home.path.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += json.dumps(pq.read_table(path).to_pylist(), default=str).encode()
        if any(trace in content or trace.hex().encode() in content for trace in TRACES):
            found.append(str(path.relative_to(home.path)))
    for id in Registry(home.releases).ids():
        folder = home.releases / id
        remembered = {"neighbours": Neighbours.read(folder).owner, "memory": load_file(folder / STATE)["memory:whose"]}
        found += [f"{id} {what}" for what, numbers in remembered.items() if np.isin(numbers, whose).any()]
    return sorted(found)


def people(url: str, use: Callable[[Profiles], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        wire = Wire(url)
        try:
            return await use(Profiles(wire, "recsys"))
        finally:
            wire.close()

    return asyncio.run(main())


def take_in(url: str, events: list[dict[str, object]]) -> list[bool]:
    """Merge events as the API does."""
    found: list[bool] = people(url, lambda profiles: profiles.merge([Event(**event) for event in events]))  # type: ignore[arg-type]
    return found
