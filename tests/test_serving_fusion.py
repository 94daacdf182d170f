"""What is served is what training and evaluation score: random worlds, the whole catalogue against what the engine looks at."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from worlds import DAY, NOW

from recsys import index as indexes
from recsys import voting
from recsys.again import TRIED as TRIED_AGAIN
from recsys.again import Again
from recsys.batches import ItemCounts
from recsys.catalogue import SCHEMA, merge
from recsys.events import CODE, EVENT_TYPES, IS_POSITIVE
from recsys.fusion import LENGTHS, TRIED, Fusion
from recsys.neighbours import Neighbours
from recsys.refused import ENOUGH
from recsys.registry import Registry, Release
from recsys.sessions import Histories, Sessions
from recsys.settings import Settings, load_settings
from recsys.towers import Towers
from recsys.vocab import Vocabulary
from serving import stock
from serving.feed import feed
from serving.history import Event, History
from serving.opinions import _largest, best, first, opinions
from serving.reasons import because
from serving.snapshot import Ask, Snapshot
from training.candidate import Candidate
from training.memory import Memory
from training.prototypes import Prototypes

HISTORY = 6
KINDS = ["play", "like", "dislike", "watch", "skip", "complete"]
TINY = {"model.dim": 8, "model.blocks": 1, "model.features": 16, "data.history": HISTORY}


def timelines(items: int, people: int, rng: np.random.Generator) -> Sessions:
    """People with 2 to 12 events each, of the last ten days."""
    count = rng.integers(2, 13, people)
    start = np.concatenate([[0], np.cumsum(count)])
    time = np.concatenate([np.sort(NOW - rng.integers(0, 10 * DAY, n)) for n in count])
    item = 1 + np.minimum(rng.pareto(1, len(time)) * items / 8, items - 1).astype(np.int32)
    kind = np.full(len(time), CODE["play"], np.int8)
    return Sessions([f"u{n}" for n in range(people)], start, item, kind, time, np.repeat(np.arange(people), count), np.arange(len(time)))


def candidate(seed: int, items: int, people: int, temperature: float = 0.1, popularity: float = 0.3, **changed: object) -> Candidate:
    """A release with random towers, random counts, a random memory and weights of its own for each length of history."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    overrides = {**TINY, "model.temperature": temperature, "model.popularity": popularity, **changed}
    settings: Settings = load_settings(overrides=overrides, environ={})
    vocab = Vocabulary(f"i{n}" for n in range(1, items + 1))
    towers = Towers(settings.model, [[]] * len(vocab), HISTORY).eval()
    count = np.concatenate([[0], rng.pareto(1, items).astype(np.float32)])
    counts = replace(ItemCounts.none(settings.training.count_half_life).grow(len(vocab)), count=count, now=NOW)
    memory = Neighbours()
    memory.add(timelines(items, people, rng))
    n = len(LENGTHS) + 1
    fusion = Fusion(rng.dirichlet([2, 2, 2], n)[:, :2], np.zeros((n, len(TRIED))), np.zeros(n))
    again = Again(rng.normal(size=3) * 2, rng.normal(size=3) * 2, np.zeros((2, len(TRIED_AGAIN))), 0.0)
    people = rng.normal(size=(len(vocab), settings.model.dim)).astype(np.float32) / 4
    people[0] = 0
    kinds = np.full(len(EVENT_TYPES), seed % 2 * ENOUGH)  # towers that have learned to read dislikes, and others
    return Candidate(settings, towers, Prototypes(people, 0.7), vocab, counts, memory, fusion, again, Memory.empty(0), {}, {}, kinds)


@pytest.fixture(scope="module")
def publish(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Candidate], Release]:
    """Publish candidates one after the other, the first the parent of all, so that the graph of the tower is exported once."""
    registry = Registry(tmp_path_factory.mktemp("releases"))
    with registry.draft() as draft:
        first = registry.publish(draft, registry.next_id(), None, told(candidate(99, 20, 5), draft))

    def one_more(made: Candidate) -> Release:
        with registry.draft() as draft:
            return registry.publish(draft, registry.next_id(), registry.current(), told(replace(made, parent=first), draft))

    return one_more


def told(made: Candidate, draft: Path) -> dict[str, object]:
    return {**made.write(draft), "why": "test", "seconds": {}}


def test_similar_items_are_those_found_nearest_and_not_those_read_alike(publish: Callable[[Candidate], Release]) -> None:
    made = candidate(7, items=40, people=20)
    own, found_at = made.vectors()
    snapshot = Snapshot.load(publish(made))
    differ = 0
    for row in range(1, 41):
        near = [made.vocab.row(item["item_id"]) for item in snapshot.similar(made.vocab.ids[row], 5)]
        expected, read = ([other for other in np.argsort(-(table[1:] @ table[row])) + 1 if other != row][:5] for table in (found_at, own))
        assert near == expected
        differ += near != read
    assert differ > 20


def life(items: int, length: int, rng: np.random.Generator) -> list[Event]:
    """Events up to a few hours after the release, of known and unknown items, liked or not."""
    time = np.sort(NOW - 3 * DAY + rng.integers(0, 3 * DAY + 5 * 3_600_000, length))
    item = 1 + np.minimum(rng.pareto(1, length) * items / 8, items + 2).astype(np.int64)
    return [Event(f"i{row}", str(rng.choice(KINDS)), at) for row, at in zip(item.tolist(), time.tolist(), strict=True)]


def scored(made: Candidate, history: list[Event], exclude_seen: bool) -> np.ndarray:
    """Score the whole catalogue for one history, as training and evaluation do."""
    known = [event for event in history if made.vocab.row(event.item_id)]
    rows, kinds = made.vocab.rows(e.item_id for e in known), np.array([CODE[e.event_type] for e in known])
    time = np.array([event.timestamp for event in known])
    last_word = dict(zip(rows.tolist(), kinds.tolist(), strict=True))
    out = np.array([row for row, kind in last_word.items() if exclude_seen or not IS_POSITIVE[kind]], np.int64)
    past = Histories(np.array([0, len(known)]), rows, kinds, time)
    now = np.array([max(NOW, int(time[-1]))])
    hidden = np.zeros(len(out), np.int64), out
    return made.served(past, now, made.vectors(), hidden)[0]


def same_list(made: Candidate, snapshot: Snapshot, history: list[Event], k: int, exclude_seen: bool) -> set[str]:
    """Check an answer against the scores of the whole catalogue; return who spoke."""
    scores = scored(made, history, exclude_seen)
    expected = [row for row in np.argsort(-scores, kind="stable")[:k].tolist() if scores[row] > -np.inf]
    answer = snapshot.recommend(history, k, exclude_seen)
    assert [item["item_id"] for item in answer] == [made.vocab.ids[row] for row in expected]
    np.testing.assert_allclose([item["score"] for item in answer], scores[expected], rtol=2e-4, atol=1e-6)
    return {item["source"] for item in answer}


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_the_fused_answer_is_that_of_the_whole_catalogue(seed: int, exclude_seen: bool, publish: Callable[[Candidate], Release]) -> None:
    items, rng = 80, np.random.default_rng([seed, 1])
    made = candidate(seed, items, people=60)
    snapshot, spoke = Snapshot.load(publish(made)), set()
    for length in (1, 2, 4, 8, 20, 40):  # more than the towers see, and of every bucket
        history = [Event("i3", "play", NOW - 5 * DAY), *life(items, length, rng)]
        for k in (1, 10, 500):
            spoke |= same_list(made, snapshot, history, k, exclude_seen)
    assert spoke == {"tower", "neighbours", "popular"}


def test_no_item_is_overlooked_in_a_catalogue_that_the_index_is_not_asked_for_whole(publish: Callable[[Candidate], Release]) -> None:
    """Ten items that are neither among the towers' best hundred nor among the most popular, and the best in the sum of both."""
    items, rng = 600, np.random.default_rng(2)
    made = replace(candidate(2, items, people=1, temperature=1.0, popularity=0.0), neighbours=Neighbours())
    history = [Event("i3", "play", NOW - 5 * DAY), *life(items, 4, rng)]
    best = np.argsort(-scored(replace(made, fusion=Fusion.start(0.0, 0.0)), history, True), kind="stable")
    count = np.zeros(items + 1)
    count[best[-100:-50]], count[best[105:115]] = 1.01, 1.0
    made = replace(made, counts=replace(made.counts, count=count), fusion=Fusion.start(0.1, 0.45))
    snapshot = Snapshot.load(publish(made))
    assert set(np.argsort(-scored(made, history, True))[:10]) == set(best[105:115])
    same_list(made, snapshot, history, 10, exclude_seen=True)


@pytest.mark.parametrize("seed", range(2))
def test_it_holds_for_a_large_catalogue_where_towers_are_sharp(seed: int, publish: Callable[[Candidate], Release]) -> None:
    items, rng = 600, np.random.default_rng([seed, 3])
    made = candidate(seed, items, people=200)
    snapshot = Snapshot.load(publish(made))
    for length in (1, 4, 20):
        for k in (10, 150):
            same_list(made, snapshot, [Event("i3", "play", NOW - 5 * DAY), *life(items, length, rng)], k, exclude_seen=True)


@pytest.mark.parametrize("seed", range(8))
def test_no_row_that_was_not_looked_at_is_worth_more_than_is_said(seed: int) -> None:
    rng, n, dim = np.random.default_rng(seed), 80, 4
    table = rng.normal(size=(n + 1, dim)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    bias, share = rng.normal(size=n + 1).astype(np.float32), rng.dirichlet(np.full(n + 1, 0.3))
    user, weights, scale = table[3], rng.dirichlet(np.ones(3))[:2], 3.0
    logit = scale * (table @ user + bias)
    nearest, popular = 1 + np.argsort(-logit[1:])[:20], 1 + np.argsort(-share[1:])
    voted, vote = np.sort(1 + rng.permutation(n)[:40]), rng.dirichlet(np.full(40, 5.0))
    late = np.zeros((0, dim), np.float32)
    base, bias, late, share = map(voting.seal, (table, bias, late, share))
    vote = vote.astype(np.float32)
    nobody, out, none, factor = np.zeros(1, np.int64), voting.seal(np.zeros(0, bool)), np.zeros(0, np.int64), np.zeros(0)
    asked = (nearest, voted, vote, nobody, out, popular, none, factor)
    rows, said, limit = opinions(*asked, base, late, bias, share, user, scale, weights, 5)
    top = np.sort(logit[nearest])
    whole = (1 - weights.sum()) * np.exp(logit - (top[-1] + np.log(np.exp(top - top[-1]).sum()))) + weights[1] * share
    whole[voted] += weights[0] * vote
    np.testing.assert_allclose(said.sum(axis=0), whole[rows], rtol=1e-4)
    others = np.setdiff1d(np.arange(1, n + 1), rows)
    assert whole[others].max() <= limit + 1e-9
    parts = [(1 - weights.sum()) * np.exp(logit[nearest].min() - (top[-1] + np.log(np.exp(top - top[-1]).sum()))),
             weights[0] * np.sort(vote)[-6], weights[1] * share[popular[4]]]  # fmt: skip
    assert limit == pytest.approx(sum(parts), rel=1e-4)  # and no more than that, or lists would be taken longer for nothing


@pytest.mark.parametrize("k", [1, 20, 64, 65, 200])
@pytest.mark.parametrize("order", ["random", "ascending", "descending", "equal"])
def test_the_best_and_the_largest_are_those_of_a_sort(k: int, order: str) -> None:
    rng = np.random.default_rng(k)
    values = rng.integers(-1, 60, 300) / 60.0
    if order != "random":
        values = {"ascending": np.sort(values), "descending": -np.sort(-values), "equal": np.full(300, 0.5)}[order]
    ordered = -np.sort(-values)
    assert _largest(values, k) == (ordered[k - 1], max(ordered[k], 0.0))
    assert _largest(values, 300) == (-1.0, 0.0)
    rows = rng.permutation(1000)[:300]
    found, score, _ = best(rows, np.array([values, np.zeros(300), np.zeros(300)]), np.zeros(0), k)
    expected = [at for at in np.lexsort((rows, -values))[:k] if values[at] > 0]
    assert found.tolist() == rows[expected].tolist()
    assert score.tolist() == values[expected].tolist()


def test_nothing_is_compiled_while_people_wait(publish: Callable[[Candidate], Release]) -> None:
    """Each inner loop for one type of each argument, whatever is asked of whom: another would take seconds in somebody's request."""
    items, rng = 300, np.random.default_rng(3)
    made = candidate(3, items, people=100)
    inexact = made.settings.model_copy(update={"index": made.settings.index.model_copy(update={"exact_below": 0})})
    snapshot = Snapshot.load(publish(replace(made, settings=inexact)))
    some = life(items, 5, rng)
    put = pa.Table.from_pylist([{"item_id": "late", "title": "Late", "genres": ["Drama"], "withdrawn": 0}])
    for one in (snapshot, snapshot.stocked(merge([SCHEMA.empty_table(), put])), snapshot.heated({"i3": 5.0})):
        for exclude_seen in (True, False):
            one.recommend(some, 20, exclude_seen)
            one.recommend(some, 200, exclude_seen, include_items=[f"i{n}" for n in range(1, 150)])
            one.recommend([*some, Event("i9", "dislike", NOW)], 20, exclude_seen)
        because(one, some, one.recommend(some, 3))
        one.recommend_many([Ask(History.of(life(items, n, rng)), 20) for n in (1, 9, 3)])
    for memory in (made.neighbours, snapshot.neighbours):
        for kind in (np.int32, np.int64):
            past = Histories(np.array([0, 2]), np.array([1, 2], kind), np.array([2, 2], np.int8), np.array([NOW - 1, NOW]))
            memory.votes(past, np.array([NOW]))
            memory.votes(past, np.array([NOW]), np.array([7], np.uint64))
    for loop in (voting.occurrences, voting.near, voting.votes, voting.summed, opinions, best, first, feed, stock._found, indexes.joined):
        assert len(loop.signatures) == 1, loop


@pytest.mark.parametrize("fresh", [3.0, 0.2])
def test_it_holds_where_new_items_are_lifted(fresh: float, publish: Callable[[Candidate], Release]) -> None:
    """New ones are brought forward, or back, by the factor and by nothing else; also those that no list of the best holds."""
    items, rng = 600, np.random.default_rng(8)
    plain = candidate(8, items, people=200)
    first = np.where(rng.random(items + 1) < 0.3, NOW - 7 * DAY, NOW - 7 * DAY - 1)
    plain = replace(plain, counts=replace(plain.counts, first=first))
    neighbours = plain.settings.neighbours.model_copy(update={"fresh": fresh})
    made = replace(plain, settings=plain.settings.model_copy(update={"neighbours": neighbours}))
    snapshot, other = Snapshot.load(publish(made)), 0
    for length in (1, 4, 20):
        history = [Event("i3", "play", NOW - 5 * DAY), *life(items, length, rng)]
        before, now = scored(plain, history, True), scored(made, history, True)
        allowed = ~np.isneginf(before)
        np.testing.assert_allclose(now[allowed] / before[allowed], np.where(first == NOW - 7 * DAY, fresh, 1.0)[allowed], rtol=1e-5)
        other += set(np.argsort(-before)[:20]) != set(np.argsort(-now)[:20])
        for k in (10, 150):
            same_list(made, snapshot, history, k, exclude_seen=True)
    assert other == 3
    nobody, now = Histories(np.zeros(2, np.int64), *np.zeros((3, 0), np.int64)), np.array([NOW])  # is shown what is popular
    np.testing.assert_array_equal(*(it.fused(nobody, now, it.vectors(), None) for it in (plain, made)))


@pytest.mark.parametrize("fuse", [True, False])
def test_it_holds_where_what_is_disliked_has_many_near_copies(fuse: bool, publish: Callable[[Candidate], Release]) -> None:
    """A hundred and fifty of the items that the towers find first are copies of one that is disliked, more than are looked at at once."""
    items = 600
    made = candidate(8, items, people=100, popularity=0.0, **{"neighbours.fuse": fuse})
    history = [Event(f"i{row}", "watch", NOW - row) for row in range(600, 595, -1)]
    first = np.argsort(-scored(made, history, True), kind="stable")
    copies = [row for row in first[:150].tolist() if row]
    with torch.no_grad():
        own = made.towers.items.ids.weight
        own[copies] = own[copies[0]] * (1 + torch.arange(len(copies))[:, None] / 100)
    snapshot = Snapshot.load(publish(made))
    refusing = [*history, Event(made.vocab.ids[copies[0]], "dislike", NOW)]
    for k in (10, 150, 590):
        same_list(made, snapshot, refusing, k, exclude_seen=True)
        shown = {made.vocab.row(item["item_id"]) for item in snapshot.recommend(refusing, k)}
        assert not shown & set(copies)
    assert len(shown) == items - len({*copies, *range(596, 601)})


def test_it_holds_where_nobody_votes(publish: Callable[[Candidate], Release]) -> None:
    made = replace(candidate(5, 80, people=1), neighbours=Neighbours())
    snapshot, rng = Snapshot.load(publish(made)), np.random.default_rng(5)
    for length in (1, 8):
        history = [Event("i3", "play", NOW), *life(80, length, rng)]
        assert same_list(made, snapshot, sorted(history, key=lambda event: event.timestamp), 20, True) <= {"tower", "popular"}


def test_it_holds_where_the_towers_alone_are_served(publish: Callable[[Candidate], Release]) -> None:
    changed = {"neighbours.fuse": False}
    made = candidate(6, 80, 60, **changed)
    snapshot, rng = Snapshot.load(publish(made)), np.random.default_rng(6)
    assert snapshot.fusion is None
    history = [Event("i3", "play", NOW - 5 * DAY), *life(80, 8, rng)]
    for exclude_seen in (True, False):
        assert same_list(made, snapshot, history, 20, exclude_seen) == {"tower"}
    fused = Snapshot.load(publish(candidate(6, 80, 60)))
    assert [item["item_id"] for item in fused.recommend(history, 20)] != [item["item_id"] for item in snapshot.recommend(history, 20)]


def test_who_has_seen_everything_is_recommended_nothing(publish: Callable[[Candidate], Release]) -> None:
    snapshot = Snapshot.load(publish(candidate(7, 10, 5)))
    everything = [Event(f"i{row}", "play", NOW + row) for row in range(1, 11)]
    assert snapshot.recommend(everything, 5) == []
    assert len(snapshot.recommend(everything, 50, exclude_seen=False)) == 10


def test_a_release_reads_back_with_its_neighbours_and_its_weights(publish: Callable[[Candidate], Release]) -> None:
    made = candidate(8, 80, 60)
    release = publish(made)
    read = Candidate.load(release)
    assert len(made.neighbours) == 60
    for name in ("owner", "start", "item", "time"):
        assert np.array_equal(getattr(read.neighbours, name), getattr(made.neighbours, name)), name
    np.testing.assert_allclose(read.fusion.weights, made.fusion.weights, atol=1e-6)
    np.testing.assert_allclose(read.again.fused, made.again.fused, atol=1e-6)
    history = [Event("i3", "play", NOW - 5 * DAY), *life(80, 8, np.random.default_rng(0))]
    np.testing.assert_allclose(scored(read, history, True), scored(made, history, True), rtol=1e-4, atol=1e-6)


def test_the_capacity_that_an_update_is_given_holds_from_then_on(publish: Callable[[Candidate], Release]) -> None:
    made = candidate(9, 80, 60)
    read = Candidate.load(publish(made), load_settings(overrides={**TINY, "neighbours.capacity": 50}, environ={}))
    assert read.neighbours.capacity == 50
    read.neighbours.add(timelines(80, 1, np.random.default_rng(1)))
    assert 0 < len(read.neighbours.item) <= 50
