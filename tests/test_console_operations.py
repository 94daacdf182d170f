"""Updates, Index & drift and System: what they ask the API, what they tell it to do, and what they show of it in a browser."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from browser import serving
from test_api import figures, served, wait_until
from worlds import publish_release

from recsys.home import Home
from recsys.journal import Journal
from recsys.progress import silent
from recsys.registry import Registry
from recsys.running import running
from recsys.trial import Trials
from serving.console.operations import _movement
from serving.keys import Keys

GATE = {
    "accepted": False,
    "reasons": ["the newest events: ndcg@20 0.0412, 31% less than the 0.0600 of the live release (5,000 questions; gate.worse = 0.01)"],
    "notes": ["no update was judged before this one"],
    "figures": {"questions": 5000, "ndcg@20": 0.0412, "ndcg@20 live": 0.06, "memory ndcg@20": 0.2, "memory ndcg@20 live": 0.21},
}


@pytest.fixture(scope="module")
def writable(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, httpx.Client]]:
    """Serve a copy of the small home whose releases are turned; every test leaves 000002 live and nothing on trial."""
    path = Path(shutil.copytree(small, tmp_path_factory.mktemp("turns") / "home", ignore=shutil.ignore_patterns("redis")))
    with serving(path) as client:
        yield Home(path), client


@pytest.fixture
def turned(writable: tuple[Home, httpx.Client]) -> Iterator[tuple[Home, httpx.Client]]:
    home, client = writable
    yield home, client
    Trials(home.releases).end()
    Registry(home.releases).point_to("000002")
    shutil.rmtree(home.job, ignore_errors=True)
    wait_until(lambda: live(client) == "000002")


def live(client: httpx.Client) -> str:
    return str(client.get("/v1/releases").json()["live"])


def lines(home: Home) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "time"} for line in Journal(home.job).read()]


# --- the API


def test_a_rollback_and_a_promotion_are_served_by_the_next_request_and_stand_in_the_journal(turned: tuple[Home, httpx.Client]) -> None:
    home, client = turned
    back = client.post("/v1/releases/rollback")
    assert back.json() == {"live": "000001", "was": "000002", "trial": None, "serving": "000001"}
    assert live(client) == client.get("/v1/recommend/p0").json()["release"] == Registry(home.releases).current() == "000001"
    forward = client.post("/v1/releases/000002/promote", json={})
    assert forward.json() == {"live": "000002", "was": "000001", "trial": None, "serving": "000002"}
    assert client.get("/v1/recommend/p0").json()["release"] == "000002"
    named = client.post("/v1/releases/rollback", json={"release": "000001"})
    assert named.json()["live"] == "000001"
    assert lines(home) == [
        {"what": "rolled back", "release": "000001", "was": "000002"},
        {"what": "promoted", "release": "000002", "was": "000001", "reason": "by hand"},
        {"what": "rolled back", "release": "000001", "was": "000002"},
    ]
    told = client.get("/v1/console/job").json()
    assert [line["what"] for line in told["lines"]] == ["rolled back", "promoted", "rolled back"]
    assert told["rolled_back_to"] == "000001"


def test_a_trial_is_begun_shown_and_stopped(turned: tuple[Home, httpx.Client]) -> None:
    home, client = turned
    begun = client.post("/v1/releases/000001/promote", json={"canary": 0.5, "hours": 2}).json()
    assert (begun["live"], begun["was"]) == ("000002", "000002")
    assert {name: begun["trial"][name] for name in ("release", "share", "shadow", "hours")} == {
        "release": "000001", "share": 0.5, "shadow": False, "hours": 2.0
    }  # fmt: skip
    assert {client.get(f"/v1/recommend/p{n}").json()["release"] for n in range(30)} == {"000001", "000002"}
    wait_until(lambda: "nothing yet" in (client.get("/v1/console/job").json()["trial"]["so_far"] or ""))
    beside = client.post("/v1/releases/000001/promote", json={"shadow": 1}).json()
    assert beside["trial"]["shadow"] is True
    assert client.post("/v1/releases/trial/stop").json() == {"ended": True, "live": "000002"}
    assert client.post("/v1/releases/trial/stop").json() == {"ended": False, "live": "000002"}
    assert {client.get(f"/v1/recommend/p{n}").json()["release"] for n in range(30)} == {"000002"}
    assert [(line["what"], line["release"]) for line in lines(home)] == [
        ("trial", "000001"), ("trial ended", "000001"), ("trial", "000001"), ("trial ended", None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("000009/promote", {}, 404, "no release '000009'; there are: 000001, 000002"),
        ("..%2f..%2fetc/promote", {}, 404, "no release '../../etc'"),
        ("000002/promote", {}, 409, "release 000002 is live already"),
        ("000002/promote", {"canary": 0.1}, 409, "release 000002 is live already; a trial is for another one: 000001"),
        ("000001/promote", {"canary": 0.8}, 422, "canary: input should be less than or equal to 0.5; got 0.8"),
        ("000001/promote", {"canary": 0.1, "shadow": 0.1}, 422, "send one of them"),
        ("000001/promote", {"hours": 1}, 422, "hours goes with canary"),
        ("000001/promote", {"canry": 0.1}, 422, "there is no field 'canry'; did you mean 'canary'?"),
        ("rollback", {"release": "000009"}, 404, "no release '000009'"),
        ("rollback?id=000001", None, 422, "there is no parameter 'id'; this address takes none"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_changes_nothing(
    turned: tuple[Home, httpx.Client], path: str, body: Any, status: int, says: str
) -> None:
    home, client = turned
    answer = client.post(f"/v1/releases/{path}", json=body)
    assert (answer.status_code, says in answer.json()["detail"], "\n" in answer.json()["detail"]) == (status, True, False), answer.text
    assert (live(client), Trials(home.releases).now(), lines(home)) == ("000002", None, [])


def test_a_damaged_release_is_not_promoted_and_a_first_one_has_nothing_to_go_back_to(small: Path, own: Path) -> None:
    home = Home(own)
    (home.releases / "000001" / "bias.npy").write_bytes(b"no array")
    with serving(own) as client:
        damaged = client.post("/v1/releases/000001/promote")
        assert (damaged.status_code, "bias.npy is not the file that was published" in damaged.json()["detail"]) == (409, True)
        assert client.post("/v1/releases/rollback").status_code == 409
        assert (live(client), lines(home)) == ("000002", [])
        Registry(home.releases).point_to("000001")
        nothing = client.post("/v1/releases/rollback", json={})
        assert (nothing.status_code, "has no parent to go back to; name one of: 000002" in nothing.json()["detail"]) == (409, True)


def test_only_the_scope_admin_turns_releases_and_sees_behind_the_pages(own: Path) -> None:
    keys = Keys(Home(own).keys)
    secrets = {scope: keys.add(scope, scope) for scope in ("read", "write", "admin")}
    with served(own, watch_seconds=0.05) as client:
        for scope, allowed in (("read", False), ("write", False), ("admin", True)):
            told = {"x-api-key": secrets[scope]}
            for path in ("rollback", "000009/promote", "trial/stop"):
                assert (client.post(f"/v1/releases/{path}", headers=told).status_code != 403) == allowed
            for path in ("releases", "job", "index", "movement/000002", "system", "disk"):
                assert client.get(f"/v1/console/{path}", headers=told).status_code == (200 if allowed else 403)


def test_of_every_release_it_is_told_how_it_came_about(console: httpx.Client, small: Path) -> None:
    told = console.get("/v1/console/releases").json()
    assert (told["live"], told["left_out"]) == ("000002", 0)
    for about in told["releases"]:
        release = Registry(Home(small).releases).open(about["id"])
        assert about["bytes"] == sum(release.file(name).stat().st_size for name in release.manifest["files"])
        assert {about[name] == release.manifest[name] for name in ("parent", "created", "why", "metrics")} == {True}
        assert (about["strategy"], about["index"]["exact"], about["index"]["items"]) == ("replay+ewc", True, about["metrics"]["items"])
    assert [about["id"] for about in told["releases"]] == ["000001", "000002"]
    assert console.get("/v1/console/releases?all=1").status_code == 422


def test_how_far_an_update_moved_things_by_hand(tmp_path: Path) -> None:
    """Of three items one stays, one turns by 60 degrees, one by 90; a fourth is new, and half of what is watched is now that."""
    turn = np.pi / 3
    publish_release(tmp_path, ["a", "b", "c"], np.array([[1, 0], [1, 0], [1, 0]], float), counts=[6, 2, 2], number=0)
    child = np.array([[1, 0], [np.cos(turn), np.sin(turn)], [0, 1], [0, -1]], float)
    publish_release(tmp_path, ["a", "b", "c", "d"], child, counts=[1, 2, 2, 5], number=1)
    publish_release(tmp_path, ["a", "c"], child[:2], counts=[1, 1], number=0)
    found = _movement(Home(tmp_path), "000002")
    assert (found["parent"], found["items"], found["new"], found["gone"], found["anew"]) == ("000001", 4, 1, 0, False)
    assert (found["vectors"]["compared"], found["vectors"]["same"]) == (3, pytest.approx(1 / 3))
    assert found["vectors"]["quantiles"]["0.5"] == pytest.approx(0.5)
    assert found["vectors"]["quantiles"]["0.25"] == pytest.approx(0.25)
    assert found["popularity"]["moved"] == pytest.approx(0.5)
    assert found["popularity"]["new"] == pytest.approx(0.5)
    assert [(one["item_id"], one["from"], one["to"]) for one in found["popularity"]["up"]] == [("d", 0.0, 0.5)]
    assert [one["item_id"] for one in found["popularity"]["down"]] == ["a"]
    anew = _movement(Home(tmp_path), "000003")
    assert (anew["anew"], anew["vectors"], anew["gone"]) == (True, None, 2)
    assert anew["popularity"]["moved"] == pytest.approx(0.7)  # of b's 0.2 and d's 0.5
    assert "has none before it" in _movement(Home(tmp_path), "000001")["missing"]


def test_a_release_that_is_not_there_has_not_moved(console: httpx.Client) -> None:
    unknown = console.get("/v1/console/movement/000009")
    assert (unknown.status_code, "no release '000009'" in unknown.json()["detail"]) == (404, True)


def test_the_system_says_who_answers_how_redis_is_and_what_waits(console: httpx.Client, small: Path) -> None:
    sent = {"user_id": "system", "item_id": "sc1", "event_type": "play", "timestamp": time.time()}
    console.post("/v1/events", json=sent).raise_for_status()
    told = console.get("/v1/console/system").json()
    assert [(one["pid"], one["release"]) for one in told["workers"]] == [(told["answered_by"], "000002")]
    assert told["workers"][0]["bytes"] > 10_000_000
    assert told["redis"]["used_memory"] > 0
    assert told["waiting"]["events"] == figures(console)["recsys_events_waiting"] >= 1
    assert abs(told["waiting"]["oldest"] - time.time() * 1000) < 600_000
    disk = console.get("/v1/console/disk").json()
    assert disk["folders"]["releases"]["files"] == sum(path.is_file() for path in (small / "releases").rglob("*"))
    assert disk["free"] < disk["of"]


def test_without_redis_the_system_still_answers_at_once(own: Path) -> None:
    with served(own, redis_url="redis://127.0.0.1:9", watch_seconds=0.05) as client:
        began = time.monotonic()
        told = client.get("/v1/console/system").json()
        assert time.monotonic() - began < 3
        assert told["redis"] is None
        assert "Redis does not answer" in told["redis_away"]
        assert told["workers"][0]["release"] == "000002"


def test_each_of_several_workers_says_what_it_serves_and_one_that_was_killed_is_not_told_of(own: Path) -> None:
    with serving(own, "--workers", "2") as client:

        def workers() -> list[dict[str, Any]]:
            with suppress(httpx.TransportError):  # the one that was killed had this connection
                return list(client.get("/v1/console/system").json()["workers"])
            return []

        wait_until(lambda: len(workers()) == 2)
        assert {one["release"] for one in workers()} == {"000002"}
        client.post("/v1/releases/rollback").raise_for_status()
        wait_until(lambda: [one["release"] for one in workers()] == ["000001", "000001"])
        killed = workers()[0]["pid"]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: bool(found := {one["pid"] for one in workers()}) and killed not in found)


def test_what_is_being_trained_is_told_and_what_was_killed_is_told_apart(console: httpx.Client, small: Path) -> None:
    assert console.get("/v1/console/job").json()["running"] is None
    with running(Home(small).job, silent, "update", why="volume", events=7, parent="000002") as step:
        step("training", 3, 10)
        told = console.get("/v1/console/job").json()["running"]
        assert (told["step"], told["done"], told["of"], told["events"], told["lost"]) == ("training", 3, 10, 7, None)
    assert console.get("/v1/console/job").json()["running"] is None
