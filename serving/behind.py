"""When a release on trial is surely behind: a comparison that may be looked at again and again."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from recsys.trial import BUCKETS
from serving.online import Outcome

SURE = 0.01
"""How often, at most, a release that is as good is taken to be behind, over all looks together."""

FEW = 200
"""By fewer outcomes of either side nothing is concluded, nor by those of fewer than GROUPS groups of people."""

GROUPS = 10

EXPECTED = 0.05
"""Differences of hit rates that are looked for are about so large: the mixture's standard deviation."""


@dataclass(frozen=True)
class Comparison:
    """hits of how many outcomes (n) the release on trial and the live one have; p: how well the difference goes with there being none."""

    hits: int
    n: int
    hits_live: int
    n_live: int
    p: float

    @property
    def behind(self) -> bool:
        """Whether the release on trial is surely behind."""
        return self.p < SURE and self.hits * self.n_live < self.hits_live * self.n

    def __str__(self) -> str:
        mine, its = (f"{hits / n:.3f} of {n:,}" if n else "nothing yet" for hits, n in ((self.hits, self.n), (self.hits_live, self.n_live)))
        return f"hit rate {mine}, of the live release {its} (p = {self.p:.3g})"


class Tally:
    """Hits and outcomes of a variant, "canary" or "shadow", and of "live", by group of people."""

    def __init__(self, variant: str):
        self.told = {name: np.zeros((2, BUCKETS)) for name in (variant, "live")}
        self.variant = variant

    def add(self, outcomes: Iterable[Outcome]) -> "Tally":
        """Count some more."""
        for outcome in outcomes:
            if outcome.variant in self.told:
                self.told[outcome.variant][:, outcome.bucket] += outcome.rank > 0, 1
        return self

    def comparison(self) -> Comparison:
        """Return how the two compare so far."""
        return compared(self.told[self.variant], self.told["live"])


def compared(mine: np.ndarray, live: np.ndarray) -> Comparison:
    """Compare two releases by their hits and outcomes, by group of people, (2, groups) each.

    What one person does is alike, so people are taken in groups (their buckets), and the variance of each hit rate is that of a ratio over
    groups. p is always valid (mixture sequential probability ratio test: Johari, Pekelis and Walsh, 2015, section 5): it may be asked after
    each outcome and still is below SURE for an equal release with a chance of SURE at most.
    """
    (rate, spread), (rate_live, spread_live) = _rate(*mine), _rate(*live)
    hits, n, hits_live, n_live = (int(row.sum()) for side in (mine, live) for row in side)
    variance = spread + spread_live
    if min(n, n_live) < FEW or not 0 < variance < np.inf:
        return Comparison(hits, n, hits_live, n_live, 1.0)
    mixture = EXPECTED**2
    logarithm = 0.5 * np.log(variance / (variance + mixture)) + (rate - rate_live) ** 2 * mixture / (2 * variance * (variance + mixture))
    return Comparison(hits, n, hits_live, n_live, float(min(1.0, np.exp(-logarithm))))


def _rate(hits: np.ndarray, n: np.ndarray) -> tuple[float, float]:
    """Return a hit rate and its variance, from the hits and outcomes of groups of people, (BUCKETS,)."""
    groups = n > 0
    if groups.sum() < GROUPS:
        return 0.0, np.inf
    rate = hits.sum() / n.sum()
    off = hits[groups] - rate * n[groups]
    count = groups.sum()
    likely = (hits.sum() + 1) / (n.sum() + 2)
    alone = likely * (1 - likely) / n.sum()  # if all were different people; groups that happen to be alike must not make it surer than that
    return float(rate), float(max(alone, (off**2).sum() * count / (count - 1) / n.sum() ** 2))
