"""How fast events are merged and made durable, against Redis taking the bare payload."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from benchmarks.measure import Figure, scratch
from serving.embedded import EmbeddedRedis
from serving.history import Event
from serving.profiles import Profiles
from serving.wire import Wire

CALLERS, BATCH = 16, 100

Send = Callable[[list[Event]], Awaitable[Any]]


def run(quick: bool = False) -> list[Figure]:
    """Merge events one by one from many callers at once, then in batches from one; beside it XADD of the same bytes."""
    with scratch() as folder, EmbeddedRedis(folder, "always") as server:
        return asyncio.run(_run(server.url, 1600 if quick else 16_000))


async def _run(url: str, count: int) -> list[Figure]:
    wire = Wire(url)
    profiles = Profiles(wire, "bench")
    ways = [(f"{CALLERS} callers, one event each", CALLERS, 1), (f"batches of {BATCH}", 1, BATCH)]
    figures = []
    for number, (what, callers, batch) in enumerate(ways):
        await _rate(profiles.merge, f"warm up {number}", count // 10, callers, batch)
        merged = await _rate(profiles.merge, f"merge {number}", count, callers, batch)
        added = await _rate(lambda events: _add(wire, events), f"add {number}", count, callers, batch)
        figures.append(Figure(f"events merged durably, {what}", merged, "events/s", added, "XADD of the same bytes, same callers"))
    wire.close()
    return figures


async def _rate(send: Send, name: str, count: int, callers: int, batch: int) -> float:
    """Return how many events a second `callers` that each wait for their answer get done."""
    now = round(time.time() * 1000)
    events = [Event(f"i{n % 997}", "play", now + n, f"{name} {n}", f"user {n % 1000}", value=0.5) for n in range(count)]
    batches = iter([events[start : start + batch] for start in range(0, count, batch)])

    async def caller() -> None:
        for part in batches:
            await send(part)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return count / (time.perf_counter() - began)


async def _add(wire: Wire, events: list[Event]) -> None:
    await wire.calls([("XADD", "bare", "*", "event", orjson.dumps(event)) for event in events])
