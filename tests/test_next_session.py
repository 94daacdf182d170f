"""Next-session prediction (TBGRecall, arXiv 2508.11977): who sees whom, what is asked, and that it goes all the way to an answer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from test_sessions import MINUTE, VOCAB, table
from torch import Tensor

from recsys.batches import Batches, batch
from recsys.catalogue import Catalogue
from recsys.errors import BadInput
from recsys.events import CODE, milliseconds
from recsys.home import Home
from recsys.log import Log
from recsys.losses import Candidates, NextItem, NextSession
from recsys.neighbours import Neighbours
from recsys.next_session import before, by_scene, numbers, sight
from recsys.registry import Registry
from recsys.sessions import Histories, Sessions, border, gap_buckets, histories, of_the_same_people, sessionise
from recsys.settings import Model, Settings, load_settings
from recsys.simulate import simulate
from recsys.towers import SessionTower, Towers, UserTower
from serving.history import Event
from serving.snapshot import Snapshot
from training import export
from training.candidate import Candidate
from training.fit import fit, objective
from training.job import fit_and_publish, update_and_publish
from training.lessons import lessons
from training.memory import Memory
from training.strategies import STRATEGIES, Update
from training.strategies.importance import fisher
from training.update import update

BORDER = border(1800)
GAPS = torch.tensor([[0, 2, BORDER, 1, BORDER + 2]])
"""Five events in three sessions: a b | c d | e."""


def made(blocks: int = 1, seed: int = 0, length: int = 6) -> Towers:
    torch.manual_seed(seed)
    settings = Model(dim=8, heads=2, blocks=blocks, dropout=0.2, features=32, objective="next_session")
    return Towers(settings, [[], [1, 2], [2, 3], [], [5], [1]], length)


def drawn(rows: int, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    items = torch.nn.functional.normalize(torch.randn(rows, length, 8), dim=-1)
    gaps = torch.randint(1, 12, (rows, length))
    gaps[:, 0] = 0
    return items, torch.randint(0, 5, (rows, length)), gaps, torch.randint(1, length + 1, (rows,))


def test_a_silence_of_the_sessions_gap_or_more_is_a_border_and_a_shorter_one_is_not() -> None:
    silent = gap_buckets(1000 * np.array([0, 1799, 2 * 1799 + 2]))
    assert (silent >= BORDER).tolist() == [False, False, True]
    assert border(0.0) >= 1  # the first event of a history, bucket 0, never is one
    assert border(1e9) == gap_buckets(np.array([0, 10**15]))[1]  # however long, the longest silence parts


def test_sessions_are_counted_and_not_events() -> None:
    opens, number = numbers(GAPS, BORDER)
    assert opens.tolist() == [[False, False, True, False, True]]
    assert number.tolist() == [[0, 0, 1, 1, 2]]


def test_who_sees_whom_worked_out_by_hand() -> None:
    """Tokens: the events a b | c d | e; C D E, which open their sessions, before a, behind b and d; and w, x, y behind a, c and e."""
    names = "abcdeCwDxEy"
    seen = sight(*numbers(GAPS, BORDER))[0]
    told = {name: {names[n] for n in np.flatnonzero(row)} for name, row in zip(names, seen.numpy(), strict=True)}
    assert told == {
        "a": set("aC"),
        "b": set("bC"),
        "c": set("abcCD"),
        "d": set("abdCD"),
        "e": set("abcdeCDE"),
        "C": set("C"),
        "w": set("aCw"),
        "D": set("abCD"),
        "x": set("abcCDx"),
        "E": set("abcdCDE"),
        "y": set("abcdeCDEy"),
    }


def test_what_is_padded_is_seen_by_nothing_before_it() -> None:
    longer = torch.cat([GAPS, torch.zeros(1, 2, dtype=torch.int64)], 1)
    seen = sight(*numbers(longer, BORDER))[0]
    inside = torch.tensor([*range(5), *range(7, 13)])
    assert torch.equal(seen[inside][:, inside], sight(*numbers(GAPS, BORDER))[0])
    assert not seen[inside][:, [5, 6, 13, 14]].any()


@pytest.mark.parametrize("blocks", [1, 2])
def test_an_item_changes_what_comes_in_later_sessions_and_nothing_else(blocks: int) -> None:
    tower = made(blocks).eval().users
    assert isinstance(tower, SessionTower)
    items, kinds, gaps, _ = (*drawn(1, 5)[:2], GAPS, None)

    def states(of: Tensor) -> Tensor:
        x, seen = tower._tokens(of, kinds, gaps)
        return tower.encoder(x, of, seen)[0]

    def changed(place: int) -> str:
        other = items.clone()
        other[0, place] = -other[0, place]
        moved = (states(other) - states(items)).abs().amax(1) > 1e-6
        return "".join(name for name, has in zip("abcdeCwDxEy", moved.tolist(), strict=True) if has)

    assert changed(0) == "acdewDxEy"
    assert changed(1) == "bcdeDxEy"
    assert changed(2) == "cexEy"  # neither d, its neighbour, nor D, which opened their session
    assert changed(3) == "deEy"
    assert changed(4) == "ey"


def test_all_of_a_session_stand_at_one_place_and_what_begins_at_the_next() -> None:
    tower = made().eval().users
    assert isinstance(tower, SessionTower)
    with torch.no_grad():
        for table in (tower.kind.weight, tower.gap.weight, tower.context):
            table.zero_()
        tower.place.weight.copy_(torch.arange(7.0)[:, None].expand(7, 8))
    tokens, _ = tower._tokens(torch.zeros(1, 5, 8), torch.zeros(1, 5).long(), GAPS)
    assert tokens[0, :, 0].tolist() == [0, 0, 1, 1, 2, 0, 1, 1, 2, 2, 3]


@pytest.mark.parametrize("blocks", [1, 2])
def test_serving_computes_what_training_computes_and_the_onnx_graph_too(blocks: int, tmp_path: Path) -> None:
    first, other = made(blocks).eval().users, made(blocks, seed=5).eval().users
    export.user_tower(first, tmp_path / "first.onnx")
    export.user_tower(other, tmp_path / "second.onnx", parent=tmp_path / "first.onnx")
    for tower, path in ((first, "first.onnx"), (other, "second.onnx")):
        session = onnxruntime.InferenceSession(tmp_path / path)
        for rows, length in ((1, 1), (1, 6), (5, 3), (7, 6)):
            items, kinds, gaps, lengths = drawn(rows, length)
            newest = tower.last(items, kinds, gaps, lengths).detach()
            torch.testing.assert_close(newest, tower(items, kinds, gaps)[torch.arange(rows), lengths - 1].detach())
            given = {"items": items, "kinds": kinds, "gaps": gaps, "lengths": lengths}
            answer = session.run(["user"], {name: value.numpy() for name, value in given.items()})[0]
            np.testing.assert_allclose(answer, newest.numpy(), atol=1e-5)


def test_graphs_of_the_two_objectives_are_not_taken_for_each_other(tmp_path: Path) -> None:
    plain = Towers(Model(dim=8, heads=2, features=32), [[], [1]], 6).eval().users
    export.user_tower(plain, tmp_path / "plain.onnx")
    tower = made().eval().users
    export.user_tower(tower, tmp_path / "sessions.onnx", parent=tmp_path / "plain.onnx")
    items, kinds, gaps, lengths = drawn(2, 4)
    given = {"items": items, "kinds": kinds, "gaps": gaps, "lengths": lengths}
    answer = onnxruntime.InferenceSession(tmp_path / "sessions.onnx").run(["user"], {name: value.numpy() for name, value in given.items()})
    np.testing.assert_allclose(answer[0], tower.last(items, kinds, gaps, lengths).detach().numpy(), atol=1e-5)


def test_every_target_is_asked_of_the_token_that_opened_its_session() -> None:
    gaps, following = GAPS[:, :-1], GAPS[:, 1:]
    assert before(gaps, following, BORDER, ahead=1)[0, :, 0].tolist() == [-1, 1, 1, 3]  # b: of none; c and d: behind b; e: behind d
    assert before(gaps, following, BORDER, ahead=3)[0].tolist() == [[-1, -1, -1], [1, -1, -1], [1, -1, -1], [3, 1, -1]]


def test_weights_are_shares_of_their_scene() -> None:
    assert by_scene(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([2, 2, 7])).tolist() == [0.25, 0.75, 1]
    assert by_scene(torch.zeros(0), torch.zeros(0).long()).tolist() == []


# a b | c d | e of one person, d liked, the others watched; and two sessions of another
LIVES = [("u", None, "a", 0), ("u", None, "b", 1), ("u", None, "c", 100), ("u", None, "d", 101, "like"), ("u", None, "e", 500)]
LIVES += [("v", None, "b", 0), ("v", None, "a", 90, "like")]
SESSIONS = sessionise(table(*LIVES), VOCAB)


def read(sessions: Sessions = SESSIONS, **changed: Any) -> Any:
    settings = by_sessions(**{"training.wishes": 0, **changed})
    everything = np.ones(len(sessions), bool)
    return lessons(sessions, everything, np.zeros(len(sessions)), Neighbours(), settings, seed=0)


def by_sessions(**changed: Any) -> Settings:
    return load_settings(overrides={"model.objective": "next_session", **changed}, environ={})


def test_what_a_life_begins_with_is_context_and_a_session_is_not_read_from_its_end() -> None:
    found = read()
    assert found.weight.tolist() == [0, 0, 1, 1, 1, 0, 1]
    assert len(found) == 2
    one_session = sessionise(table(*LIVES[:2]), VOCAB)
    assert len(read(one_session)) == 0


def test_a_cut_within_a_session_begins_with_context_too() -> None:
    found = read(**{"data.history": 3})  # u's stretches: b c d e and, before it, a b
    told = ["".join(VOCAB.ids[row] for row in found.take(np.array([n])).item) for n in range(len(found))]
    assert told == ["bcde", "ba"]


@pytest.mark.parametrize("ahead", [1, 2])
def test_the_loss_of_two_scenes_by_hand(ahead: int) -> None:
    towers = made().eval()
    with torch.no_grad():
        towers.popularity.fill_(0.0)
    task = NextSession(Candidates(torch.ones(6), 100, 0, seed=0), torch.zeros(1, 6), None, BORDER, ahead)
    asked = batch(read())
    loss = task(towers, asked)
    vectors = torch.from_numpy(towers.item_vectors())
    users = towers.users(vectors[asked.item], asked.kind, asked.gap)
    scores = towers.scale() * users @ vectors[1:].T
    surprise = -scores.log_softmax(-1)
    a, c, d, e = (VOCAB.row(item) - 1 for item in "acde")
    watched = [surprise[0, 1, c], surprise[0, 3, e]] + ([surprise[0, 1, e]] if ahead == 2 else [])
    liked = [surprise[0, 1, d], surprise[1, 0, a]]
    torch.testing.assert_close(loss, sum(watched) / len(watched) + sum(liked) / len(liked))
    assert task.touched.tolist() == [1, 2, 3, 4, 5]
    loss.backward()
    assert isinstance(towers.users, SessionTower)
    assert towers.users.context.grad is not None
    assert towers.users.context.grad.any()


def test_a_weight_counts_within_its_scene_alone() -> None:
    towers = made().eval()
    task = NextSession(Candidates(torch.ones(6), 100, 0, seed=0), torch.zeros(1, 6), None, BORDER)
    asked = batch(read())
    heavy = replace(asked, weight=torch.where(asked.next_kind == CODE["like"], 7 * asked.weight, asked.weight))
    torch.testing.assert_close(task(towers, heavy), task(towers, asked))


def test_everybody_is_asked_of_their_own_life_alone() -> None:
    towers = made().eval()
    task = NextSession(Candidates(torch.ones(6), 100, 0, seed=0), torch.zeros(1, 6), None, BORDER, ahead=2)
    thrice = batch(read().take(np.array([1, 0, 1, 0, 0, 1])))
    assert max(len(piece) for piece in thrice.pieces(4)) > 1
    torch.testing.assert_close(task(towers, thrice), task(towers, batch(read())))


def test_a_batch_with_nothing_behind_a_session_costs_nothing() -> None:
    towers = made()
    task = NextSession(Candidates(torch.ones(6), 100, 0, seed=0), torch.zeros(1, 6), None, BORDER)
    asked = batch(read())
    loss = task(towers, replace(asked, gap=torch.zeros_like(asked.gap), next_gap=torch.zeros_like(asked.gap)))
    assert loss.item() == 0
    loss.backward()


@pytest.mark.parametrize("name", sorted({*STRATEGIES} - {"columns", "heads"}))
def test_every_strategy_can_stand_beside_it(name: str) -> None:
    towers, found = made(), read()
    settings = by_sessions(**{"training.negatives": 100})
    memory = Memory.empty(10).add(found.remembered(), [7])
    task = objective(np.zeros((1, 6), np.float32), found, memory, settings, 0)
    assert isinstance(task, NextSession)
    this = Update(made().requires_grad_(False), memory, task, np.random.default_rng(0))
    strategy = STRATEGIES[name]()
    strategy.prepare(towers, this)
    for asked in Batches(strategy.select(found, this), 2, 0):
        mixed = strategy.weights(strategy.mix(asked, this), this)
        loss = this.objective(towers, mixed) + sum(strategy.penalties(towers, mixed, this).values())
        loss.backward()
        strategy.project(towers, this)
        assert torch.isfinite(loss)
    strategy.finish(towers, found, this)
    assert fisher(towers, found, this)["users.context"].any() or name == "adapters", "which holds all but matrices"


def test_the_setting_reaches_the_towers_and_the_loss() -> None:
    found = read()
    for name, kind, loss in (("next_item", UserTower, NextItem), ("next_session", SessionTower, NextSession)):
        settings = load_settings(overrides={"model.objective": name, "training.ahead": 2, "data.session_gap": 90000}, environ={})
        tower = Towers(settings.model, [[], [1]], 5, settings.data.session_gap).users
        task = objective(np.zeros((1, 6), np.float32), found, Memory.empty(0), settings, 0)
        assert type(tower) is kind
        assert type(task) is loss
        if isinstance(tower, SessionTower) and isinstance(task, NextSession):
            assert tower.border == task.border == border(90000)
            assert task.ahead == 2


@pytest.mark.parametrize("encoder", ["gru", "mean"])
def test_an_encoder_that_cannot_hide_one_event_from_another_is_refused(encoder: str) -> None:
    with pytest.raises(BadInput, match=rf"model\.objective = 'next_session': .* needs model\.encoder = transformer.* it is {encoder}"):
        by_sessions(**{"model.encoder": encoder})


TINY = {
    "model.objective": "next_session", "model.dim": 32, "model.features": 256, "training.epochs": 20, "training.batch_size": 32,
    "update.memory": 500, "update.strategy": "replay+ewc(samples=20)",
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with 40 simulated days: fitted on 25 of them, updated with five more, ten held out."""
    home = Home(tmp_path_factory.mktemp("world") / "home")
    simulate(home, users=300, items=150, days=40, seed=3, sessions_a_week=2)
    settings = load_settings(overrides=TINY, environ={})
    assert fit_and_publish(home, settings, at(home, 25)) is not None
    assert update_and_publish(home, settings, at(home, 30)) is not None
    return home


def at(home: Home, days: float) -> int:
    return int(milliseconds(Log(home.log).read(columns=["timestamp"]))[0] + days * 86_400_000)


def newest(home: Home) -> Candidate:
    registry = Registry(home.releases)
    return Candidate.load(registry.open())


def test_an_update_goes_on_with_the_objective_of_its_parent_and_refuses_another(home: Home) -> None:
    release = Registry(home.releases).open()
    assert 'objective = "next_session"' in release.file("config.toml").read_text()
    assert isinstance(newest(home).towers.users, SessionTower)
    with pytest.raises(BadInput, match=r"model\.objective = 'next_item', but release .* was fitted with 'next_session'"):
        Candidate.load(release, load_settings(overrides={"model.objective": "next_item"}, environ={}))


def test_held_out_sessions_are_foretold_better_than_by_popularity(home: Home) -> None:
    """All that people like in their sessions of the last ten days, by what is known as each begins: recall@10."""
    one = newest(home)
    events = Log(home.log).read()
    sessions = sessionise(events, one.vocab)
    held = (sessions.time > at(home, 30)) & sessions.positive & (sessions.item > 0)
    first = np.searchsorted(sessions.session, sessions.session[held])
    target = sessions.item[held]
    past = histories(sessions, first, 50)
    told = np.diff(past.start) > 0
    owner, had = past.pairs()
    scores = one.alone(past, one.vectors(), (owner, had))
    popular = np.tile(one.bias(), (len(target), 1))
    popular[owner, had] = -np.inf
    popular[:, 0] = -np.inf
    asked = np.flatnonzero(told & np.isfinite(scores[np.arange(len(target)), target]))

    def recall(of: np.ndarray) -> float:
        best = np.argsort(-of[asked], axis=1)[:, :10]
        return float((best == target[asked, None]).any(1).mean())

    print("held out", len(asked), recall(scores), recall(popular))
    assert len(asked) > 3000
    assert recall(scores) > 1.03 * recall(popular)


def test_what_is_served_is_what_training_makes_of_it_and_a_tap_counts_at_once(home: Home) -> None:
    """In the middle of a session the token behind the newest event is asked, not the one that opened the session."""
    one, snapshot = newest(home), Snapshot.load(Registry(home.releases).open())
    item, now, own = np.array([3, 4, 5, 9]), one.counts.now, one.item_vectors()
    time = now - 1000 * np.array([90_000, 86_400, 60, 1])  # the day before, and two taps of the session that goes on
    kind = np.array([CODE["play"], CODE["watch"], CODE["play"], CODE["like"]])
    people = []
    for length in (2, 3, 4):
        past = Histories(np.array([0, length]), item[:length], kind[:length], time[:length])
        people.append(snapshot._users(past)[0])
        np.testing.assert_allclose(people[-1], one.towers.user_vectors(past, own)[0], atol=1e-5)
    assert people[0] @ people[1] < 0.99
    assert people[1] @ people[2] < 0.99
    asked = [Event(one.vocab.ids[row], "like", int(when)) for row, when in zip(item, time, strict=True)]
    shown = snapshot.recommend(asked, 5)
    assert len({told["item_id"] for told in shown} - {event.item_id for event in asked}) == 5


def test_the_same_log_gives_the_same_towers_and_learns_new_items(home: Home) -> None:
    settings = load_settings(overrides={**TINY, "training.epochs": 1, "update.epochs": 1}, environ={})
    events, catalogue = Log(home.log).read(), Catalogue(home.items).items()
    half, end = np.searchsorted(milliseconds(events), [at(home, 8), at(home, 12)]).tolist()
    past, new = events.slice(0, half), events.slice(half, end - half)

    def learned() -> Candidate:
        return update(fit(past, settings, catalogue), new, of_the_same_people(past, new), settings, catalogue)

    one, other = learned(), learned()
    assert all(torch.equal(a, b) for a, b in zip(one.towers.state_dict().values(), other.towers.state_dict().values(), strict=True))
    assert one.notes["new items"] > 0
    assert one.notes["examples"] > 0


def test_where_nobody_comes_twice_there_is_nothing_to_learn() -> None:
    lone = table(*((f"u{n}", None, item, n * MINUTE) for n in range(3) for item in "abc"))
    with pytest.raises(BadInput, match="at least one person needs two sessions"):
        fit(lone, by_sessions(), {})
