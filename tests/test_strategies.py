import copy
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_batches import wishing, without_wishes
from torch import nn

from recsys.batches import batch
from recsys.errors import BadInput
from recsys.losses import Candidates, NextItem
from recsys.settings import Model, load_settings
from recsys.towers import Towers
from training.memory import Memory
from training.strategies import STRATEGIES, parse
from training.strategies.base import Update
from training.strategies.ewc import EWC
from training.strategies.importance import fisher
from training.strategies.settings import TYPES, settings_of

FEATURES = [[], [1], [2, 3], [], [5], [1]]


def world(memory: bool = True):
    """Tiny towers, an update over them, and two people's stretches."""
    torch.manual_seed(0)
    towers = Towers(Model(dim=8, heads=2, blocks=1, dropout=0.0, features=16), FEATURES, length=5).eval()
    start, item = np.array([0, 3, 7]), np.array([1, 2, 3, 4, 5, 1, 2], np.int32)
    zeros = np.zeros(7, np.int8)
    weight = np.array([0, 1, 1, 0, 1, 1, 1], np.float32)
    lessons = without_wishes(start, item, zeros, zeros, weight, np.zeros(7, np.int16))
    past = Memory.empty(10).add(lessons.remembered(), [7]) if memory else Memory.empty(10)
    task = NextItem(Candidates(torch.ones(6), 100, 0, seed=0), torch.zeros(2, 6))
    anchor = copy.deepcopy(towers).requires_grad_(False)
    return towers, Update(anchor, past, task, np.random.default_rng(0)), lessons


def test_the_contract_runs_over_every_strategy():
    names = "adapters ader agem columns der distill ema ewc gem generate heads naive partial replay soup surprise"
    assert sorted(STRATEGIES) == names.split()


def test_a_list_composes_in_any_order():
    assert [part.name for part in parse("replay(share=0.3)+ewc").parts] == ["replay", "ewc"]
    assert parse(" ewc + replay ").parts[1].share == 0.5


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("reply", "did you mean 'replay'"),
        ("replay(shares=0.3)", "did you mean 'share'"),
        ("replay(share=2)", "more than 0 and less than 1; got 2"),
        ("replay(by='herd')", "did you mean 'herding'"),
        ("replay(size=-1)", "0 for all; got -1"),
        ("ewc(importance='fish')", "did you mean 'fisher'"),
        ("distill(weight=-1)", "0 or more; got -1"),
        ("distill(temperature=0)", "more than 0; got 0"),
        ("distill(items=1)", "2 or more; got 1"),
        ("ader(size=0)", "1 or more; got 0"),
        ("ader(weight=-1)", "0 or more; got -1"),
        ("ader(items=1)", "2 or more; got 1"),
        ("agem(samples=0)", "1 or more; got 0"),
        ("agem(every=0)", "1 or more; got 0"),
        ("gem(parts=0)", "from 1 to 20; got 0"),
        ("gem(samples=0)", "1 or more; got 0"),
        ("gem(margin=-1)", "0 or more; got -1"),
        ("der(weight=-1)", "0 or more; got -1"),
        ("der(size=0)", "1 or more; got 0 and 64"),
        ("der(share=0)", "more than 0; got 0"),
        ("surprise(strength=-1)", "0 or more; got -1"),
        ("surprise(most=0.5)", "1 or more; got 0.5"),
        ("partial(buckets=0)", "1 or more; got 0"),
        ("ema(decay=1)", "less than 1; got 1"),
        ("soup(last=0)", "1 or more; got 0"),
        ("generate(share=1)", "more than 0 and less than 1; got 1"),
        ("generate(sessions=0)", "1 or more; got 0"),
        ("generate(length=1)", "2 or more; got 1"),
        ("generate(times=0)", "for each new one, more than 0; got 0"),
        ("generate(temperature=0)", "nearer to 0 for the likeliest; got 0"),
        ("agem+gem", "agem and gem do not go together: both project"),
        ("replay+generate", "generate and replay do not go together: there is no past to replay"),
        ("soup+ema", "soup and ema do not go together: both say where"),
        ("replay(share=)", "replay.share takes a finite number; got ''"),
        ("replay(share='much')", "replay.share takes a finite number; got 'much'"),
        ("replay(share=1/3)", "a finite number; got '1/3'"),
        ("replay(share=0.3, share=0.7)", "replay.share stands twice; say it once"),
        ("replay(0.3)", "settings are written by name, replay(name=value); got '0.3'"),
        ("replay(size=1.5)", "replay.size takes a whole number; got 1.5"),
        ("partial(buckets=True)", "partial.buckets takes a whole number; got True"),
        ("replay(by=3)", "replay.by takes a word; got 3"),
        ("replay(share={[]: 1})", "replay.share takes a finite number; got '{[]: 1}'"),
        ("replay(share=0.3;by=recent)", "settings are parted by commas, replay(name=value, name=value); got 'share=0.3;by=recent'"),
        ("replay(by=herd)", "did you mean 'herding'? allowed: herding, loss, recent, reservoir"),
        ("ewc(importance=six)", "did you mean 'si'? allowed: fisher, mas, si"),
        ("frozen", "soup, surprise (frozen, knn and such are for recsys evaluate)"),
        ("REPLY", "did you mean 'replay'"),
        ("ewc(strength=1e999)", "ewc.strength takes a finite number; got inf"),
        ("ewc(strength=nan)", "a finite number; got 'nan'"),
        ("ewc(strength=True)", "a finite number; got True"),
        ("ewc+ewc", "stands twice"),
        ("replay(", "'replay(' is no strategy"),
        ("", "a strategy has no name in ''"),
        ("replay++ewc", "a strategy has no name in 'replay++ewc'"),
        ("naive(x=1)", "it has none"),
        ("naive(1)", "written by name, naive(name=value); got '1'"),
        ("ewc(strength=-1)", "0 or more; got -1"),
        ("ewc(gamma=2)", "from 0 to 1; got 2"),
        ("ewc(samples=0)", "1 or more; got 0"),
        ("columns(most=1)", "2 or more; got 1"),
        ("columns(most=2.5)", "a whole number; got 2.5"),
        ("columns+adapters", "columns and adapters do not go together: each freezes the user tower"),
        ("adapters+columns", "columns and adapters do not go together: each freezes the user tower"),
        ("adapters(rank=0)", "1 or more; got 0"),
        ("adapters(rank=2.5)", "a whole number; got 2.5"),
        ("adapters(rank=True)", "a whole number; got True"),
        ("adapters(alpha=0)", "more than 0; got 0"),
        ("adapters(alpha='x')", "a finite number; got 'x'"),
        ("adapters(items=2)", "True or False; got 2"),
    ],
)
def test_an_expression_that_cannot_be_used_is_refused_with_the_way_out(expression, says):
    with pytest.raises(BadInput, match=re.escape(says)):
        parse(expression)


def test_values_are_read_as_people_write_them():
    replay, adapters = parse("replay(share=.3, by=recent, size=7)+adapters(items=false)").parts
    assert (replay.share, replay.by, replay.size, adapters.items) == (0.3, "recent", 7, False)
    assert parse("ewc(strength=2)").parts[0].strength == 2


def test_every_setting_has_a_type_that_is_checked_and_a_default():
    wrong = {int: "1.5", float: "x", bool: "2", str: "3"}
    for name, kind in STRATEGIES.items():
        for setting, about in settings_of(kind).items():
            with pytest.raises(BadInput, match=rf"{name}\.{setting} takes {TYPES[about.type]}; got "):
                parse(f"{name}({setting}={wrong[about.type]})")
            parse(f"{name}({setting}={about.default})")


def test_a_setting_may_be_needed_and_its_type_unsaid_or_a_text(monkeypatch):
    class Odd(STRATEGIES["naive"]):
        name = "odd"

        def __init__(self, much: "float", what=None):
            self.much, self.what = much, what

    monkeypatch.setitem(STRATEGIES, "odd", Odd)
    assert [vars(part) for part in parse("odd(much=2, what=[1])").parts] == [{"much": 2, "what": [1]}]
    for wrong, says in (
        ("odd", "odd needs much; write odd(much=...)"),
        ("odd(much=few)", "odd.much takes a finite number; got 'few'"),
        ("odd(much=1, what=1e999)", "odd.what takes a finite number; got inf"),
    ):
        with pytest.raises(BadInput, match=re.escape(says)):
            parse(wrong)


def test_the_documentation_has_every_setting_and_its_default():
    page = (Path(__file__).parents[1] / "docs" / "strategies.md").read_text()
    for name, kind in STRATEGIES.items():
        written = ", ".join(f"{setting}={about.default}" for setting, about in settings_of(kind).items())
        assert f"| `{name}` | {f'`{written}`' if written else ''} |" in page, name


def test_replay_makes_the_share_of_a_batch_that_it_was_told():
    _, update, lessons = world()
    replay = parse("replay(share=0.75)")
    replay.prepare(update.parent, update)
    mixed = replay.mix(batch(lessons), update)
    assert (len(lessons), len(mixed)) == (2, 8)
    assert (mixed.moment[2:][mixed.weight[2:] > 0] == -1).all()  # the remembered ones say that they are


def test_what_is_remembered_is_softened_by_its_neighbours_too():
    _, update, lessons = world()
    remembered = wishing(5, 5, 5, item=(1, 2, 3)).remembered()
    update = replace(update, memory=Memory.empty(10).add(remembered, [7]))
    for share, targets in ((0.0, {2, 3}), (1.0, {5})):
        replay = parse("replay(share=0.5)")
        replay.prepare(update.parent, update)
        mixed = replay.mix(batch(lessons), replace(update, wishes=share))
        assert set(mixed.target[2:][mixed.weight[2:] > 0].tolist()) == targets
        assert mixed.target[:2].tolist() == batch(lessons).target.tolist()


class _TwoWeights(nn.Module):
    """A softmax over two items with one weight each, in the clothes that `fisher` asks for."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor([0.0, math.log(3.0)]))


def test_the_fisher_of_a_two_weight_softmax_is_what_paper_says():
    # p = (1/4, 3/4). Choosing item 0 has gradient (p - e0) = (-3/4, 3/4), choosing item 1 (1/4, -1/4).
    # Chosen once and three times: the mean square is (1 * 9/16 + 3 * 1/16) / 4 = 3/16 for both,
    # while the mean gradient, squared, would be 0.
    model = _TwoWeights()
    _, update, _ = world()

    def choice(model, one):
        return nn.functional.cross_entropy(model.log_scale[None], one.target[0, :1])

    update.objective = choice
    start = np.arange(0, 10, 2)
    item = np.array([9, 0, 9, 1, 9, 1, 9, 1], np.int32)
    zeros, weight = np.zeros(8, np.int8), np.array([0, 1] * 4, np.float32)
    model.log_scale.grad = torch.full((2,), 7.0)  # of the last step of training
    found = fisher(model, without_wishes(start, item, zeros, zeros, weight, np.zeros(8, np.int16)), update)
    assert found["log_scale"].tolist() == pytest.approx([3 / 16, 3 / 16])


def test_the_penalty_is_half_the_strength_times_fisher_times_the_squared_way():
    towers, update, lessons = world()
    strategy = EWC(strength=6.0)
    strategy.fisher = {"log_scale": torch.tensor(2.0), "items.ids.weight": torch.full((6, 8), 0.5)}
    with torch.no_grad():
        towers.log_scale += 3
        towers.items.ids.weight[1] += 1
    update.objective.touched = torch.tensor([1, 3])
    term = strategy.penalties(towers, batch(lessons), update)["ewc"]
    assert term.item() == pytest.approx(6 / 2 * (2 * 9 + 8 * 0.5 * 1))


def test_the_penalty_pulls_back_exactly_the_rows_that_the_step_moves():
    towers, update, lessons = world()
    update.objective = NextItem(Candidates(torch.ones(6), 1, 0, seed=0), torch.zeros(2, 6))
    made = batch(lessons.take(np.array([0])))
    update.objective(towers, made).backward()
    moved = towers.items.ids.weight.grad.coalesce().indices()[0].tolist()
    assert {1, 2, 3} < set(moved) < {0, 1, 2, 3, 4, 5}  # the batch's items and a negative
    towers.zero_grad()
    strategy = EWC(strength=1.0)
    strategy.fisher = {"items.ids.weight": torch.ones(6, 8)}
    with torch.no_grad():
        towers.items.ids.weight += 1
    strategy.penalties(towers, made, update)["ewc"].backward()
    assert towers.items.ids.weight.grad.coalesce().indices()[0].tolist() == moved


def test_fishers_accumulate_online_and_survive_new_rows():
    towers, update, lessons = world()
    alone = EWC(samples=10)
    alone.finish(towers, lessons, update)
    twice = EWC(gamma=0.5, samples=10)
    twice.fisher = {"items.ids.weight": torch.ones(4, 8), "log_scale": torch.tensor(1.0)}  # two items ago
    twice.finish(towers, lessons, update)
    for row in range(6):
        expected = alone.fisher["items.ids.weight"][row] + (0.5 if row < 4 else 0)
        torch.testing.assert_close(twice.fisher["items.ids.weight"][row], expected, atol=1e-6, rtol=1e-4)


def test_memory_is_a_uniform_sample_whatever_the_pieces():
    def stretches(first, n):
        item = np.arange(first, first + n, dtype=np.int32).repeat(2)
        zeros = np.zeros(2 * n, np.int8)
        return without_wishes(np.arange(0, 2 * n + 1, 2), item, zeros, zeros, np.ones(2 * n, np.float32), np.zeros(2 * n, np.int16))

    kept = np.zeros(40)
    for seed in range(300):
        memory = Memory.empty(10).add(stretches(0, 30), [seed, 0]).add(stretches(30, 10), [seed, 1])
        assert len(memory) == 10
        kept[memory.examples.item[::2]] += 1
    assert abs(kept[:30].mean() / 300 - 0.25) < 0.02
    assert abs(kept[30:].mean() / 300 - 0.25) < 0.03


def test_memory_is_in_the_order_of_time_whatever_the_order_of_what_comes():
    # read forwards, then backwards, of the same three moments; and what came before stays before
    moment = np.array([0, 2, 0, 1, 0, 0, 0, 2, 0, 1, 0, 0], np.int16)
    zeros = np.zeros(12, np.int8)
    both = without_wishes(np.arange(0, 13, 2), np.repeat(np.arange(1, 7, dtype=np.int32), 2), zeros, zeros, np.ones(12, np.float32), moment)
    memory = Memory.empty(20).add(both, [0]).add(both, [1])
    assert memory.examples.item[::2].tolist() == [3, 6, 2, 5, 1, 4] * 2
    assert set(memory.examples.moment.tolist()) == {-1}


def test_rows_that_another_strategy_moves_are_held_too():
    towers, update, lessons = world()
    update.objective = NextItem(Candidates(torch.ones(6), 1, 0, seed=0), torch.zeros(2, 6))
    made = batch(lessons.take(np.array([0])))
    ewc = EWC(strength=3.0)
    ewc.fisher = {"items.ids.weight": torch.full((6, 8), 2.0)}
    with torch.no_grad():
        towers.items.ids.weight += 0.5
    loss, others = update.objective(towers, made), nn.functional.embedding(torch.tensor([4, 5]), towers.items.ids.weight, sparse=True)
    (loss + ewc.penalties(towers, made, update)["ewc"] + others.sum()).backward()
    before = towers.items.ids.weight.grad.to_dense().clone()
    held = set(ewc.held["items.ids.weight"].tolist())
    ewc.project(towers, update)
    after = towers.items.ids.weight.grad.to_dense()
    assert held < {0, 1, 2, 3, 4, 5}
    for row in range(6):
        pull = 3 * 2 * 0.5 if row not in held and before[row].any() else 0
        torch.testing.assert_close(after[row], before[row] + pull)
    assert (after != before).any()


def test_every_config_names_a_strategy_that_can_be_built():
    configs = sorted((Path(__file__).parents[1] / "configs").rglob("*.toml"))
    assert len(configs) == 11
    for config in configs:
        assert parse(load_settings(config, environ={}).update.strategy).parts
