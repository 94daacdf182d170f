"""What the pages Updates, Index & drift and System ask: releases, job, index, how far an update moved things, processes, Redis, disk."""

import asyncio
import os
import platform
import threading
import time
import tomllib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import orjson
import pyarrow as pa
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import Response
from redis.exceptions import ResponseError

from recsys import running
from recsys.errors import RecsysError, ReleaseNotFound
from recsys.home import Home
from recsys.index import ABOUT as INDEX
from recsys.index import FILE as INDEX_FILE
from recsys.journal import FILE as JOURNAL
from recsys.journal import Journal
from recsys.registry import MANIFEST, Registry
from recsys.trial import Trials
from serving.answers import AWAY
from serving.console.movement import moved
from serving.messages import Id
from serving.profiles import PARTITIONS, stream_key
from serving.strict import no_unknown_parameter
from serving.workers import Worker, resident

MOST = 200
"""Releases that are told of, and twice as many lines of the journal: the newest."""

REMEMBERED = 512
"""Answers about releases that are kept: these never change."""

WAIT = 0.5
"""Seconds that Redis has to say how it is."""

LOOK = 10.0
"""Seconds in which the disk is looked through once at most."""

FILES = 200_000
"""Files that are counted at most."""

ABOUT_REDIS = {
    "redis_version", "uptime_in_seconds", "used_memory", "used_memory_rss", "used_memory_peak", "maxmemory", "mem_fragmentation_ratio",
    "connected_clients", "blocked_clients", "instantaneous_ops_per_sec", "total_commands_processed", "evicted_keys", "expired_keys",
    "aof_enabled", "aof_last_write_status", "aof_current_size", "rdb_last_bgsave_status", "role",
}  # fmt: skip
"""What is told of all that INFO says."""

PACKAGES = ("recsys", "fastapi", "uvicorn", "onnxruntime", "faiss-cpu", "numpy", "pyarrow", "redis", "prometheus-client")

T = TypeVar("T")

operations = APIRouter(prefix="/v1/console", include_in_schema=False, dependencies=[Depends(no_unknown_parameter)])


class _Answers:
    """Answers by what they depend on, the newest so many; each is made by one thread at a time."""

    def __init__(self, most: int):
        self.most, self._lock = most, threading.Lock()
        self._answers: OrderedDict[Hashable, Any] = OrderedDict()

    def of(self, key: Hashable, make: Callable[[], T]) -> T:
        with self._lock:
            if key not in self._answers:
                self._answers[key] = make()
                while len(self._answers) > self.most:
                    self._answers.popitem(last=False)
            self._answers.move_to_end(key)
            found: T = self._answers[key]
            return found


_releases, _movements, _lines, _disks = _Answers(REMEMBERED), _Answers(REMEMBERED), _Answers(4), _Answers(4)


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json", headers={"cache-control": "no-store"})


@operations.get("/releases")
async def releases(request: Request) -> Response:
    """Say of each release, oldest first, what its manifest says, by which strategy it was made, how large it is, and of its index."""
    return _json(await asyncio.to_thread(_all_releases, _home(request)))


def _all_releases(home: Home) -> dict[str, Any]:
    registry = Registry(home.releases)
    ids = registry.ids()
    told = {id: _release(registry, id) for id in ids[-MOST:]}
    return {
        "live": registry.current(),
        "releases": [about for about in told.values() if about],
        "unreadable": [id for id, about in told.items() if about is None and (registry.folder / id).exists()],
        "left_out": max(0, len(ids) - MOST),
    }


def _release(registry: Registry, id: str) -> dict[str, Any] | None:
    """Return what is told of a release, None where it is gone meanwhile or cannot be read."""
    try:
        return _releases.of(_made(registry, id), lambda: _read(registry, id))
    except (OSError, ValueError, KeyError, TypeError, RecsysError):
        return None


def _read(registry: Registry, id: str) -> dict[str, Any]:
    release = registry.open(id)
    manifest = release.manifest
    config = tomllib.loads(release.file("config.toml").read_text())
    index = orjson.loads(release.file(INDEX).read_bytes())
    sizes = {name: release.file(name).stat().st_size for name in manifest["files"]}
    return {
        **{name: value for name, value in manifest.items() if name not in ("files", "sha256", "kinds")},
        "strategy": config.get("update", {}).get("strategy"),
        "bytes": sum(sizes.values()),
        "index": {
            **{name: index.get(name) for name in ("items", "kind", "recall@100")},
            "exact": "IVF" not in str(index.get("kind")),
            "bytes": sizes.get(INDEX_FILE),
        },
    }


def _made(registry: Registry, id: str) -> Hashable:
    """Tell a release from one of another home, and from the same one without somebody who was forgotten."""
    about = (registry.folder / id / MANIFEST).stat()
    return str(registry.folder), id, about.st_ino, about.st_mtime_ns


@operations.get("/job")
async def job(request: Request, have: Annotated[int, Query(ge=0, description="lines that are known already")] = 0) -> Response:
    """Say what is in the journal, newest last, what is on trial and how it compares, and what is being trained."""
    found = await asyncio.to_thread(_job, _home(request), have)
    if trial := found["trial"]:
        trial["so_far"] = (so_far := request.app.state.trial_watch.so_far(trial["began"])) and str(so_far)
    return _json(found)


def _job(home: Home, have: int = 0) -> dict[str, Any]:
    journal = Journal(home.job)
    try:
        trial, wrong = Trials(home.releases).now(), None
    except RecsysError as error:
        trial, wrong = None, str(error)
    try:
        about = (home.job / JOURNAL).stat()
        key: Hashable = str(home.job), about.st_ino, about.st_size, about.st_mtime_ns
        lines, refusals, back = _lines.of(key, lambda: (journal.read(), journal.refusals(), journal.rolled_back_to()))
    except FileNotFoundError:
        lines, refusals, back = [], 0, None
    first = max(have if have <= len(lines) else 0, len(lines) - 2 * MOST)  # fewer than are known: it is another journal
    return {
        "lines": lines[first:],
        "first": first,
        "refused_in_a_row": refusals,
        "rolled_back_to": back,
        "trial": dict(vars(trial)) if trial else None,
        "trial_wrong": wrong,
        "running": running.now(home.job),
    }


@operations.get("/index")
async def index(request: Request) -> Response:
    """Say what the index of the live snapshot is, and what stands beside it."""
    snapshot = request.app.state.engine.snapshot
    if snapshot is None:
        return _json({"release": None, "missing": request.app.state.engine.missing})
    held = snapshot.index.faiss
    exact = not hasattr(held, "nlist")
    return _json(
        {
            "release": snapshot.id,
            "kind": "exact" if exact else "IVF, fp16 codes",
            "lists": None if exact else held.nlist,
            "lists_asked": None if exact else held.nprobe,
            "popular_beside": len(snapshot.index.head),
            "items": len(snapshot.index),
            "width": int(snapshot.vectors.width),
            "recall": snapshot.index.recall,
            "delta": len(snapshot.vocab.more),
            "tombstones": int(snapshot.withdrawn.sum()),
            "towers": snapshot.index.towers,
            "learned_until": snapshot.now,
        }
    )


@operations.get("/movement/{release}")
async def movement(request: Request, release: Annotated[Id, PathParameter()]) -> Response:
    """Say how far an update moved its parent's item vectors and what is popular."""
    return _json(await asyncio.to_thread(_movement, _home(request), release))


def _movement(home: Home, id: str) -> dict[str, Any]:
    registry = Registry(home.releases)
    try:
        release = registry.open(id)
        parent = release.manifest.get("parent")
        if parent is None or parent not in registry.ids():
            why = "the first release has none before it" if parent is None else f"release {parent}, from which it came, is gone (recsys gc)"
            return {"release": id, "parent": parent, "missing": why}
        key = _made(registry, id), _made(registry, parent)
        return _movements.of(key, lambda: {"release": id, "parent": parent, **moved(release, registry.open(parent))})
    except ReleaseNotFound as error:
        raise HTTPException(404, str(error)) from None
    except (RecsysError, OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise HTTPException(409, f"release {id} cannot be compared with the one from which it came: {error}") from None


@operations.get("/system")
async def system(request: Request) -> Response:
    """Say which processes answer and what they serve, how Redis is, and what waits there for the archiver."""
    state = request.app.state
    worker: Worker = state.worker
    workers, machine = await asyncio.to_thread(lambda: (worker.all(), _machine(_home(request))))
    found = {
        "now": round(time.time(), 3),
        "live": state.engine.registry.current(),
        "answered_by": os.getpid(),
        "workers": [{**told, "bytes": resident(told["pid"])} for told in workers],
        "redis": None,
        "waiting": None,
        **machine,
    }
    try:
        try:
            found["redis"] = _info(await state.profiles.wire.call("INFO", within=WAIT))
        except ResponseError as error:
            found["redis_refuses"] = f"Redis answers, but does not tell how it is: {error}"
        found["waiting"] = await _waiting(state.profiles)
    except AWAY as error:
        found["redis_away"] = f"Redis does not answer: {error or type(error).__name__}"
    return _json(found)


def _info(said: bytes) -> dict[str, Any]:
    pairs = (line.partition(":") for line in said.decode(errors="replace").splitlines())
    told: dict[str, Any] = {name: value for name, _, value in pairs if name in ABOUT_REDIS}
    for name, value in told.items():
        with suppress(ValueError):
            told[name] = float(value) if "." in value else int(value)
    return told


async def _waiting(profiles: Any) -> dict[str, Any]:
    """Return how many events wait for the archiver, and since when the oldest does, ms."""
    streams = [stream_key(profiles.tenant, partition) for partition in range(PARTITIONS)]
    replies = await profiles.wire.calls(
        [*(("XLEN", key) for key in streams), *(("XRANGE", key, "-", "+", "COUNT", 1) for key in streams)], WAIT
    )
    lengths, firsts = replies[:PARTITIONS], replies[PARTITIONS:]
    oldest = [int(first[0][0].partition(b"-")[0]) for first in firsts if isinstance(first, list) and first]
    return {"events": sum(n for n in lengths if isinstance(n, int)), "oldest": min(oldest, default=None)}


def _machine(home: Home) -> dict[str, Any]:
    newest = max((path.stat().st_mtime for path in home.log.glob("*.parquet")), default=None)
    return {
        "archived": newest and int(newest * 1000),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "system": f"{platform.system()} {platform.release()}",
        "home": str(home.path),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@operations.get("/disk")
async def disk(request: Request) -> Response:
    """Say how many bytes each folder of the home takes, and how many are free."""
    home = _home(request)
    return _json(await asyncio.to_thread(lambda: _disks.of((str(home.path), int(time.monotonic() / LOOK)), lambda: _disk(home))))


def _disk(home: Home) -> dict[str, Any]:
    folders: dict[str, dict[str, int]] = {}
    seen: set[tuple[int, int]] = set()
    for folder, _, names in os.walk(home.path):
        part = Path(folder).relative_to(home.path).parts
        about = folders.setdefault(part[0] if part else "", {"bytes": 0, "files": 0})
        for name in names:
            with suppress(OSError):
                stat = os.lstat(os.path.join(folder, name))
                if (stat.st_dev, stat.st_ino) not in seen:  # a link is no more bytes
                    seen.add((stat.st_dev, stat.st_ino))
                    about["bytes"] += stat.st_size
                    about["files"] += 1
        if len(seen) >= FILES:
            break
    space = os.statvfs(home.path)
    return {
        "folders": {name: about for name, about in folders.items() if about["files"]},
        "counted_all": len(seen) < FILES,
        "free": space.f_bavail * space.f_frsize,
        "of": space.f_blocks * space.f_frsize,
    }


def _home(request: Request) -> Home:
    home: Home = request.app.state.home
    return home
