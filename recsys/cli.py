"""The `recsys` command: every room from the terminal. The only file that may import them all."""

import builtins
import os
import shlex
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from recsys.errors import BadInput, RecsysError, ReleaseDamaged
from recsys.home import Home
from recsys.progress import Step
from recsys.settings import Settings, load_settings
from recsys.store import StoreAway

# Imports of the rooms stand inside the commands: `recsys --help` must not wait for torch.

app = typer.Typer(
    name="recsys",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A recommender that keeps learning. Everything lives under one folder, --home.\n\n"
    "A first round:  recsys import ratings.csv,  recsys fit,  recsys serve;  then, whenever the log has grown:  recsys update.",
)
data_app = typer.Typer(no_args_is_help=True, help="Public data sets to try things on.")
app.add_typer(data_app, name="data")
keys_app = typer.Typer(
    no_args_is_help=True,
    help="API keys. While a home has none, `recsys serve` listens on this machine alone and lets everybody in; from the first key on, "
    "every request needs one.",
)
app.add_typer(keys_app, name="keys")
job_app = typer.Typer(
    no_args_is_help=True,
    help="The periodic update: look whether one is due, learn, let the gate judge, publish. `run` looks once, for cron, systemd or "
    "Kubernetes; `watch` goes on looking. The settings job.* say when, gate.* what must not go live.",
)
app.add_typer(job_app, name="job")

releases_app = typer.Typer(help="The releases: which there are; and one without what adapters have taught it.")
app.add_typer(releases_app, name="releases")

_HomeOption = Annotated[
    Path, typer.Option("--home", "-H", envvar="RECSYS_HOME", help="The folder with log/, releases/, redis/. Made when first written to.")
]
_JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else.")]
_ConfigOption = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", help="A TOML file of settings (examples: configs/*.toml); H/config.toml is always read first."),
]
_SetOption = Annotated[list[str] | None, typer.Option("--set", "-s", help="One setting, such as training.epochs=5; wins over every file.")]
_FormatOption = Annotated[str | None, typer.Option("--format", "-f", help="The file's format, where it is not to be detected.")]
_ColumnsOption = Annotated[
    str | None, typer.Option("--columns", help="What the columns are called: user_id=userId,item_id=movieId,timestamp=ts")
]
_UntilOption = Annotated[
    str | None, typer.Option("--until", help="Learn only events before this moment: 2013-06-01 or 2013-06-01T12:00:00Z or unix seconds.")
]
HOME = Path(".recsys")
_INTERRUPTED = 128 + signal.SIGINT
out, err = Console(), Console(stderr=True)
_told_to_end: list[bool] = []


@app.command("import")
def import_(
    paths: Annotated[list[Path], typer.Argument(help="csv, tsv, jsonl, parquet, .inter, .dat, period_N.txt; each also .gz or .zst")],
    home: _HomeOption = HOME,
    items: Annotated[bool, typer.Option("--items", help="The files describe items (titles, genres, ...) instead of events.")] = False,
    format: _FormatOption = None,
    columns: _ColumnsOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that cannot be used, and write nothing.")] = False,
    json: _JsonOption = False,
) -> None:
    """Read events (or, with --items, item metadata) into the log.

    Rows that cannot be used are counted, shown and left out; the rest goes in, sorted by time. Importing the same file
    twice adds nothing.
    """
    _intake(paths, home, items, format, columns, strict, json, write=True)


@app.command()
def validate(
    paths: Annotated[list[Path], typer.Argument(help="The files to look at.")],
    home: _HomeOption = HOME,
    items: Annotated[bool, typer.Option("--items", help="The files describe items instead of events.")] = False,
    format: _FormatOption = None,
    columns: _ColumnsOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that cannot be used.")] = False,
    json: _JsonOption = False,
) -> None:
    """Do all that `import` does, but write nothing."""
    _intake(paths, home, items, format, columns, strict, json, write=False)


@data_app.command("get")
def data_get(
    name: Annotated[str, typer.Argument(help="movielens-latest-small")], home: _HomeOption = HOME, json: _JsonOption = False
) -> None:
    """Download a public data set, keep it in the cache, and import it."""
    from recsys.download import fetch
    from recsys.intake import import_events, import_items
    from recsys.progress import bar

    with bar(json) as step:
        events, items = fetch(name, step=step)
        place = _place(home)
        reports = [import_items(place, [items], step=step), import_events(place, [events], step=step)]
    _show([report.as_dict() for report in reports], json, *reports)


@app.command()
def simulate(
    home: _HomeOption = HOME,
    users: Annotated[int, typer.Option(help="How many people at the opening; more join every week.")] = 1000,
    items: Annotated[int, typer.Option(help="How many films at the opening; 2% more come every week.")] = 500,
    days: Annotated[float, typer.Option(help="How many days of log.")] = 60,
    seed: Annotated[int, typer.Option(help="The same seed writes the same log.")] = 0,
    scenario: Annotated[
        str | None,
        typer.Option(
            help="Turn the app on known days, to see what updates forget. class: one group of films comes after the other, and most "
            "watching goes to the newest. domain: people's tastes, and which films go together, change and come back. task: one market "
            "opens after the other, with people and films of its own; --users and --items are then those of all together. Fit on the first "
            "phase (--until), update through the others, or evaluate; the phases are printed, and grow with --days."
        ),
    ] = None,
    json: _JsonOption = False,
) -> None:
    """Write into the log what a streaming app would see: known tastes, sessions, new films, trends that turn, dislikes."""
    from recsys.progress import bar

    if scenario is not None:
        return _simulate_scenario(home, scenario, users, items, days, seed, json)

    from recsys.simulate import simulate as run

    with bar(json) as step:
        report = run(_place(home), users=users, items=items, days=days, seed=seed, step=step)
    _show(report.as_dict(), json, report)


def _simulate_scenario(home: Path, scenario: str, users: int, items: int, days: float, seed: int, json: bool) -> None:
    from dataclasses import asdict
    from datetime import timedelta

    from recsys.progress import bar
    from recsys.scenarios import phases, simulate_scenario
    from recsys.simulate import OPENING

    timeline = phases(scenario, int(days))
    with bar(json) as step:
        report = simulate_scenario(_place(home), scenario, users, items, days, seed, step)
    table = Table("phase", "from", "to before", "days", "what is true in it", box=None, pad_edge=False)
    told = []
    for phase in timeline:
        begin, end = (str(OPENING + timedelta(days=day)) for day in (phase.begin, phase.end))
        table.add_row(phase.name, begin, end, f"{phase.begin} to {phase.end}", phase.what)
        told.append(asdict(phase) | {"from": begin, "until": end})
    _show(report.as_dict() | {"scenario": scenario, "phases": told}, json, report, table)


@app.command()
def fit(
    home: _HomeOption = HOME,
    until: _UntilOption = None,
    config: _ConfigOption = None,
    set: _SetOption = None,
    json: _JsonOption = False,
) -> None:
    """Train the towers from scratch on the log and publish the release. Needed once; after that, `update`."""
    from recsys.progress import bar
    from training.job import fit_and_publish

    settings = _settings(home, config, set)
    with bar(json) as step:
        release = fit_and_publish(_place(home, settings), settings, _moment(until), step)
    _show(_summary(release), json, _release_line(release))


@app.command()
def update(
    home: _HomeOption = HOME,
    until: _UntilOption = None,
    strategy: Annotated[
        str | None, typer.Option(help='How to remember: naive, replay, "replay(share=0.3)+ewc(strength=50)", replay+adapters, ...')
    ] = None,
    config: _ConfigOption = None,
    set: _SetOption = None,
    json: _JsonOption = False,
) -> None:
    """Learn what the log holds beyond the live release, and publish the next one.

    Interrupted at any point, the old release goes on serving and the command can simply be run again.
    """
    from recsys.progress import bar
    from training.job import update_and_publish

    settings = _settings(home, config, [*(set or []), *([f"update.strategy={strategy}"] if strategy else [])])
    with bar(json) as step:
        release = update_and_publish(_place(home, settings), settings, _moment(until), step)
    if release is None:
        _show({"release": None, "reason": "nothing new in the log"}, json, "nothing new in the log since the live release")
    else:
        _show(_summary(release), json, _release_line(release))


@releases_app.callback(invoke_without_command=True)
def releases(context: typer.Context, home: _HomeOption = HOME, json: _JsonOption = False) -> None:
    """List the releases, oldest first; the live one has a star, one on trial its share of the people. Of an update by the job: ndcg@20 on
    the newest events, and its parent's.
    """
    if context.invoked_subcommand:
        if _given(context):
            raise BadInput(f"options stand behind the whole command: recsys releases {context.invoked_subcommand} ... --home {home}")
        return
    from recsys.registry import Registry
    from recsys.trial import Trials

    registry = Registry(_place(home, away_is_fine=True).releases)
    live, trial = registry.current(), Trials(registry.folder).now()
    found = [registry.open(id) for id in registry.ids()]
    table = Table("release", "from", "created", "why", "items", "events", "ndcg@20 (was)", box=None)  # fits a terminal of 80 columns
    for release in found:
        about, metrics = release.manifest, release.manifest["metrics"]
        judged = about.get("gate", {}).get("figures", {})
        quality = f"{judged['ndcg@20']:.4f} ({judged['ndcg@20 live']:.4f})" if "ndcg@20" in judged else ""
        name, created = release.id, about["created"][:16].replace("T", " ")
        name += " *" if name == live else f" {trial.share:.3%}" if trial and name == trial.release else ""
        numbers = (f"{metrics['items']:,}", f"{metrics.get('events', 0):,.0f}", quality)
        table.add_row(name, about["parent"] or "-", created, about["why"], *numbers)
    empty = f"no release yet; train the first with: recsys fit --home {home}"
    told = {"live": live, "trial": trial and vars(trial)}
    _show({**told, "releases": [release.manifest for release in found]}, json, table if found else empty)


@releases_app.command()
def strip(
    id: Annotated[str | None, typer.Argument(help="The release; default: the live one.")] = None,
    home: _HomeOption = HOME,
    json: _JsonOption = False,
) -> None:
    """Take away what `update --strategy adapters` has laid beside the user tower: it goes back to its base, bit for bit, items stay.

    The result is published as a release of its own and goes live; `recsys rollback` brings the adapters back. Of an older release than the
    live one, the next update learns again what came after it.
    """
    from recsys.progress import bar
    from training.job import strip_and_publish

    with bar(json) as step:
        release = strip_and_publish(_place(home), id, step)
    _show(_summary(release), json, f"release [bold]{release.id}[/bold]: {release.manifest['why']}; live")


@app.command()
def rollback(
    id: Annotated[str | None, typer.Argument(help="The release to go back to; default: the parent of the live one.")] = None,
    home: _HomeOption = HOME,
    json: _JsonOption = False,
) -> None:
    """Make an older release live again: model, vocabulary, index, memory and log position together.

    The job then waits for somebody: `recsys job run --force` learns what the release has not learned, once more.
    """
    from recsys.turns import roll_back

    turn = roll_back(_place(home), id)
    _show({"live": turn.live, "was": turn.was}, json, f"live is {turn.live} (was {turn.was})")


@app.command()
def promote(
    id: Annotated[str | None, typer.Argument(help="The release.")] = None,
    canary: Annotated[str | None, typer.Option("--canary", help="Show it to so many of the people first, such as 5%.")] = None,
    shadow: Annotated[
        bool,
        typer.Option("--shadow", help="Show it to nobody: ask it beside the live one, for --canary of the people or 10%."),
    ] = False,
    hours: Annotated[float, typer.Option(min=0, help="After so many hours it goes live, if it has not fallen behind; 0: never.")] = 0,
    stop: Annotated[bool, typer.Option("--stop", help="End what is on trial; the live release answers everybody.")] = False,
    home: _HomeOption = HOME,
    json: _JsonOption = False,
) -> None:
    """Make a release live, or put it on trial.

    With --canary always the same people are shown it, and their answers name the variant. What they go on to is compared with what the
    others do (share of the plays that were in the list they had been shown): a release that is surely behind, or cannot answer, is on trial
    no longer, by itself. `recsys status` tells how the two compare.
    """
    from recsys import turns
    from recsys.registry import Registry

    place = _place(home)
    registry = Registry(place.releases, place.shared)
    live = registry.current()
    if stop:
        if id or canary or shadow or hours:
            raise BadInput("--stop ends what is on trial, whatever that is; leave the rest out")
        ended = turns.end_trial(place)
        _show({"live": live, "ended": ended}, json, f"release {live} answers everybody" if ended else "nothing is on trial")
        return
    if id is None:
        raise BadInput(f"name a release: {', '.join(registry.ids()) or 'there is none; train one with: recsys fit'}")
    if hours and (shadow or not canary):
        raise BadInput("--hours goes with --canary: a shadow never goes live by itself, and without either the release does at once")
    if canary or shadow:
        trial = turns.put_on_trial(place, id, _share(canary or "10%"), shadow, hours)
        how = "asked beside the live one for" if shadow else "shown to"
        _show({"live": live, "trial": vars(trial)}, json, f"release {id} is {how} {trial.share:.4%} of the people; see: recsys status")
        return
    turn = turns.promote(place, id)
    _show({"live": turn.live, "was": turn.was}, json, f"live is {turn.live} (was {turn.was})")


@app.command()
def gc(
    keep: Annotated[int, typer.Option(min=1, help="So many of the newest releases stay.")] = 10,
    home: _HomeOption = HOME,
    json: _JsonOption = False,
) -> None:
    """Remove old releases; the live one and its parent always stay, so that a rollback works."""
    from recsys.registry import Registry

    place = _place(home)
    registry = Registry(place.releases, place.shared)
    gone = registry.collect(keep)
    left = registry.ids()
    told = f"removed {', '.join(gone)}" if gone else "nothing to remove"
    _show({"removed": gone, "left": left}, json, f"{told}; {len(left)} release{'' if len(left) == 1 else 's'} left")


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder; it appears whole or not at all.")],
    home: _HomeOption = HOME,
    config: _ConfigOption = None,
    set: _SetOption = None,
    json: _JsonOption = False,
) -> None:
    """Copy the whole home (log, items, releases, keys, settings, journal) into a new folder, beside whatever is running.

    What waits in Redis is archived first. Profiles are not in it: a server fills them from the log when it starts.
    """
    from recsys.backup import backup as copy
    from recsys.journal import Journal
    from recsys.progress import bar
    from serving.archive import archive_home

    settings = _settings(home, config, set)
    place = _place(home, settings)
    if place.path.exists():
        archive_home(place, settings)
    with bar(json) as step:
        about = copy(place, folder, step)
    Journal(place.job).add("backup", folder=str(folder.absolute()))  # for whoever wants to be forgotten
    _show(about, json, f"{folder}: {about['events']:,} events, release {about['release']}, {about['bytes']:,} bytes")


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="What recsys backup wrote.")], home: _HomeOption = HOME, json: _JsonOption = False
) -> None:
    """Verify a backup, file by file, and make a new home of it. A home that holds anything is never written over."""
    from recsys.backup import restore as bring_back
    from recsys.progress import bar

    with bar(json) as step:
        about = bring_back(folder, Home(home), step)
    told = f"{home}: {about['events']:,} events, release {about['release']}, as they were on {about['created'][:16]}"
    _show(about, json, f"{told}; whoever was forgotten since then must be forgotten again")


@app.command()
def forget(
    user: Annotated[
        str, typer.Argument(help='A user_id, or "session:ID" for somebody who never signed in; - reads it from stdin.', show_default=False)
    ] = "",
    pending: Annotated[
        bool, typer.Option("--pending", help="Complete what was killed here, or asked for on another machine of a shared store.")
    ] = False,
    home: _HomeOption = HOME,
    config: _ConfigOption = None,
    set: _SetOption = None,
    json: _JsonOption = False,
) -> None:
    """Erase all that is kept of a person: profile, waiting events, log, and what each release remembers. For good.

    A receipt stays in H/forgotten, by the hash of the name: it lists what was erased where, and which backups still hold it. Should what
    they did come again, from a client or a file, it is left out. Interrupted, the same command completes it. What the towers learned from
    everybody together stays in their weights until the next `recsys fit`. Where machines share a store they are erased there, and each
    other machine erases what it has of them: a server within seconds (store.look_seconds), `recsys forget --pending` at once.
    """
    from recsys.joined import open_home
    from recsys.progress import bar
    from serving.forget import complete
    from serving.forget import forget as erase
    from training.forget import forget as clean

    settings = _settings(home, config, set)
    if pending and user:
        raise BadInput("--pending is for everybody who is not forgotten wholly yet; leave the user_id out")
    if not home.exists():
        raise BadInput(f"there is no home {home}; --home names the one to erase {'a person' if user in ('', '-') else repr(user)} from")
    name = sys.stdin.read().removesuffix("\n") if user == "-" else user
    if not name and not pending:
        raise BadInput("whom? recsys forget wants a user_id")
    place = open_home(home, settings)
    try:
        with bar(json) as step:
            done = complete(place, settings, clean, step) if pending else [erase(place, settings, name, clean, step)]
    except KeyboardInterrupt:
        err.print("stopped half-way; what is erased is gone, and the same command completes it", style="yellow")
        raise
    if pending:
        _show({"completed": done}, json, f"completed: {len(done)}" if done else "everybody who asked to be forgotten is")
        return
    receipt = done[0]
    found = [f"{count:,} {what}" for what, count in receipt["erased"].items() if count]
    there = [copy["folder"] for copy in receipt["backups"] if copy["there"]]
    held = [f"still there, and may hold them: the backup {folder}" for folder in there]
    told = f"erased: {', '.join(found)}" if found else "nothing was kept of them; is the user_id right?"
    _show(receipt, json, told, *held, f"receipt: {place.forgotten / receipt['who']}.json")


@app.command()
def status(home: _HomeOption = HOME, json: _JsonOption = False) -> None:
    """Say what there is: log, catalogue, live release, how far it lags behind the log, and what a profile takes in Redis where one runs."""
    from recsys.catalogue import Catalogue
    from recsys.log import Log
    from recsys.registry import Registry

    place = _place(home, away_is_fine=True)
    log, registry = Log(place.log), Registry(place.releases)
    live = registry.open() if registry.current() else None
    found = {
        "home": str(place.path),
        "events": log.count(),
        "segments": len(log.segments()),
        "items_described": len(Catalogue(place.items).read()),
        "release": live and live.id,
        "releases": len(registry.ids()),
        "events_not_learned": len(log.read(after=live.position, columns=["event_id"])) if live else log.count(),
        "bytes": {part.name: _size(part) for part in (place.log, place.items, place.releases, place.redis)},
        "profiles": _profiles(place),
        "forgotten": _forgotten(place),
        "trial": _trial(place),
        "job": _job(place),
    }
    table = Table(show_header=False, box=None)
    for name, value in found.items():
        table.add_row(name.replace("_", " "), _told_of_trial(_trial(place)) if name == "trial" else _told(value))
    _show(found, json, table)


@app.command()
def serve(
    home: _HomeOption = HOME,
    host: Annotated[str | None, typer.Option(help="Address to bind; default: serving.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind; 0 picks a free one; default: serving.port.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that answer, one per core; default: serving.workers.")] = None,
    with_archiver: Annotated[
        bool, typer.Option("--with-archiver", help="Move events into the log every ten seconds, in a process of its own.")
    ] = False,
    config: _ConfigOption = None,
    set: _SetOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the address as one JSON line once it is up.")] = False,
) -> None:
    """Serve the live release over HTTP; a new one is picked up without a restart. Documentation under /docs.

    Profiles live in Redis: RECSYS_REDIS_URL, or a server of its own under H/redis.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # read when faiss and numpy are imported
        os.environ.setdefault(name, "1")
    from serving.run import run

    given = [f"serving.{name}={value}" for name, value in (("host", host), ("port", port), ("workers", workers)) if value is not None]
    settings = _settings(home, config, [*(set or []), *given])
    run(_place(home, settings, away_is_fine=True, all=False), settings, json=json, with_archiver=with_archiver)


@app.command()
def rules(home: _HomeOption = HOME, json: _JsonOption = False) -> None:
    """Check the house rules in H/rules.toml (boost, bury, pin, cap) and say what they are; a server follows them within a second."""
    from recsys.catalogue import Catalogue
    from recsys.registry import Registry
    from recsys.vocab import Vocabulary
    from serving.rules import EXAMPLE, RulesFile
    from serving.shelf import Shelf

    place = Home(home)
    file, catalogue, registry = RulesFile(place.rules), Catalogue(place.items).read(), Registry(place.releases)
    found = file.read()
    known = catalogue["item_id"].to_pylist()
    if registry.current():
        import pyarrow.parquet as pq

        known += pq.read_table(registry.open().file("items.parquet"), columns=["item_id"])["item_id"].to_pylist()
    notes = found.check(Shelf(catalogue, Vocabulary(known)), set(known)) if found else []
    told = [f"{name}: {', '.join(str(rule) for rule in each)}" for name in type(found).model_fields if (each := getattr(found, name))]
    none = f"no rules; write some into {file.file}, such as:\n{EXAMPLE.rstrip()}"
    _show(found.model_dump() | {"notes": notes}, json, *(told + notes or [none]))


@keys_app.command("add")
def keys_add(
    name: Annotated[str, typer.Argument(help="Whose key it is, such as app or dashboard.")],
    scopes: Annotated[
        str, typer.Option(help="What it may: read (recommendations), write (events), admin (items, people); comma-separated.")
    ] = "read,write",
    rate: Annotated[float, typer.Option(help="Requests a second at most; 0 for as many as come.")] = 0.0,
    home: _HomeOption = HOME,
    json: _JsonOption = False,
) -> None:
    """Make a key and print it: this once, for only its hash is stored. Send it as: authorization: Bearer KEY."""
    from serving.keys import Keys

    secret = Keys(Home(home).keys).add(name, scopes, rate)
    _show({"name": name, "key": secret}, json, f"{secret}\nThis is the only time it is shown. Send it as: authorization: Bearer KEY")


@keys_app.command("list")
def keys_list(home: _HomeOption = HOME, json: _JsonOption = False) -> None:
    """List the keys: whose, what they may, how often, since when."""
    from serving.keys import Keys

    found = Keys(Home(home).keys).all()
    table = Table("name", "scopes", "requests/s", "created", box=None)
    for key in found:
        table.add_row(key.name, ", ".join(key.scopes), f"{key.rate:g}" if key.rate else "any", key.created[:16])
    rows = [{"name": key.name, "scopes": list(key.scopes), "rate": key.rate, "created": key.created} for key in found]
    _show(rows, json, table if found else "no keys: only this machine is served; make one with: recsys keys add NAME")


@keys_app.command("remove")
def keys_remove(
    name: Annotated[str, typer.Argument(help="The key to make worthless.")], home: _HomeOption = HOME, json: _JsonOption = False
) -> None:
    """Make a key worthless; running servers notice within a second."""
    from serving.keys import Keys

    Keys(Home(home).keys).remove(name)
    _show({"removed": name}, json, f"removed {name}")


@app.command()
def archive(
    home: _HomeOption = HOME,
    every: Annotated[
        float | None, typer.Option(min=0.1, help="Go on, every so many seconds, until SIGTERM or Ctrl-C: what serve --with-archiver runs.")
    ] = None,
    config: _ConfigOption = None,
    set: _SetOption = None,
    json: _JsonOption = False,
) -> None:
    """Move the events that the API took in from Redis into the log, so that the next update learns them.

    Every event that was acknowledged comes into the log once, wherever this is killed. What Redis itself has lost is told, here and by
    `recsys job log`.
    """
    from serving.archive import archive_home

    settings = _settings(home, config, set)
    place = _place(home, settings, away_is_fine=every is not None)
    if every is None:
        moved = archive_home(place, settings)
        _show({"archived": moved}, json, f"{moved} event{'' if moved == 1 else 's'} moved into the log")
        return
    with suppress(KeyboardInterrupt):
        while True:
            try:
                if moved := archive_home(place, settings):
                    print(f'{{"archived": {moved}}}' if json else f"{moved:,} events moved into the log", flush=True)
            except (RecsysError, OSError) as error:  # a Redis or a disk that is away for a moment must not end it
                _complain(str(error))
            if _told_to_end:
                return
            time.sleep(every)


@job_app.command("run")
def job_run(
    home: _HomeOption = HOME,
    force: Annotated[
        bool, typer.Option("--force", help="Update where anything is new, whatever the triggers say. The gate is asked all the same.")
    ] = False,
    config: _ConfigOption = None,
    set: _SetOption = None,
    json: _JsonOption = False,
) -> None:
    """Archive what the API took in, and update if that is due: learn it, judge the candidate, publish it or say why not.

    Of two jobs at once one works and the other ends, both with exit code 0. A refused candidate leaves the live release as it is, and what
    it learned will be learned again; after gate.alarm refusals in a row the exit code is 1.
    """
    from recsys.progress import bar

    settings = _settings(home, config, set)
    place = _place(home, settings)
    with bar(json) as step:
        line = _look(place, settings, force, step)
    _show(line, json, _job_line(line))
    _alarm(place, settings)


@job_app.command("watch")
def job_watch(home: _HomeOption = HOME, config: _ConfigOption = None, set: _SetOption = None, json: _JsonOption = False) -> None:
    """Do what `run` does again and again, every job.poll_seconds, until SIGTERM or Ctrl-C; one line for each update."""
    import orjson

    from recsys.progress import silent

    settings, before = _settings(home, config, set), ""
    place = _place(home, settings, away_is_fine=True)
    with suppress(KeyboardInterrupt):  # SIGTERM is one too: what is half done is given up, and nothing of it is live
        while True:
            began, pause = time.monotonic(), settings.job.poll_seconds
            try:
                line = _look(place, settings, False, silent)
                if line["what"] not in ("not due", before):
                    print(orjson.dumps(line).decode() if json else f"{line.get('time', '')} {_job_line(line)}", flush=True)
                if line["what"] == "refused":
                    pause = max(pause, 10 * (time.monotonic() - began))  # it may well be refused again
                    _alarm(place, settings)
                before = line["what"] if line["what"] == "superseded" else ""
            except (RecsysError, OSError) as error:  # a disk or a Redis that is away for a moment must not end the watch
                _complain(str(error))
            if _told_to_end:
                return
            time.sleep(pause)


@job_app.command("log")
def job_log(
    home: _HomeOption = HOME,
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="So many lines.")] = 20,
    json: _JsonOption = False,
) -> None:
    """Show what the job decided and why, the newest last."""
    from recsys.journal import Journal

    lines = Journal(Home(home).job).read()[-last:]
    _show(lines, json, *([f"{line['time']} {_job_line(line)}" for line in lines] or ["the job has not decided anything yet"]))


@app.command()
def evaluate(
    context: typer.Context,
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="Event files, or the folder of period files for --protocol ader.")
    ] = None,
    items: Annotated[list[Path] | None, typer.Option("--items", help="Item metadata files that go with --data.")] = None,
    home: Annotated[
        Path | None, typer.Option("--home", "-H", envvar="RECSYS_HOME", help="Replay this home's log instead of files.")
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="prequential: every event of a time window is foretold from its owner's history; next-session: all items of a session, "
            "at its start; ader: every click of weekly period files."
        ),
    ] = "prequential",
    window: Annotated[str, typer.Option(help="Length of a window: 7d, 12h, 30m.")] = "7d",
    train: Annotated[int, typer.Option(min=1, help="Windows that the first fit learns from.")] = 8,
    cycles: Annotated[int | None, typer.Option(min=1, help="At most so many windows or cycles are answered; default: all.")] = None,
    methods: Annotated[
        str,
        typer.Option(
            help="Comma-separated: baselines (popular, rules, knn, itemknn, als, bpr), frozen, recounted, retrain, window, or any strategy "
            "(docs/strategies.md), joined by +; +dropout for more of it in updates, +neighbours for the fused answer that is served. "
            "Settings stand in parentheses: knn(nearest=300),replay(share=0.3)+ewc. all: every baseline, every strategy, and compositions."
        ),
    ] = "popular,knn,als,frozen,naive,replay+ewc,replay+ewc+neighbours,retrain",
    k: Annotated[str, typer.Option("--k", help="Lengths of the lists, comma-separated.")] = "10,20",
    seeds: Annotated[int, typer.Option(min=1, help="Run methods that draw lots under so many seeds, from training.seed on.")] = 1,
    baseline: Annotated[str | None, typer.Option(help="The method that the others are compared with; default: the first.")] = None,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Let methods recommend what the person already had.")] = False,
    filter_unseen: Annotated[bool, typer.Option("--filter-unseen", help="Leave out targets that no window before held.")] = False,
    matrix: Annotated[
        bool | None,
        typer.Option(
            "--matrix/--no-matrix",
            help="Score each release on all windows, to see what is forgotten; default: where they are 40 or fewer.",
        ),
    ] = None,
    config: _ConfigOption = None,
    set: _SetOption = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="The folder that answers are kept in; default: HOME/reports/PROTOCOL-HASH."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a run that was stopped, or add --methods or --seeds to one. Which: --run, or the newest of the home. What is "
            "not said again stays as it was asked.",
        ),
    ] = False,
    anew: Annotated[bool, typer.Option("--anew", help="Throw the answers away that --run holds to this question, and start over.")] = False,
    report: Annotated[Path | None, typer.Option("--report", help="Write one HTML file with pictures.")] = None,
    mlflow: Annotated[str | None, typer.Option("--mlflow", help="Log to this MLflow tracking URI too; needs the extra `mlflow`.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the results to this file; - prints them.")] = None,
) -> None:
    """Replay a log: every window is answered before it is learned, by every method, over the full catalogue.

    Every answer is kept in the run's folder as soon as there is one: a run that is stopped goes on with --resume, and of one that has
    finished --resume works out the figures again, without a replay.

    Towers that are no strategy: frozen never learns again; recounted goes on counting what is popular and places new items, without a step
    of training; retrain learns everything anew in every window, retrain(every=4) in every fourth and is frozen in between; window(n=4)
    learns the newest four windows anew each time. naive updates on what is new alone.
    """
    import torch

    from eval.command import Question, run_to_resume, write
    from eval.command import evaluate as answer
    from eval.methods import spelled
    from eval.table import table
    from recsys.progress import bar

    quiet = str(json) == "-"
    if resume and anew:
        raise BadInput("--resume goes on, --anew starts over; take one of them")
    if items and not data:
        raise BadInput("--items goes with --data; a home has its own, added with: recsys import --items")
    given = _given(context)
    if protocol == "ader" and (ignored := given & {"window", "train", "include_seen", "filter_unseen", "items"}):
        named = ", ".join("--" + name.replace("_", "-") for name in sorted(ignored))
        raise BadInput(f"--protocol ader has its own rules; leave out {named}")
    for option, path in (("--report", report), ("--json", None if quiet else json)):
        _refuse_unwritable(option, path)
    settings = _settings(home, config, set)
    question = Question(
        protocol=protocol,
        data=tuple(data or ()),
        items=tuple(items or ()),
        home=home,
        window=_seconds(window),
        train=train,
        cycles=cycles,
        methods=spelled(methods),
        ks=tuple(_whole_numbers(k)),
        exclude_seen=settings.serving.exclude_seen and not include_seen,
        filter_unseen=filter_unseen,
        seeds=seeds,
        matrix=matrix,
        settings=settings,
    )
    if resume:
        run = run_to_resume(run, home)
        question = question.beside(Question.of_run(run), given)
    torch.set_num_threads(question.settings.training.threads)  # pools that fight over the cores cost more than they bring
    folder: list[Path] = []

    try:
        with bar(quiet) as step:
            found = answer(question, shlex.join(["recsys", *sys.argv[1:]]), run, resume, baseline, mlflow, folder.append, step, anew)
    except KeyboardInterrupt:
        if folder:
            line = shlex.join(["recsys", "evaluate", "--run", str(folder[0]), "--resume"])
            err.print(f"stopped; what is answered is kept. To go on: {line}", style="yellow", soft_wrap=True, highlight=False)
        raise
    if json and not quiet:
        write(found, json)
    if report:
        from eval.report import write as draw

        draw(found, report)
    written = [f"{name}: {path}" for name, path in (("report", report), ("results", json)) if path and not quiet]
    _show(found, quiet, table(found, out.width), *written, f"every answer is kept in {folder[0]}")


@app.command()
def estimate(
    id: Annotated[str, typer.Argument(help="The release to judge, such as 000007; the live one stands beside it.")],
    home: _HomeOption = HOME,
    window: Annotated[str, typer.Option(help="What somebody does within this after a list was shown was earned by it: 30m, 1h.")] = "1h",
    clip: Annotated[
        float | None, typer.Option(min=1, help="The largest weight of a place; default: the root of the number of places.")
    ] = None,
    lists: Annotated[int, typer.Option(min=1, help="At most so many lists, the newest.")] = 10_000,
    config: _ConfigOption = None,
    set: _SetOption = None,
    json: _JsonOption = False,
) -> None:
    """Estimate what a release would have earned on the lists that were explored, from their logged propensities; beside the live release.

    A place earns 1 where its item is played, liked, ... and the list's request_id comes with that, or none and it is within the window.
    Lists that either release has learned, or that cannot be made again from the log, are left out and counted.
    """
    from eval.estimate import estimate as work_out
    from eval.estimate import remarks, table
    from recsys.progress import bar

    with bar(json) as step:
        found = work_out(Home(home), _settings(home, config, set), id, _seconds(window), clip, lists, step)
    _show(found, json, table(found), *remarks(found))


@app.command()
def tune(
    method: Annotated[str, typer.Option(help='What to tune, such as knn, "als(factors=128)" or replay+ewc.')],
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="Event files, or the folder of period files for --protocol ader.")
    ] = None,
    items: Annotated[list[Path] | None, typer.Option("--items", help="Item metadata files that go with --data.")] = None,
    home: Annotated[
        Path | None, typer.Option("--home", "-H", envvar="RECSYS_HOME", help="Tune on this home's log instead of files.")
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(help='What to search: "nearest=100..1000,fading=0.5..8log,training.lr=1e-4..1e-2log,model.encoder=gru|mean".'),
    ] = None,
    metric: Annotated[str, typer.Option(help="What is to be high: recall@20, ndcg@20, mrr@10, ...")] = "recall@20",
    trials: Annotated[int, typer.Option(min=1, help="How many settings to try, with those of an earlier run.")] = 30,
    protocol: Annotated[str, typer.Option(help="As in the coming evaluation: prequential, next-session or ader.")] = "prequential",
    window: Annotated[str, typer.Option(help="Length of a window: 7d, 12h, 30m.")] = "7d",
    train: Annotated[
        int | None,
        typer.Option(min=2, help="Windows, or periods, before the first test window: nothing later is seen. Default: 8; ader: 3."),
    ] = None,
    validate: Annotated[int, typer.Option(min=1, help="The last so many of them are answered, the others learned from.")] = 2,
    every: Annotated[int, typer.Option(min=1, help="Ask only every so-manieth question; a search is quicker so.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same search.")] = 0,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Let methods recommend what the person already had.")] = False,
    filter_unseen: Annotated[bool, typer.Option("--filter-unseen", help="Leave out targets that no window before held.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Where the trials are kept; the same command goes on where it stopped. Default: .tune/METHOD."),
    ] = None,
    config: _ConfigOption = None,
    set: _SetOption = None,
    json: _JsonOption = False,
) -> None:
    """Search settings of one method on the windows before the first test window. Needs the extra `tune` (Optuna).

    The best is printed as a line for `recsys evaluate`; every trial is in FOLDER/trials.json.
    """
    import torch

    from eval.command import Question
    from eval.run import folder_name
    from eval.tune import run
    from recsys.progress import bar

    settings = _settings(home, config, set)
    torch.set_num_threads(settings.training.threads)
    question = Question(
        protocol=protocol,
        data=tuple(data or ()),
        items=tuple(items or ()),
        home=home,
        window=_seconds(window),
        train=train or (3 if protocol == "ader" else 8),
        cycles=None,
        methods=method,
        ks=(20,),
        exclude_seen=settings.serving.exclude_seen and not include_seen,
        filter_unseen=filter_unseen,
        seeds=1,
        matrix=False,
        settings=settings,
    )
    with bar(json) as step:
        try:
            tuned = run(question, space, metric, folder or Path(".tune") / folder_name(method), validate, every, seed, trials, step)
        except KeyboardInterrupt:
            err.print("stopped; the trials so far are kept, and the same command goes on from them", style="yellow", soft_wrap=True)
            raise
    _show(tuned.as_dict(), json, tuned.table(), tuned.line())


@app.command()
def demo(
    home: Annotated[Path, typer.Option("--home", "-H", help="A folder of the demo's own; it is emptied first.")] = Path(".demo"),
    json: _JsonOption = False,
) -> None:
    """Show the whole system on a real log: import, fit, update week by week, evaluate, serve, tap. What `make demo` runs."""
    from recsys.demo import run

    _show(run(home, quiet=json), json)


def main() -> None:
    """Run the command; what the user can mend is one line on stderr and exit code 1."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(standalone_mode=False, prog_name="recsys") or 0
        if code == _INTERRUPTED:
            err.print("interrupted; nothing half-done is live", style="yellow")
        sys.exit(code)
    except typer.Abort:
        sys.exit(_INTERRUPTED)
    except RecsysError as error:
        _complain(str(error))
        sys.exit(1)
    except OSError as error:
        _complain(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
        sys.exit(1)
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own complaints about the command line
            raise
        if what := error.format_message().rstrip("."):  # nothing where the help was asked for by naming no command
            context = getattr(error, "ctx", None)
            _complain(f"{what} (see: {context.command_path if context else 'recsys'} --help)")
        sys.exit(2)


def _interrupt(*_: object) -> None:
    """Let SIGTERM end a command as Ctrl-C does: drafts are removed, nothing half-done goes live."""
    _told_to_end.append(True)  # no Event: a handler that comes while the main thread holds its lock would wait for itself
    raise KeyboardInterrupt  # where this comes in a destructor Python passes over it; who goes on and on looks at the other


def _complain(text: str) -> None:
    err.print(f"[bold red]error:[/bold red] {text.replace('[', chr(92) + '[')}", soft_wrap=True, highlight=False)


def _intake(
    paths: list[Path], home: Path, items: bool, format: str | None, columns: str | None, strict: bool, json: bool, write: bool
) -> None:
    from recsys import intake
    from recsys.progress import bar

    names = _pairs(columns)
    with bar(json) as step:
        take = intake.import_items if items else intake.import_events
        report = take(_place(home), paths, format, names, step, strict, write=write)
    _show(report.as_dict(), json, report)


def _show(result: Any, as_json: bool, *readable: Any) -> None:
    if as_json:
        import orjson

        sys.stdout.write(orjson.dumps(result, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")
    else:
        for part in readable:
            out.print(part, highlight=False, soft_wrap=isinstance(part, str))


def _settings(home: Path | None, config: list[Path] | None, set: list[str] | None) -> Settings:
    own = [Home(home).config] if home and Home(home).config.exists() else []
    return load_settings(*own, *(config or []), overrides=_pairs_of(set or []))


def _place(home: Path, settings: Settings | None = None, away_is_fine: bool = False, all: bool = True) -> Home:
    """Return a home; where it shares a store, with what other machines have put there. away_is_fine: else with what it has."""
    from recsys.joined import open_home, pull

    place = open_home(home, settings or _settings(home, None, None))
    try:
        pull(place, all)
    except (StoreAway, ReleaseDamaged) as error:
        if not away_is_fine:
            raise
        _complain(f"{error}; going on with what is here")
    return place


def _given(context: typer.Context) -> builtins.set[str]:
    """Return the options that the command line names."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _refuse_unwritable(option: str, path: Path | None) -> None:
    """Raise BadInput where a file could not be written in the end: before the work, not after it."""
    if path is None:
        return
    if path.is_dir():
        raise BadInput(f"{option} wants a file; {path} is a folder")
    there = path.absolute().parent
    there = there if there.is_dir() else there.parent  # one new folder is made in the end; more are a slip of the pen
    if not there.is_dir():
        raise BadInput(f"{option} {path}: there is no folder {there}; make it first")
    if not os.access(there, os.W_OK):
        raise BadInput(f"{option} {path}: {there} cannot be written to")


def _pairs(text: str | None) -> dict[str, str]:
    return _pairs_of(text.split(",")) if text else {}


def _pairs_of(texts: list[str]) -> dict[str, str]:
    pairs = [text.strip().partition("=") for text in texts]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise BadInput(f"cannot read {name!r}; write name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _moment(text: str | None) -> int | None:
    """Read a moment as ms since 1970."""
    if text is None:
        return None
    from datetime import UTC, datetime

    try:
        seconds = float(text)
    except ValueError:
        seconds = None
    try:
        moment = datetime.fromisoformat(text) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise BadInput(f"--until {text!r} is not a moment; write 2013-06-01, 2013-06-01T12:00:00Z or unix seconds") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _seconds(text: str) -> float:
    units = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
    try:
        length = float(text[:-1]) * units[text[-1]]
    except (KeyError, ValueError, IndexError):
        raise BadInput(f"--window {text!r} is no number of minutes, hours, days or weeks; write 30m, 12h, 7d or 2w") from None
    if not 0 < length < 1e10:
        raise BadInput(f"--window {text!r} must be more than 0 and less than 300 years")
    return length


def _whole_numbers(text: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise BadInput(f"--k {text!r} must be whole numbers from 1 on, such as 10,20")
    return numbers


def _summary(release: Any) -> dict[str, Any]:
    return {"release": release.id, **{key: release.manifest[key] for key in ("parent", "why", "position", "metrics", "seconds", "content")}}


def _release_line(release: Any) -> str:
    about = release.manifest
    new = f" ({about['metrics']['new items']:.0f} new)" if "new items" in about["metrics"] else ""
    return (
        f"release [bold]{release.id}[/bold]: {about['metrics']['events']:,.0f} events learned, {about['metrics']['items']:,} items{new}, "
        f"{about['seconds']['train']:.1f} s training, {about['seconds']['write']:.1f} s writing; live"
    )


class Alarm(RecsysError):
    """So many updates in a row were refused that somebody must look."""


def _told(value: Any) -> str:
    """Write what stands in a table: numbers by thousands, the parts of a dictionary one after the other."""
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_told(part)}" for name, part in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def _job(home: Home) -> dict[str, Any] | None:
    """Return what the job decided last, and how often it was refused since it published; None where it never ran."""
    from recsys.journal import Journal

    journal = Journal(home.job)
    lines = [line for line in journal.read() if line["what"] != "backup"]
    return {"last": lines[-1]["what"], "at": lines[-1]["time"], "refused_in_a_row": journal.refusals()} if lines else None


def _look(home: Home, settings: Settings, force: bool, step: Step) -> dict[str, Any]:
    """Do what the job does each time: archive, and update where that is due."""
    from datetime import datetime

    from recsys.joined import pull
    from recsys.registry import Registry

    pull(home)
    Registry(home.releases).open()  # where there is none, that is said at once, and nothing is made
    from eval.gate import judge
    from serving.archive import archive_home
    from serving.lease import Busy, lease
    from training.job import run

    archived = archive_home(home, settings)
    try:
        with lease(home.job / "lease", settings.serving.redis_url, settings.serving.tenant):
            live = Registry(home.releases).open()
            since = int(datetime.fromisoformat(live.manifest["created"]).timestamp() * 1000)
            shown = _outcomes(home, settings, since) if settings.job.online else []
            measured = [(one.rank > 0, one.loss) for one in shown if one.variant == "live" and one.release == live.id]
            return {**run(home, settings, judge, force, step, measured), "archived": archived}
    except Busy as busy:
        return {"what": "superseded", "reason": str(busy), "archived": archived}


def _job_line(line: dict[str, Any]) -> str:
    """Say in one line what the job decided."""
    if line["what"] == "loss":
        return f"lost, in partition {line['partition']}: {line['reason']}"
    if line["what"] == "trial":
        return (
            f"release {line['release']} is on trial, {'a shadow for' if line['shadow'] else 'shown to'} {line['share']:.2%} of the people"
        )
    if line["what"] == "trial ended":
        return f"the trial of release {line['release']} is over: {line['reason']}" if line["release"] else "the trial was ended by hand"
    if line["what"] == "promoted":
        return f"release {line['release']} is live (was {line['was']}): {line['reason']}"
    if line["what"] == "backup":
        return f"copied to {line['folder']}"
    if line["what"] == "rolled back":
        return f"rolled back to release {line['release']} (was {line['was']})"
    if line["what"] == "stripped":
        return f"release {line['release']} is live (was {line['was']}): release {line['of']} without its adapters"
    if line["what"] == "not due":
        why = f"; {line['reason']}" if "reason" in line else ""
        return f"no update is due: {line['events']:,} events since release {line.get('release') or line.get('parent')}{why}"
    if line["what"] == "superseded":
        return f"superseded: {line['reason']}"
    why, held = "; ".join(line["triggers"].values()), line["held back"]
    learned = f"{line['events']:,} events, {held:,} held back, because of {why}"
    if line["what"] == "refused":
        return f"refused: {line['reason']}; release {line['parent']} stays live ({learned})"
    figures = line["gate"]["figures"]
    quality = f", ndcg@20 {figures['ndcg@20']:.4f} on the newest events (was {figures['ndcg@20 live']:.4f})" if "ndcg@20" in figures else ""
    notes = "".join(f"; {note}" for note in line["gate"]["notes"])
    now = "on trial" if line["what"] == "on trial" else "live"
    return f"release {line['release']} is {now} after {line['seconds']:.0f} s{quality}: {learned}{notes}"


def _alarm(home: Home, settings: Settings) -> None:
    """Raise Alarm where too many updates in a row were refused."""
    from recsys.journal import Journal

    refusals = Journal(home.job).refusals()
    if refusals >= settings.gate.alarm:
        shown = shlex.quote(str(home.path))
        raise Alarm(
            f"{refusals} updates in a row were refused; see why: recsys job log --home {shown}; if it is the world that changed, "
            f"loosen the setting that is named there: recsys job run --force --set gate.NAME=VALUE --home {shown}"
        )


def _outcomes(home: Home, settings: Settings, since: int) -> list[Any]:
    """Return what a server measured from a moment on, ms; nothing where no Redis answers."""
    import redis

    from serving.embedded import running
    from serving.online import outcomes

    url = settings.serving.redis_url or running(home.redis)
    if not url:
        return []
    try:
        with redis.Redis.from_url(url, socket_timeout=10, socket_connect_timeout=1) as client:
            return outcomes(client, settings.serving.tenant, since)
    except redis.RedisError:
        return []


def _trial(home: Home) -> dict[str, Any] | None:
    """Return what is on trial and how it compares; None where nothing is."""
    from recsys.trial import Trials
    from serving.behind import Tally

    trial = Trials(home.releases).now()
    if trial is None:
        return None
    measured = [one for one in _outcomes(home, _settings(home.path, None, None), trial.began) if one.trial == trial.began]
    return {**vars(trial), "so_far": str(Tally("shadow" if trial.shadow else "canary").add(measured).comparison())}


def _told_of_trial(trial: dict[str, Any] | None) -> str:
    """Say in a line what is on trial."""
    if trial is None:
        return "none"
    how, since = "a shadow for" if trial["shadow"] else "shown to", time.strftime("%Y-%m-%d %H:%M", time.gmtime(trial["began"] / 1000))
    return f"release {trial['release']}, {how} {trial['share']:.2%} of the people since {since} UTC: {trial['so_far']}"


def _share(text: str) -> float:
    """Read a share: 5%, or 0.05."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise BadInput(f"--canary {text!r} is no share of the people; write 5% or 0.05") from None


def _forgotten(home: Home) -> dict[str, int]:
    """Return how many people were forgotten, and how many of these commands did not come to their end."""
    from recsys.forgotten import Forgotten

    receipts = Forgotten(home.forgotten).all()
    return {"people": len(receipts), "unfinished": sum(receipt["completed"] is None for receipt in receipts)}


def _profiles(home: Home) -> dict[str, int] | None:
    """Return how many profiles there are and what one takes, None where no Redis answers."""
    from serving.embedded import running
    from serving.profiles import usage

    serving = _settings(home.path, None, None).serving
    url = serving.redis_url or running(home.redis)
    return usage(url, serving.tenant) if url else None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
