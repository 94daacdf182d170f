"""The whole system as a user runs it: real commands, real Redis, real HTTP."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from recsys.demo import DemoFailed, _Demo

ROOT = Path(__file__).parents[1]
TINY = """
model = {dim = 16, blocks = 1}
training = {epochs = 3, negatives = 64}
update = {epochs = 2}
serving = {watch_seconds = 0.1}
"""


def recsys(home: Path, *words: str) -> dict:
    """Run a command with --json and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "recsys.cli", *words, "--home", str(home), "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A home, its name with a space, in which a log was simulated and a release trained on the first half of it."""
    home = tmp_path_factory.mktemp("a home") / "of mine"
    recsys(home, "simulate", "--users", "200", "--items", "80", "--days", "40", "--seed", "1")
    (home / "config.toml").write_text(TINY)
    recsys(home, "fit", "--until", "2024-01-21")
    return home


@pytest.fixture(scope="module")
def api(home) -> Iterator[httpx.Client]:
    command = [sys.executable, "-m", "recsys.cli", "serve", "--home", str(home), "--port", "0", "--json"]
    environ = {name: value for name, value in os.environ.items() if name != "RECSYS_REDIS_URL"}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environ) as server:
        assert server.stdout is not None
        try:
            with httpx.Client(base_url=json.loads(server.stdout.readline())["url"], timeout=10) as client:
                yield client
        finally:
            server.send_signal(signal.SIGINT)
    assert server.returncode == 0


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [item["item_id"] for item in answer.json()["items"]]


def test_python_and_http_rank_alike(home, api):
    from recsys import Recommender
    from recsys.log import Log

    model, log = Recommender.load(home), Log(home / "log").read(columns=["user_id"])
    people = sorted(set(log["user_id"].to_pylist()))[::20]
    assert len(people) > 5
    sources = set()
    for seen in ("true", "false"):
        answers = model.recommend([*people, "nobody"], k=20, exclude_seen=seen == "true").groupby("user_id")
        for person in [*people, "nobody"]:
            served = api.get(f"/v1/recommend/{person}?k=20&exclude_seen={seen}").json()["items"]
            assert answers.get_group(person)["item_id"].tolist() == [item["item_id"] for item in served], person
            sources |= {item["source"] for item in served}
    assert sources == {"tower", "neighbours", "popular"}


def test_from_a_tap_to_the_next_release(home, api):
    assert api.get("/health/ready").status_code == 200
    before = api.get("/v1/recommend/nobody-yet?k=10")
    assert before.json()["release"] == "000001"
    assert before.json()["degraded"] is False

    played = ids(before)[2]
    event = {"user_id": "nobody-yet", "item_id": played, "event_type": "play", "timestamp": time.time(), "event_id": "tap-1"}
    for _ in range(2):  # the second is a retry
        assert api.post("/v1/events", json=event).status_code in (200, 202)
    now = ids(api.get("/v1/recommend/nobody-yet?k=10"))
    assert now != ids(before)
    assert played not in now
    assert played in ids(api.get("/v1/recommend/nobody-yet?k=80&exclude_seen=false"))
    more = [{**event, "event_id": f"tap-{n}", "item_id": item, "timestamp": time.time()} for n, item in enumerate(now[:2], 2)]
    assert api.post("/v1/events", json=more).status_code in (200, 202)

    assert recsys(home, "archive")["archived"] == 3
    updated = recsys(home, "update")
    assert (updated["release"], updated["parent"]) == ("000002", "000001")
    assert updated["metrics"]["new items"] > 0
    deadline = time.monotonic() + 20
    while (answer := api.get("/v1/recommend/nobody-yet?k=10")).json()["release"] != "000002":
        assert time.monotonic() < deadline, "the server did not pick up the new release"
        time.sleep(0.05)
    assert not {played, *now[:2]} & set(ids(answer))

    given = {"history": [{"item_id": played, "event_type": "play", "timestamp": time.time()}], "k": 5}
    assert len(ids(api.post("/v1/recommend", json=given))) == 5
    assert played not in ids(api.get(f"/v1/items/{played}/similar?k=5"))

    assert recsys(home, "rollback")["live"] == "000001"
    while api.get("/v1/recommend/nobody-yet").json()["release"] != "000001":
        assert time.monotonic() < deadline + 20, "the server did not follow the rollback"
        time.sleep(0.05)
    assert [release["id"] for release in recsys(home, "releases")["releases"]] == ["000001", "000002"]


def test_without_a_network_the_demo_simulates_and_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    typed = []

    def offline(self, *words, complain=True):
        typed.append((words[0], complain))
        if words[0] == "data":
            raise DemoFailed("no network")

    monkeypatch.setattr(_Demo, "recsys", offline)
    monkeypatch.delenv("RECSYS_DATA", raising=False)
    assert _Demo(tmp_path / "demo", quiet=False).import_log() == "simulated"
    assert typed == [("data", False), ("simulate", True)]
    assert [line for line in capsys.readouterr().out.splitlines() if "simulated log instead" in line]


def test_the_demo_refuses_a_folder_that_is_not_its_own(tmp_path):
    (tmp_path / "precious").touch()
    done = subprocess.run(
        [sys.executable, "-m", "recsys.cli", "demo", "--home", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "not a demo's folder" in done.stderr.replace("\n", " ")
    assert (tmp_path / "precious").exists()
