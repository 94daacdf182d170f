"""From the streams to the event log, exactly once."""

import logging
import time
import uuid
from pathlib import Path
from typing import Any, cast

import orjson
import pyarrow as pa
import redis

from recsys.events import SCHEMA
from recsys.files import locked
from recsys.home import Home
from recsys.journal import Journal
from recsys.log import Log
from recsys.settings import Settings
from recsys.shared import Shared
from serving.embedded import RedisNotRunning, redis_address
from serving.profiles import PARTITIONS, stream_key

_log = logging.getLogger("recsys.archive")

TRIM = """
redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
if ARGV[2] ~= '0' then redis.call('INCRBY', KEYS[2], ARGV[2]) end
"""

Loss = tuple[int, str]
"""A partition, and what was lost there."""

READ = 2000
"""Events taken from one partition at a time."""

NOTE = "note.stream."
COUNT = "note.taken."
PASSED = "passed"
"""Ends the key that counts, beside a stream, events that the log held already when they were taken: no segment, so no note."""

LOCK = ".lock-archive"
"""In the folder of the log: who holds it archives."""

STREAMS = "note.streams"
"""Which Redis the stream ids belong to: a name made at random, kept there."""


def archive_home(home: Home, settings: Settings) -> int:
    """Move what waits in the Redis of a home into its log; return how many events the log gained."""
    own = not settings.serving.redis_url
    if own and not home.redis.exists():
        return 0  # nothing was ever taken in
    with redis_address(home, settings) as url:
        for left in reversed(range(20)):
            client = redis.Redis.from_url(url)
            try:
                return archive(client, settings.serving.tenant, home.log, Journal(home.job), home.shared)
            except redis.RedisError as error:
                if own and left:  # whoever ran it has ended, and it comes again at the same address (serving.embedded)
                    time.sleep(0.25)
                    continue
                hint = "" if own else "; is RECSYS_REDIS_URL right?"
                raise RedisNotRunning(f"cannot read the event streams: {error}{hint}") from None
            finally:
                client.close()
    raise AssertionError("the last look returns or raises")


def archive(client: redis.Redis, tenant: str, folder: Path, journal: Journal | None = None, shared: Shared | None = None) -> int:
    """Move what waits in the streams of a tenant into the log in `folder`; return how many events the log gained.

    The id of the last event taken from each partition travels in the segment that holds the events, so both are
    committed in one step; a stream is trimmed only behind that. Killed at any point, it can simply be run again:
    events that were committed but not trimmed are skipped by these ids, and by their event ids. What a stream has lost is told to the
    journal, for nobody can bring it back (see `_set_back` and `_removed`). Of two at once (the archiver beside a server, and the job) one
    waits for the other: what that one takes meanwhile would look like lost.
    """
    with locked(folder, name=LOCK):
        return _archive(client, tenant, folder, journal, shared)


def _archive(client: redis.Redis, tenant: str, folder: Path, journal: Journal | None, shared: Shared | None) -> int:
    log = Log(folder, shared)
    log.pull()
    notes = log.notes()
    streams = _name_of_streams(client, tenant)
    mine = notes.get(STREAMS) == streams
    taken = {int(name.removeprefix(NOTE)): id for name, id in notes.items() if mine and name.startswith(NOTE)}
    count = {int(name.removeprefix(COUNT)): int(n) for name, n in notes.items() if mine and name.startswith(COUNT)}
    lost = _set_back(client, tenant, taken)  # before anything is trimmed by ids that it may not know
    _trim(client, tenant, taken)
    lost += _removed(client, tenant, taken, count)
    if lost and shared:
        log.pull()
        if log.notes() != notes:  # it was the archiver of another machine that took them
            return _archive(client, tenant, folder, journal, shared)
    for partition, why in lost:
        _log.error("partition %d: %s", partition, why)
        if journal:
            journal.add("loss", partition=partition, reason=why)
    gained = 0
    while waiting := _read(client, tenant, taken):
        taken.update({partition: entries[-1][0] for partition, entries in waiting.items()})
        number = {partition: len(entries) for partition, entries in waiting.items()}
        come = count | {partition: count.get(partition, 0) + added for partition, added in number.items()}
        note = {STREAMS: streams, **{f"{NOTE}{partition}": id for partition, id in sorted(taken.items())}}
        note |= {f"{COUNT}{partition}": str(number) for partition, number in sorted(come.items())}
        new = log.append(_table(waiting), note)
        count, gained = come if new else count, gained + new
        _trim(client, tenant, {partition: taken[partition] for partition in waiting}, {} if new else number)
        if max(map(len, waiting.values())) < READ:
            break  # all that waited: what came in meanwhile is for the next time, or under steady traffic this would never end
    log.compact()
    return gained


def _set_back(client: redis.Redis, tenant: str, taken: dict[int, str]) -> list[Loss]:
    """Return the streams that never gave the id that was taken from them last: their Redis was set back.

    Their ids begin anew, so what was taken is forgotten; what is in the log already is known by its event ids.
    """
    found = []
    for partition, about in enumerate(_streams(client, tenant)):
        last, before = about.get("last-generated-id", b"0-0").decode(), taken.get(partition, "0-0")
        if _order(last) < _order(before):
            found.append((partition, f"its stream ends at {last}, and {before} was taken: Redis was set back and may have lost events"))
            del taken[partition]
    return found


def _removed(client: redis.Redis, tenant: str, taken: dict[int, str], count: dict[int, int]) -> list[Loss]:
    """Return the streams from which somebody else removed events: more were given than were taken, by count, and wait.

    Servers before Redis 7 cannot tell. count is what was taken up to now, by the streams themselves, from here on.
    """
    with client.pipeline(transaction=False) as pipeline:
        for partition in range(PARTITIONS):
            pipeline.get(_passed(tenant, partition))
        found, passed = list[Loss](), pipeline.execute()
    for partition, about in enumerate(_streams(client, tenant)):
        if "entries-added" not in about:
            continue
        gone = about["entries-added"] - about["length"] - int(passed[partition] or 0)
        if 0 < count.get(partition, gone) < gone and partition in taken:
            why = f"{gone - count[partition]} of its events were removed before anybody took them"
            found.append((partition, f"{why}; the newest in the log is {taken[partition]}"))
        count[partition] = gone
    return found


def _streams(client: redis.Redis, tenant: str) -> list[dict[str, Any]]:
    """Return what Redis says about each partition's stream, nothing of one that is not there."""
    with client.pipeline(transaction=False) as pipeline:
        for partition in range(PARTITIONS):
            pipeline.xinfo_stream(stream_key(tenant, partition))
        answers = pipeline.execute(raise_on_error=False)
    return [about if isinstance(about, dict) else {} for about in answers]


def _name_of_streams(client: redis.Redis, tenant: str) -> str:
    """Tell this Redis from any other, so that ids taken from one never pass for ids of another."""
    key = f"{{{tenant}}}:streams"
    client.set(key, uuid.uuid4().hex, nx=True)
    return cast(bytes, client.get(key)).decode()


def _read(client: redis.Redis, tenant: str, taken: dict[int, str]) -> dict[int, list[tuple[str, bytes]]]:
    """Return (stream id, event) pairs of the partitions in which some wait."""
    with client.pipeline(transaction=False) as pipeline:
        for partition in range(PARTITIONS):
            after = f"({taken[partition]}" if partition in taken else "-"
            pipeline.xrange(stream_key(tenant, partition), min=after, count=READ)
        answers: list[Any] = pipeline.execute()
    return {partition: [(id.decode(), fields[b"event"]) for id, fields in entries] for partition, entries in enumerate(answers) if entries}


def _table(waiting: dict[int, list[tuple[str, bytes]]]) -> pa.Table:
    """Return the events in the order they arrived, over all partitions."""
    arrived = sorted((_order(id), partition, event) for partition, entries in waiting.items() for id, event in entries)
    rows = [orjson.loads(event) for _, _, event in arrived]
    return pa.table({name: pa.array([row.get(name) for row in rows]).cast(SCHEMA.field(name).type) for name in SCHEMA.names}, schema=SCHEMA)


def _trim(client: redis.Redis, tenant: str, taken: dict[int, str], passed: dict[int, int] | None = None) -> None:
    """Remove what was taken; passed: how many events of a partition were taken that no segment tells of."""
    with client.pipeline(transaction=False) as pipeline:
        for partition, id in taken.items():
            time, number = _order(id)
            keys = stream_key(tenant, partition), _passed(tenant, partition)
            pipeline.eval(TRIM, 2, *keys, f"{time}-{number + 1}", (passed or {}).get(partition, 0))
        pipeline.execute()


def _passed(tenant: str, partition: int) -> str:
    return f"{stream_key(tenant, partition)}:{PASSED}"


def _order(id: str) -> tuple[int, int]:
    time, number = id.split("-")
    return int(time), int(number)
