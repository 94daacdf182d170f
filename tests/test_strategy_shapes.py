"""Strategies that change what of the user tower learns: low-rank adapters, further columns."""

import json
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from test_strategies import world
from typer.testing import CliRunner

from recsys import cli
from recsys.batches import Batches, batch
from recsys.catalogue import Catalogue
from recsys.errors import BadInput
from recsys.events import milliseconds
from recsys.home import Home
from recsys.journal import Journal
from recsys.log import Log
from recsys.registry import Registry, Release
from recsys.settings import Model, Settings, Training, load_settings
from recsys.simulate import simulate
from recsys.towers import ENCODERS, Towers, columns
from serving.snapshot import Snapshot
from training import export
from training.candidate import Candidate
from training.fit import fit
from training.job import fit_and_publish, strip_and_publish, update_and_publish
from training.learner import learn
from training.strategies import Composed, Strategy, Update, parse
from training.strategies.adapters import Adapters

DAY = 86_400_000
SHAPES = ["adapters", "columns"]
TINY = {
    "model.dim": 16, "model.blocks": 1, "model.features": 256, "data.history": 12, "training.epochs": 2, "training.negatives": 64,
    "update.epochs": 2, "update.memory": 200,
}  # fmt: skip
STEPS = Training(negatives=100, precision="float32")


def settings(strategy: str, **more: Any) -> Settings:
    return load_settings(overrides={**TINY, "update.strategy": strategy, **more}, environ={})


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Home:
    """A home with 30 simulated days in its log."""
    home = Home(tmp_path_factory.mktemp("world") / "home")
    simulate(home, users=120, items=60, days=30, seed=3)
    return home


@pytest.fixture(scope="module")
def fitted(simulated, tmp_path_factory, exported_once) -> Home:
    """The same with a release of the first 15 days."""
    home = Home(copied(simulated, tmp_path_factory.mktemp("fitted")))
    fit_and_publish(home, settings("naive"), after(home, 15))
    return home


@pytest.fixture
def home(fitted, tmp_path) -> Home:
    """A home of the test's own with that release."""
    return Home(copied(fitted, tmp_path))


def copied(home: Home, there: Path) -> Path:
    subprocess.run(["cp", "-r", str(home.path), str(there / "home")], check=True)
    return there / "home"


def after(home: Home, days: float) -> int:
    return int(milliseconds(Log(home.log).read(columns=["timestamp"]))[0] + days * DAY)


def updated(home: Home, strategy: str, days: float | None = None, **more: Any) -> Release:
    made = update_and_publish(home, settings(strategy, **more), None if days is None else after(home, days))
    assert made is not None
    return made


def weights(release: Release) -> dict[str, torch.Tensor]:
    return load_file(release.file("towers.safetensors"))


def user_tower(release: Release) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in weights(release).items() if name.startswith("users.")}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def readers(towers: Towers) -> torch.Tensor:
    """Return what the user tower says after each event of two stretches, (2, 4, d)."""
    made = batch(world()[2])
    with torch.no_grad():
        return towers.eval().users(towers.items(made.item.flatten()).view(*made.item.shape, -1), made.kind, made.gap)


def taught(expression: str, epochs: int = 3, **changed: Any) -> tuple[Towers, Update, Composed, dict[str, torch.Tensor]]:
    """Run one update over the tiny world; return its towers, the update, the strategy, and the weights before."""
    towers, update, lessons = world()
    update, strategy = replace(update, **changed), parse(expression)
    before = {name: weight.clone() for name, weight in towers.state_dict().items()}
    strategy.prepare(towers, update)
    torch.manual_seed(1)
    learn(towers, Batches(strategy.select(lessons, update), 2, 0), epochs, 0.01, strategy, update, STEPS)
    strategy.settle(towers, update)
    return towers, update, strategy, before


@pytest.mark.parametrize("name", SHAPES)
def test_prepare_leaves_every_answer_bit_for_bit(name):
    towers, update, lessons = world()
    before, state = readers(towers), {name: weight.clone() for name, weight in towers.state_dict().items()}
    strategy = parse(name)
    strategy.prepare(towers, update)
    assert torch.equal(readers(towers), before)
    strategy.mix(batch(lessons), update)
    assert torch.equal(readers(towers), before)
    assert all(torch.equal(towers.state_dict()[name], weight) for name, weight in state.items())


@pytest.mark.parametrize("name", SHAPES)
def test_a_first_fit_is_that_of_naive(name, simulated):
    events, catalogue = Log(simulated.log).read().slice(0, 3000), Catalogue(simulated.items).items()
    made, naive = (fit(events, settings(strategy), catalogue) for strategy in (name, "naive"))
    assert same(made.towers.state_dict(), naive.towers.state_dict())
    assert made.strategy_state == {}


@pytest.mark.parametrize("expression", ["adapters", "replay+ewc(samples=20)+columns"])
def test_three_updates_in_a_row_grow_the_vocabulary_and_read_back_whole(expression, home):
    items = [len(Candidate.load(Registry(home.releases).open()).vocab)]
    for days in (20, 25, None):
        made = updated(home, expression, days)
        read = Candidate.load(made)
        assert same(read.towers.state_dict(), weights(made))
        items.append(len(read.vocab))
    assert items[0] < items[1] < items[2], "rows were added in two of the updates"
    assert made.verify().manifest["parent"] == "000003"


@pytest.mark.parametrize("name", SHAPES)
def test_what_serving_answers_is_what_torch_says(name, home):
    for days in (20, 25):
        made = updated(home, name, days)
    candidate = Candidate.load(made)
    session = onnxruntime.InferenceSession(made.file(export.FILE))
    rng, own = np.random.default_rng(0), candidate.item_vectors()
    for rows, length in ((1, 1), (1, 12), (6, 5)):
        given = {
            "items": own[rng.integers(1, len(own), (rows, length))],
            "kinds": rng.integers(0, 5, (rows, length)),
            "gaps": rng.integers(0, 5, (rows, length)),
            "lengths": rng.integers(1, length + 1, rows),
        }
        with torch.no_grad():
            said = candidate.towers.users.last(*(torch.from_numpy(value) for value in given.values())).numpy()
        np.testing.assert_allclose(session.run(["user"], given)[0], said, atol=1e-5)
    assert Snapshot.load(made).id == "000003"


def test_a_low_rank_product_and_its_gradients_by_hand():
    """W0 = 0 (2, 2), scale 3, down = [1, 2], up = [0, 0]^T; the loss has gradient G = [[1, 0], [2, 1]] in W.

    So dL/ddown = scale * up^T G = 0, and dL/dup = scale * G down^T = 3 * [1, 4]. With up = [1, -1]^T: W = 3 * [[1, 2], [-1, -2]].
    """
    towers, update, lessons = world()
    strategy = parse("adapters(rank=1, alpha=3)")
    strategy.prepare(towers, update)
    one = strategy.parts[0].pairs[0]  # type: ignore[attr-defined]
    one.weight.data, one.before = torch.zeros(2, 2), torch.zeros(2, 2)
    one.down.data, one.up.data = torch.tensor([[1.0, 2.0]]), torch.zeros(2, 1)
    for up, down_grad in (([[0.0], [0.0]], [[0.0, 0.0]]), ([[1.0], [-1.0]], [[-3.0, -3.0]])):
        one.up.data = torch.tensor(up)
        one.weight.grad = torch.tensor([[1.0, 0.0], [2.0, 1.0]])
        strategy.project(towers, update)
        assert one.weight.grad is None
        assert one.up.grad.tolist() == [[3.0], [12.0]]
        assert one.down.grad.tolist() == down_grad
    strategy.mix(batch(lessons), update)
    assert one.weight.tolist() == [[3.0, 6.0], [-3.0, -6.0]]


def test_the_pairs_take_the_gradient_that_autograd_gives_a_product_beside_the_matrix():
    towers, update, lessons = world()
    strategy = parse("adapters(rank=2, alpha=6)")
    strategy.prepare(towers, update)
    pairs = strategy.parts[0].pairs  # type: ignore[attr-defined]
    for pair in pairs:
        torch.nn.init.normal_(pair.up, std=0.1)
    strategy.mix(batch(lessons), update)
    update.objective(towers, batch(lessons)).backward()
    strategy.project(towers, update)

    beside = {f"users.{pair.name}": pair.before + 3 * pair.up @ pair.down for pair in pairs}  # in the graph, as LoRA writes it
    rest = {name: weight.detach() for name, weight in towers.named_parameters() if name not in beside}
    rng = torch.get_rng_state()

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.towers = towers

        def forward(self):
            return update.objective(self.towers, batch(lessons))

    torch.set_rng_state(rng)
    task = {f"towers.{name}": weight for name, weight in {**rest, **beside}.items()}
    loss = torch.func.functional_call(Loss(), task, ())
    wanted = torch.autograd.grad(loss, [side for pair in pairs for side in (pair.down, pair.up)])
    found = [side.grad for pair in pairs for side in (pair.down, pair.up)]
    assert any(grad.abs().max() > 1e-4 for grad in wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


class _Halves(Strategy):
    """Halves every gradient of the tower, and the way its matrices have gone."""

    def project(self, towers, update):
        for weight in towers.users.parameters():
            if weight.grad is not None:
                weight.grad /= 2

    def settle(self, towers, update):
        anchors = dict(update.parent.named_parameters())
        with torch.no_grad():
            for name, weight in towers.named_parameters():
                weight.lerp_(anchors[name], 0.5)


@pytest.mark.parametrize("turned", [False, True])
def test_who_edits_gradients_and_resting_places_goes_together_with_adapters_in_any_order(turned):
    found = {}
    for name, strategy in (("alone", [Adapters()]), ("both", [Adapters(), _Halves()][:: -1 if turned else 1])):
        towers, update, lessons = world()
        composed = Composed(strategy)
        composed.prepare(towers, update)
        pairs = next(part for part in strategy if isinstance(part, Adapters)).pairs
        for pair in pairs:
            torch.nn.init.ones_(pair.up)
        composed.mix(batch(lessons), update)
        update.objective(towers, batch(lessons)).backward()
        composed.project(towers, update)
        grads = [side.grad.clone() for pair in pairs for side in (pair.up, pair.down)]
        composed.settle(towers, update)
        start = update.parent.users.encoder.blocks[0].query.weight
        found[name] = [*grads, towers.users.encoder.blocks[0].query.weight - start]
    assert all(one.abs().max() > 0 for one in found["alone"])
    for one, half in zip(found["alone"], found["both"], strict=True):
        torch.testing.assert_close(half, one / 2, rtol=1e-4, atol=1e-7)


def test_what_is_learned_in_a_matrix_is_a_product_of_that_rank_and_the_rest_of_the_tower_stays_bit_for_bit():
    towers, _, strategy, before = taught("adapters(rank=2, alpha=4)")
    matrices = 0
    for name, weight in towers.users.named_parameters():
        moved, kept = weight.detach() - before[f"users.{name}"], strategy.state()
        if f"adapters/down/{name}" not in kept:
            assert torch.equal(weight, before[f"users.{name}"]), name
            continue
        matrices += 1
        assert torch.linalg.matrix_rank(moved, atol=1e-5) == 2, name
        product = 2 * kept[f"adapters/up/{name}"] @ kept[f"adapters/down/{name}"]
        torch.testing.assert_close(moved, product, atol=1e-6, rtol=1e-4)
    assert matrices == 5
    assert not torch.equal(towers.items.ids.weight, before["items.ids.weight"])
    assert not hasattr(towers, "adapters")
    assert towers.state_dict().keys() == before.keys()
    assert all(weight.requires_grad for weight in towers.parameters())


def test_every_setting_of_the_adapters_changes_what_is_learned():
    plain = taught("adapters")[0].state_dict()
    for other in ("adapters(rank=3)", "adapters(alpha=2)", "adapters(items=False)"):
        assert not same(taught(other, known=4)[0].state_dict(), plain), other


@pytest.mark.parametrize("encoder", ["transformer", "mean", "gru"])
def test_every_encoder_has_matrices_for_adapters(encoder):
    torch.manual_seed(0)
    shape = Model(dim=8, heads=2, blocks=1, dropout=0.0, features=16, encoder=encoder)
    towers = Towers(shape, world()[0].items.features(), length=5)
    _, update, lessons = world()
    update = replace(update, parent=Towers(shape, world()[0].items.features(), length=5))
    update.parent.load_state_dict(towers.state_dict())
    strategy, before = parse("adapters(rank=2)"), {name: weight.clone() for name, weight in towers.state_dict().items()}
    strategy.prepare(towers, update)
    learn(towers, Batches(lessons, 2, 0), 3, 0.01, strategy, update, STEPS)
    strategy.settle(towers, update)
    moved = {name for name, weight in towers.state_dict().items() if not torch.equal(weight, before[name])}
    names = {f"users.{key.removeprefix('adapters/up/')}" for key in strategy.state() if key.startswith("adapters/up/")}
    assert {name for name in moved if name.startswith("users.")} == names
    assert len(names) == {"transformer": 5, "mean": 6, "gru": 2}[encoder]


def test_old_items_stay_where_they_are_when_only_new_ones_are_to_learn():
    towers, _, _, before = taught("adapters(items=False)", known=4)
    assert torch.equal(towers.items.content.weight, before["items.content.weight"])
    assert torch.equal(towers.items.ids.weight[:4], before["items.ids.weight"][:4])
    assert not torch.equal(towers.items.ids.weight[4:], before["items.ids.weight"][4:])


def test_old_item_vectors_stay_bit_for_bit_through_a_real_update(home):
    parent = Candidate.load(Registry(home.releases).open())
    made = Candidate.load(updated(home, "replay+adapters(items=False)"))
    known = len(parent.vocab)
    assert len(made.vocab) > known
    assert torch.equal(made.towers.items.ids.weight[:known], parent.towers.items.ids.weight)
    assert torch.equal(made.towers.items.content.weight, parent.towers.items.content.weight)


def test_the_spring_of_ewc_holds_what_the_adapters_learn():
    free = taught("adapters")[0]
    towers, update, lessons = world()
    strategy = parse("adapters+ewc(strength=1e6)")
    strategy.parts[1].fisher = {name: torch.ones(weight.shape) for name, weight in towers.named_parameters()}  # type: ignore[attr-defined]
    before = {name: weight.clone() for name, weight in towers.users.named_parameters()}
    strategy.prepare(towers, update)
    torch.manual_seed(1)
    learn(towers, Batches(lessons, 2, 0), 3, 0.01, strategy, update, STEPS)
    strategy.settle(towers, update)

    def way(towers: Towers) -> float:
        return sum(float((weight - before[name]).detach().square().sum()) for name, weight in towers.users.named_parameters())

    assert 0 < way(towers) < way(free) / 10


def test_the_fisher_after_adapters_has_the_whole_tower():
    towers, update, strategy, _ = taught("adapters+ewc(samples=2)")
    strategy.finish(towers, world()[2], update)
    found = strategy.parts[1].fisher  # type: ignore[attr-defined]
    assert found.keys() == dict(towers.named_parameters()).keys()
    assert found["users.encoder.blocks.0.query.weight"].abs().max() > 0
    assert found["users.encoder.norm.bias"].abs().max() > 0


def test_stripping_brings_the_base_back_bit_for_bit_after_three_updates(home):
    registry = Registry(home.releases)
    first = registry.open()
    for days in (20, 25, None):
        last = updated(home, "replay+ewc(samples=20)+adapters", days)
        assert not same(user_tower(last), user_tower(first))
        assert same({key: value for key, value in state(last).items() if "/base/" in key}, bases(first))
    made = strip_and_publish(home)
    assert (made.id, made.manifest["parent"], registry.current()) == ("000005", "000004", "000005")
    assert same(user_tower(made), user_tower(first))
    assert made.file(export.FILE).read_bytes() == first.file(export.FILE).read_bytes()
    rest = [{name: weight for name, weight in weights(release).items() if not name.startswith("users.")} for release in (made, last)]
    assert same(*rest)
    assert made.position == last.position
    assert not [key for key in state(made) if key.startswith("adapters/")]
    assert [key for key in state(made) if key.startswith("ewc/")]
    assert update_and_publish(home, settings("adapters")) is None, "nothing that was learned is to be learned again"
    assert [line["what"] for line in Journal(home.job).read()] == ["stripped"]
    Snapshot.load(made)


def bases(release: Release) -> dict[str, torch.Tensor]:
    return {f"adapters/base/{name.removeprefix('users.')}": weight for name, weight in user_tower(release).items()}


def state(release: Release) -> dict[str, torch.Tensor]:
    return load_file(release.file("strategy/state.safetensors"))


def test_a_release_says_what_its_own_update_has_added(home):
    first, second = updated(home, "adapters(rank=4)", 20), updated(home, "adapters(rank=4)")
    for name, weight in user_tower(second).items():
        name = name.removeprefix("users.")
        if f"adapters/up/{name}" in state(second):
            kept = state(second)
            product = kept["adapters/scale"] * kept[f"adapters/up/{name}"] @ kept[f"adapters/down/{name}"]
            torch.testing.assert_close(weight - user_tower(first)[f"users.{name}"], product, atol=1e-6, rtol=1e-4)


def test_the_mean_of_the_last_updates_does_not_bring_adapters_back(home):
    base = Registry(home.releases).open()
    adapted = updated(home, "adapters+soup", 20)
    trained = {name for name in state(adapted) if name.startswith("soup/")}
    assert {name.split("/")[2].partition(".")[0] for name in trained} >= {"users", "items"}
    made = strip_and_publish(home)
    assert {name for name in state(made) if name.startswith("soup/")} == {name for name in trained if "/users." not in name}
    after = updated(home, "soup")
    alone = state(after)["soup/1/users.encoder.norm.weight"]
    assert torch.equal(user_tower(after)["users.encoder.norm.weight"], alone), "of the tower the mean begins anew"
    assert same(user_tower(made), user_tower(base))


def test_an_update_of_another_strategy_makes_a_new_base(home):
    updated(home, "adapters", 20)
    between = updated(home, "naive", 25)
    with pytest.raises(BadInput, match="release 000003: it has no adapters to take away, for it was not made by them or is stripped"):
        strip_and_publish(home)
    updated(home, "adapters")
    assert same(user_tower(strip_and_publish(home)), user_tower(between))


def test_a_release_without_adapters_cannot_be_stripped_and_says_what_makes_them(home):
    with pytest.raises(BadInput, match=r"release 000001: it has no adapters to take away.* recsys update --strategy adapters"):
        strip_and_publish(home)
    assert Registry(home.releases).ids() == ["000001"]


def test_strip_from_the_shell_takes_an_older_release_too_and_learning_goes_on_from_there(home):
    def recsys(words: str) -> Any:
        done = CliRunner().invoke(cli.app, [*words.split(), "--home", str(home.path), "--json"], catch_exceptions=False)
        assert done.exit_code == 0
        return json.loads(done.stdout)

    first, second = updated(home, "adapters", 20), updated(home, "adapters")
    made = recsys(f"releases strip {first.id}")
    assert (made["release"], made["parent"], made["why"]) == ("000004", second.id, "000002 without its adapters")
    assert [release["id"] for release in recsys("releases")["releases"]] == ["000001", "000002", "000003", "000004"]
    registry = Registry(home.releases)
    assert same(user_tower(registry.open("000004")), user_tower(registry.open("000001")))
    again = updated(home, "adapters")
    assert again.manifest["metrics"]["events"] == second.manifest["metrics"]["events"]
    assert "release 000004 is live (was 000003): release 000002 without its adapters" in CliRunner().invoke(
        cli.app, ["job", "log", "--home", str(home.path)], env={"COLUMNS": "200"}
    ).stdout  # fmt: skip


def test_options_between_releases_and_strip_are_refused_not_ignored(home):
    with pytest.raises(BadInput, match="options stand behind the whole command: recsys releases strip"):
        CliRunner().invoke(cli.app, ["releases", "--home", str(home.path), "strip"], catch_exceptions=False)


# columns


def shaped(encoder: str, columns: int = 1, told: bool = True) -> Towers:
    """Return towers with some columns which, if `told`, do count."""
    torch.manual_seed(3)
    shape = Model(dim=8, heads=2, blocks=1, dropout=0.2, features=16, encoder=encoder)
    towers = Towers(shape, world()[0].items.features(), length=5, columns=columns).eval()
    for column in towers.users.columns:
        if told:
            torch.nn.init.normal_(column.out.weight)
    return towers


def read(rows: int = 4, length: int = 5) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    items = torch.nn.functional.normalize(torch.randn(rows, length, 8), dim=-1)
    return items, torch.randint(0, 5, (rows, length)), torch.randint(0, 5, (rows, length)), torch.randint(1, length + 1, (rows,))


def test_a_tower_without_columns_has_nothing_of_them():
    assert not [name for name in world()[0].state_dict() if "column" in name]
    assert (columns(world()[0].state_dict()), columns(shaped("gru", 3).state_dict()), columns([])) == (1, 3, 1)


def test_a_lateral_connection_by_hand():
    """Encoders that double, and triple, what they read; lateral swaps neighbours, out is 10 times.

    x = (1, 2, 0, 0): the first says (2, 4, ..), the second reads (1, 2, ..) + (4, 2, ..) = (5, 4, ..) and says (15, 12, ..).
    Together that is (152, 124, 0, 0).
    """

    class Times(torch.nn.Module):
        def __init__(self, by: float):
            super().__init__()
            self.by = by

        def forward(self, x, items):
            return self.by * x

        def last(self, x, items, lengths):
            return self.by * x[torch.arange(len(x)), lengths - 1]

    tower = Towers(Model(dim=4, heads=1, blocks=1, features=16), [[]], length=3, columns=2).eval().users
    column = tower.columns[0]
    tower.encoder, column.encoder = Times(2.0), Times(3.0)
    column.lateral.weight.data, column.out.weight.data = torch.eye(4)[[1, 0, 3, 2]], 10 * torch.eye(4)
    tower._read = lambda items, kinds, gaps: items
    x = torch.tensor([[[9.0, 9.0, 9.0, 9.0], [1.0, 2.0, 0.0, 0.0]]])
    wanted = torch.nn.functional.normalize(torch.tensor([152.0, 124.0, 0.0, 0.0]), dim=0)
    torch.testing.assert_close(tower(x, None, None)[0, 1], wanted)
    torch.testing.assert_close(tower.last(x, None, None, torch.tensor([2]))[0], wanted)


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_a_third_column_reads_both_before_it_and_changes_nothing_at_first(encoder):
    towers = shaped(encoder, 2)
    items, kinds, gaps, _ = read()
    before = towers.users(items, kinds, gaps)
    towers.users.widen()
    assert torch.equal(towers.users(items, kinds, gaps), before)
    newest = towers.users.columns[-1]
    assert newest.lateral.weight.shape == (8, 16)
    torch.nn.init.normal_(newest.out.weight)
    after = towers.users(items, kinds, gaps)
    assert not torch.allclose(after, before)
    for half in (slice(0, 8), slice(8, 16)):
        changed = newest.lateral.weight.detach().clone()
        with torch.no_grad():
            newest.lateral.weight[:, half] = 0
            assert not torch.allclose(towers.users(items, kinds, gaps), after)
            newest.lateral.weight.copy_(changed)


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_with_columns_too_serving_computes_what_training_does_and_nobody_knows_the_future(encoder):
    tower = shaped(encoder, 3).users
    items, kinds, gaps, lengths = read()
    everywhere = tower(items, kinds, gaps)
    torch.testing.assert_close(tower.last(items, kinds, gaps, lengths), everywhere[torch.arange(4), lengths - 1])
    items[:, 3:] = 0
    torch.testing.assert_close(tower(items, kinds, gaps)[:, :3], everywhere[:, :3])


@pytest.mark.parametrize("encoder", ["transformer", "gru"])
def test_the_onnx_graph_has_the_columns_and_is_made_anew_when_one_is_added(encoder, tmp_path):
    export.user_tower(shaped(encoder).users, tmp_path / "one.onnx")
    tower = shaped(encoder, 2).users
    export.user_tower(tower, tmp_path / "two.onnx", parent=tmp_path / "one.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "two.onnx")
    for rows, length in ((1, 1), (6, 3)):
        given = dict(zip(("items", "kinds", "gaps", "lengths"), read(rows, length), strict=True))
        answer = session.run(["user"], {name: value.numpy() for name, value in given.items()})[0]
        np.testing.assert_allclose(answer, tower.last(*given.values()).detach().numpy(), atol=1e-5)


def test_the_old_columns_stay_bit_for_bit_and_the_new_one_learns():
    towers, _, _, before = taught("columns")
    after = towers.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items() if name.startswith("users."))
    assert columns(after) == 2
    assert after["users.columns.0.out.weight"].abs().max() > 0
    assert not torch.equal(after["items.ids.weight"], before["items.ids.weight"])
    assert all(weight.requires_grad for weight in towers.parameters())


def test_a_full_tower_trains_its_newest_column_further_and_no_other(home):
    made = [updated(home, "columns(most=3)", days) for days in (18, 21, 25, None)]
    assert [columns(weights(release)) for release in made] == [2, 3, 3, 3]
    for older, newer in pairwise(made):
        one, other = user_tower(older), user_tower(newer)
        moved = {name for name, weight in one.items() if not torch.equal(weight, other[name])}
        if columns(one) == columns(other):
            assert moved == {name for name in one if name.startswith("users.columns.1.")}
        else:
            assert moved == set()


def test_another_strategy_goes_on_with_the_columns_that_there_are(home):
    widened = updated(home, "columns", 20)
    plain = updated(home, "replay+ewc(samples=20)")
    assert columns(weights(plain)) == 2
    moved = [name for name, weight in user_tower(widened).items() if not torch.equal(weight, user_tower(plain)[name])]
    assert {name.split(".")[1] for name in moved} >= {"encoder", "columns", "place"}


def test_adapters_stand_beside_the_matrices_of_columns_too(home):
    widened = updated(home, "columns", 20)
    updated(home, "adapters")
    assert "adapters/up/columns.0.encoder.blocks.0.query.weight" in state(Registry(home.releases).open())
    assert same(user_tower(strip_and_publish(home)), user_tower(widened))
