"""Heads: a surface that events name gets a matrix of its own behind the user tower, which answers where a request names it."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
import torch.nn.functional as F
from test_api import served
from worlds import NOW, event_table

from eval.methods import methods
from eval.protocols import prequential
from eval.replay import replay
from recsys.errors import BadInput
from recsys.events import milliseconds, surface_number, surface_numbers
from recsys.home import Home
from recsys.log import Log
from recsys.registry import Registry
from recsys.sessions import Histories
from recsys.settings import Model, Settings, load_settings
from recsys.towers import Towers
from serving.archive import archive_home
from serving.history import Event, History
from serving.snapshot import Snapshot
from training import export
from training.candidate import Candidate
from training.fit import fit
from training.job import fit_and_publish, update_and_publish
from training.recommender import Recommender
from training.strategies import parse
from training.update import update

HOUR = 3_600_000
TINY = {
    "model.dim": 16, "model.blocks": 1, "model.features": 64, "model.dropout": 0.0, "model.id_dropout": 0.0, "data.history": 8,
    "training.epochs": 10, "training.negatives": 40, "training.batch_size": 32, "training.lr": 0.005, "training.both_ways": False,
    "update.epochs": 15, "update.lr": 0.02, "training.wishes": 0.0, "neighbours.fuse": False, "training.precision": "float32",
}  # fmt: skip
CHAINS = 6


def settings(strategy: str, **more: Any) -> Settings:
    return load_settings(overrides={**TINY, "update.strategy": strategy, **more}, environ={})


def viewers(first: int, last: int, surface: str | None, target: str, begin: int) -> list[dict[str, Any]]:
    """Return what people watch: everybody begins with a0, a1, ... of their chain; on a surface they go on to what is its own there."""
    rows = []
    for person in range(first, last):
        chain = person % CHAINS
        for place, item in enumerate((f"a{chain}", f"b{chain}", f"{target}{chain}")):
            told = {"event_id": f"{begin}-{person}-{place}", "user_id": f"u{person}", "item_id": item, "event_type": "play"}
            rows.append({**told, "timestamp": begin + person * HOUR + place * 60_000, "surface": surface})
    return rows


def first_events() -> pa.Table:
    """Nobody says where: half of all go on from a and b to c, the other half to d."""
    return event_table([*viewers(0, 60, None, "c", NOW), *viewers(60, 120, None, "d", NOW)])


def later_events(*surfaces: str) -> pa.Table:
    """On tv people go on to c, on the phone to d."""
    goes = {"tv": "c", "phone": "d"}
    rows = [row for n, name in enumerate(surfaces) for row in viewers(200 + 100 * n, 290 + 100 * n, name, goes[name], NOW + 200 * HOUR)]
    return event_table(sorted(rows, key=lambda row: row["timestamp"]))


NOTHING = event_table([])


@pytest.fixture(scope="module")
def fitted() -> Candidate:
    return fit(first_events(), settings("heads(least=50)"), {})


@pytest.fixture(scope="module")
def branched(fitted: Candidate) -> Candidate:
    return update(fitted, later_events("tv", "phone"), NOTHING, fitted.settings, {})


def best(candidate: Candidate, chain: int, surface: str) -> str:
    """Return which of c and d the towers put first for somebody who saw a and b of a chain."""
    rows = candidate.vocab.rows([f"a{chain}", f"b{chain}"])
    past = Histories(np.array([0, 2]), rows, np.array([2, 2], np.int8), np.array([0, 60_000]), np.array([surface_number(surface)]))
    scores = candidate.logits(past, candidate.vectors(), None)[0]
    return max("cd", key=lambda name: scores[candidate.vocab.row(f"{name}{chain}")])


def test_numbers_of_surfaces_are_the_same_everywhere_and_none_is_nobody_s() -> None:
    assert (surface_number(None), surface_number("")) == (0, 0)
    assert surface_number("tv") == 1_410_312_673
    column = pa.chunked_array([["tv", None], ["phone", "", "tv"]])
    assert surface_numbers(column).tolist() == [surface_number(name) for name in ("tv", None, "phone", "", "tv")]
    assert surface_numbers(pa.chunked_array([[None, None]], pa.string())).tolist() == []
    numbers = {surface_number(f"surface {n}") for n in range(1000)}
    assert len(numbers) == 1000
    assert min(numbers) > 0
    assert max(numbers) < 2**31


def test_a_head_adds_its_product_on_its_surface_alone() -> None:
    torch.manual_seed(0)
    towers = Towers(Model(dim=4, blocks=1, heads=1, features=16), [[], [], []], length=5).eval()
    items, zeros, lengths = F.normalize(torch.randn(3, 2, 4), dim=-1), torch.zeros(3, 2).long(), torch.tensor([2, 1, 2])
    plain = towers.users(items, zeros, zeros)
    towers.users.branch(7)
    towers.users.branch(9)
    where = torch.tensor([[7, 9], [0, 7], [8, 9]])
    assert torch.equal(towers.users(items, zeros, zeros, where), plain), "a head that has learned nothing says nothing"
    with torch.no_grad():
        towers.users.heads[0].weight.copy_(2 * torch.eye(4))
        towers.users.heads[1].bias.copy_(torch.tensor([0.0, 0.0, 0.0, 3.0]))
    said = towers.users.encoder(towers.users._read(items, zeros, zeros), items)
    wanted = said.clone()
    for row, column in ((0, 0), (1, 1)):
        wanted[row, column] = 3 * said[row, column]
    for row, column in ((0, 1), (2, 1)):
        wanted[row, column, 3] += 3
    found = towers.users(items, zeros, zeros, where)
    torch.testing.assert_close(found, F.normalize(wanted, dim=-1))
    assert torch.equal(towers.users(items, zeros, zeros), plain), "who says no surface is answered by the trunk"
    newest = towers.users.last(items, zeros, zeros, lengths, where[torch.arange(3), lengths - 1])
    torch.testing.assert_close(newest, found[torch.arange(3), lengths - 1])


def test_serving_asks_the_same_heads(tmp_path: Path) -> None:
    torch.manual_seed(1)
    tower = Towers(Model(dim=8, blocks=1, heads=2, features=16), [[], []], length=6, heads=[3, 5]).eval().users
    with torch.no_grad():
        for head in tower.heads:
            head.weight.normal_()
    export.user_tower(tower, tmp_path / "one.onnx")
    with torch.no_grad():
        tower.heads[1].bias.normal_()
    export.user_tower(tower, tmp_path / "two.onnx", tmp_path / "one.onnx")  # by its parent's graph
    session = onnxruntime.InferenceSession(str(tmp_path / "two.onnx"))
    for rows, length in ((4, 6), (1, 1), (3, 2)):
        items, kinds, lengths = torch.randn(rows, length, 8), torch.ones(rows, length).long(), torch.full((rows,), length)
        where = torch.tensor([3, 0, 5, 4])[:rows]
        given = dict(zip(("items", "kinds", "gaps", "lengths", "surface"), (items, kinds, kinds, lengths, where), strict=True))
        answer = session.run(["user"], {name: value.numpy() for name, value in given.items()})[0]
        np.testing.assert_allclose(answer, tower.last(items, kinds, kinds, lengths, where).detach().numpy(), atol=1e-5)


def test_the_graph_of_a_tower_with_heads_is_not_that_of_one_without(tmp_path: Path) -> None:
    towers = [Towers(Model(dim=8, blocks=1, heads=2, features=16), [[], []], length=6, heads=heads).eval().users for heads in ([3], [])]
    for n, tower in enumerate(towers):
        export.user_tower(tower, tmp_path / f"{n}.onnx", tmp_path / f"{n - 1}.onnx" if n else None)
        inputs = [slot.name for slot in onnxruntime.InferenceSession(str(tmp_path / f"{n}.onnx")).get_inputs()]
        assert inputs == ["items", "kinds", "gaps", "lengths", *(["surface"] if len(tower.heads) else [])]


def test_a_head_is_born_when_its_surface_has_enough_events_of_an_update(fitted: Candidate) -> None:
    assert fitted.surfaces == ()
    new = later_events("tv", "phone")  # 270 events each
    for expression, surfaces in (
        ("heads(least=271)", ()),
        ("heads(least=270)", ("phone", "tv")),
        ("heads(least=1, most=1)", ("phone",)),
        ("naive", ()),
    ):
        assert update(fitted, new, NOTHING, settings(expression, **{"update.epochs": 1}), {}).surfaces == surfaces, expression


def test_a_surface_that_does_not_come_again_keeps_its_head_bit_for_bit(branched: Candidate) -> None:
    assert branched.surfaces == ("phone", "tv")
    after = update(branched, later_events("tv"), NOTHING, branched.settings, {})
    assert after.surfaces == branched.surfaces
    for kind in ("weight", "bias"):
        phone, tv = ([getattr(one.towers.users.heads[n], kind) for one in (branched, after)] for n in (0, 1))
        assert torch.equal(*phone)
        assert not torch.equal(*tv)
    assert after.towers.users.labels.tolist() == [surface_number("phone"), surface_number("tv")]


def test_what_people_go_on_to_differs_by_surface_and_only_heads_can_tell(fitted: Candidate, branched: Candidate) -> None:
    right = {"tv": "c", "phone": "d"}
    found = [best(branched, chain, surface) == right[surface] for chain in range(CHAINS) for surface in right]
    assert np.mean(found) >= 0.9
    plain = update(fitted, later_events("tv", "phone"), NOTHING, settings("naive"), {})
    blind = [best(plain, chain, surface) == right[surface] for chain in range(CHAINS) for surface in right]
    assert np.mean(blind) == 0.5


def test_memory_and_anchor_know_where_things_happened(fitted: Candidate) -> None:
    chosen = settings("heads(least=50)+replay+ewc+distill+der(items=8)")
    first = update(fitted, later_events("tv", "phone"), NOTHING, chosen, {})
    remembered = set(np.unique(first.memory.examples.surface).tolist())
    assert remembered == {0, surface_number("tv"), surface_number("phone")}
    second = update(first, later_events("tv"), NOTHING, chosen, {})
    assert not torch.equal(second.towers.users.heads[0].weight, first.towers.users.heads[0].weight), "the phone is replayed"
    right = {"tv": "c", "phone": "d"}
    assert np.mean([best(second, chain, surface) == right[surface] for chain in range(CHAINS) for surface in right]) >= 0.9
    assert (second.strategy_state["ewc/users.heads.0.weight"] > 0).any()


def test_a_release_is_served_by_its_heads_and_evaluated_by_them(branched: Candidate, tmp_path: Path, exported_once: None) -> None:
    registry = Registry(tmp_path)
    with registry.draft() as draft:
        release = registry.publish(draft, registry.next_id(), None, branched.write(draft))
    assert release.manifest["surfaces"] == ["phone", "tv"]
    loaded, snapshot = Candidate.load(release), Snapshot.load(release)
    assert loaded.surfaces == ("phone", "tv")
    assert snapshot.surfaces == ("phone", "tv")
    lists = {}
    for surface in ("tv", "phone", None, "elsewhere"):
        told = History.of([Event("a0", "play", 0), Event("b0", "play", 60_000)]).on(surface)
        lists[surface] = snapshot.recommend(told, 20)
        past = Histories(
            np.array([0, 2]), branched.vocab.rows(["a0", "b0"]), np.array([2, 2]), np.array([0, 60_000]),
            np.array([surface_number(surface)]),
        )  # fmt: skip
        scores = loaded.served(past, np.array([NOW]), loaded.vectors(), past.pairs())[0]
        order = [branched.vocab.ids[row] for row in np.argsort(-scores, kind="stable")[:4]]
        assert [item["item_id"] for item in lists[surface]][:4] == order
    assert (lists["tv"][0]["item_id"], lists["phone"][0]["item_id"]) == ("c0", "d0")
    assert lists[None] == lists["elsewhere"] != lists["tv"]


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("heads(least=0)", "heads.least is how many events of an update give a surface its head, 1 or more; got 0"),
        ("heads(most=1.5)", "heads.most takes a whole number; got 1.5"),
        ("heads(least=True)", "heads.least takes a whole number; got True"),
        ("heads+adapters", "heads and adapters do not go together: "),
    ],
)
def test_what_cannot_be_is_refused(expression: str, why: str) -> None:
    with pytest.raises(BadInput, match=why.replace("(", r"\(")):
        parse(expression)


def test_a_tower_that_reads_by_session_is_refused() -> None:
    by_session = {"model.objective": "next_session", "data.session_gap": 1800.0, "training.epochs": 1}
    rows = [{**row, "timestamp": row["timestamp"] + HOUR * 24 * int(row["event_id"][-1])} for row in viewers(0, 30, None, "c", NOW)]
    first = fit(event_table(rows), settings("naive", **by_session), {})
    with pytest.raises(BadInput, match=r"heads cannot stand beside model\.objective = next_session: a session is read in one"):
        update(first, later_events("tv"), NOTHING, settings("heads", **by_session), {})


def test_a_surface_travels_from_the_app_into_the_next_release_and_back(tmp_path: Path, exported_once: None) -> None:
    home = Home(tmp_path / "home")
    home.path.mkdir()
    (home.path / "config.toml").write_text("")
    chosen = settings("heads(least=50)")
    Log(home.log).append(first_events())
    fit_and_publish(home, chosen)
    with served(home.path) as client:
        now = time.time()
        for surface, target in (("tv", "c"), ("phone", "d")):
            for first in range(0, 90, 30):
                batch = [
                    {
                        "user_id": f"{surface}-{person}", "item_id": f"{item}{person % CHAINS}", "event_type": "play",
                        "timestamp": now - 60 * 60 + person + place / 10, "surface": surface,
                    }
                    for person in range(first, first + 30)
                    for place, item in enumerate(("a", "b", target))
                ]  # fmt: skip
                assert client.post("/v1/events", json=batch).json()["accepted"] == 90
        refused = client.post("/v1/events", json={**batch[0], "surface": "x" * 257})
        assert (refused.status_code, "surface" in refused.json()["detail"]) == (422, True)
        assert archive_home(home, load_settings(environ={})) == 540
        assert set(Log(home.log).read()["surface"].to_pylist()) == {None, "tv", "phone"}
        assert update_and_publish(home, chosen).manifest["surfaces"] == ["phone", "tv"]
        watched = [{"item_id": item, "event_type": "play", "timestamp": now - 60 * 10 + n} for n, item in enumerate(("a0", "b0"))]
        client.post("/v1/events", json=[{**event, "user_id": "ann"} for event in watched])
        deadline = time.monotonic() + 20
        while (answer := client.get("/v1/recommend/ann")).json().get("release") != "000002":
            assert answer.status_code == 200, answer.text
            assert time.monotonic() < deadline, "the server did not pick up the new release"
            time.sleep(0.05)
        for surface, target, other in (("tv", "c0", "d0"), ("phone", "d0", "c0")):
            answer = client.get(f"/v1/recommend/ann?k=3&surface={surface}").json()
            assert answer["items"][0]["item_id"] == target
            given = client.post("/v1/recommend", json={"history": watched, "k": 3, "surface": surface}).json()
            assert given["items"] == answer["items"]
            explained = client.get(f"/v1/recommend/ann?k=1&surface={surface}&explain=true").json()["items"][0]
            assert (explained["item_id"], bool(explained["because"])) == (target, True)
            rank = client.get(f"/v1/why-not/ann/{other}?surface={surface}").json()["rank"]
            assert rank > client.get(f"/v1/why-not/ann/{target}?surface={surface}").json()["rank"] == 1
            more = client.get(f"/v1/recommend/ann?k=3&surface={surface}&cursor={answer['next_cursor']}").json()
            assert not {item["item_id"] for item in more["items"]} & {item["item_id"] for item in answer["items"]}
            elsewhere = client.get(f"/v1/recommend/ann?k=3&cursor={answer['next_cursor']}")
            assert elsewhere.status_code == 422
        client.get("/v1/recommend/ann?k=5&surface=tv&explore=0.5").raise_for_status()
        assert archive_home(home, load_settings(environ={})) == 7  # what was shown, and the two that ann watched
        shown = Log(home.log).read().filter(pc.equal(Log(home.log).read()["event_type"], "impression"))
        assert set(shown["surface"].to_pylist()) == {"tv"}
        model = Recommender.load(home.path)
        people = {surface: model.recommend("tv-0", k=3, exclude_seen=False, surface=surface) for surface in ("tv", "phone", None)}
        assert not people["tv"].equals(people["phone"])


def test_evaluation_asks_where_it_was() -> None:
    later = later_events("tv", "phone")
    again = later.set_column(3, later.schema.field(3), pa.array(milliseconds(later) + 100 * HOUR).cast(later.schema.field(3).type))
    again = again.set_column(1, "user_id", pa.array([f"again-{name}" for name in again["user_id"].to_pylist()]))
    table = pa.concat_tables([first_events(), later, again.cast(later.schema)])
    plan = prequential(table, window_seconds=200 * 3600.0, train=1)
    results = replay(plan, methods("naive,heads(least=50)", settings("naive")), ks=(1,), matrix=False)
    found = {name: figures[-1]["recall@1"] for name, figures in ((name, results.per_window(name)) for name in ("naive", "heads(least=50)"))}
    assert found["heads(least=50)"] > found["naive"] + 0.1
