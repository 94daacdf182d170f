"""From the log to a live release: what `recsys fit`, `recsys update` and the periodic job run."""

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError

from recsys.catalogue import Catalogue as Items
from recsys.errors import BadInput, Refused, ReleaseDamaged, ReleaseNotFound, Superseded
from recsys.events import HISTORY, milliseconds
from recsys.forgotten import Forgotten
from recsys.home import Home
from recsys.joined import pull
from recsys.journal import Journal
from recsys.log import Log, Position
from recsys.progress import Step, silent
from recsys.registry import Registry, Release
from recsys.running import running
from recsys.sessions import of_the_same_people
from recsys.settings import Settings
from recsys.trial import Trial, Trials
from training.candidate import Candidate
from training.fit import fit
from training.prototypes import people
from training.sound import faults
from training.strategies import chosen, stripped
from training.strategies.adapters import strip
from training.triggers import Measured, Situation, figures, reasons
from training.update import update


class Verdict(Protocol):
    """What a gate says of a candidate."""

    @property
    def reasons(self) -> list[str]:
        """Why it must not go live; none where it may."""

    def as_dict(self) -> dict[str, Any]:
        """Write it for the manifest and the journal."""


Judge = Callable[[Candidate, Candidate, pa.Table, pa.Table, pa.Table], Verdict]
"""Compares a candidate with the live release: earlier events of the people, what it learned, and newer events (eval.gate.judge)."""


def fit_and_publish(home: Home, settings: Settings, until: int | None = None, step: Step = silent) -> Release:
    """Train from scratch on the whole log (events before `until`, ms) and make the result live."""
    began = time.monotonic()
    chosen(settings)
    registry, log, still = Registry(home.releases, home.shared), Log(home.log), _nobody_is_forgotten(home)
    parent, position = registry.current(), Position(len(log), until)
    events = log.read(upto=position)
    if not len(events):
        limit = f" before {day(until)}" if until is not None else ""
        raise BadInput(
            f"the log of {home.path} holds no events{limit}; add some with: recsys import FILE --home {shlex.quote(str(home.path))}"
        )
    told: dict[str, Any] = {"why": "first fit" if parent is None else "full retrain"}
    with suppress(ReleaseDamaged, ReleaseNotFound):  # a fit is the way out of that
        told |= _foretold(registry.open())
    with running(home.job, step, "fit", why=told["why"], events=len(events), parent=None) as step, _threads(settings):
        candidate = fit(events, settings, Items(home.items).items(), step).at(position, None)
        return _publish(candidate, registry, parent, told, began, still, step)


def update_and_publish(home: Home, settings: Settings, until: int | None = None, step: Step = silent) -> Release | None:
    """Learn what the log holds beyond the live release (and before `until`, ms); None when there is nothing new.

    Until the new release is published nothing but a draft folder is written, so an interrupted update can be run again.
    """
    began = time.monotonic()
    chosen(settings)
    registry, log, still = Registry(home.releases, home.shared), Log(home.log), _nobody_is_forgotten(home)
    if trial := Trials(home.releases).now():
        raise BadInput(_waits(trial))
    live = registry.open()
    position = _forward(live, Position(len(log), until))
    new = log.read(live.position, position)
    if not _worth_learning(new):
        return None
    parent, told = Candidate.load(live, settings), {"why": "new events", **_foretold(live)}
    with running(home.job, step, "update", why=told["why"], events=len(new), parent=live.id) as step, _threads(settings):
        candidate = update(parent, new, context(log, live.position, new), parent.settings, Items(home.items).items(), step)
        return _publish(candidate.at(position, live), registry, live.id, told, began, still, step)


def strip_and_publish(home: Home, id: str | None = None, step: Step = silent) -> Release:
    """Publish a release (the live one) without the adapters of its user tower, which goes back to its base bit for bit, and make that live.

    Items and all else stay as they are; where the base finds people is measured anew. What a later release had learned, the next update
    learns again.
    """
    began = time.monotonic()
    registry, still = Registry(home.releases, home.shared), _nobody_is_forgotten(home)
    if trial := Trials(home.releases).now():
        raise BadInput(_waits(trial))
    live = registry.current()
    release = registry.open(id)
    candidate = Candidate.load(release)
    with _threads(candidate.settings):
        try:
            strip(candidate.towers, candidate.strategy_state)
        except BadInput as error:
            raise BadInput(f"release {release.id}: {error}") from None
        where = people(candidate.towers, [candidate.memory.examples], candidate.prototypes.people)
        state, found = stripped(candidate.strategy_state), replace(candidate.prototypes, people=where)
        bare = replace(candidate, strategy_state=state, prototypes=found, notes={"events": 0.0})
    told = {"why": f"{release.id} without its adapters", "held back": release.manifest.get("held back", 0), **_foretold(release)}
    made = _publish(bare.at(release.position, release), registry, live, told, began, still, step)
    Journal(home.job).add("stripped", release=made.id, of=release.id, was=live)
    return made


def run(home: Home, settings: Settings, judge: Judge, force: bool = False, step: Step = silent, measured: Measured = ()) -> dict[str, Any]:
    """Look once whether an update is due; make, judge and publish it. Return what was decided, as the journal of the home has it.

    Of the new events the newest share is held back (`gate.held_back`): by it the candidate is judged, and the next update learns it. A
    candidate that is refused leaves no trace but the line in the journal: the next update begins where this one did. force: an update is
    due where there is anything new, whatever the triggers say; the gate is asked all the same. measured: what became of the lists that the
    live release gave, in order (see Situation).
    """
    began = time.monotonic()
    chosen(settings)
    registry, log, journal, still = Registry(home.releases, home.shared), Log(home.log), Journal(home.job), _nobody_is_forgotten(home)
    live, end = registry.open(), Position(len(log))
    new = log.read(live.position, end)
    # what the last update held back waits for company; anything else that is not learned counts
    looked = situation(log, live, new, measured) if force or len(new) > live.manifest.get("held back", 0) else None
    why = reasons(looked, settings.job) if looked and len(new) > live.manifest.get("held back", 0) else {}
    if force and _worth_learning(new):
        why = {"by hand": "asked for with --force", **why}
    if not why:
        return {"what": "not due", "events": len(new), "release": live.id}
    if trial := Trials(home.releases).now():
        return {"what": "not due", "events": len(new), "release": live.id, "reason": _waits(trial)}
    if not force and journal.rolled_back_to() == live.id:
        reason = f"somebody rolled back to release {live.id}, so that waits for somebody: go on with recsys job run --force"
        return {"what": "not due", "events": len(new), "release": live.id, "reason": reason}
    position = _but_the_newest(live, new, len(log), settings.gate.held_back)
    lesson, held_back = log.read(live.position, position), log.read(position, end)
    about: dict[str, Any] = {"triggers": why, "events": len(lesson), "held back": len(held_back), "parent": live.id}
    if not _worth_learning(lesson):
        return {"what": "not due", **about}
    if looked:
        about["measured"] = figures(looked, settings.job)
    watched = running(home.job, step, "update", why=", ".join(why), triggers=why, events=len(lesson), parent=live.id)
    try:
        with watched as step, _threads(settings):
            parent = Candidate.load(live, settings)
            before = context(log, live.position, pa.concat_tables([lesson, held_back]))
            past = of_the_same_people(before, lesson)
            candidate = update(parent, lesson, past, parent.settings, Items(home.items).items(), step).at(position, live)
            if wrong := faults(candidate):
                raise Refused("; ".join(wrong))
            step("judging", 0, 1)
            verdict = judge(candidate, parent, before, lesson, held_back)
            step("judging", 1, 1)
            about["gate"] = verdict.as_dict()
            if verdict.reasons:
                raise Refused("; ".join(verdict.reasons))
            told = {"why": ", ".join(why), "triggers": why, "gate": about["gate"], "held back": len(held_back), **_foretold(live, verdict)}
            release = _publish(candidate, registry, live.id, told, began, still, step, live=not settings.job.trial)
        if settings.job.trial:
            Trials(home.releases).begin(release.id, settings.job.trial, hours=settings.job.trial_hours)
    except Refused as refused:
        return journal.add("refused", **about, reason=str(refused), seconds=round(time.monotonic() - began, 1))
    except Superseded as superseded:
        return journal.add("superseded", **about, reason=str(superseded))
    what = "on trial" if settings.job.trial else "published"
    return journal.add(what, **about, release=release.id, seconds=round(time.monotonic() - began, 1))


def situation(log: Log, live: Release, new: pa.Table, measured: Measured = ()) -> Situation:
    """Return what the triggers look at."""
    age = datetime.now(UTC) - datetime.fromisoformat(live.manifest["created"])
    known = pq.read_table(live.file("items.parquet"), columns=["item_id"])["item_id"].combine_chunks()
    old = log.read(Position(max(0, live.position.offset - 2 * len(new))), live.position)
    return Situation(new, old, known, age.total_seconds() / 3600, measured)


def _waits(trial: Trial) -> str:
    return f"release {trial.release} is on trial, so that waits until it is over (by hand: recsys promote --stop)"


def _worth_learning(new: pa.Table) -> bool:
    return bool(pc.any(pc.is_in(new["event_type"], value_set=pa.array(sorted(HISTORY)))).as_py())


def _foretold(live: Release, verdict: Verdict | None = None) -> dict[str, Any]:
    """Return how well the newest events were foretold when that was last measured: what the next gate compares with."""
    figures = verdict.as_dict()["figures"] if verdict else {}
    return {"foretold": figures.get("ndcg@20", live.manifest.get("foretold"))}


def _but_the_newest(live: Release, new: pa.Table, end: int, share: float) -> Position:
    """Return the position that leaves the newest share of what is new for later, and forgets nothing that was learned.

    The newest by their time or, where those are older than what was learned (a late batch), those that arrived last.
    """
    if not share or not len(new):
        return Position(end)
    cut = int(np.quantile(milliseconds(new), 1 - share, method="lower"))
    learned = live.manifest["now"] + 1 if live.position.until is None else live.position.until
    if cut >= learned:
        return Position(end, cut)
    return Position(max(live.position.offset, end - round(share * len(new))))


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
    if wanted.until is not None and (wanted.until <= live.manifest["now"] if learned is None else wanted.until < learned):
        so_far = "all there was, without a date" if learned is None else f"everything before {day(learned)}"
        raise BadInput(f"--until {day(wanted.until)} lies in what release {live.id} has learned ({so_far}); name a later date or none")
    return wanted


def _nobody_is_forgotten(home: Home) -> Callable[[], bool]:
    """Return what says later whether nobody was forgotten since now, nor any step further: who was may be in what is read from here on.

    Where a store is shared, what is read is what the journal said at that moment, or later.
    """
    receipts = Forgotten(home.forgotten)

    def told() -> tuple[object, ...]:
        return receipts.written(), home.shared.state.erasures if home.shared else 0

    if home.shared:
        home.shared.look()
    before = told()
    pull(home)
    return lambda: before == told()


def _publish(
    candidate: Candidate,
    registry: Registry,
    parent: str | None,
    told: dict[str, Any],
    began: float,
    still: Callable[[], bool],
    step: Step,
    live: bool = True,
) -> Release:
    """Write a candidate and, unless it is to be tried first, make it live; raise Refused where it could not be served, Superseded where it
    comes too late.

    told: what its manifest says beside; still: see Registry.publish.
    """
    trained = time.monotonic()
    id = registry.next_id()
    with registry.draft() as draft:
        step("publishing", 0, 1)
        try:
            about = candidate.write(draft)
        except SafetensorError as error:  # a full disk, which is an OSError to everybody else
            raise OSError(f"the release cannot be written: {error}") from None
        if wrong := faults(candidate, about):
            raise Refused("; ".join(wrong))
        seconds = {"train": round(trained - began, 3), "write": round(time.monotonic() - trained, 3)}
        release = registry.publish(draft, id, parent, {**about, **told, "seconds": seconds}, still, live)
        step("publishing", 1, 1)
    return release
