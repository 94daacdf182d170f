"""The search for settings: it sees nothing of the test, gives the same twice, and goes on where it stopped."""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from replay_worlds import DAY, a_log, log_of
from typer.testing import CliRunner

from eval import baselines, protocols
from eval import tune as tuning
from eval.command import Question
from eval.methods import methods
from eval.space import SPACES, Range, parse_space, space_for
from eval.timeline import Leak
from eval.tune import Search, Tuned, assert_before, before_the_test, tune
from recsys.cli import app
from recsys.errors import BadInput
from recsys.events import milliseconds
from recsys.home import Home
from recsys.log import Log
from recsys.settings import Settings
from training.strategies import STRATEGIES, parse

SPACE = parse_space("half_life=0.1..50log")
RULES = "steps=1..20,newest=1..9,fading=0.5..5log,popularity=0.1..10log"


def evaluation(home: Path | None, train: int, protocol: str = "prequential", data: tuple[Path, ...] = ()) -> Question:
    """The evaluation to come, of day-long windows."""
    return Question(protocol, data, (), home, DAY, train, None, "popular", (20,), True, False, 1, False, Settings())


def seen(events: pa.Table, train: int = 5, validate: int = 2) -> tuple[protocols.Plan, int]:
    with TemporaryDirectory() as folder:
        Log(Home(folder).log).append(events)
        return before_the_test(evaluation(Path(folder), train), validate)


def searched(folder: Path, trials: int, space: str = RULES, method: str = "rules", events: pa.Table | None = None, **about: int) -> Tuned:
    plan, end = seen(a_log() if events is None else events)
    return tune(plan, end, Search(method, parse_space(space), **about), Settings(), folder, trials)


def test_the_search_ends_where_the_evaluation_begins_to_ask():
    events = a_log()
    coming = protocols.prequential(events, DAY, train=5)
    plan, end = seen(events)
    assert end == coming.timeline.begins[coming.first]
    assert milliseconds(plan.timeline.events).max() < end
    assert [window for window, _ in plan.questions()] == [3, 4]
    assert len(plan.timeline.events) == coming.timeline.bounds[5]
    assert plan.rules == coming.rules


def test_a_plan_that_reaches_into_the_test_is_refused(tmp_path):
    plan, end = seen(a_log(), train=6)
    _, earlier = seen(a_log(), train=5)
    assert_before(plan, end)
    with pytest.raises(Leak, match="test window"):
        assert_before(plan, earlier)
    with pytest.raises(Leak, match="test window"):
        tune(plan, earlier, Search("popular", SPACE), Settings(), tmp_path, 1)


def test_what_happens_in_the_test_windows_changes_nothing(tmp_path):
    events = a_log()
    _, end = seen(events)
    early = events.filter(pa.array(milliseconds(events) < end))
    otherwise = pa.concat_tables([early, log_of(*((f"u{n}", f"other{n % 3}", end / 1000 + n) for n in range(99)))])
    one, other = (searched(tmp_path / name, 4, events=log) for name, log in (("one", events), ("other", otherwise)))
    assert one.trials == other.trials


def test_of_aders_periods_only_those_before_the_test_are_read(tmp_path):
    for number in range(3):
        (tmp_path / f"period_{number}.txt").write_text("".join(f"{s} i{(s + k) % 5}\n" for s in range(8) for k in range(3)))
    (tmp_path / "period_3.txt").write_text("this is not a period file at all\n")
    plan, end = before_the_test(evaluation(None, 3, "ader", (tmp_path,)), 2)
    assert [window for window, _ in plan.questions()] == [1, 2]
    assert milliseconds(plan.timeline.events).max() < end == 3 * 7 * DAY * 1000
    assert not plan.rules.exclude_seen
    with pytest.raises(BadInput, match="holds 4 periods, not 5"):
        before_the_test(evaluation(None, 5, "ader", (tmp_path,)), 2)


@pytest.mark.parametrize(("train", "validate"), [(5, 5), (2, 2), (5, 0)])
def test_windows_that_do_not_fit_before_the_test_are_one_clear_line(train, validate):
    with pytest.raises(BadInput, match="before the first test") as error:
        seen(a_log(), train, validate)
    assert "--validate" in str(error.value)


def test_the_same_seed_gives_the_same_search_and_another_another(tmp_path):
    one, again, other = (searched(tmp_path / name, 4, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert one.trials == again.trials
    assert one.trials[0] == other.trials[0], "the first trial has the values of before"
    assert one.trials[1:] != other.trials[1:]
    assert len({str(trial["values"]) for trial in one.trials}) == 4, "no two trials draw the same"


def test_the_first_trial_has_the_values_of_before(tmp_path):
    tuned = searched(tmp_path, 2)
    usual = baselines.defaults("rules")
    assert tuned.trials[0]["values"] == {name: usual[name] for name in ("steps", "newest", "fading", "popularity")}
    inside = Search("rules(newest=4)", parse_space("newest=2..5,steps=900..999")).start(Settings())
    assert inside == {"newest": 4}, "what the method says holds; what lies outside the space is not tried"


def test_a_search_that_was_interrupted_goes_on_to_the_same_end(tmp_path, monkeypatch):
    whole = searched(tmp_path / "whole", 14)
    searched(tmp_path / "part", 2)
    answered = tuning.answered

    def cut_off(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "answered", cut_off)
    with pytest.raises(KeyboardInterrupt):
        searched(tmp_path / "part", 14)
    asked = []
    monkeypatch.setattr(tuning, "answered", lambda *given: asked.append(given) or answered(*given))
    part = searched(tmp_path / "part", 14)
    assert len(asked) == 12, "what had been tried is not tried again"
    assert part.trials == whole.trials


def test_a_folder_with_another_search_is_refused(tmp_path):
    searched(tmp_path, 1)
    with pytest.raises(BadInput, match="differs in: metric; take a new --folder"):
        searched(tmp_path, 1, metric="ndcg")
    with pytest.raises(BadInput, match="differs in: space"):
        searched(tmp_path, 1, space="steps=1..7")


def test_the_best_is_the_best_of_what_was_tried(tmp_path):
    """A film is watched on two days, and every day by fewer people: only a short memory puts the film of yesterday first."""
    rows = [(f"u{day}-{n}", f"film{day // 2}", day * DAY + n) for day in range(8) for n in range(9 - day)]
    plan, end = seen(log_of(*rows), train=7, validate=3)
    tuned = tune(plan, end, Search("popular", SPACE, "mrr", 1), Settings(), tmp_path, 12)
    assert tuned.best["quality"] == max(trial["quality"] for trial in tuned.trials)
    assert sorted({round(3 * trial["quality"], 6) for trial in tuned.trials}) == [0, 1]
    assert len(tuned.trials[0]["windows"]) == len(tuned.windows) == 3
    assert tuned.trials[0]["quality"] == pytest.approx(np.mean(tuned.trials[0]["windows"]))
    written = json.loads((tmp_path / "trials.json").read_text())
    assert written["trials"] == tuned.trials
    assert written["best"]["line"] == tuned.line()


def test_every_nth_question_is_asked(tmp_path):
    full, part = (searched(tmp_path / str(every), 1, every=every) for every in (1, 3))
    assert [w["queries"] for w in part.windows] == [-(-w["queries"] // 3) for w in full.windows]


def test_a_trial_that_cannot_be_is_kept_with_its_reason(tmp_path):
    space = "half_life=1.0..2.0,model.dim=8|9|12|15"  # two heads do not part 9
    tuned = searched(tmp_path, 6, space, "popular")
    failed = [trial for trial in tuned.trials if "failed" in trial]
    assert 0 < len(failed) < 6
    assert all(trial["quality"] is None and "heads must divide model.dim" in trial["failed"] for trial in failed)
    assert tuned.best["values"]["model.dim"] in (8, 12)
    assert searched(tmp_path, 6, space, "popular").trials == tuned.trials


@pytest.mark.parametrize(
    ("method", "space", "says"),
    [
        ("knn", "nearst=1..9", "did you mean 'nearest'"),
        ("knnn", "nearest=1..9", "did you mean 'knn'"),
        ("rules", "training.ll=1..9", "there is no setting 'training.ll'"),
        ("rules", "replay.share=0.1..0.9", "there is no 'replay.share' to search for rules"),
    ],
)
def test_a_space_that_does_not_fit_the_method_is_one_clear_line(tmp_path, method, space, says):
    with pytest.raises(BadInput, match=says):
        searched(tmp_path, 1, space, method)


def test_a_space_is_read():
    space = parse_space("nearest=100..1000, fading=0.5..8log,training.lr=1e-4..1e-2log,model.encoder=gru|mean,a=1|2")
    assert space == {
        "nearest": Range(100, 1000),
        "fading": Range(0.5, 8, log=True),
        "training.lr": Range(1e-4, 1e-2, log=True),
        "model.encoder": Range(choices=("gru", "mean")),
        "a": Range(choices=(1, 2)),
    }
    assert [range.whole for range in space.values()] == [True, False, False, False, False]
    assert parse_space(",".join(f"{name}={range}" for name, range in space.items())) == space


@pytest.mark.parametrize("text", ["", "nearest", "nearest=5", "nearest=9..1", "fading=0..8log", "nearest=a..b", "=1..2", "a=1..2,a=1..2"])
def test_a_space_that_cannot_be_read_is_one_clear_line(text):
    with pytest.raises(BadInput) as error:
        parse_space(text)
    assert "\n" not in str(error.value)


def test_every_default_space_holds_settings_that_there_are_and_their_defaults():
    assert set(SPACES) >= set(baselines.BASELINES)
    for name in baselines.BASELINES:
        space = parse_space(SPACES[name])
        assert Search(name, space).start(Settings()).keys() == space.keys()
    towers = parse_space(space_for("replay+ewc"))
    assert {"training.lr", "update.epochs", "replay.share", "ewc.strength"} <= towers.keys()
    assert "update.lr" not in parse_space(space_for("retrain"))
    assert Search("replay+ewc", towers).start(Settings()).keys() >= {"training.lr", "update.epochs", "model.dropout"}


def test_values_go_where_they_belong_and_come_out_as_a_line_to_be_pasted():
    search = Search("replay(share=0.3)+ewc", parse_space("replay.share=0.1..0.9,ewc.strength=1..9,update.lr=1e-4..1e-2log"))
    chosen = {"replay.share": 0.4, "ewc.strength": 3, "update.lr": 0.002}
    expression, settings = search.applied(chosen, Settings())
    assert expression == "replay(share=0.4)+ewc(strength=3)"
    assert settings.update.lr == 0.002
    assert methods(expression, settings)[0].name == expression
    tuned = Tuned(search, [], Settings(), [{"number": 0, "values": chosen, "quality": 0.5, "windows": [0.5]}])
    assert tuned.line() == '--methods "replay(share=0.4)+ewc(strength=3)" --set update.lr=0.002'


def test_without_optuna_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(BadInput, match=r"\.\[tune\]"):
        searched(tmp_path, 1)


def test_the_command_prints_a_line_and_json(tmp_path):
    rows = [(f"u{n}", f"i{(n + day) % 7}", day * DAY + 60 * n) for day in range(9) for n in range(9)]
    file = tmp_path / "log.csv"
    file.write_text("user_id,item_id,timestamp\n" + "".join(f"{user},{item},{1_600_000_000 + time}\n" for user, item, time in rows))
    common = ["tune", "--data", str(file), "--window", "1d", "--train", "6", "--trials", "3", "--folder", str(tmp_path / "tune")]
    ask = [*common, "--method", "popular", "--space", "half_life=0.1..9log", "--metric", "ndcg@5"]
    result = CliRunner().invoke(app, [*ask, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert len(found["trials"]) == 3
    assert found["metric"] == "ndcg@5"
    assert found["best"]["line"].startswith('--methods "popular(half_life=')
    again = CliRunner().invoke(app, ask)
    assert found["best"]["line"] in again.output
    with pytest.raises(BadInput, match="length of the list"):
        CliRunner().invoke(app, [*common, "--method", "popular", "--metric", "recall"], catch_exceptions=False)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_a_trial_measures_itself_by_the_rule_on_repeats_that_the_evaluation_has(monkeypatch, tmp_path, exclude_seen):
    built: list[bool] = []

    def noted(expression, settings, seeds=1):
        built.append(settings.serving.exclude_seen)
        return methods(expression, settings, seeds)

    plan = protocols.prequential(a_log(), DAY, train=3, windows=2, exclude_seen=exclude_seen)
    search = Search("rules", parse_space(RULES))
    asked = list(plan.questions())
    monkeypatch.setattr(tuning, "methods", noted)
    tuning.answered("rules", Settings(), plan, asked, search)
    assert built == [exclude_seen]


def test_every_method_has_a_folder_of_its_own_unless_one_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [(f"u{n}", f"i{(n + day) % 7}", day * DAY + 60 * n) for day in range(9) for n in range(9)]
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "".join(f"{u},{i},{1_600_000_000 + time}\n" for u, i, time in rows))
    common = ["tune", "--data", "log.csv", "--window", "1d", "--train", "6", "--trials", "1"]
    for method, space in (("popular", "half_life=0.1..9log"), ("rules", RULES)):
        result = CliRunner().invoke(app, [*common, "--method", method, "--space", space])
        assert result.exit_code == 0, result.output
    assert sorted(path.parent.name.split("-")[0] for path in tmp_path.glob(".tune/*/trials.json")) == ["popular", "rules"]


def test_every_strategy_is_searched_where_it_can_be_built() -> None:
    searched = sorted({*SPACES} & {*STRATEGIES})
    assert searched == sorted({*STRATEGIES} - {"naive", "columns"})
    for name in searched:
        for setting, between in parse_space(SPACES[name]).items():
            strategy, _, key = setting.partition(".")
            assert strategy == name
            assert all(parse(f"{name}({key}={value})").parts for value in (between.low, between.high))
        space = parse_space(space_for(name))
        assert Search(name, space).start(Settings()).keys() >= parse_space(SPACES[name]).keys()
