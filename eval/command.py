"""What `recsys evaluate` runs: find the data, build the methods, replay, write and show what was found."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import pyarrow as pa

from eval import protocols
from eval.ader import period_files
from eval.answers import Answers, Asked
from eval.methods import methods as build
from eval.names import listed
from eval.protocols import PROTOCOLS, Plan
from eval.replay import replay
from eval.results import Results, figures, report
from eval.run import Run
from eval.timeline import Catalogue
from recsys.catalogue import Catalogue as Items
from recsys.errors import BadInput, nearest
from recsys.events import counted, positive
from recsys.files import locked, sha256, write_atomically
from recsys.home import Home
from recsys.intake import import_items, read_events
from recsys.log import Log
from recsys.progress import Step, silent
from recsys.settings import Settings

RESULTS = "results.json"


@dataclass(frozen=True)
class Question:
    """All that decides the answers of a run. window: seconds; cycles: how many windows are asked, None for all."""

    protocol: str
    data: tuple[Path, ...]
    items: tuple[Path, ...]
    home: Path | None
    window: float
    train: int
    cycles: int | None
    methods: str
    ks: tuple[int, ...]
    exclude_seen: bool
    filter_unseen: bool
    seeds: int
    matrix: bool | None
    settings: Settings

    def check(self) -> None:
        """Raise BadInput where it cannot be answered, before anything is read."""
        if self.protocol not in PROTOCOLS:
            raise BadInput(f"there is no protocol {self.protocol!r}; {nearest(self.protocol, PROTOCOLS)}")
        if self.protocol == "ader" and (len(self.data) != 1 or not self.data[0].is_dir()):
            raise BadInput("--protocol ader wants --data FOLDER, one folder with period_0.txt.gz, period_1.txt.gz, ...")
        build(self.methods, self.settings)

    def plan(self, step: Step) -> Plan:
        """Read the data and cut it into windows."""
        if self.protocol == "ader":
            return protocols.ader(self.data[0], self.cycles)
        events, catalogue = _log(Home(self.home)) if self.home and not self.data else _files(self.data, self.items, step)
        return protocols.prequential(
            counted(events, positive(self.settings.data.positive)),
            self.window,
            self.train,
            self.cycles,
            self.exclude_seen,
            self.filter_unseen,
            self.protocol == "next-session",
            catalogue,
            self.settings.data.session_gap,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what is asked as JSON; of the files what is in them, not where they lie."""
        return {
            "protocol": self.protocol,
            "files": [f"{path.name} {sha256(path)}" for path in self._files()],
            "window_seconds": self.window,
            "train": self.train,
            "cycles": self.cycles,
            "methods": listed(self.methods),
            "ks": list(self.ks),
            "exclude_seen": self.exclude_seen and self.protocol != "ader",  # whose rule is another
            "filter_unseen": self.filter_unseen,
            "seeds": self.seeds,
            "matrix": self.matrix,
            "settings": self.settings.model_dump(mode="json", exclude={"serving"}),
        }

    def line(self) -> str:
        """Return a shell line that asks this."""
        words = ["recsys", "evaluate", *(word for path in self.data for word in ("--data", str(path)))]
        words += [word for path in self.items for word in ("--items", str(path))]
        words += ["--home", str(self.home)] if self.home else []
        words += ["--protocol", self.protocol]
        if self.protocol != "ader":
            words += ["--window", f"{self.window / 60!r}m", "--train", str(self.train)]
            words += ["--include-seen"] * (not self.exclude_seen) + ["--filter-unseen"] * self.filter_unseen
        words += ["--cycles", str(self.cycles)] if self.cycles else []
        words += ["--methods", self.methods, "--k", ",".join(map(str, self.ks)), "--seeds", str(self.seeds)]
        words += [] if self.matrix is None else ["--matrix" if self.matrix else "--no-matrix"]
        usual = Settings().model_dump(mode="json", exclude={"serving"})
        for section, values in self.settings.model_dump(mode="json", exclude={"serving"}).items():
            words += [
                word for name, value in values.items() if value != usual[section][name] for word in ("--set", f"{section}.{name}={value}")
            ]
        return shlex.join(words)

    def paths(self) -> dict[str, Any]:
        """Return where the files lie."""
        return {
            "data": [str(path.absolute()) for path in self.data],
            "items": [str(path.absolute()) for path in self.items],
            "home": self.home and str(self.home.absolute()),
        }

    def beside(self, before: "Question", given: Collection[str]) -> "Question":
        """Return what a run is asked when it goes on: what `given`, options of the command, names; for the rest what it was asked before.

        Methods are added to those it has.
        """
        same = {f.name for f in fields(self)} & set(given)
        changed = {name: getattr(self, name) for name in same - {"methods"}}
        if "k" in given:
            changed["ks"] = self.ks
        if "include_seen" in given:
            changed["exclude_seen"] = self.exclude_seen
        if {"set", "config"} & set(given):
            changed["settings"] = self.settings
        if "home" in given and before.home is None:
            changed.pop("home")
        more = [name for name in listed(self.methods) if name not in listed(before.methods)] if "methods" in given else []
        return replace(before, methods=",".join([*listed(before.methods), *more]), **changed)

    @classmethod
    def of_run(cls, folder: Path) -> "Question":
        """Return what the run in a folder was asked."""
        about = Run(folder).about()
        asked, paths = about["question"], about["paths"]
        return cls(
            protocol=asked["protocol"],
            data=tuple(map(Path, paths["data"])),
            items=tuple(map(Path, paths["items"])),
            home=Path(paths["home"]) if paths["home"] else None,
            window=asked["window_seconds"],
            train=asked["train"],
            cycles=asked["cycles"],
            methods=",".join(asked["methods"]),
            ks=tuple(asked["ks"]),
            exclude_seen=asked["exclude_seen"],
            filter_unseen=asked["filter_unseen"],
            seeds=asked["seeds"],
            matrix=asked["matrix"],
            settings=Settings.model_validate(asked["settings"]),
        )

    def _files(self) -> list[Path]:
        """Return every file that is read, in order."""
        if self.protocol == "ader":
            return period_files(self.data[0])
        home = Home(self.home) if self.home and not self.data else None
        return sorted([*home.log.glob("*.parquet"), *home.items.glob("*.parquet")]) if home else [*self.data, *self.items]


def evaluate(
    question: Question,
    command: str,
    folder: Path | None = None,
    resume: bool = False,
    baseline: str | None = None,
    mlflow: str | None = None,
    opened: Callable[[Path], None] = lambda folder: None,
    step: Step = silent,
    anew: bool = False,
) -> dict[str, Any]:
    """Answer a question in a run folder, or go on where a run stopped; return the results JSON, which is written there too.

    command: the shell line, for the record; opened: is told of the folder. Answers that the folder holds already are thrown away only
    with `anew`. A run that has finished is not replayed, its figures are worked out again from its files.
    """
    question.check()
    if baseline is not None and baseline not in listed(question.methods):
        raise BadInput(f"the baseline {baseline!r} is none of the methods; {nearest(baseline, listed(question.methods))}")
    if mlflow:
        from eval.loggers import mlflow_logger  # brings torch

        mlflow_logger(mlflow)
    plan = None if resume else question.plan(step)
    asked = question.as_dict()
    run = Run(folder or _default_folder(question, asked))
    run.refuse_what_is_no_run()
    if resume:
        run.about()
    with locked(run.folder, busy=f"another recsys evaluate is at work in {run.folder}; wait for it, or name another folder with --run"):
        if resume and run.take_up(asked, question.line()):
            (run.folder / RESULTS).unlink(missing_ok=True)
        if not resume:
            run.start({"question": asked, "paths": question.paths(), "command": command, "started": _now(), "seconds": 0.0}, anew)
        baseline = baseline or run.about().get("baseline")
        run.note(run.about() | {"baseline": baseline})
        opened(run.folder)
        if not (run.folder / RESULTS).exists():
            _answer(run, question, plan or question.plan(step), mlflow, step)
        return recompute(run, baseline)


def run_to_resume(folder: Path | None, home: Path | None) -> Path:
    """Return the folder to go on in: that one, or the newest run of a home; BadInput where there is none."""
    if folder is not None:
        return folder
    reports = Home(home or ".recsys").reports
    runs = sorted((path for path in reports.glob("*/run.json")), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise BadInput(f"there is no run under {reports} to go on with; name its folder with --run, or its home with --home")
    return runs[-1].parent


def recompute(run: Run, baseline: str | None = None) -> dict[str, Any]:
    """Work the results of a finished run out from its files alone, and write them there."""
    about = run.about()
    question = about["question"]
    results = Results(question["protocol"], question["ks"])
    results.windows = run.windows()
    for answers in run.answered(question["methods"], question["seeds"]):
        results.add(answers)
    words = shlex.split(about["command"])
    command = about["command"] if baseline is None or "--baseline" in words else shlex.join([*words, "--baseline", baseline])
    found = {
        "protocol": question["protocol"],
        "command": command,
        "settings": question,
        "seeds": question["seeds"],
        **{name: about[name] for name in ("versions", "machine", "started", "finished", "seconds")},
        **report(results, baseline),
    }
    write(found, run.folder / RESULTS)
    return found


def write(found: dict[str, Any], path: Path) -> None:
    """Write results as JSON, all or nothing."""
    write_atomically(path, json.dumps(found, indent=1) + "\n")


def _answer(run: Run, question: Question, plan: Plan, mlflow: str | None, step: Step) -> None:
    """Replay what is still to be answered; note when it was done, on what, and how long it took."""
    from eval.loggers import Loggers  # brings torch

    began, about = monotonic(), run.about()
    logs = Loggers(run.logs, run.folder.name, mlflow)
    chosen = build(question.methods, plan.rules.applied(question.settings), question.seeds)

    def log(asked: Asked, answers: Answers) -> None:
        costs = {name: value for name, value in asdict(answers.cost).items() if value is not None}
        logs.log(answers.method, answers.seed, answers.window, figures(asked, answers, question.ks) | costs)

    try:
        replay(plan, chosen, question.ks, run, question.matrix, step, log)
        about |= {"finished": _now(), "versions": _versions(), "machine": _machine()}
        logs.close()
    finally:
        run.note(about | {"seconds": round(about["seconds"] + monotonic() - began, 1)})


def _default_folder(question: Question, asked: dict[str, Any]) -> Path:
    home = Home(question.home or ".recsys")
    return home.reports / f"{question.protocol}-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8]}"


def _log(home: Home) -> tuple[pa.Table, Catalogue]:
    return Log(home.log).read(), Items(home.items).items()


def _files(data: Sequence[Path], items: Sequence[Path], step: Step) -> tuple[pa.Table, Catalogue]:
    if not data:
        raise BadInput("nothing to evaluate on; name files with --data, or a home with --home")
    events = read_events(data, step=step).table
    if not items:
        return events, {}
    with TemporaryDirectory() as folder:
        import_items(Home(folder), items, step=step)
        return events, Items(Home(folder).items).items()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str | None]:
    packages = ("recsys", "torch", "numpy", "scipy", "implicit", "faiss-cpu")
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}, "commit": _commit()}


def _commit() -> str | None:
    """Return the commit that the code is of, with a + where it was changed since; None outside a checkout."""
    try:
        words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _machine() -> dict[str, Any]:
    """Return the processor's name, how many cores there are and the memory in GB."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": (*named, platform.machine())[0], "cores": os.cpu_count(), "memory_gb": round(memory / 1e9, 1)}
