"""The command line: every command teaches, a slip is one line on stderr with the way out, and leaves no trace."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from typer.testing import CliRunner

from recsys import cli
from recsys.commands.terminal import read_settings
from recsys.commands.words import read_moment

HEADER = "user_id,item_id,timestamp\n"
GOOD = "".join(f"u{n % 7},i{n * n % 11},{1_700_000_000 + n * 5000}\n" for n in range(120))
TINY = ("training.epochs=1", "update.epochs=1", "model.dim=8", "model.blocks=1", "model.features=64")
SET = [word for setting in TINY for word in ("--set", setting)]


class Said(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Call the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("RECSYS_")]:
        monkeypatch.delenv(name)

    def call(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["recsys", *map(str, words)])
        capsys.readouterr()
        code: Any = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        return Said(code, *capsys.readouterr())

    return call


def shell(*words: object, folder: Path) -> Said:
    """Call the command the way a person does."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")} | {"OMP_NUM_THREADS": "1"}
    environ["PYTHONPATH"] = str(Path(cli.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "recsys.cli", *map(str, words)], cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    return Said(done.returncode, done.stdout, done.stderr)


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def commands() -> dict[str, typer.models.CommandInfo]:
    groups = [("", cli.app), *((f"{group.name} ", group.typer_instance) for group in cli.app.registered_groups)]
    return {
        prefix + str(command.name or command.callback.__name__): command
        for prefix, app in groups
        if app
        for command in app.registered_commands
        if command.callback
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with one release, trained on all but the last events; read only."""
    folder = tmp_path_factory.mktemp("with a space") / "home"
    (folder.parent / "log.csv").write_text(HEADER + GOOD)
    assert shell("import", "log.csv", "--home", folder, folder=folder.parent).code == 0
    said = shell("fit", "--home", folder, "--until", 1_700_500_000, *SET, folder=folder.parent)
    assert (said.code, said.err) == (0, "")
    assert "release 000001: 100 events learned" in said.out
    return folder


def test_import_fit_update_roll_back_from_the_shell(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "home"
    shutil.copytree(home, folder)

    def call(*words: object) -> Any:
        said = shell(*words, "--home", folder, "--json", folder=tmp_path)
        assert (said.code, said.err) == (0, "")
        return json.loads(said.out)

    updated = call("update", *SET)
    assert (updated["release"], updated["parent"], updated["metrics"]["events"]) == ("000002", "000001", 20)
    assert call("rollback") == {"live": "000001", "was": "000002"}
    listed = call("releases")
    assert (listed["live"], [release["id"] for release in listed["releases"]]) == ("000001", ["000001", "000002"])
    status = call("status")
    assert (status["events"], status["events_not_learned"], status["release"], status["releases"]) == (120, 20, "000001", 2)


def test_every_command_teaches_and_takes_json() -> None:
    found = commands()
    for name in found:
        said = CliRunner().invoke(cli.app, [*name.split(), "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        assert said.exit_code == 0
        narrow = CliRunner().invoke(cli.app, [*name.split(), "--help"], env={"COLUMNS": "80", "TERM": "dumb"}).output
        assert "…" not in narrow, f"{name}: a terminal of 80 columns shows only part of a word"
        assert "--json" in said.output, name
        assert len(found[name].callback.__doc__ or "") > 40, name
    options = [(name, option) for name in found for option in _options(name) if not option.help]
    assert options == []
    assert len(found) == 28


def _options(name: str) -> list[Any]:
    command: Any = typer.main.get_command(cli.app)
    for word in name.split():
        command = command.commands[word]
    return list(command.params)


def test_strategies_says_which_there_are_with_their_settings_and_all_about_one(run: Run) -> None:
    from training.strategies import STRATEGIES

    told = json.loads(run("strategies", "--json").out)["strategies"]
    assert [each["name"] for each in told] == sorted(STRATEGIES)
    table = run("strategies").out
    assert all(f"{key}={setting['default']}" in table for each in told for key, setting in each["settings"].items())
    both = run("strategies", "heads+agem").out
    assert "least: a whole number; 100 where nothing is said" in both
    assert "not beside adapters: " in both
    assert "not beside model.objective = next_session: " in both
    assert "not beside generate: there is no memory to ask" in both, "also what the other says"
    assert "did you mean 'replay'" in run("strategies", "reply").err


def test_help_is_quick_for_torch_stays_out() -> None:
    code = "import sys, recsys.cli; sys.exit('torch' in sys.modules or 'faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_no_command_shows_the_help_and_no_error(run: Run) -> None:
    said = run()
    assert "A first round:" in said.out
    assert said.err == ""


FILES: dict[str, bytes] = {
    "log.csv": (HEADER + GOOD).encode(),
    "unknown.csv": b"who,item_id,timestamp\nu1,i1,1700000000\n",
    "broken.csv.gz": gzip.compress((HEADER + GOOD).encode())[:60],
    "not.csv.gz": b"this is no gzip",
    "negative.csv": HEADER.encode() + b"u1,i1,-5\n",
    "nan.csv": HEADER.encode() + b"u1,i1,NaN\n",
    "one-negative.csv": (HEADER + GOOD + "u1,i1,-5\n").encode(),
    "one-nan.csv": (HEADER + GOOD + "u1,i1,NaN\n").encode(),
    "empty.csv": b"",
    "header.csv": HEADER.encode(),
    "misspelt.toml": b"[training]\nepoch = 3\n",
    "broken.toml": b"[training\n",
}
BAD_INPUT = {
    "import unknown.csv": "unknown.csv has the columns who, item_id, timestamp; needed: .* say which is which, for example --columns",
    "import log.csv --columns user_id=who": "log.csv has no column 'who' for user_id; it has: user_id, item_id, timestamp",
    "import log.csv --columns usr=user_id": "there is no column 'usr' to fill; did you mean 'user_id'",
    "import log.csv --columns user_id": "cannot read 'user_id'; write name=value",
    "import log.csv --format cvs": "there is no format 'cvs'; did you mean 'csv'",
    "import none.csv": "there is no file none.csv; check the name, or give the whole path",
    "import log.csv none.csv": "there is no file none.csv",
    "import broken.csv.gz": "broken.csv.gz is damaged or cut short: .* fetch it again",
    "import not.csv.gz": "not.csv.gz is called .gz but is not packed that way; unpack it, or rename it",
    "import log.csv broken.csv.gz": "broken.csv.gz is damaged or cut short",
    "import negative.csv": "none of the 1 rows can be used: 1 because timestamp is negative, as in negative.csv:2: .* nothing was written",
    "import nan.csv": "none of the 1 rows can be used: 1 because timestamp is missing or NaN, as in nan.csv:2: .* nothing was written",
    "import one-negative.csv --strict": "one-negative.csv:122: timestamp is negative: u1,i1,-5; nothing was written .without --strict",
    "import one-nan.csv --strict": "one-nan.csv:122: timestamp is missing or NaN: u1,i1,NaN; nothing was written .without --strict",
    "import empty.csv": "empty.csv is empty; export it again, or leave it out",
    "import header.csv": "header.csv has a header but no rows",
    "import .": "is a folder; name the files in it",
    "validate unknown.csv": "needed: ",
    "validate one-nan.csv --strict": "timestamp is missing or NaN",
    "import --items empty.csv": "empty.csv is empty",
    "fit --config misspelt.toml": "misspelt.toml: there is no setting 'training.epoch'; did you mean 'epochs'",
    "fit --config broken.toml": "broken.toml is not TOML",
    "fit --config none.toml": "there is no config file none.toml; the ones that come with the project are in configs/",
    "fit --set training.epoch=3": "there is no setting 'training.epoch'; did you mean 'epochs'",
    "fit --set training.epochs=many": "training.epochs = 'many': input should be a valid integer",
    "fit --set model.heads=3": "heads must divide model.dim, which is 128",
    "fit --set training.epochs": "cannot read 'training.epochs'; write name=value",
    "fit --until yesterday": "--until 'yesterday' is not a moment; write 2013-06-01",
    "fit --until inf": "--until 'inf' is not a moment",
    "fit --until nan": "--until 'nan' is not a moment",
    "fit --until 1e30": "--until '1e30' is not a moment",
    "fit": "holds no events; add some with: recsys import FILE --home",
    "update": "there is no release in .* yet; train the first with: recsys fit --home",
    "rollback": "there is no release in .* yet; train the first with: recsys fit --home",
    "data get movielens-huge": "there is no data set 'movielens-huge'; did you mean 'movielens-latest-small'",
    "simulate --users 0": "simulate needs users to be 1 or more; got 0",
    "simulate --scenario tasks": "there is no scenario 'tasks'; did you mean 'task'",
    "simulate --scenario domain --days 9": "simulate needs days to be 10 or more; got 9",
    "simulate --scenario class --items 50": "simulate needs items to be 60 or more; got 50",
    "evaluate": "there are no events to evaluate on; import some with: recsys import",
    "evaluate --data log.csv --methods popular,nearest": "there is no method 'nearest'; allowed: .*als, .*bpr, .*ewc, ",
    "evaluate --data log.csv --methods populer": "there is no method 'populer'; did you mean 'popular'",
    "evaluate --data log.csv --protocol replay": "there is no protocol 'replay'; allowed: ader, next-session, prequential",
    "evaluate --data log.csv --protocol ader": "--protocol ader wants --data FOLDER",
    "evaluate --data . --protocol ader --window 3d --train 2": "--protocol ader has its own rules; leave out --train, --window",
    "evaluate --items films.csv": "--items goes with --data; a home has its own, added with: recsys import --items",
    "evaluate --data log.csv --window week": "--window 'week' is no number of minutes, hours, days or weeks; write 30m, 12h, 7d or 2w",
    "evaluate --data log.csv --window -1d": "--window '-1d' must be more than 0",
    "evaluate --data log.csv --k 0,10": "--k '0,10' must be whole numbers from 1 on",
    "evaluate --data none.csv": "there is no file none.csv",
}
BAD_USAGE = {
    "ipmort log.csv": "No such command 'ipmort'.* .see: recsys --help.",
    "data fetch": "No such command 'fetch'.* .see: recsys data --help.",
    "fit --epochs 3": "No such option: --epochs.* .see: recsys fit --help.",
    "import": "Missing argument 'paths'.* .see: recsys import --help.",
    "simulate --users many": "Invalid value for '--users'.* .see: recsys simulate --help.",
}


@pytest.mark.parametrize("words", sorted({**BAD_INPUT, **BAD_USAGE}))
def test_a_slip_is_one_line_on_stderr_and_nothing_is_written(run: Run, tmp_path: Path, words: str) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    before = listing(tmp_path)
    said = run(*words.split(), *(["--home", "home"] if words not in BAD_USAGE else []))
    assert said.code == (2 if words in BAD_USAGE else 1)
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert re.search({**BAD_INPUT, **BAD_USAGE}[words], said.err), said.err
    assert listing(tmp_path) == before


LATER = {
    "update --until 2023-11-15": "--until 2023-11-15T00:00:00Z lies in what release 000001 has learned .*; name a later date or none",
    "rollback": "release 000001 has no parent to go back to; there is no other",
    "rollback 000009": "no release '000009'; there are: 000001",
    "update --strategy replya": "there is no strategy 'replya'; did you mean 'replay'",
    "update --strategy replay(share=2)": "replay.share is the remembered part of a batch, more than 0 and less than 1; got 2",
    "update --strategy replay(part=1)": "replay has no setting 'part'; .*share",
    "import negative.csv": "timestamp is negative",
    "import broken.csv.gz": "is damaged or cut short",
}


@pytest.mark.parametrize("words", sorted(LATER))
def test_a_slip_leaves_a_living_home_as_it_was(run: Run, home: Path, tmp_path: Path, words: str) -> None:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    before = listing(home)
    said = run(*words.split(), "--home", home)
    assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)
    assert re.search(LATER[words], said.err), said.err
    assert listing(home) == before


def test_a_refused_row_never_stops_the_rest(run: Run, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(FILES["one-nan.csv"] + b"u1,i1,-5\n")
    checked, taken = (json.loads(run(verb, "log.csv", "--home", "home", "--json").out) for verb in ("validate", "import"))
    assert taken["refused"] == checked["refused"] == {"timestamp is missing or NaN": 1, "timestamp is negative": 1}
    assert (checked["added"], checked["written"]) == (taken["added"], not taken["written"]) == (120, False)
    again = json.loads(run("import", "log.csv", "--home", "home", "--json").out)
    assert (again["added"], again["already_known"]) == (0, 120)


def test_validate_writes_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(FILES["log.csv"])
    assert run("validate", "log.csv", "--home", "home").code == 0
    assert list(listing(tmp_path)) == ["log.csv"]


def test_a_key_is_shown_once_and_can_be_listed_and_removed(run: Run, tmp_path: Path) -> None:
    said = run("keys", "add", "app", "--scopes", "read", "--rate", "50")
    assert said.code == 0
    assert said.out.startswith("rk_")
    assert "the only time it is shown" in said.out
    listed = run("keys", "list")
    assert said.out.split()[0] not in listed.out
    assert [word in listed.out for word in ("app", "read", "50")] == [True] * 3
    assert run("keys", "remove", "app").out == "removed app\n"
    assert "no keys: only this machine is served" in run("keys", "list").out
    wrong = run("keys", "add", "app", "--scopes", "reed")
    assert (wrong.code, wrong.err) == (1, "error: there is no scope 'reed'; did you mean 'read'? allowed: admin, read, write\n")


def test_looking_writes_nothing(run: Run, tmp_path: Path) -> None:
    for command in ("status", "releases"):
        assert run(command, "--home", "home").code == 0
        assert run(command, "--home", "home", "--json").code == 0
    assert listing(tmp_path) == {}


def test_an_update_with_nothing_new_publishes_nothing(run: Run, home: Path) -> None:
    before = listing(home)
    said = run("update", "--until", 1_700_500_000, "--home", home, "--json", *SET)
    assert json.loads(said.out) == {"release": None, "reason": "nothing new in the log"}
    assert listing(home) == before


def test_a_damaged_release_is_not_rolled_back_to(run: Run, home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path / "home")
    (tmp_path / "home/releases/000001/vectors.npy").write_bytes(b"")
    said = run("rollback", "000001", "--home", "home")
    assert said.code == 1
    assert "vectors.npy is not the file that was published" in said.err


def test_the_homes_own_config_counts_and_the_command_line_wins(run: Run, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/config.toml").write_text("[training]\nepoch = 3\n")
    assert "config.toml: there is no setting 'training.epoch'" in run("fit", "--home", "home").err
    (tmp_path / "home/config.toml").write_text('[update]\nstrategy = "naive"\n')
    settings = read_settings(tmp_path / "home", None, ["update.epochs=9"])
    assert (settings.update.strategy, settings.update.epochs) == ("naive", 9)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2013-06-01", 1_370_044_800_000),
        ("2013-06-01T12:00:00Z", 1_370_088_000_000),
        ("2013-06-01T12:00:00+02:00", 1_370_080_800_000),
        ("1370044800.5", 1_370_044_800_500),
    ],
)
def test_moments_are_utc_unless_they_say_otherwise(text: str, ms: int) -> None:
    assert read_moment(text) == ms


def test_evaluate_writes_its_results_as_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(FILES["log.csv"])
    common = ("evaluate", "--data", "log.csv", "--methods", "popular", "--window", "2d", "--train", 1, "--k", 5, "--include-seen", "--json")
    assert run(*common, "out.json").code == 0
    written, printed = json.loads((tmp_path / "out.json").read_text()), json.loads(run(*common, "-", "--resume").out)
    for results in (written, printed):
        assert results["protocol"] == "prequential"
        assert 0 < results["methods"]["popular"]["macro"]["recall@5"] <= 1
        assert [window["window"] for window in results["methods"]["popular"]["windows"]] == [1, 2, 3]
