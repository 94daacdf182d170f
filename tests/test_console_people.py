"""What the console asks about people and films, from a served home whose answers can be worked out by hand."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from browser import films, what_they_did
from worlds import NOW

from recsys.home import Home
from recsys.registry import Registry
from recsys.settings import load_settings
from serving.api import create_app
from serving.console.kept import Kept
from serving.embedded import EmbeddedRedis
from serving.history import Event, History
from serving.snapshot import Ask, Snapshot

ODD = 'Å*b [c]?&#%:é"<b>\\ 🎬'


def ask(client: httpx.Client, what: str, status: int = 200, **params: Any) -> dict[str, Any]:
    answer = client.get(f"/v1/console/{what}", params=params)
    assert answer.status_code == status, answer.text
    return answer.json()


def send(client: httpx.Client, user: str, item: str, kind: str = "play", at: float | None = None) -> None:
    body = {"user_id": user, "item_id": item, "event_type": kind, "timestamp": at or time.time()}
    client.post("/v1/events", json=body).raise_for_status()


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["item_id"] for item in items]


def past(user: str) -> list[Event]:
    rows = sorted((row for row in what_they_did() if row["user_id"] == user), key=lambda row: row["timestamp"])
    return [Event(row["item_id"], row["event_type"], row["timestamp"]) for row in rows]


def snapshot(home: Path, id: str) -> Snapshot:
    return Snapshot.load(Registry(home / "releases").open(id))


def test_people_are_found_by_any_part_of_their_name_in_whatever_case(console: httpx.Client) -> None:
    found = ask(console, "people", q="P1", k=50)
    assert {person["user"] for person in found["people"]} == {"p1", *(f"p{n}" for n in range(10, 20))}
    assert (found["people"][0]["user"], found["complete"]) == ("p1", True)
    assert found["people"][0] == {"user": "p1", "events": 5, "last": max(event.timestamp for event in past("p1"))}
    assert ask(console, "people", q="P1", k=3)["complete"] is False
    assert ask(console, "people", q="nobody like that")["people"] == []


def test_without_a_name_some_people_are_drawn(console: httpx.Client) -> None:
    drawn = [tuple(person["user"] for person in ask(console, "people", k=5)["people"]) for _ in range(4)]
    assert all(drawn)
    assert len(set(drawn)) > 1


@pytest.mark.parametrize("part", [ODD, "*B [", "\\ 🎬"])
def test_a_name_may_hold_any_letter(console: httpx.Client, part: str) -> None:
    send(console, ODD, "sc1")
    assert [person["user"] for person in ask(console, "people", q=part)["people"]] == [ODD]
    assert ask(console, "person", user=ODD)["events"][0]["item_id"] == "sc1"
    assert ids(ask(console, "list", user=ODD, k=5)["items"]) == ids(console.get(f"/v1/recommend/{quote(ODD, safe='')}?k=5").json()["items"])


def test_a_profile_is_told_newest_first_and_what_was_taken_back_is_marked(console: httpx.Client) -> None:
    now = time.time()
    for place, (item, kind) in enumerate((("cr1", "play"), ("cr2", "like"), ("cr2", "undo"), ("cr3", "dislike"))):
        send(console, "undoer", item, kind, now - 10 + place)
    told = ask(console, "person", user="undoer")
    assert [(event["item_id"], event["event_type"], event["taken_back"]) for event in told["events"]] == [
        ("cr3", "dislike", False), ("cr2", "undo", True), ("cr2", "like", True), ("cr1", "play", False),
    ]  # fmt: skip
    assert told["events"][0] | {"time": 0, "event_id": ""} == {
        "item_id": "cr3", "title": "Nine Witnesses (1989)", "genres": ["Crime", "Drama"], "year": 1989, "event_type": "dislike", "time": 0,
        "event_id": "", "value": None, "taken_back": False,
    }  # fmt: skip
    assert (told["known"], told["release"]) == (True, "000002")
    assert ask(console, "person", user="undoer", mark=told["mark"]) == {"user": "undoer", "mark": told["mark"], "unchanged": True}
    send(console, "undoer", "cr4")
    assert ask(console, "person", user="undoer", mark=told["mark"])["events"][0]["item_id"] == "cr4"
    assert ask(console, "person", user="nobody yet") | {"mark": ""} == {
        "user": "nobody yet", "mark": "", "known": False, "release": "000002", "most": 200, "sessions": [], "events": [],
    }  # fmt: skip


def test_sessions_that_somebody_signed_in_from_are_told(console: httpx.Client) -> None:
    console.post(
        "/v1/events", json={"session_id": "tv 1", "item_id": "an1", "event_type": "play", "timestamp": time.time()}
    ).raise_for_status()
    assert [person["user"] for person in ask(console, "people", q="tv 1")["people"]] == ["session:tv 1"]
    console.post("/v1/users/signer/merge", json={"session_id": "tv 1"}).raise_for_status()
    assert [one["session"] for one in ask(console, "person", user="signer")["sessions"]] == ["tv 1"]


def test_a_list_is_what_the_api_recommends_and_another_releases_is_what_that_one_would(small: Path, console: httpx.Client) -> None:
    for user in ("p0", "p1", "nobody"):
        served = console.get(f"/v1/recommend/{user}?k=12&explain=true").json()
        told = ask(console, "list", user=user, k=12, explain=True)
        assert (told["items"], told["release"]) == (served["items"], "000002")
        older = ask(console, "list", user=user, k=12, release="000001")
        assert (ids(older["items"]), older["release"]) == (ids(snapshot(small, "000001").recommend(past(user), 12)), "000001")
        assert (ids(older["items"]) != ids(told["items"])) == (user != "nobody")
    assert "no release '000009'" in ask(console, "list", 404, user="p0", release="000009")["detail"]


def test_by_stage_each_expert_says_what_it_would_give_alone(small: Path, console: httpx.Client) -> None:
    told, release = ask(console, "list", user="p0", k=6, stages=True), snapshot(small, "000002")
    had = {event.item_id for event in past("p0")}
    assert ids(told["items"]) == ids(release.recommend(past("p0"), 6))
    vectors, names = np.load(release.folder / "vectors.npy"), release.vocab.base.ids
    asked = release.understood(Ask(History.of(past("p0")), 6))
    release._answered([asked], 100)
    nearest = [names[row] for row in np.argsort(-(vectors[1:] @ asked.user), kind="stable") + 1 if names[row] not in had]
    assert ids(told["stages"]["tower"]) == nearest[:6]
    votes = sorted(zip(-asked.vote, asked.voted, strict=True))
    assert ids(told["stages"]["neighbours"]) == [names[row] for _, row in votes if names[row] not in had][:6]
    assert ids(told["stages"]["popular"]) == [id for id in films()["item_id"].to_pylist() if id not in had][:6]
    assert told["weights"] == pytest.approx({"neighbours": 0.2, "popular": 0.1})
    nobody = ask(console, "list", user="nobody", k=6, stages=True)["stages"]
    assert (nobody["tower"], nobody["neighbours"]) == ([], [])
    assert len(nobody["popular"]) == 6


def test_films_are_found_by_title_or_id_what_fits_best_first(console: httpx.Client) -> None:
    assert ids(ask(console, "items", q="LAST")["items"]) == ["cr10", "sc0"]
    assert ids(ask(console, "items", q="light")["items"])[:2] == ["sc9", "an9"]
    assert ids(ask(console, "items", q="an3")["items"]) == ["an3"]
    assert ask(console, "items", q="an3")["items"][0] == {
        "item_id": "an3",
        "title": "Pip the Brave (1989)",
        "genres": ["Animation", "Drama"],
        "year": 1989,
    }
    assert ask(console, "items", q="(1986)", k=2)["fitting"] == 4
    assert ask(console, "items", q="[zzz")["items"] == []
    assert ids(ask(console, "items", k=3)["items"]) == ["sc0", "sc1", "sc2"]
    assert ask(console, "about", item=["sc0", "nothing"])["items"][1] == {"item_id": "nothing"}


def test_an_items_page_tells_what_is_truly_known(small: Path, console: httpx.Client) -> None:
    told = ask(console, "item", item="ro3")
    rows = [row for row in what_they_did() if row["item_id"] == "ro3"]
    assert (told["title"], told["year"], told["stage"], told["withdrawn"]) == ("Halfway to Vienna (1989)", 1989, "released", False)
    assert (told["place"], told["of"]) == (28, 48)
    assert told["learned"] == {"first_seen": NOW, "last_seen": NOW, "count": 21.0}
    assert told["exposure"]["types"] == {"watch": len(rows)}
    assert sum(told["exposure"]["spans"]) == len(rows)
    times = [row["timestamp"] for row in rows]
    assert (told["exposure"]["first"], told["exposure"]["last"]) == (min(times), max(times))
    first, second = (np.load(small / "releases" / id / "vectors.npy") for id in ("000001", "000002"))
    row = pq.read_table(small / "releases" / "000001" / "items.parquet")["item_id"].to_pylist().index("ro3") + 1
    assert told["moves"][1]["cosine"] == pytest.approx(float(first[row] @ second[row]), abs=1e-5)
    assert told["moves"][0] == {"release": "000001", "known": True, "cosine": None, "usual": None}
    usual = [float(a @ b) for a, b in zip(first[1:41], second[1:41], strict=True)]
    assert told["moves"][1]["usual"] == pytest.approx(np.median(usual), abs=1e-5)
    new = ask(console, "item", item="an11")
    assert [move["known"] for move in new["moves"]] == [False, True]
    unknown = ask(console, "item", item="no such film")
    assert (unknown["stage"], unknown["learned"], unknown["place"], unknown["columns"]) == ("unknown", None, None, {})


def test_an_item_that_was_put_is_cold_one_that_was_withdrawn_says_so_and_rules_hold(own: Path, server: EmbeddedRedis) -> None:
    settings = load_settings(environ={}, overrides={"serving.redis_url": server.url, "serving.popular_hours": 0})

    (own / "rules.toml").write_text('pin = [{item_id = "ro5", place = 2}]\nbury = [{items = ["sc1"], by = 0.1}]\n')

    async def main() -> None:
        app = create_app(Home(own), settings)
        transport = httpx.ASGITransport(app=app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://localhost/v1") as client:
            (await client.put("/items/fresh", json={"title": "Fresh (2024)", "genres": ["Sci-Fi"], "year": 2024})).raise_for_status()
            (await client.delete("/items/sc0")).raise_for_status()
            shown = (await client.get("/recommend/somebody?k=10")).json()["items"]
            assert (shown[1]["source"], "sc1" in ids(shown)) == ("pinned", False)
            assert not {"beside", "items_index"} & {*app.state._state}, "nobody has opened the console yet"
            fresh, gone = [(await client.get(f"/console/item?item={item}")).json() for item in ("fresh", "sc0")]
            assert (fresh["stage"], fresh["withdrawn"], fresh["title"]) == ("shelf", False, "Fresh (2024)")
            assert (gone["stage"], gone["withdrawn"]) == ("released", True)
            assert ids((await client.get("/console/items?q=fresh")).json()["items"]) == ["fresh"]
            older = (await client.get("/console/list?user=nobody&release=000001&k=48")).json()["items"]
            assert "sc0" not in ids(older)
            assert "fresh" in ids(older)
            assert (await client.get("/console/list?user=somebody&k=10")).json()["items"] == shown, "the house's rules hold here too"
            app.state.engine.snapshot = None
            missing = await client.get("/console/item?item=sc0")
            assert missing.status_code == 503
            assert "recsys fit" in missing.json()["detail"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("what", "params", "says"),
    [
        ("people", {"nope": 1}, "there is no parameter 'nope'; allowed: k, q"),
        ("person", {}, "user: field required"),
        ("list", {"user": "p0", "k": 501}, "k: input should be less than or equal to 500; got '501'"),
        ("item", {"item": "x" * 257}, "item: string should have at most 256 characters"),
    ],
)
def test_what_cannot_be_used_is_refused(console: httpx.Client, what: str, params: dict[str, Any], says: str) -> None:
    assert says in ask(console, what, 422, **params)["detail"]


def test_what_is_kept_is_one_thing_made_once_in_a_thread_and_dropped_when_nobody_asks() -> None:
    made = list[tuple[str, str]]()

    def make(name: str) -> str:
        made.append((name, threading.current_thread().name))
        time.sleep(0.02)
        return name * 2

    async def asked() -> None:
        kept = Kept[str](idle=0.1)
        assert await asyncio.gather(*(kept.get("a", lambda: make("a")) for _ in range(5))) == ["aa"] * 5
        assert await kept.get("b", lambda: make("b")) == "bb"
        assert await kept.get("b", lambda: make("b")) == "bb"
        assert [name for name, _ in made] == ["a", "b"]
        await asyncio.sleep(0.15)
        assert kept.thing is None
        assert await kept.get("b", lambda: make("b")) == "bb"

    asyncio.run(asked())
    assert [name for name, _ in made] == ["a", "b", "b"]
    assert threading.main_thread().name not in {thread for _, thread in made}
