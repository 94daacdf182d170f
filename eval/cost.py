"""What a method costs: seconds and memory of learning, bytes of a release, and what the shortcuts of serving lose."""

import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from eval import metrics
from eval.methods import Method, Released
from eval.timeline import Questions

PROBED = 2_000
"""Queries of a window that the probes ask, at most."""

_EVERY = 0.02
_STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class Cost:
    """What it cost a method to answer one window.

    seconds_learn: to learn what came before the window, with what another method had done already; seconds_answer: to score the window,
    CPU seconds of all cores together; examples: see `Learned`; peak_mb: most memory of the whole process while learning, MB;
    release_bytes: what serving needs; index_loss, stale_loss: see `probes`.
    """

    seconds_learn: float
    seconds_answer: float
    examples: int
    peak_mb: float
    release_bytes: int
    index_loss: float | None = None
    stale_loss: float | None = None


@dataclass
class Meter:
    """Wall seconds, and the highest resident memory of the whole process in that time, MB (10^6 bytes)."""

    seconds: float = 0.0
    peak_mb: float = 0.0


@contextmanager
def measured() -> Iterator[Meter]:
    """Time a block and watch the memory meanwhile, from a thread that looks fifty times a second."""
    meter, done = Meter(peak_mb=resident_mb()), threading.Event()

    def watch() -> None:
        while not done.wait(_EVERY):
            meter.peak_mb = max(meter.peak_mb, resident_mb())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    started = perf_counter()
    try:
        yield meter
    finally:
        meter.seconds = perf_counter() - started
        done.set()
        watcher.join()
        meter.peak_mb = max(meter.peak_mb, resident_mb())


def resident_mb() -> float:
    """Return the memory this process holds now, MB; where the system does not tell, the most it ever held."""
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * resource.getpagesize() / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most / 1e3


def probes(method: Method, questions: Questions, ranks: np.ndarray, k: int = 20) -> tuple[float | None, float | None]:
    """Return what recall@k loses on a fixed sample of a window's queries, index loss and stale loss; None where it does not apply.

    ranks (R,): how the method answered all of the window. index loss: exact minus what the release's own index finds; stale loss:
    exact minus what the user tower of now finds among the item vectors before it. Both are shares.
    """
    if not isinstance(method, Released):
        return None, None
    which = questions.sample(PROBED)
    sample = questions.take(which)
    queries = sample.queries()
    seen = queries.histories.pairs() if questions.exclude_seen else None
    inside = np.repeat(np.isin(np.arange(len(questions)), which), np.diff(questions.start))
    exact = metrics.recall(ranks[inside], sample.start, k).mean()
    found, scores = method.found(queries, seen, k), method.stale_scores(queries)
    index_loss = None if found is None else float(exact - _recall_of(found, sample))
    if scores is None:
        return index_loss, None
    metrics.bar(scores, seen)
    stale = metrics.recall(metrics.ranks(scores, sample.start, sample.relevant), sample.start, k).mean()
    return index_loss, float(exact - stale)


def _recall_of(found: np.ndarray, asked: Questions) -> float:
    """Return the recall of lists of rows, (Q, k), 0 for nothing."""
    query = np.repeat(np.arange(len(asked)), np.diff(asked.start))
    hit = (found[query] == asked.relevant[:, None]).any(axis=1) & (asked.relevant > 0)
    return float((np.bincount(query, hit, len(asked)) / np.diff(asked.start)).mean())
