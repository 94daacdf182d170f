"""Commands about a whole home: status, backup, restore, forget."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from recsys.commands.jobs import last_decision
from recsys.commands.options import HOME, ConfigOption, HomeOption, JsonOption, SetOption
from recsys.commands.terminal import err, open_place, read_settings, show
from recsys.commands.trials import running_trial, told_of_trial
from recsys.errors import BadInput
from recsys.home import Home


def status(home: HomeOption = HOME, json: JsonOption = False) -> None:
    """Say what there is: log, catalogue, live release, how far it lags behind the log, and what a profile takes in Redis where one runs."""
    from recsys.catalogue import Catalogue
    from recsys.log import Log
    from recsys.registry import Registry

    place = open_place(home, away_is_fine=True)
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
        "trial": running_trial(place),
        "job": last_decision(place),
    }
    table = Table(show_header=False, box=None)
    for name, value in found.items():
        table.add_row(name.replace("_", " "), told_of_trial(running_trial(place)) if name == "trial" else _told(value))
    show(found, json, table)


def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder; it appears whole or not at all.")],
    home: HomeOption = HOME,
    config: ConfigOption = None,
    set: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Copy the whole home (log, items, releases, keys, settings, journal) into a new folder, beside whatever is running.

    What waits in Redis is archived first. Profiles are not in it: a server fills them from the log when it starts.
    """
    from recsys.backup import backup as copy
    from recsys.journal import Journal
    from recsys.progress import bar
    from serving.archive import archive_home

    settings = read_settings(home, config, set)
    place = open_place(home, settings)
    if place.path.exists():
        archive_home(place, settings)
    with bar(json) as step:
        about = copy(place, folder, step)
    Journal(place.job).add("backup", folder=str(folder.absolute()))  # for whoever wants to be forgotten
    show(about, json, f"{folder}: {about['events']:,} events, release {about['release']}, {about['bytes']:,} bytes")


def restore(
    folder: Annotated[Path, typer.Argument(help="What recsys backup wrote.")], home: HomeOption = HOME, json: JsonOption = False
) -> None:
    """Verify a backup, file by file, and make a new home of it. A home that holds anything is never written over."""
    from recsys.backup import restore as bring_back
    from recsys.progress import bar

    with bar(json) as step:
        about = bring_back(folder, Home(home), step)
    told = f"{home}: {about['events']:,} events, release {about['release']}, as they were on {about['created'][:16]}"
    show(about, json, f"{told}; whoever was forgotten since then must be forgotten again")


def forget(
    user: Annotated[
        str, typer.Argument(help='A user_id, or "session:ID" for somebody who never signed in; - reads it from stdin.', show_default=False)
    ] = "",
    pending: Annotated[
        bool, typer.Option("--pending", help="Complete what was killed here, or asked for on another machine of a shared store.")
    ] = False,
    home: HomeOption = HOME,
    config: ConfigOption = None,
    set: SetOption = None,
    json: JsonOption = False,
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

    settings = read_settings(home, config, set)
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
        show({"completed": done}, json, f"completed: {len(done)}" if done else "everybody who asked to be forgotten is")
        return
    receipt = done[0]
    found = [f"{count:,} {what}" for what, count in receipt["erased"].items() if count]
    there = [copy["folder"] for copy in receipt["backups"] if copy["there"]]
    held = [f"still there, and may hold them: the backup {folder}" for folder in there]
    told = f"erased: {', '.join(found)}" if found else "nothing was kept of them; is the user_id right?"
    show(receipt, json, told, *held, f"receipt: {place.forgotten / receipt['who']}.json")


def _told(value: Any) -> str:
    """Write what stands in a table: numbers by thousands, the parts of a dictionary one after the other."""
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_told(part)}" for name, part in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)


def _forgotten(home: Home) -> dict[str, int]:
    """Return how many people were forgotten, and how many of these commands did not come to their end."""
    from recsys.forgotten import Forgotten

    receipts = Forgotten(home.forgotten).all()
    return {"people": len(receipts), "unfinished": sum(receipt["completed"] is None for receipt in receipts)}


def _profiles(home: Home) -> dict[str, int] | None:
    """Return how many profiles there are and what one takes, None where no Redis answers."""
    from serving.embedded import running
    from serving.profiles import usage

    serving = read_settings(home.path, None, None).serving
    url = serving.redis_url or running(home.redis)
    return usage(url, serving.tenant) if url else None


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
