"""What may go live: honest updates do; those of a poisoned log, and towers that forgot or broke, do not, and leave no trace but a line."""

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from eval import gate
from eval.gate import Verdict, judge
from recsys.errors import Refused
from recsys.events import milliseconds
from recsys.home import Home
from recsys.journal import Journal
from recsys.log import Log, Position
from recsys.registry import Registry
from recsys.settings import Settings, load_settings
from recsys.simulate import simulate
from training import job
from training.candidate import Candidate
from training.sound import faults

DAY = 86_400_000
SMALL = {
    "model.dim": 16,
    "model.blocks": 1,
    "model.features": 64,
    "data.history": 20,
    "training.epochs": 3,
    "update.epochs": 1,
    "update.strategy": "replay+ewc(samples=20)",
    "job.hours": 1e-9,
}
SETTINGS = load_settings(overrides=SMALL, environ={})


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    home = Home(tmp_path_factory.mktemp("simulated"))
    simulate(home, users=400, items=100, days=40, seed=1)
    return Log(home.log).read().sort_by([("timestamp", "ascending")])


def days(events: pa.Table, first: float, behind: float) -> pa.Table:
    time = milliseconds(events)
    begin, end = np.searchsorted(time, time[0] + np.array([first, behind]) * DAY)
    return events.slice(begin, end - begin)


@pytest.fixture(scope="module")
def trained(events: pa.Table, exported_once: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home after a first fit and one update by the job."""
    home = Home(tmp_path_factory.mktemp("trained"))
    Log(home.log).append(days(events, 0, 28))
    job.fit_and_publish(home, SETTINGS)
    Log(home.log).append(days(events, 28, 34))
    line = job.run(home, SETTINGS, judge)
    assert line["what"] == "published", line
    return home.path


@pytest.fixture
def home(trained: Path, tmp_path: Path) -> Home:
    """A copy of it."""
    return Home(shutil.copytree(trained, tmp_path / "home"))


def test_an_honest_update_goes_live_and_says_what_it_was_judged_by(home: Home, events: pa.Table) -> None:
    Log(home.log).append(days(events, 34, 40))
    line = job.run(home, SETTINGS, judge)
    release = Registry(home.releases).open()
    assert (line["what"], line["release"], release.id) == ("published", "000003", "000003")
    figures = line["gate"]["figures"]
    assert figures["questions"] > 100
    assert figures["ndcg@20"] > 0.2
    assert figures["memory ndcg@20"] > 0.2
    assert release.manifest["gate"] == line["gate"]
    assert release.manifest["why"] == "schedule"
    assert line == Journal(home.job).read()[-1]


def test_what_is_held_back_is_learned_by_the_next_update_and_nothing_twice(home: Home, events: pa.Table) -> None:
    log, registry = Log(home.log), Registry(home.releases)
    before = registry.open().position
    learned = [log.read(upto=before)["event_id"].to_pylist()]
    for first in (34, 36, 38):
        log.append(days(events, first, first + 2))
        after = registry.open().position
        line = job.run(home, SETTINGS, judge)
        now = registry.open().position
        part = log.read(after, now)["event_id"].to_pylist()
        assert line["what"] == "published"
        assert len(part) == line["events"]
        assert line["held back"] == pytest.approx(0.1 * (line["events"] + line["held back"]), abs=3)
        learned.append(part)
    ids = [id for part in learned for id in part]
    held_back = log.read(registry.open().position)["event_id"].to_pylist()
    assert len(ids) == len(set(ids))
    assert set(ids) | set(held_back) == set(log.read()["event_id"].to_pylist())
    assert line["held back"] == len(held_back) > 0
    assert job.run(home, SETTINGS, judge)["what"] == "not due"  # nothing came since: what is held back waits for company


def shuffled(new: pa.Table) -> pa.Table:
    """Every event is about another's item."""
    place = new.column_names.index("item_id")
    return new.set_column(place, new.schema.field(place), new["item_id"].take(pa.array(np.random.default_rng(0).permutation(len(new)))))


def pushed(new: pa.Table) -> pa.Table:
    """One person in a hundred plays the least liked item two hundred times."""
    rng, time = np.random.default_rng(0), milliseconds(new)
    item = min(new["item_id"].value_counts().to_pylist(), key=lambda pair: pair["counts"])["values"]
    played = [
        {"event_id": f"{bot}-{n}", "user_id": f"bot{bot}", "item_id": item, "event_type": "play", "timestamp": int(at)}
        for bot in range(4)
        for n, at in enumerate(rng.integers(time.min(), time.max(), 200))
    ]
    columns = {field.name: pa.array([one.get(field.name) for one in played]).cast(field.type) for field in new.schema}
    return pa.concat_tables([new, pa.table(columns, schema=new.schema)]).sort_by([("timestamp", "ascending")])


@pytest.mark.parametrize(
    ("poison", "says"), [(shuffled, "look whether something is wrong with the log"), (pushed, r"for 8\d\d events of [4-9] people")]
)
def test_a_poisoned_log_does_not_go_live(home: Home, events: pa.Table, poison: Callable[[pa.Table], pa.Table], says: str) -> None:
    before = Registry(home.releases).open()
    Log(home.log).append(poison(days(events, 34, 40)))
    line = job.run(home, SETTINGS, judge)
    assert line["what"] == "refused"
    assert len(line["gate"]["reasons"]) == 1
    assert re.search(says, line["reason"])
    after = Registry(home.releases).open()
    assert (after.id, after.position) == (before.id, before.position)
    assert Registry(home.releases).ids() == ["000001", "000002"]
    assert not list(home.releases.glob(".draft-*"))
    assert Journal(home.job).refusals() == 1


def broken(candidate: Candidate) -> Candidate:
    with torch.no_grad():
        candidate.towers.items.ids.weight[3] = np.nan
    return candidate


def forgetful(candidate: Candidate) -> Candidate:
    """Its towers are those of somebody who never learned anything; the neighbours and popularity are all right."""
    torch.manual_seed(0)
    with torch.no_grad():
        own = candidate.towers.items.ids.weight
        own.copy_(torch.randn_like(own))
    return candidate


@pytest.mark.parametrize(
    ("harm", "says"), [(broken, r"items.ids.weight holds numbers that are none"), (forgetful, "what was learned before: ndcg@20")]
)
def test_towers_that_broke_or_forgot_do_not_go_live(
    home: Home, events: pa.Table, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Candidate], Candidate], says: str
) -> None:
    Log(home.log).append(days(events, 34, 40))
    honest = job.update
    with monkeypatch.context() as patch:
        patch.setattr(job, "update", lambda *words: harm(honest(*words)))
        line = job.run(home, SETTINGS, judge)
    assert line["what"] == "refused"
    assert says in line["reason"]
    assert Registry(home.releases).current() == "000002"
    if harm is broken:
        assert job.run(home, SETTINGS, judge)["release"] == "000003"  # nothing is lost: the same events, learned as they should be
        assert Journal(home.job).refusals() == 0


def test_what_cannot_be_served_is_never_published_by_hand_either(home: Home, events: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
    Log(home.log).append(days(events, 34, 35))
    honest = job.update
    monkeypatch.setattr(job, "update", lambda *words: broken(honest(*words)))
    with pytest.raises(Refused, match=r"items\.ids\.weight holds numbers that are none .*: training has left all bounds; lower update\.lr"):
        job.update_and_publish(home, SETTINGS)
    assert Registry(home.releases).current() == "000002"
    everywhere = broken(Candidate.load(Registry(home.releases).open()))
    with torch.no_grad():
        for weight in everywhere.towers.parameters():
            weight.fill_(torch.inf)
    assert [len(line) < 250 and " more tensors of " in line for line in faults(everywhere)] == [True]


def test_few_questions_are_too_few_and_that_is_said(home: Home, events: pa.Table) -> None:
    Log(home.log).append(days(events, 34, 34.2))
    line = job.run(home, SETTINGS, judge)
    assert line["what"] == "published"
    assert [note.partition(" questions")[0][:5] for note in line["gate"]["notes"]] == ["only "]


def test_a_position_without_a_date_may_be_followed_by_one_behind_all_that_was_learned(home: Home, events: pa.Table) -> None:
    Log(home.log).append(days(events, 34, 36))
    release = job.update_and_publish(home, SETTINGS)
    assert release is not None
    assert release.position == Position(len(Log(home.log)))
    Log(home.log).append(days(events, 36, 38))
    job.run(home, SETTINGS, judge)
    log, position = Log(home.log), Registry(home.releases).open().position
    assert position.until is not None
    assert position.until > release.manifest["now"]
    assert len(log.read(release.position, position)) + len(log.read(position)) == len(days(events, 36, 38))


def test_of_a_batch_that_came_late_what_arrived_last_is_held_back(home: Home, events: pa.Table) -> None:
    """Its events are older than what was learned, so by time none of them is new."""
    old = days(events, 20, 26)
    ids = pa.array([f"late-{n}" for n in range(len(old))])
    log, before = Log(home.log), Registry(home.releases).open().position
    others = pc.binary_join_element_wise("another ", old["user_id"], "")  # who have not had these items yet
    log.append(old.set_column(0, old.schema.field(0), ids).set_column(1, old.schema.field(1), others))
    line = job.run(home, SETTINGS, judge)
    assert line["what"] == "published"
    after = Registry(home.releases).open().position
    held_back = log.read(after)["event_id"].to_pylist()
    assert line["held back"] == len(held_back) > 50
    assert held_back == ids.to_pylist()[-len(held_back) :]
    assert line["gate"]["figures"]["questions"] > 50
    assert len(log.read(before, after)) == line["events"]


def test_an_update_that_was_not_judged_does_not_make_the_gate_forget_what_is_usual(home: Home, events: pa.Table) -> None:
    registry, log = Registry(home.releases), Log(home.log)
    usual = registry.open().manifest["foretold"]
    assert usual > 0.2
    log.append(days(events, 34, 34.2))
    assert "questions" not in job.run(home, SETTINGS, judge)["gate"]["figures"]
    log.append(days(events, 34.2, 34.3))
    job.update_and_publish(home, SETTINGS)
    assert registry.open().manifest["foretold"] == usual
    nonsense = days(events, 34.3, 40)
    place, ids = nonsense.column_names.index("item_id"), pa.array(sorted(set(nonsense["item_id"].to_pylist())))
    any_item = ids.take(pa.array(np.random.default_rng(0).integers(0, len(ids), len(nonsense))))
    log.append(nonsense.set_column(place, nonsense.schema.field(place), any_item))
    line = job.run(home, SETTINGS, judge)
    assert line["what"] == "refused", line["gate"]
    assert f"those of the last update were by {usual:.4f}" in line["reason"]


def compared(now: list[float], then: list[float], allowed: float) -> Verdict:
    verdict = Verdict()
    gate._compare("all", np.array(now), np.array(then), np.arange(len(now)), "worse", allowed, Settings().gate, verdict)
    return verdict


def test_only_what_is_surely_worse_is_refused() -> None:
    rng = np.random.default_rng(0)
    then = rng.random(1000)
    worse = compared(list(then - 0.1 + 0.1 * rng.normal(size=1000)), list(then), 0.1)
    assert len(worse.reasons) == 1
    assert "less than the" in worse.reasons[0]
    assert "(1,000 questions; gate.worse = 0.1)" in worse.reasons[0]
    assert compared(list(then - 0.1 + 0.1 * rng.normal(size=1000)), list(then), 0.3).accepted  # so much less is allowed
    assert compared(list(then - 0.1 + 3 * rng.normal(size=1000)), list(then), 0.0).accepted  # it may be luck
    assert compared(list(then + 0.1), list(then), 0.0).accepted


def test_gains_are_those_worked_out_by_hand() -> None:
    scores = np.full((3, 30), -1.0)
    scores[:, 0] = -np.inf
    scores[0, 5], scores[0, 6] = 3.0, 2.0  # the wanted 6 stands second
    scores[1, 4] = 9.0
    assert gate._gains(scores, np.array([6, 4, 31])).tolist() == [pytest.approx(1 / np.log2(3)), 1.0, 0.0]


def test_the_same_sample_is_remembered_from_update_to_update(home: Home) -> None:
    live = Candidate.load(Registry(home.releases).open("000001"))
    later = Candidate.load(Registry(home.releases).open("000002"))
    oldest = [np.sort(one.memory.keys)[:50] for one in (live, later)]
    assert len(np.intersect1d(*oldest)) > 30


def test_what_was_never_to_be_foretold_is_not_asked_of_the_memory(home: Home) -> None:
    live = Candidate.load(Registry(home.releases).open("000001"))
    context = replace(live.memory.examples, weight=np.zeros_like(live.memory.examples.weight))
    verdict = Verdict()
    gate._of_the_memory(live, replace(live, memory=replace(live.memory, examples=context)), SETTINGS.gate, verdict)
    assert verdict.notes == ["only 0 remembered examples, too few to judge by (gate.few = 100)"]


def test_vectors_that_are_no_unit_vectors_are_a_fault(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    live = Candidate.load(Registry(home.releases).open("000001"))
    assert faults(live) == []
    own, found_at = live.vectors()
    longer = found_at.copy()
    longer[5] *= 1.5
    monkeypatch.setattr(Candidate, "vectors", lambda self: (own, longer))
    assert faults(live) == [f"1 of {len(live.vocab) - 1} prototypes are no unit vectors; that of {live.vocab.ids[5]!r} has length 1.5"]
