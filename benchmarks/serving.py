"""What a person waits for: a real server over HTTP with real Redis, asked at a fixed rate whether or not it has answered (open loop)."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson

from benchmarks.measure import Figure, scratch
from benchmarks.world import NOW, popular_first, release

ITEMS, DIM, PEOPLE, ASKERS, HISTORY, K = 200_000, 64, 200_000, 1000, 50, 20
RATES = (100, 250, 500)
"""Requests a second."""

CONNECTIONS = 64


def run(quick: bool = False) -> list[Figure]:
    """Ask for recommendations in an open loop and as fast as they come, and send events; the floor is the server saying that it lives."""
    items, people, askers, seconds = (5_000, 2_000, 50, 1.0) if quick else (ITEMS, PEOPLE, ASKERS, 8.0)
    rng = np.random.default_rng(0)
    with scratch() as home:
        release(home / "releases", rng, items, people, DIM)
        with served(home) as (host, port):
            return asyncio.run(_measure(host, port, items, askers, seconds, rng))


@contextmanager
def served(home: Path) -> Iterator[tuple[str, int]]:
    """Run `recsys serve` on a home, on any port."""
    command = [sys.executable, "-m", "recsys.cli", "serve", "--home", str(home), "--port", "0", "--json"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as server:
        assert server.stdout is not None
        url = orjson.loads(server.stdout.readline())["url"]
        try:
            host, port = url.removeprefix("http://").split(":")
            yield host, int(port)
        finally:
            server.terminate()
            server.wait(20)


async def _measure(host: str, port: int, items: int, askers: int, seconds: float, rng: np.random.Generator) -> list[Figure]:
    load = Load(host, port)
    history = (NOW + np.arange(HISTORY) * 600_000).tolist()
    posts = []
    for person in range(askers):
        rows = popular_first(rng, HISTORY, items).tolist()
        told = [
            {"user_id": f"p{person}", "item_id": f"i{row}", "event_type": "play", "timestamp": at / 1000}
            for row, at in zip(rows, history, strict=True)
        ]
        posts.append(load.post("/v1/events", told))
    await load.flood(posts, 8)
    asks = [load.get(f"/v1/recommend/p{person}?k={K}") for person in rng.integers(0, askers, 200_000).tolist()]
    lives = [load.get("/health/live")] * 200_000
    await load.flood(asks[:200], 8)
    what = f"{items:,} items, d={DIM}, {HISTORY} events, k={K}"
    figures = []
    for rate in RATES if seconds > 2 else RATES[:1]:
        floor = await load.open_loop(lives, rate, seconds)
        waited = await load.open_loop(asks, rate, seconds)
        figures += [
            Figure(f"recommend at {rate}/s over HTTP, p{p}: {what}", *(float(np.percentile(times, p)) for times in (waited,)), "ms",
                   float(np.percentile(floor, p)), "GET /health/live at the same rate")
            for p in (50, 99)
        ]  # fmt: skip
    some = int(400 * seconds)
    fastest, floor_rate = await load.flood(asks[:some], 16), await load.flood(lives[: 4 * some], 16)
    figures.append(Figure("recommend over HTTP, 16 at once", fastest, "requests/s", floor_rate, "GET /health/live, 16 at once"))
    taps = [
        load.post(
            "/v1/events", {"user_id": f"p{n % askers}", "item_id": f"i{n % items + 1}", "event_type": "play", "timestamp": NOW / 1000 + n}
        )
        for n in range(2 * some)
    ]
    figures.append(Figure("events over HTTP, one each, 16 at once", await load.flood(taps, 16), "events/s", floor_rate, "the same"))
    return figures


class Load:
    """A client that only counts: requests are written beforehand, answers are read to their end and looked at for their status."""

    def __init__(self, host: str, port: int):
        self.host, self.port = host, port

    def get(self, path: str) -> bytes:
        """Write a GET."""
        return f"GET {path} HTTP/1.1\r\nhost: {self.host}\r\n\r\n".encode()

    def post(self, path: str, body: object) -> bytes:
        """Write a POST of JSON."""
        sent = orjson.dumps(body)
        head = f"POST {path} HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\ncontent-length: {len(sent)}\r\n\r\n"
        return head.encode() + sent

    async def flood(self, requests: list[bytes], callers: int) -> float:
        """Send all of them from callers who each wait for their answers; return requests a second."""
        waiting = iter(requests)

        async def caller() -> None:
            reader, writer = await asyncio.open_connection(self.host, self.port)
            for request in waiting:
                await _ask(reader, writer, request)
            writer.close()

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return len(requests) / (time.perf_counter() - began)

    async def open_loop(self, requests: list[bytes], rate: float, seconds: float) -> np.ndarray:
        """Send one every 1 / rate seconds, answered or not; return how long after its time each was answered, in ms."""
        free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        for _ in range(CONNECTIONS):
            free.put_nowait(await asyncio.open_connection(self.host, self.port))
        times: list[float] = []

        async def one(request: bytes, due: float) -> None:
            connection = await free.get()
            await _ask(*connection, request)
            times.append(1000 * (time.perf_counter() - due))
            free.put_nowait(connection)

        began, tasks = time.perf_counter(), []
        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            tasks.append(asyncio.create_task(one(requests[number % len(requests)], due)))
        await asyncio.gather(*tasks)
        while not free.empty():
            free.get_nowait()[1].close()
        return np.array(times)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0]:
        raise RuntimeError(f"the server answered {head[:200]!r} to {request[:200]!r}")
    await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
