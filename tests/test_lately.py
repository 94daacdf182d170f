"""What is shown to whom nothing is known of: liked in the last hours, and unlike each other."""

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.exceptions import ResponseError
from test_api import event, ids, served, wait_until
from worlds import NOW, publish_release

from recsys.registry import Registry
from serving.embedded import EmbeddedRedis
from serving.engine import Engine
from serving.history import Event
from serving.lately import Lately
from serving.profiles import Profiles
from serving.snapshot import PRIOR, Snapshot
from serving.wire import Wire

NAMES = [f"i{n}" for n in range(10)]


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    publish_release(tmp_path, NAMES)  # i0 has a count of 10, i1 of 9, ...
    return Snapshot.load(Registry(tmp_path / "releases").open())


def test_likes_of_the_last_hours_are_added_to_what_the_release_knows(snapshot: Snapshot) -> None:
    liked = {"i7": 15.0, "i9": 3.0, "nobody knows it": 1000.0}
    share = {name: PRIOR * (10 - n) / 55 + liked.get(name, 0.0) for n, name in enumerate(NAMES)}
    hot = snapshot.heated(liked)
    answer = hot.recommend([], 10)
    assert [item["item_id"] for item in answer] == sorted(NAMES, key=lambda name: -share[name])
    assert [item["score"] for item in answer] == pytest.approx(
        sorted((each / max(share.values()) for each in share.values()), reverse=True)
    )
    assert {item["source"] for item in answer} == {"popular"}
    assert [item["item_id"] for item in snapshot.recommend([], 3)] == NAMES[:3]
    known = [Event("i3", "play", NOW)]
    assert hot.recommend(known, 10) == snapshot.recommend(known, 10)
    assert hot.recommend([], 10, exclude_items=["i7"])[0]["item_id"] == "i0"


def test_onboarding_shows_popular_items_that_are_unlike_each_other(tmp_path: Path) -> None:
    same, other = [1.0, 0.0], [0.0, 1.0]
    publish_release(tmp_path, NAMES, np.array([same] * 9 + [other]), counts=[10.0, *[9.0] * 8, 5.0])
    snapshot = Snapshot.load(Registry(tmp_path / "releases").open())
    assert [item["item_id"] for item in snapshot.onboarding(2)] == ["i0", "i9"]
    assert len({item["item_id"] for item in snapshot.onboarding(50)}) == 10


def test_over_http_a_newcomer_sees_what_others_like_now(tmp_path: Path) -> None:
    publish_release(tmp_path, NAMES)
    with served(tmp_path, popular_hours=3) as api:
        assert ids(api.get("/v1/recommend/new?k=3")) == NAMES[:3]
        many = [event("one", "i4") | {"event_id": f"x{n}", "timestamp": time.time() - n / 1000} for n in range(400)]
        assert api.post("/v1/events", json=many).json()["accepted"] == 400  # one person counts once
        taps = [event(f"u{n}", "i8") | {"event_id": str(n)} for n in range(300)]
        assert api.post("/v1/events", json=taps).json()["accepted"] == 300
        assert api.post("/v1/events", json=taps).json()["accepted"] == 0  # sent again, they count once
        wait_until(lambda: ids(api.get("/v1/recommend/new?k=3")) == ["i8", "i0", "i1"])
        old = time.time() - 5 * 3600
        api.post("/v1/events", json=[event(f"u{n}", "i7") | {"timestamp": old} for n in range(500)])
        api.post("/v1/events", json=[event(f"u{n}", "i6", "dislike") for n in range(500)])
        api.post("/v1/events", json=[event(f"u{n}", "i5", "impression") for n in range(500)])
        api.post("/v1/events", json=[event(f"v{n}", "i9") for n in range(310)])
        wait_until(lambda: ids(api.get("/v1/recommend/new?k=3")) == ["i9", "i8", "i0"])
        api.post("/v1/events", json=[event(f"v{n}", "i9", "undo") for n in range(310)])
        wait_until(lambda: ids(api.get("/v1/recommend/new?k=3")) == ["i8", "i0", "i1"])
        assert "i8" in ids(api.get("/v1/onboarding?k=4"))


def test_an_error_from_redis_is_asked_again_later(tmp_path: Path) -> None:
    publish_release(tmp_path, NAMES)

    async def use(url: str) -> list[str]:
        wire = Wire(url)
        people, engine = Profiles(wire, "t"), Engine(tmp_path / "releases", watch_seconds=0.01)
        engine.refresh()
        await people.merge([Event("i8", "play", round(time.time() * 1000), f"e{n}", f"u{n}") for n in range(300)])
        answers = iter([ResponseError("BUSY"), TimeoutError(), ConnectionError()])
        whole = people.liked_lately

        async def failing(*words: Any) -> list[list[bytes]]:
            for error in answers:
                raise error
            return await whole(*words)

        people.liked_lately = failing  # type: ignore[method-assign]
        watching = asyncio.create_task(Lately(engine, people, 3).watch())
        for _ in range(200):
            await asyncio.sleep(0.01)
            if engine.snapshot is not None and engine.snapshot.cold is not None:
                break
        watching.cancel()
        with pytest.raises(ResponseError):  # what any of the partitions says
            await Profiles(Broken(), "t").liked_lately([1], 3)  # type: ignore[arg-type]
        wire.close()
        assert engine.snapshot is not None
        return [item["item_id"] for item in engine.snapshot.recommend([], 2)]

    with EmbeddedRedis(tmp_path / "redis") as server:
        assert asyncio.run(use(server.url)) == ["i8", "i0"]


class Broken:
    async def calls(self, commands: list[Any], within: float = 2.0) -> list[Any]:
        return [[], ResponseError("LOADING")]
