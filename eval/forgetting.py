"""What updates do to what was known: every release scored on every window.

quality (R, R): release i on window j, nan where it was not asked. Release i is the one that was live while window i was
answered: it learned everything before window i, so window j is learned by release j + 1. The diagonal is what users saw; below it stand
windows that a release has learned, above it windows that were still further off. The last release is R - 1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Matrix:
    """One method's quality (R, R) by release and window; metric: what was measured, as "recall@20"; windows: their numbers, R of them."""

    metric: str
    windows: list[int]
    quality: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """Return the matrix and what follows from it as it is written to JSON, None for nan."""
        return {
            "metric": self.metric,
            "windows": self.windows,
            "matrix": [[_or_none(value) for value in row] for row in self.quality],
            "forgetting": _or_none(forgetting(self.quality)),
            "backward_transfer": _or_none(backward_transfer(self.quality)),
            "forward_transfer": _or_none(forward_transfer(self.quality)),
        }


def forgetting(quality: np.ndarray) -> float:
    """Return how much of its best the last release has lost on what was learned (Chaudhry et al. 2018); more than 0 is a loss.

    The mean over the windows j = 0 .. R - 3 of max over i = j + 1 .. R - 2 of quality[i, j], minus quality[R - 1, j]: only releases that
    had learned window j count, and the last is held against those before it. nan with fewer than three releases.
    """
    last = len(quality) - 1
    losses = []
    for window in range(last - 1):
        earlier = quality[window + 1 : last, window]
        earlier = earlier[~np.isnan(earlier)]
        if len(earlier):
            losses.append(earlier.max() - quality[last, window])
    return _mean(losses)


def backward_transfer(quality: np.ndarray) -> float:
    """Return what later updates did to each learned window (Lopez-Paz & Ranzato 2017); less than 0 is a loss.

    The mean over the windows j = 0 .. R - 3 of quality[R - 1, j] - quality[j + 1, j]: the last release against the one that had just
    learned the window. nan with fewer than three releases.
    """
    last = len(quality) - 1
    return _mean([quality[last, window] - quality[window + 1, window] for window in range(last - 1)])


def forward_transfer(quality: np.ndarray) -> float:
    """Return what updating was worth on windows not learned yet, against never having updated; more than 0 is a gain.

    The mean over the windows j = 1 .. R - 1 of quality[j, j] - quality[0, j]: the live release against the first one. As in Lopez-Paz &
    Ranzato (2017) the release has not learned the window it is scored on, but what it is compared with is the first release instead of
    an untrained one. nan with fewer than two releases.
    """
    return _mean([quality[window, window] - quality[0, window] for window in range(1, len(quality))])


def _mean(values: list[Any]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else np.nan


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
