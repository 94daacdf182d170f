"""A day of a simulated app in minutes: people are shown lists and act, the job watches, at noon tastes turn; what came of it, as a picture.

People go on to what their tastes say, whatever they are shown, so that two servers can be compared on the same day: one that is left
alone with `recsys job watch`, and one that keeps the first release. A hit is an item that was among the 20 shown just before.

    python -m benchmarks.day --out docs/day.svg --json benchmarks/results/day.json

World, log, first release and what people do come from one seed; how far processes come in how many seconds does not.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.day_picture import Bin, Update, draw
from benchmarks.measure import scratch
from benchmarks.serving import served
from recsys.events import EVENT_TYPES, POSITIVE
from recsys.home import Home
from recsys.simulate import DAY_MS, OPENING, World, forked, make_world, metadata, simulate

HOUR_MS = 3_600_000
NOON = 12 * HOUR_MS
K = 20
HISTORY, DAYS = 10, 11
"""So many days are in the log when the day begins, and with it."""

PEOPLE, FILMS, A_WEEK = 2000, 600, 7.0
NEW, APPEAL = 8, 6.0
"""So many films come into each cluster at noon; the mean appeal of a film is 1.4."""

WIDTH = 1.0
"""Hours that are measured together."""

NOON_IS = f"noon: tastes turn, {NEW * (FILMS // 40)} new films"
BEFORE = 5 * HOUR_MS
"""A session of the day begins so long before midnight at the earliest."""

SETTINGS = """
[model]
dim = 64
[job]
hours = 0            # no schedule: what it does is for the events to ask for
events = 2500
poll_seconds = 1
[gate]
few = 50             # a tenth of some hundred events is what there is to judge by
[serving]
measured = 1.0
watch_seconds = 0.5
popular_hours = 0    # by the clock on the wall, which this day does not follow
"""


THUMBS = ("like", "dislike")


@dataclass(frozen=True)
class Told:
    """What somebody does at a moment of the day, ms since midnight."""

    at: int
    user: str
    item: str
    kind: str
    value: float | None


@dataclass
class Seen:
    """What a server gave: of each outcome the hour and whether it was a hit; the hour at which each release first answered.

    clock: which hour of the day it was at which moment (time.monotonic); late: how many seconds the day was behind its time, at most.
    """

    outcomes: list[tuple[float, bool]] = field(default_factory=list)
    releases: dict[str, float] = field(default_factory=dict)
    clock: list[tuple[float, float]] = field(default_factory=list)
    late: float = 0.0


def turned(world: World, day: int, seed: int) -> World:
    """Return the world as it is when tastes have turned and new films have come.

    Whoever liked one cluster of films likes another one now, the same for all who did; into each cluster come NEW films with APPEAL, and
    whatever was to come on later days does not.
    """
    order = np.random.default_rng([seed, 6]).permutation(len(world.pull))
    goes = np.empty_like(order)
    goes[order] = np.roll(order, 1)  # one circle, so that no cluster stays
    there = int(np.searchsorted(world.born, day, side="right"))
    new = np.tile(np.arange(len(world.pull)), NEW)
    return replace(
        world,
        favourites=goes[world.favourites],
        born=np.append(world.born[:there], np.full(len(new), day)),
        cluster=np.append(world.cluster[:there], new),
        appeal=np.append(world.appeal[:there], np.full(len(new), APPEAL)),
    )


def the_day(world: World, other: World, day: int, seed: int) -> list[Told]:
    """Return what people do: until noon by one world, from then on by the other.

    Sessions begin evenly around the clock, as of people in all time zones, and who is in the middle of one at noon goes on by the other.
    What they began before midnight nobody was told of, which makes the first hour a hard one.
    """
    starts = np.random.default_rng([seed, 7]).uniform(-BEFORE, DAY_MS, len(world.joined))
    told = []
    for story, (begin, end) in zip(forked(world, other, day), ((0, NOON), (NOON, DAY_MS)), strict=True):
        first = np.full(len(starts), np.inf)
        np.minimum.at(first, story["user"], story["time"])
        at = story["time"] - first[story["user"]] + starts[story["user"]]
        for row in np.flatnonzero((at >= begin) & (at < end)).tolist():
            user, film, value = (story[name][row] for name in ("user", "item", "value"))
            kind = EVENT_TYPES[story["kind"][row]]
            told.append(Told(int(at[row]), f"user-{user:06d}", f"film-{film:06d}", kind, None if np.isnan(value) else float(value)))
    return sorted(told, key=lambda one: one.at)


def play(address: tuple[str, int], day: Sequence[Told], new: Sequence[dict[str, Any]], began: float, seconds: float) -> Seen:
    """Live the day at a server: before each film its person is shown a list, and what they did is told with the list's request id.

    new: the films that come at noon; the app puts them into the catalogue one after the other in the two hours before.
    """
    seen, midnight, connection = Seen(), _midnight(), HTTPConnection(*address, timeout=30)
    request, put = None, 0
    for one in day:
        wait = began + one.at / DAY_MS * seconds - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        seen.late = max(seen.late, -wait)
        seen.clock.append((time.monotonic(), one.at / HOUR_MS))
        while put < len(new) and one.at >= NOON - 2 * HOUR_MS * (len(new) - put) / len(new):
            film = {name: value for name, value in new[put].items() if name != "item_id"}
            _ask(connection, "PUT", f"/v1/items/{new[put]['item_id']}", film)
            put += 1
        if one.kind not in THUMBS:
            answer = _ask(connection, "GET", f"/v1/recommend/{one.user}?k={K}")
            request = answer["request_id"]
            seen.releases.setdefault(answer["release"], one.at / HOUR_MS)
            if one.kind in POSITIVE:
                seen.outcomes.append((one.at / HOUR_MS, one.item in {item["item_id"] for item in answer["items"]}))
        event = {"user_id": one.user, "item_id": one.item, "event_type": one.kind, "timestamp": (midnight + one.at) / 1000}
        about = {"value": one.value} if one.value is not None else {}
        told = {} if one.kind in THUMBS else {"request_id": request}
        _ask(connection, "POST", "/v1/events", {**event, **about, **told})
    return seen


def bins(outcomes: Sequence[tuple[float, bool]], width: float = WIDTH, day: float = 24.0) -> list[Bin]:
    """Return the hit rate of each stretch of the day, in %, with its 95% interval (Wilson); none where nothing was seen."""
    hour, hit = np.array([at for at, _ in outcomes]), np.array([float(hit) for _, hit in outcomes])
    found = []
    for begin in np.arange(0, day, width).tolist():
        part = hit[(hour >= begin) & (hour < begin + width)]
        if len(part):
            found.append(Bin(begin + width / 2, *(100 * rate for rate in _wilson(float(part.sum()), len(part))), len(part)))
    return found


def updates(lines: Sequence[tuple[float, dict[str, Any]]], clock: Sequence[tuple[float, float]]) -> list[Update]:
    """Return what the job did during the day: `lines` are those of its watch, with the moment at which each came; clock: see Seen."""
    moments, hours = zip(*clock, strict=True)
    found = []
    for at, line in lines:
        if "triggers" not in line or at > moments[-1]:
            continue
        begin, end = np.interp([at - line.get("seconds", 0), at], moments, hours).tolist()
        reason = line.get("reason") or "; ".join(line["triggers"].values())
        found.append(Update(begin, end, list(line["triggers"]), line["release"] if line["what"] == "published" else None, reason))
    return found


def figures(ours: Seen, frozen: Seen, did: Sequence[Update]) -> dict[str, Any]:
    """Return the hit rates, %, before noon, until a release answers that has learned of it, in the evening and in the worst hour."""
    learned = [each.release for each in did if each.release and each.begin >= 12]
    first = min((ours.releases[name] for name in learned if name in ours.releases), default=24.0)
    stretches = {"06:00 to noon": (6.0, 12.0), "noon to the next release": (12.0, first), "18:00 to 24:00": (18.0, 24.0)}
    both = {"ours": ours, "frozen": frozen}
    return {
        "hit rate@20, %": {what: {name: _rate(seen, *ends) for name, seen in both.items()} for what, ends in stretches.items()},
        "lowest hour after noon, %": {
            name: round(min((each.rate for each in bins(seen.outcomes) if each.hour > 12), default=0.0), 1) for name, seen in both.items()
        },
        "the next release answers, simulated minutes after noon": round(60 * (first - 12)),
        "triggers after noon": [each.triggers for each in did if each.begin >= 12],
        "refused": sum(each.release is None for each in did),
        "outcomes": len(ours.outcomes),
        "the day was late by, s, at most": round(max(ours.late, frozen.late), 2),
    }


def run(folder: Path, seed: int, seconds: float) -> dict[str, Any]:
    """Make a home, fit, serve it twice, and live the day; return everything that was seen."""
    began = time.monotonic()
    home, control = Home(folder / "home"), Home(folder / "frozen")
    simulate(home, users=PEOPLE, items=FILMS, days=HISTORY, seed=seed, sessions_a_week=A_WEEK)
    home.config.write_text(SETTINGS)
    world = make_world(PEOPLE, FILMS, DAYS, seed, A_WEEK)
    other = turned(world, HISTORY, seed)
    day = the_day(world, other, HISTORY, seed)
    new = metadata(other, DAYS).to_pylist()[-NEW * len(world.pull) :]
    _say(f"fitting the first release; then {len(day):,} events in {seconds:.0f} s")
    subprocess.run([*_recsys("fit", home), "--json"], check=True, stdout=subprocess.DEVNULL, env=_environ())
    shutil.copytree(home.path, control.path)
    fitted = time.monotonic()
    with (
        served(home.path, "--with-archiver") as ours,
        served(control.path) as frozen,
        watching(home) as lines,
        ThreadPoolExecutor(2) as pool,
    ):
        start = time.monotonic() + 1
        seen = list(pool.map(lambda address: play(address, day, new, start, seconds), (ours[:2], frozen[:2])))
        measured = _measured(*ours[:2])
        did = updates(lines, seen[0].clock)
    took = {"seconds in all": round(time.monotonic() - began), "seconds to fit": round(fitted - began)}
    real = {"server's own count of its outcomes": measured, **figures(*seen, did)}
    kept = {"ours": [asdict(each) for each in bins(seen[0].outcomes)], "frozen": [asdict(each) for each in bins(seen[1].outcomes)]}
    return {
        "seed": seed,
        "seconds of the day": seconds,
        **took,
        **real,
        "updates": [asdict(each) for each in did],
        "releases": seen[0].releases,
        "bins": kept,
    }


@contextmanager
def watching(home: Home) -> Iterator[list[tuple[float, dict[str, Any]]]]:
    """Run `recsys job watch` on a home; give its lines with the moment at which each came (time.monotonic)."""
    lines: list[tuple[float, dict[str, Any]]] = []
    with subprocess.Popen([*_recsys("job watch", home), "--json"], stdout=subprocess.PIPE, env=_environ()) as job:

        def listen() -> None:
            assert job.stdout is not None
            for line in job.stdout:
                told = orjson.loads(line)
                lines.append((time.monotonic(), told))
                _say(f"{told['what']} {told.get('release', '')} {'; '.join(told.get('triggers', {}).values())} {told.get('reason', '')}")

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            yield lines
        finally:
            job.terminate()
            job.wait(60)
            listener.join()


def main() -> None:
    """Live a day and draw it."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m benchmarks.day", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("day.svg"), help="the picture (day.svg)")
    parser.add_argument("--json", type=Path, help="the figures; they are added to those that are there")
    parser.add_argument("--seconds", type=float, default=180, help="how long the day takes (180)")
    parser.add_argument("--seed", type=int, default=0, help="of the world; when the processes come to their turn it does not say")
    parser.add_argument("--again", type=Path, help="draw the first run of this file anew instead")
    asked = parser.parse_args()
    if asked.again:
        told = orjson.loads(asked.again.read_bytes())["runs"][0]
    else:
        with scratch() as folder:
            told = run(folder, asked.seed, asked.seconds)
    ours, frozen = ([Bin(**each) for each in told["bins"][name]] for name in ("ours", "frozen"))
    did = [Update(**each) for each in told["updates"]]
    asked.out.write_text(draw(ours, frozen, did, told["releases"], told["seconds of the day"], NOON_IS))
    if asked.json:
        before = orjson.loads(asked.json.read_bytes())["runs"] if asked.json.exists() else []
        asked.json.write_text(json.dumps({"runs": [*before, told]}) + "\n")
    print(json.dumps({name: value for name, value in told.items() if name not in ("bins", "updates")}, indent=1))


def _recsys(words: str, home: Home) -> list[str]:
    return [sys.executable, "-m", "recsys.cli", *words.split(), "--home", str(home.path)]


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")}


def _midnight() -> int:
    from datetime import UTC, datetime

    return int(datetime(OPENING.year, OPENING.month, OPENING.day, tzinfo=UTC).timestamp() * 1000) + HISTORY * DAY_MS


def _ask(connection: HTTPConnection, method: str, path: str, body: Any = None) -> Any:
    sent = None if body is None else orjson.dumps(body)
    connection.request(method, path, sent, {"content-type": "application/json"} if sent else {})
    answer = connection.getresponse()
    came = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{method} {path}: {answer.status} {came[:300]!r}")
    return orjson.loads(came)


def _measured(host: str, port: int) -> dict[str, int]:
    """Return how many hits and misses the server counted itself, from its metrics."""
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=30) as answer:
        told = answer.read().decode()
    found = {"hit": 0, "miss": 0}
    for outcome, count in re.findall(r'^recsys_outcomes_total\{[^}]*outcome="(hit|miss)"[^}]*\} ([0-9.e+]+)$', told, re.M):
        found[outcome] += int(float(count))
    return found


def _wilson(hits: float, n: int) -> tuple[float, float, float]:
    """Return a rate and the ends of its 95% interval (Wilson 1927)."""
    z, rate = 1.96, hits / n
    middle, wide = rate + z * z / (2 * n), z * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return rate, float((middle - wide) / (1 + z * z / n)), float((middle + wide) / (1 + z * z / n))


def _rate(seen: Seen, begin: float, end: float) -> float | None:
    part = [hit for at, hit in seen.outcomes if begin <= at < end]
    return round(100 * sum(part) / len(part), 1) if part else None


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
