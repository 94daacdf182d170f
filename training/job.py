"""From the log to a live release: what `recsys fit` and `recsys update` run."""

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import torch

from recsys.catalogue import Catalogue as Items
from recsys.errors import BadInput
from recsys.events import HISTORY
from recsys.home import Home
from recsys.log import Log, Position
from recsys.progress import Step, silent
from recsys.registry import Registry, Release
from recsys.sessions import of_the_same_people
from recsys.settings import Settings
from training.candidate import Candidate
from training.fit import fit
from training.strategies import parse
from training.update import update


def fit_and_publish(home: Home, settings: Settings, until: int | None = None, step: Step = silent) -> Release:
    """Train from scratch on the whole log (events before `until`, ms) and make the result live."""
    began = time.monotonic()
    parse(settings.update.strategy)
    registry, log = Registry(home.releases), Log(home.log)
    parent, position = registry.current(), Position(len(log), until)
    events = log.read(upto=position)
    if not len(events):
        limit = f" before {day(until)}" if until is not None else ""
        raise BadInput(
            f"the log of {home.path} holds no events{limit}; add some with: recsys import FILE --home {shlex.quote(str(home.path))}"
        )
    with _threads(settings):
        candidate = fit(events, settings, Items(home.items).items(), step).at(position, None)
    return _publish(candidate, registry, parent, "first fit" if parent is None else "full retrain", began, step)


def update_and_publish(home: Home, settings: Settings, until: int | None = None, step: Step = silent) -> Release | None:
    """Learn what the log holds beyond the live release (and before `until`, ms); None when there is nothing new.

    Until the new release is published nothing but a draft folder is written, so an interrupted update can be run again.
    """
    began = time.monotonic()
    parse(settings.update.strategy)
    registry, log = Registry(home.releases), Log(home.log)
    live = registry.open()
    position = _forward(live, Position(len(log), until))
    new = log.read(live.position, position)
    if not pc.any(pc.is_in(new["event_type"], value_set=pa.array(sorted(HISTORY)))).as_py():
        return None
    parent = Candidate.load(live, settings)
    with _threads(settings):
        candidate = update(parent, new, context(log, live.position, new), parent.settings, Items(home.items).items(), step)
    return _publish(candidate.at(position, live), registry, live.id, "new events", began, step)


def context(log: Log, before: Position, new: pa.Table) -> pa.Table:
    """Return the events before a position of the people and sessions that `new` goes on with."""
    return of_the_same_people(log.read(upto=before), new)


def day(ms: int) -> str:
    """Write a time in ms the way --until takes it."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z")


@contextmanager
def _threads(settings: Settings) -> Iterator[None]:
    """Train with as many threads as the settings say: pools that fight over the cores cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(settings.training.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _forward(live: Release, wanted: Position) -> Position:
    """Check that the next position covers all that the live release has learned."""
    learned = live.position.until
    if wanted.until is not None and (learned is None or wanted.until < learned):
        so_far = "all there was, without a date" if learned is None else f"everything before {day(learned)}"
        raise BadInput(f"--until {day(wanted.until)} lies in what release {live.id} has learned ({so_far}); name a later date or none")
    return wanted


def _publish(candidate: Candidate, registry: Registry, parent: str | None, why: str, began: float, step: Step) -> Release:
    trained = time.monotonic()
    id = registry.next_id()
    with registry.draft() as draft:
        step("publishing", 0, 1)
        about = candidate.write(draft)
        seconds = {"train": round(trained - began, 3), "write": round(time.monotonic() - trained, 3)}
        release = registry.publish(draft, id, parent, {**about, "why": why, "seconds": seconds})
        step("publishing", 1, 1)
    return release
