"""Redis killed by -9 again and again under load, while an archiver works: `make chaos`. Every acknowledged event is looked for afterwards.

Whoever sends an event sends it again until it is acknowledged, as the API's clients are told to. Then every event must be in the log
once, and every profile must be what the events say. A naive server, which does the same in three commands instead of one script, is put
through it as well, and must fail: else nothing here can be trusted to see.
"""

import asyncio
import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import redis
from redis.exceptions import RedisError

from recsys.events import CODE
from recsys.log import Log
from serving.archive import archive
from serving.embedded import EmbeddedRedis
from serving.history import Event
from serving.profiles import Profiles, member, profile_keys
from serving.wire import Wire

USERS, CALLERS, TENANT = 50, 16, "chaos"
NOW = 1_700_000_000_000


class Naive(Profiles):
    """Three commands where one script should be."""

    async def merge(self, batch: Sequence[Event]) -> list[bool]:
        new = []
        for event in batch:
            profile, seen, stream, _ = profile_keys(self.tenant, event.owner)
            fresh = await self.wire.call("ZADD", seen, "NX", 1, event.id)
            if fresh:
                await self.wire.call("XADD", stream, "*", "event", orjson.dumps(event))
                await self.wire.call("ZADD", profile, event.timestamp, member(event))
            new.append(bool(fresh))
        return new


async def load(profiles: Profiles, over: asyncio.Event, sent: dict[str, Event]) -> None:
    """Send events, each until it is acknowledged, until it is over."""

    async def call(caller: int) -> None:
        rng, number = random.Random(caller), 0
        while not over.is_set():
            number += 1
            event = Event(f"i{rng.randrange(100)}", "play", NOW + rng.randrange(10**9), f"{caller}-{number}", f"u{rng.randrange(USERS)}")
            while True:
                try:
                    await profiles.merge([event])
                    break
                except (RedisError, OSError, TimeoutError):
                    await asyncio.sleep(0.01)
            sent[event.id] = event

    await asyncio.gather(*(call(caller) for caller in range(CALLERS)))


async def kill(server: EmbeddedRedis, kills: int, over: asyncio.Event) -> None:
    """End the server at random moments; wait until it is there again each time."""
    rng = random.Random(0)
    for _ in range(kills):
        await asyncio.sleep(rng.uniform(0.02, 0.3))
        before = server.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        while server.pid == before or not _answers(server.url):
            await asyncio.sleep(0.01)
    over.set()


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=0.2, socket_timeout=0.2) as client:
            return bool(client.ping())
    except RedisError:
        return False


async def collect(url: str, folder: Path, over: asyncio.Event) -> None:
    """Archive again and again, whatever happens to Redis meanwhile."""
    while not over.is_set():
        await asyncio.to_thread(_archive, url, folder)
        await asyncio.sleep(0.05)


def _archive(url: str, folder: Path) -> None:
    try:
        with redis.Redis.from_url(url, socket_timeout=2) as client:
            archive(client, TENANT, folder)
    except RedisError:
        pass  # it goes on from there the next time


async def put_through(kind: type[Profiles], kills: int, folder: Path) -> dict[str, Any]:
    """Put one kind of server through it; return what was found afterwards."""
    sent: dict[str, Event] = {}
    began = time.monotonic()
    with EmbeddedRedis(folder / "redis", "always") as server:
        wire, over = Wire(server.url), asyncio.Event()
        profiles = kind(wire, TENANT, limit=100_000)
        await asyncio.gather(load(profiles, over, sent), kill(server, kills, over), collect(server.url, folder / "log", over))
        _archive(server.url, folder / "log")
        logged = Counter(Log(folder / "log").read(columns=["event_id"])["event_id"].to_pylist())
        wrong = 0
        for user in range(USERS):
            mine = sorted((event.timestamp, member(event), event.item_id) for event in sent.values() if event.user_id == f"u{user}")
            found = await profiles.read(f"u{user}")
            told = list(zip(found.times, found.items, found.kinds, strict=True))
            wrong += told != [(when, item, CODE["play"]) for when, _, item in mine]
        wire.close()
    return {
        "kills": kills,
        "acknowledged": len(sent),
        "lost": len(set(sent) - set(logged)),
        "doubled": sum(count > 1 for count in logged.values()),
        "never sent": len(set(logged) - set(sent)),
        "wrong profiles": wrong,
        "of profiles": USERS,
        "seconds": round(time.monotonic() - began, 1),
    }


def main(kills: int) -> int:
    """Put both through it; return the exit code."""
    logging.disable()  # that Redis ended is no news here
    with tempfile.TemporaryDirectory(prefix="recsys-chaos-") as folder:
        ours = asyncio.run(put_through(Profiles, kills, Path(folder) / "ours"))
        print("ours ", json.dumps(ours), flush=True)
        naive = asyncio.run(put_through(Naive, kills, Path(folder) / "naive"))
        print("naive", json.dumps(naive), flush=True)
    faults = ("lost", "doubled", "never sent", "wrong profiles")
    if any(ours[name] for name in faults):
        print("FAILED: an acknowledged event was lost or counted twice, or a profile is wrong")
        return 1
    if not any(naive[name] for name in faults):
        print("FAILED: the naive server came through; what looks for faults does not see them")
        return 1
    print("passed: nothing acknowledged was lost or counted twice; the naive server failed, as it must")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
