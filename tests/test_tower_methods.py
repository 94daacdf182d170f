"""Methods of towers in a replay: what they share, what modifies them, and the matrix of their releases."""

import numpy as np
import pytest
from replay_worlds import DAY
from run_worlds import TINY, plan

from eval import replay as replays
from eval import towers
from eval.methods import methods
from eval.replay import replay
from eval.results import report
from eval.towers import TowersMethod
from recsys.errors import BadInput
from recsys.events import milliseconds
from training.strategies import parse


def test_towers_refuse_a_lesson_that_does_not_follow():
    method, timeline = methods("naive", TINY)[0], plan().timeline
    method.learn(timeline.lesson(0, 4))
    with pytest.raises(AssertionError, match="the lesson begins behind"):
        method.learn(timeline.lesson(5, 6))


def test_only_methods_that_draw_lots_run_under_every_seed():
    chosen = methods("popular,naive,knn", TINY, 3)
    assert [(method.name, method.random) for method in chosen] == [("popular", False), *[("naive", True)] * 3, ("knn", False)]
    assert [method.line.recipe.first.training.seed for method in chosen[1:4]] == [0, 1, 2]


def test_the_figures_are_the_mean_over_the_seeds():
    results = replay(plan(), methods("popular,naive", TINY, 3), ks=[3])
    assert [len(seeds) for seeds in results.answers.values()] == [1, 3]
    naive = report(results)["methods"]["naive"]
    assert len(set(naive["seeds"]["recall@3"])) > 1
    assert naive["macro"]["recall@3"] == pytest.approx(np.mean(naive["seeds"]["recall@3"]), abs=1e-5)
    alone = replay(plan(), methods("naive", TINY, 1), ks=[3])
    assert alone.macro("naive")["recall@3"] == pytest.approx(naive["seeds"]["recall@3"][0], abs=1e-5)


def test_methods_that_start_alike_fit_once_and_each_is_told_what_it_borrowed(monkeypatch):
    trained: list[str] = []
    honest = towers.fit

    def counted(events, settings, catalogue, trained_towers=None, **named):
        if named.get("trained") is None:
            trained.append(settings.update.strategy)
        return honest(events, settings, catalogue, **named)

    monkeypatch.setattr(towers, "fit", counted)
    chosen = methods("naive,naive+dropout,replay+ewc,frozen,recounted,retrain", TINY, 2)
    lesson = plan().timeline.lesson(0, 4)
    learned = [method.learn(lesson) for method in chosen]
    assert len(trained) == 2, "once for each seed"
    assert [each.seconds_borrowed > 0 for each in learned] == [False, False, *[True] * 10]
    assert len({each.examples for each in learned}) == 1
    assert learned[0].examples > 0


def test_examples_are_all_that_went_through_the_optimizer_and_replay_doubles_them(monkeypatch):
    naive, replay = methods("naive,replay(share=0.5)", TINY)
    timeline = plan().timeline
    for method in (naive, replay):
        method.learn(timeline.lesson(0, 4))
    new, both = (method.learn(timeline.lesson(4, 5)).examples for method in (naive, replay))
    assert new == TINY.update.epochs * naive.candidate.notes["examples"]
    assert both == 2 * new


def test_methods_of_one_line_update_once(monkeypatch):
    updates: list[int] = []
    honest = towers.update
    monkeypatch.setattr(towers, "update", lambda *given: updates.append(1) or honest(*given))
    line = methods("naive", TINY)[0].line
    both = [TowersMethod("one", line), TowersMethod("other", line)]
    timeline = plan().timeline
    for lesson in (timeline.lesson(0, 4), timeline.lesson(4, 5)):
        learned = [method.learn(lesson) for method in both]
    assert len(updates) == 1
    assert learned[0].seconds_borrowed == 0 < learned[1].seconds_borrowed
    assert learned[0].examples == learned[1].examples


def test_dropout_is_raised_in_the_updates_alone(monkeypatch):
    seen: list[tuple[str, float]] = []
    for name in ("fit", "update"):
        honest = getattr(towers, name)

        def noted(*given, name=name, honest=honest, **named):
            settings = given[1] if name == "fit" else given[3]
            seen.append((name, settings.model.dropout))
            return honest(*given, **named)

        monkeypatch.setattr(towers, name, noted)
    timeline = plan().timeline
    for method in methods("naive+dropout,naive+dropout(rate=0.6)", TINY):
        method.learn(timeline.lesson(0, 4))
        method.learn(timeline.lesson(4, 5))
    usual = TINY.model.dropout
    assert seen == [("fit", usual), ("update", 0.5), ("fit", usual), ("update", 0.6)]


def test_window_learns_the_newest_windows_alone_and_does_not_recommend_what_they_lack(monkeypatch):
    method = methods("window(n=1)", TINY)[0]
    seen: list[set[int]] = []
    honest = towers.fit

    def noted(events, *given, **named):
        seen.append({int(time.timestamp() // DAY) for time in events["timestamp"].to_pylist()})
        return honest(events, *given, **named)

    monkeypatch.setattr(towers, "fit", noted)
    world = plan()
    method.learn(world.timeline.lesson(0, 4))
    method.learn(world.timeline.lesson(4, 5))
    assert seen == [{3}, {4}]
    queries = next(world.timeline.questions(5, world.rules).blocks())[0]
    lesson = world.timeline.lesson(4, 5)
    recent = {row["item_id"] for row in lesson.events.to_pylist()}
    scores = method.scores(queries)
    assert {lesson.vocab.ids[row] for row in np.flatnonzero((scores > -np.inf).all(axis=0))} == {"<unknown>", *recent}
    assert len(recent) < len(lesson.vocab) - 1


def test_strategies_are_written_here_as_an_update_takes_them():
    for name in ("replay(by=recent, share=.3)+adapters(items=false)", "replay(by='recent')"):
        assert [method.name for method in methods(name, TINY)] == [name]
        assert parse(name).parts[0].by == "recent"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("window(n=0)", "a whole number from 1 on; got 0"),
        ("window(m=2)", "did you mean 'n'|allowed: n"),
        ("naive+dropout(rate=1)", "from 0 to below 1; got 1"),
        ("dropout", "not by what strategy"),
        ("retrain+naive", "no strategy"),
        ("retrain(every=0)", "a whole number from 1 on; got 0"),
        ("frozen(n=2)", "it has none"),
        ("window(n=many)", "a whole number from 1 on; got 'many'"),
        ("window(n=1, n=2)", "window.n stands twice"),
        ("window(3)", r"written by name, window\(name=value\); got '3'"),
        ("naive++ewc", "cannot read the method ''"),
        ("naive)", "cannot read"),
    ],
)
def test_a_name_that_cannot_be_is_one_clear_line(name, says):
    with pytest.raises(BadInput, match=says) as error:
        methods(name, TINY)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("exported_once")
def test_the_matrix_holds_what_each_release_finds_in_each_window(tmp_path):
    world = plan()
    results = replay(world, methods("popular,naive,frozen", TINY), ks=[3], matrix=True)
    assert results.answers["popular"][0][0].matrix is None
    naive = np.array([answers.matrix for answers in results.answers["naive"][0]])
    assert naive.shape == (4, 4)
    live = [row["recall@3"] for row in results.per_window("naive")]
    assert np.diag(naive).tolist() == pytest.approx(live), "a window has fewer queries than the sample: all of them are asked"
    frozen = np.array([answers.matrix for answers in results.answers["frozen"][0]])
    assert (frozen == frozen[0]).all(), "what does not learn does not forget"
    assert report(results)["methods"]["frozen"]["forgetting"]["forgetting"] == 0
    assert report(results)["methods"]["popular"]["forgetting"] is None


def test_the_matrix_is_drawn_by_itself_where_windows_are_few(monkeypatch):
    assert replay(plan(), methods("frozen", TINY), matrix=None).answers["frozen"][0][0].matrix is not None
    monkeypatch.setattr(replays, "WINDOWS", 3)
    assert replay(plan(), methods("frozen", TINY), matrix=None).answers["frozen"][0][0].matrix is None


def test_retrain_every_other_window_serves_the_old_towers_in_between(monkeypatch):
    method = methods("retrain(every=2)", TINY)[0]
    fitted: list[int] = []
    honest = towers.fit
    monkeypatch.setattr(towers, "fit", lambda events, *given, **named: fitted.append(len(events)) or honest(events, *given, **named))
    timeline = plan().timeline
    learned = [method.learn(timeline.lesson(*lesson)).examples for lesson in ((0, 4), (4, 5), (5, 6), (6, 7))]
    assert fitted == [timeline.bounds[4], timeline.bounds[6]]
    assert [examples > 0 for examples in learned] == [True, False, True, False]
    assert method.line.upto == timeline.bounds[6]


def test_what_is_fitted_anew_measures_its_weights_by_the_release_before(monkeypatch):
    method = methods("retrain", TINY)[0]
    timeline = plan().timeline
    method.learn(timeline.lesson(0, 4))
    first, asked = method.candidate, []
    assert not first.fusion.asked.any()
    honest = towers.reweighed

    def noted(candidate, live, sessions, new, seed):
        asked.append((candidate is not live and live is first, sorted(sessions.time[new].tolist())))
        return honest(candidate, live, sessions, new, seed)

    monkeypatch.setattr(towers, "reweighed", noted)
    lesson = timeline.lesson(4, 5)
    method.learn(lesson)
    assert asked == [(True, sorted(milliseconds(lesson.events).tolist()))], "by the release before, about what only the newer one learned"
    assert method.candidate.fusion.asked.any()
    assert method.candidate.vocab.ids == timeline.lesson(4, 5).vocab.ids
