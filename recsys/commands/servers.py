"""Commands of who answers: serve, rules, keys, archive."""

import os
import time
from contextlib import suppress
from typing import Annotated

import typer
from rich.table import Table

from recsys.commands.options import HOME, ConfigOption, HomeOption, JsonOption, SetOption
from recsys.commands.terminal import complain, open_place, read_settings, show, told_to_end
from recsys.errors import RecsysError
from recsys.home import Home


def serve(
    home: HomeOption = HOME,
    host: Annotated[str | None, typer.Option(help="Address to bind; default: serving.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind; 0 picks a free one; default: serving.port.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that answer, one per core; default: serving.workers.")] = None,
    with_archiver: Annotated[
        bool, typer.Option("--with-archiver", help="Move events into the log every ten seconds, in a process of its own.")
    ] = False,
    config: ConfigOption = None,
    set: SetOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the address as one JSON line once it is up.")] = False,
) -> None:
    """Serve the live release over HTTP; a new one is picked up without a restart. Documentation under /docs.

    Profiles live in Redis: RECSYS_REDIS_URL, or a server of its own under H/redis.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # read when faiss and numpy are imported
        os.environ.setdefault(name, "1")
    from serving.run import run

    given = [f"serving.{name}={value}" for name, value in (("host", host), ("port", port), ("workers", workers)) if value is not None]
    settings = read_settings(home, config, [*(set or []), *given])
    run(open_place(home, settings, away_is_fine=True, all=False), settings, json=json, with_archiver=with_archiver)


def rules(home: HomeOption = HOME, json: JsonOption = False) -> None:
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
    show(found.model_dump() | {"notes": notes}, json, *(told + notes or [none]))


def archive(
    home: HomeOption = HOME,
    every: Annotated[
        float | None, typer.Option(min=0.1, help="Go on, every so many seconds, until SIGTERM or Ctrl-C: what serve --with-archiver runs.")
    ] = None,
    config: ConfigOption = None,
    set: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Move the events that the API took in from Redis into the log, so that the next update learns them.

    Every event that was acknowledged comes into the log once, wherever this is killed. What Redis itself has lost is told, here and by
    `recsys job log`.
    """
    from serving.archive import archive_home

    settings = read_settings(home, config, set)
    place = open_place(home, settings, away_is_fine=every is not None)
    if every is None:
        moved = archive_home(place, settings)
        show({"archived": moved}, json, f"{moved} event{'' if moved == 1 else 's'} moved into the log")
        return
    with suppress(KeyboardInterrupt):
        while True:
            try:
                if moved := archive_home(place, settings):
                    print(f'{{"archived": {moved}}}' if json else f"{moved:,} events moved into the log", flush=True)
            except (RecsysError, OSError) as error:  # a Redis or a disk that is away for a moment must not end it
                complain(str(error))
            if told_to_end:
                return
            time.sleep(every)


def keys_add(
    name: Annotated[str, typer.Argument(help="Whose key it is, such as app or dashboard.")],
    scopes: Annotated[
        str, typer.Option(help="What it may: read (recommendations), write (events), admin (items, people); comma-separated.")
    ] = "read,write",
    rate: Annotated[float, typer.Option(help="Requests a second at most; 0 for as many as come.")] = 0.0,
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """Make a key and print it: this once, for only its hash is stored. Send it as: authorization: Bearer KEY."""
    from serving.keys import Keys

    secret = Keys(Home(home).keys).add(name, scopes, rate)
    show({"name": name, "key": secret}, json, f"{secret}\nThis is the only time it is shown. Send it as: authorization: Bearer KEY")


def keys_list(home: HomeOption = HOME, json: JsonOption = False) -> None:
    """List the keys: whose, what they may, how often, since when."""
    from serving.keys import Keys

    found = Keys(Home(home).keys).all()
    table = Table("name", "scopes", "requests/s", "created", box=None)
    for key in found:
        table.add_row(key.name, ", ".join(key.scopes), f"{key.rate:g}" if key.rate else "any", key.created[:16])
    rows = [{"name": key.name, "scopes": list(key.scopes), "rate": key.rate, "created": key.created} for key in found]
    show(rows, json, table if found else "no keys: only this machine is served; make one with: recsys keys add NAME")


def keys_remove(
    name: Annotated[str, typer.Argument(help="The key to make worthless.")], home: HomeOption = HOME, json: JsonOption = False
) -> None:
    """Make a key worthless; running servers notice within a second."""
    from serving.keys import Keys

    Keys(Home(home).keys).remove(name)
    show({"removed": name}, json, f"removed {name}")
