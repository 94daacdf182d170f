"""What is forgotten, and what is not: `naive` against the default strategy in the three scenarios of recsys.scenarios.

Fit on the first phase, one update for each later phase, by the code that trains a release. The last days of the first phase are never
learned: what people did there is asked of every release.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from eval import metrics
from recsys.batches import ItemCounts
from recsys.events import milliseconds
from recsys.scenarios import TIMELINES, Scenario, make_scenario
from recsys.sessions import Sessions, histories, of_the_same_people, repeats, sessionise
from recsys.settings import Settings, load_settings
from recsys.simulate import DAY_MS, OPENING
from training.candidate import Candidate
from training.fit import fit
from training.update import update

SMALL = {"model.dim": 16, "model.features": 1024, "training.batch_size": 24, "training.accelerator": "cpu", "neighbours.fuse": False}
"""The towers alone. Batches are small so that an update of a small world takes as many steps as one of a large."""

SIZES = {"class": (120, 280, 30, 5.0), "domain": (120, 240, 25, 5.0), "task": (240, 240, 30, 5.0)}
"""Scenario -> people, films, days, sessions a week."""

HELD_OUT = 2
"""The last days of the first phase, never learned."""

K, QUESTIONS = 20, 600


@dataclass(frozen=True)
class Asked:
    """What a release makes of what is asked, recall@20.

    old: the held-out days of the first phase, by the popularity of then; served: the same, by the popularity of now; live: the phase that
    it was live in, before it learned it; nan for the last.
    """

    old: float
    served: float
    live: float


def learn(scenario: Scenario, strategies: Sequence[str], seed: int, described: bool = False) -> dict[str, list[Asked]]:
    """Live through a scenario with each strategy; return what every release of it made of what is asked, the first fit's first.

    The strategies share the first fit, the settings and the data. described: whether titles and genres are known; else all that is known of
    a film is what its vector has learned.
    """
    table, catalogue = scenario.events(), {row["item_id"]: row for row in scenario.films().to_pylist()} if described else {}
    first, *later = [_between(table, phase.begin, phase.end) for phase in scenario.phases]
    held_out = _day(scenario.phases[0].end - HELD_OUT)
    known = first.slice(0, int(np.searchsorted(milliseconds(first), held_out)))
    found, trained = {}, None
    for strategy in strategies:
        settings = load_settings(overrides=SMALL | {"update.strategy": strategy, "training.seed": seed}, environ={})
        candidate = fit(known, settings, catalogue, trained=trained)
        trained, then, past, steps = candidate.towers, candidate.counts, known, []
        for phase, new in zip(scenario.phases[1:], later, strict=True):
            both = pa.concat_tables([past, new])
            steps.append(_asked(candidate, first, held_out, then, recall(candidate, both, _day(phase.begin))))
            candidate = update(candidate, new, of_the_same_people(past, new), settings, catalogue)
            past = both
        found[strategy] = [*steps, _asked(candidate, first, held_out, then, np.nan)]
    return found


def recall(candidate: Candidate, table: pa.Table, since: int) -> float:
    """Return the recall@20 of the towers alone, in the full catalogue, on what people of `table` went on to from a moment on, ms."""
    sessions = sessionise(table, candidate.vocab, candidate.settings.data.session_gap)
    at = _questions(sessions, since)
    past = histories(sessions, at, candidate.settings.serving.profile_events)
    scores = candidate.alone(past, candidate.vectors(), past.pairs())
    start = np.arange(len(at) + 1)
    return float(metrics.recall(metrics.ranks(scores, start, sessions.item[at]), start, K).mean())


def main() -> None:
    """Print a table: mean and range over the seeds."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scenarios", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many worlds of each scenario (3)")
    parser.add_argument("--strategies", default=f"naive,{Settings().update.strategy}", help="joined by commas (naive and the default)")
    parser.add_argument("--scenarios", default=",".join(TIMELINES), help="joined by commas (all three)")
    parser.add_argument("--described", action="store_true", help="titles and genres of the films are known")
    asked = parser.parse_args()
    print("| scenario | after | strategy | held out | the same, by the popularity of now | the next phase, before it is learned |")
    print("|---|---|---|---|---|---|")
    for name in asked.scenarios.split(","):
        runs = []
        for seed in range(asked.seeds):
            scenario = make_scenario(name, *SIZES[name][:3], seed, SIZES[name][3])
            runs.append(learn(scenario, asked.strategies.split(","), seed, asked.described))
        for place, phase in enumerate(scenario.phases):
            for strategy in asked.strategies.split(",")[: None if place else 1]:
                figures = np.array([[(one.old, one.served, one.live) for one in run[strategy]][place] for run in runs])
                what = strategy if place else "first fit"
                print(f"| {name} | {phase.name} | {what} | {' | '.join(map(_range, figures.T))} |", flush=True)


def _asked(candidate: Candidate, first: pa.Table, since: int, then: ItemCounts, live: float) -> Asked:
    as_then = replace(candidate, counts=then.grow(len(candidate.vocab)))
    return Asked(recall(as_then, first, since), recall(candidate, first, since), live)


def _questions(sessions: Sessions, since: int) -> np.ndarray:
    """Return the places of what is asked, (Q,): known films that are new to somebody with a history; a sample of many."""
    at = np.flatnonzero(sessions.positive & (sessions.time >= since) & (sessions.item > 0) & ~repeats(sessions))
    at = at[np.diff(histories(sessions, at, 1).start) > 0]
    chosen: np.ndarray = np.sort(np.random.default_rng(0).permutation(at)[:QUESTIONS])
    return chosen


def _between(table: pa.Table, begin: int, end: int) -> pa.Table:
    first, behind = np.searchsorted(milliseconds(table), [_day(begin), _day(end)])
    return table.slice(int(first), int(behind - first))


def _day(day: int) -> int:
    return int(datetime(OPENING.year, OPENING.month, OPENING.day, tzinfo=UTC).timestamp() * 1000) + day * DAY_MS


def _range(values: np.ndarray) -> str:
    return f"{100 * values.mean():.1f} ({100 * values.min():.1f} to {100 * values.max():.1f})" if np.isfinite(values).all() else ""


if __name__ == "__main__":
    main()
