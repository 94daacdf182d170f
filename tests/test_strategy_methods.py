"""Each method's mathematics on cases that can be worked out by hand."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from test_batches import without_wishes
from test_strategies import world

from recsys.batches import Batch, Examples, batch
from recsys.losses import Candidates, NextItem
from recsys.sessions import N_GAPS
from recsys.towers import Towers
from training.memory import Memory
from training.strategies import agem, generate, parse, surprise
from training.strategies.ader import Ader
from training.strategies.agem import AGem, Gem, nearest_allowed
from training.strategies.answers import confusion, divergence, logits, readers
from training.strategies.average import Ema, Soup
from training.strategies.base import Update
from training.strategies.der import Der
from training.strategies.distill import Distill
from training.strategies.ewc import EWC
from training.strategies.generate import Generate
from training.strategies.gradients import add, gradient, gradient_of, product
from training.strategies.herding import exemplars, herded
from training.strategies.importance import DAMPING, Path, sensitivity
from training.strategies.partial import Partial
from training.strategies.replay import Replay
from training.strategies.surprise import Surprise

# What is remembered


def test_the_order_of_herding_is_what_paper_says() -> None:
    # The mean is 3. 2 is nearest; with 2, 1 brings the mean to 1.5 (0 to 1, 9 to 5.5); with 2 and 1, 9 brings it to 4, 0 to 1.
    assert herded(np.array([[0.0], [1.0], [2.0], [9.0]]), 4).tolist() == [2, 1, 3, 0]
    assert herded(np.array([[0.0], [1.0], [2.0], [9.0]]), 2).tolist() == [2, 1]


def remembering(n: int, items: np.ndarray | None = None) -> tuple[Towers, Update, Examples]:
    """The small world with a memory of `n` examples of two events, the last of which is of `items`."""
    towers, update, lessons = world()
    last = np.arange(n) % 5 + 1 if items is None else items
    item = np.stack([np.ones(n), last], axis=1).astype(np.int32).ravel()
    zeros, weight = np.zeros(2 * n, np.int8), np.tile(np.array([0, 1], np.float32), n)
    past = without_wishes(np.arange(0, 2 * n + 1, 2), item, zeros, zeros, weight, np.full(2 * n, -1, np.int16))
    past = replace(past, whose=np.arange(n, dtype=np.uint64))
    return towers, replace(update, memory=Memory(n, past, np.zeros(n)), known=6, number=1), lessons


def test_of_an_item_that_came_more_often_more_exemplars_are_kept() -> None:
    _, update, _ = remembering(100, np.repeat([1, 2], [80, 20]))
    kept = exemplars(update, 10)
    assert np.bincount(kept.item[1::2]).tolist() == [0, 8, 2]
    assert len(exemplars(update, 1000)) == 100


def drawn(replay: Replay, update: Update, times: int = 200) -> np.ndarray:
    """Return how often each memory was replayed, beside a batch of two, by the item it is of or its place."""
    replay.prepare(update.parent, update)  # type: ignore[arg-type]
    rows = [replay.mix(batch(update.memory.examples.take(np.array([0, 1]))), update).item.shape[0] for _ in range(2)]
    assert rows == [4, 4]
    found = np.zeros(len(update.memory))
    taken = Examples.take

    def count(examples: Examples, which: np.ndarray) -> Examples:
        np.add.at(found, examples.whose[which].astype(int), 1)
        return taken(examples, which)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Examples, "take", count)
        for _ in range(times):
            replay.mix(batch_of_fifty, update)
    return found / found.sum()


long, heavy = torch.zeros((50, 2), dtype=torch.int64), torch.zeros(50, 2)
batch_of_fifty = Batch(**{field.name: heavy if field.name == "weight" else long for field in fields(Batch)})


def test_memories_are_drawn_as_each_way_says() -> None:
    _, update, _ = remembering(100)
    update.parent = replace_rows(update)
    assert drawn(Replay(), update).std() < 0.002
    recent = drawn(Replay(by="recent"), update)
    assert recent[75:].sum() / recent[50:75].sum() == pytest.approx(2, rel=0.1), "a quarter of the past later it counts half"
    by_loss = drawn(Replay(by="loss"), update)
    wrong = confusion(update.parent, batch(update.memory.examples), torch.arange(1, 6), update).detach().numpy()
    assert by_loss[wrong > np.quantile(wrong, 0.7)].sum() > 2 * by_loss[wrong < np.quantile(wrong, 0.3)].sum()
    assert (drawn(Replay(size=10), update) > 0).sum() == 10
    assert (drawn(Replay(by="herding", size=20), update) > 0).sum() == 20


def replace_rows(update: Update) -> Towers:
    """Return the parent with item rows far from each other, so that it is surely wrong about some."""
    assert update.parent is not None
    with torch.no_grad():
        update.parent.items.ids.weight.normal_(std=1.0, generator=torch.Generator().manual_seed(1))
    return update.parent


# Distillation


def test_the_divergence_is_what_paper_says() -> None:
    # Taught (1/4, 3/4) and says (1/2, 1/2): KL = 1/4 log 1/2 + 3/4 log 3/2.
    teacher, student = torch.log(torch.tensor([[1.0, 3.0], [1.0, 1.0]])), torch.zeros(2, 2)
    kl = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert divergence(teacher, student, torch.tensor([1.0, 0.0])).item() == pytest.approx(kl, rel=1e-5)
    assert divergence(teacher, student, torch.tensor([1.0, 3.0])).item() == pytest.approx(kl / 4, rel=1e-5)
    # At temperature 2 the teacher says (1, sqrt 3) / (1 + sqrt 3), and the loss counts four times.
    p = np.array([1, math.sqrt(3)]) / (1 + math.sqrt(3))
    assert divergence(teacher, student, torch.tensor([1.0, 0.0]), 2.0).item() == pytest.approx(4 * (p * np.log(2 * p)).sum(), rel=1e-5)


def test_distillation_asks_for_old_items_alone_and_nothing_of_who_has_not_moved() -> None:
    towers, update, lessons = remembering(4)
    update.known = 4
    assert Distill().penalties(towers, batch(lessons), update)["distill"].item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        towers.items.ids.weight[4:] += 5  # new items
    history = replace(batch(lessons), item=batch(lessons).item.clamp(max=3))
    assert Distill().penalties(towers, history, update)["distill"].item() == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        towers.items.ids.weight[2] += 5
    one, four = (Distill(weight).penalties(towers, history, update)["distill"].item() for weight in (1.0, 4.0))
    assert one > 0.01
    assert four == pytest.approx(4 * one, rel=1e-4)
    assert Distill().penalties(towers, history, replace(update, parent=None)) == {}


def test_ader_s_weight_follows_what_is_new() -> None:
    ader = Ader(weight=2.0)
    ader.exemplars = remembering(25)[1].memory.examples
    assert ader.adapted(items=10, known=5, new=100) == pytest.approx(2 * math.sqrt(4 / 9 * 25 / 100))
    towers, update, lessons = remembering(25)
    update.learned = len(lessons)
    ader.prepare(towers, update)
    with torch.no_grad():
        towers.items.ids.weight[2] += 5
    torch.manual_seed(0)
    one, four = (
        ader.penalties(towers, batch(lessons), replace(update, learned=n, rng=np.random.default_rng(0)))["ader"].item() for n in (400, 100)
    )
    assert four == pytest.approx(2 * one)
    assert one > 0


def test_the_scores_are_those_of_the_loss_and_how_wrong_they_are_is_by_hand() -> None:
    towers, update, lessons = world()
    update.objective.log_share[0, 2] = 1.5
    made, rows = batch(lessons), torch.arange(1, 6)
    where = made.weight > 0
    found = logits(towers, made, rows, update, where)
    users = towers.users(towers.items(made.item.flatten()).view(*made.item.shape, -1), made.kind, made.gap)[where]
    expected = towers.scale() * users @ towers.items(rows).T + towers.popularity * update.objective.log_share[0, rows]
    torch.testing.assert_close(found, expected)
    each = torch.nn.functional.cross_entropy(expected, made.target[where] - 1, reduction="none")
    wrong = confusion(towers, made, torch.tensor([1, 2, 3, 4, 5]), update)
    torch.testing.assert_close(wrong, torch.stack([each[:2].mean(), each[2:].mean()]))
    torch.testing.assert_close(update.objective(towers, made), (each * made.weight[where]).sum() / made.weight.sum())


def test_readers_are_the_people_before_their_last_event() -> None:
    towers, _, lessons = world()
    vectors, item = readers(towers, lessons)
    assert item.tolist() == [3, 2]
    made = batch(lessons)
    users = towers.users(towers.items(made.item.flatten()).view(*made.item.shape, -1), made.kind, made.gap)
    np.testing.assert_allclose(vectors, torch.stack([users[0, 1], users[1, 2]]).detach().numpy(), atol=1e-6)


# Projections


def test_products_and_sums_of_gradients_are_those_of_vectors() -> None:
    towers, update, lessons = world()
    one = gradient_of(towers, batch(lessons.take(np.array([0]))), update.objective)
    other = gradient_of(towers, batch(lessons.take(np.array([1]))), update.objective)
    assert all(p.grad is None for p in towers.parameters()), "what the towers hold stays"
    dense = {name: one[name].to_dense().flatten() for name in one}, {name: other[name].to_dense().flatten() for name in other}
    assert one.keys() == other.keys()
    assert product(one, other) == pytest.approx(sum((dense[0][n] @ dense[1][n]).item() for n in one), rel=1e-4, abs=1e-6)
    add(towers, one, 2.0)
    add(towers, other, -0.5)
    for name, p in towers.named_parameters():
        if name in one:
            assert p.grad is not None
            torch.testing.assert_close(p.grad.to_dense().flatten(), 2 * dense[0][name] - 0.5 * dense[1][name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["agem", "gem"])
def test_what_the_memory_is_asked_does_not_change_what_the_task_knows_of_its_targets(name: str) -> None:
    towers, update, lessons = remembering(40)
    update.objective = NextItem(Candidates(torch.ones(6), 1, 0, seed=0), torch.zeros(2, 6))
    (strategy,) = parse(name).parts
    strategy.prepare(towers, update)
    update.objective(towers, batch(lessons)).backward()
    counts, touched = update.objective.candidates.counts.clone(), update.objective.touched
    strategy.project(towers, update)
    assert torch.equal(update.objective.candidates.counts, counts)
    assert update.objective.touched is touched
    mine = strategy.objective.candidates  # type: ignore[attr-defined]
    assert mine.counts[1:].sum() > 40 + 1
    assert not mine.full


def test_a_gem_takes_out_what_the_memory_speaks_against(monkeypatch: pytest.MonkeyPatch) -> None:
    # The memory's gradient is (2, 0), the step's (-1, 1), at 135 degrees: what is left is (0, 1). At 45 degrees it stays as it is.
    towers, update, _ = world()
    monkeypatch.setattr(agem, "gradient_of", lambda *_: {"log_scale": torch.tensor(2.0)})
    for step, left in (((-1.0, 1.0), (0.0, 1.0)), ((1.0, 1.0), (1.0, 1.0))):
        towers.log_scale.grad, towers.popularity.grad = (torch.tensor(value) for value in step)
        strategy = AGem()
        strategy.prepare(towers, update)
        strategy.project(towers, update)
        assert (towers.log_scale.grad.item(), towers.popularity.grad.item()) == pytest.approx(left)


@pytest.mark.parametrize("strategy", [AGem(samples=50), Gem(parts=2, samples=50, margin=0.0)])
def test_after_projection_the_memory_speaks_against_nothing(strategy: AGem | Gem) -> None:
    towers, update, lessons = remembering(40)
    made = batch(lessons)
    update.objective(towers, replace(made, target=(made.target % 5) + 1)).backward()
    seen: list[dict[str, torch.Tensor]] = []

    def kept(*args: object) -> dict[str, torch.Tensor]:
        seen.append({name: -grad for name, grad in gradient(towers).items()} if not seen else gradient_of(*args))  # type: ignore[arg-type]
        return seen[-1]

    strategy.prepare(towers, update)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agem, "gradient_of", kept)
        strategy.project(towers, update)
    length = math.sqrt(product(seen[0], seen[0]))
    assert all(product(gradient(towers), each) > -1e-4 * length * math.sqrt(product(each, each)) for each in seen)


def test_gem_s_program_has_the_answers_of_paper() -> None:
    assert nearest_allowed(np.eye(1), np.array([-1.0])).tolist() == pytest.approx([1.0])
    assert nearest_allowed(np.eye(2), np.array([-1.0, 0.5])).tolist() == pytest.approx([1.0, 0.0])
    # m1 = (1, 0), m2 = (1, 1), g = (-1, -1): the nearest that neither speaks against is 0, so v1 m1 + v2 m2 = (1, 1).
    assert nearest_allowed(np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([-1.0, -2.0])).tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    assert nearest_allowed(np.eye(1), np.array([-1.0]), margin=0.5).tolist() == pytest.approx([1.5])
    assert nearest_allowed(np.eye(2), np.array([-1.0, 0.2]), margin=0.5).tolist() == pytest.approx([1.5, 0.5])  # of every part


# What the towers said then


def test_dark_replay_is_the_squared_way_of_the_logits() -> None:
    towers, update, lessons = remembering(4)
    der = Der(weight=0.5, size=10, items=3)
    der.finish(towers, lessons, update)
    assert len(der.examples) == 2
    assert der.penalties(towers, batch(lessons), update)["der"].item() == pytest.approx(0, abs=1e-6)
    der.logits = der.logits + 2
    assert der.penalties(towers, batch(lessons), update)["der"].item() == pytest.approx(0.5 * 4, rel=1e-4)
    der.finish(towers, lessons, update)
    assert len(der.examples) == len(der.keys) == len(der.rows) == len(der.logits) == 4


def test_the_dark_store_is_a_uniform_sample_of_bounded_size() -> None:
    towers, update, _ = remembering(60)
    kept = np.zeros(60)
    for _ in range(30):
        der = Der(size=20, items=2)
        der.finish(towers, update.memory.examples.take(np.arange(30)), update)
        der.finish(towers, update.memory.examples.take(np.arange(30, 60)), update)
        assert len(der.examples) == 20
        kept[der.examples.whose.astype(int)] += 1
    assert kept[:30].sum() == pytest.approx(300, rel=0.15)


# How much an example counts


def test_what_surprised_counts_more_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    _, update, lessons = remembering(4)
    made = batch(lessons.take(np.array([0, 0, 0])))
    monkeypatch.setattr(surprise, "confusion", lambda *_: torch.tensor([1.0, 4.0, 16.0]))  # the mean is 7
    weighed = Surprise(strength=0.5, most=3.0).weights(made, update)
    by_row = weighed.weight.sum(1)
    assert by_row.sum().item() == pytest.approx(made.weight.sum().item())
    assert (by_row[1] / by_row[0]).item() == pytest.approx(2)
    assert (by_row[2] / by_row[1]).item() == pytest.approx(2)
    # 1, 16, 256 under the bounds: a third, a third, and what is left of three
    weighed = Surprise(strength=2.0, most=3.0).weights(made, update)
    assert (weighed.weight.sum(1) / made.weight.sum(1)).tolist() == pytest.approx([1 / 3, 1 / 3, 7 / 3], rel=1e-3)
    assert Surprise().weights(made, replace(update, parent=None)) is made
    for losses in ([0.3] * 31 + [8.0], [0.01] * 28 + [6.0] * 4, [0.0] * 5 + [1.0], [2.0] * 4):
        many = batch(lessons.take(np.zeros(len(losses), np.int64)))
        monkeypatch.setattr(surprise, "confusion", lambda *_, losses=losses: torch.tensor(losses))
        factors = Surprise(strength=2.0).weights(many, update).weight.sum(1) / many.weight.sum(1)
        assert 1 / 3 - 1e-4 < factors.min() <= factors.max() < 3 + 1e-4
        assert factors.mean().item() == pytest.approx(1, rel=1e-3)


def test_each_person_has_a_turn_and_only_one() -> None:
    _, update, _ = remembering(90)
    turns = [Partial(3).select(update.memory.examples, replace(update, number=number)).whose.tolist() for number in (1, 2, 3, 4)]
    assert sorted(turns[0] + turns[1] + turns[2]) == list(range(90))
    assert turns[3] == turns[0]


# Where the weights come to rest


def test_averages_are_means_and_new_items_keep_what_they_learned() -> None:
    towers, update, _ = remembering(4)
    update.known = 4
    parent = dict(update.parent.named_parameters())  # type: ignore[union-attr]
    trained = {name: p.detach() + 1 for name, p in towers.named_parameters()}
    towers.load_state_dict(trained)
    Ema(decay=0.25).settle(towers, update)
    for name, p in towers.named_parameters():
        expected = parent[name] + 0.75
        if name == "items.ids.weight":
            torch.testing.assert_close(p[4:], trained[name][4:])
            p, expected = p[:4], expected[:4]
        torch.testing.assert_close(p, expected)


def test_a_soup_is_the_mean_of_the_last_that_know_an_item() -> None:
    towers, update, _ = remembering(4)
    soup = Soup(last=2)
    start = {name: p.detach().clone() for name, p in towers.named_parameters()}
    earlier = {name: p[:4] if name == "items.ids.weight" else p for name, p in start.items()}  # two items ago
    soup.load({f"0/{name}": p - 9 for name, p in earlier.items()} | {f"1/{name}": p for name, p in earlier.items()})
    towers.load_state_dict({name: p + 2 for name, p in start.items()})
    soup.settle(towers, update)
    for name, p in towers.named_parameters():
        if name == "items.ids.weight":
            torch.testing.assert_close(p[4:], start[name][4:] + 2)
            torch.testing.assert_close(p[:4], start[name][:4] + 1)
        else:
            torch.testing.assert_close(p, start[name] + 1)
    assert len(soup.trained) == 2
    torch.testing.assert_close(soup.trained[1]["log_scale"], start["log_scale"] + 2)


# What mattered


def test_what_a_weight_took_away_from_the_loss_on_its_way() -> None:
    # Two steps: gradient -2, a move of 0.5; gradient -1, a move of 0.25. It took away 1.25, and went 0.75.
    towers, _, _ = world()
    path = Path()
    start = towers.log_scale.item()
    for slope, way in ((-2.0, 0.5), (-1.0, 0.75)):
        towers.log_scale.grad = torch.tensor(slope)
        rows, values = torch.tensor([[2, 2]]), torch.full((2, 8), slope / 2)
        towers.items.ids.weight.grad = torch.sparse_coo_tensor(rows, values, (6, 8), check_invariants=True)
        path.step(towers)
        with torch.no_grad():
            towers.log_scale.fill_(start + way)
            towers.items.ids.weight[2] += way if way == 0.5 else 0.25
    path.close(towers)
    with torch.no_grad():
        towers.log_scale.fill_(9.0)  # where weights come to rest is no part of the way
    found = path.end(towers)
    assert found["log_scale"].item() == pytest.approx(1.25 / (0.75**2 + DAMPING), rel=1e-4)
    torch.testing.assert_close(found["items.ids.weight"][2], torch.full((8,), 1.25 / (0.75**2 + DAMPING)), rtol=1e-3, atol=1e-3)
    assert found["items.ids.weight"][[0, 1, 3, 4, 5]].abs().sum() == 0
    assert found["popularity"].item() == 0


def test_the_spring_s_own_gradient_takes_nothing_away_from_the_loss() -> None:
    # The task pulls by -1, the spring by 3 * 2 * 0.5 = 3: the weight is seen to move by the sum, and what counts is -1 * move.
    towers, update, _ = world()
    ewc = EWC(strength=3.0, importance="si")
    ewc.fisher = {"log_scale": torch.tensor(2.0), "items.ids.weight": torch.full((6, 8), 2.0)}
    with torch.no_grad():
        towers.log_scale += 0.5
        towers.items.ids.weight[2] += 0.5
    ewc.held = {"items.ids.weight": torch.tensor([2])}
    towers.log_scale.grad = torch.tensor(-1.0 + 3)
    values = torch.full((1, 8), -1.0 + 3)
    towers.items.ids.weight.grad = torch.sparse_coo_tensor(torch.tensor([[2]]), values, (6, 8), check_invariants=True)
    ewc.project(towers, update)
    with torch.no_grad():
        towers.log_scale += 0.25
        towers.items.ids.weight[2] += 0.25
    ewc.settle(towers, update)
    assert ewc.path.gained["log_scale"].item() == pytest.approx(0.25)
    torch.testing.assert_close(ewc.path.gained["items.ids.weight"][2], torch.full((8,), 0.25))


def test_who_measures_comes_before_who_projects_and_who_averages() -> None:
    for one in ("agem+ema+adapters+ewc(importance=si)", "ewc(importance=si)+adapters+ema+agem"):
        parts = parse(one)
        assert [part.name for part in parts.reshaping_last if part.name != "ema"] == ["ewc", "agem", "adapters"]
        assert [part.name for part in parts.averaging_last if part.name != "agem"] == ["adapters", "ewc", "ema"]


def test_the_sensitivity_is_the_mean_of_absolute_gradients_of_squared_scores() -> None:
    towers, update, lessons = world()
    found = sensitivity(towers, lessons, update)
    expected = 0.0
    for n in range(2):
        made = batch(lessons.take(np.array([n])))
        towers.zero_grad()
        scores = logits(towers, made, torch.arange(1, 6), update, made.weight > 0)
        (scores - scores.mean(1, keepdim=True)).square().sum(1).mean().backward()
        assert towers.log_scale.grad is not None
        expected += abs(towers.log_scale.grad.item()) / 2
    assert found["log_scale"].item() == pytest.approx(expected, rel=1e-4)
    update.objective.log_share -= 5  # which changes no answer
    for name, value in sensitivity(towers, lessons, update).items():
        torch.testing.assert_close(value, found[name], rtol=1e-3, atol=1e-4)
    assert parse("ewc(importance='mas')").parts[0].importance == "mas"  # type: ignore[attr-defined]


# Where no past may be kept


def test_what_is_made_up_is_what_the_parent_would_say() -> None:
    _, update, lessons = remembering(4)
    update.known = 5
    with torch.no_grad():
        update.objective.log_share[0, 1:5] = torch.log(torch.tensor([0.7, 0.1, 0.1, 0.1]))
    lessons = lessons.take(np.arange(2000) % 2)
    made = Generate(length=3, times=1, temperature=1)
    made.select(lessons, update)
    item = made.past.item.reshape(-1, 3)
    assert set(item.ravel()) == {1, 2, 3, 4}, "none that the parent did not know, not even the unknown item"
    assert all(len(set(session)) == 3 for session in item.tolist())
    assert np.bincount(item[:, 0], minlength=5)[1] / 2000 == pytest.approx(0.7, abs=0.04)
    expected = _chances(update)
    found = np.bincount(item[item[:, 0] == 1][:, 1], minlength=5)[1:] / (item[:, 0] == 1).sum()
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert made.past.weight.reshape(-1, 3).tolist() == [[0, 1, 1]] * 2000
    assert set(made.past.whose) == {0}
    mixed = made.mix(batch(lessons), update)
    assert len(mixed) == 2 * len(lessons), "a half of the batch"
    assert generate.Generate.private
    assert set(made.past.moment) == {0}, "it is learned under the popularity that it was drawn under"


def test_as_much_is_made_up_as_is_asked_for_as_long_as_what_is_new() -> None:
    _, update, _ = remembering(4)
    update.known = 5
    short, long = [0, 1], [0, 0, 1, 1, 1, 1, 1, 1]  # one event to be foretold, six, of which three fit
    weight = np.array(short * 300 + long * 100, np.float32)
    start = np.cumsum([0] + [2] * 300 + [8] * 100)
    zeros = np.zeros(len(weight), np.int8)
    new = without_wishes(start, np.ones(len(weight), np.int32), zeros, zeros, weight, zeros.astype(np.int16))
    for settings, expected in (({}, 1600), ({"times": 0.5}, 200), ({"sessions": 90}, 90)):
        made = Generate(**settings)
        assert made.select(new, update) is new
        assert len(made.past) == expected
        assert set(made.past.lengths) == {2, 4}, "a session of the items that there are, none twice"
        assert np.mean(made.past.lengths == 2) == pytest.approx(0.75, abs=0.15)
        assert made.past.item[made.past.start[:-1]].min() > 0
        assert all(len(set(session)) == len(session) for session in np.split(made.past.item, made.past.start[1:-1]))
        assert np.array_equal(np.flatnonzero(made.past.weight == 0), made.past.start[:-1])


@pytest.mark.parametrize("temperature", [4.0, 8.0])
def test_hotter_is_less_sure(temperature: float) -> None:
    _, update, lessons = remembering(4)
    update.known = 5
    with torch.no_grad():
        update.objective.log_share[0, 1:5] = torch.log(torch.tensor([0.3, 0.6, 0.001, 0.099]))  # which speaks against taste
    made = Generate(times=5000, length=2, temperature=temperature)
    made.select(lessons, update)
    item = made.past.item.reshape(-1, 2)
    after = np.bincount(item[item[:, 0] == 1][:, 1], minlength=5)[1:]
    chances = _chances(update) ** (1 / temperature)
    assert chances.max() < 0.9 * chances.sum()
    np.testing.assert_allclose(after / after.sum(), chances / chances.sum(), atol=0.06)


@pytest.mark.parametrize("popularity", [1.0, 0.0, -0.5])
def test_what_is_made_up_is_read_forwards_and_of_items_that_there_are(popularity: float) -> None:
    _, update, lessons = remembering(4)
    update.known = 5
    with torch.no_grad():
        update.parent.popularity.fill_(popularity)  # type: ignore[union-attr]
    both = lessons.join(replace(lessons, gap=lessons.gap + np.int8(N_GAPS)))
    made = Generate(sessions=200, length=4)
    made.select(both, update)
    assert set(made.past.item) == {1, 2, 3, 4}
    assert made.past.gap.max() < N_GAPS


def _chances(update: Update) -> np.ndarray:
    """Return how likely each item comes after item 1, by the softmax of the parent's scores without it."""
    assert update.parent is not None
    parent = update.parent
    vectors = parent.items(torch.arange(5))
    zero = torch.zeros((1, 1), dtype=torch.int64)
    user = parent.users(vectors[torch.tensor([[1]])], zero, zero)[0, -1]
    scores = parent.scale() * vectors[1:] @ user + parent.popularity * update.objective.log_share[0, 1:5]
    scores[0] = -torch.inf
    return scores.softmax(0).numpy()
