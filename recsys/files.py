"""Files that are either the old one or the new one, never half: written beside, fsynced, renamed."""

import ctypes
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recsys.errors import BadInput

LOCK = ".lock"

_HERE, _EXCHANGE = -100, 2
"""AT_FDCWD and RENAME_EXCHANGE: see renameat2(2)."""


def sync(path: Path) -> None:
    """Make a file or a folder listing survive a power loss."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_beside(path: Path, write: Callable[[Path], object], exclusive: bool = False) -> None:
    """Let `write` fill a temporary file, then give it its name in one step.

    With `exclusive`, a name that is already taken raises FileExistsError and the file there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        write(beside)
        sync(beside)
        if exclusive:
            os.link(beside, path)
        else:
            os.replace(beside, path)
        sync(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace the file at `path` by `content`."""
    data = content.encode() if isinstance(content, str) else content
    write_beside(path, lambda beside: beside.write_bytes(data))


@contextmanager
def locked(folder: Path, busy: str | None = None, name: str = LOCK) -> Iterator[None]:
    """Be the only writer in a folder; the lock goes with its process. With `busy` nobody waits for another: BadInput says that instead.

    name: of the lock, where a folder has one for something else, too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / name, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise BadInput(str(busy)) from None
        yield
    finally:
        os.close(handle)


def exchange(one: Path, other: Path) -> None:
    """Let two folders of one file system change names: in one step where the system can (Linux), else `other` is called .old in between."""
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if swap is not None and swap(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return
    between = other.with_name(f"{other.name}.old")
    os.rename(other, between)
    os.rename(one, other)
    os.rename(between, one)


def clear(folder: Path) -> None:
    """Remove the half files of writers who were killed. Only for who has locked a folder in which nobody writes without."""
    for beside in folder.glob(".*.tmp"):
        beside.unlink(missing_ok=True)


@contextmanager
def draft(folder: Path) -> Iterator[Path]:
    """Give a new folder to build something in; it vanishes unless it got another name."""
    folder.mkdir()
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tells a live draft from one whose process was killed
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def sweep(drafts: Iterable[Path]) -> None:
    """Remove drafts whose process is gone."""
    for folder in drafts:
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
