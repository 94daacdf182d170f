import asyncio
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
import redis
from test_api import event as body
from test_api import ids, publish, served, start

from recsys.events import CODE, SCHEMA
from recsys.home import Home
from recsys.log import Log
from recsys.settings import Settings, load_settings
from serving import warm as warming
from serving.archive import archive
from serving.embedded import EmbeddedRedis
from serving.history import Event, History
from serving.profiles import Profiles, profile_keys
from serving.warm import warm
from serving.wire import Wire

NOW = 1_400_000_000_000
"""The newest event of these logs lies years back."""

DAY = 86_400_000
TENANT = Settings().serving.tenant


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


def did(item: str, time: int = NOW, id: str = "", user: str | None = "ann", kind: str = "play", **more: Any) -> dict[str, Any]:
    return {"event_id": id or f"{user}-{item}-{time}", "user_id": user, "item_id": item, "timestamp": time, "event_type": kind, **more}


def write(home: Home, *rows: dict[str, Any]) -> None:
    columns = {name: pa.array([row.get(name) for row in rows]).cast(SCHEMA.field(name).type) for name in SCHEMA.names}
    Log(home.log).append(pa.table(columns, schema=SCHEMA))


def options(**serving: Any) -> Settings:
    return load_settings(environ={}, overrides={f"serving.{name}": value for name, value in serving.items()})


def as_user(server: EmbeddedRedis, use: Any) -> Any:
    async def main() -> Any:
        wire = Wire(server.url)
        try:
            return await use(Profiles(wire, TENANT))
        finally:
            wire.close()

    return asyncio.run(main())


def profile(server: EmbeddedRedis, owner: str = "ann") -> History:
    return as_user(server, lambda people: people.read(owner))


def items(server: EmbeddedRedis, owner: str = "ann") -> list[str]:
    return profile(server, owner).items


def contents(store: redis.Redis) -> dict[bytes, Any]:
    return {key: store.zrange(key, 0, -1, withscores=True) for key in store.keys("*:profile*:*")}


def test_a_known_user_is_answered_from_the_log_right_after_the_start(tmp_path):
    publish(tmp_path)
    write(Home(tmp_path), did("east"), did("west", user="bob"))
    process = start(tmp_path)
    assert process.stdout is not None
    assert "2 events loaded from the log" in process.stdout.readline()
    process.terminate()
    process.communicate(timeout=20)
    with served(tmp_path) as api:
        assert set(ids(api.get("/v1/recommend/ann?k=2"))) == {"north-east", "south-east"}
        assert api.get("/v1/recommend/ann?k=2").json()["items"][0]["source"] == "tower"
        assert api.get("/v1/recommend/nobody?k=2").json()["items"][0]["source"] == "popular"


def test_a_profile_holds_the_newest_events_oldest_first_whatever_their_order_in_the_log(server, store, home):
    write(home, did("c", NOW + 3), did("a", NOW + 1), did("e", NOW + 5), did("x", NOW, user="bob"))
    write(home, did("d", NOW + 4, kind="dislike", value=0.25), did("b", NOW + 2), did("seen", NOW + 9, kind="impression"))
    assert warm(server.url, home, options(profile_events=3)) == 4
    assert profile(server) == History(["c", "d", "e"], [CODE["play"], CODE["dislike"], CODE["play"]], [NOW + 3, NOW + 4, NOW + 5])
    held = [orjson.loads(member)[3] for member in store.zrange(profile_keys(TENANT, "ann")[0], 0, -1)]
    assert held == [None, 0.25, None]
    assert items(server, "bob") == ["x"]


@pytest.mark.parametrize(("segment", "sent"), [(1, 1), (3, 2), (7, 5), (1000, 4), (1000, 1000)])
def test_however_the_log_is_cut_the_profiles_are_those_that_the_api_would_have_made(server, store, home, monkeypatch, segment, sent):
    monkeypatch.setattr(warming, "SEGMENT_ROWS", segment)
    monkeypatch.setattr(warming, "SENT", sent)
    kinds = ["play", "dislike", "impression", "undo", "like"]
    rows = [did(f"i{n % 9}", NOW + n * 7 % 13, f"e{n}", f"u{n % 3}", kinds[n % 5], value=n % 11 / 10) for n in range(60)]
    write(home, *rows[:25])
    write(home, *rows[25:])
    loaded = warm(server.url, home, options(profile_events=8))
    warmed = contents(store)
    assert loaded >= sum(map(len, warmed.values())) == 24
    store.flushall()

    async def merge(people: Profiles) -> None:
        people.limit = 8
        await people.merge([Event(**row) for row in rows])

    as_user(server, merge)
    assert warmed == contents(store)


def test_somebody_without_a_user_id_is_known_by_the_session(server, store, home):
    write(home, did("east", user=None, session_id="s1"), did("west", session_id="s1"))
    warm(server.url, home, options())
    assert (items(server, "session:s1"), items(server, "ann")) == (["east"], ["west"])


def test_an_old_log_is_loaded_too_and_the_profile_expires_from_now_on(server, store, home):
    write(home, did("old", NOW - 4000 * DAY), did("newest", NOW, user="bob"))
    assert warm(server.url, home, options(profile_days=10)) == 2
    assert items(server) == ["old"]
    assert all(10 * 86_400 - 60 < store.ttl(key) <= 10 * 86_400 for key in store.keys("*:profile*:*"))


def test_nothing_enters_the_streams(server, store, home):
    write(home, did("east"))
    warm(server.url, home, options())
    assert {key.decode().split(":")[-2] for key in store.keys("*") if b"profile" in key} == {"profile2"}
    assert store.keys("*:events") == []
    assert archive(store, TENANT, home.log) == 0


def test_warming_twice_adds_nothing_and_even_the_mark_may_be_lost(server, store, home, monkeypatch):
    write(home, *[did(f"i{n}", NOW + n) for n in range(30)])
    assert warm(server.url, home, options(profile_events=20)) == 20
    before = contents(store)
    with monkeypatch.context() as patch:
        patch.setattr(warming, "_load", None)  # not even tried
        assert warm(server.url, home, options(profile_events=20)) == 0
    store.delete(f"{{{TENANT}}}:warm")
    assert warm(server.url, home, options(profile_events=20)) == 0
    assert contents(store) == before


def test_a_restart_loads_only_what_is_new_in_the_log(server, store, home, monkeypatch):
    write(home, did("a", NOW), did("b", NOW + 1))
    warm(server.url, home, options())
    write(home, did("c", NOW + 2), did("x", NOW, user="bob"))
    read: list[int] = []
    lately = warming._lately
    monkeypatch.setattr(warming, "_lately", lambda table, *rest: read.append(len(table)) or lately(table, *rest))
    assert warm(server.url, home, options()) == 2
    assert read == [2]
    assert (items(server), items(server, "bob")) == (["a", "b", "c"], ["x"])


def test_the_mark_of_another_home_is_not_taken(server, store, home, tmp_path):
    other = Home(tmp_path / "other")
    write(home, did("a"), did("last", NOW + 2))
    write(other, did("b"), did("last", NOW + 2))
    assert (warm(server.url, home, options()), warm(server.url, other, options())) == (2, 1)
    assert items(server) == ["a", "b", "last"]


def test_the_mark_of_a_log_that_is_gone_is_not_taken(server, store, home):
    write(home, did("a"))
    warm(server.url, home, options())
    next(home.log.glob("*.parquet")).unlink()
    write(home, did("b", NOW + 1))  # as long as the one that was there
    assert warm(server.url, home, options()) == 1
    assert items(server) == ["a", "b"]


def test_profiles_that_may_hold_more_than_before_are_filled_again(server, store, home):
    write(home, *[did(f"i{n}", NOW + n * DAY) for n in range(6)])
    first = warm(server.url, home, options(profile_events=3))
    assert warm(server.url, home, options(profile_events=4)) > 0
    assert len(items(server)) > first


def test_no_more_is_sent_to_redis_than_a_profile_holds(server, store, home, monkeypatch):
    write(home, *[did(f"i{n}", NOW + n) for n in range(30)])
    sent: list[int] = []
    load = warming._load
    monkeypatch.setattr(warming, "_load", lambda client, people, serving: sent.append(len(people["ann"])) or load(client, people, serving))
    warm(server.url, home, options(profile_events=20))
    assert sent == [20]


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("after", range(6))
def test_killed_at_any_point_and_run_again_the_profiles_are_whole(server, store, home, monkeypatch, after):
    monkeypatch.setattr(warming, "SEGMENT_ROWS", 20)
    monkeypatch.setattr(warming, "SENT", 7)
    write(home, *[did(f"i{n}", NOW + n, user=f"u{n % 5}") for n in range(40)])
    calls = iter(range(100))
    load = warming._load

    def killed(*words: Any) -> int:
        if next(calls) == after:
            raise Killed
        return load(*words)

    with monkeypatch.context() as patch:
        patch.setattr(warming, "_load", killed)
        with pytest.raises(Killed):
            warm(server.url, home, options())
    warm(server.url, home, options())
    assert {person: items(server, f"u{person}") for person in range(5)} == {p: [f"i{n}" for n in range(p, 40, 5)] for p in range(5)}


@pytest.mark.parametrize("forgotten", [False, True], ids=["its id known", "its id forgotten"])
def test_an_event_of_the_api_is_once_in_the_profile_and_once_in_the_log(server, store, home, forgotten):
    sent = [Event("heat", "watch", NOW, "e1", "ann", "s1", 0.7), Event("alien", "play", NOW + 1, user_id="ann", value=0.123456789)]
    as_user(server, lambda people: people.merge(sent))
    before = contents(store)
    archive(store, TENANT, home.log)
    if forgotten:  # as it is after a week
        store.delete(*store.keys("*:seen:*"))
    assert warm(server.url, home, options()) == 0
    assert contents(store) == before
    assert archive(store, TENANT, home.log) == 0
    assert len(Log(home.log)) == 2


def test_an_event_that_came_both_ways_counts_once_though_its_words_differ(server, store, home):
    as_user(server, lambda people: people.merge([Event("heat", "watch", NOW + 500, "e1", "ann")]))
    write(home, did("heat", NOW, "e1", kind="watch", value=0.5), did("alien", NOW + 1, "e2"))
    assert warm(server.url, home, options()) == 1
    assert items(server) == ["alien", "heat"]


def test_an_event_that_was_warmed_and_then_sent_is_once_in_the_profile_and_once_in_the_log(server, store, home):
    write(home, did("heat", NOW, "e1", value=0.7))
    warm(server.url, home, options())
    as_user(server, lambda people: people.merge([Event("heat", "play", NOW, "e1", "ann", value=0.7)]))
    assert items(server) == ["heat"]
    assert archive(store, TENANT, home.log) == 0


def test_events_of_the_api_stay_when_older_ones_are_loaded_beside_them(server, store, home):
    as_user(server, lambda people: people.merge([Event("live", "play", NOW + DAY, "live", "ann")]))
    write(home, *[did(f"i{n}", NOW + n) for n in range(5)])
    assert warm(server.url, home, options(profile_events=3)) == 2
    assert items(server) == ["i3", "i4", "live"]


def test_progress_never_goes_back_and_ends_at_the_end(server, store, home, monkeypatch):
    monkeypatch.setattr(warming, "SEGMENT_ROWS", 10)
    monkeypatch.setattr(warming, "SENT", 3)
    write(home, *[did(f"i{n}", NOW + n, user=f"u{n}") for n in range(25)])
    told: list[tuple[int, int]] = []
    warm(server.url, home, options(), lambda _, done, total: told.append((done, total)))
    assert told[-1] == (25, 25)
    assert all(a < b for a, b in pairwise(told))


def test_a_log_without_events_and_one_of_impressions_alone_are_no_error(server, store, home):
    assert warm(server.url, home, options()) == 0
    write(home, did("heat", kind="impression"))
    assert warm(server.url, home, options()) == 0
    assert contents(store) == {}


@pytest.mark.parametrize("broken", ["log", "redis"])
def test_a_log_or_redis_that_cannot_be_read_is_one_line_and_the_server_starts(tmp_path, broken):
    publish(tmp_path)
    write(Home(tmp_path), did("east"))
    more = {}
    if broken == "log":
        next(Home(tmp_path).log.glob("*.parquet")).write_bytes(b"no parquet")
    else:
        more = {"redis_url": f"unix://{tmp_path}/none.sock"}
    line, errors = _first_line_and_errors(start(tmp_path, **more))
    assert line.startswith("serving release 000001 on ")
    assert "loaded" not in line
    refused = [error for error in errors if "profiles are not filled from the log" in error]
    assert len(refused) == 1
    assert len(errors) == 2  # and that the release is live


def _first_line_and_errors(process: subprocess.Popen[str]) -> tuple[str, list[str]]:
    assert process.stdout is not None
    line = process.stdout.readline()
    process.terminate()
    return line, process.communicate(timeout=20)[1].splitlines()


def test_a_live_user_keeps_what_was_sent_over_a_restart_after_an_import(tmp_path: Path):
    publish(tmp_path)
    with served(tmp_path) as api:
        api.post("/v1/events", json=body("ann", "east")).raise_for_status()
    write(Home(tmp_path), did("north-east", round(time.time() * 1000) - DAY))
    with served(tmp_path) as api:
        assert not {"east", "north-east"} & set(ids(api.get("/v1/recommend/ann")))
