"""A whole home in one folder, verified: what `recsys backup` writes and `recsys restore` brings back.

Profiles are not in it: a server fills them from the log when it starts. Nor is what the API took in and nobody archived: archive first.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys.errors import BadInput, RecsysError
from recsys.files import sha256, sync
from recsys.home import Home
from recsys.log import Log
from recsys.progress import Step, silent
from recsys.registry import Registry

ABOUT = "backup.json"


class BackupDamaged(RecsysError):
    """A backup misses a file, or has another one in its place."""


def backup(home: Home, folder: Path, step: Step = silent) -> dict[str, Any]:
    """Copy a home into a new folder; return what it holds. Others may go on working: the copy is one that the home was at some moment.

    The live release and its like are copied before the log, which only grows: no release knows more events than the log has.
    """
    if not home.path.exists():
        raise BadInput(f"there is no home {home.path} to back up")
    if folder.exists():
        raise BadInput(f"{folder} is there already; name a new folder")
    with _beside(folder) as draft:
        for _ in range(5):
            try:
                files = _copied(home, draft, step)
                break
            except FileNotFoundError:  # put together with others, or collected, meanwhile
                shutil.rmtree(draft)
                draft.mkdir()
        else:
            raise BadInput(f"{home.path} changes too quickly to be copied; try again in a quieter minute")
        live = Registry(draft / "releases").current()
        created = datetime.now(UTC).isoformat(timespec="seconds")
        about = {"created": created, "home": str(home.path), "events": len(Log(draft / "log")), "release": live}
        about |= {"bytes": sum((draft / name).stat().st_size for name in files)}
        (draft / ABOUT).write_text(json.dumps({**about, "files": files}, indent=1))
    return about


def verify(folder: Path, step: Step = silent) -> dict[str, Any]:
    """Compare every file of a backup with its hash; return what it holds, raise BackupDamaged on the first that differs."""
    try:
        about = json.loads((folder / ABOUT).read_text())
        files = dict(about["files"])
    except (OSError, ValueError, KeyError, TypeError):
        raise BackupDamaged(f"{folder} is no backup: it has no {ABOUT} that can be read") from None
    for number, (name, digest) in enumerate(files.items()):
        step("verifying", number, len(files))
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BackupDamaged(f"the backup {folder} names a file outside itself, {name!r}; do not use it")
        path = folder / name
        if not path.is_file():
            raise BackupDamaged(f"the backup {folder} misses {name}; take another one")
        if sha256(path) != digest:
            raise BackupDamaged(f"in the backup {folder}, {name} is not the file that was copied; take another one")
    step("verifying", len(files), max(1, len(files)))
    return about


def restore(folder: Path, home: Home, step: Step = silent) -> dict[str, Any]:
    """Verify a backup and make a new home of it; return what it holds. A home that holds anything is never written over."""
    about = verify(folder, step)
    if home.path.exists() and any(home.path.iterdir()):
        raise BadInput(f"{home.path} holds something already; restore into a new folder, and move it where you want it")
    with _beside(home.path) as draft:
        for number, name in enumerate(about["files"]):
            step("copying", number, len(about["files"]))
            _copy(folder / name, draft / name)
        step("copying", len(about["files"]), max(1, len(about["files"])))
        if home.path.exists():
            home.path.rmdir()
    return {name: value for name, value in about.items() if name != "files"}


def _copied(home: Home, draft: Path, step: Step) -> dict[str, str]:
    """Copy the parts of a home in the order that keeps them true to each other; return the hash of each file, by name."""
    registry = Registry(home.releases)
    live = registry.current()
    kept = [home.releases / id for id in registry.ids()]
    releases = [path for release in kept for path in sorted(release.rglob("*")) if path.is_file()]
    beside = (home.items, home.keys.parent, home.job, home.forgotten)
    others = [path for folder in beside for path in sorted(folder.rglob("*")) if path.is_file()]
    alone = [path for path in (home.config, home.rules) if path.exists()]
    files: dict[str, str] = {}
    for part in (releases, Log(home.log).segments, others, alone):
        paths = [path for path in (part() if callable(part) else part) if not path.name.startswith(".")]
        for number, path in enumerate(paths):
            step("copying", number, len(paths))
            name = str(path.relative_to(home.path))
            _copy(path, draft / name)
            files[name] = sha256(draft / name)
    if live is not None:
        pointer = draft / registry.pointer.relative_to(home.path)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.write_text(live + "\n")
        files[str(pointer.relative_to(draft))] = sha256(pointer)
    step("copying", 1, 1)
    return files


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    shutil.copymode(source, target)


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """Give an empty folder that gets its name, on the disk with all that is in it, once everything went well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    draft.mkdir()
    try:
        yield draft
        for path in (*draft.rglob("*"), draft):
            sync(path)
        os.rename(draft, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
