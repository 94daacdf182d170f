import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from test_batches import table

from recsys.again import TRIED, Again
from recsys.batches import Examples
from recsys.catalogue import Catalogue
from recsys.errors import BadInput, ReleaseDamaged
from recsys.events import CODE, HISTORY, milliseconds
from recsys.home import Home
from recsys.log import Log, Position
from recsys.neighbours import Neighbours
from recsys.registry import Registry
from recsys.sessions import Histories, histories, sessionise
from recsys.settings import Settings, load_settings
from recsys.simulate import simulate
from recsys.towers import Towers
from recsys.vocab import Vocabulary
from serving.history import Event
from serving.snapshot import Snapshot
from training import candidate as candidates
from training.candidate import Candidate
from training.fit import fit
from training.fusing import reweighed
from training.growth import grown
from training.job import fit_and_publish, update_and_publish
from training.prototypes import people
from training.recommender import _with_a_last_event
from training.update import update

pytestmark = pytest.mark.usefixtures("exported_once")

DAY = 86_400_000
TINY = {
    "model.dim": 16, "model.blocks": 1, "model.features": 256, "data.history": 12, "training.epochs": 2, "training.negatives": 64,
    "update.epochs": 2, "update.memory": 200, "update.strategy": "replay+ewc(samples=20)",
}  # fmt: skip


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(overrides=TINY, environ={})


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Home:
    """A home with 30 simulated days in its log."""
    home = Home(tmp_path_factory.mktemp("world") / "home")
    simulate(home, users=150, items=60, days=30, seed=3)
    return home


@pytest.fixture
def home(world, tmp_path) -> Home:
    """A home of the test's own with the same log."""
    subprocess.run(["cp", "-r", str(world.path), str(tmp_path / "home")], check=True)
    return Home(tmp_path / "home")


def after(home: Home, days: float) -> int:
    return int(milliseconds(Log(home.log).read(columns=["timestamp"]))[0] + days * DAY)


def content(home: Home) -> list[str]:
    registry = Registry(home.releases)
    return [registry.open(id).manifest["content"] for id in registry.ids()]


def test_five_updates_in_a_row_learn_every_event_once_and_new_items_each_time(home, settings):
    fit_and_publish(home, settings, after(home, 5))
    for week in range(1, 6):
        assert update_and_publish(home, settings, None if week == 5 else after(home, 5 * week + 5)) is not None
    registry = Registry(home.releases)
    found = [registry.open(id).verify() for id in registry.ids()]
    assert [release.manifest["parent"] for release in found] == [None, "000001", "000002", "000003", "000004", "000005"]
    assert sum(release.manifest["metrics"]["events"] for release in found) == len(Log(home.log))
    items = [release.manifest["metrics"]["items"] for release in found]
    assert items == sorted(items)
    assert items[-1] > items[0]
    assert update_and_publish(home, settings) is None


def test_the_vocabulary_only_ever_grows_at_its_end(home, settings):
    old = Candidate.load(fit_and_publish(home, settings, after(home, 5)))
    new = Candidate.load(update_and_publish(home, settings))
    assert len(new.vocab) > len(old.vocab)
    assert new.vocab.ids[: len(old.vocab)] == old.vocab.ids


def test_the_same_log_and_seed_give_the_same_release_byte_for_byte(home, world, settings, tmp_path, exported_anew):
    subprocess.run(["cp", "-r", str(world.path), str(tmp_path / "other")], check=True)
    other = Home(tmp_path / "other")
    for place in (home, other):
        fit_and_publish(place, settings, after(place, 20))
        update_and_publish(place, settings)
    assert content(home) == content(other)
    reseeded = settings.model_copy(update={"training": settings.training.model_copy(update={"seed": 1})})
    assert fit_and_publish(home, reseeded, None).manifest["content"] not in content(other)


def test_a_release_reads_back_as_the_candidate_it_was(home, settings):
    events, catalogue = Log(home.log).read(), Catalogue(home.items).items()
    made, read = fit(events, settings, catalogue), Candidate.load(fit_and_publish(home, settings))
    np.testing.assert_array_equal(read.item_vectors(), made.item_vectors())
    np.testing.assert_array_equal(read.bias(), made.bias())
    assert read.towers.items.features() == made.towers.items.features()
    assert all(torch.equal(read.strategy_state[name], value) for name, value in made.strategy_state.items())
    np.testing.assert_array_equal(read.memory.keys, made.memory.keys)
    np.testing.assert_array_equal(read.memory.examples.item, made.memory.examples.item)
    assert len(made.memory) > 0
    for field in fields(Examples):
        np.testing.assert_array_equal(getattr(read.memory.examples, field.name), getattr(made.memory.examples, field.name))
    for name in ("owner", "start", "item", "time"):
        np.testing.assert_array_equal(getattr(read.neighbours, name), getattr(made.neighbours, name))
    assert len(made.neighbours) > 0
    np.testing.assert_allclose(read.fusion.weights, made.fusion.weights, atol=1e-6)
    np.testing.assert_array_equal(read.prototypes.people, made.prototypes.people)
    assert read.prototypes.lean == made.prototypes.lean
    assert made.prototypes.people.any()


def test_a_release_of_another_version_is_not_learned_on_and_says_what_to_do(home, settings, monkeypatch):
    monkeypatch.setattr(candidates, "FORMAT", 1)
    old = fit_and_publish(home, settings)
    monkeypatch.undo()
    with pytest.raises(BadInput, match=r"another version of recsys.*train anew with: recsys fit"):
        Candidate.load(old)
    with pytest.raises(ReleaseDamaged, match=r"another version of recsys.*train anew with: recsys fit"):
        Snapshot.load(old)


def test_without_a_memory_items_keep_the_people_they_had(home):
    forgetful = load_settings(overrides={**TINY, "update.memory": 0}, environ={})
    parent = Candidate.load(fit_and_publish(home, forgetful, after(home, 20)))
    child = Candidate.load(update_and_publish(home, forgetful))
    assert not len(parent.memory)
    assert not len(child.memory)
    had, has = (made.prototypes.people.any(axis=1) for made in (parent, child))
    assert had.sum() > 20
    assert has[: len(had)][had].all()


def test_items_lean_towards_the_people_of_all_that_was_learned_as_the_new_towers_see_them(home):
    roomy = load_settings(overrides={**TINY, "update.memory": 10_000}, environ={})
    fit_and_publish(home, roomy, after(home, 20))
    release = update_and_publish(home, roomy)
    child = Candidate.load(release)
    assert len(child.memory) < child.memory.size, "nothing was forgotten yet"
    np.testing.assert_allclose(child.prototypes.people, people(child.towers, [child.memory.examples]), atol=1e-5)
    vectors, found_at = child.vectors()
    assert not np.allclose(found_at, vectors, atol=0.1)
    np.testing.assert_allclose(Snapshot.load(release).prototypes, found_at, atol=1e-6)


def test_an_update_adds_to_the_neighbours_and_leaves_its_parents_as_they_were(home, settings):
    fit_and_publish(home, settings, after(home, 20))
    parent = Candidate.load(Registry(home.releases).open())
    old, whole = (getattr(parent.neighbours, name).copy() for name in ("time", "item"))
    child = Candidate.load(update_and_publish(home, settings))
    everything = sessionise(Log(home.log).read(), child.vocab, settings.data.session_gap)
    expected = Neighbours()
    expected.add(everything)
    for name in ("owner", "start", "item", "time"):
        np.testing.assert_array_equal(getattr(child.neighbours, name), getattr(expected, name))
    assert len(old) == len(parent.neighbours.time) < len(child.neighbours.time)
    np.testing.assert_array_equal(parent.neighbours.item, whole)


def test_the_weights_of_the_answer_are_those_by_which_the_parent_foretold_what_is_new(home, settings):
    fit_and_publish(home, settings, after(home, 20))
    parent = Candidate.load(Registry(home.releases).open())
    child = Candidate.load(update_and_publish(home, settings))
    assert not parent.fusion.asked.any()
    assert child.fusion.asked.sum() > 50
    assert not np.array_equal(child.fusion.weights, parent.fusion.weights)
    log = Log(home.log)
    new, past = log.read(after=parent.position), log.read(upto=parent.position)
    sessions = sessionise(pa.concat_tables([past, new]), child.vocab, settings.data.session_gap)
    seed = settings.training.seed + 1000
    expected = reweighed(replace(child, settings=settings), parent, sessions, sessions.place >= len(past), [seed, 2])
    np.testing.assert_allclose(child.fusion.weights, expected.fusion.weights, atol=1e-6)
    np.testing.assert_allclose(child.fusion.asked, expected.fusion.asked)
    assert child.prototypes.lean == expected.prototypes.lean != parent.prototypes.lean
    assert not child.again.quality.any(), "where seen items are left out, nothing is learned of them"


def test_an_update_learns_that_people_go_back_to_the_one_before(settings):
    """Everybody looks at two things in turn: a, b, a, b. Where repeats are recommended, the one before the newest comes first."""
    rng = np.random.default_rng(0)

    def visits(first: int, people: int) -> list[tuple[str, str, float, str]]:
        pairs = [rng.choice(40, 2, replace=False) for _ in range(people)]
        who = [(first + n, pair) for n, pair in enumerate(pairs)]
        return [(f"u{n}", f"i{pair[k % 2]}", 3600.0 * n + 60 * k, "click") for n, pair in who for k in range(6)]

    old, new = table(visits(0, 150)), table(visits(150, 60))
    shown = settings.model_copy(update={"serving": settings.serving.model_copy(update={"exclude_seen": False})})
    parent = fit(old, shown, {})
    child = update(parent, new, new.slice(0, 0), shown, {})
    assert not parent.again.towers.any()
    assert child.again.towers[1] > child.again.towers[0]
    assert child.again.towers[1] > 0
    assert child.again.quality.shape == (2, len(TRIED))

    vocab = child.vocab
    past = Histories(np.array([0, 3]), vocab.rows(["i3", "i9", "i5"]), np.full(3, CODE["click"]), np.arange(3) * 60_000)
    before = vocab.row("i9")
    plain = replace(child, again=Again.start())
    assert child.alone(past, child.vectors(), None)[0, before] == pytest.approx(
        child.logits(past, child.vectors(), None)[0, before] + child.again.towers[1], abs=1e-4
    )
    fused, without = (it.fused(past, np.array([10**6]), it.vectors(), None)[0] for it in (child, plain))
    had = vocab.rows(["i5", "i9", "i3"])
    np.testing.assert_allclose(fused[had] / without[had], np.exp(child.again.fused), rtol=1e-4)
    others = np.setdiff1d(np.arange(1, len(vocab)), had)
    np.testing.assert_array_equal(fused[others], without[others])
    hidden = np.zeros(1, np.int64), np.array([before])
    assert child.fused(past, np.array([10**6]), child.vectors(), hidden)[0, before] == -np.inf


def test_without_a_new_event_to_ask_about_the_weights_stay(settings):
    old = table([(f"u{n}", f"i{k}", 100.0 * n + k, "play") for n in range(20) for k in range(4)])
    parent = fit(old, settings, {})
    strangers = table([("new1", "never", 9000.0, "play"), ("new2", "never2", 9001.0, "play")])
    child = update(parent, strangers, strangers.slice(0, 0), settings, {})
    assert (child.fusion, child.again, child.prototypes.lean) == (parent.fusion, parent.again, parent.prototypes.lean)


LESSONS = {"training.both_ways": False, "training.wishes": 0.0}


@pytest.mark.parametrize("name", LESSONS)
def test_a_setting_of_the_lessons_changes_what_a_fit_learns(name, home, settings):
    events, catalogue = Log(home.log).read(upto=Position(400)), Catalogue(home.items).items()
    usual, again = (fit(events, settings, catalogue) for _ in range(2))
    changed = fit(events, load_settings(overrides={**TINY, name: LESSONS[name]}, environ={}), catalogue)
    np.testing.assert_array_equal(usual.item_vectors(), again.item_vectors())
    assert not np.array_equal(usual.item_vectors(), changed.item_vectors())


def test_the_settings_of_the_neighbours_reach_the_release(home, settings):
    events, catalogue = Log(home.log).read(upto=Position(400)), Catalogue(home.items).items()
    changes = {"neighbours.capacity": 50, "neighbours.share": 0.1, "neighbours.popular": 0.2, "neighbours.fuse": False}
    usual, changed = fit(events, settings, catalogue), fit(events, load_settings(overrides={**TINY, **changes}, environ={}), catalogue)
    assert len(usual.neighbours.item) > 50 == len(changed.neighbours.item)
    assert changed.fusion.weights.tolist() == [[0.1, 0.2]] * 6 != usual.fusion.weights.tolist()
    registry = Registry(home.releases)
    for made, fuses in ((usual, True), (changed, False)):
        with registry.draft() as draft:
            release = registry.publish(draft, registry.next_id(), registry.current(), {**made.write(draft), "why": "test", "seconds": {}})
        assert (Snapshot.load(release).fusion is not None) == fuses


def test_an_update_leaves_its_parent_alone_and_untouched_rows_bit_for_bit(home, settings):
    log, catalogue = Log(home.log), Catalogue(home.items).items()
    naive = settings.model_copy(update={"update": settings.update.model_copy(update={"strategy": "naive"})})
    full = naive.model_copy(update={"training": naive.training.model_copy(update={"negatives": 1})})
    parent = fit(log.read(upto=Position(len(log) - 40)), full, catalogue)
    before = {name: value.clone() for name, value in parent.towers.state_dict().items()}
    new = log.read(after=Position(len(log) - 2))
    child = update(parent, new, new.slice(0, 0), full, catalogue)
    assert all(torch.equal(value, before[name]) for name, value in parent.towers.state_dict().items())
    old, now = before["items.ids.weight"], child.towers.items.ids.weight[: len(parent.vocab)]
    same = (old == now).all(1)
    assert int(same.sum()) > len(old) // 2


def test_new_items_start_near_what_they_were_met_beside(settings):
    torch.manual_seed(0)
    towers = Towers(settings.model, [[], [], []], settings.data.history)
    sessions = sessionise(
        table([("ann", "a", 0, "play"), ("ann", "new", 1, "play"), ("bob", "other", 2, "play")]), Vocabulary(["a", "b", "new", "other"])
    )
    bigger = grown(towers, settings, [[]] * 5, sessions)
    vectors = bigger.item_vectors()
    assert torch.equal(bigger.items.ids.weight[:3], towers.items.ids.weight)
    assert vectors[3] @ vectors[1] > 0.85
    assert vectors[4] @ vectors[1] < 0.6
    assert np.linalg.norm(vectors[4]) == pytest.approx(1, abs=1e-5)


def test_what_is_served_is_what_evaluation_scores(home, settings):
    release = update_and_publish(home, settings) if Registry(home.releases).current() else fit_and_publish(home, settings)
    candidate, snapshot = Candidate.load(release), Snapshot.load(release)
    events = Log(home.log).read()
    owner = events["user_id"][len(events) // 2].as_py()
    mine = events.filter(np.array(events["user_id"]) == owner)
    mine = mine.filter(np.isin(np.array(mine["event_type"]), sorted(HISTORY)))
    history = [
        Event(item, kind, time)
        for item, kind, time in zip(mine["item_id"].to_pylist(), mine["event_type"].to_pylist(), milliseconds(mine).tolist(), strict=True)
    ]
    sessions = sessionise(_with_a_last_event(mine, [owner]), candidate.vocab)
    past = histories(sessions, sessions.start[1:] - 1, settings.serving.profile_events)
    seen = candidate.vocab.rows(mine["item_id"].to_pylist())
    now = np.array([max(candidate.counts.now, history[-1].timestamp)])
    scores = candidate.fused(past, now, candidate.vectors(), (np.zeros(len(seen), np.int64), seen))[0]
    assert len(candidate.neighbours) > 0
    expected = [candidate.vocab.ids[row] for row in np.argsort(-scores, kind="stable")[:10]]
    served = snapshot.recommend(history, 10)
    assert [item["item_id"] for item in served] == expected
    np.testing.assert_allclose([item["score"] for item in served], np.sort(scores)[::-1][:10], atol=1e-5)


def test_until_must_move_forward(home, settings):
    fit_and_publish(home, settings, after(home, 10))
    with pytest.raises(BadInput, match="name a later date or none"):
        update_and_publish(home, settings, after(home, 9))


@pytest.mark.parametrize("moment", ["training", "writing"])
def test_killed_in_the_middle_and_run_again_it_publishes_what_it_would_have(moment, home, settings, tmp_path):
    fit_and_publish(home, settings, after(home, 25))
    subprocess.run(["cp", "-r", str(home.path), str(tmp_path / "other")], check=True)
    other = Home(tmp_path / "other")
    epochs = 3000 if moment == "training" else 2
    words = [word for name, value in {**TINY, "update.epochs": epochs}.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "recsys.cli", "update", "--home", str(home.path), *words]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], env={**os.environ, "OMP_NUM_THREADS": "1"}) as victim:
        if moment == "training":
            time.sleep(6)  # past the imports and far from the end; wherever it falls, the promise is the same
        else:
            while victim.poll() is None and not list(home.releases.glob(".draft-*/towers.safetensors")):
                time.sleep(0.001)
        os.kill(victim.pid, signal.SIGKILL)
    assert Registry(home.releases).ids() == ["000001"]
    assert Registry(home.releases).current() == "000001"
    for place in (home, other):
        update_and_publish(place, settings)
    assert content(home) == content(other)
    assert not list(home.releases.glob(".draft-*"))


def test_settings_of_an_update_reach_its_memory_and_counts(home, settings):
    fit_and_publish(home, settings, after(home, 20))
    small = load_settings(overrides={**TINY, "update.memory": 5, "training.count_half_life": 1}, environ={})
    child = Candidate.load(update_and_publish(home, small))
    assert len(child.memory) == 5
    assert child.counts.half_life == DAY


def test_towers_of_another_shape_need_a_fit(home, settings):
    fit_and_publish(home, settings, after(home, 20))
    with pytest.raises(BadInput, match=r"model\.dim = 32, but release 000001 was fitted with 16; leave it out, or train anew"):
        update_and_publish(home, load_settings(overrides={**TINY, "model.dim": 32}, environ={}))
    assert update_and_publish(home, load_settings(environ={}, overrides={"update.epochs": 1})).id == "000002"


def test_a_dislike_makes_nothing_popular(settings):
    disliked = [(f"user {n}", "hated", n, "dislike") for n in range(9)]
    watched = [("ann", "a", 0, "play"), ("ann", "b", 1, "play")]
    made = fit(table([*watched, *disliked]), settings, {})
    assert made.counts.count[made.vocab.row("hated")] == 0
    new = update(
        made,
        table([("bob", "a", 20, "play"), ("bob", "b", 21, "play"), ("bob", "hated", 22, "skip")]),
        table(watched).slice(0, 0),
        settings,
        {},
    )
    assert new.counts.count[new.vocab.row("hated")] == 0
    assert new.counts.count[new.vocab.row("a")] > 1
