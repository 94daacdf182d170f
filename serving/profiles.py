"""What each person did lately, in Redis: one script merges an event, one round trip reads a profile."""

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any
from zlib import crc32

import numpy as np
import orjson
import redis
from redis.exceptions import NoScriptError, RedisError, ResponseError

from recsys import events
from recsys.errors import RecsysError
from recsys.events import CountsAs
from recsys.forgotten import hashed
from serving.history import Event, History
from serving.wire import Wire, Word

PARTITIONS = 64
"""Part of every key's name, so it never changes: people are spread over this many streams."""

FORM = 2
"""How a member of a profile is written: another number, another name of its key."""

RETRY_WINDOW = 7 * 86_400
"""Seconds in which the same event id again is a retry and changes nothing."""

RETRY_EVENTS = 1000
"""Newest event ids remembered of one person; a batch of 500 can be sent again as a whole."""

SESSIONS = 1000
"""Newest sessions remembered of those that a person signed in from."""

STREAM_EVENTS = 200_000
"""Events that wait in one partition for the archiver; when it is full events are refused, for dropping one would lose it."""

LATELY_HOURS = 48
"""So old may an event be to count for what is liked lately."""

MERGE = """
local profile, seen, stream, gone, lately, likers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, now, time, member, event = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local profile_events, profile_seconds = tonumber(ARGV[6]), ARGV[7]
local retry_events, retry_seconds, stream_events = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local liked, liked_seconds, liker, taken_back = ARGV[11], ARGV[12], ARGV[13], ARGV[14]
if redis.call('ZSCORE', seen, id) then return 0 end
local upto, past = string.match(redis.call('GET', gone) or '-1!-1', '(-?%d+)!?(-?%d*)')
upto = tonumber(upto)
if past ~= '' and tonumber(time) <= tonumber(past) then return 0 end
if redis.call('XLEN', stream) >= stream_events then return redis.error_reply('FULL ' .. stream) end
redis.call('ZADD', seen, now, id)
redis.call('ZREMRANGEBYSCORE', seen, '-inf', now - retry_seconds * 1000)
redis.call('ZREMRANGEBYRANK', seen, 0, -retry_events - 1)
redis.call('EXPIRE', seen, retry_seconds)
if member ~= '' and tonumber(time) > upto then
  redis.call('ZADD', profile, time, member)
  redis.call('ZREMRANGEBYRANK', profile, 0, -profile_events - 1)
  redis.call('EXPIRE', profile, profile_seconds)
end
if taken_back == '1' then
  if redis.call('SREM', likers, liker) == 1 then redis.call('ZINCRBY', lately, -1, liked) end
elseif liked ~= '' and redis.call('SADD', likers, liker) == 1 then
  redis.call('ZINCRBY', lately, 1, liked)
  redis.call('EXPIRE', lately, liked_seconds)
  redis.call('EXPIRE', likers, 7200)
end
redis.call('XADD', stream, '*', 'event', event)
return 1
"""


SIGN_IN = """
local profile, gone, sessions = KEYS[1], tonumber(string.match(redis.call('GET', KEYS[2]) or '-1', '-?%d+')), KEYS[3]
for n = 6, #ARGV, 2 do
  if tonumber(ARGV[n]) > gone then redis.call('ZADD', profile, ARGV[n], ARGV[n + 1]) end
end
redis.call('ZREMRANGEBYRANK', profile, 0, -tonumber(ARGV[1]) - 1)
redis.call('EXPIRE', profile, ARGV[2])
redis.call('ZADD', sessions, ARGV[3], ARGV[4])
redis.call('ZREMRANGEBYRANK', sessions, 0, -tonumber(ARGV[5]) - 1)
redis.call('EXPIRE', sessions, ARGV[2])
"""

MARK = """
local upto, past = string.match(redis.call('GET', KEYS[1]) or '-1!-1', '(-?%d+)!?(-?%d*)')
upto, past = math.max(tonumber(upto), ARGV[1]), math.max(tonumber(past) or -1, ARGV[2])
redis.call('SET', KEYS[1], string.format(past < 0 and '%d' or '%d!%d', upto, past), 'EX', ARGV[3])
"""

REMOVE = f"""{MARK}
return redis.call('UNLINK', KEYS[2]) + redis.call('UNLINK', KEYS[3])
"""


LOG = """
if redis.call('XLEN', KEYS[1]) + #ARGV - 1 > tonumber(ARGV[1]) then return redis.error_reply('FULL ' .. KEYS[1]) end
for n = 2, #ARGV do redis.call('XADD', KEYS[1], '*', 'event', ARGV[n]) end
"""


class StreamFull(RecsysError):
    """The archiver is so far behind that no further event is taken."""


class Profiles:
    """The profiles of one tenant.

    A person's profile, the event ids already merged and the stream of the person's partition share a hash tag
    ({tenant:17}), so one script may touch all of them, on Redis Cluster too; a single stream for everybody would lie in
    another slot than the profiles. Item *ids* are kept, not rows: a rolled-back release counts its rows differently.

    A profile is a sorted set by time, then event id: whatever order events arrive in, the newest `limit` of them stay. A member tells its
    time once more, for a reply with scores beside the members takes twice as long to read.
    """

    def __init__(self, wire: Wire, tenant: str, limit: int = 200, days: float = 180.0, counts: CountsAs = events.EVERYTHING):
        self.wire = wire
        self.tenant = tenant
        self.limit = limit
        self.seconds = max(1, int(days * 86_400))
        self.counts = None if counts == events.EVERYTHING else counts
        self._sha = hashlib.sha1(MERGE.encode()).hexdigest()

    async def merge(self, batch: Sequence[Event]) -> list[bool]:
        """Merge events into their profiles and streams; say of each whether it was new, False for a repeat.

        Each event is merged wholly or not at all. After an error some events of the batch may be in: sending the batch
        again is safe.
        """
        answers = await self._run(batch)
        if any(isinstance(answer, NoScriptError) for answer in answers):  # a server that was started anew
            await self.wire.call("SCRIPT", "LOAD", MERGE)
            answers = await self._run(batch)
        for answer in answers:
            if isinstance(answer, ResponseError):
                raise _full(answer)
        return [answer == 1 for answer in answers]

    async def read(self, owner: str, within: float = 2.0) -> History:
        """Return the newest events of a user (or of "session:ID"), oldest first, without what was undone; TimeoutError after `within` s."""
        found = await self.wire.call("ZRANGE", profile_keys(self.tenant, owner)[0], 0, -1, within=within)
        told, code = orjson.loads(b"[" + b",".join(found) + b"]"), events.CODE
        if self.counts is not None:
            told = [one for one in told if self._counts(one[1], one[3])]
        return History([one[2] for one in told], [code[one[1]] for one in told], [one[4] for one in told]).standing()

    async def whole(self, owner: str, within: float = 2.0) -> tuple[list[Event], bytes]:
        """Return all that a profile holds, oldest first, what was undone and the undos too, and a mark that no other profile has."""
        found = await self.wire.call("ZRANGE", profile_keys(self.tenant, owner)[0], 0, -1, within=within)
        told = orjson.loads(b"[" + b",".join(found) + b"]")
        events = [Event(item, kind, time, event_id, value=value) for event_id, kind, item, value, time in told]
        return events, hashlib.blake2b(b"\n".join(found), digest_size=8).digest()

    def _counts(self, kind: str, value: float | None) -> bool:
        """Say whether an event says anything about taste: recsys.events.counted."""
        if self.counts is None or kind not in events.POSITIVE:
            return True
        return kind in self.counts and (value is None or value >= self.counts[kind])

    async def log(self, batch: Sequence[Event], within: float = 2.0) -> None:
        """Put events of one person into the stream that belong to no profile, such as what they were shown: all or none of them.

        Raises StreamFull where there is no room.
        """
        stream = profile_keys(self.tenant, batch[0].owner)[2]
        stored = [orjson.dumps({**asdict(event), "event_id": event.id}) for event in batch]
        try:
            await self.wire.call("EVAL", LOG, 1, stream, STREAM_EVENTS, *stored, within=within, again=False)  # nothing is logged twice
        except ResponseError as error:
            raise _full(error) from None

    async def waiting(self, within: float = 2.0) -> int:
        """Return how many events wait in the streams for the archiver."""
        commands: list[tuple[Word, ...]] = [("XLEN", stream_key(self.tenant, partition)) for partition in range(PARTITIONS)]
        return sum(_told(await self.wire.calls(commands, within)))

    async def liked_lately(self, hours: Iterable[int], best: int) -> list[list[bytes]]:
        """Return what was liked most in each partition and hour since 1970: item id, number, item id, number, ..."""
        keys = [lately_key(self.tenant, partition, hour) for hour in hours for partition in range(PARTITIONS)]
        return _told(await self.wire.calls([("ZREVRANGE", key, 0, best - 1, "WITHSCORES") for key in keys]))

    async def sign_in(self, session_id: str, user_id: str) -> int:
        """Move what a session did into the profile of the user who turned out to be behind it; return how many events were moved.

        The two lie in different slots, so this is three steps: read, add, take away what was read. Stopped between them, or done twice, it
        ends the same; what the session does meanwhile stays in its profile until the next sign-in. What came before the user's profile was
        deleted stays out of it. Whose session it was is remembered for as long as a profile, or until they are forgotten.
        """
        source, _, _, _ = profile_keys(self.tenant, f"session:{session_id}")
        target, _, _, gone = profile_keys(self.tenant, user_id)
        found = await self.wire.call("ZRANGE", source, 0, -1, "WITHSCORES")
        members, words = found[::2], [word for member, time in zip(found[::2], found[1::2], strict=True) for word in (time, member)]
        about = (self.limit, self.seconds, int(time.time() * 1000), session_id, SESSIONS)
        await self.wire.call("EVAL", SIGN_IN, 3, target, gone, sessions_key(self.tenant, user_id), *about, *words)
        if members:
            await self.wire.call("ZREM", source, *members)
        return len(members)

    async def remove(self, owner: str) -> bool:
        """Delete a profile; say whether there was anything. What happened up to now does not come back into it, though it be sent again."""
        profile, seen, _, gone = profile_keys(self.tenant, owner)
        now, kept = int(time.time() * 1000), max(self.seconds, RETRY_WINDOW)
        return bool(await self.wire.call("EVAL", REMOVE, 3, gone, profile, seen, now, -1, kept))

    async def _run(self, batch: Sequence[Event]) -> list:
        now = int(time.time() * 1000)
        limits = (self.limit, self.seconds, RETRY_EVENTS, RETRY_WINDOW, STREAM_EVENTS)
        commands: list[tuple[Word, ...]] = []
        for event in batch:
            if not event.event_id:
                event = event.named()
            id = event.event_id
            kept = member(event) if event.event_type in events.PROFILE else b""
            stored, keys, hour = orjson.dumps(event), profile_keys(self.tenant, event.owner), event.timestamp // 3_600_000
            late = event.event_type in events.POSITIVE and self._counts(event.event_type, event.value)
            late = late and event.timestamp > now - LATELY_HOURS * 3_600_000
            undo = event.event_type == "undo"
            # each person counts once an hour for an item, and not at all who takes it back
            liked = (event.item_id if late or undo else "", (LATELY_HOURS + 1) * 3600, f"{event.item_id}\0{event.owner}", int(undo))
            lately = lately_key(self.tenant, partition_of(event.owner), hour)
            commands.append(
                ("EVALSHA", self._sha, 6, *keys, lately, f"{lately}:likers", id, now, event.timestamp, kept, stored, *limits, *liked)
            )
        return await self.wire.calls(commands)


def profile_keys(tenant: str, owner: str) -> tuple[str, str, str, str]:
    """Return the keys of a person's profile, of the event ids merged into it, of their partition's stream, and of when it was deleted.

    The last stays when the others go, so it does not tell the name. It holds a time, ms, up to which nothing comes into the profile and, of
    who was forgotten, behind a "!" that up to which nothing comes into the stream either. Neither ever goes back (see MARK).
    """
    partition = partition_of(owner)
    tag = f"{{{tenant}:{partition}}}"
    return f"{tag}:profile{FORM}:{owner}", f"{tag}:seen:{owner}", stream_key(tenant, partition), f"{tag}:gone:{hashed(owner)}"


def gone_keys(tenant: str, who: str) -> list[str]:
    """Return the keys of when somebody's profile was deleted where only the hash of their name is known: one in each partition."""
    return [f"{{{tenant}:{partition}}}:gone:{who}" for partition in range(PARTITIONS)]


def sessions_key(tenant: str, user: str) -> str:
    """Return the key of the sessions that a user signed in from, by when."""
    return f"{{{tenant}:{partition_of(user)}}}:sessions:{user}"


def partition_of(owner: str) -> int:
    """Return which partition somebody belongs to."""
    return crc32(owner.encode()) % PARTITIONS


def lately_key(tenant: str, partition: int, hour: int) -> str:
    """Return the key of how often each item was liked by the people of a partition in one hour since 1970."""
    return f"{{{tenant}:{partition}}}:lately:{hour}"


def likers_keys(tenant: str, partition: int) -> str:
    """Return the pattern of the keys that tell who liked which item in which hour, "ITEM\\0OWNER", in one partition."""
    return f"{{{tenant}:{partition}}}:lately:*:likers"


def stream_key(tenant: str, partition: int) -> str:
    """Return the key of a partition's event stream."""
    return f"{{{tenant}:{partition}}}:events"


def _told(replies: list[Any]) -> list[Any]:
    """Return replies, none of which may be an error."""
    for reply in replies:
        if isinstance(reply, ResponseError):
            raise reply
    return replies


def _full(error: ResponseError) -> Exception:
    """Say what a script's error means."""
    return StreamFull("the event stream is full; run the archiver: recsys archive") if str(error).startswith("FULL") else error


def member(event: Event) -> bytes:
    """Write an event the way a profile holds it: the same bytes whether it comes from a client or back from the log."""
    value = None if event.value is None else float(np.float32(event.value))  # the log's precision
    return orjson.dumps([event.id, event.event_type, event.item_id, value, event.timestamp])


def usage(url: str, tenant: str, sample: int = 1000) -> dict[str, int] | None:
    """Return the number of profiles and the mean bytes that one takes with the event ids beside it, by a sample; None without an answer."""
    try:
        with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=1) as store:
            count, taken = 0, list[int]()
            for key in store.scan_iter(match=f"{{{tenant}:*}}:profile{FORM}:*", count=1000):
                count += 1
                if len(taken) < sample:
                    beside = key.replace(f":profile{FORM}:".encode(), b":seen:", 1)
                    taken.append((store.memory_usage(key) or 0) + (store.memory_usage(beside) or 0))
            return {"users": count, "bytes_per_user": round(sum(taken) / len(taken)) if taken else 0}
    except (RedisError, OSError):
        return None
