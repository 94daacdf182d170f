"""The simulated app is the same for the same seed, looks like a log, and can be learnt from."""

from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from recsys.catalogue import Catalogue
from recsys.errors import BadInput
from recsys.events import EVENT_TYPES, milliseconds
from recsys.home import Home
from recsys.log import Log
from recsys.sessions import Sessions, sessionise
from recsys.simulate import OPENING, make_world, simulate
from recsys.vocab import Vocabulary

DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("app"))
    simulate(home, users=600, items=400, days=56, seed=3)
    return home


@pytest.fixture(scope="module")
def log(app: Home) -> pa.Table:
    return Log(app.log).read()


@pytest.fixture(scope="module")
def sessions(log: pa.Table) -> Sessions:
    return sessionise(log, Vocabulary(log["item_id"].unique().to_pylist()))


def test_the_same_seed_adds_nothing_and_another_tells_another_story(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = simulate(home, users=50, items=40, days=10, seed=1)
    assert first.added == len(Log(home.log)) > 100
    again = simulate(home, users=50, items=40, days=10, seed=1)
    assert (again.added, again.known) == (0, first.added)
    assert len(Catalogue(home.items).segments()) == 1
    assert simulate(home, users=50, items=40, days=10, seed=2).known == 0


@pytest.mark.parametrize("days", [9, 10, 14, 15])
def test_a_longer_story_begins_with_the_shorter_one(tmp_path: Path, days: int) -> None:
    short, long = Home(tmp_path / "short"), Home(tmp_path / "long")
    simulate(short, users=100, items=60, days=days)
    simulate(long, users=100, items=60, days=30)
    part, whole = Log(short.log).read(), Log(long.log).read()
    assert part.equals(whole.slice(0, len(part)))
    films = Catalogue(short.items).read()
    assert films.equals(Catalogue(long.items).read().slice(0, len(films)))


def test_a_story_goes_on_where_the_log_ends(tmp_path: Path) -> None:
    parts, whole = Home(tmp_path / "parts"), Home(tmp_path / "whole")
    simulate(whole, users=100, items=60, days=20)
    simulate(parts, users=100, items=60, days=12)
    simulate(parts, users=100, items=60, days=8, start="2024-01-13")
    assert Log(parts.log).read().equals(Log(whole.log).read())
    assert Catalogue(parts.items).read().equals(Catalogue(whole.items).read())


def test_events_stand_in_time_order_inside_the_days_asked_for(tmp_path: Path) -> None:
    home = Home(tmp_path)
    report = simulate(home, users=200, items=60, days=3, start=date(2024, 2, 1))
    when = milliseconds(Log(home.log).read())
    begin = (pd.Timestamp("2024-02-01") - pd.Timestamp(0)) // pd.Timedelta("1ms")
    assert (np.diff(when) >= 0).all()
    assert begin <= when[0]
    assert when[-1] < begin + 3 * DAY_MS + DAY_MS // 4  # the last evening ends after midnight
    assert report.first is not None
    assert report.first.startswith("2024-02-01")


def test_half_an_hour_of_silence_tells_sessions_apart(log: pa.Table, sessions: Sessions) -> None:
    same_owner = np.diff(sessions.owner) == 0
    gap = np.diff(sessions.time)[same_owner]
    opens = np.diff(sessions.session)[same_owner] > 0
    assert gap[~opens].max() < 30 * 60_000
    assert gap[opens].min() > 2 * 3_600_000  # nothing in between: every reader cuts alike
    length = np.bincount(sessions.session)
    assert 3 < length.mean() < 6
    assert log["session_id"].null_count == len(log)


def test_films_and_people_keep_coming_and_every_film_is_described(app: Home, log: pa.Table) -> None:
    when = milliseconds(log)
    early = log.filter(pa.array(when < when[0] + 7 * DAY_MS))
    late = log.filter(pa.array(when > when[-1] - 14 * DAY_MS))
    for name in ("item_id", "user_id"):
        assert len(set(late[name].to_pylist()) - set(early[name].to_pylist())) > 10
    films = Catalogue(app.items).read()
    assert films.num_rows == 463  # 400 and 8 a week for 8 weeks, but for one that comes a day later
    assert set(log["item_id"].to_pylist()) <= set(films["item_id"].to_pylist())
    assert films["title"].null_count == films["genres"].null_count == films["year"].null_count == 0
    world = make_world(600, 400, 56, 3)
    seen_first = log.group_by("item_id").aggregate([("timestamp", "min")])
    born = dict(zip(films["item_id"].to_pylist(), world.born, strict=False))
    opening = pd.Timestamp(OPENING, tz="UTC")
    assert all(
        time >= opening + pd.Timedelta(days=int(born[film]))
        for film, time in seen_first.to_pandas()[["item_id", "timestamp_min"]].to_numpy()
    )


def test_every_kind_of_answer_occurs_and_values_are_shares(log: pa.Table) -> None:
    share = dict(zip(*np.unique(log["event_type"].to_pylist(), return_counts=True), strict=True))
    assert set(share) == {"play", "watch", "complete", "skip", "like", "dislike"} <= set(EVENT_TYPES)
    assert min(share.values()) > 0.005 * len(log)
    value = log["value"].drop_null()
    assert 0 < pc.min(value).as_py() < pc.max(value).as_py() == 1
    assert log.filter(pc.equal(log["event_type"], "complete"))["value"].unique().to_pylist() == [1.0]


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """user-000007 -> 7"""
    return np.array([int(id[5:]) for id in column.to_pylist()])


def test_people_mostly_watch_what_suits_them_and_the_moods_of_an_evening_last(log: pa.Table, sessions: Sessions) -> None:
    world = make_world(600, 400, 56, 3)
    people, films = _numbers(log["user_id"]), _numbers(log["item_id"])
    chance = (world.likes(np.random.default_rng(0).permutation(people), films) == 1).mean()
    assert (world.likes(people, films) == 1).mean() > 1.5 * chance
    film = films[sessions.place]
    inside = (np.diff(sessions.session) == 0) & (np.diff(film) != 0)
    cluster = world.cluster[film]
    assert (cluster[1:] == cluster[:-1])[inside].mean() > 0.6
    rank = np.array([(world.cluster[:n] == world.cluster[n]).sum() for n in range(len(world.cluster))])
    sequel = (cluster[1:] == cluster[:-1]) & (np.diff(rank[film]) == 1)
    assert sequel[inside].mean() > 0.2


def test_people_dislike_what_does_not_suit_them(log: pa.Table) -> None:
    world = make_world(600, 400, 56, 3)
    suits = world.likes(_numbers(log["user_id"]), _numbers(log["item_id"]))
    kind = np.array(log["event_type"].to_pylist())
    assert suits[kind == "like"].mean() > suits[kind == "skip"].mean() + 0.1


def test_fashion_turns() -> None:
    world = make_world(10, 400, 1, 0)
    heat = np.stack([world.heat(day) for day in range(0, 200, 5)])
    assert (heat.max(axis=0) / heat.min(axis=0) > 3).all()
    assert len(set(heat.argmax(axis=1))) > 3


def test_what_leads_to_what_can_be_learnt(sessions: Sessions) -> None:
    keep = sessions.positive
    item, session, time = sessions.item[keep], sessions.session[keep], sessions.time[keep]
    pair = (session[1:] == session[:-1]) & (item[1:] != item[:-1])
    before, after, when = item[:-1][pair], item[1:][pair], time[1:][pair]
    past = when < np.quantile(when, 0.8)
    n = item.max() + 1
    together = np.zeros((n, n))
    np.add.at(together, (before[past], after[past]), 1)
    np.add.at(together, (after[past], before[past]), 0.5)
    popular = np.argsort(-np.bincount(after[past], minlength=n))[:20]
    by_item = np.argsort(-together, axis=1)[:, :20]
    asked, wanted = before[~past], after[~past]
    recall = (by_item[asked] == wanted[:, None]).any(axis=1).mean()
    assert recall > 3 * np.isin(wanted, popular).mean() > 0.05


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"users": 0}, "simulate needs users to be 1 or more; got 0"),
        ({"items": 3}, "simulate needs items to be 10 or more; got 3"),
        ({"days": 0.5}, "simulate needs days to be 1 or more; got 0"),
        ({"seed": -1}, "simulate needs seed to be 0 or more; got -1"),
        ({"start": "soon"}, "start is a day like 2024-01-01; got 'soon'"),
        ({"start": "2020-01-01"}, "opens on 2024-01-01; it cannot start on 2020-01-01"),
    ],
)
def test_what_cannot_be_simulated_is_refused(tmp_path: Path, asked: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        simulate(Home(tmp_path / "home"), **asked)
    assert not (tmp_path / "home").exists()
