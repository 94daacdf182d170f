"""What several machines agree on: a journal in a store, whose next line goes to whoever is first to put it.

Files are uploaded under names that nobody else uses and count from the line on that names them; lines are never taken away, so that a
machine which slept for a month cannot put one that others have built upon. Every home is a copy of what the journal says.

Who is to be forgotten is in the journal too, by the hash of the name: each machine keeps what they did out of what it adds, and erases what
it has (recsys.forgotten). What was uploaded before that can no longer be named.
"""

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from recsys.errors import BadInput, RecsysError, ReleaseDamaged
from recsys.files import sha256, write_atomically, write_beside
from recsys.forgotten import Asked, Forgotten, together
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
    """A Parquet file of the log or of the catalogue; of the latter `first` is its number and `behind` the next.

    rows: how many it has; the log's lack those of people who were forgotten. upload: tells it from any other, also of the same bytes.
    """

    first: int
    behind: int
    rows: int
    sha256: str
    upload: str = field(default_factory=lambda: uuid.uuid4().hex[:16])

    def name(self, room: str) -> str:
        return f"{room}/{self.first:012d}-{self.behind:012d}-{self.upload}.parquet"


@dataclass(frozen=True)
class Published:
    """A release: the hash of its manifest, and what tells its upload from any other."""

    sha256: str
    upload: str

    def folder(self, id: str) -> str:
        return f"releases/{id}/{self.upload}/"


@dataclass(frozen=True)
class State:
    """What the first `number` lines of the journal come to. releases, by id; forgotten: who asked to be, by `recsys.forgotten.hashed`.

    erasures: how many lines were about forgetting. What was read, or uploaded, before one of them must not be named after it.
    """

    number: int = 0
    log: tuple[Segment, ...] = ()
    items: tuple[Segment, ...] = ()
    releases: dict[str, Published] = field(default_factory=dict)
    live: str | None = None
    forgotten: dict[str, Asked] = field(default_factory=dict)
    erasures: int = 0

    @property
    def end(self) -> int:
        """How many events the log has."""
        return self.log[-1].behind if self.log else 0

    def after(self, line: dict[str, Any]) -> "State":
        """Return the state with one more line; raise Moved where a segment does not join on, or stand for those that it says it does."""
        log, items = self.log, self.items
        if "log" in line:
            new = Segment(**line["log"])
            old = [segment for segment in log if new.first <= segment.first < segment.behind <= new.behind]
            log = tuple(sorted([new, *(segment for segment in log if segment not in old)], key=lambda segment: segment.first))
            whole = [0, *(segment.behind for segment in log)] == [*(segment.first for segment in log), log[-1].behind]
            if not whole or [segment.sha256 for segment in old] != line["instead"]:
                raise Moved
        if "items" in line:
            new = Segment(**line["items"])
            if new.first < (items[-1].behind if items else 0):
                raise Moved
            items = (new,) if line["instead"] else (*items, new)
        releases = {id: about for id, about in self.releases.items() if id not in line.get("gone", ())}
        releases |= {id: Published(**about) for id, about in line.get("release", {}).items()}
        forgotten, erasures = self.forgotten | line.get("forgotten", {}), self.erasures + ("forgotten" in line)
        return State(self.number + 1, log, items, releases, line.get("live", self.live), forgotten, erasures)

    def names(self, file: str) -> bool:
        """Say whether a file of the store counts."""
        segments = (*(segment.name("log") for segment in self.log), *(segment.name("items") for segment in self.items))
        return file in segments or file.startswith(tuple(about.folder(id) for id, about in self.releases.items()))

    @classmethod
    def read(cls, told: dict[str, Any]) -> "State":
        """Return what `asdict` has written."""
        segments = {room: tuple(Segment(**each) for each in told[room]) for room in ("log", "items")}
        return cls(**{**told, **segments, "releases": {id: Published(**about) for id, about in told["releases"].items()}})


class Shared:
    """The journal of a store, and how far this home, which keeps that in `place`, has followed it."""

    def __init__(self, store: Store, place: Path):
        self.store, self.place = store, place
        self._receipts = Forgotten(place.parent / "forgotten")
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
        self._receipts.follow(self.state.forgotten)
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

    def commit(self, change: Callable[[State], dict[str, Any]], since: int | None = None) -> State:
        """Add to the journal the line that `change` makes of the newest state, or raises an error instead; return the state after it.

        since: the number of erasures when that was read, and before it was uploaded, which the line names; where it is another, Moved.
        """
        by = uuid.uuid4().hex
        while True:
            before = self.look()
            if since not in (None, before.erasures):
                raise Moved
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

    def add(self, room: str, first: int, behind: int, rows: int, path: Path, since: int, instead: Sequence[str] = ()) -> None:
        """Put a segment into the log or the catalogue; raise Moved where others were quicker.

        since: the number of erasures when what is in it was read. instead: the hashes of those there that it stands for.
        """
        segment = Segment(first, behind, rows, sha256(path))
        line = {room: asdict(segment), "instead": [*instead]}
        before = self.state
        before.after(line)  # where that is plain already, nothing is uploaded
        self.store.put({segment.name(room): path})

        def joins_on(state: State) -> dict[str, Any]:
            nonlocal before
            before = state
            return line

        try:
            after = self.commit(joins_on, since)
        except Moved:
            with suppress(StoreAway):
                self.store.remove([segment.name(room)])
            raise
        with suppress(StoreAway):  # they are no longer named; `sweep` finds them
            self.store.remove(sorted({old.name(room) for old in getattr(before, room)} - {old.name(room) for old in getattr(after, room)}))

    def fetch(self, room: str, segment: Segment, path: Path) -> None:
        """Bring a segment down; raise FileNotFoundError where it was put together with others meanwhile."""

        def bring(beside: Path) -> None:
            self.store.get({segment.name(room): beside})
            if sha256(beside) != segment.sha256:
                raise BadInput(f"{segment.name(room)} in the store {self.store.url} is not the file that was put there; put back a copy")

        write_beside(path, bring)

    @contextmanager
    def uploaded(self, id: str, draft: Path, manifest: str) -> Iterator[Published]:
        """Put the files of a release that wants to be published; they count from the line on that names them, and go where none does."""
        about = Published(sha256(draft / manifest), uuid.uuid4().hex[:16])
        files = {about.folder(id) + str(path.relative_to(draft)): path for path in sorted(draft.rglob("*")) if path.is_file()}
        try:
            self.store.put(files)
            yield about
        except RecsysError:
            with suppress(StoreAway):
                if self.look().releases.get(id) != about:
                    self.store.remove(sorted(files))
            raise

    def download(self, id: str, about: Published, draft: Path, manifest: str) -> None:
        """Bring down the files of a release, its manifest being the one that was published."""
        under = about.folder(id)
        self.store.get({under + manifest: draft / manifest})
        if sha256(draft / manifest) != about.sha256:
            raise ReleaseDamaged(f"release {id}: {manifest} in the store {self.store.url} is not the file that was published")
        names = json.loads((draft / manifest).read_text())["files"]
        for parent in {(draft / name).parent for name in names}:
            parent.mkdir(parents=True, exist_ok=True)
        self.store.get({under + name: draft / name for name in names})

    def ask_to_forget(self, who: str, asked: Asked) -> None:
        """Tell every machine who is to be forgotten, unless that is known; asked: what their receipt says here."""

        def told(state: State) -> dict[str, Any]:
            return {"forgotten": {who: together(state.forgotten.get(who), asked)}}

        before = self.look().forgotten.get(who)
        if before != together(before, asked):
            self.commit(told)

    def fence(self) -> State:
        """Let nothing be named from here on that was read, or uploaded, before."""
        return self.commit(lambda _: {"forgotten": {}})

    def purge(self) -> int:
        """Remove every file that no line names, be its upload going on: that begins anew. Return how many went. To forget a person."""
        files = [name for room in ROOMS for name in self.store.names(f"{room}/")]
        state = self.fence()  # from here on none of those can be named
        gone = [name for name in files if not state.names(name)]
        self.store.remove(gone)
        return len(gone)

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
                known = self._known()
                if known and state.forgotten != self.state.forgotten:
                    self._receipts.follow(state.forgotten)  # before it is known here that they were read
                self.state = state
                if known:
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
