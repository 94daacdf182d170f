"""What a person waits for: a real server over HTTP with real Redis, asked at a fixed rate whether or not it has answered (open loop)."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson

from benchmarks.load import Load
from benchmarks.measure import Figure, scratch
from benchmarks.request import timed
from benchmarks.world import NOW, popular_first, release
from recsys.home import Home
from recsys.registry import Registry
from serving.keys import Keys
from serving.snapshot import Snapshot

ITEMS, DIM, PEOPLE, ASKERS, HISTORY, K = 200_000, 64, 200_000, 1000, 50, 20
RATES = (100, 500, 1000)
"""Requests a second."""

RUNS = 3
"""Of each the median is told."""


def run(quick: bool = False) -> list[Figure]:
    """Ask for recommendations in an open loop and as fast as they come, and send events; the floor is the server saying that it lives."""
    items, people, askers, seconds = (5_000, 2_000, 50, 1.0) if quick else (ITEMS, PEOPLE, ASKERS, 8.0)
    rng = np.random.default_rng(0)
    with scratch() as home:
        release(home / "releases", rng, items, people, DIM)
        key = Keys(Home(home).keys).add("bench", "read,write")
        with served(home) as (host, port, pid):
            process = f"/proc/{pid}/stat"

            def cpu() -> float:
                """Return the CPU seconds that the server has spent."""
                user, system = Path(process).read_text().rpartition(")")[2].split()[11:13]
                return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

            figures, spent, floor = _measure(Load(host, port, key), cpu, items, askers, seconds, rng)
        _, (_, *parts) = timed(Snapshot.load(Registry(home / "releases").open()), items, int(100 * seconds), rng)
    tower, votes, search = (float(np.median(part)) for part in parts)
    what = f"/health/live {floor:.3f} + user tower {tower:.3f} + neighbours {votes:.3f} + search {search:.3f} ms"
    return [*figures, Figure("CPU of the server for a recommendation, 16 at once", spent, "ms", floor + tower + votes + search, what)]


@contextmanager
def served(home: Path, *words: str) -> Iterator[tuple[str, int, int]]:
    """Run `recsys serve` on a home, on any port, perhaps with more words."""
    command = [sys.executable, "-m", "recsys.cli", "serve", "--home", str(home), "--port", "0", "--json", *words]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as server:
        assert server.stdout is not None
        url = orjson.loads(server.stdout.readline())["url"]
        try:
            host, port = url.removeprefix("http://").split(":")
            yield host, int(port), server.pid
        finally:
            server.terminate()
            server.wait(20)


def _measure(
    load: Load, cpu: Callable[[], float], items: int, askers: int, seconds: float, rng: np.random.Generator
) -> tuple[list[Figure], float, float]:
    history = (NOW + np.arange(HISTORY) * 600_000).tolist()
    posts = []
    for person in range(askers):
        rows = popular_first(rng, HISTORY, items).tolist()
        told = [
            {"user_id": f"p{person}", "item_id": f"i{row}", "event_type": "play", "timestamp": at / 1000}
            for row, at in zip(rows, history, strict=True)
        ]
        posts.append(load.post("/v1/events", told))
    load.flood(posts, 8)
    asks = [load.get(f"/v1/recommend/p{person}?k={K}") for person in rng.integers(0, askers, 20_000).tolist()]
    lives = [load.get("/health/live")] * 20_000
    load.flood(asks[:500], 16)
    what = f"{items:,} items, d={DIM}, {HISTORY} events, k={K}"
    figures = []
    for rate in RATES if seconds > 2 else RATES[:1]:
        runs = [(load.open_loop(asks, rate, seconds), load.open_loop(lives, rate, seconds / 2)) for _ in range(RUNS if seconds > 2 else 1)]
        for p in (50, 99):
            waited, floor = (float(np.median([np.percentile(run[n], p) for run in runs])) for n in (0, 1))
            figures.append(
                Figure(f"recommend at {rate}/s over HTTP, p{p}: {what}", waited, "ms", floor, "GET /health/live at the same rate")
            )
    some = int(1500 * seconds)
    rates, floors, spent = [], [], []
    for _ in range(RUNS if seconds > 2 else 1):
        moments = [cpu()]
        rates.append(load.flood((asks * 2)[:some], 16))
        moments.append(cpu())
        floors.append(load.flood((lives * 3)[: 2 * some], 16))
        moments.append(cpu())
        spent.append(np.diff(moments) * 1000 / [some, 2 * some])
    fastest, floor_rate = float(np.median(rates)), float(np.median(floors))
    figures.append(Figure("recommend over HTTP, 16 at once", fastest, "requests/s", floor_rate, "GET /health/live, 16 at once"))
    taps = [
        load.post(
            "/v1/events", {"user_id": f"p{n % askers}", "item_id": f"i{n % items + 1}", "event_type": "play", "timestamp": NOW / 1000 + n}
        )
        for n in range(6 * some)
    ]
    for callers in (16, 64):  # each waits until its event is on the disk
        parts = [load.flood(taps[n::6], callers) for n in range(callers == 64, 6, 2)]
        live = load.flood((lives * 3)[: 2 * some], callers)
        what = f"GET /health/live, {callers} at once"
        figures.append(Figure(f"events over HTTP, one each, {callers} at once", float(np.median(parts)), "events/s", live, what))
    each, floor = np.median(spent, axis=0).tolist()
    return figures, each, floor
