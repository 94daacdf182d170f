"""Why an item is in somebody's list, and why another is not."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from recsys import events
from serving.history import Event, History
from serving.shelf import Filters
from serving.snapshot import NEGATIVE, READ, Ask, Snapshot

REASONS = 10
"""Newest watched items that are asked what they say for a recommendation."""

RANKED = 500
"""So far a place is looked for that is not among those shown."""


def because(
    snapshot: Snapshot, history: Iterable[Event] | History, items: Sequence[dict[str, Any]], **wish: Any
) -> list[list[dict[str, Any]]]:
    """Return for each recommended item which of the newest watched ones speak for it, at most two, the one that says most first.

    wish: what `recommend` was asked beside. Each is asked what it says by leaving it out of the history and scoring again: `share` of
    the score goes with it. What lowers nothing is not named, so an item that is shown to everybody has no reason.
    """
    rows = snapshot.vocab.rows(item["item_id"] for item in items)
    history = History.of(history)
    told = zip(history.items, history.kinds, strict=True)
    liked = [id for id, kind in told if events.IS_POSITIVE[kind] and snapshot.vocab.row(id)]
    newest = list(dict.fromkeys(reversed(liked)))[:REASONS]
    whole = snapshot.scores(history, rows, **wish)
    lost = np.zeros((len(newest), len(rows)))
    for number, id in enumerate(newest):
        lost[number] = whole - snapshot.scores(history.without(id), rows, **wish)
    reasons = []
    for place, score in enumerate(whole.tolist()):
        best = [number for number in np.argsort(-lost[:, place], kind="stable")[:2].tolist() if lost[number, place] > 1e-9]
        shares = [min(1.0, float(lost[number, place]) / max(score, 1e-12)) for number in best]
        reasons.append([snapshot.named(newest[number]) | {"share": share} for number, share in zip(best, shares, strict=True)])
    return reasons


def why_not(
    snapshot: Snapshot,
    history: Iterable[Event] | History,
    item_id: str,
    k: int,
    exclude_seen: bool = True,
    exclude_items: Sequence[str] = (),
    include_items: Sequence[str] | None = None,
    filters: Filters | None = None,
) -> dict[str, Any]:
    """Say at which stage an item falls out of somebody's list, or where it stands: stage, detail, rank and score where it has them."""
    row = snapshot.vocab.row(item_id)
    if not row and item_id in snapshot.gone:
        return _fell("withdrawn", "it was withdrawn before a release knew it; put it again to bring it back")
    if not row:
        return _fell("unknown", f"neither release {snapshot.id} nor the shelf has it; put it, or update after somebody watched it")
    if len(snapshot.withdrawn) and snapshot.withdrawn[row]:
        return _fell("withdrawn", "it was withdrawn; put it again to bring it back")
    history = History.of(history)
    words = [kind for id, kind in zip(history.items, history.kinds, strict=True) if id == item_id and kind in READ]
    if words and words[-1] in NEGATIVE:
        last = events.EVENT_TYPES[words[-1]]
        return _fell(last, f"the person's last word about it is a {last}")
    if words and exclude_seen:
        return _fell("seen", "the person had it already, and exclude_seen is true")
    if item_id in exclude_items:
        return _fell("excluded", "exclude_items names it")
    if include_items is not None and item_id not in include_items:
        return _fell("not included", "include_items does not name it")
    if filters and not snapshot.shelf.let_through(filters)[row]:
        missed = [name for name, condition in filters.items() if not snapshot.shelf.let_through({name: condition})[row]]
        return _fell("filtered", f"it does not meet the filter on {', '.join(missed)}")
    asked = snapshot.understood(Ask(history, k, exclude_seen))
    if len(asked.disliked) and snapshot.pushed(asked.disliked, np.array([row]))[0] == 0:
        closest = asked.disliked[np.argmax(snapshot.vectors[asked.disliked] @ snapshot.vectors[row])]
        return _fell("near copy", f"it is nearly the same as {snapshot.vocab.id(int(closest))!r}, which the person dislikes")
    found = snapshot.recommend(history, max(k, RANKED), exclude_seen, exclude_items, include_items, filters)
    rank = next((place for place, item in enumerate(found, 1) if item["item_id"] == item_id), None)
    if rank is None:
        return _fell("ranked", f"it stands behind the best {len(found)}")
    about = {"rank": rank, "score": found[rank - 1]["score"], "source": found[rank - 1]["source"]}
    if rank > k:
        return _fell("ranked", f"it stands at place {rank}, and {k} are shown") | about
    return {"stage": "recommended", "detail": f"it is shown, at place {rank}"} | about


def _fell(stage: str, detail: str) -> dict[str, Any]:
    return {"stage": stage, "detail": detail, "rank": None, "score": None, "source": None}
