"""Scenarios are true to what they say, and show who forgets."""

import hashlib
import json
import sys
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from benchmarks.scenarios import SIZES, Asked, learn
from recsys import cli
from recsys.catalogue import Catalogue
from recsys.errors import BadInput
from recsys.events import POSITIVE, milliseconds
from recsys.home import Home
from recsys.log import Log
from recsys.scenarios import TIMELINES, Scenario, make_scenario, phases, simulate_scenario
from recsys.settings import Settings
from recsys.simulate import DAY_MS, OPENING, events, simulate

NAMES = sorted(TIMELINES)
DEFAULT = Settings().update.strategy


@cache
def played(name: str) -> tuple[Scenario, pa.Table]:
    scenario = make_scenario(name, 200, 320, 30, 1, 5.0)
    return scenario, events(scenario.days())


def _day(table: pa.Table) -> np.ndarray:
    return milliseconds(table) // DAY_MS - (OPENING - date(1970, 1, 1)).days


def watched(name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return who went on to what in each phase: people and films, (N,) each."""
    scenario, table = played(name)
    table = table.filter(pc.is_in(table["event_type"], value_set=pa.array(sorted(POSITIVE))))
    people, films = (np.array([int(id[5:]) for id in table[column].to_pylist()]) for column in ("user_id", "item_id"))
    day = _day(table)
    inside = [(day >= phase.begin) & (day < phase.end) for phase in scenario.phases]
    return [(people[rows], films[rows]) for rows in inside]


def test_the_three_scenarios_of_continual_learning_are_there() -> None:
    assert NAMES == ["class", "domain", "task"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("days", [10, 11, 60, 365])
def test_phases_follow_one_another_and_grow_with_the_days(name: str, days: int) -> None:
    timeline = phases(name, days)
    assert [timeline[0].begin, timeline[-1].end] == [0, days]
    assert [phase.begin for phase in timeline[1:]] == [phase.end for phase in timeline[:-1]]
    assert all(phase.end - phase.begin == pytest.approx(days * share, abs=1) for phase, share in zip(timeline, _shares(name), strict=True))


def _shares(name: str) -> np.ndarray:
    return np.diff([0.0, *(until for _, until, _, _ in TIMELINES[name])])


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_tells_the_same_story_and_another_another(name: str) -> None:
    once, again, other = (make_scenario(name, 60, 120, 12, seed) for seed in (1, 1, 2))
    assert events(once.days()).equals(events(again.days()))
    assert once.films().equals(again.films())
    assert not events(once.days()).equals(events(other.days()))


def test_without_a_scenario_the_app_is_what_it_was(tmp_path: Path) -> None:
    home, digest = Home(tmp_path), hashlib.sha256()
    simulate(home, users=50, items=40, days=10, seed=1)
    log = Log(home.log).read()
    assert log["surface"].null_count == len(log)
    for name in (name for name in log.column_names if name != "surface"):  # which came later
        digest.update(repr(log[name].to_pylist()).encode())
    digest.update(repr(Catalogue(home.items).read().to_pylist()).encode())
    assert len(log) == 609
    assert digest.hexdigest() == "5293ac12a286924ab3654bcb1722dedf6b7edbd260abe6b179405bad1594a186"  # of the day before there were any


def test_markets_are_the_surfaces_of_their_events_and_nothing_else_is_said_anew() -> None:
    scenario = make_scenario("task", 30, 60, 10, 0)
    told, plain = scenario.events(), events(scenario.days())
    assert told.drop_columns(["surface"]).equals(plain.drop_columns(["surface"]))
    market = {row["item_id"]: row["market"] for row in scenario.films().to_pylist()}
    assert told["surface"].to_pylist() == [market[item] for item in told["item_id"].to_pylist()]
    assert len(set(told["surface"].to_pylist())) == 3
    assert all(make_scenario(name, 30, 60, 10, 0).events()["surface"].null_count > 0 for name in ("class", "domain"))


@pytest.mark.parametrize("name", NAMES)
def test_nobody_watches_a_film_that_is_not_there_yet_and_every_film_is_described(name: str) -> None:
    scenario, table = played(name)
    world = scenario.worlds[0]
    day = _day(table)
    people, films = (np.array([int(id[5:]) for id in table[column].to_pylist()]) for column in ("user_id", "item_id"))
    assert (day >= np.maximum(world.born[films], world.joined[people])).all()
    told = scenario.films()
    assert told["item_id"].to_pylist() == [f"film-{n:06d}" for n in range(len(told))]
    assert len(told) > films.max()
    assert all((each.born == world.born).all() and (each.joined == world.joined).all() for each in scenario.worlds)


def test_class_most_watching_goes_to_the_newest_group() -> None:
    scenario, _ = played("class")
    for number, (people, films) in enumerate(watched("class")):
        group = scenario.part_of(films)
        assert group.max() == number
        assert (group == number).mean() > 0.8
        assert (scenario.suits(number, people, films) == 1).mean() > 0.8
        if number:
            assert (group < number).mean() > 0.02
            assert (scenario.suits(number - 1, people, films) == 1).mean() < 0.2


def test_domain_tastes_change_and_come_back() -> None:
    scenario, _ = played("domain")
    assert scenario.worlds[2] is scenario.worlds[0]
    summer, winter, again = (
        [(scenario.suits(season, people, films) == 1).mean() for season in (0, 1)] for people, films in watched("domain")
    )
    assert summer[0] > 2 * summer[1]
    assert winter[1] > 2 * winter[0]
    assert again[0] > 2 * again[1]
    films = np.arange(len(scenario.films()))
    one, two = (world.cluster[films] for world in scenario.worlds[:2])
    together = (one[:, None] == one) & ~np.eye(len(films), dtype=bool)
    assert (two[:, None] == two)[together].mean() < 0.15  # a film is among others then: of 16 clusters it stays with one in 16


def test_task_markets_have_their_own_people_and_films_and_nobody_leaves() -> None:
    scenario, _ = played("task")
    for number, (people, films) in enumerate(watched("task")):
        market = scenario.market[people]
        assert (market == scenario.part_of(films)).all()
        assert market.max() == number
        assert (market == number).mean() > 0.9
        assert set(market.tolist()) == set(range(number + 1))
    names = scenario.films()["market"].to_pylist()
    assert names == [f"market-{part + 1}" for part in scenario.part_of(np.arange(len(names)))]


@cache
def lived(name: str) -> dict[str, list[Asked]]:
    """Return what became of a scenario; the updates of both strategies are the same in everything else."""
    users, items, days, sessions_a_week = SIZES[name]
    return learn(make_scenario(name, users, items, days, 0, sessions_a_week), ["naive", DEFAULT], 0)


@pytest.mark.parametrize(("name", "forgets"), [("class", 0.12), ("domain", 0.12), ("task", 0.03)])
def test_naive_updates_forget_the_first_phase_and_the_default_does_not(name: str, forgets: float) -> None:
    naive, default = ([one.old for one in lived(name)[strategy]] for strategy in ("naive", DEFAULT))
    first = naive[0]
    assert default[0] == first > 0.35
    worst = {"class": -1, "domain": 1, "task": -1}[name]
    assert naive[worst] < first - forgets
    assert default[worst] > naive[worst] + forgets
    assert default[worst] > 0.8 * first


def test_when_summer_returns_who_remembered_it_is_better_from_the_first_day_on() -> None:
    naive, default = (lived("domain")[strategy][1].live for strategy in ("naive", DEFAULT))
    assert default > naive + 0.08


@pytest.mark.parametrize("name", NAMES)
def test_the_command_writes_the_scenario_and_says_when_what_is_true(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = f"recsys simulate --users 30 --items 60 --days 10 --scenario {name} --home {tmp_path}".split()
    for more in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", [*asked, *more])
        with pytest.raises(SystemExit):
            cli.main()
        out = capsys.readouterr().out
        assert all(phase[0] in out for phase in TIMELINES[name])
    said = json.loads(out)
    table = Log(Home(tmp_path).log).read()
    assert said["already_known"] == len(table) > 30
    scenario = make_scenario(name, 30, 60, 10, 0)
    assert table.equals(scenario.events())
    assert [phase["name"] for phase in said["phases"]] == [phase.name for phase in scenario.phases]
    assert said["phases"][1]["from"] == str(OPENING + timedelta(days=scenario.phases[1].begin))
    assert said["phases"][-1]["until"] == str(date(2024, 1, 11))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"name": "season"}, "there is no scenario 'season'; allowed: class, domain, task"),
        ({"name": "task", "users": 2}, "simulate needs users to be 3 or more; got 2"),
        ({"name": "domain", "seed": -1}, "simulate needs seed to be 0 or more; got -1"),
    ],
)
def test_what_is_no_scenario_is_refused(tmp_path: Path, asked: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        simulate_scenario(Home(tmp_path / "home"), **asked)
    assert not (tmp_path / "home").exists()
