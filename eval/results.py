"""What a replay found: figures per method, window and slice, with intervals, as the JSON that is written and drawn."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from eval import intervals
from eval.answers import Answers, Asked
from eval.forgetting import Matrix
from eval.metrics import METRICS
from eval.slices import kept, sub
from recsys.errors import BadInput, nearest

SLICED = ("recall", "ndcg", "mrr")
"""Figures of a slice; of these the first two with the difference to the baseline."""

CELLS = 2**25
"""Figures of single queries held at once while intervals are drawn; bounds the memory."""

Figures = dict[str, float | None]


class Results:
    """All that one replay found: what was asked in each window, and by method the answers of each seed, window by window."""

    def __init__(self, protocol: str, ks: Sequence[int]):
        self.protocol, self.ks = protocol, list(ks)
        self.windows: list[Asked] = []
        self.answers: dict[str, list[list[Answers]]] = {}

    def add(self, answers: Answers) -> None:
        """Take in the answers to one window."""
        seeds = self.answers.setdefault(answers.method, [])
        if answers.seed == len(seeds):
            seeds.append([])
        seeds[answers.seed].append(answers)

    @property
    def columns(self) -> list[str]:
        """The figures that a single query has: "recall@10", "recall@20", ..."""
        return _columns(self.ks)

    def macro(self, name: str) -> dict[str, float]:
        """Return a method's figures, each window counting the same."""
        return _mean(self.per_window(name), [1] * len(self.windows))

    def micro(self, name: str) -> dict[str, float]:
        """Return a method's figures, each query counting the same."""
        return _mean(self.per_window(name), [len(asked.owner) for asked in self.windows])

    def per_window(self, name: str) -> list[dict[str, float]]:
        """Return a method's figures in each window, the mean over its seeds."""
        seeds = [self.of_one_seed(seed) for seed in self.answers[name]]
        return [_mean(rows, [1] * len(rows)) for rows in zip(*seeds, strict=True)]

    def of_one_seed(self, answers: Sequence[Answers]) -> list[dict[str, float]]:
        """Return the figures of one seed in each window."""
        return [figures(asked, each, self.ks) for asked, each in zip(self.windows, answers, strict=True)]

    def values(self, name: str, window: int) -> np.ndarray:
        """Return the figures of every query of one window, the mean over the seeds, (Q, columns)."""
        start = self.windows[window].start
        return np.mean([_values(seed[window].ranks, start, self.ks) for seed in self.answers[name]], axis=0)


def figures(asked: Asked, answers: Answers, ks: Sequence[int]) -> dict[str, float]:
    """Return the figures of one window: the means of those that a single query has, and those of the lists."""
    return dict(zip(_columns(ks), _values(answers.ranks, asked.start, ks).mean(axis=0).tolist(), strict=True)) | answers.lists


def report(results: Results, baseline: str | None = None) -> dict[str, Any]:
    """Return the part of the results JSON that follows from the answers: ks, metrics, baseline, windows and methods.

    baseline: the method that the others are compared with, the first by default. Shares are fractions.
    """
    names = list(results.answers)
    baseline = baseline or names[0]
    if baseline not in names:
        raise BadInput(f"the baseline {baseline!r} is none of the methods; {nearest(baseline, names)}")
    found = {name: _method(results, name) for name in names}
    for name, value in _intervals(results, baseline):
        found[name] |= value
    for name, value in _slices(results, baseline).items():
        found[name]["slices"] = value
    windows = [{"window": asked.window, "begin": str(np.datetime64(asked.begin, "ms")), **asked.counts} for asked in results.windows]
    return _plain({"ks": results.ks, "metrics": list(METRICS), "baseline": baseline, "windows": windows, "methods": found})


def _method(results: Results, name: str) -> dict[str, Any]:
    seeds = results.answers[name]
    rows = results.per_window(name)
    costs = [_cost([seed[window] for seed in seeds]) for window in range(len(rows))]
    alone = [_mean(results.of_one_seed(seed), [1] * len(rows)) for seed in seeds]
    return {
        "macro": results.macro(name),
        "micro": results.micro(name),
        "windows": [{"window": asked.window, **row, **cost} for asked, row, cost in zip(results.windows, rows, costs, strict=True)],
        "seeds": {column: [one[column] for one in alone] for column in results.columns},
        "cost": _total(costs),
        "forgetting": _forgetting(results, seeds),
    }


def _cost(seeds: Sequence[Answers]) -> Figures:
    """Return what one window cost, the mean over the seeds; None where a cost does not apply."""
    rows = [asdict(answers.cost) for answers in seeds]
    return {name: None if rows[0][name] is None else float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _total(windows: Sequence[Figures]) -> Figures:
    """Return the cost of all windows: sums of seconds and examples, the highest memory, the newest release, the mean of losses."""
    series = {name: [value for row in windows if (value := row[name]) is not None] for name in windows[0]}
    total = {name: float(np.sum(series[name])) for name in ("seconds_learn", "seconds_answer", "examples")}
    losses = {name: float(np.mean(series[name])) if series[name] else None for name in ("index_loss", "stale_loss")}
    ends = {"peak_mb": max(series["peak_mb"]), "release_bytes": series["release_bytes"][-1]}
    return {**total, "seconds_learn_last": series["seconds_learn"][-1], **ends, **losses}


def _forgetting(results: Results, seeds: Sequence[Sequence[Answers]]) -> dict[str, Any] | None:
    rows = [[answers.matrix for answers in seed if answers.matrix is not None] for seed in seeds]
    if not rows[0]:
        return None
    windows = [asked.window for asked in results.windows]
    found = Matrix(f"recall@{max(results.ks)}", windows, np.mean(rows, axis=0)).as_dict()
    return found | ({"seeds": rows} if len(rows) > 1 else {})


def _intervals(results: Results, baseline: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give each method's intervals, over all windows and in each. Several methods share one drawing of resamples."""
    owners = [asked.owner for asked in results.windows]
    at_once = max(1, CELLS // (2 * len(results.columns) * sum(map(len, owners))))
    names = list(results.answers)
    for first in range(0, len(names), at_once):
        some = names[first : first + at_once]
        values = [np.stack([_beside(results, name, baseline, w) for name in some], axis=1) for w in range(len(owners))]
        means, lows, highs = intervals.paired(values, owners)  # (methods, 2, columns)
        alone = [(low[:, 0], high[:, 0]) for _, low, high in intervals.per_window([value[:, :, :1] for value in values], owners)]
        for n, name in enumerate(some):
            yield (
                name,
                {
                    "intervals": {
                        column: _interval(means[n, :, c], lows[n, :, c], highs[n, :, c], name != baseline)
                        for c, column in enumerate(results.columns)
                    },
                    "window_intervals": {
                        column: [[low[n, c], high[n, c]] for low, high in alone] for c, column in enumerate(results.columns)
                    },
                },
            )


def _beside(results: Results, name: str, baseline: str, window: int) -> np.ndarray:
    """Return the figures of every query, and how far they are ahead of the baseline's, (Q, 2, columns)."""
    values = results.values(name, window)
    return np.stack([values, values - results.values(baseline, window)], axis=1)


def _interval(value: np.ndarray, low: np.ndarray, high: np.ndarray, compared: bool) -> Figures:
    found = {"value": value[0], "low": low[0], "high": high[0]}
    return found | ({"difference": value[1], "difference_low": low[1], "difference_high": high[1]} if compared else {})


def _slices(results: Results, baseline: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return every method's figures by group and name of a slice, each query of it counting the same."""
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in results.answers}
    for group, parts in results.windows[0].slices.items():
        for part in parts:
            for name, figures in _slice(results, baseline, group, part).items():
                found[name].setdefault(group, {})[part] = figures
    return found


def _slice(results: Results, baseline: str, group: str, part: str) -> dict[str, dict[str, Any]]:
    k = max(results.ks)
    masks = [asked.slices[group][part] for asked in results.windows]
    targets = int(sum(mask.sum() for mask in masks))
    columns = [f"{name}@{k}" for name in SLICED]
    owners = [asked.owner[kept(asked.start, mask)] for asked, mask in zip(results.windows, masks, strict=True)]
    values = [np.stack([_inside(results, name, w, mask, k) for name in results.answers], axis=1) for w, mask in enumerate(masks)]
    reference = list(results.answers).index(baseline)
    ahead = [value[:, :, :2] - value[:, reference : reference + 1, :2] for value in values]
    means = np.concatenate(values).mean(axis=0) if targets else np.full((len(results.answers), len(columns)), np.nan)
    difference = np.stack(intervals.paired(ahead, owners, average="micro"), axis=-1)  # (methods, 2, [mean, low, high])
    by_window = [value[:, :, 0].mean(axis=0) if len(value) else np.full(len(results.answers), np.nan) for value in values]
    return {
        name: {
            "targets": targets,
            **dict(zip(columns, means[n], strict=True)),
            "windows": {"targets": [int(mask.sum()) for mask in masks], columns[0]: [figures[n] for figures in by_window]},
            "difference": {} if name == baseline else dict(zip(columns[:2], difference[n], strict=True)),
        }
        for n, name in enumerate(results.answers)
    }


def _inside(results: Results, name: str, window: int, mask: np.ndarray, k: int) -> np.ndarray:
    """Return the figures of the queries of a slice, the mean over the seeds, (q, len(SLICED))."""
    found = []
    for seed in results.answers[name]:
        ranks, start = sub(seed[window].ranks, results.windows[window].start, mask)
        found.append(np.column_stack([METRICS[metric](ranks, start, k) for metric in SLICED]))
    return np.mean(found, axis=0)


def _columns(ks: Sequence[int]) -> list[str]:
    return [f"{name}@{k}" for name in METRICS for k in ks]


def _values(ranks: np.ndarray, start: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    return np.column_stack([of(ranks, start, k) for of in METRICS.values() for k in ks])


def _mean(rows: Sequence[dict[str, float]], weights: Sequence[float]) -> dict[str, float]:
    """Return the weighted mean of every figure; rows in which it is nan, for there was nothing to look at, are passed over."""
    found = {}
    for figure in rows[0]:
        values = np.array([row[figure] for row in rows])
        known = ~np.isnan(values)
        found[figure] = float(np.average(values[known], weights=np.array(weights)[known])) if known.any() else np.nan
    return found


def _plain(value: Any) -> Any:
    """Return the same in what JSON knows: lists for arrays, rounded floats, None for nan."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(each) for each in value]
    if isinstance(value, (float, np.floating)):
        return None if np.isnan(value) else round(float(value), 6)
    return int(value) if isinstance(value, np.integer) else value
