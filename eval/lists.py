"""What the lists are like, whoever wanted what: coverage, concentration, novelty, diversity.

Everywhere `shown` (Q, K) holds vocabulary rows, 0 for an empty place; `n_items` counts the rows, the unknown row 0 with them, as in
`Questions`. A figure that has nothing to look at is nan.
"""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from eval.timeline import Catalogue, Questions
from recsys import content

SAMPLE = 500
"""Lists whose diversity is worked out."""

BUCKETS = 2**20
"""Hashed content features; many, so that two of them hardly ever meet."""


def coverage(shown: np.ndarray, n_items: int) -> float:
    """Return the share of the catalogue that stood in at least one list."""
    return float((_exposure(shown, n_items) > 0).mean()) if n_items > 1 else np.nan


def gini(shown: np.ndarray, n_items: int) -> float:
    """Return how unequally the items are shown: 0 when all alike, 1 when it is always one item (Shani & Gunawardana 2011)."""
    times = np.sort(_exposure(shown, n_items))
    n, total = len(times), times.sum()
    if not total:
        return np.nan
    return float((2 * np.arange(1, n + 1) - n - 1) @ times / ((n - 1) * total)) if n > 1 else 0.0


def share(count: np.ndarray) -> np.ndarray:
    """Return each row's share of the events, smoothed by one event more for each, (n_items,) -> (n_items,); row 0 has none.

    So the novelty of an item that was never seen is high but finite.
    """
    smoothed = count[1:] + 1.0
    return np.concatenate([[0.0], smoothed / smoothed.sum()])


def novelty(shown: np.ndarray, share: np.ndarray) -> float:
    """Return the mean self-information of what is shown in bits, -log2 of its share (n_items,) of the events (Zhou et al. 2010)."""
    rows = shown[shown > 0]
    return float(-np.log2(share[rows]).mean()) if len(rows) else np.nan


def intra_list_diversity(shown: np.ndarray, items: sparse.csr_matrix) -> float:
    """Return the mean over lists of 1 - the mean cosine of two of their items (Ziegler et al. 2005), items (n_items, F).

    At most `SAMPLE` lists are looked at, always the same ones. An item without features says nothing and is left out, and so is a
    list with fewer than two others.
    """
    if len(shown) > SAMPLE:
        shown = shown[np.sort(np.random.default_rng(0).choice(len(shown), SAMPLE, replace=False))]
    squares = np.asarray(items.multiply(items).sum(axis=1)).ravel()
    usable = (shown > 0) & (squares[shown] > 0)
    length = usable.sum(axis=1)
    rows, lists = shown[usable], np.repeat(np.arange(len(shown)), length)
    scale = sparse.csr_matrix((1 / np.sqrt(squares[rows]), (lists, np.arange(len(rows)))), shape=(len(shown), len(rows)))
    sums = scale @ items[rows]
    norms = np.asarray(sums.multiply(sums).sum(axis=1)).ravel()  # = length + 2 * the sum of the cosines of all pairs
    long = length > 1
    cosine = (norms[long] - length[long]) / (length[long] * (length[long] - 1))
    return float(np.mean(1 - cosine)) if len(cosine) else np.nan


def features(questions: Questions, ids: Sequence[str], catalogue: Catalogue) -> sparse.csr_matrix:
    """Return what the learned items are by row, (n_items, F), for `intra_list_diversity`; ids: by row, row 0 first.

    Their content where the catalogue describes at least half of them, else which timelines held them before the window began.
    """
    described = [content.features(catalogue[id], BUCKETS) if id in catalogue else [] for id in ids[1 : questions.n_items]]
    if 2 * sum(map(bool, described)) >= len(described) > 0:
        lengths = [0, *map(len, described)]
        columns = np.fromiter((bucket for item in described for bucket in item), np.int64, sum(lengths))
        start = np.concatenate([[0], np.cumsum(lengths)])
        return sparse.csr_matrix((np.ones(len(columns)), columns, start), shape=(questions.n_items, BUCKETS))
    sessions = questions.sessions
    past = (sessions.time < questions.begin) & (sessions.item > 0)
    cells = sparse.coo_matrix(
        (np.ones(int(past.sum())), (sessions.item[past], sessions.owner[past])), shape=(questions.n_items, len(sessions.owners))
    )
    held = cells.tocsr()  # adds up what stands in one cell
    held.data[:] = 1.0
    return held


def _exposure(shown: np.ndarray, n_items: int) -> np.ndarray:
    """Return how often each item is shown, (n_items - 1,) without row 0."""
    return np.bincount(shown.ravel(), minlength=n_items)[1:]
