"""A release on trial: shown to a share of the people (canary), or asked beside the live one and shown to nobody (shadow)."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from recsys.errors import BadInput
from recsys.files import locked, sync, write_atomically

FILE = "TRIAL"
BUCKETS = 10_000
"""People are told apart by so many numbers."""


@dataclass(frozen=True)
class Trial:
    """share: of the people who are shown the release or, with shadow, for whom it is asked as well. began: ms. hours: after so many it goes
    live by itself, where it did not fall behind; 0: that is for somebody to say.
    """

    release: str
    share: float
    shadow: bool
    began: int
    hours: float = 0.0

    def bucket(self, owner: str) -> int:
        """Return somebody's number: the same in each worker and on each day of this trial, and another in the next one."""
        return bucket(owner, f"{self.release}/{self.began}")

    def shows(self, owner: str) -> bool:
        """Say whether the release is shown to somebody, or asked for them."""
        return self.bucket(owner) < self.share * BUCKETS


def bucket(owner: str, salt: str = "") -> int:
    """Return a number from 0 to BUCKETS - 1 for somebody."""
    return int.from_bytes(hashlib.blake2b(f"{salt}/{owner}".encode(), digest_size=4).digest(), "little") % BUCKETS


class Trials:
    """The file H/releases/TRIAL: at most one release is on trial. Servers follow it within a second."""

    def __init__(self, folder: Path):
        self.folder, self.file = folder, folder / FILE

    def now(self) -> Trial | None:
        """Return the trial that is on, None where there is none; raise BadInput where the file cannot be read."""
        try:
            return Trial(**json.loads(self.file.read_text()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            raise BadInput(f"{self.file} is no trial; end it with: recsys promote --stop") from None

    def begin(self, release: str, share: float, shadow: bool = False, hours: float = 0.0) -> Trial:
        """Put a release on trial; another one that was is so no longer."""
        if not 1 / BUCKETS <= share <= (1 if shadow else 0.5):
            raise BadInput(f"a trial is shown to a share from 0.01% to 50% of the people (with shadow: 100%); got {share:.4%}")
        trial = Trial(release, share, shadow, int(time.time() * 1000), hours)
        with locked(self.folder):
            write_atomically(self.file, json.dumps(asdict(trial)))
        return trial

    def end(self, trial: Trial | None = None) -> bool:
        """End a trial, whatever is on by default; say whether there was one: of several who end the same one, one is told so."""
        with locked(self.folder):
            if not self.file.exists() or (trial is not None and self.now() != trial):
                return False
            self.file.unlink()
            sync(self.folder)
            return True
