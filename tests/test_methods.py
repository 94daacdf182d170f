"""Every method by name, towers too: one contract for all, and clear words for a name that is not there."""

import numpy as np
import pyarrow as pa
import pytest
from replay_worlds import DAY, a_log, log_of

from eval.baselines import BASELINES
from eval.methods import Method, methods
from eval.side_by_side import side_by_side
from eval.timeline import Queries, Rules, Timeline
from eval.towers import MODES
from recsys.errors import BadInput
from recsys.settings import Settings, load_settings
from training.strategies import STRATEGIES

TINY = load_settings(
    environ={},
    overrides={"model.dim": 8, "model.blocks": 1, "training.epochs": 1, "update.epochs": 1, "training.negatives": 8, "training.threads": 1},
)
TOWERS = [*MODES, *STRATEGIES, "replay(share=0.3)+ewc"]
RULES = Rules()


def made(name: str) -> Method:
    return methods(name, TINY)[0]


def timeline(events: pa.Table, days: int) -> Timeline:
    return Timeline(events, np.arange(days) * DAY * 1000)


def asked(world: Timeline, window: int) -> Queries:
    return next(world.questions(window, RULES).blocks())[0]


def test_every_method_is_found():
    assert len(TOWERS) >= 6
    assert {"popular", "rules", "knn", "itemknn", "als", "bpr"} == set(BASELINES)
    assert {"frozen", "retrain", "naive", "replay", "ewc"} <= set(TOWERS)


@pytest.mark.parametrize("name", TOWERS)
def test_towers_learn_window_by_window_and_answer_for_the_whole_vocabulary(name):
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


@pytest.mark.parametrize("name", TOWERS)
def test_no_answer_of_towers_depends_on_what_happens_later(name):
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


@pytest.mark.parametrize("name", [*BASELINES, "replay+ewc", "replay+ewc+neighbours"])
def test_blocks_that_are_asked_at_once_get_the_answers_of_blocks_asked_one_by_one(name, monkeypatch):
    world = timeline(a_log(), 8)
    method = made(name)
    method.learn(world.lesson(0, 7))
    questions = world.questions(7, RULES)
    monkeypatch.setattr("eval.timeline.CELLS", 2 * questions.n_items)
    blocks = list(questions.blocks())
    assert len(blocks) >= 6
    alone = [method.scores(queries) for queries, _, _ in blocks]
    together = list(side_by_side(method.scores, [queries for queries, _, _ in blocks], cores=4))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("name", [*BASELINES, *TOWERS])
def test_somebody_without_a_history_is_shown_what_is_popular(name):
    rows = [(f"u{n}", item, 10 * n + k) for n in range(20) for k, item in enumerate(("hit", f"niche{n % 5}"))]
    world = timeline(log_of(*rows, ("stranger", "hit", DAY + 1)), 2)
    method = made(name)
    method.learn(world.lesson(0, 1))
    assert world.vocab.ids[method.scores(asked(world, 1))[0].argmax()] == "hit"


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("popular,knnn", "did you mean 'knn'?"),
        ("retain", "did you mean 'retrain'?"),
        ("replay+ewcc", "did you mean 'ewc'?"),
        ("knn+ewc", "no strategy"),
        ("knn(k=3)", "has no setting 'k'"),
        ("knn,knn", "stands twice"),
        (" , ", "no method"),
        ("replay(shar=0.5)", "did you mean 'share'?"),
    ],
)
def test_a_method_that_is_not_there_is_one_clear_line(expression, says):
    with pytest.raises(BadInput, match=says.replace("?", r"\?").replace("(", r"\(")) as error:
        methods(expression, Settings())
    assert "\n" not in str(error.value)


def test_commas_inside_settings_do_not_part_methods():
    expression = "popular, replay(share=0.3)+ewc(strength=100),knn(nearest=3, newest=2)"
    names = [method.name for method in methods(expression, TINY)]
    assert names == ["popular", "replay(share=0.3)+ewc(strength=100)", "knn(nearest=3, newest=2)"]
