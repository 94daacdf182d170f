import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.events import CODE
from serving import profiles
from serving.embedded import EmbeddedRedis
from serving.history import Event, History
from serving.profiles import PARTITIONS, Profiles, StreamFull, profile_keys, stream_key
from serving.wire import Wire


def with_profiles(server: EmbeddedRedis, use: Callable[[Profiles], Awaitable[Any]], **options: Any) -> Any:
    async def main() -> Any:
        wire = Wire(server.url)
        try:
            return await use(Profiles(wire, "t", **options))
        finally:
            wire.close()

    return asyncio.run(main())


def merge_all(server: EmbeddedRedis, batches: list[list[Event]], owner: str = "ann", **options: Any) -> tuple[list[bool], History]:
    async def use(people: Profiles) -> tuple[list[bool], History]:
        new = [answer for batch in batches for answer in await people.merge(batch)]
        return new, await people.read(owner)

    return with_profiles(server, use, **options)


def play(item: str, at: int, id: str = "", **more: Any) -> Event:
    return Event(item, more.pop("event_type", "play"), at, event_id=id, user_id=more.pop("user_id", "ann"), **more)


def stream_length(store: redis.Redis) -> int:
    return sum(store.xlen(stream_key("t", partition)) for partition in range(PARTITIONS))


def test_a_profile_holds_item_ids_and_types_oldest_first(server, store):
    batch = [play("heat", 2, "b", value=0.5), play("alien", 1, "a", event_type="dislike"), play("brazil", 3, "c", event_type="skip")]
    new, profile = merge_all(server, [batch])
    assert new == [True, True, True]
    assert profile == History(["alien", "heat", "brazil"], [CODE["dislike"], CODE["play"], CODE["skip"]], [1, 2, 3])
    held = [orjson.loads(member) for member in store.zrange(profile_keys("t", "ann")[0], 0, -1)]
    assert held == [["a", "dislike", "alien", None, 1], ["b", "play", "heat", 0.5, 2], ["c", "skip", "brazil", None, 3]]


EVENTS = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from(["heat", "alien"]), st.sampled_from(["play", "dislike", "impression", "undo"])),
    min_size=1,
    max_size=9,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS, st.randoms(use_true_random=False), st.integers(1, 5))
def test_any_order_and_any_repeats_end_in_the_profile_of_the_events_in_order(server, store, facts, random, limit):
    in_order = sorted((play(item, time, f"e{n}", event_type=kind) for n, (time, item, kind) in enumerate(facts)), key=lambda e: e.timestamp)
    arrival = in_order + random.choices(in_order, k=len(in_order) // 2)
    random.shuffle(arrival)
    cut = random.randint(0, len(arrival))
    store.flushall()
    _, expected = merge_all(server, [in_order], limit=limit)
    store.flushall()
    new, profile = merge_all(server, [arrival[:cut], arrival[cut:]], limit=limit)
    assert profile == expected
    held = store.zcard(profile_keys("t", "ann")[0])
    assert held == min(limit, sum(e.event_type != "impression" for e in in_order))
    assert sum(new) == len(in_order) == stream_length(store)


def test_the_same_id_again_changes_nothing_even_with_other_words(server, store):
    new, profile = merge_all(server, [[play("heat", 1, "a")], [play("alien", 2, "a")]])
    assert new == [True, False]
    assert profile.items == ["heat"]
    assert stream_length(store) == 1


def test_an_event_without_an_id_gets_one_from_what_it_says(server, store):
    new, _ = merge_all(server, [[play("heat", 1), play("heat", 1), play("heat", 2), play("heat", 1, event_type="like")]])
    assert new == [True, False, True, True]


def test_a_late_event_older_than_a_full_profile_leaves_it_as_it_is(server, store):
    new, profile = merge_all(server, [[play("b", 2), play("c", 3)], [play("a", 1)]], limit=2)
    assert new == [True, True, True]
    assert profile.items == ["b", "c"]
    assert stream_length(store) == 3


def test_impressions_reach_the_stream_but_not_the_profile(server, store):
    new, profile = merge_all(server, [[play("heat", 1, event_type="impression"), play("heat", 2, event_type="undo")]])
    assert new == [True, True]
    assert len(profile) == 0
    assert stream_length(store) == 2


def test_an_undo_takes_back_the_last_word_before_it_and_only_that(server, store):
    words = [play("heat", 1), play("alien", 2), play("heat", 3, event_type="dislike"), play("heat", 4, event_type="undo")]
    for arrival in itertools.permutations(words):
        store.flushall()
        new, profile = merge_all(server, [list(arrival)])
        assert new == [True] * 4
        assert profile == History(["heat", "alien"], [CODE["play"]] * 2, [1, 2])
    _, profile = merge_all(server, [[play("heat", 5, event_type="undo"), play("heat", 6, event_type="undo")]])
    assert profile.items == ["alien"]


def test_sessions_without_a_user_have_profiles_of_their_own(server, store):
    event = Event("heat", "play", 1, session_id="s1")
    _, profile = merge_all(server, [[event]], owner="session:s1")
    assert profile.items == ["heat"]
    assert merge_all(server, [], owner="s1")[1].items == []


def test_an_undo_of_the_same_moment_counts_after_what_it_takes_back(server, store):
    """Clients that count in seconds: which of two ids sorts first must not decide."""
    for undo, done in (("a", "z"), ("z", "a")):
        store.flushall()
        _, profile = merge_all(server, [[play("heat", 1000, undo, event_type="undo"), play("heat", 1000, done), play("alien", 1000, "m")]])
        assert profile.items == ["alien"]


def browsing(item: str, at: int, id: str) -> Event:
    return play(item, at, id, user_id=None, session_id="s")


def test_at_sign_in_a_session_moves_into_the_profile_in_order_and_once(server, store):
    async def use(people: Profiles) -> tuple[list[int], list[str], list[str]]:
        await people.merge([play("old", 1, "a"), play("new", 5, "b"), browsing("first", 2, "c"), browsing("second", 6, "d")])
        moved = [await people.sign_in("s", "ann"), await people.sign_in("s", "ann")]
        assert await people.merge([browsing("second", 6, "d")]) == [False]  # a retry is one still
        await people.merge([browsing("third", 7, "e")])
        moved.append(await people.sign_in("s", "ann"))
        return moved, (await people.read("ann")).items, (await people.read("session:s")).items

    moved, ann, session = with_profiles(server, use, limit=4)
    assert moved == [2, 0, 1]
    assert (ann, session) == (["first", "new", "second", "third"], [])
    assert store.ttl(profile_keys("t", "ann")[0]) > 0


def test_a_sign_in_that_was_killed_half_way_can_be_done_again(server, store, monkeypatch):
    call = Wire.call

    async def killed(self: Wire, *words: Any, **more: Any) -> Any:
        if words[0] == "ZREM":
            raise ConnectionError
        return await call(self, *words, **more)

    async def use(people: Profiles) -> list[str]:
        await people.merge([browsing("first", 2, "c")])
        with monkeypatch.context() as patch:
            patch.setattr(Wire, "call", killed)
            with pytest.raises(ConnectionError):
                await people.sign_in("s", "ann")
        assert await people.sign_in("s", "ann") == 1
        return (await people.read("ann")).items

    assert with_profiles(server, use) == ["first"]


def test_what_was_deleted_does_not_come_back_though_it_is_sent_again(server, store):
    now = int(time.time() * 1000)

    async def use(people: Profiles) -> list[str]:
        batch = [play("heat", now - 2000, "a"), play("alien", now - 1000, "b")]
        await people.merge([*batch, browsing("dune", now - 500, "c")])
        assert [await people.remove("ann"), await people.remove("ann")] == [True, False]
        assert len(await people.read("ann")) == 0
        await people.merge([*batch, play("brazil", now + 60_000, "d")])
        await people.sign_in("s", "ann")
        return (await people.read("ann")).items

    assert with_profiles(server, use) == ["brazil"]
    assert all(store.ttl(key) > 0 for key in store.scan_iter("*") if b":events" not in key)


def test_every_key_is_capped_and_all_but_the_streams_expire(server, store, monkeypatch):
    monkeypatch.setattr(profiles, "RETRY_EVENTS", 30)
    merge_all(server, [[play("heat", n, f"e{n}") for n in range(100)]], limit=20, days=2)
    keys = {key.decode().split(":")[2]: key for key in store.keys("*")}
    assert set(keys) == {"profile2", "seen", "events"}
    assert 0 < store.ttl(keys["profile2"]) <= 2 * 86_400
    assert 0 < store.ttl(keys["seen"]) <= profiles.RETRY_WINDOW
    assert (store.zcard(keys["profile2"]), store.zcard(keys["seen"])) == (20, 30)


def test_a_full_stream_refuses_and_stores_nothing(server, store, monkeypatch):
    monkeypatch.setattr(profiles, "STREAM_EVENTS", 2)
    merge_all(server, [[play("a", 1), play("b", 2)]])
    with pytest.raises(StreamFull, match="recsys archive"):
        merge_all(server, [[play("c", 3)]])
    assert merge_all(server, [])[1].items == ["a", "b"]
    assert stream_length(store) == 2
    assert merge_all(server, [[play("a", 1)]])[0] == [False]  # a repeat is still known


def test_all_keys_of_a_person_share_one_hash_tag_and_people_spread():
    tags = set()
    for user in range(300):
        keys = [key[key.index("{") : key.index("}") + 1] for key in profile_keys("t", f"user {user}")]
        assert len(keys) == 4
        assert len(set(keys)) == 1
        tags.add(keys[0])
    assert len(tags) > PARTITIONS // 2


def test_a_batch_is_one_round_trip_and_so_is_a_read(server, store):
    async def use(people: Profiles) -> None:
        await people.merge([play("heat", 1)])
        sends = 0
        flush = people.wire._flush

        def counted() -> None:
            nonlocal sends
            sends += 1
            flush()

        people.wire._flush = counted  # type: ignore[method-assign]
        await people.merge([play("heat", n) for n in range(2, 50)])
        await people.read("ann")
        assert sends == 2

    with_profiles(server, use)


def test_a_server_that_forgot_the_script_learns_it_again(server, store):
    store.script_flush()
    assert merge_all(server, [[play("heat", 1)]])[0] == [True]


def test_a_read_that_was_given_up_does_not_leak_into_the_next(server, store):
    async def use(people: Profiles) -> None:
        await people.merge([play("heat", 1), play("alien", 2, user_id="bob")])
        store.client_pause(300)
        reads = [asyncio.create_task(people.read("bob")) for _ in range(5)]
        await asyncio.sleep(0.05)
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        answers = await asyncio.gather(*(people.read("ann") for _ in range(10)))
        assert all(answer.items == ["heat"] for answer in answers)

    with_profiles(server, use)
