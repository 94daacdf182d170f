import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
import redis
from worlds import publish_release

from recsys.registry import Registry
from recsys.trial import bucket
from serving.embedded import running

COMPASS = {"north": (0, 1), "north-east": (1, 1), "east": (1, 0), "south-east": (1, -1), "south": (0, -1), "west": (-1, 0)}
SERVE = """
import sys
from recsys.errors import RecsysError
from recsys.home import Home
from recsys.settings import load_settings
from serving.run import run
try:
    usual = {"serving.port": 0, "serving.watch_seconds": 0.05, "serving.popular_hours": 0}  # what others like now is no test's business
    usual["serving.profile_seconds"] = 10  # nor is how busy the machine is
    run(Home(sys.argv[1]), load_settings(environ={}, overrides={**usual, **eval(sys.argv[2])}))
except RecsysError as error:
    sys.exit(f"error: {error}")
"""


def start(home: Path, **options: Any) -> subprocess.Popen[str]:
    overrides = {name.replace("__", ".") if "__" in name else f"serving.{name}": value for name, value in options.items()}
    command = [sys.executable, "-c", SERVE, str(home), repr(overrides)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def served(home: Path, **options: Any) -> Iterator[httpx.Client]:
    """Serve a home in a process of its own and give a client of it."""
    process = start(home, **options)
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    try:
        assert "http://" in line, process.stderr.read()
        with httpx.Client(base_url=line.split(" on ")[1].split(",")[0], timeout=10) as client:
            yield client
    finally:
        process.terminate()
        process.communicate(timeout=20)


def publish(home: Path, more: tuple[str, ...] = ()) -> None:
    publish_release(home, [*COMPASS, *more], np.array([*COMPASS.values(), *[(1, 2)] * len(more)], float))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("a home")
    publish(home)
    return home


@pytest.fixture(scope="module")
def api(home):
    with served(home) as client:
        yield client


def redis_pid(home: Path) -> int:
    return json.loads((home / "redis" / "server.json").read_text())["pid"]


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def event(user: str, item: str, kind: str = "play", **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "event_type": kind, "timestamp": time.time(), **more}


def ids(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [item["item_id"] for item in response.json()["items"]]


def test_the_very_next_recommendation_reflects_an_event(api):
    before = api.get("/v1/recommend/ann?k=3")
    assert before.json()["items"][0] == {"item_id": "north", "score": 1.0, "source": "popular", "title": "Film north"}
    accepted = api.post("/v1/events", json=event("ann", "east")).json()
    assert {name: accepted[name] for name in ("accepted", "duplicates")} == {"accepted": 1, "duplicates": 0}
    after = api.get("/v1/recommend/ann?k=3")
    assert set(ids(after)[:2]) == {"north-east", "south-east"}
    assert "east" not in ids(after)
    assert "east" in ids(api.get("/v1/recommend/ann?k=3&exclude_seen=false"))
    api.post("/v1/events", json=event("ann", "north-east", "dislike"))
    assert "north-east" not in ids(api.get("/v1/recommend/ann?k=50&exclude_seen=false"))


def test_an_undo_takes_the_last_word_back_in_the_next_request(api):
    address = "/v1/recommend/eve?k=50&exclude_seen=false"
    api.post("/v1/events", json=event("eve", "west"))
    before = api.get(address).json()["items"]
    api.post("/v1/events", json=event("eve", "north", "dislike"))
    assert "north" not in ids(api.get(address))
    api.post("/v1/events", json=event("eve", "north", "undo"))
    assert api.get(address).json()["items"] == before
    api.post("/v1/events", json=event("eve", "west", "undo"))
    assert {item["source"] for item in api.get(address).json()["items"]} == {"popular"}
    shown = [{"item_id": "west", "event_type": kind, "timestamp": 1_700_000_000} for kind in ("undo", "watch")]
    assert {item["source"] for item in api.post("/v1/recommend", json={"history": shown}).json()["items"]} == {"popular"}


def test_an_answer_has_the_promised_shape(api):
    answer = api.get("/v1/recommend/nobody?k=2").json()
    assert list(answer) == ["items", "release", "request_id", "degraded", "next_cursor", "variant"]
    assert (answer["release"], answer["degraded"], len(answer["request_id"])) == ("000001", False, 32)
    assert [set(item) - {"title"} for item in answer["items"]] == [{"item_id", "score", "source"}] * 2


def test_a_batch_counts_every_event_id_once(api):
    batch = [event("bob", "east", event_id="b1"), event("bob", "west", event_id="b2"), event("bob", "east", event_id="b1")]
    for expected in ((2, 1), (0, 3)):
        answer = api.post("/v1/events", json=batch).json()
        assert (answer["accepted"], answer["duplicates"]) == expected


def test_an_event_sent_twice_without_an_id_counts_once(api):
    once = event("cat", "east")
    assert [api.post("/v1/events", json=once).json()["accepted"] for _ in range(2)] == [1, 0]


def test_somebody_without_a_user_id_is_known_by_the_session(api):
    anonymous = {"session_id": "s1", "item_id": "east", "event_type": "play", "timestamp": time.time()}
    assert api.post("/v1/events", json=anonymous).status_code == 200
    assert set(ids(api.get("/v1/recommend/session:s1?k=2"))) == {"north-east", "south-east"}


def test_at_sign_in_a_session_counts_for_the_user_in_the_next_request(api):
    shown = {"session_id": "s/2", "item_id": "east", "event_type": "play", "timestamp": time.time()}
    api.post("/v1/events", json=shown).raise_for_status()
    assert api.post("/v1/users/fay/merge", json={"session_id": "s/2"}).json()["moved"] == 1
    assert set(ids(api.get("/v1/recommend/fay?k=2"))) == {"north-east", "south-east"}
    assert {item["source"] for item in api.get("/v1/recommend/session:s%2F2?k=2").json()["items"]} == {"popular"}
    assert api.post("/v1/users/fay/merge", json={"session_id": "s/2"}).json()["moved"] == 0
    refused = api.post("/v1/users/session:fay/merge", json={"session": "s/2"})
    assert refused.status_code == 422


def test_a_deleted_profile_is_nobodys_from_the_next_request_on(api):
    sent = event("gus/1", "east")
    api.post("/v1/events", json=sent)
    assert api.delete("/v1/users/gus/1").json()["deleted"] is True
    assert {item["source"] for item in api.get("/v1/recommend/gus/1?k=2").json()["items"]} == {"popular"}
    api.post("/v1/events", json=sent)
    assert {item["source"] for item in api.get("/v1/recommend/gus/1?k=2").json()["items"]} == {"popular"}
    assert api.delete("/v1/users/gus/1").status_code == 200


@pytest.mark.parametrize("user", ["Å/b c?&#%:é", "/", "../events", "a\nb", "ann with a line break\n", "\0", "🎬", "%2F"])
def test_ids_may_hold_slashes_spaces_and_any_letter(api, user):
    api.post("/v1/events", json=event(user, "east")).raise_for_status()
    assert "east" not in ids(api.get(f"/v1/recommend/{quote(user, safe='')}"))
    if user.strip() != user:
        assert "east" in ids(api.get(f"/v1/recommend/{quote(user.strip(), safe='')}"))


REFUSED = [
    ({"event_type": "wach"}, "event_type: 'wach' is no event type; did you mean 'watch'?"),
    ({"event_type": "zzz"}, "allowed: add_to_list, click"),
    ({"usr_id": "x"}, "there is no field 'usr_id'; did you mean 'user_id'?"),
    ({"item_id": None}, "item_id: input should be a valid string; got None"),
    ({"item_id": ""}, "item_id: string should have at least 1 character; got ''"),
    ({"item_id": "x" * 257}, "item_id: string should have at most 256 characters"),
    ({"item_id": 7}, "item_id: input should be a valid string; got 7"),
    ({"value": 1.5}, "value: input should be less than or equal to 1; got 1.5"),
    ({"timestamp": -1}, "timestamp: input should be greater than or equal to 631152000; got -1"),
    ({"timestamp": "yesterday"}, "timestamp: input should be a valid number; got 'yesterday'"),
    ({"timestamp": time.time() + 7200}, "in the future, at most 300 are allowed"),
    ({"timestamp": time.time() * 1000}, "timestamps are in seconds, this looks like milliseconds"),
    ({"user_id": None}, "an event needs a user_id, a session_id or both"),
    ({"user_id": "session:s1"}, "send the part behind 'session:' as session_id"),
]


@pytest.mark.parametrize(("change", "says"), REFUSED, ids=[says[:40] for _, says in REFUSED])
def test_an_invalid_event_is_refused_with_what_came_and_what_is_allowed(api, change, says):
    response = api.post("/v1/events", json={**event("dan", "east"), **change})
    assert response.status_code == 422
    assert says in response.json()["detail"]
    assert "\n" not in response.json()["detail"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "the body is not JSON"),
        ("[]", "at least 1 item"),
        ("3", "body: input should be"),
        ('{"user_id": "ann", "item_id": "east", "event_type": "play", "timestamp": NaN}', "timestamp: input should be a finite number"),
        ('{"user_id": "ann", "item_id": "\\ud800", "event_type": "play", "timestamp": 1}', "item_id: input should be a valid string"),
    ],
)
def test_a_body_that_is_no_event_is_refused(api, content, says):
    response = api.post("/v1/events", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert says in response.json()["detail"]


def test_a_body_without_its_content_type_is_refused_with_the_way_out(api):
    response = api.post("/v1/events", content=json.dumps(event("ann", "east")))
    assert response.status_code == 422
    assert "content-type: application/json" in response.json()["detail"]


def test_one_invalid_event_refuses_the_whole_batch_and_is_named(api):
    batch = [event("eve", "east"), event("eve", "west"), event("eve", "north", "ply")]
    response = api.post("/v1/events", json=batch)
    assert response.status_code == 422
    assert response.json()["detail"].startswith("2.event_type: 'ply' is no event type; did you mean 'play'?")
    assert {item["source"] for item in api.get("/v1/recommend/eve").json()["items"]} == {"popular"}


def test_a_clock_that_is_a_little_ahead_is_no_error(api):
    assert api.post("/v1/events", json=event("fay", "east", timestamp=time.time() + 200)).status_code == 200


def test_a_batch_has_at_most_500_events(api):
    batch = [event("gus", "east", event_id=f"g{n}") for n in range(501)]
    assert "at most 500 items" in api.post("/v1/events", json=batch).json()["detail"]
    assert api.post("/v1/events", json=batch[:500]).json()["accepted"] == 500


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("/v1/recommend/ann?n=3", "there is no parameter 'n'; allowed: cursor, diversity, exclude_items, "),
        ("/v1/recommend/ann?exclude_sen=1", "there is no parameter 'exclude_sen'; did you mean 'exclude_seen'?"),
        ("/v1/recommend/ann?k=0", "k: input should be greater than or equal to 1; got '0'"),
        ("/v1/recommend/ann?k=501", "k: input should be less than or equal to 500; got '501'"),
        ("/v1/recommend/ann?k=ten", "k: input should be a valid integer"),
        ("/v1/items/east/similar?kk=3", "there is no parameter 'kk'"),
        ("/v1/releases?all=1", "there is no parameter 'all'; this address takes none"),
    ],
)
def test_a_wrong_parameter_is_refused(api, address, says):
    response = api.get(address)
    assert response.status_code == 422
    assert says in response.json()["detail"]


def test_similar_items_do_not_hold_the_item_and_an_unknown_one_is_404(api):
    assert set(ids(api.get("/v1/items/east/similar?k=2"))) == {"north-east", "south-east"}
    response = api.get("/v1/items/nowhere/similar")
    assert response.status_code == 404
    assert "does not know item 'nowhere'" in response.json()["detail"]


def test_a_history_in_the_request_is_answered_and_not_stored(api):
    history = [{"item_id": "east", "event_type": "like", "timestamp": 1_700_000_000}, {"item_id": "south-east"}]
    answer = api.post("/v1/recommend", json={"history": history, "k": 3, "exclude_items": ["south"]})
    assert ids(answer)[0] == "north-east"
    assert not {"east", "south-east", "south"} & set(ids(answer))
    assert "east" in ids(api.post("/v1/recommend", json={"history": history, "exclude_seen": False}))
    wrong = api.post("/v1/recommend", json={"history": [{"item": "east"}]})
    assert wrong.status_code == 422
    assert "history.0: there is no field 'item'; did you mean 'item_id'?" in wrong.json()["detail"]


def test_the_history_in_a_request_may_come_in_any_order(api):
    history = [{"item_id": item, "timestamp": 1_700_000_000 + n * 9000} for n, item in enumerate(["north", "east", "west"])]
    answers = [api.post("/v1/recommend", json={"history": order}).json()["items"] for order in (history, history[::-1])]
    assert answers[0] == answers[1]


def test_health_and_releases_tell_what_is_there(api):
    assert api.get("/health/live").json() == {"status": "ok"}
    assert api.get("/health/ready").json() == {"ready": True, "release": "000001", "redis": True}
    assert api.get("/v1/releases").json() == {"live": "000001", "releases": ["000001"]}


def test_metrics_count_what_was_asked_and_name_nobody(api):
    before = figures(api)
    api.post("/v1/events", json=[event("mia with a name", "east", event_id="m1"), event("mia with a name", "east", event_id="m1")])
    api.get("/v1/recommend/mia with a name?k=3")
    api.get("/v1/recommend/mia with a name?k=0")
    after = figures(api)

    def more(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    assert more('recsys_events_total{event_type="play"}') == more('recsys_events_total{event_type="duplicate"}') == 1
    assert more('recsys_requests_total{method="GET",route="/v1/recommend/{user_id:id}",status="200"}') == 1
    assert more('recsys_requests_total{method="GET",route="/v1/recommend/{user_id:id}",status="422"}') == 1
    assert more('recsys_request_seconds_count{method="GET",route="/v1/recommend/{user_id:id}"}') == 2
    assert more('recsys_stage_seconds_count{stage="rank"}') == more('recsys_stage_seconds_count{stage="profile"}') == 1
    assert sum(more(f'recsys_recommended_items_total{{source="{source}"}}') for source in ("tower", "neighbours", "popular")) == 3
    assert after['recsys_release{release="000001"}'] == 1
    assert after['recsys_items{state="released"}'] == 6
    assert more("recsys_events_waiting") == 1
    assert "mia" not in api.get("/metrics").text


def test_the_dashboard_shows_what_the_server_counts_and_all_of_it(api):
    mia = next(f"mia{n}" for n in range(1000) if bucket(f"mia{n}") < 100)  # who is measured
    api.get(f"/v1/recommend/{mia}")
    api.post("/v1/events", json=event(mia, "east"))
    wait_until(lambda: "recsys_outcomes_total" in api.get("/metrics").text)
    board = json.loads((Path(__file__).parents[1] / "configs" / "grafana.json").read_text())
    shown = {name for panel in board["panels"] for target in panel["targets"] for name in re.findall(r"recsys_\w+", target["expr"])}
    told = {name.partition("{")[0] for name in figures(api)}
    assert shown <= told
    families = {re.sub(r"_(bucket|count|sum|total|created)$", "", name) for name in told}
    assert {re.sub(r"_(bucket|total)$", "", name) for name in shown} == families


def figures(api: httpx.Client) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in api.get("/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_openapi_names_every_route_and_answer(api):
    assert "swagger" in api.get("/docs").text
    openapi = api.get("/openapi.json").json()
    routes = {(method, path) for path, methods in openapi["paths"].items() for method in methods}
    assert routes == {
        ("post", "/v1/events"),
        ("get", "/v1/recommend/{user_id}"),
        ("get", "/v1/why-not/{user_id}/{item_id}"),
        ("post", "/v1/recommend"),
        ("get", "/v1/items/{item_id}/similar"),
        ("get", "/v1/onboarding"),
        ("put", "/v1/items/{item_id}"),
        ("delete", "/v1/items/{item_id}"),
        ("post", "/v1/users/{user_id}/merge"),
        ("delete", "/v1/users/{user_id}"),
        ("get", "/v1/releases"),
        ("post", "/v1/releases/rollback"),
        ("delete", "/v1/releases/trial"),
        ("post", "/v1/releases/{release}/promote"),
        ("get", "/metrics"),
        ("get", "/health/live"),
        ("get", "/health/ready"),
    }
    text = json.dumps(openapi)
    assert "HTTPValidationError" not in text  # refusals are a Problem, and say so
    assert all(methods[m]["responses"]["200"]["content"] for methods in openapi["paths"].values() for m in methods)
    item = openapi["components"]["schemas"]["Item"]
    assert set(item["required"]) == {"item_id", "score", "source"}
    assert openapi["components"]["schemas"]["EventIn"]["properties"]["event_type"]["enum"][0] == "impression"


def test_a_new_release_is_served_without_a_restart_and_no_request_fails(tmp_path):
    publish(tmp_path)
    with served(tmp_path) as api:
        api.post("/v1/events", json=event("ann", "north"))
        answers: list[httpx.Response] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                answers.append(api.get("/v1/recommend/ann?k=1"))

        asker = threading.Thread(target=ask)
        asker.start()
        publish(tmp_path, more=("north-north-east",))
        wait_until(lambda: bool(answers) and answers[-1].json()["release"] == "000002")
        Registry(tmp_path / "releases").point_to("000001")
        wait_until(lambda: answers[-1].json()["release"] == "000001")
        done.set()
        asker.join()
        best = {"000001": "north-east", "000002": "north-north-east"}
        assert [answer.text for answer in answers if ids(answer) != [best[answer.json()["release"]]]] == []


def test_of_200_swaps_under_load_no_request_fails_no_answer_mixes_two_and_memory_stays(tmp_path):
    for name in ("a", "b"):
        publish_release(tmp_path, [f"{name}{n}" for n in range(4000)], dim=32)
    process = start(tmp_path, watch_seconds=0.01)
    assert process.stdout is not None
    url = process.stdout.readline().split(" on ")[1].split(",")[0]
    letter, registry, done = {"000001": "a", "000002": "b"}, Registry(tmp_path / "releases"), threading.Event()
    wrong: list[str] = []
    live = ["", "", ""]

    def ask(number: int) -> None:
        with httpx.Client(base_url=url, timeout=10) as client:
            while not done.is_set():
                kind = letter.get(live[number], "a")
                told = client.post("/v1/events", json=event(f"u{number}", f"{kind}{time.monotonic_ns() % 4000}"))
                answer = client.get(f"/v1/recommend/u{number}?k=50&exclude_seen=false")
                if told.status_code != 200 or answer.status_code != 200:
                    wrong.append(told.text + answer.text)
                    return
                live[number] = answer.json()["release"]
                strange = [item["item_id"] for item in answer.json()["items"] if not item["item_id"].startswith(letter[live[number]])]
                if strange or len(answer.json()["items"]) != 50:
                    wrong.append(answer.text)

    def memory() -> int:
        return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[0])

    askers = [threading.Thread(target=ask, args=(number,)) for number in range(len(live))]
    try:
        for asker in askers:
            asker.start()
        for swap in range(200):
            id = ("000001", "000002")[swap % 2]
            registry.point_to(id)
            wait_until(lambda id=id: live == [id] * len(live) or bool(wrong))
            if swap == 20:
                before = memory()
        grown = memory() - before
    finally:
        done.set()
        for asker in askers:
            asker.join()
        process.terminate()
        process.communicate(timeout=20)
    assert wrong == []
    assert grown < 20_000, f"{grown} kB more after 180 swaps of releases of a megabyte"


def test_a_redis_that_hangs_degrades_answers_in_time_and_refuses_events_until_it_is_back(tmp_path):
    publish(tmp_path)
    with served(tmp_path, profile_seconds=0.25) as api:
        assert api.post("/v1/events", json=event("ann", "east")).status_code == 200
        os.kill(redis_pid(tmp_path), signal.SIGSTOP)
        try:
            began = time.monotonic()
            answer = api.get("/v1/recommend/ann?k=2")
            assert time.monotonic() - began < 1.5
            assert answer.json()["degraded"]
            assert ids(answer) == ["north", "north-east"]
            assert ids(api.post("/v1/recommend", json={"history": [{"item_id": "east"}], "k": 2})) != ["north", "north-east"]
            ready = api.get("/health/ready")
            assert (ready.status_code, ready.json()["redis"]) == (503, False)
            assert api.get("/health/live").status_code == 200
            refused = api.post("/v1/events", json=event("ann", "west"))
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "nothing is acknowledged" in refused.json()["detail"]
        finally:
            os.kill(redis_pid(tmp_path), signal.SIGCONT)
        wait_until(lambda: not api.get("/v1/recommend/ann").json()["degraded"])
        assert "east" not in ids(api.get("/v1/recommend/ann"))


def test_an_answer_waits_for_its_profile_as_long_as_is_set(tmp_path):
    publish(tmp_path)
    for seconds, degraded in ((10, False), (0.25, True)):
        with served(tmp_path, profile_seconds=seconds) as api:
            assert api.post("/v1/events", json=event("ann", "east")).status_code == 200
            redis.Redis.from_url(running(tmp_path / "redis")).client_pause(1500)
            assert api.get("/v1/recommend/ann?k=2").json()["degraded"] is degraded


def test_a_redis_killed_by_9_is_back_by_itself_with_every_acknowledged_event(tmp_path):
    publish(tmp_path)
    with served(tmp_path) as api:
        for item in ("east", "south"):
            api.post("/v1/events", json=event("ann", item)).raise_for_status()
        os.kill(redis_pid(tmp_path), signal.SIGKILL)
        assert api.get("/v1/recommend/ann").status_code == 200
        wait_until(lambda: api.get("/health/ready").status_code == 200)
        assert sorted(ids(api.get("/v1/recommend/ann"))) == ["north", "north-east", "south-east", "west"]
        assert api.post("/v1/events", json=event("ann", "west")).status_code == 200


def test_no_redis_and_no_release_are_said_and_recovered_from(tmp_path):
    with served(tmp_path, redis_url=f"unix://{tmp_path}/none.sock") as api:
        response = api.get("/v1/recommend/ann")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert "recsys fit" in response.json()["detail"]
        assert api.get("/health/ready").json() == {"ready": False, "release": None, "redis": False}
        publish(tmp_path)
        wait_until(lambda: api.get("/v1/recommend/ann").status_code == 200)
        assert api.get("/v1/recommend/ann").json()["degraded"]
        assert api.post("/v1/events", json=event("ann", "east")).status_code == 503


def test_a_broken_release_at_the_start_is_said_and_a_rollback_is_taken_up(tmp_path):
    publish(tmp_path)
    publish(tmp_path)
    (tmp_path / "releases" / "000002" / "vectors.npy").write_bytes(b"damaged")
    with served(tmp_path) as api:
        answer = api.get("/v1/recommend/ann")
        assert answer.status_code == 503
        assert answer.json()["detail"] == "release 000002 cannot be served; make another live with: recsys rollback or recsys fit"
        Registry(tmp_path / "releases").point_to("000001")
        wait_until(lambda: api.get("/v1/recommend/ann").status_code == 200)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly_on_a_signal_and_takes_its_redis_along(tmp_path, how):
    publish(tmp_path)
    process = start(tmp_path)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("serving release 000001 on http://127.0.0.1:")
    assert "/docs" in line
    about = json.loads((tmp_path / "redis" / "server.json").read_text())
    process.send_signal(how)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert errors.splitlines() == ["INFO recsys.engine: release 000001 is live"]
    assert not Path(about["socket"]).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(about["pid"], 0)


LOOK = """
import os, sys
from recsys.cli import main

class Look:
    def find_spec(self, name, *_):
        if name in ("numpy", "faiss", "onnxruntime"):
            print(name, *(os.environ.get(f"{pool}_NUM_THREADS") for pool in ("OMP", "OPENBLAS", "MKL")))

sys.meta_path.insert(0, Look())
sys.argv = ["recsys", "serve", "--port", "70000"]
main()
"""


def test_serve_keeps_the_thread_pools_small_before_they_are_made_unless_told_otherwise(tmp_path):
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environ = {name: value for name, value in os.environ.items() if name not in pools} | {"MKL_NUM_THREADS": "3"}
    done = subprocess.run([sys.executable, "-c", LOOK], env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert sorted(done.stdout.splitlines()) == ["faiss 1 1 3", "numpy 1 1 3", "onnxruntime 1 1 3"], done.stderr


def test_a_port_that_is_taken_is_one_clear_line(api, home, tmp_path):
    process = start(tmp_path, port=api.base_url.port)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert f"cannot serve on 127.0.0.1:{api.base_url.port}: Address already in use; choose another" in errors


def test_stored_events_are_all_that_was_acknowledged(api, home):
    socket = json.loads((home / "redis" / "server.json").read_text())["socket"]
    store = redis.Redis(unix_socket_path=socket)
    before = sum(store.xlen(key) for key in store.scan_iter("{recsys:*}:events"))
    assert api.post("/v1/events", json=[event("zoe", "east"), event("zed", "west")]).json()["accepted"] == 2
    assert sum(store.xlen(key) for key in store.scan_iter("{recsys:*}:events")) == before + 2


def test_several_workers_answer_as_one_and_a_dead_one_is_replaced(tmp_path):
    publish(tmp_path)
    process = start(tmp_path, workers=2)
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    try:
        assert line.startswith("serving release 000001 on http://"), process.stderr.read()
        url = line.split(" on ")[1].split(",")[0]

        def ask(path: str, **more: Any) -> httpx.Response:
            with httpx.Client(base_url=url, timeout=10) as client:  # each on a connection of its own
                return client.request(more.pop("method", "GET"), path, **more)

        for n in range(20):
            assert ask("/v1/events", method="POST", json=event("ann", "east")).status_code == 200
            assert "east" not in ids(ask("/v1/recommend/ann")), n
        counted = ask("/metrics").text
        assert 'recsys_requests_total{method="GET",route="/v1/recommend/{user_id:id}",status="200"} 20.0' in counted
        assert 'recsys_release{release="000001"} 1.0' in counted

        workers = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        busy = [pid for pid in workers if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(busy) == 2

        def serving() -> dict[int, str]:
            """Return what each worker says that it serves, whichever of them is asked."""
            return {told["pid"]: told["release"] for told in ask("/v1/console/system").json()["workers"]}

        assert serving() == dict.fromkeys(busy, "000001")
        os.kill(busy[0], signal.SIGKILL)

        def replaced() -> bool:
            with suppress(httpx.TransportError):
                assert ask("/v1/recommend/ann").status_code == 200
            now = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
            return len([pid for pid in now if pid != busy[0] and b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]) == 2

        wait_until(replaced)
        publish(tmp_path, more=("new",))
        wait_until(lambda: all(ask("/v1/recommend/bob").json()["release"] == "000002" for _ in range(10)))
        wait_until(lambda: list(serving().values()) == ["000002"] * 2)
        assert busy[0] not in serving()
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
