"""What people liked in the last hours: what is shown to somebody of whom nothing is known."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping

from redis.exceptions import RedisError

from serving.engine import Engine
from serving.profiles import Profiles

_log = logging.getLogger("recsys.lately")

EVERY = 5
"""Looked at every so-manieth time that the engine looks for a release."""

BEST = 200
"""Items of each partition and hour that are asked for."""


class Lately:
    """Tells an engine every few seconds what the profiles' partitions counted."""

    def __init__(self, engine: Engine, profiles: Profiles, hours: int):
        self.engine, self.profiles, self.hours = engine, profiles, hours
        self._told: Mapping[str, float] = {}

    async def refresh(self) -> None:
        """Ask every partition once."""
        hour = int(time.time() // 3600)
        count: Counter[str] = Counter()
        for found in await self.profiles.liked_lately(range(hour - self.hours, hour + 1), BEST):
            for item, number in zip(found[::2], found[1::2], strict=True):
                count[item.decode()] += int(number)
        if count != self._told:
            self._told = count
            await asyncio.to_thread(self.engine.heat, count)

    async def watch(self) -> None:
        """Ask again and again until cancelled; a Redis that is away is asked later."""
        while True:
            try:
                await self.refresh()
            except (RedisError, OSError) as error:  # a TimeoutError is one
                _log.debug("cannot ask what was liked lately: %s", error)
            await asyncio.sleep(EVERY * self.engine.watch_seconds)
