"""A home that shares a store with others: joined once, pulled from whenever it matters."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from recsys.catalogue import Catalogue
from recsys.errors import BadInput
from recsys.files import locked
from recsys.forgotten import Forgotten, asked
from recsys.home import Home
from recsys.log import Log
from recsys.registry import MANIFEST, Registry
from recsys.settings import Settings
from recsys.shared import Moved, Shared, State
from recsys.store import Store


def open_home(path: str | Path, settings: Settings) -> Home:
    """Return a home; where `store.url` names a store, one that has joined it."""
    home = Home(path)
    if not settings.store.url:
        if (home.store / "state.json").exists():
            raise BadInput(f"the home {home.path} is a copy of a store; name it in store.url, or remove {home.store} to go on without it")
        return home
    store = Store(settings.store.url, settings.store.endpoint)
    home.shared = Shared(store, home.store)
    if not home.shared.joined:
        with locked(home.store):
            home.shared = Shared(store, home.store)  # another process may just have done it
            if not home.shared.joined:
                _join(home, home.shared)
    return home


def pull(home: Home, all: bool = True) -> None:
    """Bring down what other machines have added to the store of a home, if it shares one. all: older releases too."""
    Log(home.log, home.shared).pull()
    Catalogue(home.items, home.shared).pull()
    Registry(home.releases, home.shared).pull(all)


def _join(home: Home, shared: Shared) -> None:
    """Bring all that a home holds into an empty store, or find that it holds nothing. Killed at any point, the next call goes on."""
    log, catalogue, registry = Log(home.log), Catalogue(home.items), Registry(home.releases)
    if not shared.joining:
        shared.store.ask()
        if shared.look().number and (len(log) or catalogue.segments() or registry.ids()):
            raise BadInput(
                f"the home {home.path} holds events or releases of its own, and the store {shared.store.url} has others; join it with an "
                "empty home (and import there what it misses), or name another folder in store.url"
            )
        shared.join(False)
    try:
        for receipt in Forgotten(home.forgotten).all():
            shared.ask_to_forget(receipt["who"], asked(receipt))
        for path in log.segments():
            first, behind = map(int, path.stem.split("-"))
            if behind > shared.look().end:
                shared.add("log", first, behind, pq.read_metadata(path).num_rows, path, shared.state.erasures)
        for path in catalogue.segments():
            if not any(segment.first >= int(path.stem) for segment in shared.look().items):
                shared.add("items", int(path.stem), int(path.stem) + 1, pq.read_metadata(path).num_rows, path, shared.state.erasures)
        for id in registry.ids():
            if id not in shared.look().releases:
                since = shared.state.erasures
                with shared.uploaded(id, registry.folder / id, MANIFEST) as about:
                    shared.commit(partial(_brought, {"release": {id: asdict(about)}, "live": registry.current()}), since)
    except Moved:
        raise BadInput(f"another home brought its own into the store {shared.store.url} meanwhile; name another folder there") from None
    shared.join(True)


def _brought(line: dict[str, Any], state: State) -> dict[str, Any]:
    """Return the line that adds a release which was here before there was a store."""
    if line["release"].keys() & state.releases.keys():
        raise Moved
    return line
