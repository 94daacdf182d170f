"""The command `recsys evaluate`: its questions, its run folder, and going on after a stop."""

import json
import re
import shlex
import sys
from contextlib import suppress
from typing import Any

import pytest
from run_worlds import question, stopping, write_log

from eval.command import Question, evaluate, recompute
from eval.run import Run, differences
from recsys import cli
from recsys.errors import BadInput
from recsys.files import locked
from recsys.settings import load_settings


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


def test_a_run_that_goes_on_keeps_its_baseline_and_says_it_in_its_command(tmp_path):
    folder = tmp_path / "run"
    asked = question(write_log(tmp_path / "log.csv"))
    first = evaluate(asked, asked.line(), folder, baseline="knn")
    assert (first["baseline"], shlex.split(first["command"])[-2:]) == ("knn", ["--baseline", "knn"])
    again = evaluate(asked, asked.line(), folder, resume=True)
    assert (again["baseline"], again["command"]) == ("knn", first["command"])
    assert evaluate(asked, asked.line(), folder, resume=True, baseline="popular")["baseline"] == "popular"
