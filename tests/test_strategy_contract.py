"""What every strategy promises, by itself and with others, through the real fit and update on a small simulated log."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import load_file

from recsys.catalogue import Catalogue
from recsys.errors import BadInput
from recsys.events import milliseconds, surface_number
from recsys.home import Home
from recsys.log import Log
from recsys.registry import Registry
from recsys.settings import Settings, load_settings
from recsys.simulate import simulate
from training import strategies
from training.candidate import STATE, Candidate
from training.fit import fit
from training.forget import forget
from training.strategies import STRATEGIES, parse, without
from training.update import update

DAY = 86_400_000
TINY = {
    "model.dim": 8, "model.blocks": 1, "model.features": 64, "data.history": 8, "training.epochs": 1, "training.negatives": 40,
    "update.epochs": 1, "update.memory": 100, "training.batch_size": 64,
}  # fmt: skip
SMALLER = {
    "ewc": "samples=10", "der": "size=50, items=8", "ader": "size=30", "agem": "samples=16", "gem": "samples=8", "generate": "times=9",
    "heads": "least=5",
}  # fmt: skip
ALL = {name: f"{name}({SMALLER.get(name, '')})" for name in sorted(STRATEGIES)}
VARIANTS = {
    "replay recent": "replay(by='recent')",
    "replay loss": "replay(by='loss', size=50)",
    "replay herding": "replay(by='herding', size=30)",
    "ewc si": "ewc(importance='si', samples=10)",
    "ewc mas": "ewc(importance='mas', samples=10)",
}
EVERY = ALL | VARIANTS


def settings(expression: str) -> Settings:
    return load_settings(overrides={**TINY, "update.strategy": expression}, environ={})


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[pa.Table], dict[str, Any]]:
    """Three stretches of a simulated log, in each of which new films come, and what is known of the films. Some people are on "tv", later
    others on "phone" too.
    """
    home = Home(tmp_path_factory.mktemp("story") / "home")
    simulate(home, users=50, items=100, days=42, seed=3)
    events = Log(home.log).read()
    events = events.set_column(events.column_names.index("surface"), events.schema.field("surface"), surfaces(events))
    day = (milliseconds(events) - milliseconds(events)[0]) // DAY
    stretches = [events.filter(pa.array((day >= first) & (day < behind))) for first, behind in ((0, 14), (14, 28), (28, 43))]
    return stretches, Catalogue(home.items).items()


def surfaces(events: pa.Table) -> pa.Array:
    person = np.array([int(name.removeprefix("user-")) % 3 for name in events["user_id"].to_pylist()])
    late = milliseconds(events) >= milliseconds(events)[0] + 28 * DAY
    return pa.array(np.where(person == 0, "tv", np.where((person == 1) & late, "phone", None)), pa.string())


Story = tuple[list[pa.Table], dict[str, Any]]


@pytest.fixture(scope="module")
def fitted(story: Story) -> Callable[[str], Candidate]:
    """Give what a first fit makes under a strategy, each once."""
    made: dict[str, Candidate] = {}

    def fitted(expression: str) -> Candidate:
        if expression not in made:
            made[expression] = fit(story[0][0], settings(expression), story[1])
        return made[expression]

    return fitted


@pytest.fixture(scope="module")
def knowing(fitted: Callable[[str], Candidate]) -> Candidate:
    """A first fit that remembers what any strategy does."""
    remembered = {name: value for expression in ALL.values() for name, value in fitted(expression).strategy_state.items()}
    return replace(fitted("naive"), strategy_state=remembered)


def updated(parent: Candidate, story: Story, number: int, expression: str = "") -> Candidate:
    stretches, items = story
    use = settings(expression) if expression else parent.settings
    past = pa.concat_tables(stretches[:number])
    who = past.filter(pc.is_in(past["user_id"], value_set=stretches[number]["user_id"].combine_chunks()))
    return update(parent, stretches[number], who, use, items)


def weights(candidate: Candidate) -> dict[str, torch.Tensor]:
    return candidate.towers.state_dict()


def same(one: Candidate, other: Candidate) -> bool:
    """Say whether towers and all that is remembered are the same, bit for bit."""
    for a, b in ((weights(one), weights(other)), (one.strategy_state, other.strategy_state)):
        if a.keys() != b.keys() or not all(torch.equal(a[name], b[name]) for name in a):
            return False
    if one.surfaces != other.surfaces or not torch.equal(one.towers.users.labels, other.towers.users.labels):
        return False
    return np.array_equal(one.memory.examples.item, other.memory.examples.item)


def test_the_contract_runs_over_every_strategy() -> None:
    assert len(ALL) == 16


@pytest.mark.parametrize("name", sorted(EVERY))
def test_with_no_past_it_is_naive(name: str, fitted: Callable[[str], Candidate]) -> None:
    mine, naive = weights(fitted(EVERY[name])), weights(fitted("naive"))
    assert mine.keys() == naive.keys()
    assert all(torch.equal(mine[weight], naive[weight]) for weight in naive)


@pytest.mark.parametrize("name", sorted({*EVERY} - {"ewc si"}))  # a shared fit has no way to look back on
def test_a_fit_that_shares_the_towers_of_another_remembers_the_same(name: str, story: Story, fitted: Callable[[str], Candidate]) -> None:
    alone = fitted(EVERY[name])
    assert same(alone, fit(story[0][0], alone.settings, story[1], trained=fitted("naive").towers))


@pytest.mark.parametrize("name", sorted(EVERY))
def test_it_learns_what_is_new_again_the_same_and_goes_on_from_its_own_release(
    name: str, story: Story, fitted: Callable[[str], Candidate], tmp_path: Any, exported_once: None
) -> None:
    parent = fitted(EVERY[name])
    before = {key: value.clone() for key, value in weights(parent).items()}
    first, again = updated(parent, story, 1), updated(parent, story, 1)
    assert all(torch.equal(before[key], value) for key, value in weights(parent).items()), "the parent stays as it was"
    assert same(first, again), "interrupted and run again, it ends the same"
    assert len(first.vocab) > len(parent.vocab), "new films came"
    assert all(torch.isfinite(value).all() for value in weights(first).values())
    old = [(weights(first)[key][: len(value)] if value.ndim else weights(first)[key], value) for key, value in before.items()]
    assert any(not torch.equal(now, value) for now, value in old), "of what it knew something has been learned further"
    loaded = released(first, tmp_path)
    assert same(first, loaded), "all that it remembers travels in a release"
    second = updated(first, story, 2)
    assert same(second, updated(loaded, story, 2))
    assert len(second.vocab) > len(first.vocab)


def released(candidate: Candidate, folder: Any) -> Candidate:
    """Return a candidate as the next update reads it back from a release."""
    registry = Registry(folder)
    with registry.draft() as draft:
        about = candidate.write(draft)
        registry.publish(draft, registry.next_id(), registry.current(), about)
    return Candidate.load(registry.open(), candidate.settings)


@pytest.mark.parametrize("name", sorted(EVERY))
def test_prepare_leaves_every_score_as_it_was(name: str, story: Story, fitted: Callable[[str], Candidate], monkeypatch: Any) -> None:
    seen = []

    def stop(towers: Any, *_: Any) -> None:
        seen.append(towers)
        raise KeyboardInterrupt

    monkeypatch.setattr("training.update.learn", stop)
    parent = fitted(EVERY[name])
    with pytest.raises(KeyboardInterrupt):
        updated(parent, story, 1)
    known = len(parent.vocab)
    np.testing.assert_array_equal(seen[0].item_vectors()[:known], parent.towers.item_vectors())
    people = np.random.default_rng(0).integers(1, known, (30, 5)), np.ones((30, 5), np.int64)
    items, kinds = parent.towers.items(torch.from_numpy(people[0])[0]).expand(30, -1, -1), torch.from_numpy(people[1])
    everywhere = torch.from_numpy(np.random.default_rng(1).choice([0, surface_number("tv"), surface_number("phone")], (30, 5)))
    assert torch.equal(seen[0].eval().users(items, kinds, kinds, everywhere), parent.towers.users(items, kinds, kinds))


def refusal(expression: str) -> str:
    try:
        parse(expression)
    except BadInput as error:
        return str(error)
    return ""


def together() -> list[str]:
    """Return every pair of different strategies."""
    return ["+".join(pair) for pair in combinations(sorted(ALL), 2)]


def test_every_pair_runs_or_is_refused_with_the_reason(story: Story, knowing: Candidate) -> None:
    (stretches, items), ran, refused = story, 0, 0
    short = [stretches[0], stretches[1].slice(0, 150)], items
    for pair in together():
        expression = "+".join(ALL[name] for name in pair.split("+"))
        if why := refusal(expression):
            assert "do not go together: " in why
            refused += 1
            continue
        assert all(torch.isfinite(value).all() for value in weights(updated(knowing, short, 1, expression)).values())
        ran += 1
    assert (ran, refused) == (120 - 9, 9)


@pytest.mark.parametrize(
    "left", [("adapters", "generate", "ema", "gem"), ("ader", "agem", "columns", "der", "gem", "heads", "replay", "soup")]
)
def test_all_that_go_together_run_at_once(left: tuple[str, ...], story: Story, fitted: Callable[[str], Candidate]) -> None:
    expression = "+".join(ALL[name] for name in sorted(ALL) if name not in left)
    first = updated(fitted(expression), story, 1)
    naive = updated(fitted("naive"), story, 1)
    assert any(not torch.equal(weights(first)[key], value) for key, value in weights(naive).items())
    assert all(torch.isfinite(value).all() for value in weights(updated(first, story, 2)).values())


@pytest.mark.parametrize("pair", [("ader(size=30)", "partial"), ("agem(samples=16)", "ewc(samples=10)"), ("soup", "ewc(importance=si)")])
def test_the_order_of_a_list_settles_nothing(pair: tuple[str, str], story: Story, knowing: Candidate) -> None:
    one, other = (updated(knowing, story, 1, "+".join(names)) for names in (pair, pair[::-1]))
    assert same(one, other)
    assert one.notes == other.notes
    assert "ader" not in str(pair) or one.notes["loss/ader"] > 0


def test_the_strategy_that_the_readme_adds_is_found_and_works(
    story: Story, fitted: Callable[[str], Candidate], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = (Path(__file__).parents[1] / "README.md").read_text().split("## Add a strategy")[1]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (said,) = re.findall(r'recsys update --strategy "(.*?)"', section)
    (tmp_path / "anchor.py").write_text(code)
    monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(tmp_path)])
    monkeypatch.setitem(STRATEGIES, "anchor", strategies._found()["anchor"])
    parent = fitted("naive")
    held, free = updated(parent, story, 1, said), updated(parent, story, 1, "replay(share=0.3)")
    way = {name: (weights(held)[name] - weights(parent)[name]).norm() for name in held.towers.dense()}
    further = {name: (weights(free)[name] - weights(parent)[name]).norm() for name in held.towers.dense()}
    assert sum(way.values()) < 0.8 * sum(further.values())


def test_a_private_release_holds_nobody_s_events(story: Story, fitted: Callable[[str], Candidate]) -> None:
    for candidate in (fitted(ALL["generate"]), updated(fitted(ALL["generate"]), story, 1)):
        assert (len(candidate.memory), len(candidate.neighbours)) == (0, 0)
        assert not [name for name in candidate.strategy_state if "whose" in name or "item" in name.split("/")]


def test_what_a_strategy_remembers_ends_with_the_first_update_without_it(story: Story, knowing: Candidate) -> None:
    names = {key.partition("/")[0] for key in knowing.strategy_state}
    assert names == {"der", "ewc", "soup"}  # in a first fit adapters have nothing yet
    assert updated(knowing, story, 1, ALL["naive"]).strategy_state == {}
    held = updated(knowing, story, 1, f"{ALL['ewc']}+{ALL['replay']}").strategy_state
    assert {key.partition("/")[0] for key in held} == {"ewc"}


def test_importance_that_was_measured_otherwise_is_begun_anew(story: Story, fitted: Callable[[str], Candidate]) -> None:
    parent = fitted(ALL["ewc"])
    (mas,) = parse("ewc(importance=mas)").parts
    mas.load({key.removeprefix("ewc/"): value for key, value in parent.strategy_state.items()})
    assert mas.fisher == {}
    anew = updated(parent, story, 1, "ewc(importance=mas,samples=10)")
    alone = updated(replace(parent, strategy_state={}), story, 1, "ewc(importance=mas,samples=10)")
    assert same(anew, alone)


@pytest.mark.parametrize("expression", ["columns", "replay+heads"])
def test_what_needs_a_tower_that_reads_events_is_refused_before_anything_is_learned(expression: str, story: Story) -> None:
    use = settings(expression)
    use = use.model_copy(update={"model": use.model.model_copy(update={"objective": "next_session"})})
    with pytest.raises(BadInput, match=r"cannot stand beside model\.objective = next_session: .*; leave one of them out"):
        fit(story[0][0].slice(0, 0), use, story[1])


def test_a_private_update_drops_what_another_strategy_kept(story: Story, fitted: Callable[[str], Candidate]) -> None:
    private = updated(fitted("der(size=50)"), story, 1, ALL["generate"])
    assert not [name for name in private.strategy_state if name.startswith("der/")]


def test_who_filled_a_store_alone_is_forgotten_with_it(story: Story, fitted: Callable[[str], Candidate], tmp_path: Path) -> None:
    candidate = fitted("der(size=50)")
    released(candidate, tmp_path)
    folder = Registry(tmp_path).open().folder
    assert forget(folder, np.concatenate([candidate.memory.examples.whose, candidate.strategy_state["der/whose"].numpy()])) > 0
    left = load_file(folder / STATE)
    assert not [name for name in left if name.startswith("der/")]
    assert len(left["memory:whose"]) == 0


def test_people_are_forgotten_in_what_a_strategy_keeps(story: Story, fitted: Callable[[str], Candidate]) -> None:
    state = updated(fitted("der(size=50)+ewc(samples=10)"), story, 1).strategy_state
    gone = state["der/whose"][:3].numpy()
    left = without(state, gone)
    assert 0 < len(left["der/whose"]) < len(state["der/whose"])
    assert not np.isin(left["der/whose"].numpy(), gone).any()
    assert len(left["der/rows"]) == len(left["der/logits"]) == len(left["der/whose"]) == len(left["der/start"]) - 1
    kept = ~np.isin(state["der/whose"].numpy(), gone)
    assert torch.equal(left["der/logits"], state["der/logits"][torch.from_numpy(kept)])
    assert all(torch.equal(left[name], state[name]) for name in state if name.startswith("ewc/"))
    assert len(without(state, state["der/whose"].numpy()).get("der/whose", [])) == 0
