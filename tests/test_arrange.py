"""Lists that are less of the same, and lists that explore: worked out by hand, by counting, and over HTTP."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import orjson
import pytest
import redis
from test_api import event, ids, served
from test_policy import many
from worlds import NOW

from serving.arrange import diversified, explored
from serving.history import Event
from serving.profiles import stream_key


def test_each_next_item_is_the_best_that_is_least_like_those_shown() -> None:
    vectors = np.array([[1, 0], [0.96, 0.28], [0, 1], [-1, 0]], float)
    scores = np.array([1.0, 0.9, 0.5, 0.2])
    assert diversified(scores, vectors, 4, 0.0).tolist() == [0, 1, 2, 3]
    # at 0.5, after the first: 0.45 - 0.48, 0.25 - 0, 0.1 - 0 (a cosine below 0 is none); after the third: 0.45 - 0.48 and 0.1 - 0
    assert diversified(scores, vectors, 4, 0.5).tolist() == [0, 2, 3, 1]
    assert diversified(scores, vectors, 2, 0.5).tolist() == [0, 2]
    assert diversified(np.zeros(0), np.zeros((0, 2)), 3, 0.5).tolist() == []
    assert sorted(diversified(np.zeros(4), vectors, 9, 1.0).tolist()) == [0, 1, 2, 3]


def test_without_exploration_the_list_stays_and_every_place_was_certain() -> None:
    places, propensity, drawn = explored(np.array([3.0, 2.0, 1.0]), 2, 0.0, np.random.default_rng(0))
    assert (places.tolist(), propensity.tolist(), drawn.tolist()) == ([0, 1], [1.0, 1.0], [False, False])


def test_propensities_are_how_often_an_item_comes_to_its_place() -> None:
    scores, share = np.array([4.0, 3.0, 2.0, 1.0]), 0.4
    rng, runs = np.random.default_rng(1), 40_000
    first, second = Counter[int](), Counter[tuple[int, int]]()
    told: dict[int, float] = {}
    told_second: dict[tuple[int, int], float] = {}
    for _ in range(runs):
        places, propensity, _ = explored(scores, 2, share, rng)
        a, b = places.tolist()
        first[a] += 1
        second[a, b] += 1
        told[a], told_second[a, b] = propensity.tolist()
    assert told == pytest.approx({0: 0.6 + 0.4 * 0.4, 1: 0.4 * 0.3, 2: 0.4 * 0.2, 3: 0.4 * 0.1})
    for place, count in first.items():
        assert count / runs == pytest.approx(told[place], abs=0.01)
    for (a, b), count in second.items():
        assert count / first[a] == pytest.approx(told_second[a, b], abs=0.03)
    assert told_second[0, 1] == pytest.approx(0.6 + 0.4 * 3 / 6)
    # whoever divides what was shown by its propensity counts every item once
    assert sum(count / runs / told[place] for place, count in first.items()) == pytest.approx(4, abs=0.15)


def test_every_item_comes_at_most_once_and_the_same_seed_draws_the_same() -> None:
    scores = np.linspace(1, 0, 50)
    one, again, other = (explored(scores, 20, 0.8, np.random.default_rng(seed))[0].tolist() for seed in (3, 3, 4))
    assert one == again != other
    assert len(set(one)) == 20
    assert explored(scores[:5], 20, 1.0, np.random.default_rng(0))[0].shape == (5,)


@pytest.mark.parametrize("fuse", [True, False])
def test_an_arranged_list_is_less_alike_and_says_what_was_drawn(tmp_path: Path, fuse: bool) -> None:
    snapshot = many(tmp_path, fuse, exact_below=1000)
    ranked = snapshot.recommend([Event("i100", "play", NOW + 1000)], 80)
    assert snapshot.arranged(ranked, 20, 0.0, 0.0, 1) == ranked[:20]

    def likeness(items: list[dict]) -> float:
        vectors = snapshot.vectors[snapshot.vocab.rows(item["item_id"] for item in items)]
        return float((vectors @ vectors.T).mean())

    levels = [likeness(snapshot.arranged(ranked, 20, diversity, 0.0, 1)) for diversity in (0.0, 0.5, 0.9)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] > levels[2] + 0.01
    drawn = snapshot.arranged(ranked, 20, 0.0, 0.5, 1)
    assert snapshot.arranged(ranked, 20, 0.0, 0.5, 1) == drawn
    assert any(item["source"] == "explore" for item in drawn)
    assert all(0 < item["propensity"] <= 1 for item in drawn)


@pytest.fixture(scope="module")
def explorers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Path]]:
    home = tmp_path_factory.mktemp("explorers")
    many(home, fuse=True, exact_below=1000)
    with served(home) as client:
        yield client, home


def test_over_http_every_explored_list_is_logged_with_its_propensities(explorers: tuple[httpx.Client, Path]) -> None:
    api, home = explorers
    store = redis.Redis(unix_socket_path=orjson.loads((home / "redis" / "server.json").read_bytes())["socket"])

    def logged() -> list[dict]:
        found = [orjson.loads(entry[b"event"]) for n in range(64) for _, entry in store.xrange(stream_key("recsys", n))]
        return [one for one in found if one["event_type"] == "impression"]

    for owner in ("ann", "session:s1"):
        api.post("/v1/events", json=event("ann", "i100"))
        plain = ids(api.get(f"/v1/recommend/{owner}?k=10"))
        assert logged() == []
        answer = api.get(f"/v1/recommend/{owner}?k=10&explore=0.5").json()
        told = [(item["item_id"], item["propensity"]) for item in answer["items"]]
        assert [item for item, _ in told] != plain
        shown = sorted(logged(), key=lambda one: int(one["event_id"].rpartition("-")[2]))
        assert [(one["item_id"], one["value"]) for one in shown] == told
        assert {one["request_id"] for one in shown} == {answer["request_id"]}
        assert {one["user_id"] or f"session:{one['session_id']}" for one in shown} == {owner}
        for key in store.scan_iter("*:events"):
            store.delete(key)
    assert ids(api.get("/v1/recommend/ann?k=10")) == ids(api.get("/v1/recommend/ann?k=10"))  # an impression is no history
    page = api.get("/v1/recommend/ann?k=10&explore=0.5").json()
    more = api.get("/v1/recommend/ann", params={"k": 10, "explore": 0.5, "cursor": page["next_cursor"]})
    assert not {item["item_id"] for item in page["items"]} & set(ids(more))


def test_over_http_what_cannot_be_logged_is_not_drawn(explorers: tuple[httpx.Client, Path]) -> None:
    api, home = explorers
    store = redis.Redis(unix_socket_path=orjson.loads((home / "redis" / "server.json").read_bytes())["socket"])
    api.post("/v1/events", json=event("ann", "i100"))
    plain = ids(api.get("/v1/recommend/ann?k=10"))
    store.config_set("maxmemory", 1)  # every write is refused from now on
    try:
        answer = api.get("/v1/recommend/ann?k=10&explore=0.9").json()
    finally:
        store.config_set("maxmemory", 0)
    assert [item["item_id"] for item in answer["items"]] == plain
    assert answer["degraded"] is True
    assert all("propensity" not in item for item in answer["items"])
    more = api.get("/v1/recommend/ann", params={"k": 10, "explore": 0.9, "cursor": answer["next_cursor"]})
    assert not set(ids(more)) & set(plain)


def test_over_http_a_diverse_list_begins_with_the_best(explorers: tuple[httpx.Client, Path]) -> None:
    api, _ = explorers
    plain, diverse = (ids(api.post("/v1/recommend", json={"history": [{"item_id": "i100"}], "k": 10, "diversity": d})) for d in (0, 0.8))
    assert plain[0] == diverse[0]
    assert plain != diverse
    assert api.get("/v1/recommend/ann?diversity=1.5").status_code == 422
