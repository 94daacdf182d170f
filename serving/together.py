"""Whoever waits at the same moment is answered at once: the towers, the neighbours and the index are each asked once for all of them."""

import asyncio
from collections.abc import Callable
from typing import Any

from serving.snapshot import Ask, Snapshot

MOST = 16
"""Asked together at most: more would let the first of them wait."""

Answer = tuple[Snapshot, list[dict[str, Any]]]


class Together:
    """Asks one snapshot, that which `now` gives. Nobody waits for others to come: who is alone is answered alone."""

    def __init__(self, now: Callable[[], Snapshot | None]):
        self.now = now
        self._waiting: list[tuple[Ask, asyncio.Future[Answer]]] = []

    async def recommend(self, ask: Ask) -> Answer:
        """Return the snapshot that answered and what it says; see `Snapshot.recommend_many`. There must be one."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._serve)
        self._waiting.append((ask, future))
        return await future

    def _serve(self) -> None:
        some, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._serve)
        snapshot = self.now()
        assert snapshot is not None
        try:
            lists = snapshot.recommend_many([ask for ask, _ in some])
        except Exception:  # of one of them: the others are not to blame
            for ask, future in some:
                _settle(future, snapshot, ask)
            return
        for (_, future), found in zip(some, lists, strict=True):
            if not future.done():
                future.set_result((snapshot, found))


def _settle(future: "asyncio.Future[Answer]", snapshot: Snapshot, ask: Ask) -> None:
    if future.done():
        return
    try:
        future.set_result((snapshot, snapshot.recommend_many([ask])[0]))
    except Exception as error:
        future.set_exception(error)
