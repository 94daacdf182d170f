"""What answering one recommendation costs inside the process, against its parts alone; the profile is fetched elsewhere."""

from time import perf_counter

import numpy as np

from benchmarks.measure import Figure, scratch
from benchmarks.world import NOW, popular_first, release
from recsys import fusion
from recsys.events import CODE
from recsys.sessions import Histories, gap_buckets
from serving.history import History
from serving.snapshot import Ask, Snapshot
from serving.together import MOST

ITEMS, DIM, HISTORY, K, PEOPLE = 200_000, 64, 50, 20, 200_000


def run(quick: bool = False) -> list[Figure]:
    """Time Snapshot.recommend and, after each answer, its parts on the same history: user tower, neighbours, index search."""
    times, items, people, rng = (200, 5_000, 5_000, np.random.default_rng(0)) if quick else (3000, ITEMS, PEOPLE, np.random.default_rng(0))
    with scratch() as folder:
        snapshot = Snapshot.load(release(folder, rng, items, people, DIM))
        asks, (whole, tower, votes, search) = timed(snapshot, items, times, rng)
        together = []
        for first in range(0, times - MOST, MOST):
            began = perf_counter()
            snapshot.recommend_many(asks[first : first + MOST])
            together.append((perf_counter() - began) * 1000 / MOST)
    alone = "user tower {:.3f} + neighbours {:.3f} + search {:.3f} ms".format(*(np.median(part) for part in (tower, votes, search)))
    parts, what = tower + votes + search, f"{HISTORY} events, {items:,} items, d={DIM}, {people:,} neighbours"
    p50, p99 = (float(np.percentile(parts, p)) for p in (50, 99))
    return [
        Figure(f"recommend, p50: {what}", float(np.median(whole)), "ms", p50, alone),
        Figure("the same, p99", float(np.percentile(whole, 99)), "ms", p99, "the same"),
        Figure(f"the same, {MOST} people at once, each", float(np.median(together)), "ms", p50, "the same, one by one"),
    ]


def timed(snapshot: Snapshot, items: int, times: int, rng: np.random.Generator) -> tuple[list[Ask], np.ndarray]:
    """Ask for so many lists; return what was asked, and the ms of each answer and of its parts alone: whole, tower, votes, search."""
    asks, took = [], np.zeros((4, times))
    for n in range(times):
        rows = popular_first(rng, HISTORY, items)
        time = NOW + np.arange(HISTORY) * 600_000
        asks.append(Ask(History([f"i{row}" for row in rows.tolist()], [CODE["play"]] * HISTORY, time.tolist()), K))
        past = Histories(np.array([0, HISTORY]), rows, np.full(HISTORY, CODE["play"]), time)
        feed, now, wanted = _feed(snapshot, rows, time), time[-1:], fusion.BEST + HISTORY
        moments = [perf_counter()]
        answer = snapshot.recommend_many(asks[-1:])[0]
        moments.append(perf_counter())
        user = snapshot.user_tower.run(["user"], feed)[0]
        moments.append(perf_counter())
        snapshot.neighbours.votes(past, now)
        moments.append(perf_counter())
        snapshot.index.search(user, wanted)
        moments.append(perf_counter())
        took[:, n] = np.diff(moments) * 1000
        assert len(answer) == K
    return asks, took


def _feed(snapshot: Snapshot, rows: np.ndarray, time: np.ndarray) -> dict[str, np.ndarray]:
    kinds = np.full((1, HISTORY), CODE["play"], np.int64)
    gaps = gap_buckets(time).astype(np.int64)[None]
    return {"items": snapshot.vectors[rows][None], "kinds": kinds, "gaps": gaps, "lengths": np.array([HISTORY])}
