"""The two requests that go past the framework get what the routes would say, to the letter."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import redis
from test_api import publish, served

from recsys.settings import Settings
from serving.profiles import PARTITIONS, stream_key
from serving.shortcut import PLAIN

TENANT = Settings().serving.tenant
NOW = round(time.time()) - 100.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("shortcut")
    publish(home)
    return home


@pytest.fixture(scope="module")
def api(home: Path) -> Iterator[httpx.Client]:
    with served(home) as client:
        yield client


def stored(home: Path) -> list[dict[str, Any]]:
    """Return the events in the streams, and empty these."""
    about = json.loads((home / "redis" / "server.json").read_text())
    with redis.Redis(unix_socket_path=about["socket"]) as store:
        keys = [stream_key(TENANT, partition) for partition in range(PARTITIONS)]
        events = [orjson.loads(entry[b"event"]) for key in keys for _, entry in store.xrange(key)]
        store.flushall()
    return sorted(events, key=lambda event: json.dumps(event, sort_keys=True))


PLAY = {"user_id": "ann", "item_id": "east", "event_type": "play", "timestamp": NOW}
BODIES: dict[str, Any] = {
    "one": PLAY,
    "whole seconds": {**PLAY, "timestamp": int(NOW)},
    "everything": {**PLAY, "event_id": "e", "session_id": "s", "value": 0.25, "request_id": "r", "surface": "kids"},
    "nulls": {**PLAY, "event_id": None, "session_id": None, "value": None, "request_id": None, "surface": None},
    "a session alone": {**{name: value for name, value in PLAY.items() if name != "user_id"}, "session_id": "s"},
    "any letters": {**PLAY, "item_id": "a/b \u00e5\U0001f3ac", "user_id": "\u00e9 ?&"},
    "many": [PLAY, {**PLAY, "item_id": "west", "event_type": "dislike"}, {**PLAY, "timestamp": NOW + 1.5}],
    "the same twice": [PLAY, PLAY],
    "half a millisecond": {**PLAY, "timestamp": NOW + 0.0005},
    "nobody": {name: value for name, value in PLAY.items() if name != "user_id"},
    "a session as a user": {**PLAY, "user_id": "session:s"},
    "a prefixed session": {**PLAY, "session_id": "session:s"},
    "an unknown field": {**PLAY, "itemid": "east"},
    "an unknown type": {**PLAY, "event_type": "plai"},
    "no item": {name: value for name, value in PLAY.items() if name != "item_id"},
    "an empty id": {**PLAY, "item_id": ""},
    "a long id": {**PLAY, "item_id": "x" * 257},
    "the longest id": {**PLAY, "item_id": "x" * 256},
    "a number for an id": {**PLAY, "item_id": 7},
    "a text for a time": {**PLAY, "timestamp": str(NOW)},
    "true for a time": {**PLAY, "timestamp": True},
    "long ago": {**PLAY, "timestamp": 5},
    "the future": {**PLAY, "timestamp": NOW + 1e6},
    "milliseconds": {**PLAY, "timestamp": NOW * 1000},
    "a large value": {**PLAY, "value": 1.5},
    "no events": [],
    "too many": [PLAY] * 501,
    "one of many is wrong": [PLAY, {**PLAY, "event_type": "plai"}],
    "a number": 7,
    "null": None,
    "no JSON": b'{"user_id": ',
    "not a number": b'{"user_id": "ann", "item_id": "east", "event_type": "play", "timestamp": NaN}',
    "half a letter": b'{"user_id": "ann", "item_id": "\\ud800", "event_type": "play", "timestamp": 1700000000}',
    "no UTF-8": b'{"user_id": "ann", "item_id": "\xff", "event_type": "play", "timestamp": 1700000000}',
    "a name twice": b'{"user_id": "ann", "user_id": "bob", "item_id": "east", "event_type": "play", "timestamp": 1700000000}',
    "spaces around": b'  \n {"user_id": "ann", "item_id": "east", "event_type": "play", "timestamp": 1700000000}  ',
    "nothing": b"",
}


@pytest.mark.parametrize("name", BODIES)
def test_events_are_taken_or_refused_as_the_routes_do(api: httpx.Client, home: Path, name: str) -> None:
    body = BODIES[name]
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    answers, events = [], []
    stored(home)
    for kind in ("application/json", "application/json; charset=utf-8"):  # the second is for the routes
        answer = api.post("/v1/events", content=sent, headers={"content-type": kind})
        text = re.sub(r"[0-9]+ s in the future", "so many s in the future", answer.text)  # a second may pass between the two
        answers.append((answer.status_code, {key: value for key, value in json.loads(text).items() if key != "request_id"}))
        events.append(stored(home))
    assert answers[0] == answers[1]
    assert events[0] == events[1]
    assert (answers[0][0] == 200) == bool(events[0])


@pytest.mark.parametrize("query", ["", "k=3", "k=500", "exclude_seen=false", "exclude_seen=true", "k=2&exclude_seen=false"])
def test_lists_are_those_of_the_routes(api: httpx.Client, query: str) -> None:
    api.post("/v1/events", json=[PLAY, {**PLAY, "item_id": "south", "event_type": "dislike", "timestamp": NOW + 1}])
    assert PLAIN.fullmatch(query.encode())
    for user in ("ann", "nobody", "session:x", "a/b c", "\u00e5\U0001f3ac"):
        short = api.get(f"/v1/recommend/{httpx.URL(path=user).path}?{query}").json()
        routed = api.get(f"/v1/recommend/{httpx.URL(path=user).path}?{query}&explain=false".replace("?&", "?")).json()
        assert short.pop("request_id") != routed.pop("request_id")
        assert short == routed


@pytest.mark.parametrize(
    "query", ["k=0", "k=501", "k=03", "k=", "k=1&k=2", "n=3", "exclude_seen=perhaps", "k=3&", "&k=3", "k=%33", "cursor=x"]
)
def test_what_is_not_plain_is_for_the_routes(query: str) -> None:
    match = PLAIN.fullmatch(query.encode())
    assert match is None or int(match[1]) > 500


def test_both_ways_are_counted_as_one_route(api: httpx.Client) -> None:
    def counted() -> float:
        page = api.get("/metrics").text
        line = 'recsys_requests_total{method="GET",route="/v1/recommend/{user_id:id}",status="200"} '
        return sum(float(found.removeprefix(line)) for found in page.splitlines() if found.startswith(line))

    before = counted()
    api.get("/v1/recommend/ann?k=3")
    api.get("/v1/recommend/ann?k=3&explain=false")
    assert counted() == before + 2
