"""How sure a mean over queries is: a bootstrap over people, for one method or for the difference between two."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

CELLS = 2**22
"""Resampled owners drawn at once; bounds the memory, whatever the number of queries."""

Interval = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Mean, low and high end, each of the shape of one query: () or (M,)."""


def paired(
    differences: Sequence[np.ndarray],
    owners: Sequence[np.ndarray],
    resamples: int = 1000,
    seed: int = 0,
    average: Literal["macro", "micro"] = "macro",
    level: float = 0.95,
) -> Interval:
    """Return the mean of `differences` and the ends of its percentile bootstrap interval.

    differences: per window (Q_w,) or (Q_w, M), one method minus another on the same queries, or the values of one method alone;
    owners: per window (Q_w,) whose query it is. In each window whole owners are drawn with replacement, because the queries of one
    person are alike (Field & Welsh 2007). The draws depend on `owners` and `seed` alone: all methods, metrics and calls share them.
    macro: each window counts the same; micro: each query does. A window without queries is left out. With fewer than two owners
    there is nothing to draw from and both ends are nan; without any query the mean is, too.
    """
    if average not in ("macro", "micro"):
        raise ValueError(f"average is 'macro' (each window counts the same) or 'micro' (each query does), not {average!r}")
    asked = [(number, *pair) for number, pair in enumerate(zip(differences, owners, strict=True)) if len(pair[0])]
    shape = np.shape(differences[0])[1:] if differences else ()
    mean, drawn, people = np.zeros(shape), np.zeros((resamples, *shape)), 0
    queries, drawn_queries = 0.0, np.zeros((resamples, *(1 for _ in shape)))
    for number, values, whose in asked:
        total, count, drawn_total, drawn_count = _window(values, whose, resamples, np.random.default_rng([seed, number]))
        people = max(people, len(np.unique(whose)))
        scale, drawn_scale = (count, drawn_count) if average == "macro" else (1.0, np.ones_like(drawn_count))
        mean, drawn = mean + total / scale, drawn + drawn_total / drawn_scale
        queries, drawn_queries = queries + count / scale, drawn_queries + drawn_count / drawn_scale
    if not asked:
        return np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
    return mean / queries, *_ends(drawn / drawn_queries, people, level)


def per_window(
    values: Sequence[np.ndarray], owners: Sequence[np.ndarray], resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> list[Interval]:
    """Return the mean and interval of every window by itself; shapes as for `paired`, nan for a window without queries."""
    found = []
    for number, (inside, whose) in enumerate(zip(values, owners, strict=True)):
        if not len(inside):
            found.append((np.full(np.shape(inside)[1:], np.nan),) * 3)
            continue
        total, count, drawn, drawn_count = _window(inside, whose, resamples, np.random.default_rng([seed, number]))
        found.append((total / count, *_ends(drawn / drawn_count, len(np.unique(whose)), level)))
    return found


def _window(
    values: np.ndarray, owners: np.ndarray, resamples: int, rng: np.random.Generator
) -> tuple[np.ndarray, int, np.ndarray, np.ndarray]:
    """Return the sum over the queries, their number, and both in each resample: (M,), Q, (S, M), (S, 1)."""
    values = np.asarray(values, np.float64)
    _, owner = np.unique(owners, return_inverse=True)
    people = int(owner.max()) + 1
    columns = np.column_stack([np.ones(len(values)), values.reshape(len(values), -1)])  # the first counts the queries
    sums = np.column_stack([np.bincount(owner, column, people) for column in columns.T])
    drawn = np.concatenate([weights @ sums for weights in _weights(people, resamples, rng)])
    shape = values.shape[1:]
    count = drawn[:, 0].reshape(resamples, *(1 for _ in shape))
    return sums[:, 1:].sum(axis=0).reshape(shape), len(values), drawn[:, 1:].reshape(resamples, *shape), count


def _weights(people: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Give how often each owner is drawn in each resample, (S, people) in blocks; every row sums to `people`."""
    size = max(1, CELLS // people)
    for first in range(0, resamples, size):
        block = min(size, resamples - first)
        drawn = rng.integers(0, people, (block, people)) + np.arange(block)[:, None] * people
        yield np.bincount(drawn.ravel(), minlength=block * people).reshape(block, people).astype(np.float64)


def _ends(drawn: np.ndarray, people: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    if people < 2:
        return np.full(drawn.shape[1:], np.nan), np.full(drawn.shape[1:], np.nan)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
