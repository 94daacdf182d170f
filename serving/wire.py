"""One connection to Redis that all requests of an event loop share: commands of one moment travel together, a tenth of redis-py's cost."""

import asyncio
import ssl
from collections import deque
from typing import Any, cast

import hiredis
from redis.asyncio.connection import SSLConnection, parse_url
from redis.exceptions import NoScriptError, ResponseError

from recsys.errors import BadInput

CONNECT = 0.5
"""Seconds in which a connection must be made."""

WATCH = 0.02
"""Seconds between two looks at who has waited long enough."""

DEAD = 3.0
"""Seconds without an answer after which a connection is given up."""

ANSWERS = 2.0
"""Seconds that Redis has for an answer, unless a caller says otherwise."""

Word = str | bytes | int | float


class Wire(asyncio.Protocol):
    """Sends commands and hands the replies to who asked, in the order they were sent. A connection that was lost is made anew, once a call.

    It is made by the first call, in that call's event loop, and belongs there. url: redis://, rediss:// or unix://.
    """

    def __init__(self, url: str):
        try:
            self.options: dict[str, Any] = {"host": "localhost", "port": 6379, **parse_url(url)}
        except ValueError as error:
            raise BadInput(f"{url.partition('://')[0]}://... is no address of a Redis server: {error}") from None
        self._transport: asyncio.Transport | None = None
        self._opening: asyncio.Task[None] | None = None
        self._ready = False
        self._out: list[bytes] = []
        self._waiting: deque[tuple[asyncio.Future[Any], float, float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._reader = hiredis.Reader()

    async def call(self, *words: Word, within: float = ANSWERS, again: bool = True) -> Any:
        """Send one command and return its reply: bytes, int, None or a list. again: it may be sent twice, where a connection was lost.

        Raises ResponseError for an error reply, TimeoutError where there is none in time, OSError where there is no connection.
        """
        if not self._open:
            await self._connect()
        try:
            return await self._send(words, within)
        except ConnectionResetError:  # it had gone meanwhile
            if not again:
                raise
            await self._connect()
            return await self._send(words, within)

    async def calls(self, commands: list[tuple[Word, ...]], within: float = ANSWERS) -> list[Any]:
        """Send commands together and return all replies; an error reply is returned, anything else is raised as by `call`."""
        for again in (False, True):
            if not self._open:
                await self._connect()
            replies = [await _settled(future) for future in [self._send(words, within) for words in commands]]
            failed = [reply for reply in replies if isinstance(reply, OSError)]  # a TimeoutError is one
            if not failed:
                return replies
            if again or not isinstance(failed[0], ConnectionResetError):
                break
        raise failed[0]

    def close(self) -> None:
        """End the connection; whoever waits is told."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def _open(self) -> bool:
        return self._ready and self._connected

    @property
    def _connected(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _send(self, words: tuple[Word, ...], within: float) -> "asyncio.Future[Any]":
        loop = asyncio.get_running_loop()
        future, now = loop.create_future(), loop.time()
        if not self._connected:
            future.set_exception(ConnectionResetError("the connection to Redis was lost"))
            return future
        if not self._out:
            loop.call_soon(self._flush)
        self._out.append(hiredis.pack_command(words))  # type: ignore[arg-type]
        self._waiting.append((future, now + within, now))
        if self._watch is None:
            self._watch = loop.call_later(WATCH, self._look)
        return future

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._connected:
            assert self._transport is not None
            self._transport.write(b"".join(out))

    def _look(self) -> None:
        """Tell those who have waited too long; give up a connection that answers nobody."""
        self._watch = None
        if not self._waiting:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        for future, deadline, _ in self._waiting:
            if now > deadline and not future.done():
                future.set_exception(TimeoutError("Redis did not answer in time"))
        if now - self._waiting[0][2] > DEAD and self._transport is not None:
            self._transport.abort()
        self._watch = loop.call_later(WATCH, self._look)

    async def _connect(self) -> None:
        """Open a connection, unless another call does so already."""
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._opened())
        await asyncio.shield(self._opening)

    async def _opened(self) -> None:
        loop, where = asyncio.get_running_loop(), self.options
        self._reader = hiredis.Reader(replyError=_error)
        async with asyncio.timeout(CONNECT):
            if "path" in where:
                await loop.create_unix_connection(lambda: self, where["path"])
            else:
                secure = where.get("connection_class") is SSLConnection
                context = ssl.create_default_context(cafile=where.get("ssl_ca_certs")) if secure else None
                await loop.create_connection(lambda: self, where["host"], where["port"], ssl=context)
        hello: list[tuple[Word, ...]] = []
        if where.get("password"):
            user = (where["username"],) if where.get("username") else ()
            hello.append(("AUTH", *user, where["password"]))
        if where.get("db"):
            hello.append(("SELECT", where["db"]))
        try:
            for words in hello:
                await self._send(words, CONNECT)
        except BaseException:
            self.close()
            raise
        self._ready = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of its own kind

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            future, _, _ = self._waiting.popleft()
            if future.done():  # nobody waits for it any more
                continue
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport, self._ready, self._out = None, False, []
        waiting, self._waiting = self._waiting, deque()
        for future, _, _ in waiting:
            if not future.done():
                future.set_exception(ConnectionResetError("the connection to Redis was lost"))


async def _settled(future: "asyncio.Future[Any]") -> Any:
    try:
        return await future
    except (ResponseError, OSError, TimeoutError) as error:
        return error


def _error(message: str) -> Exception:
    return NoScriptError(message) if message.startswith("NOSCRIPT") else ResponseError(message)
