"""What somebody said no to: its near copies are hidden, and what is like it is pushed away. No torch here.

From the first dislike on, as negative feedback is in relevance feedback (Rocchio, 1971). What the user tower makes of a dislike is learned,
and only where a log has had enough of them.
"""

import numpy as np

from recsys.events import CODE, IS_POSITIVE
from recsys.sessions import Histories, Pairs

COPY = 0.95
"""Items whose vectors have this cosine or more are near copies of each other."""

PUSH = 2.0
"""The score of an item is multiplied by exp(-PUSH * cosine) for the disliked item that it is most like."""

ENOUGH = 1000
"""Events of a kind that the towers must have learned from before a dislike or skip is read by them: to others it is one more view."""


def disliked(past: Histories) -> Pairs:
    """Return whose newest word about which item is a dislike, each pair once."""
    query, _ = past.pairs()
    order = np.lexsort((np.arange(len(query)), past.item, query))
    another = (np.diff(query[order]) != 0) | (np.diff(past.item[order]) != 0)
    newest = order[np.append(another, True)[: len(order)]]
    newest = newest[(past.kind[newest] == CODE["dislike"]) & (past.item[newest] > 0)]
    return query[newest], past.item[newest]


def factors(vectors: np.ndarray, refused: np.ndarray) -> np.ndarray:
    """Return what the scores of items are multiplied by for somebody who dislikes others, 0 for near copies of those.

    vectors (C, d) of the items, refused (R, d) of what is disliked, R > 0; all of them unit vectors or zeros -> (C,).
    """
    closest = (vectors @ refused.T).max(axis=1)
    return np.where(closest >= COPY, 0.0, np.exp(-PUSH * np.maximum(closest, 0.0))).astype(np.float32)


def readable(past: Histories, learned: np.ndarray) -> Histories:
    """Return what the user tower reads of histories: a dislike or skip only where it has learned what one is.

    learned (kinds,): how many events of each type the towers have learned from.
    """
    return past.where((IS_POSITIVE | (learned >= ENOUGH))[past.kind])
