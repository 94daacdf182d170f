"""A server with its archiver, a job that watches, and nobody's hand: what people do is logged, learned, judged and served."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from worlds import SMALLEST, event_table

from recsys.home import Home
from recsys.journal import Journal
from recsys.log import Log, Position
from recsys.registry import Registry
from recsys.settings import load_settings
from training import job

SETTINGS = f"""{SMALLEST}
[job]
hours = 0
events = 60
poll_seconds = 0.3
[serving]
port = 0
watch_seconds = 0.1
"""


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.05)


@contextmanager
def running(home: Home, words: str, before: str = "pass") -> Iterator[subprocess.Popen[str]]:
    """Run the command on a home until the end of the block, where it must end well."""
    code = f"import sys; {before}; from recsys import cli; sys.argv = ['recsys', *{words.split()!r}, '--home', sys.argv[1]]; cli.main()"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")} | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", code, str(home.path)], stdout=subprocess.PIPE, text=True, env=environ) as process:
        try:
            yield process
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()


def test_what_people_do_is_served_without_anybodys_hand(exported_once: None, tmp_path: Path) -> None:
    home, began = Home(tmp_path / "a home"), round(time.time() * 1000) - 86_400_000
    rows = [
        {"event_id": f"e{n}", "user_id": f"u{n * 7 % 30}", "item_id": f"i{n * n % 20}", "timestamp": began + n * 1000, "event_type": "play"}
        for n in range(200)
    ]
    Log(home.log).append(event_table(rows))
    home.config.write_text(SETTINGS)
    job.fit_and_publish(home, load_settings(home.config, environ={}))
    often = "from serving import archiver; archiver.EVERY = 0.2"
    with running(home, "serve --with-archiver --json", often) as server, running(home, "job watch --json") as watch:
        assert server.stdout is not None
        assert watch.stdout is not None
        with httpx.Client(base_url=json.loads(server.stdout.readline())["url"], timeout=10) as client:
            assert client.get("/v1/items/fresh/similar").status_code == 404
            now = time.time()
            events = [
                {"user_id": f"u{n % 30}", "item_id": "fresh" if n % 3 else f"i{n % 20}", "event_type": "play", "timestamp": now - 100 + n}
                for n in range(90)
            ]
            assert client.post("/v1/events", json=events).json()["accepted"] == 90
            line = json.loads(watch.stdout.readline())
            assert (line["what"], line["release"]) == ("published", "000002")
            until(lambda: client.get("/v1/recommend/u1").json()["release"] == "000002")
            assert client.get("/v1/items/fresh/similar").status_code == 200
    registry, log = Registry(home.releases), Log(home.log)
    assert [told["what"] for told in Journal(home.job).read()] == ["published"]
    assert len(log) == 290
    learned = log.read(registry.open("000001").position, registry.open("000002").position)
    assert len(learned) == line["events"] == 90 - line["held back"]
    assert log.read(Position(200))["item_id"].to_pylist().count("fresh") == 60


@pytest.mark.parametrize("words", ["job watch", "archive --every 0.2"])
def test_what_watches_says_what_is_wrong_and_goes_on(words: str, exported_once: None, tmp_path: Path) -> None:
    """A Redis that is away: one line each time, and no end."""
    home = Home(tmp_path)
    home.config.write_text(SETTINGS + 'redis_url = "redis://127.0.0.1:1"\n')
    command = [sys.executable, "-m", "recsys.cli", *words.split(), "--home", str(home.path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = [process.stderr.readline() for _ in range(2)]
            assert process.poll() is None
            process.terminate()
            assert process.wait(20) == 0
        finally:
            process.kill()
    wrong = "there is no release" if words == "job watch" else "cannot read the event streams"
    assert all(line.startswith("error: ") and wrong in line for line in said), said
