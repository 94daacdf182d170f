"""Three experts in one answer: the towers, the neighbours and what is popular, mixed as probabilities. No torch here.

A mixture with weights (Jacobs et al., 1991) of a trained model and an instance memory, as in kNN language models (Khandelwal et al., ICLR
2020). The weights depend on how much is known of a person, and are chosen at every update by how well the release that was live would have
foretold the events that came in since.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recsys.errors import ReleaseDamaged
from recsys.files import write_atomically

FILE = "fusion.json"
LENGTHS = np.array([2, 3, 6, 11, 26])
"""Histories of 1, 2, 3 to 5, 6 to 10, 11 to 25, and more events have weights of their own."""

TRIED = np.array([(a, b) for a in range(6) for b in range(6 - a)]) / 5
"""The weights that are tried, of neighbours and of popularity; the towers have what is left of 1."""

BEST = 100
"""The towers' probabilities are taken among their best hundred: what an index can answer."""

FRESH = 7 * 86_400_000
"""So long after its first event an item is new, in ms."""

SPAN = 16
"""How many values of a long row are passed over together."""

Votes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Query, item row and vote, (V,) each, sorted by query."""


@dataclass(frozen=True)
class Fusion:
    """How much the neighbours' word and popularity count, by the length of the history.

    weights (6, 2): see LENGTHS; quality (6, 21): ndcg@20 under each of TRIED, a fading sum over the updates so far, and of how many
    questions, (6,).
    """

    weights: np.ndarray
    quality: np.ndarray
    asked: np.ndarray

    @classmethod
    def start(cls, neighbours: float, popular: float) -> "Fusion":
        """Return the same weights for every length: nothing was measured yet."""
        n = len(LENGTHS) + 1
        return cls(np.tile([neighbours, popular], (n, 1)), np.zeros((n, len(TRIED))), np.zeros(n))

    def of(self, length: np.ndarray | int) -> np.ndarray:
        """Return the weights for histories of some lengths, (B,) -> (B, 2), or of one, -> (2,)."""
        return self.weights[bucket(length)]

    def write(self, folder: Path) -> None:
        """Write the weights, and what they were chosen by, into a release's folder."""
        write_atomically(folder / FILE, json.dumps({name: np.round(value, 6).tolist() for name, value in vars(self).items()}))

    @classmethod
    def read(cls, folder: Path) -> "Fusion":
        """Read what `write` wrote; raise ReleaseDamaged where that is something else."""
        n = len(LENGTHS) + 1
        try:
            about = json.loads((folder / FILE).read_text())
            found = cls(*(np.array(about[name], np.float64) for name in ("weights", "quality", "asked")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReleaseDamaged(f"{folder / FILE} cannot be read ({error}); roll back with: recsys rollback") from None
        if (found.weights.shape, found.quality.shape, found.asked.shape) != ((n, 2), (n, len(TRIED)), (n,)):
            raise ReleaseDamaged(f"{folder / FILE} holds no weights for {n} lengths of history; roll back with: recsys rollback")
        return found


def bucket(length: np.ndarray | int) -> np.ndarray:
    """Return which weights hold for a history of some length, (B,) -> (B,) from 0, or one."""
    return np.searchsorted(LENGTHS, length, side="right")


def log_total(logits: np.ndarray) -> np.ndarray:
    """Return the log of what a softmax divides by, over the best hundred of each row: (B, n) -> (B, 1)."""
    best = logits if logits.shape[1] <= BEST else largest(logits, BEST)
    highest = np.maximum(best.max(axis=1, keepdims=True), -1e30)  # where everything is hidden
    return highest + np.log(np.maximum(np.exp(best - highest).sum(axis=1, keepdims=True), 1e-30))


def largest(values: np.ndarray, k: int) -> np.ndarray:
    """Return the `k` largest values of each row in any order: (B, n) -> (B, k), k <= n.

    In long rows only the `k` spans with the highest tops are looked into: the others hold none of them that these do not hold as well.
    """
    columns = values.shape[1] // SPAN
    if columns > k:
        spans = values[:, : columns * SPAN].reshape(len(values), SPAN, columns)
        promising = np.argpartition(spans.max(axis=1), columns - k, axis=1)[:, None, columns - k :]
        inside = np.take_along_axis(spans, promising, axis=2).reshape(len(values), -1)
        values = np.concatenate([inside, values[:, columns * SPAN :]], axis=1)
    found: np.ndarray = np.partition(values, values.shape[1] - k, axis=1)[:, values.shape[1] - k :]
    return found


def shares_of(vote: np.ndarray, query: np.ndarray, n: int) -> np.ndarray:
    """Return each vote as a share of its query's, (V,)."""
    return vote / np.maximum(np.bincount(query, vote, n), 1e-12)[query]


def expected(logits: np.ndarray) -> np.ndarray:
    """Return how likely the towers hold each item to be, (B, n) logits -> (B, n), 0 for what cannot be recommended; in their place."""
    logits -= log_total(logits)
    return np.exp(logits, out=logits)


def lifts(first: np.ndarray, now: int, fresh: float) -> np.ndarray:
    """Return what each item's score is multiplied by: `fresh` where its first event, in ms and 0 for none, is a week old at most, (n,)."""
    return np.where((first > 0) & (first >= now - FRESH), fresh, 1.0).astype(np.float32)


def mix(logits: np.ndarray, votes: Votes, popular: np.ndarray, weights: np.ndarray, again: Votes | None = None) -> np.ndarray:
    """Return what the three expect together, over the whole catalogue.

    logits (B, n), -inf for what cannot be recommended, stays so; they are written to. popular (n,): each item's share of what is
    watched; weights (B, 2) of votes and popularity. Where nobody votes the towers and popularity have the word. again: query (R,), item
    (R,) and factor (R,) of what somebody had already (see recsys.again).
    """
    query, item, vote = votes
    out = np.isneginf(logits)
    mixed = _mixed(expected(logits), (query, item, shares_of(vote, query, len(logits))), popular.astype(np.float32), weights, again)
    np.copyto(mixed, -np.inf, where=out)
    return mixed


def _mixed(towers: np.ndarray, shares: Votes, popular: np.ndarray, weights: np.ndarray, again: Votes | None) -> np.ndarray:
    """Weigh probabilities: towers (B, n), which are written to, shares of votes, popular (n,) float32; again as in `mix`, and so are
    weights, (B, 2), or (1, 2) for all.
    """
    query, item, share = shares
    weights = weights.astype(np.float32)
    towers *= 1 - weights.sum(axis=1, keepdims=True)
    towers += weights[:, 1:] * popular
    towers[query, item] += np.broadcast_to(weights[:, 0], len(towers))[query] * share
    if again is not None:
        towers[again[0], again[1]] *= again[2].astype(np.float32)
    return towers


def without(votes: Votes, query: np.ndarray, item: np.ndarray, n_items: int) -> Votes:
    """Leave out votes for what may not be recommended: pairs query (P,), item (P,)."""
    kept = ~np.isin(votes[0] * n_items + votes[1], query * n_items + item)
    return votes[0][kept], votes[1][kept], votes[2][kept]


def learned(
    before: Fusion,
    logits: np.ndarray,
    votes: Votes,
    popular: np.ndarray,
    length: np.ndarray,
    target: np.ndarray,
    again: Votes | None = None,
    fading: float = 0.7,
) -> Fusion:
    """Return weights half way to those under which questions would have been answered best: one week is not like the next.

    logits (Q, n), votes, popular and again as for `mix`, target (Q,), length (Q,) of the histories. What was measured before counts
    `fading` times as much as what is new; a length that was never asked keeps its weights.
    """
    gains = [
        _gains(logits[part], part_of(votes, part), popular, target[part], again and part_of(again, part)) for part in blocks(len(target))
    ]
    quality = np.zeros_like(before.quality)
    np.add.at(quality, bucket(length), np.concatenate(gains))
    quality += fading * before.quality
    asked = np.bincount(bucket(length), minlength=len(quality)) + fading * before.asked
    told = quality.max(axis=1) > quality.min(axis=1)  # nothing is where nobody was asked, in vain, or all does as well
    best = np.where(told[:, None], TRIED[quality.argmax(axis=1)], before.weights)
    return Fusion((before.weights + best) / 2, quality, asked)


def blocks(n: int, size: int = 32) -> list[slice]:
    """Cut so many questions into parts that the caches can hold."""
    return [slice(first, min(n, first + size)) for first in range(0, n, size)]


def part_of(votes: Votes, part: slice) -> Votes:
    """Return what belongs to some questions, numbered from 0."""
    low, high = np.searchsorted(votes[0], [part.start, part.stop])
    return votes[0][low:high] - part.start, votes[1][low:high], votes[2][low:high]


def _gains(logits: np.ndarray, votes: Votes, popular: np.ndarray, target: np.ndarray, again: Votes | None) -> np.ndarray:
    """Return the ndcg@20 of some questions under each of TRIED, (B, 21), ties against us."""
    query, item, vote = votes
    out, towers = np.nonzero(np.isneginf(logits)), expected(logits.copy())
    shares, popular = (query, item, shares_of(vote, query, len(logits))), popular.astype(np.float32)
    gains = np.zeros((len(logits), len(TRIED)))
    for number, weights in enumerate(TRIED):
        scores = _mixed(towers.copy(), shares, popular, weights[None], again)
        scores[out] = -np.inf
        gains[:, number] = gains_of(scores, target, least=0.0)
    return gains


def gains_of(scores: np.ndarray, target: np.ndarray, least: float = -np.inf) -> np.ndarray:
    """Return the ndcg@20 of some questions, (B,), ties against us: scores (B, n), target (B,); 0 for a target that scores `least`."""
    own = scores[np.arange(len(scores)), target]
    rank = np.count_nonzero(scores >= own[:, None], axis=1)
    return np.where((rank <= 20) & (own > least), 1 / np.log2(1 + rank), 0.0)
