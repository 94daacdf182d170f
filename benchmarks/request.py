"""What answering one recommendation costs inside the process, against its parts alone."""

from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.measure import Figure, scratch
from recsys.batches import ItemCounts
from recsys.events import CODE
from recsys.registry import Registry, Release
from recsys.sessions import gap_buckets
from recsys.settings import Settings
from recsys.towers import Towers
from recsys.vocab import Vocabulary
from serving.engine import Snapshot
from serving.profiles import Event
from training.candidate import Candidate
from training.memory import Memory

ITEMS, HISTORY, K = 20_000, 50, 20
NOW = 1_700_000_000_000


def run(quick: bool = False) -> list[Figure]:
    """Time Snapshot.recommend and, after each answer, its parts: the user tower, then the search with what was seen left out."""
    times, rng = 200 if quick else 3000, np.random.default_rng(0)
    with scratch() as folder:
        snapshot = Snapshot.load(_release(folder))
        whole, tower, search, unfiltered = (np.zeros(times) for _ in range(4))
        for n in range(times):
            rows = 1 + rng.choice(ITEMS, HISTORY, replace=False)
            history = [Event(f"i{row}", "play", NOW + place * 600_000) for place, row in enumerate(rows.tolist())]
            feed = _feed(snapshot, rows, np.array([event.timestamp for event in history]))
            moments = [perf_counter()]
            answer = snapshot.recommend(history, K)
            moments.append(perf_counter())
            user = snapshot.user_tower.run(["user"], feed)[0]
            moments.append(perf_counter())
            found = snapshot.index.search(user, K, exclude=rows)[1][0]
            moments.append(perf_counter())
            snapshot.index.search(user, K)
            moments.append(perf_counter())
            whole[n], tower[n], search[n], unfiltered[n] = np.diff(moments) * 1000
            assert [item["item_id"] for item in answer] == [f"i{row}" for row in found]
    parts = (np.median(part) for part in (tower, unfiltered, search - unfiltered))
    alone = "user tower {:.3f} + search {:.3f} + filter {:.3f} ms".format(*parts)
    return [
        Figure(
            f"recommend, p{p}: {HISTORY} events, {ITEMS:,} items, d={snapshot.vectors.shape[1]}",
            float(np.percentile(whole, p)),
            "ms",
            float(np.percentile(tower + search, p)),
            alone if p == 50 else "the same",
        )
        for p in (50, 99)
    ]


def _feed(snapshot: Snapshot, rows: np.ndarray, time: np.ndarray) -> dict[str, np.ndarray]:
    kinds = np.full((1, HISTORY), CODE["play"], np.int64)
    gaps = gap_buckets(time).astype(np.int64)[None]
    return {"items": snapshot.vectors[rows][None], "kinds": kinds, "gaps": gaps, "lengths": np.array([HISTORY])}


def _release(folder: Path) -> Release:
    """Publish a release of the default architecture whose towers know nothing: the cost is the same."""
    settings, vocab = Settings(), Vocabulary(f"i{n}" for n in range(1, ITEMS + 1))
    towers = Towers(settings.model, [[]] * len(vocab), settings.data.history).eval()
    none = ItemCounts.none(settings.training.count_half_life).grow(len(vocab))
    counts = replace(none, count=np.random.default_rng(0).pareto(1, len(vocab)))
    candidate = Candidate(settings, towers, vocab, counts, Memory.empty(0), {}, {})
    registry = Registry(folder)
    with registry.draft() as draft:
        return registry.publish(draft, registry.next_id(), None, {**candidate.write(draft), "why": "benchmark", "seconds": {}})
