"""What several machines agree on: a journal in a store, whose next line goes to whoever is first to put it.

Files are uploaded under names that nobody else uses and count from the line on that names them; lines are never taken away, so that a
machine which slept for a month cannot put one that others have built upon. Every home is a copy of what the journal says.
"""

import json
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from recsys.errors import BadInput, ReleaseDamaged
from recsys.files import sha256, write_atomically, write_beside
from recsys.store import Store, StoreAway

SUMMED_UP = 100
"""Every so many lines, what they come to is put beside them, so that nobody must read them all."""

ROOMS = ("log", "items", "releases")

LEFT_OVER = timedelta(days=1)
"""A file that no line names is removed when it is so old: its upload was killed."""

T = TypeVar("T")


class Moved(Exception):
    """Others have gone on meanwhile: look again, and do it on top of that."""


@dataclass(frozen=True)
class Segment:
    """A Parquet file of the log or of the catalogue; of the latter `first` is its number and `behind` the next."""

    first: int
    behind: int
    sha256: str

    def name(self, room: str) -> str:
        return f"{room}/{self.first:012d}-{self.behind:012d}-{self.sha256[:16]}.parquet"


@dataclass(frozen=True)
class State:
    """What the first `number` lines of the journal come to. releases: the hash of each one's manifest, by id."""

    number: int = 0
    log: tuple[Segment, ...] = ()
    items: tuple[Segment, ...] = ()
    releases: dict[str, str] = field(default_factory=dict)
    live: str | None = None

    @property
    def end(self) -> int:
        """How many events the log has."""
        return self.log[-1].behind if self.log else 0

    def after(self, line: dict[str, Any]) -> "State":
        """Return the state with one more line; raise Moved where a segment does not join on, or stand for whole ones."""
        log, items = self.log, self.items
        if "log" in line:
            new = Segment(**line["log"])
            if not line["instead"] and new.first != self.end:
                raise Moved
            log = tuple(
                sorted([new, *(old for old in log if not new.first <= old.first < old.behind <= new.behind)], key=lambda s: s.first)
            )
            if [0, *(segment.behind for segment in log)] != [*(segment.first for segment in log), log[-1].behind]:
                raise Moved
        if "items" in line:
            new = Segment(**line["items"])
            if new.first < (items[-1].behind if items else 0):
                raise Moved
            items = (new,) if line["instead"] else (*items, new)
        releases = {id: digest for id, digest in self.releases.items() if id not in line.get("gone", ())} | line.get("release", {})
        return State(self.number + 1, log, items, releases, line.get("live", self.live))

    def names(self, file: str) -> bool:
        """Say whether a file of the store counts."""
        segments = (*(segment.name("log") for segment in self.log), *(segment.name("items") for segment in self.items))
        return file in segments or file.startswith(tuple(folder(id, digest) for id, digest in self.releases.items()))

    @classmethod
    def read(cls, told: dict[str, Any]) -> "State":
        """Return what `asdict` has written."""
        return cls(**{**told, **{room: tuple(Segment(**each) for each in told[room]) for room in ("log", "items")}})


def folder(id: str, digest: str) -> str:
    """Return where the files of a release are: two that claim one number do not write over each other."""
    return f"releases/{id}/{digest[:16]}/"


class Shared:
    """The journal of a store, and how far this home, which keeps that in `place`, has followed it."""

    def __init__(self, store: Store, place: Path):
        self.store, self.place = store, place
        self._one_at_a_time = threading.Lock()
        known = self._known()
        self.state = State.read(known["state"]) if known else State()
        self.joined = bool(known and known["joined"])

    def __reduce__(self) -> tuple[type["Shared"], tuple[Store, Path]]:
        return Shared, (self.store, self.place)

    @property
    def joining(self) -> bool:
        """Whether this home has begun to bring what it held into the store, and has not done so."""
        return self._known() is not None and not self.joined

    def join(self, joined: bool) -> None:
        """Keep in the home that it belongs to the store; joined: it holds nothing any more that the journal does not say."""
        self.joined = joined
        self._keep()

    def look(self) -> State:
        """Read what was added to the journal; return what it comes to now."""
        state, read = self.state, 0
        while True:
            if read == SUMMED_UP or state.number == 0:
                state = max(state, self._summed_up(), key=lambda state: state.number)
            name = _line(state.number + 1)
            try:
                state = state.after(json.loads(self.store.read(name)))
            except FileNotFoundError:
                return self._went_on(state)
            except (ValueError, TypeError, KeyError, AttributeError, Moved):
                raise BadInput(f"{name} in the store {self.store.url} is not the line that was put there; put back a copy") from None
            read += 1

    def commit(self, change: Callable[[State], dict[str, Any]]) -> State:
        """Add to the journal the line that `change` makes of the newest state, or raises an error instead; return the state after it."""
        by = uuid.uuid4().hex
        while True:
            before = self.look()
            line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "by": by, **change(before)}
            after = before.after(line)
            try:
                self.store.put_if_absent(_line(after.number), json.dumps(line).encode())
            except FileExistsError:
                continue
            if after.number % SUMMED_UP == 0:
                with suppress(StoreAway, FileExistsError):  # the line stands; only who comes new has more to read
                    self.store.put_if_absent(_sum(after.number), json.dumps(asdict(after)).encode())
            return self._went_on(after)

    def add(self, room: str, first: int, behind: int, path: Path, instead: bool = False) -> None:
        """Put a segment into the log or the catalogue; raise Moved where others were quicker. instead: it stands for others there."""
        segment = Segment(first, behind, sha256(path))
        line = {room: asdict(segment), "instead": instead}
        before = self.state
        before.after(line)  # where that is plain already, nothing is uploaded
        self.store.put({segment.name(room): path})

        def joins_on(state: State) -> dict[str, Any]:
            nonlocal before
            before = state
            return line

        after = self.commit(joins_on)
        with suppress(StoreAway):  # they are no longer named; `sweep` finds them
            self.store.remove(sorted({old.name(room) for old in getattr(before, room)} - {old.name(room) for old in getattr(after, room)}))

    def fetch(self, room: str, segment: Segment, path: Path) -> None:
        """Bring a segment down; raise FileNotFoundError where it was put together with others meanwhile."""

        def bring(beside: Path) -> None:
            self.store.get({segment.name(room): beside})
            if sha256(beside) != segment.sha256:
                raise BadInput(f"{segment.name(room)} in the store {self.store.url} is not the file that was put there; put back a copy")

        write_beside(path, bring)

    def upload(self, id: str, draft: Path, manifest: str) -> None:
        """Put the files of a release that wants to be published; they count from the line on that names their manifest."""
        under = folder(id, sha256(draft / manifest))
        self.store.put({under + str(path.relative_to(draft)): path for path in sorted(draft.rglob("*")) if path.is_file()})

    def download(self, id: str, digest: str, draft: Path, manifest: str) -> None:
        """Bring down the files of a release, its manifest being the one that was published."""
        under = folder(id, digest)
        self.store.get({under + manifest: draft / manifest})
        if sha256(draft / manifest) != digest:
            raise ReleaseDamaged(f"release {id}: {manifest} in the store {self.store.url} is not the file that was published")
        names = json.loads((draft / manifest).read_text())["files"]
        for parent in {(draft / name).parent for name in names}:
            parent.mkdir(parents=True, exist_ok=True)
        self.store.get({under + name: draft / name for name in names})

    def sweep(self, gone: list[str]) -> None:
        """Remove the files of releases that are gone, and what was left by uploads that were killed."""
        state, old = self.look(), datetime.now(UTC) - LEFT_OVER
        at_once = tuple(f"releases/{id}/" for id in gone)
        for room in ROOMS:
            files = self.store.names(f"{room}/").items()
            self.store.remove([name for name, put in files if not state.names(name) and (put < old or name.startswith(at_once))])

    def whole(self, bring: Callable[[State], T], times: int = 5) -> T:
        """Bring down what the journal says, once more where a file was put together with others, or collected, meanwhile."""
        assert self.joined, "a home is opened by recsys.joined, which brings what it held into the store first"
        for _ in range(times - 1):
            try:
                return bring(self.look())
            except FileNotFoundError:
                continue
        return bring(self.look())

    def _went_on(self, state: State) -> State:
        """Keep how far the journal was followed; return the newest that anybody here has seen."""
        with self._one_at_a_time:
            if state.number > self.state.number:
                self.state = state
                if self._known():
                    self._keep()
            return self.state

    def _summed_up(self) -> State:
        sums = list(self.store.names("sums/"))
        return State.read(json.loads(self.store.read(sums[-1]))) if sums else State()

    def _known(self) -> dict[str, Any] | None:
        try:
            known: dict[str, Any] = json.loads((self.place / "state.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        if (known["url"], known["endpoint"]) != (self.store.url, self.store.endpoint):
            raise BadInput(
                f"the home {self.place.parent} shares the store {known['url']}, and store.url says {self.store.url}; name that, or remove "
                f"{self.place} to bring all that the home holds into a new one"
            )
        return known

    def _keep(self) -> None:
        known = {"url": self.store.url, "endpoint": self.store.endpoint, "joined": self.joined, "state": asdict(self.state)}
        write_atomically(self.place / "state.json", json.dumps(known))


def _line(number: int) -> str:
    return f"journal/{number:012d}.json"


def _sum(number: int) -> str:
    return f"sums/{number:012d}.json"
