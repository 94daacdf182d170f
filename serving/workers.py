"""Which worker of a server serves which release: each holds a small file that says so, and whoever is asked reads them all."""

import fcntl
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving.engine import Engine
from serving.metrics import SHARED

SIZE = 512
"""Bytes of such a file, always: it is written in one call, so nobody reads a half."""


class Worker:
    """One process that answers, by what it serves. folder: where the workers of a server meet, None where there is but one.

    The file is locked for as long as its process lives, so one that was killed is known by that; nothing is written but when what is served
    changes.
    """

    def __init__(self, engine: Engine, folder: Path | None):
        self.engine, self.folder, self.began = engine, folder, round(time.time(), 3)
        self.told: dict[str, Any] = {}
        self._file = -1
        if folder is not None:
            self._file = os.open(folder / f"worker-{os.getpid()}.json", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
        self.say()

    @classmethod
    def here(cls, engine: Engine, environ: Mapping[str, str] = os.environ) -> "Worker":
        """Return the worker that this process is."""
        return cls(engine, Path(environ[SHARED]) if SHARED in environ else None)

    def say(self) -> None:
        """Say what this worker serves now, where that has changed."""
        live, trial = self.engine.snapshot, self.engine.candidate
        served = {"release": live.id if live else None, "trial": trial.id if trial else None}
        if self.told and served == {name: self.told[name] for name in served}:
            return
        self.told = {"pid": os.getpid(), "began": self.began, **served, "since": round(time.time(), 3)}
        if self._file >= 0:
            with suppress(OSError):  # a full disk must not end the watch for new releases
                os.pwrite(self._file, json.dumps(self.told).encode().ljust(SIZE), 0)

    def all(self) -> list[dict[str, Any]]:
        """Return what each worker of this server serves, those that began first at the front."""
        if self.folder is None:
            return [self.told]
        found = [_told(path) for path in self.folder.glob("worker-*.json")]
        return sorted((told for told in found if told), key=lambda told: (told["began"], told["pid"]))

    def close(self) -> None:
        """Let go of the file."""
        if self.folder is not None:
            os.close(self._file)
            self._file = -1


def _told(path: Path) -> dict[str, Any] | None:
    """Return what a worker says, None where it is gone; its file goes then, too."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)  # nobody holds it
        return None
    except BlockingIOError:
        with suppress(ValueError):
            told: dict[str, Any] = json.loads(os.pread(file, SIZE, 0))
            return told
        return None
    finally:
        os.close(file)


def resident(pid: int) -> int | None:
    """Return how many bytes of memory a process holds, None where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None
