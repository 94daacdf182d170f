"""API keys: who may ask this home what, and how often. Only their hashes are stored."""

import hashlib
import json
import logging
import re
import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from recsys.errors import BadInput, RecsysError, nearest
from recsys.files import locked, write_atomically

_log = logging.getLogger("recsys.keys")

SCOPES = ("read", "write", "admin")
"""read: recommendations, releases and metrics; write: events; admin: items and people."""

PREFIX = "rk_"
"""How a key begins, so that one that was published by mistake can be found."""


@dataclass(frozen=True)
class Key:
    """What is known of a key: its sha256, in hex, for which a key of 256 random bits needs no salt; rate: requests a second, 0 for any."""

    name: str
    scopes: tuple[str, ...]
    rate: float
    created: str
    sha256: str


class KeysDamaged(RecsysError):
    """The file of keys cannot be read."""


class Keys:
    """The keys in one file, H/keys/keys.json. A running server notices a change within a second.

    needed: that a request needs a key is known already, by who started this process.
    """

    def __init__(self, file: Path, needed: bool = False):
        self.file = file
        self._needed = needed
        self._look_again = 0.0
        self._seen: tuple[int, int] | None = None
        self._by_hash: dict[str, Key] = {}

    def all(self) -> list[Key]:
        """Return every key, oldest first."""
        try:
            found = json.loads(self.file.read_text())
            return [Key(**{**about, "scopes": tuple(about["scopes"])}) for about in found["keys"]]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, KeyError) as error:
            raise KeysDamaged(f"{self.file} cannot be read ({error}); remove it and make the keys anew: recsys keys add") from None

    def add(self, name: str, scopes: str, rate: float = 0.0) -> str:
        """Make a key and return it: it is shown this once and never again. scopes: some of SCOPES, comma-separated."""
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
            raise BadInput(f"a key's name is 1 to 64 letters, digits, '_', '-' or '.'; got {name!r}")
        wanted = tuple(dict.fromkeys(word.strip() for word in scopes.split(",") if word.strip()))
        for scope in wanted:
            if scope not in SCOPES:
                raise BadInput(f"there is no scope {scope!r}; {nearest(scope, SCOPES)}")
        if not wanted:
            raise BadInput(f"a key needs a scope; there are: {', '.join(SCOPES)}")
        if not 0 <= rate < 1e9:
            raise BadInput(f"a rate is in requests a second, 0 for as many as come; got {rate}")
        secret = PREFIX + secrets.token_urlsafe(32)
        with locked(self.file.parent):
            known = self.all()
            if name in {key.name for key in known}:
                raise BadInput(f"there is a key {name!r} already; remove it first: recsys keys remove {name}")
            self._write([*known, Key(name, wanted, float(rate), datetime.now(UTC).isoformat(timespec="seconds"), digest(secret))])
        return secret

    def remove(self, name: str) -> None:
        """Make a key worthless."""
        with locked(self.file.parent):
            known = self.all()
            if name not in (names := [key.name for key in known]):
                raise BadInput(f"there is no key {name!r}; {nearest(name, names) if names else 'there is none at all'}")
            self._write([key for key in known if key.name != name])

    def find(self, secret: str) -> Key | None:
        """Return whose key this is, None for nobody's."""
        self._refresh()
        return self._by_hash.get(digest(secret))

    @property
    def needed(self) -> bool:
        """Whether a request needs a key: from the first key on, and for good. Whoever takes the last one away must not open the door, so
        the file stays behind, and a process that has seen it once remembers it.
        """
        self._refresh()
        return self._needed

    def _refresh(self) -> None:
        now = monotonic()
        if now < self._look_again:
            return
        self._look_again = now + 1
        try:
            about = self.file.stat()
            seen = (about.st_mtime_ns, about.st_ino)
        except FileNotFoundError:
            seen = None
        self._needed = self._needed or seen is not None
        if seen != self._seen:
            try:
                self._by_hash = {key.sha256: key for key in self.all()}
            except KeysDamaged as error:  # whom we knew we know still, and nobody comes in by a broken file
                _log.error("%s", error)
            self._seen = seen

    def _write(self, keys: list[Key]) -> None:
        write_atomically(self.file, json.dumps({"keys": [asdict(key) for key in keys]}, indent=1))


def digest(secret: str) -> str:
    """Return what is stored of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()
