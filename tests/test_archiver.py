"""The archiver beside a server: events come into the log by themselves, also after it was killed, and it goes with the server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from worlds import publish_release

from recsys.home import Home
from recsys.log import Log


def until(true: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.05)


def archivers(home: Home) -> list[int]:
    """Return the processes that archive a home."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"archive" in words and str(home.path).encode() in words:
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes under /proc")
def test_events_come_into_the_log_by_themselves(tmp_path: Path) -> None:
    home = Home(tmp_path / "a home")
    publish_release(home.path, ["north", "south"])
    code = (
        "import sys; from serving import archiver; archiver.EVERY = archiver.PAUSE = 0.2; "
        "from recsys import cli; sys.argv = ['recsys', 'serve', '--port', '0', '--with-archiver', '--home', sys.argv[1]]; cli.main()"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")}
    with subprocess.Popen([sys.executable, "-c", code, str(home.path)], stdout=subprocess.PIPE, text=True, env=environ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split(" on ")[1].split(",")[0]

            def tap(id: str) -> None:
                event = {"user_id": "ann", "item_id": "north", "event_type": "play", "timestamp": time.time(), "event_id": id}
                assert httpx.post(f"{url}/v1/events", json=event).status_code == 200

            tap("one")
            until(lambda: len(Log(home.log)) == 1)
            (first,) = archivers(home)
            os.kill(first, signal.SIGKILL)
            tap("two")
            until(lambda: len(Log(home.log)) == 2)
            assert first not in archivers(home)
            assert Log(home.log).read()["event_id"].to_pylist() == ["one", "two"]
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0
            assert archivers(home) == []
        finally:
            server.kill()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes under /proc")
def test_it_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    home = Home(tmp_path)
    publish_release(home.path, ["north"])
    command = [sys.executable, "-m", "recsys.cli", "serve", "--port", "0", "--with-archiver", "--home", str(home.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()
        until(lambda: archivers(home))
        server.kill()
    until(lambda: not archivers(home))
