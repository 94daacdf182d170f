"""What is being trained under a home right now, for whoever watches: a small file that tells how far it is."""

import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recsys.progress import Step

FILE = ".running.json"
"""Hidden, for it is nobody's to keep: a backup leaves such files out."""

EVERY = 1.0
"""It is written so many seconds apart at most."""

SILENT, ASLEEP = 300.0, 3600.0
"""Who said nothing for so many seconds is taken to have been killed: on another machine, and where a process of that number lives here."""


@contextmanager
def running(folder: Path, step: Step, what: str, **about: Any) -> Iterator[Step]:
    """Give a `Step` that also tells how far it is in H/job, `folder`, until the work is over. It never stands in the way of the work.

    what: "fit", "update" or "strip"; about: what else is known of it, such as how many events it learns.
    """
    began, mine = time.time(), f"{os.getpid()}-{time.time_ns()}"
    told = {"what": what, **about, "began": round(began, 3), "pid": os.getpid(), "machine": platform.node(), "by": mine}
    before, written = "", 0.0

    def watched(doing: str, done: int, of: int) -> None:
        nonlocal before, written
        step(doing, done, of)
        now = time.monotonic()
        if doing != before or done == of or now - written >= EVERY:
            before, written = doing, now
            _write(folder, {**told, "step": doing, "done": done, "of": of, "at": round(time.time(), 3)})

    _write(folder, {**told, "step": "beginning", "done": 0, "of": 0, "at": round(began, 3)})
    try:
        yield watched
    finally:
        with suppress(OSError, ValueError):
            if json.loads((folder / FILE).read_text())["by"] == mine:  # else another has begun meanwhile
                (folder / FILE).unlink()


def now(folder: Path) -> dict[str, Any] | None:
    """Return what is being trained, None where nothing is. `lost` says why whoever wrote it is taken to have been killed, None else."""
    try:
        told = json.loads((folder / FILE).read_text())
        silent = time.time() - float(told["at"])
        lost = _lost(told, silent)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return {**told, "lost": lost}


def _lost(told: dict[str, Any], silent: float) -> str | None:
    here = told["machine"] == platform.node()
    if here and not _lives(int(told["pid"])):
        return f"the process {told['pid']} that did it is gone"
    return f"no sign of life for {silent:.0f} s, on {told['machine']}" if silent > (ASLEEP if here else SILENT) else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _write(folder: Path, told: dict[str, Any]) -> None:
    """Replace the file, without a sync: after a power loss nobody needs it."""
    beside = folder / f"{FILE}.tmp"
    with suppress(OSError, ValueError, TypeError):
        folder.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(told))
        os.replace(beside, folder / FILE)
