"""The simulated day: what turns at noon, what is counted by the hour, and what the picture shows."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.day import DAY_MS, HISTORY, NEW, NOON, bins, the_day, turned, updates
from benchmarks.day_picture import Bin, Update, draw
from recsys.simulate import forked, make_world, stories


def test_at_noon_everybody_who_liked_a_cluster_likes_another_one_and_films_come() -> None:
    world = make_world(50, 160, HISTORY + 1, seed=1)
    other = turned(world, HISTORY, seed=1)
    goes = {(int(a), int(b)) for a, b in zip(world.favourites.ravel(), other.favourites.ravel(), strict=True)}
    assert len(goes) == len(world.pull) == 4
    assert all(a != b for a, b in goes)
    there = int((world.born <= HISTORY).sum())
    assert np.bincount(other.cluster[there:]).tolist() == [NEW] * 4
    assert (other.born[there:] == HISTORY).all()
    assert (np.diff(other.born) >= 0).all()
    np.testing.assert_array_equal(other.cluster[:there], world.cluster[:there])


def test_a_day_that_is_played_twice_is_the_days_own_story_and_another() -> None:
    world = make_world(80, 120, 6, seed=2)
    *_, told = stories(world, 6)
    one, two = forked(world, turned(world, 5, seed=2), 5)
    for name in told:
        np.testing.assert_array_equal(one[name], told[name])
    assert set(one["user"]) == set(two["user"])
    assert one["item"].tolist() != two["item"].tolist()
    (again,) = {tuple(story["item"].tolist()) for story in forked(world, world, 5)}
    assert again == tuple(told["item"].tolist())


def test_until_noon_nobody_knows_of_what_comes() -> None:
    world = make_world(400, 160, HISTORY + 1, seed=3, sessions_a_week=7)
    there = int((world.born <= HISTORY).sum())
    told = the_day(world, turned(world, HISTORY, seed=3), HISTORY, seed=3)
    at = np.array([one.at for one in told])
    new = np.array([int(one.item.removeprefix("film-")) >= there for one in told])
    assert (np.diff(at) >= 0).all()
    assert at[0] >= 0
    assert at[-1] < DAY_MS
    assert not new[at < NOON].any()
    assert 0.3 < new[at >= NOON].mean() < 0.8
    assert np.histogram(at, 4, (0, DAY_MS))[0].min() > 0.6 * len(at) / 4  # people of all time zones
    assert told == the_day(world, turned(world, HISTORY, seed=3), HISTORY, seed=3)


def test_hits_are_counted_by_the_hour() -> None:
    found = bins([(0.1, True), (0.9, False), (1.0, True), (3.5, False)], width=1.0)
    assert [(each.hour, each.rate, each.n) for each in found] == [(0.5, 50.0, 2), (1.5, 100.0, 1), (3.5, 0.0, 1)]
    (half,) = bins([(5.0, n % 2 == 0) for n in range(100)])
    assert (half.low, half.high) == (pytest.approx(40.38, abs=0.01), pytest.approx(59.62, abs=0.01))  # Wilson, as in the tables


def test_what_the_job_says_is_put_where_the_day_was_at_that_moment() -> None:
    clock = [(100.0, 0.0), (110.0, 10.0), (140.0, 20.0)]
    lines = [
        (110.0, {"what": "published", "triggers": {"volume": "many"}, "release": "000002", "seconds": 5.0}),
        (125.0, {"what": "refused", "triggers": {"online": "worse", "drift": "far"}, "reason": "forgets", "seconds": 0.0}),
        (126.0, {"what": "superseded", "reason": "another"}),
        (141.0, {"what": "published", "triggers": {"volume": "many"}, "release": "000003", "seconds": 1.0}),  # the day is over
    ]
    assert updates(lines, clock) == [
        Update(5.0, 10.0, ["volume"], "000002", "many"),
        Update(15.0, 15.0, ["online", "drift"], None, "forgets"),
    ]


def test_the_picture_shows_noon_every_trigger_every_release_and_every_refusal() -> None:
    course = [Bin(hour + 0.5, 50.0, 40.0, 60.0, 100) for hour in range(24)]
    did = [
        Update(8.0, 9.0, ["volume"], "000002", "2,500 new events"),
        Update(12.5, 13.0, ["online", "new items"], "000003", "worse & <new>"),
        Update(23.0, 23.8, ["drift"], None, "forgets"),
    ]
    drawn = draw(course, [replace(each, rate=30.0) for each in course], did, {"000001": 0.0, "000002": 9.1, "000003": 13.2}, 180, "noon: x")
    tree = ElementTree.fromstring(drawn)
    said = [text.text for text in tree.iter("{http://www.w3.org/2000/svg}text")]
    for words in ("noon: x", "volume: release 2", "online + new items: release 3", "drift: refused", "hit rate@20, %", "2", "3"):
        assert words in said, words
    assert drawn.count('class="release"') == 2
    assert drawn.count('class="refused"') == 1
    assert drawn.count('class="work"') == 3
    assert len(drawn) < 100_000
