"""How well what is shown foretells what people do next: measured on the lists of a share of the people, as they are used."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import log
from typing import Any, cast

import orjson
import redis
from redis.exceptions import RedisError

from recsys import events
from recsys.trial import BUCKETS, Trial, bucket
from serving.history import Event
from serving.metrics import Metrics
from serving.profiles import partition_of
from serving.snapshot import Snapshot
from serving.wire import Wire, Word

_log = logging.getLogger("recsys.online")

DEPTH = 20
"""Places of a list that are looked at, however long it is: hits are compared at the same depth."""

SECONDS = 3600
"""So long is remembered what somebody was shown; what they do later is nobody's hit or miss."""

KEPT = 200_000
"""Newest outcomes that are kept."""

Found = tuple[Snapshot, Sequence[Mapping[str, Any]]]
"""A list, and the snapshot that gave it."""

LEAST = 1e-9
"""A probability is taken to be so much at least."""


@dataclass(frozen=True)
class Outcome:
    """What became of a list: somebody went on to an item. rank: its place in the list, from 1, or 0 where it was not in it (a miss).

    variant: live, canary or shadow; trial: when that which was on began, 0 for none; bucket: of the person (recsys.trial); loss: minus the
    log of how likely the answer held the item to be next, None where its scores are no probabilities.
    """

    time: int
    release: str
    variant: str
    trial: int
    bucket: int
    rank: int
    loss: float | None


class Online:
    """Remembers what people were shown and writes an outcome when they go on to something.

    share: of the people who are measured where nothing is on trial; during one they are at least twice as many as it is shown to, so that
    there are as many to compare with.
    """

    def __init__(self, wire: Wire, tenant: str, share: float, metrics: Metrics):
        self.wire, self.tenant, self.share, self.metrics = wire, tenant, share, metrics
        self._tasks: set[asyncio.Task[None]] = set()

    def measures(self, owner: str, trial: Trial | None) -> bool:
        """Say whether somebody is measured."""
        if trial is None:
            return self.share > 0 and bucket(owner) < self.share * BUCKETS
        return trial.bucket(owner) < max(self.share, 2 * trial.share) * BUCKETS

    def shown(self, owner: str, trial: Trial | None, variant: str, found: Found, shadow: Awaitable[Found] | None = None) -> None:
        """Remember what somebody was shown, and what a shadow would have shown them; nobody waits for it."""
        about = {"trial": trial.began, "bucket": trial.bucket(owner)} if trial else {"trial": 0, "bucket": bucket(owner)}
        self._later(self._remember(owner, about, variant, found, shadow))

    def follow(self, batch: Iterable[Event], trial: Trial | None) -> None:
        """Compare what people did with what they were shown; nobody waits for it."""
        mine = [event for event in batch if event.event_type in events.POSITIVE and self.measures(event.owner, trial)]
        if mine:
            self._later(self._follow(mine))

    async def _remember(self, owner: str, about: dict[str, Any], variant: str, found: Found, shadow: Awaitable[Found] | None) -> None:
        lists = {variant: _written(*found)}
        if shadow is not None:
            beside = lists["shadow"] = _written(*await shadow)
            same = len({*beside["items"]} & {*lists[variant]["items"]}) / max(1, len(lists[variant]["items"]))
            self.metrics.overlap.observe(same)
        told = orjson.dumps({**about, "lists": lists, "done": []})
        await self.wire.call("SET", shown_key(self.tenant, owner), told, "EX", SECONDS)

    async def _follow(self, batch: Sequence[Event]) -> None:
        keys = dict.fromkeys(shown_key(self.tenant, event.owner) for event in batch)
        told = await self.wire.calls([("GET", key) for key in keys])
        shown = {key: orjson.loads(reply) for key, reply in zip(keys, told, strict=True) if isinstance(reply, bytes)}
        found, changed = list[Outcome](), dict[str, bytes]()
        for event in batch:
            key = shown_key(self.tenant, event.owner)
            about = shown.get(key)
            if about is None or event.item_id in about["done"]:  # a film that is played, and then watched to its end, is one outcome
                continue
            found += [_outcome(variant, about, event.item_id, one) for variant, one in about["lists"].items()]
            about["done"].append(event.item_id)
            changed[key] = orjson.dumps(about)
        commands: list[tuple[Word, ...]] = [("SET", key, about, "KEEPTTL") for key, about in changed.items()]
        commands += [("XADD", outcomes_key(self.tenant), "MAXLEN", "~", KEPT, "*", "o", orjson.dumps(outcome)) for outcome in found]
        await self.wire.calls(commands)
        for outcome in found:
            self.metrics.child(self.metrics.outcomes, outcome.variant, outcome.release, "hit" if outcome.rank else "miss").inc()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what nobody waits for: whatever goes wrong there is nothing to them."""
        try:
            await work
        except (RedisError, OSError) as error:  # a TimeoutError is one
            _log.debug("an outcome is not measured: %s", error)
        except Exception:
            _log.exception("an outcome is not measured")


def outcomes(client: redis.Redis, tenant: str, since: int = 0) -> list[Outcome]:
    """Return what was measured from a moment on, ms, oldest first."""
    found, after = list[Outcome](), f"{since}-0"
    while some := cast(list[tuple[bytes, dict[bytes, bytes]]], client.xrange(outcomes_key(tenant), min=after, count=10_000)):
        found += read(fields[b"o"] for _, fields in some)
        after = f"({some[-1][0].decode()}"
    return found


def read(written: Iterable[bytes]) -> Iterator[Outcome]:
    """Give outcomes as they were written; those of another version of recsys are passed over."""
    for one in written:
        with suppress(TypeError, ValueError):
            yield Outcome(**orjson.loads(one))


def shown_key(tenant: str, owner: str) -> str:
    """Return the key of what somebody was shown last."""
    return f"{{{tenant}:{partition_of(owner)}}}:shown:{owner}"


def outcomes_key(tenant: str) -> str:
    """Return the key of the stream of outcomes."""
    return f"{{{tenant}}}:outcomes"


def _written(snapshot: Snapshot, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is remembered of a list: the ids, how likely each was held to be, and how likely any other item."""
    ids, scores = [item["item_id"] for item in items[:DEPTH]], [float(item["score"]) for item in items[:DEPTH]]
    if snapshot.fusion is None:
        return {"release": snapshot.id, "items": ids, "likely": None, "other": None}
    other = max(1 - sum(scores), LEAST) / max(1, len(snapshot.vocab) - 1 - len(ids))
    return {"release": snapshot.id, "items": ids, "likely": [round(score, 6) for score in scores], "other": other}


def _outcome(variant: str, about: dict[str, Any], item_id: str, shown: dict[str, Any]) -> Outcome:
    rank = shown["items"].index(item_id) + 1 if item_id in shown["items"] else 0
    likely = None if shown["likely"] is None else shown["likely"][rank - 1] if rank else shown["other"]
    loss = None if likely is None else round(-log(min(1.0, max(likely, LEAST))), 5)
    return Outcome(int(time.time() * 1000), shown["release"], variant, about["trial"], about["bucket"], rank, loss)
