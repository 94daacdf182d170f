"""What the console had to load to answer, kept while somebody looks: one thing at a time, dropped when nobody has asked for minutes."""

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

IDLE = 180.0
"""Seconds without a question after which it is dropped."""


class Kept(Generic[T]):
    """One thing, made in a thread when it is asked for, by a key; another key takes its place."""

    def __init__(self, idle: float = IDLE):
        self.idle = idle
        self.key: Hashable = None
        self.thing: T | None = None
        self._one_at_a_time = asyncio.Lock()
        self._end: asyncio.TimerHandle | None = None

    async def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the thing of a key, made by `make` unless it is here."""
        async with self._one_at_a_time:
            if self.thing is None or self.key != key:
                self.drop()  # before another is made: there is never room for two
                self.key, self.thing = key, await asyncio.to_thread(make)
            self._stay()
            return self.thing

    def drop(self) -> None:
        """Let it go."""
        self.key = self.thing = None
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _stay(self) -> None:
        if self._end is not None:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(self.idle, self.drop)
