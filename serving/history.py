"""What one person did: one event, and many in columns, which is what a profile is read into and what is asked about."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import orjson

from recsys import events
from recsys.events import CODE, UNDO


@dataclass(frozen=True, slots=True)
class Event:
    """What one person did with one item; `timestamp` in ms. It has a `user_id`, a `session_id` or both."""

    item_id: str
    event_type: str
    timestamp: int
    event_id: str = ""
    user_id: str | None = None
    session_id: str | None = None
    value: float | None = None
    request_id: str | None = None
    surface: str | None = None

    @property
    def owner(self) -> str:
        """Whose profile it belongs to: the user's, or the session's where nobody is signed in."""
        return self.user_id if self.user_id is not None else f"session:{self.session_id}"

    @property
    def id(self) -> str:
        """The event's own id, or one made from what it says: the same event always gets the same."""
        said = [self.user_id, self.session_id, self.item_id, self.timestamp, self.event_type, self.value]
        return self.event_id or hashlib.blake2b(orjson.dumps(said), digest_size=16).hexdigest()

    def named(self) -> "Event":
        """Return the same event with its id written into it."""
        user, session = self.user_id, self.session_id
        return Event(self.item_id, self.event_type, self.timestamp, self.id, user, session, self.value, self.request_id, self.surface)


@dataclass(frozen=True, slots=True)
class History:
    """Events of one person, oldest first: item ids, event type codes and times in ms; surface: where they are now, if that is known."""

    items: list[str]
    kinds: list[int]
    times: list[int]
    surface: str | None = None

    def __len__(self) -> int:
        return len(self.items)

    @classmethod
    def of(cls, history: "Iterable[Event] | History") -> "History":
        """Return the columns of events, which are oldest first."""
        if isinstance(history, History):
            return history
        told = list(history)
        return cls([event.item_id for event in told], [CODE[event.event_type] for event in told], [event.timestamp for event in told])

    def standing(self) -> "History":
        """Return it without undos and what they take back (recsys.events.taken_back)."""
        if UNDO not in self.kinds:
            return self
        order = sorted(range(len(self)), key=lambda place: (self.times[place], self.kinds[place] == UNDO))
        told = self.take(order)
        gone = set(events.taken_back(told.items, (kind == UNDO for kind in told.kinds)))
        return told.take(place for place in range(len(told)) if place not in gone)

    def without(self, item_id: str) -> "History":
        """Return it without what was done with one item."""
        return self.take(place for place, item in enumerate(self.items) if item != item_id)

    def take(self, places: Iterable[int]) -> "History":
        """Return some of the events, in the order asked for."""
        rows = [(self.items[place], self.kinds[place], self.times[place]) for place in places]
        items, kinds, times = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
        return History(items, kinds, times, self.surface)

    def on(self, surface: str | None) -> "History":
        """Return the same person on a surface."""
        return self if surface is None else replace(self, surface=surface)
