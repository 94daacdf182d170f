"""A streaming app that does not exist: people with known tastes, films that keep arriving, fashions that turn. All from one seed.

Day by day the same seed tells the same story, however long it is asked to go on: 60 days begin with the same 30 days.
"""

# ruff: noqa: SIM905 - a sentence of words reads better than a list of strings
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from recsys.catalogue import Catalogue
from recsys.errors import BadInput
from recsys.events import CODE, EVENT_TYPES, SCHEMA, derive_event_ids
from recsys.home import Home
from recsys.intake import Report, describe
from recsys.log import Log
from recsys.progress import Step, silent

OPENING = date(2024, 1, 1)
FILMS_A_WEEK, PEOPLE_A_WEEK = 0.02, 0.02  # of those there at the opening
FAVOURITES = 3  # clusters of films that a person likes
LONGEST = 12  # films in a session; so none reaches into the next morning
DAY_MS, MINUTE_MS = 86_400_000, 60_000
SEEN_BITS = 1024  # per person, hashed: hardly anybody watches a film twice

GENRES = "Action Adventure Animation Comedy Crime Documentary Drama Fantasy Horror Romance Sci-Fi Thriller".split()
_FIRST = (
    "Silent Burning Last Hidden Golden Broken Distant Frozen Midnight Paper Secret Electric Wild Hollow Crimson Endless Lost Quiet".split()
)
_SECOND = (
    "Harbour River Crown Garden Signal Winter Machine Letter Mountain Summer Shadow Empire Orchard Circus Tide Mirror Station Wolf".split()
)


@dataclass(frozen=True)
class World:
    """What is true of the people and the films; a recommender only sees what the people do.

    Films (I,) and people (U,) stand in the order in which they come: `born` and `joined` are days since the opening.
    cluster (I,) of each film, appeal (I,) its pull within the cluster, favourites (U, 3) clusters, share (U, 3) of each,
    sessions (U,) a day; genres (C, 2), pull (C,) and fashion (C, 2: period in days, phase) of each cluster. loyal: the share of moods
    that are for a favourite; the others are for what is in fashion.
    """

    born: np.ndarray
    cluster: np.ndarray
    appeal: np.ndarray
    joined: np.ndarray
    favourites: np.ndarray
    share: np.ndarray
    sessions: np.ndarray
    genres: np.ndarray
    pull: np.ndarray
    fashion: np.ndarray
    seed: int
    loyal: float = 0.85

    def heat(self, day: int) -> np.ndarray:
        """How fashionable each cluster is on a day, as a factor on its pull, (C,)."""
        return np.exp(1.2 * np.sin(2 * np.pi * (day / self.fashion[:, 0] + self.fashion[:, 1])))

    def likes(self, person: np.ndarray, film: np.ndarray) -> np.ndarray:
        """How well films suit people: 1 a favourite cluster, 0.5 a genre shared with one, 0 neither."""
        mine, its = self.favourites[person], self.cluster[film]
        near = (self.genres[mine][:, :, :, None] == self.genres[its][:, None, None, :]).any(axis=(1, 2, 3))
        return np.where((mine == its[:, None]).any(axis=1), 1.0, 0.5 * near)


def simulate(
    home: Home,
    users: int = 1000,
    items: int = 500,
    days: float = 60,
    seed: int = 0,
    start: str | date | None = None,
    sessions_a_week: float = 1.5,
    step: Step = silent,
) -> Report:
    """Write into the log and the catalogue of `home` what `days` of the app would leave there.

    users, items: those there at the opening, 2024-01-01; 2% more come every week. `start`: the first day that is written.
    """
    first, days = _first_day(start), int(days)
    refuse_less(("users", users, 1), ("items", items, 10), ("days", days, 1), ("seed", seed, 0))
    world = make_world(users, items, first + days, seed, sessions_a_week)
    began = time.perf_counter()
    table = events([world] * (first + days), first, step)
    return write(home, table, metadata(world, first + days), f"a simulated app, seed {seed}", began)


def refuse_less(*asked: tuple[str, float, int]) -> None:
    """Refuse what is less than it must be: each with its name and the least that it may be."""
    for name, given, least in asked:
        if given < least:
            raise BadInput(f"simulate needs {name} to be {least} or more; got {given}")


def write(home: Home, table: pa.Table, films: pa.Table, what: str, began: float) -> Report:
    """Write what happened, and what is told about the films; began: when that was begun, by time.perf_counter."""
    report = Report("events", [what], ["simulated"], read=len(table), written=True)
    describe(table, report)
    Catalogue(home.items, home.shared).add(films)
    report.added = Log(home.log, home.shared).append(table)
    report.known = len(table) - report.added
    report.seconds = time.perf_counter() - began
    return report


def events(days: Sequence[World], first: int = 0, step: Step = silent) -> pa.Table:
    """Play the days, each in its world, and return what happens from the day `first` on, as an event table."""
    parts = []
    for day, part in enumerate(played(days)):
        step("simulating", day + 1, len(days))
        if day >= first and len(part["user"]):
            parts.append(part)
    return _table({name: np.concatenate([part[name] for part in parts]) for name in parts[0]}) if parts else SCHEMA.empty_table()


def make_world(users: int, items: int, days: int, seed: int, sessions_a_week: float = 1.5, clusters: int | None = None) -> World:
    """Make the people and films that there are until `days` after the opening. clusters: as many as `items` ask for, if not said."""
    rng = np.random.default_rng([seed, 0])
    clusters = clusters or int(np.clip(items // 40, 3, 400))
    genres = np.stack([rng.permutation(len(GENRES))[:2] for _ in range(clusters)])
    pull = rng.lognormal(0, 0.5, clusters)
    fashion = np.stack([rng.uniform(40, 150, clusters), rng.random(clusters)], axis=1)
    weeks = range((days + 6) // 7 + 1)
    films = [_films(np.random.default_rng([seed, 1, week]), week, _arriving(items, FILMS_A_WEEK, week), pull) for week in weeks]
    people = [
        _people(np.random.default_rng([seed, 2, week]), week, _arriving(users, PEOPLE_A_WEEK, week), pull, sessions_a_week)
        for week in weeks
    ]
    born, cluster, appeal = (np.concatenate(column) for column in zip(*films, strict=True))
    joined, favourites, share, sessions = (np.concatenate(column) for column in zip(*people, strict=True))
    return World(born, cluster, appeal, joined, favourites, share, sessions, genres, pull, fashion, seed)


def stories(world: World, days: int) -> Iterator[dict[str, np.ndarray]]:
    """Give what happens on each day from the opening on: columns user, item, time (ms), kind, value; sorted by time."""
    return played([world] * days)


def played(days: Sequence[World]) -> Iterator[dict[str, np.ndarray]]:
    """Give what happens on each day from the opening on, each in its world, as `stories` does; their people and films are the same."""
    seen = np.zeros((len(days[0].joined), SEEN_BITS // 8), np.uint8)
    for day, world in enumerate(days):
        if day == 0 or world is not days[day - 1]:
            shelf = _Shelf(world)
        yield _day(world, shelf, seen, day, np.random.default_rng([world.seed, 3, day]))


def forked(world: World, other: World, day: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Play one day twice, by what is true in `world` and in another with the same people and more films; the days before are of `world`."""
    shelf, seen = _Shelf(world), np.zeros((len(world.joined), SEEN_BITS // 8), np.uint8)
    for before in range(day):
        _day(world, shelf, seen, before, np.random.default_rng([world.seed, 3, before]))
    one, two = (_day(it, _Shelf(it), seen.copy(), day, np.random.default_rng([world.seed, 3, day])) for it in (world, other))
    return one, two


def _first_day(start: str | date | None) -> int:
    if start is None:
        return 0
    try:
        day = start if isinstance(start, date) else date.fromisoformat(start)
    except ValueError:
        raise BadInput(f"start is a day like {OPENING}; got {start!r}") from None
    day = day.date() if isinstance(day, datetime) else day
    if day < OPENING:
        raise BadInput(f"the simulated app opens on {OPENING}; it cannot start on {day}")
    return (day - OPENING).days


def _arriving(at_opening: int, rate: float, week: int) -> int:
    return at_opening if week == 0 else int(at_opening * rate * week) - int(at_opening * rate * (week - 1))


def _films(rng: np.random.Generator, week: int, count: int, pull: np.ndarray) -> tuple[np.ndarray, ...]:
    born = np.zeros(count, np.int64) if week == 0 else np.sort(7 * week - 7 + rng.integers(1, 8, count))
    cluster = rng.choice(len(pull), count, p=pull / pull.sum())
    if week == 0:
        cluster[: len(pull)] = np.arange(len(pull))[:count]  # no cluster starts empty
    return born, cluster, rng.lognormal(0, 0.8, count)


def _people(rng: np.random.Generator, week: int, count: int, pull: np.ndarray, sessions_a_week: float) -> tuple[np.ndarray, ...]:
    joined = np.zeros(count, np.int64) if week == 0 else np.sort(7 * week - 7 + rng.integers(1, 8, count))
    gumbel = np.log(pull) - np.log(-np.log(rng.random((count, len(pull)))))
    favourites = np.argsort(-gumbel, axis=1)[:, :FAVOURITES]
    share = rng.dirichlet(np.ones(FAVOURITES), count)
    return joined, favourites, share, np.clip(rng.lognormal(np.log(sessions_a_week / 7), 0.6, count), 0.01, 0.95)


class _Shelf:
    """The films by cluster, in order of arrival, so that one look-up draws for everybody."""

    def __init__(self, world: World):
        self.cluster, self.born = world.cluster, world.born
        self.film = np.lexsort((world.born, world.cluster))
        self.place = np.empty(len(self.film), np.int64)
        self.place[self.film] = np.arange(len(self.film))
        self.begin = np.searchsorted(world.cluster[self.film], np.arange(len(world.pull)))
        self.weight = np.concatenate([[0.0], np.cumsum(world.appeal[self.film])])

    def ends(self, day: int) -> np.ndarray:
        """Where the films of each cluster end that have arrived by a day, (C,)."""
        arrived = np.searchsorted(self.born, day, side="right")
        return self.begin + np.bincount(self.cluster[:arrived], minlength=len(self.begin))

    def draw(self, rng: np.random.Generator, cluster: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Draw a film of each cluster: by its appeal or, one time in six, one of the five newest."""
        begin, end = self.begin[cluster], ends[cluster]
        low, high = self.weight[begin], self.weight[end]
        by_appeal = np.searchsorted(self.weight, low + rng.random(len(cluster)) * (high - low), side="right") - 1
        newest = end - 1 - (rng.random(len(cluster)) * np.minimum(5, end - begin)).astype(np.int64)
        return self.film[np.where(rng.random(len(cluster)) < 1 / 6, newest, np.clip(by_appeal, begin, end - 1))]

    def next_to(self, film: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The film that arrived after each one in its cluster; after the newest comes the oldest."""
        place, cluster = self.place[film] + 1, self.cluster[film]
        return self.film[np.where(place < ends[cluster], place, self.begin[cluster])]


def _day(world: World, shelf: _Shelf, seen: np.ndarray, day: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Play one day: each session stays in a mood, and a film leads to the one next to it."""
    present = int(np.searchsorted(world.joined, day, side="right"))
    person = np.flatnonzero(rng.random(present) < world.sessions[:present])
    ends, heat = shelf.ends(day), world.heat(day)
    clock = np.clip(rng.normal(19.5, 3, len(person)), 7, 23.9) * 60 * MINUTE_MS
    left = np.minimum(rng.geometric(0.25, len(person)), LONGEST)
    mood = _mood(rng, world, person, heat)
    film = shelf.draw(rng, mood, ends)
    told = []
    for turn in range(LONGEST):
        going = np.flatnonzero(left > turn)
        if not len(going):
            break
        who = person[going]
        if turn:
            moved = rng.random(len(going)) < 0.2
            mood[going] = np.where(moved, _mood(rng, world, who, heat), mood[going])
            follows = (rng.random(len(going)) < 0.4) & ~moved
            film[going] = np.where(follows, shelf.next_to(film[going], ends), shelf.draw(rng, mood[going], ends))
        for attempt in range(4):
            again = going[_was_seen(seen, who, film[going])]
            if len(again) and attempt >= 2:
                mood[again] = _whatever(rng, world, person[again])
            film[again] = shelf.draw(rng, mood[again], ends)
        _remember(seen, who, film[going])
        told += _viewing(rng, world, who, film[going], clock, going)
    day_start = int((datetime(OPENING.year, OPENING.month, OPENING.day, tzinfo=UTC)).timestamp() * 1000) + day * DAY_MS
    columns = [np.concatenate(column) for column in zip(*told, strict=True)] if told else [np.zeros(0)] * 5
    order = np.argsort(columns[2], kind="stable")
    user, item, when, kind, value = (column[order] for column in columns)
    return {"user": user, "item": item, "time": day_start + when.astype(np.int64), "kind": kind, "value": value}


def _mood(rng: np.random.Generator, world: World, person: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Draw the cluster each person is in the mood for: mostly a favourite, else what is in fashion."""
    mine = np.cumsum(world.share[person] * heat[world.favourites[person]], axis=1)
    which = (rng.random((len(person), 1)) * mine[:, -1:] > mine).sum(axis=1)
    theirs = np.cumsum(world.pull * heat)
    fashion = np.searchsorted(theirs, rng.random(len(person)) * theirs[-1])
    return np.where(rng.random(len(person)) < world.loyal, world.favourites[person, np.minimum(which, FAVOURITES - 1)], fashion)


def _whatever(rng: np.random.Generator, world: World, person: np.ndarray) -> np.ndarray:
    """Draw a cluster for each person who has seen what they were in the mood for: any; where all are loyal, of their favourites."""
    if world.loyal < 1:
        return rng.choice(len(world.pull), len(person), p=world.pull / world.pull.sum())
    found: np.ndarray = world.favourites[person, rng.integers(0, FAVOURITES, len(person))]
    return found


def _viewing(
    rng: np.random.Generator, world: World, who: np.ndarray, film: np.ndarray, clock: np.ndarray, going: np.ndarray
) -> list[tuple[np.ndarray, ...]]:
    """Tell how it ended: one event for each film, and for some a thumb up or down. The clock moves on, never half an hour."""
    suits = world.likes(who, film)
    luck = rng.random(len(who))
    skipped, half = luck < 0.35 - 0.3 * suits, luck < 0.65 - 0.3 * suits
    unknown = rng.random(len(who)) < 0.08
    kind = np.select([skipped, unknown, half], [CODE["skip"], CODE["play"], CODE["watch"]], CODE["complete"])
    share = np.select([skipped, half], [rng.uniform(0.01, 0.1, len(who)), rng.uniform(0.2, 0.9, len(who))], 1.0)
    value = np.where(kind == CODE["play"], np.nan, np.round(share, 3))
    clock[going] += rng.uniform(0.2, 2, len(who)) * MINUTE_MS + share * rng.uniform(12, 25, len(who)) * MINUTE_MS
    told = [(who, film, clock[going], kind, value)]
    thumb = rng.random(len(who))
    up, down = thumb < 0.02 + 0.12 * suits, thumb > 0.7 + 0.2 * suits
    spoke = np.flatnonzero(np.where(skipped, down, up))
    clock[going[spoke]] += rng.uniform(0.05, 0.5, len(spoke)) * MINUTE_MS
    verdict = np.where(skipped[spoke], CODE["dislike"], CODE["like"])
    return [*told, (who[spoke], film[spoke], clock[going[spoke]], verdict, np.full(len(spoke), np.nan))]


def _bits(film: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    place = (film.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(54)  # 10 bits
    return (place >> np.uint64(3)).astype(np.int64), np.left_shift(1, (place & np.uint64(7)).astype(np.int64)).astype(np.uint8)


def _was_seen(seen: np.ndarray, who: np.ndarray, film: np.ndarray) -> np.ndarray:
    byte, bit = _bits(film)
    return (seen[who, byte] & bit) > 0


def _remember(seen: np.ndarray, who: np.ndarray, film: np.ndarray) -> None:
    byte, bit = _bits(film)
    seen[who, byte] |= bit  # nobody is in two sessions on one day


def _table(story: dict[str, np.ndarray]) -> pa.Table:
    """Return a story as an event table."""
    users = np.array([f"user-{n:06d}" for n in range(int(story["user"].max()) + 1)], dtype=object)
    films = np.array([f"film-{n:06d}" for n in range(int(story["item"].max()) + 1)], dtype=object)
    value = story["value"].astype(np.float32)
    nothing = pa.nulls(len(value), pa.string())
    columns: dict[str, Any] = {
        "user_id": pa.array(users[story["user"]], pa.string()),
        "item_id": pa.array(films[story["item"]], pa.string()),
        "timestamp": pa.array(story["time"], pa.int64()),
        "event_type": pa.array(np.array(EVENT_TYPES, dtype=object)[story["kind"]], pa.string()),
        "value": pa.array(value, mask=np.isnan(value)),
        "session_id": nothing,
        "request_id": nothing,
        "surface": nothing,
    }
    columns["event_id"] = pa.array(derive_event_ids(pa.table(columns).to_pandas()), pa.string())
    return pa.table({name: columns[name] for name in SCHEMA.names}).cast(SCHEMA)


def metadata(world: World, days: int) -> pa.Table:
    """Return title, genres, year and minutes of the films that have arrived; a cluster has its own words."""
    arrived = int(np.searchsorted(world.born, days - 1, side="right"))
    words = np.random.default_rng([world.seed, 4]).integers(0, len(_FIRST), (len(world.pull), 2, 4))
    luck = np.random.default_rng([world.seed, 5]).random((len(world.born), 3))[:arrived]
    rows = []
    for film, (cluster, born) in enumerate(zip(world.cluster[:arrived], world.born[:arrived], strict=True)):
        first, second = (words[cluster, part, int(luck[film, part] * 4)] for part in (0, 1))
        year = OPENING.year + int(born) // 366 - (int(luck[film, 2] ** 2 * 40) if born == 0 else 0)
        rows.append(
            {
                "item_id": f"film-{film:06d}",
                "title": f"The {_FIRST[first]} {_SECOND[second]} ({year})",
                "genres": [GENRES[genre] for genre in world.genres[cluster]],
                "year": year,
            }
        )
    return pa.Table.from_pylist(rows)
