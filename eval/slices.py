"""Parts of what is asked: by item, by person, by target, by length of history, by popularity."""

import numpy as np

from eval.timeline import Questions

HISTORY = {"0": (0, 0), "1": (1, 1), "2-3": (2, 3), "4-7": (4, 7), "8-15": (8, 15), "16-31": (16, 31), "32+": (32, np.inf)}
"""How many known events a history holds, by name of the slice: from, to."""


def slices(questions: Questions, first_new_row: int, count: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Return which wanted items belong to each slice, {group: {name: (R,) bool}}; the slices of a group share out all of them.

    count (n_items,): positive events per row before the window. Every name is there, also where its mask is empty.
    item: unseen (never learned), new (first met in the window before: rows from first_new_row on), old. user: new when nothing is known of
    the owner before the window began. target: repeat when the owner met the item before; of an item never learned that cannot be known, it
    is novel. history: how many known events the owner did before. popularity: see `deciles`; "none" for an item never learned.
    """
    row, query = questions.relevant, np.repeat(np.arange(len(questions)), np.diff(questions.start))
    unseen, new = row == 0, row >= first_new_row
    before, met = _known_before(questions), _met(questions, query)
    stranger = _known_before(questions, questions.begin) == 0
    decile = deciles(count)[row]
    return {
        "item": {"unseen": unseen, "new": new & ~unseen, "old": ~new & ~unseen},
        "user": {"new": stranger[query], "old": ~stranger[query]},
        "target": {"repeat": met, "novel": ~met},
        "history": {name: ((low <= before) & (before <= high))[query] for name, (low, high) in HISTORY.items()},
        "popularity": {**{str(which): decile == which for which in range(1, 11)}, "none": unseen},
    }


def deciles(count: np.ndarray) -> np.ndarray:
    """Return the popularity decile of every row, (n_items,) int64: 1 for the most popular tenth of the learned items, 0 for row 0.

    Items of one count share a decile, the better one, so in a long tail some deciles stay empty.
    """
    learned = np.sort(count[1:])
    more_popular = len(learned) - np.searchsorted(learned, count, side="right")
    decile = 1 + 10 * more_popular // max(1, len(learned))
    decile[0] = 0
    return decile


def kept(start: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Say which queries keep a wanted item: start (Q + 1,), mask (R,) -> (Q,) bool."""
    return np.diff(_inside(start, mask)) > 0


def sub(ranks: np.ndarray, start: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep the masked wanted items and drop the queries left with none: (R,), (Q + 1,), (R,) -> ranks (r,), start (q + 1,)."""
    inside = _inside(start, mask)
    return ranks[mask], np.append(inside[:-1][np.diff(inside) > 0], inside[-1])


def _inside(start: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(mask)])[start]


def _known_before(questions: Questions, moment: int | None = None) -> np.ndarray:
    """Return how many known events each query's owner did before it, or before a moment in ms, (Q,)."""
    sessions, at = questions.sessions, questions.at
    counts = sessions.item > 0
    if moment is not None:
        counts &= sessions.time < moment
    known = np.concatenate([[0], np.cumsum(counts)])
    return known[at] - known[sessions.start[questions.owner]]


def _met(questions: Questions, query: np.ndarray) -> np.ndarray:
    """Say which wanted items their owner met before the query, (R,) bool."""
    sessions, row = questions.sessions, questions.relevant
    key = sessions.owner * questions.n_items + sessions.item
    pairs, first = np.unique(key, return_index=True)  # the first meeting of each owner and item
    asked = questions.owner[query] * questions.n_items + row
    found = np.minimum(np.searchsorted(pairs, asked), max(0, len(pairs) - 1))
    if not len(pairs):
        return np.zeros(len(row), bool)
    return (pairs[found] == asked) & (first[found] < questions.at[query]) & (row > 0)
