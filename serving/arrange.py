"""From a ranked list to the one that is shown: less of the same, and now and then something else. Pure functions."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

POOL = 4
"""So many times as many items as are shown are there to choose from."""


def diversified(scores: np.ndarray, vectors: np.ndarray, k: int, diversity: float) -> np.ndarray:
    """Return the places of `k` items, in the order to show them, by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    scores (C,) best first, not negative; vectors (C, d) of length 1 or 0. Each next item is the one with the most of (1 - diversity) * its
    score, as a share of the best one's, - diversity * its cosine with the most similar item that is shown already. 0 is the list as it is.
    """
    relevance = scores / max(float(scores.max(initial=0.0)), 1e-12)
    closest, left = np.zeros(len(scores)), np.ones(len(scores), bool)
    shown: list[int] = []
    while len(shown) < min(k, len(scores)):
        worth = np.where(left, (1 - diversity) * relevance - diversity * closest, -np.inf)
        place = int(np.argmax(worth))
        shown.append(place)
        left[place] = False
        closest = np.maximum(closest, vectors @ vectors[place])
    return np.array(shown, np.int64)


def explored(
    scores: np.ndarray,
    k: int,
    share: float,
    rng: np.random.Generator,
    groups: Sequence[Sequence[Hashable]] = (),
    most: Mapping[Hashable, int] = MappingProxyType({}),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fill `k` slots; return the places of the items (k,), how likely each was to come there (k,), and which were drawn (k,) bool.

    scores (C,) in the order to show them, not negative. A slot gets the first item that is not shown yet or, by chance `share`, one of
    those not shown yet, drawn as often as its score says. The propensity is that of the item in its slot, given the slots before it: what
    inverse propensity scoring divides by. groups: what each item counts towards; of each group there come as many as `most` says.
    """
    left, weight = np.ones(len(scores), bool), np.maximum(scores, 1e-12).astype(np.float64)
    shown, propensity, drawn, count = [], [], [], Counter[Hashable]()
    for _ in range(min(k, len(scores))):
        if not left.any():
            break
        chance, first = _next(weight, left)
        draw = bool(rng.random() < share)
        place = int(rng.choice(len(chance), p=chance)) if draw else first
        shown.append(place)
        propensity.append(share * chance[place] + (1 - share) * (place == first))
        drawn.append(draw and place != first)
        left[place] = False
        count.update(groups[place] if groups else ())
        full = {group for group in (groups[place] if groups else ()) if count[group] >= most[group]}
        if full:
            left &= [full.isdisjoint(group) for group in groups]
    return np.array(shown, np.int64), np.array(propensity), np.array(drawn, bool)


def propensities(scores: np.ndarray, shown: np.ndarray, share: float) -> np.ndarray:
    """Return how likely each item was to come to each slot, given the slots before it, where `explored` fills them: (k, C).

    scores (C,) as for `explored`; shown (k,): the place in scores of what stands in each slot, -1 for what is not among them. A row sums to
    1, or to 0 where nothing was left to come.
    """
    left, weight = np.ones(len(scores), bool), np.maximum(scores, 1e-12).astype(np.float64)
    found = np.zeros((len(shown), len(scores)))
    for slot, place in enumerate(shown.tolist()):
        if not left.any():
            break
        chance, first = _next(weight, left)
        found[slot] = share * chance
        found[slot, first] += 1 - share
        if place >= 0:
            left[place] = False
    return found


def _next(weight: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, int]:
    """Return how often each item is drawn where one of those that are left is, (C,), and the first of them."""
    chance = np.where(left, weight, 0.0)
    return chance / chance.sum(), int(np.argmax(left))
