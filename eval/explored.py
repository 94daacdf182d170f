"""The lists that were explored, as the event log tells of them: what was shown to whom, by what chance, and what it earned."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.errors import BadInput
from recsys.events import CODE, PROFILE, counted, milliseconds, owners, positive
from recsys.log import Position
from recsys.sessions import sessionise
from recsys.settings import Settings
from recsys.vocab import Vocabulary
from serving.history import History
from serving.impressions import Made, read

OTHERWISE = "made by filters, a selection, a cursor, house rules, or by a version that did not log how"
LEARNED = "learned by a release that is judged"
TOO_NEW = "too new to say what they earn"
OLDER = "older than the newest that were asked for"


@dataclass(frozen=True)
class Shown:
    """One list of L items: whose, how it was made, the profile that it was made of, and by place its items, how likely each was to come
    there given those before it, logged (L,), and what it earned, reward (L,), 0 or 1.
    """

    owner: str
    made: Made
    past: History
    items: list[str]
    logged: np.ndarray
    reward: np.ndarray


@dataclass(frozen=True)
class _List:
    """The impressions of one list, in its order: places in the log, at (L,), and items."""

    owner: str
    request: str
    made: Made | None
    at: np.ndarray
    items: list[str]


def explored(
    table: pa.Table,
    settings: Settings,
    learned: Sequence[Position] = (),
    window: float = 3600.0,
    most: int = 10_000,
    offsets: np.ndarray | None = None,
) -> tuple[list[Shown], Counter[str]]:
    """Return the newest `most` lists that were explored, oldest first, and of the others how many were left out for what.

    table: the whole log, as it arrived; learned: what releases have read, for whoever learned what a list earned would look better by it;
    offsets (N,): of the events in the log, where some were erased.

    An item earns 1 where its person does something positive with it afterwards (settings.data.positive; what was undone is not) and sends
    the list's request_id with that or, where no request_id is sent, does so within `window` seconds and has not been shown it in a newer
    list. So a list is judged once it is `window` old. The profile is what had arrived before the list did: late events are not in it.
    """
    lists = _lists(table)
    if not lists:
        raise BadInput(
            "no list in the log says how likely its items were to be shown; explore, with ?explore=0.1 on GET /v1/recommend/USER, "
            "and move what was logged with: recsys archive"
        )
    time = milliseconds(table)
    seen, end = np.arange(len(table)) if offsets is None else offsets, int(time.max())
    read_before = np.zeros(len(table), bool)
    for position in learned:
        read_before |= position.covers(seen, time)
    left_out, kept = Counter[str](), list[_List]()
    for one in lists:
        if one.made is None:
            left_out[OTHERWISE] += 1
        elif read_before[one.at].any():
            left_out[LEARNED] += 1
        elif time[one.at[0]] + 1000 * window > end:
            left_out[TOO_NEW] += 1
        else:
            kept.append(one)
    if len(kept) > most:
        left_out[OLDER] = len(kept) - most
        kept = kept[-most:]
    reward, pasts = _rewards(table, time, lists, settings, window), _Pasts(table, time, {one.owner for one in kept}, settings)
    value = table["value"].to_numpy()
    found = [
        Shown(one.owner, one.made, pasts.before(one.owner, int(one.at[0])), one.items, value[one.at].astype(np.float64), reward[one.at])
        for one in kept
        if one.made
    ]
    return found, left_out


def _lists(table: pa.Table) -> list[_List]:
    """Return the lists that servers logged, in the order they arrived; one of which a part is missing is none."""
    told = pc.and_(pc.equal(table["event_type"], "impression"), pc.and_(pc.is_valid(table["value"]), pc.is_valid(table["request_id"])))
    at = np.flatnonzero(told.to_numpy())
    some = table.take(pa.array(at))
    found: dict[tuple[str, str, Made | None], dict[int, tuple[int, str]]] = defaultdict(dict)
    columns = (owners(some), some["request_id"], some["event_id"], some["value"], some["item_id"])
    for row, owner, request, event, value, item in zip(at.tolist(), *(column.to_pylist() for column in columns), strict=True):
        if (said := read(event, request)) and 0 < value <= 1:
            found[owner, request, said[1]][said[0]] = row, item
    lists = list[_List]()
    for (owner, request, made), places in found.items():
        if max(places) == len(places) - 1:
            rows, items = zip(*(places[place] for place in range(len(places))), strict=True)
            lists.append(_List(owner, request, made, np.array(rows), list(items)))
    return lists


def _rewards(table: pa.Table, time: np.ndarray, lists: Sequence[_List], settings: Settings, window: float) -> np.ndarray:
    """Return what each event of the log earned, (N,): 1 for impressions that something positive came of, see `explored`."""
    sessions = sessionise(counted(table, positive(settings.data.positive)), Vocabulary())
    acts = np.sort(sessions.place[sessions.positive])
    acted = table.take(pa.array(acts[time[acts] >= min(time[one.at[0]] for one in lists)]))
    by_request, lately = dict[tuple[str, str], int](), defaultdict[tuple[str, str], list[int]](list)
    for one in lists:
        for at, id in zip(one.at.tolist(), one.items, strict=True):
            by_request[one.request, id] = at
            lately[one.owner, id].append(at)
    shown_to = pa.array(sorted({one.owner for one in lists}), pa.string())
    acted = acted.filter(pc.or_(pc.is_valid(acted["request_id"]), pc.is_in(owners(acted), value_set=shown_to)))
    columns = [column.to_pylist() for column in (owners(acted), acted["item_id"], acted["request_id"])]
    reward = np.zeros(len(table))
    for when, whose, id, named in zip(milliseconds(acted).tolist(), *columns, strict=True):
        found = by_request.get((named, id)) if named is not None else _newest(lately.get((whose, id), ()), time, when, window)
        if found is not None:
            reward[found] = 1.0
    return reward


def _newest(places: Sequence[int], time: np.ndarray, when: int, window: float) -> int | None:
    """Return the place of the newest impression that is no newer than `when`, ms, and at most `window` seconds older; None without any."""
    before = [at for at in places if time[at] <= when <= time[at] + 1000 * window]
    return max(before, key=lambda at: (time[at], at), default=None)


class _Pasts:
    """The profiles of some people at any moment of the log, as serving.profiles would have read them."""

    def __init__(self, table: pa.Table, time: np.ndarray, people: set[str], settings: Settings):
        counts, owner = counted(table, positive(settings.data.positive))["event_type"], owners(table)
        theirs = pc.is_in(owner, value_set=pa.array(sorted(people), pa.string()))
        kept = pc.and_(theirs, pc.is_in(table["event_type"], value_set=pa.array(sorted(PROFILE))))
        at = np.flatnonzero(kept.to_numpy())
        columns = [column.take(pa.array(at)).to_pylist() for column in (owner, table["event_id"], table["item_id"], counts)]
        self.limit = settings.serving.profile_events
        self.events: dict[str, list[tuple[int, str, int, str, str]]] = defaultdict(list)  # time, event id, place in the log, item, type
        for place, when, whose, id, item, kind in zip(at.tolist(), time[at].tolist(), *columns, strict=True):
            self.events[whose].append((when, id, place, item, kind))
        for told in self.events.values():
            told.sort()

    def before(self, owner: str, place: int) -> History:
        """Return what somebody's profile held when an event at this place of the log arrived."""
        newest = [one for one in self.events.get(owner, ()) if one[2] < place][-self.limit :]
        told = [one for one in newest if one[4] in PROFILE]  # what does not count as positive takes a place in a profile all the same
        return History([one[3] for one in told], [CODE[one[4]] for one in told], [one[0] for one in told]).standing()
