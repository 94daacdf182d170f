"""What answering one recommendation costs inside the process, against its parts alone; the profile is fetched elsewhere."""

from time import perf_counter

import numpy as np

from benchmarks.measure import Figure, scratch
from benchmarks.world import NOW, popular_first, release
from recsys import fusion
from recsys.events import CODE
from recsys.sessions import Histories, gap_buckets
from serving.history import Event
from serving.snapshot import NO_ROWS, NOTHING, Asked, Snapshot

ITEMS, HISTORY, K, PEOPLE = 20_000, 50, 20, 200_000


def run(quick: bool = False) -> list[Figure]:
    """Time Snapshot.recommend and, after each answer, its parts on the same history: user tower, neighbours, index search, fuse."""
    times, people, rng = (200, 5_000, np.random.default_rng(0)) if quick else (3000, PEOPLE, np.random.default_rng(0))
    with scratch() as folder:
        snapshot = Snapshot.load(release(folder, rng, ITEMS, people))
        whole, tower, votes, search, fuse = np.zeros((5, times))
        for n in range(times):
            rows = popular_first(rng, HISTORY, ITEMS)
            time = NOW + np.arange(HISTORY) * 600_000
            history = [Event(f"i{row}", "play", at) for row, at in zip(rows.tolist(), time.tolist(), strict=True)]
            past = Histories(np.array([0, HISTORY]), rows, np.full(HISTORY, CODE["play"]), time)
            out, feed, now = np.unique(rows), _feed(snapshot, rows, time), time[-1:]
            barred = np.zeros(ITEMS + 1, bool)
            barred[[0, *out]] = True
            moments = [perf_counter()]
            answer = snapshot.recommend(history, K)
            moments.append(perf_counter())
            user = snapshot.user_tower.run(["user"], feed)[0]
            moments.append(perf_counter())
            snapshot.neighbours.votes(past, now)
            moments.append(perf_counter())
            snapshot.index.search(user, max(K, fusion.BEST) + len(out))
            moments.append(perf_counter())
            found = snapshot._fused(Asked(user[0], past, NOTHING, NO_ROWS, barred, len(out)), K)  # asks neighbours and index again
            moments.append(perf_counter())
            whole[n], tower[n], votes[n], search[n], fuse[n] = np.diff(moments) * 1000
            fuse[n] -= votes[n] + search[n]
            assert [item["item_id"] for item in answer] == [f"i{row}" for row, _, _ in found]
            assert len(answer) == K
    parts = (np.median(part) for part in (tower, votes, search, fuse))
    alone = "user tower {:.3f} + neighbours {:.3f} + search {:.3f} ms; to fuse them {:.3f}".format(*parts)
    return [
        Figure(
            f"recommend, p{p}: {HISTORY} events, {ITEMS:,} items, d={snapshot.vectors.width}, {people:,} neighbours",
            float(np.percentile(whole, p)),
            "ms",
            float(np.percentile(tower + votes + search, p)),
            alone if p == 50 else "the same",
        )
        for p in (50, 99)
    ]


def _feed(snapshot: Snapshot, rows: np.ndarray, time: np.ndarray) -> dict[str, np.ndarray]:
    kinds = np.full((1, HISTORY), CODE["play"], np.int64)
    gaps = gap_buckets(time).astype(np.int64)[None]
    return {"items": snapshot.vectors[rows][None], "kinds": kinds, "gaps": gaps, "lengths": np.array([HISTORY])}
