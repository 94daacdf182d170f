"""What a piece of work does to a disk, step by step, and what may come at each: the process is killed, or the disk is full.

A step is a call that makes, writes, syncs, renames or removes something under a folder; reading is none.
"""

import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

FULL = "/dev/full"
"""A device that is always full: what is written to it fails as on a full disk, when it reaches the kernel."""

CALLS = ("mkdir", "fsync", "rename", "replace", "link", "unlink", "rmdir")
FREEING = ("unlink", "rmdir")
"""What a full disk never refuses."""


@contextmanager
def watched(root: Path, before: Callable[[str], bool], after: Callable[[str], None] = lambda step: None) -> Iterator[None]:
    """Call `before` and `after` around every step under a folder, with what it is; where `before` returns True the disk is full."""

    def inside(path: Any, folder: int | None) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        elif folder is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))
        return f"{os.path.abspath(os.fsdecode(path))}/".startswith(f"{root}/")

    def step(name: str, honest: Callable[..., Any], full: Callable[..., Any], counts: Callable[..., bool]) -> Any:
        def call(path: Any, *words: Any, **named: Any) -> Any:
            if not counts(path, *words, **named) or not inside(path, named.get("dir_fd")):
                return honest(path, *words, **named)
            try:
                return (full if before(name) else honest)(path, *words, **named)
            finally:
                after(name)

        return call

    opened, written = io.open, pq.write_table
    table = step("write", lambda path, rows, **named: written(rows, path, **named), partial(_half, written), _always)
    with ExitStack() as patches:
        for name in CALLS:
            honest = getattr(os, name)
            made = _makes_a_folder if name == "mkdir" else _always
            patches.enter_context(mock.patch(f"os.{name}", step(name, honest, honest if name in FREEING else _refuse, made)))
        patches.enter_context(mock.patch("os.open", step("open", os.open, _refuse, _creates)))
        for module in ("io", "builtins"):
            patches.enter_context(mock.patch(f"{module}.open", step("write", opened, partial(_swallowed, opened), _writes)))
        patches.enter_context(mock.patch("pyarrow.parquet.write_table", lambda rows, path, **named: table(path, rows, **named)))
        yield


def steps(root: Path, work: Callable[[], object]) -> list[str]:
    """Do a piece of work; return its steps under a folder."""
    found: list[str] = []
    with watched(root, lambda step: bool(found.append(step))):
        work()
    return found


def killed(root: Path, work: Callable[[], object], number: int, behind: bool) -> bool:
    """Do a piece of work in a process that is killed by -9 right before a step, or right behind it; return whether it came to that."""
    if not (child := os.fork()):
        left = number

        def end(step: str, here: bool) -> bool:
            nonlocal left
            if left == 0 and here:
                os.kill(os.getpid(), signal.SIGKILL)
            return False

        def done(step: str) -> None:
            nonlocal left
            end(step, behind)
            left -= 1

        code = 1
        try:
            with watched(root, lambda step: end(step, not behind), done):
                work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "it failed by itself"
    return os.WIFSIGNALED(status)


def full(root: Path, work: Callable[[], object], number: int, for_good: bool) -> Exception | None:
    """Do a piece of work on a disk that is full at one step, or from it on; return what it raised."""
    count = -1

    def refuses(step: str) -> bool:
        nonlocal count
        count += 1
        return count == number or (for_good and count > number)

    try:
        with watched(root, refuses):
            work()
    except Exception as error:
        return error
    return None


def _always(*_: Any, **__: Any) -> bool:
    return True


def _makes_a_folder(path: Any, *_: Any, **__: Any) -> bool:
    return not os.path.exists(path)


def _creates(path: Any, flags: int, *_: Any, **__: Any) -> bool:
    return bool(flags & os.O_CREAT) and not os.path.exists(path)


def _writes(path: Any, mode: str = "r", *_: Any, **__: Any) -> bool:
    return not isinstance(path, int) and bool(set(mode) & set("wax+"))


def _refuse(path: Any, *_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path if isinstance(path, str) else None)


def _swallowed(opened: Callable[..., Any], path: Any, mode: str, *words: Any, **named: Any) -> Any:
    """Open a file of which nothing but the name reaches the disk."""
    opened(path, mode, *words, **named).close()
    return opened(FULL, "r+b" if "b" in mode else "w")


def _half(written: Callable[..., None], path: Any, rows: Any, **named: Any) -> None:
    """Write half of a table."""
    written(rows, path, **named)
    os.truncate(path, os.path.getsize(path) // 2)
    _refuse(str(path))
