"""Apps that turn on known days, so that forgetting can be seen: the three scenarios of continual learning.

After van de Ven & Tolias (arXiv 1904.07734; Nature Machine Intelligence 2022). No fashion turns here but the scenario's own.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from recsys.errors import BadInput, nearest
from recsys.home import Home
from recsys.intake import Report
from recsys.progress import Step, silent
from recsys.simulate import FAVOURITES, World, events, make_world, metadata, refuse_less, write

OLD = 0.05
"""The share of moods, or of sessions, that is left to the groups, or the markets, before the newest."""

FILMS_A_CLUSTER = 20
LEAST_DAYS = 10
"""By fewer, a phase might have no day."""


@dataclass(frozen=True)
class Phase:
    """Days from `begin` to before `end`, counted from the opening; part: the group, season or market that it is about."""

    name: str
    begin: int
    end: int
    part: int
    what: str


TIMELINES: dict[str, tuple[tuple[str, float, int, str], ...]] = {
    "class": (
        ("first group", 0.4, 0, "there are only the films of the first group"),
        ("second group", 0.6, 1, "a second group of films comes, and nine tenths of watching go to it"),
        ("third group", 0.8, 2, "a third group comes, and nine tenths of watching go to that"),
        ("fourth group", 1.0, 3, "a fourth group comes, and nine tenths of watching go to that"),
    ),
    "domain": (
        ("summer", 0.4, 0, "who likes what, and which films go together, is as in summer"),
        ("winter", 0.8, 1, "the same people have other tastes, and other films go together"),
        ("summer again", 1.0, 0, "everything is as it was in summer"),
    ),
    "task": (
        ("first market", 0.4, 0, "there are only the people and films of the first market"),
        ("second market", 0.7, 1, "another market opens with its own people and films; 5% of watching is left to the first"),
        ("third market", 1.0, 2, "one more opens; 5% of watching is left to the first two"),
    ),
}
"""Scenario -> its phases: name, the share of the days behind it, its group, season or market, and what is true in it."""


@dataclass(frozen=True)
class Scenario:
    """The truth.

    worlds: one for each phase, with the same people and films; part (C,): the group or market of each cluster of films, market (U,): that
    of each person; 0 for all where there are none.
    """

    name: str
    phases: tuple[Phase, ...]
    worlds: tuple[World, ...]
    part: np.ndarray
    market: np.ndarray

    def days(self) -> list[World]:
        """Return the world of each day."""
        return [world for phase, world in zip(self.phases, self.worlds, strict=True) for _ in range(phase.begin, phase.end)]

    def events(self, step: Step = silent) -> pa.Table:
        """Return what happens; where there are markets each event says in which, as its surface."""
        table = events(self.days(), step=step)
        if self.name != "task":
            return table
        named = table["user_id"].combine_chunks().dictionary_encode()
        person = np.array([int(name.removeprefix("user-")) for name in named.dictionary.to_pylist()])
        markets = np.array([f"market-{number + 1}" for number in self.market[person]], dtype=object)[named.indices.to_numpy()]
        return table.set_column(table.column_names.index("surface"), table.schema.field("surface"), pa.array(markets, pa.string()))

    def part_of(self, film: np.ndarray) -> np.ndarray:
        """Return the group or market of films."""
        found: np.ndarray = self.part[self.worlds[0].cluster[film]]
        return found

    def suits(self, phase: int, person: np.ndarray, film: np.ndarray) -> np.ndarray:
        """Return how well films suit people in a phase, from 0 to 1: see World.likes."""
        return self.worlds[phase].likes(person, film)

    def films(self) -> pa.Table:
        """Return what is told about the films; of markets, which one in a column of its own."""
        told = metadata(self.worlds[0], self.phases[-1].end)
        if self.name == "domain":
            return _of_both_seasons(told, metadata(self.worlds[1], self.phases[-1].end))
        if self.name == "task":
            market = self.part_of(np.arange(len(told))) + 1
            return told.append_column("market", pa.array([f"market-{number}" for number in market], pa.string()))
        return told


def phases(name: str, days: int) -> tuple[Phase, ...]:
    """Return the phases of a scenario that goes on for so many days."""
    if name not in TIMELINES:
        raise BadInput(f"there is no scenario {name!r}; {nearest(name, TIMELINES)}")
    refuse_less(("days", days, LEAST_DAYS))
    found, begin = [], 0
    for phase, until, part, what in TIMELINES[name]:
        end = round(until * days)
        found.append(Phase(phase, begin, end, part, what))
        begin = end
    return tuple(found)


def make_scenario(name: str, users: int, items: int, days: int, seed: int, sessions_a_week: float = 1.5) -> Scenario:
    """Make the people, the films and what turns when. users, items: those of all groups or markets, without who comes week by week."""
    timeline = phases(name, days)
    parts = max(phase.part for phase in timeline) + 1
    refuse_less(("users", users, parts), ("items", items, FAVOURITES * FILMS_A_CLUSTER), ("seed", seed, 0))
    clusters = int(np.clip(items // FILMS_A_CLUSTER, FAVOURITES * parts, 400))
    world = make_world(users, items, days, seed, sessions_a_week, clusters)
    world = replace(world, fashion=np.tile([np.inf, 0.0], (clusters, 1)))
    return _TURNS[name](world, timeline, parts)


def simulate_scenario(
    home: Home, name: str, users: int = 1000, items: int = 500, days: float = 60, seed: int = 0, step: Step = silent
) -> Report:
    """Write into the log and the catalogue of `home` what a scenario would leave there. The phases grow with the days."""
    scenario = make_scenario(name, users, items, int(days), seed)
    began = time.perf_counter()
    return write(home, scenario.events(step), scenario.films(), f"a simulated app, scenario {name}, seed {seed}", began)


def _groups(world: World, timeline: tuple[Phase, ...], parts: int) -> Scenario:
    """Let one group of films come after the other. Favourites are of the newest group, and what is in fashion mostly of those before."""
    part, pull = np.arange(len(world.pull)) % parts, world.pull
    world = _films_wait(world, timeline, part)
    worlds = []
    for phase in timeline:
        new, old = part == phase.part, part < phase.part
        aside = OLD / (1 - world.loyal) if old.any() else 0.0
        fashion = np.where(new, (1 - aside) * pull / pull[new].sum(), np.where(old, aside * pull / max(pull[old].sum(), 1e-9), 0.0))
        worlds.append(replace(world, pull=fashion, favourites=_favourites(world, new, phase.part)))
    return Scenario("class", timeline, tuple(worlds), part, np.zeros(len(world.joined), np.int64))


def _seasons(world: World, timeline: tuple[Phase, ...], parts: int) -> Scenario:
    """Deal the films out to the clusters anew in winter, and everybody's favourites."""
    all_of_them = np.ones(len(world.pull), bool)
    order = np.arange(len(world.cluster)), np.random.default_rng([world.seed, 9]).permutation(len(world.cluster))
    seasons = [
        replace(world, cluster=world.cluster[order[season]], favourites=_favourites(world, all_of_them, season)) for season in range(parts)
    ]
    worlds = tuple(seasons[phase.part] for phase in timeline)
    return Scenario("domain", timeline, worlds, np.zeros(len(world.pull), np.int64), np.zeros(len(world.joined), np.int64))


def _markets(world: World, timeline: tuple[Phase, ...], parts: int) -> Scenario:
    """Let one market open after the other. Nobody leaves, but who was there before the newest comes less often."""
    part, opens = np.arange(len(world.pull)) % parts, np.array([phase.begin for phase in timeline])
    world = _films_wait(world, timeline, part)
    market = np.arange(len(world.joined)) % parts
    joined = np.maximum(world.joined, opens[market])
    order = np.argsort(joined, kind="stable")
    market, share, sessions = market[order], world.share[order], world.sessions[order]
    favourites = np.stack([_favourites(world, part == one, one) for one in range(parts)])[market, np.arange(len(market))]
    world = replace(world, joined=joined[order], share=share, sessions=sessions, favourites=favourites, loyal=1.0)
    worlds = []
    for phase in timeline:
        new, old = market == phase.part, market < phase.part
        quiet = OLD / (1 - OLD) * sessions[new].sum() / max(sessions[old].sum(), 1e-9)
        worlds.append(replace(world, sessions=np.where(old, min(1.0, quiet) * sessions, sessions)))
    return Scenario("task", timeline, tuple(worlds), part, market)


_TURNS: dict[str, Callable[[World, tuple[Phase, ...], int], Scenario]] = {"class": _groups, "domain": _seasons, "task": _markets}


def _films_wait(world: World, timeline: tuple[Phase, ...], part: np.ndarray) -> World:
    """Let no film come before the phase that is about its part; part (C,)."""
    opens = np.array([phase.begin for phase in timeline])
    born = np.maximum(world.born, opens[part[world.cluster]])
    order = np.argsort(born, kind="stable")
    return replace(world, born=born[order], cluster=world.cluster[order], appeal=world.appeal[order])


def _favourites(world: World, among: np.ndarray, part: int) -> np.ndarray:
    """Draw everybody's favourite clusters among some, by their pull: among (C,) bool -> (U, 3)."""
    own = np.flatnonzero(among)
    luck = np.random.default_rng([world.seed, 8, part]).random((len(world.joined), len(own)))
    found: np.ndarray = own[np.argsort(np.log(-np.log(luck)) - np.log(world.pull[own]), axis=1)[:, :FAVOURITES]]
    return found


def _of_both_seasons(summer: pa.Table, winter: pa.Table) -> pa.Table:
    """Tell of every film what it is in either season: its title begins as in summer and ends as in winter, its genres are of both."""
    rows = []
    for one, two in zip(summer.to_pylist(), winter.to_pylist(), strict=True):
        title = " ".join(one["title"].split()[:2] + two["title"].split()[2:])
        rows.append(one | {"title": title, "genres": sorted({*one["genres"], *two["genres"]})})
    return pa.Table.from_pylist(rows)
