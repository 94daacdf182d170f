"""From the event log into the profiles, before the API answers: so it knows the people of a log that was imported."""

from collections.abc import Iterator
from itertools import islice
from typing import cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from recsys.events import PROFILE, milliseconds, owners
from recsys.home import Home
from recsys.log import SEGMENT_ROWS, Log, Position
from recsys.progress import Step, silent
from recsys.settings import Serving, Settings
from serving.history import Event
from serving.profiles import FORM, member, profile_keys

SENT = 5000
"""Events sent to Redis at a time."""

COLUMNS = ["event_id", "user_id", "session_id", "item_id", "timestamp", "event_type", "value"]

People = dict[str, list[Event]]
"""The newest events by owner."""


def warm(url: str, home: Home, settings: Settings, step: Step = silent) -> int:
    """Load the newest events of everybody in the log into their profiles; return how many the profiles did not hold.

    It runs when a server starts and at no other time: what is imported beside a running server is known to it after the
    next start. How far the log was read is remembered in Redis, part by part, so a restart loads only what is new and an
    interrupted run goes on. Nothing enters the streams, for the log has these events already; and what the API took in
    itself stays as it is.
    """
    serving, log, loaded = settings.serving, Log(home.log), 0
    with redis.Redis.from_url(url, socket_timeout=10.0, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 1)) as client:
        end = len(log)
        first = begin = warmed(client, log, serving)
        while first < end:
            behind = min(first + SEGMENT_ROWS, end)
            table = _lately(log.read(Position(first), Position(behind), COLUMNS), serving.profile_events)
            done = 0
            for people in _people(table):
                loaded += _load(client, people, serving)
                done += sum(map(len, people.values()))
                step("filling profiles from the log", first - begin + (behind - first) * done // len(table), end - begin)
            remember(client, log, behind, serving)
            first = behind
    return loaded


def _mark(log: Log, offset: int, serving: Serving) -> bytes:
    """Say that a log was read up to an offset: which log, where it ends there, and what was taken from it."""
    last = log.read(Position(offset - 1), Position(offset), ["event_id"])["event_id"].to_pylist()
    return orjson.dumps({"log": str(log.folder), "offset": offset, "last": last, "events": serving.profile_events, "form": FORM})


def warmed(client: redis.Redis, log: Log, serving: Serving) -> int:
    """Return up to which offset this log was read: 0 where what Redis remembers is of another log, or of other settings."""
    mark = cast(bytes | None, client.get(_key(serving)))
    offset = orjson.loads(mark)["offset"] if mark else 0
    return offset if mark == _mark(log, offset, serving) else 0


def remember(client: redis.Redis, log: Log, offset: int, serving: Serving) -> None:
    """Remember that this log was read up to an offset."""
    client.set(_key(serving), _mark(log, offset, serving))


def _key(serving: Serving) -> str:
    return f"{{{serving.tenant}}}:warm"


def _lately(table: pa.Table, limit: int) -> pa.Table:
    """Return each owner's newest `limit` events that belong into a profile, by owner, then oldest first."""
    owner = owners(table)
    wanted = pc.is_in(table["event_type"], value_set=pa.array(sorted(PROFILE)))
    table = table.append_column("owner", owner).filter(wanted)
    table = table.sort_by([(name, "ascending") for name in ("owner", "timestamp", "event_id")])
    _, count = np.unique(table["owner"].combine_chunks().dictionary_encode().indices.to_numpy(), return_counts=True)
    from_the_end = np.repeat(np.cumsum(count), count) - np.arange(len(table))
    return table.filter(pa.array(from_the_end <= limit))


def _people(table: pa.Table) -> Iterator[People]:
    """Give a table that is sorted by owner in parts of about `SENT` events."""
    for start in range(0, len(table), SENT):
        people: People = {}
        part = table.slice(start, SENT)
        columns = [part[name].to_pylist() for name in COLUMNS if name != "timestamp"]
        for time, id, user, session, item, kind, value in zip(milliseconds(part).tolist(), *columns, strict=True):
            event = Event(item, kind, time, id, user, session, value)
            people.setdefault(event.owner, []).append(event)
        yield people


def _load(client: redis.Redis, people: People, serving: Serving) -> int:
    """Add to each profile what neither it nor the API knows; return how many events were added and stayed."""
    keys = [profile_keys(serving.tenant, owner) for owner in people]
    with client.pipeline(transaction=True) as pipeline:  # one write to disk for all, where each command would cost its own
        for (profile, seen, _, gone), events in zip(keys, people.values(), strict=True):
            pipeline.zmscore(profile, cast(list[str], [member(event) for event in events]))
            pipeline.zmscore(seen, [event.id for event in events])
            pipeline.get(gone)
        known = iter(pipeline.execute())
        for (profile, *_), events in zip(keys, people.values(), strict=True):
            held, deleted = zip(events, *islice(known, 2), strict=True), int((next(known) or b"-1").partition(b"!")[0])
            new = {
                member(event): event.timestamp
                for event, here, merged in held
                if here is None and merged is None and event.timestamp > deleted
            }
            if new:
                pipeline.zadd(profile, new)
                pipeline.zremrangebyrank(profile, 0, -serving.profile_events - 1)
                pipeline.expire(profile, max(1, int(serving.profile_days * 86_400)))
                pipeline.zmscore(profile, cast(list[str], list(new)))
        return sum(score is not None for answer in pipeline.execute()[3::4] for score in answer)
