"""A run is kept as it goes, can be stopped anywhere, and ends as if it had not been."""

import csv
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from replay_worlds import DAY, a_log

from eval import cost, towers
from eval import replay as replays
from eval.baselines import BASELINES
from eval.command import Question, evaluate, recompute
from eval.loggers import Loggers
from eval.methods import Released, methods
from eval.protocols import Plan, prequential
from eval.replay import replay
from eval.results import Results, report
from eval.run import Run, differences
from eval.timeline import Learned, Queries
from eval.towers import MODES, TowersMethod
from recsys import cli
from recsys.errors import BadInput
from recsys.events import milliseconds
from recsys.files import locked
from recsys.registry import Registry
from recsys.sessions import Pairs
from recsys.settings import load_settings
from training.strategies import STRATEGIES

TINY = load_settings(
    environ={},
    overrides={"model.dim": 8, "model.blocks": 1, "training.epochs": 2, "update.epochs": 1, "training.negatives": 8, "training.threads": 1},
)
EVERY = [*BASELINES, *MODES, *STRATEGIES, "naive+dropout", "replay(share=0.3)+ewc", "naive+neighbours"]


def plan() -> Plan:
    return prequential(a_log(), window_seconds=DAY, train=4)


def told(results: Results) -> dict[str, Any]:
    """All that a replay found but the time and memory it took."""
    return {
        f"{name} {seed} {each.window}": (
            each.ranks.tolist(), each.lists, each.cost.examples, each.cost.index_loss, each.cost.stale_loss,
            None if each.matrix is None else each.matrix.tolist(),
        )
        for name, seeds in results.answers.items() for seed, answers in enumerate(seeds) for each in answers
    }  # fmt: skip


def stopping(call: Callable[..., Any], at: int) -> Callable[..., Any]:
    """The same, but the `at`-th call is interrupted when it is half done."""
    calls = iter(range(1, 1000))

    def stops(*arguments: Any, **named: Any) -> Any:
        found = call(*arguments, **named)
        if next(calls) == at:
            raise KeyboardInterrupt
        return found

    return stops


@pytest.fixture(scope="module")
def exported_once() -> Iterator[None]:
    """Export the graph of the tower once: it takes seconds, and the releases of these tests have towers of one shape."""
    from training import export

    graphs: list[Any] = []
    honest = export._exported

    def remembered(tower: Any) -> Any:
        if not graphs:
            graphs.append(honest(tower))
        graph = type(graphs[0])()
        graph.CopyFrom(graphs[0])
        return export._with_weights(graph, tower)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_exported", remembered)
        yield


def test_the_contract_covers_every_method():
    assert len(EVERY) >= 12


@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("where", "at"), [("eval.replay.answer", 2), ("eval.replay.assert_unanswered", 3), ("eval.run.Run.write", 1)])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch, name, where, at):
    """Stopped after the release is published but nothing is answered; before a lesson; and right behind the first answer."""
    whole = replay(plan(), methods(name, TINY), run=Run(tmp_path / "whole"), matrix=True)
    run = Run(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(where, stopping(_resolve(where), at))
        with pytest.raises(KeyboardInterrupt):
            replay(plan(), methods(name, TINY), run=run, matrix=True)
    kept = sorted((tmp_path / "stopped" / "answers").rglob("*.npz"))
    assert len(kept) == {"eval.replay.answer": 1, "eval.replay.assert_unanswered": 2, "eval.run.Run.write": 1}[where]
    before = [path.read_bytes() for path in kept]
    resumed = replay(plan(), methods(name, TINY), run=run, matrix=True)
    assert told(resumed) == told(whole)
    assert len(told(whole)) == 4
    assert [path.read_bytes() for path in kept] == before, "what was answered is not answered again"


def _resolve(where: str) -> Any:
    module, name = where.rsplit(".", 1)
    return getattr(replays if module == "eval.replay" else Run, name)


@pytest.mark.usefixtures("exported_once")
def test_a_run_is_stopped_within_a_window_with_methods_that_share_their_towers(tmp_path, monkeypatch):
    expression = "popular,naive,naive+dropout,frozen"
    whole = replay(plan(), methods(expression, TINY, 2), run=Run(tmp_path / "whole"))
    run = Run(tmp_path / "stopped")
    for at in (4, 6, 9):  # answers that each part gives before it is stopped
        with monkeypatch.context() as patch:
            patch.setattr(Run, "write", stopping(Run.write, at))
            with pytest.raises(KeyboardInterrupt):
                replay(plan(), methods(expression, TINY, 2), run=run)
    assert told(replay(plan(), methods(expression, TINY, 2), run=run)) == told(whole)


@pytest.mark.usefixtures("exported_once")
def test_a_release_that_is_gone_is_learned_again(tmp_path, monkeypatch):
    whole = replay(plan(), methods("naive", TINY), run=Run(tmp_path / "whole"))
    run = Run(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", stopping(Run.write, 2))
        with pytest.raises(KeyboardInterrupt):
            replay(plan(), methods("naive", TINY), run=run)
    shutil.rmtree(run.releases)
    assert told(replay(plan(), methods("naive", TINY), run=run)) == told(whole)


@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize("releases", ["kept", "gone"])
def test_methods_of_one_line_go_on_together_wherever_each_was_stopped(tmp_path, monkeypatch, releases):
    expression = "naive,naive+neighbours"
    whole = replay(plan(), methods(expression, TINY), run=Run(tmp_path / "whole"))
    run = Run(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", stopping(Run.write, 3))  # the one has answered two windows, the other one
        with pytest.raises(KeyboardInterrupt):
            replay(plan(), methods(expression, TINY), run=run)
    if releases == "gone":
        shutil.rmtree(run.releases)
    assert told(replay(plan(), methods(expression, TINY), run=run)) == told(whole)


def test_towers_refuse_a_lesson_that_does_not_follow():
    method, timeline = methods("naive", TINY)[0], plan().timeline
    method.learn(timeline.lesson(0, 4))
    with pytest.raises(AssertionError, match="the lesson begins behind"):
        method.learn(timeline.lesson(5, 6))


@pytest.mark.usefixtures("exported_once")
def test_the_newest_two_releases_are_kept_and_nothing_is_a_pickle(tmp_path):
    run = Run(tmp_path)
    results = replay(plan(), methods("popular,naive,frozen", TINY), run=run)
    kept = {folder.name.split("-")[0]: Registry(folder).ids() for folder in run.releases.iterdir()}
    assert kept == {"naive": ["000003", "000004"], "frozen": ["000001"]}
    size = sum(path.stat().st_size for path in (run.releases).glob("naive*/000004/**/*") if path.is_file())
    assert results.answers["naive"][0][-1].cost.release_bytes == size
    files = list(tmp_path.rglob("*.npz"))
    assert len(files) == 4 + 3 * 4
    for path in files:
        with np.load(path, allow_pickle=False) as held:
            assert all(held[name].dtype != object for name in held.files)
    with np.load(next((tmp_path / "answers").rglob("0004.npz"))) as held:
        assert held["shown"].dtype == np.int32
        assert held["shown"].shape == (len(results.windows[0].owner), 20)


def test_a_half_written_file_is_no_answer(tmp_path):
    run = Run(tmp_path)
    whole = replay(plan(), methods("popular", TINY), run=run)
    path = next((tmp_path / "answers").rglob("0005.npz"))
    path.rename(path.with_name(".0005.npz.12345678.tmp"))
    assert not run.has("popular", 0, 5)
    assert told(replay(plan(), methods("popular", TINY), run=run)) == told(whole)


# ---- the command


def write_log(path: Path) -> Path:
    log = a_log()
    seconds = [time.timestamp() for time in log["timestamp"].to_pylist()]
    rows = zip(log["user_id"].to_pylist(), log["item_id"].to_pylist(), seconds, strict=True)
    path.write_text("user_id,item_id,timestamp\n" + "".join(f"{user},{item},{1_700_000_000 + time:.0f}\n" for user, item, time in rows))
    return path


def question(path: Path, **changed: Any) -> Question:
    asked: dict[str, Any] = {
        "protocol": "prequential", "data": (path,), "items": (), "home": None, "window": float(DAY), "train": 4, "cycles": None,
        "methods": "popular,knn", "ks": (5, 20), "exclude_seen": True, "filter_unseen": False, "seeds": 1, "matrix": None, "settings": TINY,
    }  # fmt: skip
    return Question(**asked | changed)


def test_results_follow_from_the_run_folder_alone(tmp_path):
    log = write_log(tmp_path / "log.csv")
    found = evaluate(question(log), "recsys evaluate ...", tmp_path / "run")
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == found
    assert set(found) == {
        "protocol", "command", "settings", "ks", "metrics", "baseline", "seeds", "versions", "machine", "started", "finished", "seconds",
        "windows", "methods",
    }  # fmt: skip
    assert found["command"] == "recsys evaluate ..."
    assert found["machine"]["cores"] >= 1
    log.unlink()
    assert recompute(Run(tmp_path / "run")) == found
    other = recompute(Run(tmp_path / "run"), baseline="knn")
    assert other["baseline"] == "knn"
    assert other["methods"]["popular"]["macro"] == found["methods"]["popular"]["macro"]


def test_a_resumed_command_answers_only_what_is_missing(tmp_path, monkeypatch):
    log = write_log(tmp_path / "log.csv")
    whole = evaluate(question(log), "x", tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", stopping(Run.write, 3))
        with pytest.raises(KeyboardInterrupt):
            evaluate(question(log), "x", tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()
    calls: list[str] = []
    honest = Run.write
    monkeypatch.setattr(Run, "write", lambda self, answers: (calls.append(answers.method), honest(self, answers)))
    resumed = evaluate(question(log), "x", tmp_path / "run", resume=True)
    assert len(calls) == 2 * 4 - 3
    assert [row["methods"]["knn"]["macro"] for row in (resumed, whole)] == [whole["methods"]["knn"]["macro"]] * 2


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"methods": "popular"}, r"methods was \[\"popular\", \"knn\"\], is \[\"popular\"\]"),
        ({"settings": load_settings(environ={}, overrides={"training.epochs": 9})}, "settings.training.epochs was 2, is 9"),
        ({"protocol": "next-session"}, 'protocol was "prequential", is "next-session"'),
    ],
)
def test_a_resume_of_another_question_says_what_differs(tmp_path, changed, says):
    log = write_log(tmp_path / "log.csv")
    evaluate(question(log), "x", tmp_path / "run")
    for resume in (True, False):
        with pytest.raises(BadInput, match=says):
            evaluate(question(log, **changed), "x", tmp_path / "run", resume=resume)
    assert (tmp_path / "run" / "results.json").exists()


def test_a_resume_may_ask_more_methods_and_seeds(tmp_path, monkeypatch):
    log = write_log(tmp_path / "log.csv")
    evaluate(question(log, methods="knn"), "short", tmp_path / "run")
    calls: list[tuple[str, int]] = []
    honest = Run.write
    monkeypatch.setattr(Run, "write", lambda self, answers: (calls.append((answers.method, answers.seed)), honest(self, answers)))
    asked = question(log, methods="popular,bpr,knn", seeds=2)
    more = evaluate(asked, "recsys evaluate --resume ...", tmp_path / "run", resume=True)
    assert set(calls) == {("popular", 0), ("bpr", 0), ("bpr", 1)}
    assert (list(more["methods"]), more["seeds"], more["command"]) == (["popular", "bpr", "knn"], 2, asked.line())
    assert "--resume" not in asked.line(), "a line that gives the same from nothing"
    with pytest.raises(BadInput, match="methods was"):
        evaluate(question(log, methods="knn"), "less", tmp_path / "run", resume=True)


def test_other_data_is_another_question(tmp_path):
    log = write_log(tmp_path / "log.csv")
    evaluate(question(log), "x", tmp_path / "run")
    (tmp_path / "there").mkdir()
    moved = log.rename(tmp_path / "there" / "log.csv")
    evaluate(question(moved), "x", tmp_path / "run", resume=True)  # where it lies does not matter
    moved.write_text(moved.read_text() + "u1,film1,1700900000\n")
    with pytest.raises(BadInput, match=r"files was .*log.csv"):
        evaluate(question(moved), "x", tmp_path / "run", resume=True)


def test_answers_are_thrown_away_only_when_that_is_asked_for(tmp_path, monkeypatch):
    log = write_log(tmp_path / "log.csv")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", stopping(Run.write, 3))
        with pytest.raises(KeyboardInterrupt):
            evaluate(question(log), "x", tmp_path / "run")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "answers").rglob("*.npz")}
    assert len(kept) == 3
    with pytest.raises(BadInput, match="holds 3 answers to this question; go on from there with --resume, or throw them away with --anew"):
        evaluate(question(log), "x", tmp_path / "run")
    with pytest.raises(BadInput, match=r"methods was .* add to it with --resume"):
        evaluate(question(log, methods="popular,knn,rules"), "x", tmp_path / "run")
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "answers").rglob("*.npz")}
    evaluate(question(log), "x", tmp_path / "run", anew=True)
    now = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "answers").rglob("*.npz")}
    assert len(now) == 8
    assert all(now[path] != then for path, then in kept.items())


def test_two_commands_do_not_answer_into_one_folder(tmp_path):
    log = write_log(tmp_path / "log.csv")
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"), pytest.raises(BadInput, match="another recsys evaluate is at work in"):
        evaluate(question(log), "x", tmp_path / "run")
    assert evaluate(question(log), "x", tmp_path / "run")["methods"].keys() == {"popular", "knn"}


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_answer_is_named_and_answered_again_when_it_is_gone(tmp_path, damage):
    log = write_log(tmp_path / "log.csv")
    whole = evaluate(question(log), "x", tmp_path / "run")
    path = next((tmp_path / "run" / "answers").rglob("0005.npz"))
    path.write_bytes(path.read_bytes()[:200] if damage is None else damage)
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(BadInput, match=r"0005\.npz is damaged .*; remove it, and --resume answers that window again"):
        evaluate(question(log), "x", tmp_path / "run", resume=True)
    path.unlink()
    again = evaluate(question(log), "x", tmp_path / "run", resume=True)
    assert [again["methods"][name]["macro"] for name in again["methods"]] == [whole["methods"][name]["macro"] for name in whole["methods"]]


def test_a_line_asks_what_it_was_made_of(tmp_path, monkeypatch):
    log = write_log(tmp_path / "a log.csv")
    seen: list[Question] = []
    monkeypatch.setattr("eval.command.evaluate", lambda asked, *given, **named: seen.append(asked) or _stop())
    asked = question(log, methods="knn,replay(share=0.3)+ewc", exclude_seen=False, filter_unseen=True, seeds=2, cycles=3, matrix=False)
    monkeypatch.setattr(sys, "argv", shlex.split(asked.line()))
    with pytest.raises(SystemExit):
        cli.main()
    assert seen[0].as_dict() == asked.as_dict()


def _stop() -> None:
    raise BadInput("far enough")


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    log = write_log(tmp_path / "log.csv")
    with pytest.raises(BadInput, match="holds no run"):
        evaluate(question(log), "x", tmp_path)
    assert log.exists()
    with pytest.raises(BadInput, match=r"no run in .* to go on with"):
        evaluate(question(log), "x", tmp_path / "never", resume=True)
    assert not (tmp_path / "never").exists()


def test_the_default_folder_goes_by_what_is_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log, folders = write_log(tmp_path / "log.csv"), []
    for asked in (question(log), question(log), question(log, ks=(10,)), question(log, home=tmp_path / "home")):
        evaluate(asked, "x", opened=folders.append, anew=True)
    assert folders[0] == folders[1] != folders[2]
    assert folders[0].parent == tmp_path / ".recsys" / "reports"
    assert folders[0].name.startswith("prequential-")
    assert folders[3] == tmp_path / "home" / "reports" / folders[0].name


def test_differences_name_every_place():
    old, new = {"a": 1, "b": {"c": [1], "d": 2}}, {"a": 1, "b": {"c": [2], "e": 3}}
    assert differences(old, new) == ["b.c was [1], is [2]", "b.d was 2, is null", "b.e was null, is 3"]


def test_ctrl_c_says_how_to_go_on_and_the_line_works(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECSYS_HOME", raising=False)
    write_log(tmp_path / "log.csv")

    def recsys(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["recsys", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capsys.readouterr()

    asked = ["evaluate", "--data", "log.csv", "--window", "1d", "--train", "4", "--methods", "popular,knn", "--run", "the run"]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", stopping(Run.write, 3))
        code, _, said = recsys(*asked)
    assert code == 130
    line = "recsys evaluate --run 'the run' --resume"
    assert f"to go on: {line}" in said.lower()
    code, out, said = recsys("evaluate", "--run", "the run", "--resume", "--json", "-")
    assert code == 0, said
    assert json.loads(out)["command"].endswith("--run 'the run'"), "the command is the one that asked"
    code, _, said = recsys("evaluate", "--run", "the run", "--resume", "--train", "5")
    assert code == 1
    assert "train was 4, is 5" in said
    assert "methods was" not in said, "what is not said again stays"


def test_a_run_goes_on_with_more_methods_and_nothing_else_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECSYS_HOME", raising=False)
    write_log(tmp_path / "log.csv")

    def recsys(*words: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["recsys", "evaluate", *words, "--json", "-"])
        capsys.readouterr()
        with suppress(SystemExit):
            cli.main()
        return json.loads(capsys.readouterr().out)

    first = recsys(
        "--data",
        "log.csv",
        "--window",
        "1d",
        "--train",
        "4",
        "--methods",
        "popular",
        "--k",
        "5",
        "--home",
        "home",
        "--report",
        "new/pictures.html",
    )
    more = recsys("--home", "home", "--resume", "--methods", "knn")
    assert list(more["methods"]) == ["popular", "knn"]
    assert more["methods"]["popular"]["macro"] == first["methods"]["popular"]["macro"]
    (folder,) = (tmp_path / "home" / "reports").iterdir()
    assert (tmp_path / "new" / "pictures.html").stat().st_size > 10_000, "into a folder that the run makes"
    less = recsys("--run", str(folder), "--resume", "--methods", "popular", "--baseline", "knn")
    assert (list(less["methods"]), less["baseline"], less["settings"]["train"]) == (["popular", "knn"], "knn", 4)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--report", "."], "--report wants a file; . is a folder"),
        (["--json", "nowhere/at/all/x.json"], "there is no folder .*nowhere/at; make it first"),
        (["--run", "log.csv"], "--run wants a folder; log.csv is a file"),
        (["--resume", "--anew"], "take one of them"),
        (["--resume", "--home", "nobody"], r"there is no run under \S+nobody/reports to go on with"),
    ],
)
def test_what_cannot_be_written_or_taken_up_is_said_before_the_work(tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "log.csv")
    monkeypatch.setattr(sys, "argv", ["recsys", "evaluate", "--data", "log.csv", "--train", "4", "--window", "1d", *words])
    monkeypatch.setattr("eval.command.replay", lambda *given: pytest.fail("the work began"))
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    assert re.search(says, capsys.readouterr().err.replace("\n", " "))


# ---- seeds, sharing, cost


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
    assert seen == [("fit", usual), ("update", 0.7), ("fit", usual), ("update", 0.6)]


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
        ("window(n=many)", "is not a value"),
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


class Told:
    """A method that has a release; its index finds other items, and so do its stale vectors."""

    name, random = "told", True

    def __init__(self, index: np.ndarray | None, stale: np.ndarray | None):
        self.index, self.stale = index, stale

    def learn(self, window: Any) -> Learned:
        return Learned()

    def scores(self, queries: Queries) -> np.ndarray:
        raise AssertionError("the probes know how it answered")

    def size(self) -> int:
        return 0

    def save(self, folder: Path) -> int:
        return 0

    def load(self, folder: Path, learned: int) -> bool:
        return False

    def found(self, queries: Queries, seen: Pairs | None, k: int) -> np.ndarray | None:
        return None if self.index is None else np.tile(self.index, (len(queries), 1))

    def stale_scores(self, queries: Queries) -> np.ndarray | None:
        return None if self.stale is None else np.tile(self.stale, (len(queries), 1))


def test_probes_by_hand():
    world = plan()
    questions = world.timeline.questions(4, world.rules)
    ranks = np.where(questions.relevant > 0, 1, 10**9)  # whatever was learned is found
    exact = (questions.relevant > 0).mean()
    likes_2 = -np.abs(np.arange(questions.n_items, dtype=np.float32) - 2)
    assert isinstance(Told(None, None), Released)
    assert cost.probes(Told(None, None), questions, ranks, k=1) == (None, None)
    index_loss, stale_loss = cost.probes(Told(np.array([2]), likes_2), questions, ranks, k=1)
    assert index_loss == pytest.approx(exact - (questions.relevant == 2).mean())
    met = [2 in past for past in np.split(questions.queries().histories.item, questions.queries().histories.start[1:-1])]
    assert stale_loss is not None
    assert stale_loss <= exact - ((questions.relevant == 2) & ~np.array(met)).mean() + 1e-9
    assert cost.probes(methods("popular", TINY)[0], questions, ranks) == (None, None)


@pytest.mark.usefixtures("exported_once")
def test_an_exact_index_loses_nothing_and_the_stale_loss_is_that_of_the_parents_vectors(tmp_path):
    world = plan()
    method = methods("naive", TINY)[0]
    assert isinstance(method, TowersMethod)
    method.learn(world.timeline.lesson(0, 4))
    assert method.found(next(world.timeline.questions(4, world.rules).blocks())[0], None, 3) is None, "nothing is saved yet"
    before, found_at = method.candidate.vectors()
    method.learn(world.timeline.lesson(4, 5))
    method.save(tmp_path)
    questions = world.timeline.questions(5, world.rules)
    queries = questions.queries()
    ranks, shown, _ = replays.answer(method, questions.blocks(), True, 3)
    assert method.found(queries, queries.histories.pairs(), 3).tolist() == shown.tolist()
    index_loss, stale_loss = cost.probes(method, questions, ranks, k=3)
    assert index_loss == 0
    stale = method.stale_scores(queries)
    people = method.candidate.towers.user_vectors(queries.histories.where(queries.histories.item < len(before)).newest(50), before)
    assert stale[:, : len(before)] == pytest.approx(people @ found_at.T + method.candidate.bias()[: len(before)], abs=1e-5)
    assert (stale[:, len(before) :] == -np.inf).all()
    assert stale_loss is not None


def test_the_index_and_the_whole_catalogue_agree_on_what_somebody_had_already(tmp_path):
    world = prequential(a_log(), window_seconds=DAY, train=4, exclude_seen=False)
    method = methods("naive", TINY)[0]
    assert isinstance(method, TowersMethod)
    method.learn(world.timeline.lesson(0, 4))
    method.save(tmp_path)
    queries = world.timeline.questions(4, world.rules).queries()
    plain = method.scores(queries)
    method.line.candidate = replace(method.candidate, again=replace(method.candidate.again, towers=np.array([-4.0, 4.0, 1.0])))
    scores = method.scores(queries)
    pull = (scores - plain)[np.isfinite(plain)] * method.candidate.towers.scale().item()
    assert set(np.round(pull, 3).tolist()) == {-4.0, 0.0, 1.0, 4.0}
    last, before = (queries.histories.item[queries.histories.start[1:] - back] for back in (1, 2))
    which = np.flatnonzero((np.diff(queries.histories.start) > 1) & (last != before))
    assert (scores[which, last[which]] < plain[which, last[which]]).all()
    assert (scores[which, before[which]] > plain[which, before[which]]).all()
    scores[:, 0] = -np.inf  # nobody is recommended the unknown item
    known = np.isfinite(scores[0]).sum()
    for k in (1, 3, known):
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        found = method.found(queries, None, k)
        row = np.arange(len(scores))[:, None]
        np.testing.assert_allclose(scores[row, found], scores[row, best], atol=1e-6)
        assert all(len(set(rows)) == k for rows in found.tolist())
    candidate = method.candidate
    past = queries.histories
    expected = candidate.alone(past, candidate.vectors(), None) / candidate.towers.scale().item()
    asked = np.diff(past.start) > 0
    np.testing.assert_allclose(scores[asked, 1 : known + 1], expected[asked, 1:], atol=1e-5)


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


@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize("at", [2, 3, 4])
def test_retrain_every_other_window_goes_on_where_it_was_stopped(tmp_path, monkeypatch, at):
    whole = replay(plan(), methods("retrain(every=2)", TINY), run=Run(tmp_path / "whole"))
    run = Run(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", stopping(Run.write, at))
        with pytest.raises(KeyboardInterrupt):
            replay(plan(), methods("retrain(every=2)", TINY), run=run)
    assert told(replay(plan(), methods("retrain(every=2)", TINY), run=run)) == told(whole)


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


def test_memory_is_watched_while_a_block_runs():
    with cost.measured() as spent:
        held = np.ones(30_000_000)
        del held
    assert spent.peak_mb >= cost.resident_mb() + 100


# ---- logs


def test_every_window_is_logged_for_csv_and_tensorboard(tmp_path):
    log = write_log(tmp_path / "log.csv")
    found = evaluate(question(log), "x", tmp_path / "run")
    tables = list((tmp_path / "run" / "logs" / "csv").rglob("metrics.csv"))
    assert len(tables) == 2
    assert len(list((tmp_path / "run" / "logs" / "tensorboard").rglob("events.out.tfevents*"))) == 2
    popular = next(path for path in tables if "popular" in str(path))
    rows = list(csv.DictReader(popular.open()))
    assert [int(row["step"]) for row in rows] == [4, 5, 6, 7]
    said = [row["recall@20"] for row in found["methods"]["popular"]["windows"]]
    assert [float(row["recall@20"]) for row in rows] == pytest.approx(said, abs=1e-5)
    assert {"ndcg@5", "coverage@20", "seconds_learn", "release_bytes"} <= set(rows[0])


def test_mlflow_that_is_not_there_is_one_line_that_names_the_extra(tmp_path, monkeypatch):
    from lightning.pytorch.loggers import mlflow

    monkeypatch.setattr(mlflow, "_MLFLOW_AVAILABLE", False)
    with pytest.raises(BadInput, match=r"pip install -e '.\[mlflow\]'"):
        evaluate(question(write_log(tmp_path / "log.csv")), "x", tmp_path / "run", mlflow="http://localhost:1")
    assert not (tmp_path / "run").exists()


def test_a_figure_that_is_no_number_is_not_logged(tmp_path, capfd):
    logs = Loggers(tmp_path / "logs", "run")
    logs.log("popular", 0, 4, {"recall@1": 0.5, "diversity@1": float("nan")})
    logs.close()
    (written,) = (tmp_path / "logs").rglob("metrics.csv")
    with written.open() as file:
        (row,) = csv.DictReader(file)
    assert (row["recall@1"], "diversity@1" in row) == ("0.5", False)
    assert "NaN" not in capfd.readouterr().err
