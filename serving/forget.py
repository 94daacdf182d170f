"""Everything that is kept of one person, erased, with a receipt."""

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
import pyarrow.compute as pc
import redis

from recsys.errors import BadInput, RecsysError
from recsys.forgotten import Forgotten, did, hashed
from recsys.home import Home
from recsys.journal import Journal
from recsys.log import Log
from recsys.progress import Step, silent
from recsys.registry import Registry
from recsys.sessions import owner_numbers
from recsys.settings import Serving, Settings
from serving.archive import archive
from serving.embedded import RedisNotRunning, end_with, redis_address
from serving.online import shown_key
from serving.profiles import FORM, MARK, PARTITIONS, RETRY_WINDOW, likers_keys, partition_of, profile_keys, sessions_key, stream_key
from serving.warm import remember, warmed

PATIENCE = 120.0
"""Seconds in which Redis must have written its append-only file anew."""

READ = 2000
"""Events of a stream looked at at a time."""

STAYS = "what the towers learned from them together with everybody else; recsys fit trains others, from a log without them"

Clean = Callable[[Path, np.ndarray], int]
"""Takes people out of what a release remembers: its folder, and who they are (recsys.sessions.owner_numbers). See training.forget."""


def forget(home: Home, settings: Settings, owner: str, clean: Clean, step: Step = silent) -> dict[str, Any]:
    """Erase a user, or "session:ID", from profiles, streams, log and every release; return the receipt.

    Theirs is what they did as a user, and what was done in one of their sessions by nobody who was signed in. Killed at any point it is
    completed by being run again. Raises RecsysError where a part cannot be erased, once all others are.
    """
    if (home.store / "state.json").exists():
        raise BadInput(
            f"the home {home.path} shares a store, from which nobody can be forgotten yet. Leave store.url empty and remove {home.store}; "
            "forget them; then name a new folder in store.url, join the other machines to it with empty homes, and remove the old folder"
        )
    receipts = Forgotten(home.forgotten)
    with redis_address(home, settings) as url, redis.Redis.from_url(url) as client:
        try:
            # before the receipt: from then on the log takes none of the events that tell
            sessions = _sessions(client, settings.serving.tenant, Log(home.log), owner, receipts.sessions(owner))
            receipt = receipts.begin(owner, (hashed(f"session:{id}") for id in sessions))
            step("erasing", 0, 4)
            _from_redis(client, home, settings.serving, owner, receipt)
            receipts.write(receipt)
            step("erasing", 1, 4)
            archive(client, settings.serving.tenant, home.log, Journal(home.job))  # what waits goes into the log or, if theirs, nowhere
            _from_log(client, home, settings.serving, receipt)
            receipts.write(receipt)
            step("erasing", 2, 4)
            wrong = _from_releases(home, receipt, clean)
            step("erasing", 3, 4)
            receipt["redis"] = _rewritten(client, home)
        except redis.RedisError as error:
            raise RedisNotRunning(f"Redis does not let go of everything: {error}; run it again, it goes on where it stopped") from None
    receipt |= {"backups": _backups(home), "stays": STAYS}
    if not wrong:
        receipt["completed"] = datetime.now(UTC).isoformat(timespec="seconds")
        del receipt["numbers"]
    receipts.write(receipt)
    step("erasing", 4, 4)
    if wrong:
        raise RecsysError(
            f"erased, but for this: {'; '.join(wrong)}; remove what cannot be read (recsys gc, or its folder), and run it again"
        )
    return receipt


def _from_redis(client: redis.Redis, home: Home, serving: Serving, owner: str, receipt: dict[str, Any]) -> None:
    """Keep the past of a person out of Redis and the log from now on, and remove what is in Redis of them but for what waits in streams."""
    kept = max(int(serving.profile_days * 86_400), RETRY_WINDOW)
    client.eval(MARK, 1, profile_keys(serving.tenant, owner)[3], receipt["at"], receipt["at"], kept)
    sessions = _sessions(client, serving.tenant, Log(home.log), owner, {*receipt["sessions"]})
    names = [owner, *(f"session:{id}" for id in sorted(sessions))]
    receipt["sessions"] = sorted({*receipt["sessions"], *map(hashed, names[1:])})
    receipt["numbers"] = sorted({*receipt.get("numbers", []), *owner_numbers(names).tolist()})
    Forgotten(home.forgotten).write(receipt)
    for key in client.scan_iter(match=f"{{{serving.tenant}:*}}:gone:*", count=1000):  # sessions of which nothing else is left
        if key.decode().rpartition(":")[2] in receipt["sessions"]:
            client.eval(MARK, 1, key, receipt["at"], receipt["at"], kept)
    for name in names:
        profile, seen, _, gone = profile_keys(serving.tenant, name)
        client.eval(MARK, 1, gone, receipt["at"], receipt["at"], kept)
        theirs = profile, seen, shown_key(serving.tenant, name), sessions_key(serving.tenant, name)
        _count(receipt, "keys in Redis", sum(client.unlink(key) for key in theirs))
        for key in client.scan_iter(match=likers_keys(serving.tenant, partition_of(name)), count=1000):
            for member in [member for member in client.sscan_iter(key, count=1000) if member.endswith(f"\0{name}".encode())]:
                _count(receipt, "keys in Redis", client.srem(key, member))


def _from_log(client: redis.Redis, home: Home, serving: Serving, receipt: dict[str, Any]) -> None:
    """Write the log anew without them, and what tells how far it was read where that told one of their events."""
    log = Log(home.log)
    offset = warmed(client, log, serving)
    theirs = partial(did, {receipt["who"], *receipt["sessions"]}, receipt["at"])
    _count(receipt, "events in the log", log.erase(theirs))
    if offset:
        remember(client, log, offset, serving)


def _from_releases(home: Home, receipt: dict[str, Any], clean: Clean) -> list[str]:
    """Take them out of what releases remember; return what stood in the way."""
    registry, whose, wrong = Registry(home.releases), np.array(receipt["numbers"], np.uint64), []
    if not home.releases.exists():
        return []

    def cleaned(folder: Path) -> None:
        _count(receipt, "remembered in releases", clean(folder, whose))

    registry.sweep()
    for id in registry.ids():
        try:
            registry.rewrite(id, cleaned)
        except RecsysError as error:
            why = str(error).partition("; roll back")[0]
            wrong.append(why if why.startswith(f"release {id}") else f"release {id}: {why}")
    return wrong


def _sessions(client: redis.Redis, tenant: str, log: Log, user: str, before: set[str]) -> set[str]:
    """Return the sessions that a user was seen in or signed in from, by Redis, by the log and by what waits for it.

    before: as `hashed` has those known from an earlier time: who goes on in one of these is there by the hash of its name.
    """
    told = log.read(columns=["user_id", "session_id"])
    found = {id.decode() for id in cast(list[bytes], client.zrange(sessions_key(tenant, user), 0, -1))}
    found |= set(pc.unique(told.filter(pc.equal(told["user_id"], user))["session_id"].drop_null()).to_pylist())
    others = set(pc.unique(told["session_id"].drop_null()).to_pylist()) if before else set()
    for kind in (f":profile{FORM}:session:", ":seen:session:") if before else ():
        keys = client.scan_iter(match=f"{{{tenant}:*}}{kind}*", count=1000)
        others |= {key.decode().split(kind, 1)[1] for key in keys}
    for partition in range(PARTITIONS) if before else [partition_of(user)]:
        for event in _waiting(client, stream_key(tenant, partition)):
            if event.get("session_id") is not None:
                (found if event["user_id"] == user else others).add(event["session_id"])
    return found | {id for id in others if hashed(f"session:{id}") in before}


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
        self.home, self.tenant, self.url = home, settings.serving.tenant, url
        self._one_at_a_time = asyncio.Lock()

    async def __call__(self, owner: str) -> dict[str, Any]:
        """Erase a user, or "session:ID"; return the receipt, raise RecsysError with what stood in the way."""
        command = [sys.executable, "-m", "recsys.cli", "forget", "-", "--json", "--home", str(self.home.path)]
        told = {"RECSYS_REDIS_URL": self.url, "RECSYS_SERVING__TENANT": self.tenant}
        async with self._one_at_a_time:
            child = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env={**os.environ, **told}, preexec_fn=end_with(os.getpid())
            )
            receipt, trouble = await child.communicate(owner.encode())  # not among the arguments, which everybody on the machine sees
        if child.returncode:
            raise RecsysError(trouble.decode(errors="replace").strip().removeprefix("error: "))
        return dict(orjson.loads(receipt))


def _count(receipt: dict[str, Any], what: str, number: int) -> None:
    receipt["erased"][what] = receipt["erased"].get(what, 0) + number
