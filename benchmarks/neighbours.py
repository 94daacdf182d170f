"""What the instance memory costs: a question, many at once, a window more, loading, bytes; against copying the same numbers alone."""

from time import perf_counter

import numpy as np

from benchmarks.measure import Figure, scratch, seconds
from recsys.events import CODE
from recsys.neighbours import ARRAYS, DAY, FOLDER, INDEX, Neighbours
from recsys.sessions import Histories, Sessions

SESSIONS, ITEMS, LATER = 500_000, 43_000, 0.01


def run(quick: bool = False) -> list[Figure]:
    """Remember half a million sessions like DIGINETICA's: 4.9 clicks on average, popularity (rank + 100) ** -0.8."""
    count, times, rng = 20_000 if quick else SESSIONS, 200 if quick else 3000, np.random.default_rng(0)
    later = int(count * LATER)
    first, second = sessions(rng, count - later, 0), sessions(rng, later, count - later)
    asked, now = histories(rng, times), np.full(times, int(120 * DAY))
    with scratch() as folder:
        built = Neighbours()
        built.add(first)
        adding = seconds(lambda: built.add(second))
        copying = seconds(lambda: [np.array(getattr(built, name)) for name in ARRAYS | INDEX])
        built.write(folder)
        memory = Neighbours.read(folder)
        loading = min(seconds(lambda: Neighbours.read(folder)) for _ in range(5))
        reading = min(seconds(lambda: [path.read_bytes() for path in (folder / FOLDER).iterdir()]) for _ in range(5))
        size = sum(path.stat().st_size for path in (folder / FOLDER).iterdir())
        one, floor = np.zeros((2, times))
        for n in range(times):
            history = asked[n : n + 1]
            moments = [perf_counter()]
            query, _, _ = memory.votes(history, now[n : n + 1])
            moments.append(perf_counter())
            copied = postings(memory, history)
            moments.append(perf_counter())
            one[n], floor[n] = np.diff(moments) * 1000
            assert bool(len(query)) == bool(len(copied))
        together = seconds(lambda: memory.votes(asked, now)) * 1000 / times
    events = len(built.item)
    about = f"{len(built):,} sessions, {events:,} clicks"
    ask = [
        Figure(f"neighbours, p{p} of one question: {about}", float(np.percentile(one, p)), "ms", float(np.percentile(floor, p)), what)
        for p, what in ((50, "copying the same postings"), (99, "the same"))
    ]
    return [
        *ask,
        Figure(f"neighbours, {times:,} questions at once, each", together, "ms", float(floor.mean()), "the same, one by one"),
        Figure(f"neighbours, {later:,} sessions added", adding * 1000, "ms", copying * 1000, "copying the arrays"),
        Figure("neighbours, loaded from a release", loading * 1000, "ms", reading * 1000, "reading the same files"),
        Figure("neighbours, in a release", size / 1e6, "MB", (8 * len(built) + 12 * events) / 1e6, "owners, items and times alone"),
    ]


def sessions(rng: np.random.Generator, count: int, first: int) -> Sessions:
    """Draw sessions number `first` and on, one every 17 s, of at least two clicks half a minute apart."""
    length = 2 + np.floor(rng.exponential(3.4, count)).astype(np.int64)
    start = np.concatenate([[0], np.cumsum(length)])
    owner = np.repeat(np.arange(count), length)
    place = np.arange(start[-1]) - start[owner]
    time = (first + owner) * 17_000 + place * 30_000
    kind = np.full(len(owner), CODE["click"], np.int8)
    names = [f"session:{first + n}" for n in range(count)]
    return Sessions(names, start, clicks(rng, len(owner)), kind, time, owner, np.arange(len(owner)))


def histories(rng: np.random.Generator, count: int) -> Histories:
    """Draw histories of 1 to 10 clicks."""
    start = np.concatenate([[0], np.cumsum(rng.integers(1, 11, count))])
    kind = np.full(start[-1], CODE["click"], np.int8)
    return Histories(start, clicks(rng, start[-1]), kind, np.zeros(start[-1], np.int64))


def clicks(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw items, the popular ones as often as in DIGINETICA."""
    share = np.cumsum((np.arange(ITEMS) + 100.0) ** -0.8)
    return (1 + np.searchsorted(share, rng.random(count) * share[-1])).astype(np.int32)


def postings(memory: Neighbours, history: Histories) -> np.ndarray:
    """Copy where the items of a history occur."""
    end = memory.posting[history.item + 1]
    begin = np.maximum(memory.posting[history.item], end - memory.candidates)
    return np.concatenate([memory.code[low:high] for low, high in zip(begin.tolist(), end.tolist(), strict=True)])
