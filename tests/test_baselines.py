"""Every baseline: one contract for all, and for each a world small enough to be worked out by hand."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from replay_worlds import DAY, a_log, log_of

from eval.baselines import BASELINES, Baseline, baseline, defaults, shared
from eval.timeline import Queries, Rules, Timeline
from recsys.errors import BadInput
from recsys.events import CODE
from recsys.sessions import Histories
from recsys.settings import load_settings

TINY = load_settings(environ={}, overrides={"training.threads": 1})
RULES = Rules()
FOREVER = 1e5  # days after which an event counts half: nothing fades in these worlds
CHANGED = {
    "popular": {"half_life": 50.0},
    "rules": {"steps": 1, "newest": 1, "fading": 30.0, "half_life": 0.5, "popularity": 0.0},
    "itemknn": {"shrink": 0.0, "reach": 1, "newest": 1, "fading": 30.0, "half_life": 0.5, "popularity": 0.0},
    "knn": {"nearest": 1, "newest": 1, "fading": 30.0, "days": 0.5, "popularity": 0.0, "returning": 1.0},
    "als": {
        "factors": 3,
        "regularization": 9.0,
        "alpha": 3.0,
        "iterations": 1,
        "rounds": 5,
        "newest": 1,
        "fading": 0.5,
        "popularity": 9.0,
    },
    "bpr": {
        "factors": 3,
        "learning_rate": 0.2,
        "regularization": 0.5,
        "iterations": 1,
        "update_iterations": 90,
        "newest": 1,
        "fading": 0.5,
        "steps": 1,
        "rate": 0.1,
        "popularity": 9.0,
    },
}


def made(name: str, **own: float) -> Baseline:
    return baseline(name, TINY, own)


def timeline(events: pa.Table, days: int) -> Timeline:
    return Timeline(events, np.arange(days) * DAY * 1000)


def asked(world: Timeline, window: int) -> Queries:
    return next(world.questions(window, RULES).blocks())[0]


def history(world: Timeline, *items: str, now: float = 9 * DAY) -> Queries:
    """One person who clicked these, a second apart, and asks at `now`."""
    time = 1000 * (round(now) - np.arange(len(items), 0, -1))
    past = Histories(np.array([0, len(items)]), world.vocab.rows(items), np.full(len(items), CODE["click"], np.int8), time)
    return Queries(past, np.array([1000 * round(now)]), len(world.vocab))


def of(world: Timeline, scores: np.ndarray, *items: str) -> list[float]:
    return scores[0, world.vocab.rows(items)].tolist()


def learned_in_days(name: str, world: Timeline, *days: int, **own: float) -> Baseline:
    """A baseline that learned day after day: with 0, 2, 3 the first two days at once, then the third."""
    method = made(name, **own)
    for first, behind in pairwise(days):
        method.learn(world.lesson(first, behind))
    return method


def test_every_baseline_is_found():
    assert sorted(BASELINES) == ["als", "bpr", "itemknn", "knn", "popular", "rules"]
    assert all(name == kind.name for name, kind in BASELINES.items())
    assert {name for name, kind in BASELINES.items() if kind.random} == {"als", "bpr"}


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_baseline_learns_window_by_window_and_scores_the_whole_vocabulary(name):
    world = timeline(a_log(), 8)
    method, again = made(name), made(name)
    sizes = []
    for window, begin in ((4, 0), (5, 4), (6, 5)):
        lesson = world.lesson(begin, window)
        learned = method.learn(lesson)
        assert learned.examples >= len(lesson.events)
        assert again.learn(lesson) == learned
        queries = asked(world, window)
        scores = method.scores(queries)
        assert scores.shape == (len(queries), len(lesson.vocab))
        assert scores.dtype == np.float32
        assert np.isfinite(scores[:, 1:]).all(), "a baseline can recommend every item"
        assert (method.scores(queries) == scores).all(), "asking must not change the answer"
        assert (again.scores(queries) == scores).all(), "the same seed and the same log give the same scores"
        sizes.append(method.size())
    new = world.rows_before(4)
    assert len(np.unique(scores[:, new:])) > 1, "what is new is not all alike"
    assert all(isinstance(size, int) for size in sizes)
    assert 0 < sizes[0] < sizes[-1]


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_what_nobody_knows_does_not_disturb(name):
    world = timeline(a_log(), 8)
    method = learned_in_days(name, world, 0, 6)
    rows = world.rows_before(6)
    items = np.array([0, 1, rows + 5, 2, 0])
    past = Histories(np.array([0, 0, 3, 5, 5]), items, np.full(5, CODE["click"], np.int8), np.arange(5) * 1000)
    now = np.full(4, 6 * DAY * 1000)
    scores = method.scores(Queries(past, now, rows))
    assert scores.shape == (4, rows)
    assert np.isfinite(scores).all()
    popular = learned_in_days("popular", world, 0, 6).scores(Queries(past, now, rows))
    for empty in (0, 3):
        assert (np.argsort(-scores[empty], kind="stable") == np.argsort(-popular[empty], kind="stable")).all()
    wider = method.scores(Queries(past, now, rows + 9))  # items that appeared since it learned
    assert wider.shape == (4, rows + 9)
    assert np.allclose(wider[:, :rows], scores, atol=1e-6)


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_log_in_which_nobody_likes_anything_is_no_error(name):
    world = timeline(log_of(("u", "x", 1, "skip"), ("u", "y", 2, "skip"), ("u", "x", DAY, "skip"), ("u", "x", 2 * DAY)), 3)
    method = learned_in_days(name, world, 0, 1, 2)
    assert (method.scores(history(world, "y")) == 0).all()
    method.learn(world.lesson(2, 3))
    assert method.scores(history(world))[0].argmax() == world.vocab.row("x")


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_what_is_disliked_is_no_reason_to_recommend(name):
    world = timeline(a_log(), 8)
    method = learned_in_days(name, world, 0, 6)
    past = Histories(np.array([0, 1]), np.array([1]), np.array([CODE["dislike"]], np.int8), np.array([6 * DAY * 1000]))
    none = Histories(np.array([0, 0]), *(column[:0] for column in (past.item, past.kind, past.time)))
    now, rows = np.array([6 * DAY * 1000]), world.rows_before(6)
    assert (method.scores(Queries(past, now, rows)) == method.scores(Queries(none, now, rows))).all()


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_no_score_depends_on_what_happens_later(name):
    events = a_log()
    cut = 5 * DAY + 7 * 60  # in the middle of the window that is asked
    early = events.filter(pa.array([time.timestamp() < cut for time in events["timestamp"].to_pylist()]))
    otherwise = pa.concat_tables([early, log_of(*((f"u{n}", f"other{n % 3}", cut + n) for n in range(9)))])
    answers = []
    for log in (events, otherwise):
        world = timeline(log, 8)
        method = learned_in_days(name, world, 0, 3, 5)
        queries = asked(world, 5)
        answers.append(method.scores(queries)[queries.now < cut * 1000])
    assert len(answers[0]) >= 5
    assert np.allclose(*answers, rtol=1e-4, atol=1e-6)  # the size of a block may turn the last bit


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_every_setting_changes_something_and_is_shown_with_its_default(name):
    world = timeline(a_log(), 8)
    assert CHANGED[name].keys() == defaults(name).keys()
    queries = asked(world, 6)
    usual = learned_in_days(name, world, 0, 4, 6).scores(queries)
    for setting, value in CHANGED[name].items():
        assert value != defaults(name)[setting]
        assert not np.allclose(learned_in_days(name, world, 0, 4, 6, **{setting: value}).scores(queries), usual), setting


@pytest.mark.parametrize(
    ("name", "own", "says"),
    [
        ("knn", {"nearst": 3}, "knn has no setting 'nearst'; did you mean 'nearest'"),
        ("popular", {"k": 3}, "popular has no setting 'k'; allowed: half_life"),
        ("popular", {"half_life": 0}, "popular.half_life is a number from 0.001 to 100000; got 0"),
        ("als", {"factors": 64.5}, "als.factors is a whole number from 1 to 1024; got 64.5"),
        ("bpr", {"steps": True}, "bpr.steps is a whole number"),
        ("itemknn", {"shrink": "ten"}, "itemknn.shrink is a number from 0 to 1e.06; got 'ten'"),
        ("rules", {"fading": float("nan")}, "rules.fading is a number"),
    ],
)
def test_a_setting_that_cannot_be_is_one_clear_line(name, own, says):
    with pytest.raises(BadInput, match=says.replace("(", r"\(")) as error:
        made(name, **own)
    assert "\n" not in str(error.value)


def test_popularity_fades():
    events = log_of(*(("u", "old", n) for n in range(3)), ("u", "new", 3 * DAY), ("u", "new", 3 * DAY))
    world = Timeline(events, np.array([0, DAY * 1000]))
    method = made("popular", half_life=3)
    method.learn(world.lesson(0, 1))
    assert method.count.tolist() == pytest.approx([0, 3], abs=1e-4)
    method.learn(world.lesson(1, 2))
    assert method.count.tolist() == pytest.approx([0, 1.5, 2], abs=1e-4)
    assert of(world, method.scores(history(world)), "old", "new") == pytest.approx([1.5 / 3.5, 2 / 3.5], abs=1e-4)


def test_a_rule_weighs_one_by_the_steps_it_took():
    """x y z and x z: x -> y weighs 1, x -> z 1/2 + 1, y -> z 1."""
    world = timeline(log_of(("a", "x", 1), ("a", "y", 2), ("a", "z", 3), ("b", "x", 4), ("b", "z", 5)), 2)
    own = {"half_life": FOREVER, "popularity": 0, "newest": 2, "fading": 1}
    method = learned_in_days("rules", world, 0, 1, **own)
    assert of(world, method.scores(history(world, "x")), "x", "y", "z") == pytest.approx([0, 0.4, 0.6], abs=1e-4)
    assert of(world, method.scores(history(world, "z")), "x", "y", "z") == pytest.approx([0.4, 0.2, 0.4], abs=1e-4), "no rule: popularity"
    y, x = 1, np.exp(-1)  # the newest item counts 1, the one before it 1/e
    votes = np.array([0, 1 * x, 1.5 * x + 1 * y])
    assert of(world, method.scores(history(world, "x", "y")), "x", "y", "z") == pytest.approx(votes / votes.sum(), abs=1e-4)
    assert of(world, learned_in_days("rules", world, 0, 1, **own | {"steps": 1}).scores(history(world, "x")), "y", "z") == [0.5, 0.5]


def test_a_rule_counts_half_after_its_half_life():
    world = timeline(log_of(("a", "x", 1), ("a", "y", 2), ("b", "x", 2 * DAY - 1), ("b", "z", 2 * DAY + 2)), 4)
    method = learned_in_days("rules", world, 0, 1, 3, half_life=2, popularity=0)
    assert of(world, method.scores(history(world, "x")), "y", "z") == pytest.approx([1 / 3, 2 / 3], abs=1e-4)


def test_likeness_is_the_cosine_held_down_where_little_is_known():
    """Three timelines hold x y, x y x and x z: x and y share 2 of 3 and 2, x and z share 1 of 3 and 1."""
    rows = [("a", "x", 1), ("a", "y", 2), ("b", "x", 3), ("b", "y", 4), ("b", "x", 5), ("c", "z", 6), ("c", "x", 7)]
    world = timeline(log_of(*rows), 2)
    for shrink in (0, 2):
        method = learned_in_days("itemknn", world, 0, 1, shrink=shrink, half_life=FOREVER, popularity=0)
        votes = np.array([0, 2 / (6**0.5 + shrink), 1 / (3**0.5 + shrink)])
        assert of(world, method.scores(history(world, "x")), "x", "y", "z") == pytest.approx(votes / votes.sum(), abs=1e-4)


@pytest.mark.parametrize(("name", "kept"), [("rules", "weight"), ("itemknn", "likeness"), ("popular", "count")])
def test_counting_day_by_day_is_counting_at_once(name, kept, monkeypatch):
    """Timelines go on over the days, with repeats; the pairs are counted a few at a time."""
    world = timeline(a_log(), 8)
    at_once = getattr(learned_in_days(name, world, 0, 7), kept)
    monkeypatch.setattr(shared, "PAIRS", 7)
    by_day = getattr(learned_in_days(name, world, 0, 2, 3, 4, 5, 6, 7), kept)
    assert np.allclose(*(x if isinstance(x, np.ndarray) else x.toarray() for x in (at_once, by_day)), rtol=1e-4)
    assert at_once.sum() > 0


def test_knn_puts_what_neighbours_watched_next_before_what_is_popular():
    rows = [(f"u{n}", "hit", n) for n in range(20)] + [("a", "x", 30), ("a", "y", 31), ("b", "x", DAY + 1), ("b", "y", DAY + 2)]
    world = timeline(log_of(*rows), 2)
    scores = learned_in_days("knn", world, 0, 1, popularity=0.1).scores(asked(world, 1))[1]  # b has watched x
    x, y, hit = world.vocab.rows(["x", "y", "hit"])
    assert scores[y] > scores[hit] > 0
    assert scores[x] > scores[hit]


def test_votes_and_popularity_are_mixed_as_two_chances():
    world = timeline(log_of(*((f"u{n}", "hit", n) for n in range(8)), ("a", "x", 30), ("a", "y", 31)), 2)
    popular = learned_in_days("popular", world, 0, 1, half_life=FOREVER)
    votes = np.zeros((2, len(world.vocab)), np.float32)
    votes[0, world.vocab.rows(["x", "y"])] = (1, 3)
    scores = popular.blended(votes, 0.5)
    assert of(world, scores, "x", "y", "hit") == pytest.approx([0.25 + 0.05, 0.75 + 0.05, 0.4])
    assert of(world, scores[1:], "x", "y", "hit") == pytest.approx([0.1, 0.1, 0.8])


def test_als_places_new_people_and_items_by_its_partial_fit():
    pairs = [(f"{side}{n}", f"{side}-film{k}", 10 * n + k) for side in "ab" for n in range(10) for k in range(4) if (n + k) % 4]
    later = [(f"a-new{n}", film, DAY + 10 * n + k) for n in range(5) for k, film in enumerate(("a-film1", "a-film2", "a-brand-new"))]
    world = timeline(log_of(*pairs, *later), 3)
    method = learned_in_days("als", world, 0, 1, popularity=0)
    before = method.model.item_factors.copy()
    method.learn(world.lesson(1, 2))
    untouched = world.vocab.row("b-film1")
    assert (method.model.item_factors[untouched] == before[untouched]).all()
    new, *others = of(world, method.scores(history(world, "a-film1")), "a-brand-new", *(f"b-film{k}" for k in range(4)))
    assert new > max(others)


def test_als_solves_for_a_person_by_the_formula_of_the_paper():
    """(Y'Y + Y'(C - 1)Y + r) u = Y'Cp with C = alpha * weight for what was liked (implicit: at least 1) and 1 elsewhere."""
    world = timeline(a_log(), 8)
    alpha, r, fading = 7.0, 0.3, 4.0
    method = learned_in_days("als", world, 0, 7, factors=5, alpha=alpha, regularization=r, fading=fading, newest=2, popularity=0)
    queries = history(world, "film1", "film2", "film3")
    items = method.model.item_factors.astype(float)
    confidence, liked = np.ones(len(items)), np.zeros(len(items))
    confidence[world.vocab.rows(["film3", "film2"])] = alpha * np.exp([0, -1 / fading])
    liked[world.vocab.rows(["film3", "film2"])] = 1
    person = np.linalg.solve(items.T @ (confidence[:, None] * items) + r * np.eye(5), items.T @ (confidence * liked))
    assert method.scores(Queries(queries.histories, queries.now, len(items)))[0] == pytest.approx(items @ person, abs=1e-4)


def test_a_rate_at_which_bpr_runs_away_is_one_clear_line():
    with pytest.raises(BadInput, match=r"bpr.learning_rate = 10 is too high"):
        learned_in_days("bpr", timeline(a_log(), 8), 0, 7, learning_rate=10, regularization=9, iterations=100)


def test_bpr_works_out_a_person_by_steps_down_its_loss():
    """One factor and a bias; the mean item is (0, 0). After x, a step of 1 from 0 moves by 1/2 * 1, for BPR is wrong half of the time."""
    world = timeline(log_of(("a", "x", 1), ("b", "y", 2)), 2)
    method = learned_in_days("bpr", world, 0, 1, factors=1, regularization=0.1, steps=1, rate=1.0, popularity=0)
    method.items = np.array([[0, 0], [1, 0.2], [-1, -0.2]], np.float32)
    method.middle = np.zeros(2, np.float32)
    wrong = 1 / (1 + np.exp(0.2))  # before the step only the bias tells x from the mean
    assert of(world, method.scores(history(world, "x")), "x", "y") == pytest.approx([wrong + 0.2, -wrong - 0.2])
    method.steps = 2
    second = wrong + 1 / (1 + np.exp(wrong + 0.2)) - 0.1 * wrong
    assert of(world, method.scores(history(world, "x")), "x", "y") == pytest.approx([second + 0.2, -second - 0.2])


def test_bpr_trains_on_from_where_it_stands():
    pairs = [(f"{side}{n}", f"{side}-film{k}", 10 * n + k) for side in "ab" for n in range(10) for k in range(4) if (n + k) % 4]
    sets = (("a-film1", "a-film2", "a-brand-new"), ("a-film1", "a-film3", "a-brand-new"), ("a-film2", "a-film3"))
    later = [(f"a-new{n}", film, DAY + 10 * n + k) for n in range(12) for k, film in enumerate(sets[n % 3])]
    world = timeline(log_of(*pairs, *later), 3)
    method = learned_in_days("bpr", world, 0, 1, iterations=200, update_iterations=200, popularity=0)
    before = method.items.copy()
    assert np.ptp(of(world, method.scores(history(world, "a-film1")), "a-film2", "b-film2")) > 0.1
    method.learn(world.lesson(1, 2))
    untouched, touched = world.vocab.row("b-film1"), world.vocab.row("a-film1")
    assert (method.items[untouched] == before[untouched]).all()
    assert (method.items[touched] != before[touched]).any()
    assert np.abs(method.items[touched] - before[touched]).max() < np.abs(before[touched]).max(), "it goes on, it does not begin anew"
    new, *others = of(world, method.scores(history(world, "a-film1")), "a-brand-new", *(f"b-film{k}" for k in range(4)))
    assert new > max(others)
