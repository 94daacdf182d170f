"""What a replay found: figures per method and window, as JSON and as a table."""

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from eval import metrics
from recsys.files import write_atomically

PER_QUERY: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {"recall": metrics.recall, "ndcg": metrics.ndcg, "mrr": metrics.mrr}


@dataclass(frozen=True)
class Answers:
    """How one method answered one window.

    ranks (Q,) in the order asked; coverage by k; seconds to learn what came before the window, and to answer it.
    """

    window: int
    ranks: np.ndarray
    coverage: dict[int, float]
    learn_seconds: float
    answer_seconds: float

    def figures(self) -> dict[str, float]:
        """Return {"recall@20": 0.51, ...}."""
        quality = {f"{name}@{k}": float(of(self.ranks, k).mean()) for name, of in PER_QUERY.items() for k in self.coverage}
        return {
            **quality,
            **{f"coverage@{k}": share for k, share in self.coverage.items()},
            "seconds": self.learn_seconds + self.answer_seconds,
            "seconds_learn": self.learn_seconds,
            "seconds_answer": self.answer_seconds,
        }


@dataclass
class Results:
    """All that one run of the evaluator found. windows: what was asked in each; settings: what is needed to run it again."""

    protocol: str
    settings: dict[str, Any]
    windows: list[dict[str, Any]] = field(default_factory=list)
    methods: dict[str, list[Answers]] = field(default_factory=dict)

    def mean(self, name: str) -> dict[str, float]:
        """Return the mean over the windows of every figure of a method, each window counting the same."""
        rows = [answers.figures() for answers in self.methods[name]]
        return {figure: float(np.mean([row[figure] for row in rows])) for figure in rows[0]} if rows else {}

    def as_dict(self) -> dict[str, Any]:
        """Return the results as they are written; shares are fractions, not per cent."""
        return {
            "protocol": self.protocol,
            "settings": self.settings,
            "versions": {
                "python": platform.python_version(),
                **{name: _version(name) for name in ("recsys", "torch", "implicit", "numpy")},
            },
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "windows": self.windows,
            "methods": {
                name: {
                    "mean": _rounded(self.mean(name)),
                    "windows": [{"window": answers.window, **_rounded(answers.figures())} for answers in rows],
                }
                for name, rows in self.methods.items()
            },
        }

    def write(self, path: Path) -> None:
        """Write the results as JSON, all or nothing."""
        write_atomically(path, json.dumps(self.as_dict(), indent=1) + "\n")

    def table(self) -> Table:
        """Return the means as a table for the terminal, quality in per cent; the best of each column is bold.

        Of several lengths of list only the longest is shown, for a terminal is narrow; the JSON has all.
        """
        targets = sum(window["targets"] for window in self.windows)
        table = Table(title=f"{self.protocol}: mean of {len(self.windows)} windows, {targets:,} targets, quality in %")
        means = {name: self.mean(name) for name in self.methods}
        quality = [figure for figure in next(iter(means.values()), {}) if figure.endswith(f"@{max(self.settings['ks'])}")]
        for heading in ("method", *quality, "learn s", "answer s"):
            table.add_column(heading, justify="left" if heading == "method" else "right")
        best = {figure: max(mean[figure] for mean in means.values()) for figure in quality}
        for name, mean in means.items():
            cells = [f"[bold]{100 * mean[f]:.2f}[/]" if mean[f] == best[f] else f"{100 * mean[f]:.2f}" for f in quality]
            table.add_row(name, *cells, f"{mean['seconds_learn']:.1f}", f"{mean['seconds_answer']:.1f}")
        return table


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in figures.items()}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
