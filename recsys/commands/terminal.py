"""What every command does: read settings, open the home, say how it went."""

import builtins
import os
import signal
import sys
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from recsys.commands.words import read_each_pair
from recsys.errors import BadInput, ReleaseDamaged
from recsys.home import Home
from recsys.settings import Settings, load_settings
from recsys.store import StoreAway

INTERRUPTED = 128 + signal.SIGINT
"""The exit code of a command that Ctrl-C or SIGTERM ended."""

out, err = Console(), Console(stderr=True)
told_to_end: list[bool] = []
"""Not empty once SIGTERM has come."""


def interrupt(*_: object) -> None:
    """Let SIGTERM end a command as Ctrl-C does: drafts are removed, nothing half-done goes live."""
    told_to_end.append(True)  # no Event: a handler that comes while the main thread holds its lock would wait for itself
    raise KeyboardInterrupt  # where this comes in a destructor Python passes over it; who goes on and on looks at the other


def complain(text: str) -> None:
    """Write an error to stderr, on one line."""
    err.print(f"[bold red]error:[/bold red] {text.replace('[', chr(92) + '[')}", soft_wrap=True, highlight=False)


def show(result: Any, as_json: bool, *readable: Any) -> None:
    """Print a result: as JSON, or what is written for people."""
    if as_json:
        import orjson

        sys.stdout.write(orjson.dumps(result, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")
    else:
        for part in readable:
            out.print(part, highlight=False, soft_wrap=isinstance(part, str))


def read_settings(home: Path | None, config: list[Path] | None, set: list[str] | None) -> Settings:
    """Return the settings of a home, of the files of --config over them, and of --set over those."""
    own = [Home(home).config] if home and Home(home).config.exists() else []
    return load_settings(*own, *(config or []), overrides=read_each_pair(set or []))


def open_place(home: Path, settings: Settings | None = None, away_is_fine: bool = False, all: bool = True) -> Home:
    """Return a home; where it shares a store, with what other machines have put there. away_is_fine: else with what it has."""
    from recsys.joined import open_home, pull

    place = open_home(home, settings or read_settings(home, None, None))
    try:
        pull(place, all)
    except (StoreAway, ReleaseDamaged) as error:
        if not away_is_fine:
            raise
        complain(f"{error}; going on with what is here")
    return place


def named_options(context: typer.Context) -> builtins.set[str]:
    """Return the options that the command line names."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def refuse_unwritable(option: str, path: Path | None) -> None:
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
