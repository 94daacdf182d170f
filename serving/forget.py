"""Everything that is kept of one person, erased, with a receipt."""

import asyncio
import logging
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pyarrow.compute as pc
import redis

from recsys.errors import RecsysError, ReleaseDamaged
from recsys.files import locked
from recsys.forgotten import Forgotten, asked, hashed
from recsys.hidden import did
from recsys.home import Home
from recsys.journal import Journal
from recsys.log import Log
from recsys.progress import Step, silent
from recsys.registry import Registry
from recsys.sessions import owner_numbers
from recsys.settings import Serving, Settings
from recsys.shared import Shared
from recsys.store import StoreAway
from serving.archive import archive
from serving.embedded import RedisNotRunning, end_with, redis_address
from serving.online import shown_key
from serving.profiles import (
    FORM,
    MARK,
    PARTITIONS,
    RETRY_WINDOW,
    gone_keys,
    likers_keys,
    partition_of,
    profile_keys,
    sessions_key,
    stream_key,
)
from serving.warm import remember, warmed

PATIENCE = 120.0
"""Seconds in which Redis must have written its append-only file anew."""

READ = 2000
"""Events of a stream looked at at a time."""

STAYS = "what the towers learned from them together with everybody else; recsys fit trains others, from a log without them"

_log = logging.getLogger("recsys.forget")

LOCK = ".lock-forget"
"""In the folder of the receipts: who holds it erases somebody."""

OF_ONE = f"profile{FORM}", "seen", "sessions", "shown"
"""The keys that are one person's own, by what stands before the name."""

Clean = Callable[[Path, np.ndarray], int]
"""Takes people out of what a release remembers: its folder, and who they are (recsys.sessions.owner_numbers). See training.forget."""


def forget(home: Home, settings: Settings, owner: str, clean: Clean, step: Step = silent) -> dict[str, Any]:
    """Erase a user, or "session:ID", from profiles, streams, log and every release; return the receipt.

    Theirs is what they did as a user, and what was done in one of their sessions by nobody who was signed in. Killed at any point it is
    completed by being run again. Where a store is shared it is erased there, and other machines are told to erase what they have (see
    `complete`). Raises NotErased where a part cannot be erased, once all others are.
    """
    receipts, tenant = Forgotten(home.forgotten), settings.serving.tenant
    with locked(home.forgotten, name=LOCK), _redis(home, settings) as client:
        # before the receipt: from then on the log takes none of the events that tell, and what waits now is of before
        archive(client, tenant, home.log, Journal(home.job), home.shared)
        sessions = _sessions(client, tenant, Log(home.log), owner, receipts.sessions(owner))
        receipt = receipts.begin(owner, (hashed(f"session:{id}") for id in sessions), len(Log(home.log)))
        return _erased(client, home, settings, owner, receipt, clean, step)


def complete(home: Home, settings: Settings, clean: Clean, step: Step = silent) -> list[dict[str, Any]]:
    """Erase who asked to be forgotten on another machine of a shared store, or by a command that was killed; return the receipts.

    Of them only the hash of the name is known: the names are found by it in Redis, in what waits there and in the log, or else are nowhere
    here. Raises NotErased as `forget` does.
    """
    receipts, tenant, done = Forgotten(home.forgotten), settings.serving.tenant, list[dict[str, Any]]()
    if not receipts.pending():
        return done
    with locked(home.forgotten, name=LOCK), _redis(home, settings) as client:
        Log(home.log, home.shared).pull()
        wrong = list[str]()
        for receipt in receipts.pending():
            owner = next((name for name in _people(client, tenant, Log(home.log)) if hashed(name) == receipt["who"]), None)
            try:
                done.append(_erased(client, home, settings, owner, receipt, clean, step))
            except NotErased as error:
                wrong.append(str(error))
    if wrong:
        raise NotErased("; ".join(dict.fromkeys(wrong)))
    return done


def _erased(
    client: redis.Redis, home: Home, settings: Settings, owner: str | None, receipt: dict[str, Any], clean: Clean, step: Step
) -> dict[str, Any]:
    """Erase whom a receipt is of; owner: their name, where it is known here."""
    receipts, serving = Forgotten(home.forgotten), settings.serving
    step("erasing", 0, 4)
    _from_redis(client, home, serving, owner, receipt)
    receipts.write(receipt)
    step("erasing", 1, 4)
    archive(client, serving.tenant, home.log, Journal(home.job), home.shared)  # what waits goes into the log or, if theirs, nowhere
    _from_log(client, home, serving, receipt)
    receipts.write(receipt)
    step("erasing", 2, 4)
    done = set[str]()
    _from_releases(home, receipt, clean, done)
    receipts.write(receipt)  # from here on no update goes live that has read of them
    if home.shared:
        home.shared.fence()
    wrong = _from_releases(home, receipt, clean, done)  # what went live meanwhile
    step("erasing", 3, 4)
    if home.shared:
        receipt["store"] = _from_store(home.shared)
    receipt |= {"redis": _rewritten(client, home), "backups": _backups(home), "stays": STAYS}
    if not wrong:
        receipt["completed"] = datetime.now(UTC).isoformat(timespec="seconds")
    receipts.write(receipt)
    step("erasing", 4, 4)
    if wrong:
        raise NotErased(
            f"erased, but for this: {'; '.join(wrong)}; remove what cannot be read (recsys gc, or its folder), and run it again"
        )
    return receipt


class NotErased(RecsysError):
    """Of a person everything is erased but a part that cannot be read."""


@contextmanager
def _redis(home: Home, settings: Settings) -> Iterator[redis.Redis]:
    """Give the Redis of a home to erase from; whatever it refuses can be asked again."""
    with redis_address(home, settings) as url, redis.Redis.from_url(url) as client:
        try:
            yield client
        except redis.RedisError as error:
            raise RedisNotRunning(f"Redis does not let go of everything: {error}; run it again, it goes on where it stopped") from None


def _from_redis(client: redis.Redis, home: Home, serving: Serving, owner: str | None, receipt: dict[str, Any]) -> None:
    """Keep the past of a person out of Redis and the log from now on, and remove what is in Redis of them but for what waits in streams."""
    kept = max(int(serving.profile_days * 86_400), RETRY_WINDOW)

    def mark(keys: Iterable[str]) -> None:
        with client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.eval(MARK, 1, key, receipt["at"], receipt["at"], kept)
            pipeline.execute()

    mark([profile_keys(serving.tenant, owner)[3]] if owner else gone_keys(serving.tenant, receipt["who"]))
    if home.shared:
        home.shared.ask_to_forget(receipt["who"], asked(receipt))
        Log(home.log, home.shared).pull()  # what others have put there tells of sessions
    sessions = {f"session:{id}" for id in _sessions(client, serving.tenant, Log(home.log), owner, {*receipt["sessions"]})}
    names = [*([owner] if owner else []), *sorted(sessions)]
    receipt["sessions"] = sorted({*receipt["sessions"], *map(hashed, sessions)})
    receipt["numbers"] = sorted({*receipt.get("numbers", []), *owner_numbers(names).tolist()})
    Forgotten(home.forgotten).write(receipt)
    if home.shared:
        home.shared.ask_to_forget(receipt["who"], asked(receipt))  # the log is everybody's: it must take none of these, too
    nameless = {*receipt["sessions"]} - {*map(hashed, sessions)}  # sessions of which nothing else is left here
    mark(key for session in sorted(nameless) for key in gone_keys(serving.tenant, session))
    for name in names:
        profile, seen, _, gone = profile_keys(serving.tenant, name)
        mark([gone])
        theirs = profile, seen, shown_key(serving.tenant, name), sessions_key(serving.tenant, name)
        _count(receipt, "keys in Redis", sum(client.unlink(key) for key in theirs))
        for key in client.scan_iter(match=likers_keys(serving.tenant, partition_of(name)), count=1000):
            for member in [member for member in client.sscan_iter(key, count=1000) if member.endswith(f"\0{name}".encode())]:
                _count(receipt, "keys in Redis", client.srem(key, member))


def _from_log(client: redis.Redis, home: Home, serving: Serving, receipt: dict[str, Any]) -> None:
    """Write the log anew without them, and what tells how far it was read where that told one of their events."""
    log = Log(home.log, home.shared)
    offset = warmed(client, log, serving)
    _count(receipt, "events in the log", log.erase(partial(did, receipt)))
    if offset:
        remember(client, log, offset, serving)


def _from_releases(home: Home, receipt: dict[str, Any], clean: Clean, done: set[str]) -> list[str]:
    """Take them out of what releases remember that are not `done`; return what stood in the way."""
    registry, whose, wrong = Registry(home.releases, home.shared), np.array(receipt["numbers"], np.uint64), []
    try:
        registry.pull(all=len(whose) > 0)  # of a store that is shared: each release has to be here to be written anew
    except ReleaseDamaged as error:
        wrong.append(str(error))
    if not home.releases.exists():
        return wrong

    def cleaned(folder: Path) -> None:
        _count(receipt, "remembered in releases", clean(folder, whose))

    registry.sweep()
    for id in sorted({*registry.ids()} - done):
        try:
            registry.rewrite(id, cleaned)
            done.add(id)
        except StoreAway:
            raise
        except RecsysError as error:
            why = str(error).partition("; roll back")[0]
            wrong.append(why if why.startswith(f"release {id}") else f"release {id}: {why}")
    return wrong


def _from_store(shared: Shared) -> str:
    """Remove from a store what no line of its journal names; say what it cannot let go of."""
    shared.purge()
    told = "what it held of them was written anew; each machine erases what it has when it looks next (recsys forget --pending)"
    if shared.store.keeps_versions():
        told += "; its bucket keeps versions: let the older ones expire (a lifecycle rule for noncurrent versions)"
    return told


def _sessions(client: redis.Redis, tenant: str, log: Log, user: str | None, before: set[str]) -> set[str]:
    """Return the sessions that a user was seen in or signed in from, by Redis, by the log and by what waits for it.

    before: as `hashed` has those known from an earlier time: who goes on in one of these is there by the hash of its name.
    """
    found = set()
    if user is not None:
        told = log.read(columns=["user_id", "session_id"])
        found |= {id.decode() for id in cast(list[bytes], client.zrange(sessions_key(tenant, user), 0, -1))}
        found |= set(pc.unique(told.filter(pc.equal(told["user_id"], user))["session_id"].drop_null()).to_pylist())
        for event in _waiting(client, stream_key(tenant, partition_of(user))):
            if event["user_id"] == user and event.get("session_id") is not None:
                found.add(event["session_id"])
    sessions = (name.removeprefix("session:") for name in (_people(client, tenant, log) if before else ()) if name.startswith("session:"))
    return found | {id for id in sessions if hashed(f"session:{id}") in before}


def _people(client: redis.Redis, tenant: str, log: Log) -> Iterator[str]:
    """Give everybody of whom anything is here, users and "session:ID", some more than once: by the log, by Redis, by what waits there."""
    told = log.read(columns=["user_id", "session_id"])
    yield from pc.unique(told["user_id"].drop_null()).to_pylist()
    yield from (f"session:{id}" for id in pc.unique(told["session_id"].drop_null()).to_pylist())
    for kind in OF_ONE:
        for key in client.scan_iter(match=f"{{{tenant}:*}}:{kind}:*", count=1000):
            yield key.decode().partition(f"}}:{kind}:")[2]
    for partition in range(PARTITIONS):
        for event in _waiting(client, stream_key(tenant, partition)):
            yield from (event["user_id"],) if event.get("user_id") is not None else ()
            yield from (f"session:{event['session_id']}",) if event.get("session_id") is not None else ()


def _waiting(client: redis.Redis, stream: str) -> Iterator[dict[str, Any]]:
    """Give the events that wait in a stream."""
    after = "-"
    while some := cast(list[tuple[bytes, dict[bytes, bytes]]], client.xrange(stream, min=after, count=READ)):
        yield from (orjson.loads(fields[b"event"]) for _, fields in some)
        after = f"({some[-1][0].decode()}"


def _rewritten(client: redis.Redis, home: Home) -> str:
    """Let Redis write its append-only file anew, without the commands of old; say what became of it."""
    if not client.info("persistence")["aof_enabled"]:
        return "it keeps no append-only file; if it takes snapshots, the next one is without them"
    deadline = time.monotonic() + PATIENCE

    def wait(busy: Callable[[], object]) -> None:
        while busy():
            if time.monotonic() > deadline:
                raise redis.TimeoutError(f"its append-only file was not written anew in {PATIENCE:.0f} s")
            time.sleep(0.02)

    def writing() -> bool:
        about = client.info("persistence")
        return bool(about["aof_rewrite_in_progress"] or about["aof_rewrite_scheduled"])

    wait(writing)  # one that began before this one's turn may hold what was there then
    client.bgrewriteaof()
    wait(writing)
    if client.info("persistence")["aof_last_bgrewrite_status"] != "ok":
        raise redis.RedisError("it cannot write its append-only file anew; see its log")
    folder = home.redis / "appendonlydir"
    wait(lambda: folder.exists() and len(list(folder.iterdir())) > 3)  # the old files go a little later: base, increment, manifest stay
    return "its append-only file was written anew"


def _backups(home: Home) -> list[dict[str, Any]]:
    """Return the backups that were made of a home, and whether they are still where they were put."""
    made = [line for line in Journal(home.job).read() if line["what"] == "backup"]
    return [{"folder": line["folder"], "made": line["time"], "there": Path(line["folder"]).exists()} for line in made]


class Forgetting:
    """Erases people of a home in a process of its own, one after the other: who answers requests has no time for that."""

    def __init__(self, home: Home, settings: Settings, url: str):
        self.home, self.look_seconds = home, settings.store.look_seconds
        told = {"serving.tenant": settings.serving.tenant, "serving.profile_days": settings.serving.profile_days}
        told |= {"serving.profile_events": settings.serving.profile_events}
        told |= {"store.url": settings.store.url, "store.endpoint": settings.store.endpoint}
        self.told = [word for name, value in told.items() if value for word in ("--set", f"{name}={value}")]
        self.environ = {**os.environ, "RECSYS_REDIS_URL": url}
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, owner: str) -> dict[str, Any]:
        """Erase a user, or "session:ID"; return the receipt, raise RecsysError with what stood in the way."""
        receipt: dict[str, Any] = await self._run("-", owner)  # not among the arguments, which everybody on the machine sees
        return receipt

    async def watch(self) -> None:
        """Complete what was asked for on another machine, or begun here and killed, until cancelled. What cannot be is told in the log."""
        wrong, pause = "", self.look_seconds
        while True:
            await asyncio.sleep(pause)
            pause, pending = self.look_seconds, await asyncio.to_thread(Forgotten(self.home.forgotten).pending)
            if not pending:
                continue
            try:
                done = await self._run("--pending")
                _log.info("erased whom others asked to be forgotten: %d receipts", len(done["completed"]))
                wrong = ""
            except RecsysError as error:
                if str(error) != wrong:
                    _log.error("somebody is not forgotten wholly yet: %s", error)
                wrong, pause = str(error), max(60.0, self.look_seconds)

    async def _run(self, what: str, told: str = "") -> Any:
        command = [sys.executable, "-m", "recsys.cli", "forget", what, "--json", "--home", str(self.home.path), *self.told]
        async with self._one_at_a_time:
            child = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=self.environ, preexec_fn=end_with(os.getpid())
            )
            answer, trouble = await child.communicate(told.encode())
        if child.returncode:
            raise RecsysError(trouble.decode(errors="replace").strip().removeprefix("error: "))
        return orjson.loads(answer)


def _count(receipt: dict[str, Any], what: str, number: int) -> None:
    receipt["erased"][what] = receipt["erased"].get(what, 0) + number
