"""What another policy would have earned on actions that were drawn with known chances: pure functions.

Each of N samples is one action: its reward (N,), how likely it was where it was drawn, logged (N,), and how likely the other policy makes
it there, target (N,); owner (N,): whose it is. A reward has any unit, an estimate has the same: the mean reward of an action of the target.
An estimate is right in the mean where the target does nothing that the logging policy could not (see `lost`).
"""

from dataclasses import dataclass

import numpy as np

from eval.intervals import Interval, paired

FEW = 100
"""Samples that count like fewer than this say little: their bootstrap does not know what it has not seen."""

LOST = 0.01
"""A share of what the target does that is out of reach is worth a word from here on."""


@dataclass(frozen=True)
class Estimate:
    """A mean reward, the ends of its 95% interval, and what each sample adds to it: value is the mean of terms (N,)."""

    value: float
    low: float
    high: float
    terms: np.ndarray

    def as_dict(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


def weights(target: np.ndarray, logged: np.ndarray, clip: float = np.inf) -> np.ndarray:
    """Return how many times as often the target does what was done, (N,), at most `clip`.

    Cut off, a weight has less variance and some bias (Ionides, J. Comput. Graph. Stat. 2008, who cuts at the root of N; Strehl et al., NIPS
    2010, bound the chances from below instead).
    """
    if not (logged > 0).all():
        worst = int(np.argmin(logged))
        raise ValueError(f"logged chances are above 0, for what was drawn could be drawn; sample {worst} has {logged[worst]:g}")
    if not clip > 0:
        raise ValueError(f"clip is the largest weight, above 0 (np.inf for no limit); got {clip:g}")
    found: np.ndarray = np.minimum(target / logged, clip)
    return found


def as_shown(reward: np.ndarray, owner: np.ndarray) -> Estimate:
    """Return the mean reward of the logging policy: what was earned, not what another would have."""
    return _mean(np.asarray(reward, np.float64), owner)


def ips(reward: np.ndarray, weight: np.ndarray, owner: np.ndarray) -> Estimate:
    """Inverse propensity scoring: the mean of weight * reward (Horvitz & Thompson, JASA 1952; Strehl et al., NIPS 2010).

    Without bias where no weight was cut. It moves when a constant is added to every reward, unless the weights are 1 in the mean.
    """
    return _mean(weight * reward, owner)


def snips(reward: np.ndarray, weight: np.ndarray, owner: np.ndarray) -> Estimate:
    """The self-normalised one: sum of weight * reward over the sum of weights (Swaminathan & Joachims, NIPS 2015, section 4).

    A constant added to every reward comes out again, and it never leaves the range of the rewards; its bias goes with 1 / N. Its terms are
    those of the ratio made linear (the delta method: Owen, Monte Carlo theory, 2013, section 9.2), so that its interval is a bootstrap of a
    mean, too. nan where all weights are 0.
    """
    total = weight.sum()
    value = (weight * reward).sum() / total if total > 0 else np.nan
    share = weight / weight.mean() if total > 0 else weight
    return _mean(value + share * (reward - value), owner)


def doubly_robust(reward: np.ndarray, weight: np.ndarray, expected: np.ndarray, foretold: np.ndarray, owner: np.ndarray) -> Estimate:
    """What a model of the rewards expects, put right by what it missed: the mean of expected + weight * (reward - foretold).

    expected (N,): the model's reward of the target's action in the mean, foretold (N,): of the action that was done. Right in the mean
    where the chances are right or the model is, and with a good model of less variance than ips (Dudík, Langford & Li, ICML 2011, eq. 3).
    """
    return _mean(expected + weight * (reward - foretold), owner)


def ahead(one: Estimate, other: Estimate, owner: np.ndarray) -> Estimate:
    """Return by how much one target earns more than another on the same samples, the same people drawn for both."""
    return _mean(one.terms - other.terms, owner)


def effective(weight: np.ndarray) -> float:
    """Return how many samples of the target's own these are worth: (sum of weights)^2 / sum of squares (Kish, Survey sampling, 1965)."""
    squares = float((weight**2).sum())
    return float(weight.sum()) ** 2 / squares if squares else 0.0


def lost(target: np.ndarray, logged: np.ndarray, clip: float = np.inf) -> np.ndarray:
    """Return which share of what the target does no weight up to `clip` makes up for, (N,): that the logging policy never or hardly does.

    target and logged (N, A): the chances of all actions. It is 1 - the mean of the weights that could have come, so where rewards lie
    between 0 and 1 the truth lies between what ips is in the mean and so much more.
    """
    reach = np.where(logged > 0, np.minimum(target, clip * np.where(logged > 0, logged, 1.0)), 0.0)
    return target.sum(axis=1) - reach.sum(axis=1)


def doubts(weight: np.ndarray, lost: np.ndarray) -> list[str]:
    """Say in words why an estimate may be worth little; nothing where all is well. weight (N,) as used, lost (N,) as above."""
    worth, out, said = effective(weight), float(lost.mean()), list[str]()
    if worth < FEW:
        said.append(f"{len(weight):,} samples count like {worth:,.0f}: what it would do was hardly ever done, the intervals are too narrow")
    if out > LOST:
        said.append(
            f"{out:.1%} of what it would do was never or hardly ever to come: ips counts that as earning nothing, snips as earning what "
            "the rest does, doubly robust what its model says"
        )
    return said


def _mean(terms: np.ndarray, owner: np.ndarray) -> Estimate:
    interval: Interval = paired([terms], [owner])
    value, low, high = (float(end) for end in interval)
    return Estimate(value, low, high, terms)
