"""What answering one recommendation costs inside the process, against its parts alone; the profile is fetched elsewhere."""

from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.measure import Figure, scratch
from recsys import fusion
from recsys.again import Again
from recsys.batches import ItemCounts
from recsys.events import CODE
from recsys.fusion import Fusion
from recsys.neighbours import Neighbours
from recsys.registry import Registry, Release
from recsys.sessions import Histories, Sessions, gap_buckets
from recsys.settings import Settings
from recsys.towers import Towers
from recsys.vocab import Vocabulary
from serving.engine import NO_ROWS, NOTHING, Asked, Snapshot
from serving.profiles import Event
from training.candidate import Candidate
from training.memory import Memory
from training.prototypes import Prototypes

ITEMS, HISTORY, K, PEOPLE = 20_000, 50, 20, 200_000
NOW = 1_700_000_000_000


def run(quick: bool = False) -> list[Figure]:
    """Time Snapshot.recommend and, after each answer, its parts on the same history: user tower, neighbours, index search, fuse."""
    times, people, rng = (200, 5_000, np.random.default_rng(0)) if quick else (3000, PEOPLE, np.random.default_rng(0))
    with scratch() as folder:
        snapshot = Snapshot.load(_release(folder, people, rng))
        whole, tower, votes, search, fuse = np.zeros((5, times))
        for n in range(times):
            rows = 1 + _popular_first(rng, HISTORY)
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


def _popular_first(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw items from 0, the first ones most often."""
    share = np.cumsum((np.arange(ITEMS) + 100.0) ** -0.8)
    return np.searchsorted(share, rng.random(count) * share[-1])


def _feed(snapshot: Snapshot, rows: np.ndarray, time: np.ndarray) -> dict[str, np.ndarray]:
    kinds = np.full((1, HISTORY), CODE["play"], np.int64)
    gaps = gap_buckets(time).astype(np.int64)[None]
    return {"items": snapshot.vectors[rows][None], "kinds": kinds, "gaps": gaps, "lengths": np.array([HISTORY])}


def _release(folder: Path, people: int, rng: np.random.Generator) -> Release:
    """Publish a release of the default architecture whose towers know nothing: the cost is the same. The neighbours have 5 events each."""
    settings, vocab = Settings(), Vocabulary(f"i{n}" for n in range(1, ITEMS + 1))
    towers = Towers(settings.model, [[]] * len(vocab), settings.data.history).eval()
    none = ItemCounts.none(settings.training.count_half_life).grow(len(vocab))
    counts = replace(none, count=np.concatenate([[0], rng.pareto(1, ITEMS)]), now=NOW)
    owner, place = np.repeat(np.arange(people), 5), np.tile(np.arange(5), people)
    item, kind = (1 + _popular_first(rng, 5 * people)).astype(np.int32), np.full(5 * people, CODE["play"], np.int8)
    time = NOW - (people - owner) * 17_000 + place * 30_000
    memory = Neighbours(capacity=settings.neighbours.capacity)
    memory.add(Sessions([f"u{n}" for n in range(people)], np.arange(0, 5 * people + 1, 5), item, kind, time, owner, np.arange(5 * people)))
    weights = Fusion.start(settings.neighbours.share, settings.neighbours.popular)
    prototypes = Prototypes(np.zeros((len(vocab), settings.model.dim), np.float32), 0.0)
    candidate = Candidate(settings, towers, prototypes, vocab, counts, memory, weights, Again.start(), Memory.empty(0), {}, {})
    registry = Registry(folder)
    with registry.draft() as draft:
        return registry.publish(draft, registry.next_id(), None, {**candidate.write(draft), "why": "benchmark", "seconds": {}})
