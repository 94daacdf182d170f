"""Who asked to be forgotten: one receipt each, by the hash of their name. It also keeps out what they did before, should it come again."""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from recsys.files import clear, locked, write_atomically


def hashed(owner: str) -> str:
    """Return what stands for a user, or for "session:ID", in a receipt: the SHA-256 of the name, in hex."""
    return hashlib.sha256(owner.encode()).hexdigest()


class Asked(TypedDict):
    """What other machines must know of somebody who is to be forgotten: when they asked, in words and in ms, and which sessions were
    theirs, as `hashed` has them.

    numbers: which stand for them in releases (recsys.sessions.owner_numbers): once the log is without them, nobody has the names any more.
    end: how long the log was then: what came in later and is dated later is of who came back.
    """

    asked: str
    at: int
    sessions: list[str]
    numbers: list[int]
    end: int


def together(one: Asked | None, other: Asked) -> Asked:
    """Return what two machines know together of one person."""
    if one is None:
        return other
    newer = max(one, other, key=lambda asked: asked["at"])
    sessions, numbers = {*one["sessions"], *other["sessions"]}, {*one["numbers"], *other["numbers"]}
    return {**newer, "sessions": sorted(sessions), "numbers": sorted(numbers)}


def asked(receipt: dict[str, Any]) -> Asked:
    """Return what a receipt tells other machines."""
    return Asked(**{name: receipt[name] for name in Asked.__annotations__})  # type: ignore[typeddict-item]


class Forgotten:
    """The receipts of one home, H/forgotten/HASH.json.

    A receipt is there before anything is erased: from then on nothing comes into the log that the person did up to then, by whatever way
    (an archiver at work, a client that sends again, a file that is imported once more). `completed` is null until all is erased.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def all(self) -> list[dict[str, Any]]:
        """Return the receipts, oldest first."""
        return sorted((json.loads(path.read_text()) for path in self.folder.glob("*.json")), key=lambda receipt: receipt["at"])

    def pending(self) -> list[dict[str, Any]]:
        """Return the receipts of those of whom not all is erased here, oldest first."""
        return [receipt for receipt in self.all() if receipt["completed"] is None]

    def follow(self, others: dict[str, Asked]) -> None:
        """Take over what was asked for on other machines, by `hashed`: such a receipt is to be completed here too."""
        if not others:
            return
        with locked(self.folder):
            clear(self.folder)
            for who, told in others.items():
                path = self.folder / f"{who}.json"
                here = json.loads(path.read_text()) if path.exists() else {"erased": {}, "completed": None, "earlier": []}
                both = together(asked(here) if "at" in here else None, told)
                if "at" in here and both == asked(here):
                    continue
                if here["completed"] is not None and told["at"] > here["at"]:
                    here = {**_again(here), "sessions": here["sessions"]}
                write_atomically(path, json.dumps({"who": who, **here, **both, "completed": None}, indent=1))

    def begin(self, owner: str, sessions: Iterable[str] = (), end: int = 0) -> dict[str, Any]:
        """Return the receipt of somebody who is to be forgotten: that of an attempt that did not end, or a new one.

        Who came back after they were forgotten, and wants to be forgotten again, gets a new one that tells of the earlier ones.
        sessions: as `hashed` has those that are known to be theirs, which a new one tells from its first moment on. end: how long the log
        is.
        """
        with locked(self.folder):
            clear(self.folder)
            path = self.folder / f"{hashed(owner)}.json"
            before = json.loads(path.read_text()) if path.exists() else {}
            if before and before["completed"] is None:
                return before
            now = time.time()
            receipt = {
                "who": hashed(owner),
                "asked": datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds"),
                "at": int(now * 1000),
                "sessions": sorted({*before.get("sessions", []), *sessions}),
                "numbers": before.get("numbers", []),
                "end": end,
                **_again(before),
            }
            write_atomically(path, json.dumps(receipt, indent=1))
            return receipt

    def sessions(self, owner: str) -> set[str]:
        """Return which sessions were somebody's, as `hashed` has them, where they asked to be forgotten before."""
        path = self.folder / f"{hashed(owner)}.json"
        return set(json.loads(path.read_text())["sessions"]) if path.exists() else set()

    def write(self, receipt: dict[str, Any]) -> None:
        """Write down how far it has come."""
        with locked(self.folder):
            write_atomically(self.folder / f"{receipt['who']}.json", json.dumps(receipt, indent=1))

    def written(self) -> tuple[tuple[str, int, int], ...]:
        """Return what tells whether a receipt was written since: of each its file, and which one and of when that is."""
        found = os.scandir(self.folder) if self.folder.exists() else ()
        receipts = (file for file in found if file.name.endswith(".json"))  # those are never removed; half files go at any moment
        return tuple(sorted((file.name, file.inode(), file.stat().st_mtime_ns) for file in receipts))


def _again(before: dict[str, Any]) -> dict[str, Any]:
    """Return what a receipt begins with, where `before` is that of an earlier time, if there was one."""
    earlier = [*before.get("earlier", ())]
    if before:
        earlier.append({name: before[name] for name in ("asked", "completed", "erased")})
    return {"erased": {}, "completed": None, "earlier": earlier}
