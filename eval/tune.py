"""A search for good settings that never sees a test window: Optuna over one method, on the last windows before the first test."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.table import Table

from eval import ader, baselines, metrics, names, protocols
from eval.command import Question
from eval.methods import methods
from eval.protocols import Plan
from eval.space import Range, parse_space, space_for
from eval.timeline import Leak, Questions, assert_unanswered
from recsys.errors import BadInput, RecsysError, nearest
from recsys.events import milliseconds
from recsys.files import locked, write_atomically
from recsys.progress import Step, silent
from recsys.settings import Settings, load_settings


@dataclass(frozen=True)
class Search:
    """What is searched: settings of `method`, each within its range of `space`, for the best `metric` at `k`.

    A setting without a dot is the method's own (nearest=100..1000), one with a dot a strategy's (replay.share=0.2..0.8) or one of the
    configuration (training.lr=1e-4..1e-2log). every: ask each so-manieth question.
    """

    method: str
    space: dict[str, Range]
    metric: str = "recall"
    k: int = 20
    every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.metric not in metrics.METRICS:
            raise BadInput(f"there is no metric {self.metric!r}; {nearest(self.metric, metrics.METRICS)}")

    def applied(self, chosen: Mapping[str, Any], settings: Settings) -> tuple[str, Settings]:
        """Return the method's expression and the configuration with the chosen values in them."""
        parts = names.parts(self.method)
        overrides = {f"{section}.{key}": value for section, keys in settings.model_dump().items() for key, value in keys.items()}
        own: dict[str, dict[str, Any]] = {part.name: dict(part.own) for part in parts}
        for name, value in chosen.items():
            owner, dot, key = name.rpartition(".")
            if not dot and len(parts) == 1:
                own[parts[0].name][key] = value
            elif owner in own:
                own[owner][key] = value
            elif owner in Settings.model_fields:
                overrides[name] = value
            else:
                raise BadInput(f"there is no {name!r} to search for {self.method}; {nearest(owner, [*own, *Settings.model_fields])}")
        return "+".join(_written(name, values) for name, values in own.items()), load_settings(overrides=overrides, environ={})

    def start(self, settings: Settings) -> dict[str, Any]:
        """Return the values that hold without a search, as far as they are known and lie within the space."""
        known: dict[str, Any] = {
            f"{section}.{key}": value for section, keys in settings.model_dump().items() for key, value in keys.items()
        }
        for part in names.parts(self.method):
            usual = baselines.defaults(part.name) if part.name in baselines.BASELINES else _usual(part.name)
            known |= {f"{prefix}{key}": value for key, value in {**usual, **part.own}.items() for prefix in ("", f"{part.name}.")}
        return {name: known[name] for name, range in self.space.items() if name in known and known[name] in range}


def _usual(strategy: str) -> dict[str, Any]:
    """Return the settings of a strategy that hold when nothing is said; none where it is no strategy."""
    from training.strategies import STRATEGIES
    from training.strategies.settings import NEEDED, settings_of

    known = settings_of(STRATEGIES[strategy]) if strategy in STRATEGIES else {}
    return {name: setting.default for name, setting in known.items() if setting.default is not NEEDED}


@dataclass
class Tuned:
    """What a search found. trials: each with its number, values, quality (None where it failed) and by window; best: the best of them."""

    search: Search
    windows: list[dict[str, Any]]
    settings: Settings
    trials: list[dict[str, Any]] = field(default_factory=list)

    @property
    def best(self) -> dict[str, Any]:
        found = [trial for trial in self.trials if trial["quality"] is not None]
        if not found:
            raise BadInput(f"no trial came through; the first said: {self.trials[0]['failed'] if self.trials else 'nothing'}")
        return max(found, key=lambda trial: trial["quality"])

    def line(self) -> str:
        """Return the best values as they are written on a command line: --methods "knn(nearest=300)" --set training.lr=0.001."""
        expression, _ = self.search.applied(self.best["values"], self.settings)
        own = {part.name for part in names.parts(self.search.method)}
        configured = [name for name in self.best["values"] if "." in name and name.partition(".")[0] not in own]
        return " ".join([f'--methods "{expression}"', *(f"--set {name}={self.best['values'][name]}" for name in configured)])

    def table(self) -> Table:
        """Return the best ten trials, quality in per cent, as a table for the terminal; the first one tried is marked."""
        shown = sorted((trial for trial in self.trials if trial["quality"] is not None), key=lambda trial: -trial["quality"])[:10]
        table = Table(title=f"{self.search.method}: {self.search.metric}@{self.search.k} in %, {len(self.trials)} trials")
        for heading in ("trial", "quality", *self.search.space):
            table.add_column(heading, justify="right")
        for trial in shown:
            first = " (start)" if trial is self.trials[0] else ""
            values = (f"{trial['values'][name]}" for name in self.search.space)
            table.add_row(f"{trial['number']}{first}", f"{100 * trial['quality']:.2f}", *values)
        return table

    def as_dict(self) -> dict[str, Any]:
        """Return all there is to know of the search, as it is written."""
        return {
            "method": self.search.method,
            "metric": f"{self.search.metric}@{self.search.k}",
            "space": {name: str(range) for name, range in self.search.space.items()},
            "seed": self.search.seed,
            "every": self.search.every,
            "windows": self.windows,
            "best": {**self.best, "line": self.line()},
            "trials": self.trials,
        }


def tune(plan: Plan, end: int, search: Search, settings: Settings, folder: Path, trials: int = 30, progress: Step = silent) -> Tuned:
    """Search with `trials` trials, counting those that `folder` already holds of this very search.

    plan: what may be seen, all of it before the first test window, which begins at `end` ms. Its windows are answered, each before it
    is learned, and the mean of their quality is what counts. The first trial has the values that hold without a search. One seed and
    one log give one result, also after an interruption: each trial draws from the trials before it and its own number alone.
    """
    optuna = _optuna()
    assert_before(plan, end)
    asked = [(window, questions.take(np.arange(0, len(questions), search.every))) for window, questions in plan.questions()]
    if not asked:
        raise BadInput("the windows to validate on hold nothing to ask; take more of them: --validate")
    windows = [{"window": window, "queries": len(questions), "targets": len(questions.relevant)} for window, questions in asked]
    tuned = Tuned(search, windows, settings)
    methods(*search.applied({name: range.choices[0] if range.choices else range.low for name, range in search.space.items()}, settings))
    with locked(folder):
        study = _study(optuna, folder, search, settings, plan, windows)
        space = {name: range.distribution() for name, range in search.space.items()}
        tuned.trials = [_told(n, trial) for n, trial in enumerate(trial for trial in study.trials if _came_through(trial))]
        while len(tuned.trials) < trials:
            done = len(tuned.trials)
            study.sampler = optuna.samplers.TPESampler(seed=search.seed + done)
            if not done:
                study.enqueue_trial(search.start(settings), skip_if_exists=True)
            trial = study.ask(space)
            values = {name: search.space[name].rounded(value) for name, value in trial.params.items()}
            trial.set_user_attr("values", values)
            try:
                expression, configured = search.applied(values, settings)
                by_window = answered(expression, configured, plan, asked, search)
                trial.set_user_attr("windows", by_window)
                finished = study.tell(trial, float(np.mean(by_window)))
            except RecsysError as error:
                trial.set_user_attr("failed", str(error))
                finished = study.tell(trial, state=optuna.trial.TrialState.FAIL)
            tuned.trials.append(_told(done, finished))
            progress(f"tuning {search.method}", len(tuned.trials), trials)
    write_atomically(folder / "trials.json", json.dumps(tuned.as_dict(), indent=1) + "\n")
    return tuned


def run(
    question: Question,
    space: str | None,
    metric: str,
    folder: Path,
    validate: int = 2,
    every: int = 1,
    seed: int = 0,
    trials: int = 30,
    step: Step = silent,
) -> Tuned:
    """Do what `recsys tune` does: `question` is the coming evaluation, of the one method to tune; metric: recall@20 or the like."""
    question.check()
    name, _, k = metric.partition("@")
    if not k.isdigit() or int(k) < 1:
        raise BadInput(f"--metric {metric!r} wants the length of the list, such as recall@20")
    search = Search(question.methods, parse_space(space or space_for(question.methods)), name, int(k), every, seed)
    plan, end = before_the_test(question, validate, step)
    return tune(plan, end, search, question.settings, folder, trials, step)


def before_the_test(question: Question, validate: int, step: Step = silent) -> tuple[Plan, int]:
    """Return the part of an evaluation before its first test window, the last `validate` windows of it to be answered, and when that
    window begins, ms.

    question: the coming evaluation; its `train` says how many windows, or of ADER how many periods, come before the first test window.
    """
    train = question.train
    if not 1 <= validate < train:
        raise BadInput(
            f"of the {train} windows before the first test --validate {validate} are to be answered, and one at least is to be learned"
            f" from before; take --validate 1 to {max(1, train - 1)}, or a longer --train"
        )
    if question.protocol == "ader":
        files = ader.period_files(question.data[0])
        if train > len(files):
            raise BadInput(f"{question.data[0]} holds {len(files)} periods, not {train}; mend --train")
        return replace(protocols.ader(files[:train]), first=train - validate), train * ader.WEEK
    whole = question.plan(step)
    end = int(whole.timeline.begins[whole.first])
    earlier = whole.timeline.events.filter(pa.array(milliseconds(whole.timeline.events) < end))
    asked = (question.exclude_seen, question.filter_unseen, question.protocol == "next-session")
    gap = question.settings.data.session_gap
    return protocols.prequential(earlier, question.window, train - validate, validate, *asked, whole.timeline.catalogue, gap), end


def assert_before(plan: Plan, end: int) -> None:
    """Raise Leak if a plan holds an event at or after `end`, ms."""
    if len(plan.timeline.events) and milliseconds(plan.timeline.events).max() >= end:
        raise Leak("the search was about to see a test window")


def answered(expression: str, settings: Settings, plan: Plan, asked: Sequence[tuple[int, Questions]], search: Search) -> list[float]:
    """Return the quality of a method in each window: learn up to it, answer it, and so on."""
    method = methods(expression, plan.rules.applied(settings))[0]
    learned, found = 0, []
    for window, questions in asked:
        lesson = plan.timeline.lesson(learned, window)
        assert_unanswered(lesson, questions)
        method.learn(lesson)
        learned = window
        figures = []
        for queries, start, relevant in questions.blocks():
            scores = method.scores(queries)
            metrics.bar(scores, queries.histories.pairs() if questions.exclude_seen else None)
            figures.append(metrics.METRICS[search.metric](metrics.ranks(scores, start, relevant), start, search.k))
        found.append(float(np.concatenate(figures).mean()))
    return found


def _written(name: str, own: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in own.items())})" if own else name


def _came_through(trial: Any) -> bool:
    """Say whether a trial came to its end, be it a bad one, and was not cut off."""
    return trial.value is not None or "failed" in trial.user_attrs


def _told(number: int, trial: Any) -> dict[str, Any]:
    about = trial.user_attrs
    told = {"number": number, "values": about["values"], "quality": trial.value, "windows": about.get("windows")}
    return told | ({"failed": about["failed"]} if "failed" in about else {})


def _study(optuna: Any, folder: Path, search: Search, settings: Settings, plan: Plan, windows: list[dict[str, Any]]) -> Any:
    """Open the study that a folder holds, or begin one; trials that were cut off are struck out."""
    question = {
        "method": search.method,
        "space": {name: str(range) for name, range in search.space.items()},
        "metric": f"{search.metric}@{search.k}",
        "every": search.every,
        "seed": search.seed,
        "protocol": plan.protocol,
        "rules": str(plan.rules),
        "events": len(plan.timeline.events),
        "windows": windows,
        "settings": settings.model_dump(),
    }
    question = json.loads(json.dumps(question))
    file = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(file), study_name="recsys tune", direction="maximize", load_if_exists=True
    )
    known = study.user_attrs.get("question", question)
    if known != question:
        differing = ", ".join(sorted(key for key in question if known.get(key) != question[key]))
        raise BadInput(f"{folder} holds another search, which differs in: {differing}; take a new --folder, or remove this one")
    study.set_user_attr("question", question)
    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _optuna() -> Any:
    try:
        import optuna
        import optuna.storages.journal
    except ImportError:
        raise BadInput("recsys tune needs Optuna, which is an extra; install it: pip install -e '.[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
