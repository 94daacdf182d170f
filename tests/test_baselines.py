import numpy as np
import pyarrow as pa
import pytest
from replay_worlds import DAY, a_log, log_of

from eval.baselines import ALS, Knn, Popular
from eval.methods import BASELINES, Method, methods
from eval.timeline import Queries, Rules, Timeline, Window
from eval.towers import MODES, newest
from recsys.errors import BadInput
from recsys.sessions import Histories
from recsys.settings import Settings, load_settings
from training.strategies import STRATEGIES

TINY = load_settings(
    environ={},
    overrides={"model.dim": 8, "model.blocks": 1, "training.epochs": 1, "update.epochs": 1, "training.negatives": 8, "training.threads": 1},
)
EVERY = [*BASELINES, *MODES, *STRATEGIES, "replay(share=0.3)+ewc"]
RULES = Rules()


def made(name: str) -> Method:
    return methods(name, TINY)[0]


def timeline(events: pa.Table, days: int) -> Timeline:
    return Timeline(events, np.arange(days) * DAY * 1000)


def asked(world: Timeline, window: int) -> Queries:
    return next(world.questions(window, RULES).blocks())[0]


def test_every_method_is_found():
    assert len(EVERY) >= 9
    assert {"popular", "knn", "als", "frozen", "retrain", "naive", "replay", "ewc"} <= set(EVERY)


@pytest.mark.parametrize("name", EVERY)
def test_every_method_learns_window_by_window_and_answers_for_the_whole_vocabulary(name):
    world = timeline(a_log(), 8)
    method = made(name)
    assert method.name == name
    for window, learned in ((4, 0), (5, 4), (6, 5)):
        lesson = world.lesson(learned, window)
        method.learn(lesson)
        queries = asked(world, window)
        scores = method.scores(queries)
        assert scores.shape == (len(queries), len(lesson.vocab))
        assert scores.dtype == np.float32
        assert not np.isnan(scores).any()
        assert (method.scores(queries) == scores).all(), "asking must not change the answer"
    new = world.rows_before(4)
    assert new < world.rows_before(6)
    assert (scores[:, new:] > -np.inf).any() == (name != "frozen"), "all but the frozen one can recommend what is new"


@pytest.mark.parametrize("name", EVERY)
def test_no_answer_depends_on_what_happens_later(name):
    events = a_log()
    cut = 5 * DAY + 7 * 60  # in the middle of the window that is asked
    early = events.filter(pa.array([time.timestamp() < cut for time in events["timestamp"].to_pylist()]))
    otherwise = pa.concat_tables([early, log_of(*((f"u{n}", f"other{n % 3}", cut + n) for n in range(9)))])
    answers = []
    for log in (events, otherwise):
        world = timeline(log, 8)
        method = made(name)
        method.learn(world.lesson(0, 5))
        queries = asked(world, 5)
        answers.append(method.scores(queries)[queries.now < cut * 1000])
    assert len(answers[0]) >= 5
    assert np.allclose(*answers, rtol=1e-4, atol=1e-6)  # the size of a block may turn the last bit


@pytest.mark.parametrize("name", EVERY)
def test_somebody_without_a_history_is_shown_what_is_popular(name):
    rows = [(f"u{n}", item, 10 * n + k) for n in range(20) for k, item in enumerate(("hit", f"niche{n % 5}"))]
    world = timeline(log_of(*rows, ("stranger", "hit", DAY + 1)), 2)
    method = made(name)
    method.learn(world.lesson(0, 1))
    assert world.vocab.ids[method.scores(asked(world, 1))[0].argmax()] == "hit"


def test_popularity_fades():
    events = log_of(*(("u", "old", n) for n in range(3)), ("u", "new", Popular.half_life * DAY), ("u", "new", Popular.half_life * DAY))
    world = Timeline(events, np.array([0, DAY * 1000]))
    method = Popular(TINY)
    method.learn(world.lesson(0, 1))
    assert method.count.tolist() == pytest.approx([0, 3], abs=1e-4)
    method.learn(world.lesson(1, 2))
    assert method.count.tolist() == pytest.approx([0, 1.5, 2], abs=1e-4)


def test_knn_puts_what_neighbours_watched_next_before_what_is_popular():
    rows = [(f"u{n}", "hit", n) for n in range(20)] + [("a", "x", 30), ("a", "y", 31), ("b", "x", DAY + 1), ("b", "y", DAY + 2)]
    world = timeline(log_of(*rows), 2)
    method = Knn(TINY)
    method.learn(world.lesson(0, 1))
    scores = method.scores(asked(world, 1))[1]  # b has watched x
    x, y, hit = world.vocab.rows(["x", "y", "hit"])
    assert scores[y] > scores[hit] > 0
    assert scores[x] > scores[hit]


def test_als_places_new_people_and_items_by_its_partial_fit():
    pairs = [(f"{side}{n}", f"{side}-film{k}", 10 * n + k) for side in "ab" for n in range(10) for k in range(4) if (n + k) % 4]
    later = [(f"a-new{n}", film, DAY + 10 * n + k) for n in range(5) for k, film in enumerate(("a-film1", "a-film2", "a-brand-new"))]
    question = [("a-newest", "a-film1", 2 * DAY), ("a-newest", "a-brand-new", 2 * DAY + 1)]
    world = timeline(log_of(*pairs, *later, *question), 3)
    method = ALS(TINY)
    method.learn(world.lesson(0, 1))
    before = method.model.item_factors.copy()
    method.learn(world.lesson(1, 2))
    untouched = world.vocab.row("b-film1")
    assert (method.model.item_factors[untouched] == before[untouched]).all()
    scores = method.scores(asked(world, 2))[1]  # a-newest has watched a-film1
    assert scores[world.vocab.row("a-brand-new")] > max(scores[world.vocab.row(f"b-film{k}")] for k in range(4))


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("popular,knnn", "did you mean 'knn'?"),
        ("retain", "did you mean 'retrain'?"),
        ("replay+ewcc", "did you mean 'ewc'?"),
        ("knn+ewc", "no strategy"),
        ("knn(k=3)", "no strategy"),
        ("knn,knn", "stands twice"),
        (" , ", "no method"),
        ("replay(shar=0.5)", "did you mean 'share'?"),
    ],
)
def test_a_method_that_is_not_there_is_one_clear_line(expression, says):
    with pytest.raises(BadInput, match=says.replace("?", r"\?").replace("(", r"\(")) as error:
        methods(expression, Settings())
    assert "\n" not in str(error.value)


def test_commas_inside_a_strategys_settings_do_not_part_methods():
    names = [method.name for method in methods("popular, replay(share=0.3)+ewc(strength=100),knn", TINY)]
    assert names == ["popular", "replay(share=0.3)+ewc(strength=100)", "knn"]


def test_towers_that_number_items_otherwise_are_refused():
    world = timeline(a_log(), 8)
    lesson = world.lesson(0, 4)
    turned = Window(lesson.events, lesson.past, type(lesson.vocab)(reversed(lesson.vocab.ids[1:])), {})
    with pytest.raises(AssertionError, match="number the items otherwise"):
        made("naive").learn(turned)


def test_newest_keeps_the_end_of_each_history_and_only_known_items():
    past = Histories(np.array([0, 4, 4, 6]), np.array([1, 9, 2, 3, 9, 4]), np.ones(6, np.int8), 1000 * np.array([0, 20, 90, 90, 5, 9]))
    kept = newest(past, 2, 5)
    assert kept.start.tolist() == [0, 2, 2, 3]
    assert kept.item.tolist() == [2, 3, 4]
    assert kept.gap.tolist() == [0, 1, 0]
