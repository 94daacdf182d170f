"""When to update: each trigger looks at what is new and says why it wants an update, or nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from river.drift import ADWIN

from recsys.events import EVENT_TYPES, HISTORY, milliseconds, owners, type_codes
from recsys.sessions import SESSION_GAP
from recsys.settings import JobSettings

DECILES = 10
LENGTHS = np.array([2, 3, 5, 9, 17])
"""Sessions of 1, 2, 3 to 4, 5 to 8, 9 to 16 and more events are told apart."""

WORST = 20.0
"""A log-loss above this, less than one in 10^8, counts as this: ADWIN wants bounds."""

LEAST = 1e-3
"""A part that holds less of one side counts so much: the index would be without bounds."""


Measured = Sequence[tuple[bool, float | None]]
"""Of each outcome whether it was a hit, and its log-loss, None where that is not known (serving.online.Outcome)."""


@dataclass(frozen=True)
class Situation:
    """What the triggers look at: events that the live release has not learned, twice as many of those that came last before them, the ids
    it knows, and the hours since the last update. measured: what became of the lists that the live release gave, in order.
    """

    new: pa.Table
    old: pa.Table
    known: pa.Array
    hours: float
    measured: Measured = ()


@dataclass(frozen=True)
class Trigger:
    """One reason to update, asked by its name."""

    name: str
    ask: Callable[[Situation, JobSettings], str | None]


def reasons(situation: Situation, settings: JobSettings) -> dict[str, str]:
    """Return why an update is due, by trigger; nothing where it is not."""
    if not pc.any(pc.is_in(situation.new["event_type"], value_set=pa.array(sorted(HISTORY)))).as_py():
        return {}
    found = {trigger.name: trigger.ask(situation, settings) for trigger in TRIGGERS}
    return {name: why for name, why in found.items() if why}


def figures(situation: Situation, settings: JobSettings) -> dict[str, Any]:
    """Return what the triggers look at, in numbers, whether or not one of them wants an update: for the journal.

    new items: the share of the new events that are about items nobody has learned; drift: of each thing that may drift its stability index,
    and what that was before. None, and nothing, by fewer events than `job.few`.
    """
    drift = {name: {"now": round(now, 4), "before": round(before, 4)} for name, (now, before) in _drifts(situation, settings).items()}
    share = _share_of_the_unknown(situation, settings)
    return {"hours": round(situation.hours, 2), "new items": None if share is None else round(share, 4), "drift": drift}


def _schedule(situation: Situation, settings: JobSettings) -> str | None:
    if settings.hours and situation.hours >= settings.hours:
        return f"{situation.hours:.2g} hours since the last update (job.hours = {settings.hours:g})"
    return None


def _volume(situation: Situation, settings: JobSettings) -> str | None:
    if settings.events and len(situation.new) >= settings.events:
        return f"{len(situation.new):,} new events (job.events = {settings.events:,})"
    return None


def _new_items(situation: Situation, settings: JobSettings) -> str | None:
    share = _share_of_the_unknown(situation, settings) if settings.new_items else None
    if share is not None and share >= settings.new_items:
        return f"{share:.1%} of the new events are about items nobody has learned (job.new_items = {settings.new_items:g})"
    return None


def _drift(situation: Situation, settings: JobSettings) -> str | None:
    """Compare what is new with what came last before it, and that with what came before: a log that always turns over does not drift."""
    measured = _drifts(situation, settings) if settings.drift else {}
    if not measured:
        return None
    name, (now, before) = max(measured.items(), key=lambda pair: pair[1][0] - pair[1][1])
    if now - before < settings.drift:
        return None
    return f"the {name} drift: stability index {now:.2f}, and {before:.2f} before that (job.drift = {settings.drift:g})"


def _share_of_the_unknown(situation: Situation, settings: JobSettings) -> float | None:
    """Return the share of the new events that are about items nobody has learned, None where they are too few."""
    if len(situation.new) < settings.few:
        return None
    return 1 - float(pc.mean(pc.is_in(situation.new["item_id"], value_set=situation.known).cast(pa.float64())).as_py())


def _drifts(situation: Situation, settings: JobSettings) -> dict[str, tuple[float, float]]:
    """Return how far each thing drifted, and how far it had before; nothing where the events are too few."""
    half = len(situation.old) // 2
    older, old, new = situation.old.slice(0, half), situation.old.slice(half), situation.new
    if min(half, len(new)) < settings.few:
        return {}
    measured = {name: (shift(old, new), shift(older, old)) for name, shift in SHIFTS.items()}
    return measured | {"unknown items": (_shift_of_the_unknown(older, old, new), 0.0)}


def psi(old: np.ndarray, new: np.ndarray) -> float:
    """Return the population stability index of two counts of the same parts (B,): sum of (new - old) log(new / old) over their shares.

    0 for the same shares; by custom 0.1 is a small shift and 0.25 a large one (Siddiqi, Credit Risk Scorecards, 2006).
    """
    shares = [np.maximum(count / max(1, count.sum()), LEAST) for count in (old, new)]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def _types(events: pa.Table) -> np.ndarray:
    return np.bincount(type_codes(events["event_type"]), minlength=len(EVENT_TYPES))


def _deciles(old: pa.Table) -> Callable[[pa.Table], np.ndarray]:
    """Return what says of each event in which tenth its item was, by old popularity, 1 for the most watched tenth of all events; 0 for an
    item that was not there.
    """
    counts = old["item_id"].value_counts()
    ids, number = counts.field("values"), counts.field("counts").to_numpy()
    order = np.argsort(-number, kind="stable")
    behind = np.cumsum(number[order])
    tenth = np.empty(len(order), np.int64)
    tenth[order] = 1 + DECILES * (behind - number[order]) // max(1, int(number.sum()))

    def rank(events: pa.Table) -> np.ndarray:
        place = pc.index_in(events["item_id"], value_set=ids).to_numpy(zero_copy_only=False) if len(events) else np.zeros(0)
        found = np.nan_to_num(place, nan=-1).astype(np.int64)
        return np.where(found >= 0, tenth[np.maximum(found, 0)], 0)

    return rank


def _lengths(events: pa.Table) -> np.ndarray:
    """Return how many sessions have each of LENGTHS; a session ends after half an hour without an event."""
    time, who = milliseconds(events), owners(events).combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.lexsort((time, who))
    begins = (np.diff(who[order], prepend=-1) != 0) | (np.diff(time[order], prepend=0) > SESSION_GAP * 1000)
    length = np.diff(np.append(np.flatnonzero(begins), len(order)))
    return np.bincount(np.searchsorted(LENGTHS, length, side="right"), minlength=len(LENGTHS) + 1)


def _shift_of_popularity(old: pa.Table, new: pa.Table) -> float:
    rank = _deciles(old)
    return psi(*(np.bincount(rank(events), minlength=DECILES + 1) for events in (old, new)))


def _online(situation: Situation, settings: JobSettings) -> str | None:
    """Watch hit rate and log-loss of what is served by adaptive windowing (Bifet and Gavalda, SDM 2007); for the worse, that is."""
    if not settings.online:
        return None
    hits = [(float(hit), 0.0, 1.0) for hit, _ in situation.measured]
    losses = [(loss, 0.0, WORST) for _, loss in situation.measured if loss is not None]
    for name, values, worse in (("hit rate", hits, np.less), ("log-loss", losses, np.greater)):
        before, after = _turn(values)
        if before is not None and worse(after, before):
            return f"the online {name} went from {before:.3f} to {after:.3f} (ADWIN, {len(values):,} outcomes; job.online)"
    return None


def _turn(values: Sequence[tuple[float, float, float]]) -> tuple[float | None, float]:
    """Return the mean before the last change of a series and since then, None where it did not change; values with their bounds."""
    window, before, after = ADWIN(), None, 0.0
    for value, low, high in values:
        mean = window.estimation
        window.update((min(max(value, low), high) - low) / (high - low))
        if window.drift_detected:
            before = low + mean * (high - low)
        after = low + window.estimation * (high - low)
    return before, after


def _shift_of_the_unknown(older: pa.Table, old: pa.Table, new: pa.Table) -> float:
    """Compare how many events of a stretch are about items that the one before it did not have; 0 where they are no more than before."""
    before, now = (
        np.bincount(~pc.is_in(b["item_id"], value_set=a["item_id"]).to_numpy(), minlength=2) for a, b in ((older, old), (old, new))
    )
    return psi(before, now) if now[1] * before.sum() > before[1] * now.sum() else 0.0


SHIFTS: dict[str, Callable[[pa.Table, pa.Table], float]] = {
    "event types": lambda old, new: psi(_types(old), _types(new)),
    "popularity": _shift_of_popularity,
    "session lengths": lambda old, new: psi(_lengths(old), _lengths(new)),
}
"""What may drift, and how far it did between two stretches of a log."""

TRIGGERS = (
    Trigger("schedule", _schedule),
    Trigger("volume", _volume),
    Trigger("new items", _new_items),
    Trigger("drift", _drift),
    Trigger("online", _online),
)
"""All of them; `reasons` asks each."""
