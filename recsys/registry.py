"""Releases: immutable folders, published in one step, the live one named by the file CURRENT."""

import hashlib
import json
import os
import shlex
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from recsys.errors import ReleaseDamaged, ReleaseNotFound, Superseded
from recsys.files import clear, draft, exchange, locked, sha256, sweep, sync, write_atomically
from recsys.log import Position
from recsys.shared import Moved, Published, Shared, State
from recsys.trial import Trials

MANIFEST = "manifest.json"
FORMAT = 8
"""Of the files of a release; counted up when an older one can no longer be read."""


@dataclass(frozen=True)
class Release:
    """A published folder and what its manifest says."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def position(self) -> Position:
        return Position(**self.manifest["position"])

    def file(self, name: str) -> Path:
        return self.folder / name

    def verify(self) -> "Release":
        """Compare every file with its hash in the manifest, and that with its own; raise ReleaseDamaged on the first that differs."""
        if "sha256" not in self.manifest:
            raise ReleaseDamaged(f"release {self.id} was made by another version of recsys; train anew with: recsys fit")
        if self.file(MANIFEST).read_text(errors="replace") != _written(self.manifest) or self.manifest.get("sha256") != _own(self.manifest):
            raise ReleaseDamaged(f"release {self.id}: {MANIFEST} is not the file that was published; roll back with: recsys rollback")
        for name, digest in self.manifest["files"].items():
            path = self.folder / name
            if not path.is_file():
                raise ReleaseDamaged(f"release {self.id}: {name} is missing; roll back with: recsys rollback")
            if sha256(path) != digest:
                raise ReleaseDamaged(f"release {self.id}: {name} is not the file that was published; roll back with: recsys rollback")
        return self


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest with the hash of all that it says."""
    return {**manifest, "sha256": _own(manifest)}


def _own(manifest: dict[str, Any]) -> str:
    told = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _written(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, indent=1)


class Registry:
    """All releases under one folder. shared: the journal in a store that says which there are and which is live, where there is one."""

    def __init__(self, folder: Path, shared: Shared | None = None):
        self.folder, self.shared = folder, shared
        self.pointer = folder / "CURRENT"

    def ids(self) -> list[str]:
        """Return the published releases, oldest first."""
        return sorted(path.parent.name for path in self.folder.glob(f"[0-9]*/{MANIFEST}") if path.parent.name.isdecimal())

    def current(self) -> str | None:
        """Return the id of the live release, None before the first."""
        try:
            return self.pointer.read_text(errors="replace").strip() or None
        except FileNotFoundError:
            return None

    def open(self, id: str | None = None) -> Release:
        """Return a release, the live one by default."""
        wanted, id = id, self.current() if id is None else id
        if id is None:
            raise ReleaseNotFound(
                f"there is no release in {self.folder} yet; train the first with: recsys fit --home {shlex.quote(str(self.folder.parent))}"
            )
        if id not in (ids := self.ids()):
            raise _not_found(id, ids, live=wanted is None)
        try:
            manifest = json.loads((self.folder / id / MANIFEST).read_text())
        except FileNotFoundError:
            raise _not_found(id, self.ids()) from None
        except ValueError:
            others = ", ".join(other for other in self.ids() if other != id) or "none, so: recsys fit"
            raise ReleaseDamaged(
                f"release {id}: {MANIFEST} is not JSON; roll back by name: recsys rollback ID; there are: {others}"
            ) from None
        return Release(self.folder / id, manifest)

    def next_id(self) -> str:
        """Return the number that the next release will claim."""
        ids = self.ids()
        return f"{int(ids[-1]) + 1 if ids else 1:06d}"

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Give an empty folder to build a release in; it vanishes unless it is published."""
        with ExitStack() as held:
            with locked(self.folder):
                self._sweep()
                folder = held.enter_context(draft(self.folder / f".draft-{uuid.uuid4().hex[:8]}"))
            yield folder

    def publish(
        self,
        draft: Path,
        id: str,
        parent: str | None,
        about: dict[str, Any],
        still: Callable[[], bool] = lambda: True,
        live: bool = True,
    ) -> Release:
        """Hash and fsync a draft, claim `id` for it and, unless it is to be tried first, make it live.

        Raises Superseded when `id` is taken, when the live release is no longer `parent`, or where `still`, asked last of all, says no:
        what the draft was made from has changed.
        """
        files = {str(path.relative_to(draft)): sha256(path) for path in sorted(draft.rglob("*")) if path.is_file()}
        content = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
        created = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = {"id": id, "parent": parent, "created": created, "content": content, **about, "files": files}
        (draft / MANIFEST).write_text(_written(sealed(manifest)))
        for path in draft.rglob("*"):
            sync(path)
        sync(draft)
        with ExitStack() as held:
            if self.shared:
                since = self.shared.look().erasures
                if not still():
                    raise _read_of_them()
                uploaded = held.enter_context(self.shared.uploaded(id, draft, MANIFEST))
            held.enter_context(locked(self.folder))
            if self.current() != parent:
                raise _moved(self.current(), parent)
            if not still():
                raise _read_of_them()
            if self.shared:
                try:
                    self.shared.commit(partial(_claimed, id, parent, uploaded, live), since)
                except Moved:
                    raise _read_of_them() from None
            try:
                os.rename(draft, self.folder / id)  # fails on a name that is taken: put-if-absent
            except OSError:
                if not (self.folder / id).exists():
                    raise
                raise _taken(id) from None
            sync(self.folder)
            if live:
                write_atomically(self.pointer, id + "\n")
        return self.open(id)

    def rewrite(self, id: str, change: Callable[[Path], object]) -> bool:
        """Let `change` replace files of a release, under the same id; say whether it did. Needed to forget a person, and for nothing else.

        It is given a copy, made of links: a file is replaced, never written into. The copy takes the release's place in one step where the
        system can exchange two folders (Linux), else in two, between which the id is not there. A server that has the release open reads
        on from what it has, and loads the new one within a second. Where a store is shared, that has it first.
        """
        while True:
            try:
                return self._rewrite(id, change)
            except Moved:
                self.pull()  # another machine has written it anew, too, or collected it
                if id not in self.ids():
                    return False

    def _rewrite(self, id: str, change: Callable[[Path], object]) -> bool:
        with self.draft() as draft, locked(self.folder):
            since = self.shared.state.erasures if self.shared else 0  # before it is uploaded, or `purge` might take it for left over
            release = self.open(id).verify()
            names = list(release.manifest["files"])
            for name in names:
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                os.link(release.file(name), draft / name)
            change(draft)
            new = [name for name in names if not os.path.samefile(draft / name, release.file(name))]
            if not new:
                return False
            files = {**release.manifest["files"], **{name: sha256(draft / name) for name in new}}
            content = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
            (draft / MANIFEST).write_text(_written(sealed({**release.manifest, "content": content, "files": files})))
            for path in (*draft.rglob("*"), draft):
                sync(path)
            if self.shared:
                with self.shared.uploaded(id, draft, MANIFEST) as uploaded:
                    self.shared.commit(partial(_replaced, id, self._digest(id), uploaded), since)
            exchange(draft, release.folder)
            sync(self.folder)
            return True

    def sweep(self) -> None:
        """Remove what was left by processes that were killed."""
        with locked(self.folder):
            self._sweep()

    def point_to(self, id: str) -> None:
        """Make `id` the live release. Rolling back is pointing to an older one."""
        if id not in self.ids():
            raise _not_found(id, self.ids())
        with locked(self.folder):
            clear(self.folder)
            if self.shared:
                self.shared.commit(partial(_pointed, id))
            write_atomically(self.pointer, id + "\n")

    def collect(self, keep: int) -> list[str]:
        """Remove all but the newest `keep` releases, the live one and its parent, and one on trial; return which are gone.

        A release goes in one step: whoever has it open reads on, and nobody opens a half of it.
        """
        with locked(self.folder):
            self._sweep()
            ids, live = self.ids(), self.current()
            if not ids:
                return []
            kept = {*ids[max(0, len(ids) - keep) :], live, self.open(live).manifest["parent"]}  # nothing goes where that cannot be told
            if trial := Trials(self.folder).now():
                kept.add(trial.release)
            gone = [id for id in ids if id not in kept]
            if self.shared and gone:
                self.shared.commit(partial(_collected, gone, live))
            self._remove(gone)
        if self.shared:
            self.shared.sweep(gone)
        return gone

    def pull(self, all: bool = True) -> None:
        """Bring down the live release, and `all` others, of the store that is shared, if one is; what is gone there goes here.

        Each is whole and verified before it has its name, and it is live here only then.
        """
        if self.shared:
            with locked(self.shared.place):  # of several processes of this home one brings them down
                self.shared.whole(partial(self._follow, self.shared, all))

    def _follow(self, shared: Shared, all: bool, state: State) -> None:
        for id in dict.fromkeys([*([state.live] if state.live else []), *sorted(state.releases, reverse=True)]):
            about, here = state.releases[id], self._digest(id)
            if here == about.sha256 or (here is None and not all and id != state.live):
                continue
            with self.draft() as draft:
                shared.download(id, about, draft, MANIFEST)
                _verified(id, draft)
                for path in (*draft.rglob("*"), draft):
                    sync(path)
                with locked(self.folder):
                    if not (self.folder / id).exists():
                        os.rename(draft, self.folder / id)
                    elif self._digest(id) == here:
                        exchange(draft, self.folder / id)  # without somebody who was forgotten
                    sync(self.folder)
        with locked(self.folder):
            state = shared.look()
            if state.live in self.ids() and self.current() != state.live:
                write_atomically(self.pointer, f"{state.live}\n")
            self._remove([id for id in self.ids() if id not in state.releases])

    def _digest(self, id: str) -> str | None:
        """Return the hash of a release's manifest, None where it is not here."""
        try:
            return sha256(self.folder / id / MANIFEST)
        except FileNotFoundError:
            return None

    def _remove(self, gone: list[str]) -> None:
        if gone:
            trash = {id: self.folder / f".draft-{uuid.uuid4().hex[:8]}" for id in gone}  # swept like any draft after a crash
            for id, folder in trash.items():
                os.rename(self.folder / id, folder)
            sync(self.folder)  # before their files go: else a power loss might bring back a name with half of them
            for folder in trash.values():
                shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what those who were killed left, and end what they were about with a release (see recsys.files.exchange)."""
        for old in self.folder.glob("[0-9]*.old"):
            if old.with_suffix("").exists():
                shutil.rmtree(old)
            else:
                os.rename(old, old.with_suffix(""))
        clear(self.folder)
        sweep(self.folder.glob(".draft-*"))


def _verified(id: str, draft: Path) -> None:
    """Raise ReleaseDamaged where what was brought down of a release is not what was published."""
    try:
        Release(draft, json.loads((draft / MANIFEST).read_text())).verify()
    except ReleaseDamaged as error:
        raise ReleaseDamaged(str(error).replace(draft.name, f"{id} in the store", 1)) from None


def _claimed(id: str, parent: str | None, uploaded: Published, live: bool, state: State) -> dict[str, Any]:
    """Return the line of a shared journal that publishes a release on top of its parent; live: and makes it live."""
    if state.live != parent:
        raise _moved(state.live, parent)
    if id <= max(state.releases, default=""):
        raise _taken(id)
    return {"release": {id: asdict(uploaded)}, **({"live": id} if live else {})}


def _replaced(id: str, digest: str | None, uploaded: Published, state: State) -> dict[str, Any]:
    """Return the line that puts a release in the place of the same one, which has a manifest of this hash, with somebody in it."""
    if id not in state.releases or state.releases[id].sha256 != digest:
        raise Moved
    return {"release": {id: asdict(uploaded)}}


def _pointed(id: str, state: State) -> dict[str, Any]:
    """Return the line that makes a release live."""
    if id not in state.releases:
        raise _not_found(id, sorted(state.releases))
    return {"live": id}


def _collected(gone: list[str], live: str | None, state: State) -> dict[str, Any]:
    """Return the line that lets go of releases; what is live is as it was when they were chosen."""
    if state.live != live:
        raise Superseded(f"release {state.live} went live meanwhile; run recsys gc again")
    return {"gone": gone}


def _moved(live: str | None, parent: str | None) -> Superseded:
    return Superseded(f"the live release became {live} while this one was built from {parent}; run the update again")


def _read_of_them() -> Superseded:
    return Superseded("somebody asked to be forgotten while this release was built; run the update again")


def _taken(id: str) -> Superseded:
    return Superseded(f"release {id} was published by another job meanwhile; run the update again")


def _not_found(id: str, ids: list[str], live: bool = False) -> ReleaseNotFound:
    """live: nobody named it, it is what is said to be live."""
    way = f"; make one of them live with: recsys rollback {ids[-1]}" if live and ids else "" if ids else "; train one with: recsys fit"
    return ReleaseNotFound(f"no release {id!r}; there are: {', '.join(ids) or 'none'}{way}")
