"""What a home should hold, in sets and dicts: who did what, what was learned from it, and who was forgotten when."""

from collections import defaultdict
from dataclasses import dataclass, field

from recsys.events import PROFILE
from recsys.hidden import AHEAD
from serving.history import Event

LIMIT = 4
"""Newest events that a profile holds."""


@dataclass
class Learned:
    """A release: which it grew from, the events learned up to it, and the numbers of those whom its parts remember."""

    parent: str | None
    events: set[Event]
    remembered: dict[str, set[int]]


@dataclass
class Model:
    """Everything is as if nothing was ever killed, but for `half`: whom to forget was interrupted, when they asked, what there was then."""

    held: set[Event] = field(default_factory=set)
    seen: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    profile: dict[str, set[Event]] = field(default_factory=lambda: defaultdict(set))
    sessions: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    deleted: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: -1))
    forgotten: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: -1))
    half: dict[str, tuple[int, set[Event]]] = field(default_factory=dict)
    log: dict[int, Event] = field(default_factory=dict)
    releases: dict[str, Learned] = field(default_factory=dict)
    live: str | None = None
    back: set[str] = field(default_factory=set)
    """Who may have a key in Redis though they did nothing that is held: they signed in, or deleted their profile."""

    def knows(self, event: Event) -> bool:
        """Say whether an event changes nothing: it was merged before, or its person was forgotten since they did it."""
        return event.id in self.seen[event.owner] or self.hides(event)

    def hides(self, event: Event) -> bool:
        return event.timestamp <= self.forgotten[event.owner]

    def merge(self, event: Event) -> None:
        """Take in an event that came by the API and was new there."""
        self.seen[event.owner].add(event.id)
        if event.event_type in PROFILE and event.timestamp > max(self.deleted[event.owner], self.forgotten[event.owner]):
            self.profile[event.owner].add(event)
        self.hold(event)

    def hold(self, event: Event) -> None:
        """Take in an event that is for the log, unless its person was forgotten."""
        if not self.hides(event):
            self.held.add(event)
            if event.user_id is not None and event.session_id is not None:
                self.sessions[event.user_id].add(event.session_id)

    def sign_in(self, session: str, user: str) -> None:
        """Move what a session did to who was behind it."""
        source = f"session:{session}"
        self.back.add(user)
        self.sessions[user].add(session)
        upto = max(self.deleted[user], self.forgotten[user])
        self.profile[user] |= {event for event in self.profile.pop(source, set()) if event.timestamp > upto}

    def delete(self, owner: str, now: int) -> None:
        """Empty a profile."""
        self.profile[owner], self.seen[owner] = set(), set()
        self.deleted[owner] = now

    def names(self, owner: str) -> set[str]:
        """Return who somebody is: themselves and their sessions."""
        return {owner, *(f"session:{session}" for session in self.sessions[owner])}

    def forget(self, owner: str, now: int) -> None:
        """Forget somebody who asked now or, if that was interrupted, when they asked; returns when all is gone."""
        (at, before), names = self.half.pop(owner, (now, self.held)), self.names(owner)
        erased = {event for event in self.held if event.owner in names and event.timestamp <= at + AHEAD * (event in before)}
        self.held -= erased
        self.log = {offset: event for offset, event in self.log.items() if event not in erased}
        for name in names:
            self.profile[name], self.seen[name] = set(), set()
            self.forgotten[name] = max(self.forgotten[name], at)
            self.back.discard(name)
        for release in self.releases.values():
            release.events -= erased

    def unsure(self, event: Event) -> bool:
        """Say whether an event may be there or not: it is of somebody whose forgetting was interrupted."""
        return any(event.owner in self.names(owner) and event.timestamp <= at + AHEAD for owner, (at, _) in self.half.items())

    def in_between(self) -> set[str]:
        """Return whose forgetting was interrupted."""
        return {name for owner in self.half for name in self.names(owner)}

    def told(self, owner: str) -> list[tuple[str, str, int]]:
        """Return a profile: item, type and time of the newest events by time and id, without undos and what they take back."""
        members = {(event.timestamp, event.id, event.event_type, event.item_id) for event in self.profile[owner]}
        standing: list[tuple[str, str, int]] = []
        for time, _, kind, item in sorted(sorted(members)[-LIMIT:], key=lambda one: (one[0], one[2] == "undo")):
            if kind != "undo":
                standing.append((item, kind, time))
            elif before := [one for one in standing if one[0] == item]:
                standing.reverse()
                standing.remove(before[-1])
                standing.reverse()
        return standing

    def kept(self, keep: int) -> set[str]:
        """Return the releases that stay when only the newest are to be kept."""
        parent = self.releases[self.live].parent if self.live else None
        return set(self.releases) & {*sorted(self.releases)[-keep:], self.live, parent}
