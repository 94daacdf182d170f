"""Commands that bring events and items: import, validate, data get, simulate."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recsys.commands.options import HOME, ColumnsOption, FormatOption, HomeOption, JsonOption
from recsys.commands.terminal import open_place, show
from recsys.commands.words import read_pairs


def import_(
    paths: Annotated[list[Path], typer.Argument(help="csv, tsv, jsonl, parquet, .inter, .dat, period_N.txt; each also .gz or .zst")],
    home: HomeOption = HOME,
    items: Annotated[bool, typer.Option("--items", help="The files describe items (titles, genres, ...) instead of events.")] = False,
    format: FormatOption = None,
    columns: ColumnsOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that cannot be used, and write nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Read events (or, with --items, item metadata) into the log.

    Rows that cannot be used are counted, shown and left out; the rest goes in, sorted by time. Importing the same file
    twice adds nothing.
    """
    _intake(paths, home, items, format, columns, strict, json, write=True)


def validate(
    paths: Annotated[list[Path], typer.Argument(help="The files to look at.")],
    home: HomeOption = HOME,
    items: Annotated[bool, typer.Option("--items", help="The files describe items instead of events.")] = False,
    format: FormatOption = None,
    columns: ColumnsOption = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that cannot be used.")] = False,
    json: JsonOption = False,
) -> None:
    """Do all that `import` does, but write nothing."""
    _intake(paths, home, items, format, columns, strict, json, write=False)


def _intake(
    paths: list[Path], home: Path, items: bool, format: str | None, columns: str | None, strict: bool, json: bool, write: bool
) -> None:
    from recsys import intake
    from recsys.progress import bar

    names = read_pairs(columns)
    with bar(json) as step:
        take = intake.import_items if items else intake.import_events
        report = take(open_place(home), paths, format, names, step, strict, write=write)
    show(report.as_dict(), json, report)


def data_get(
    name: Annotated[str, typer.Argument(help="movielens-latest-small")], home: HomeOption = HOME, json: JsonOption = False
) -> None:
    """Download a public data set, keep it in the cache, and import it."""
    from recsys.download import fetch
    from recsys.intake import import_events, import_items
    from recsys.progress import bar

    with bar(json) as step:
        events, items = fetch(name, step=step)
        place = open_place(home)
        reports = [import_items(place, [items], step=step), import_events(place, [events], step=step)]
    show([report.as_dict() for report in reports], json, *reports)


def simulate(
    home: HomeOption = HOME,
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
    json: JsonOption = False,
) -> None:
    """Write into the log what a streaming app would see: known tastes, sessions, new films, trends that turn, dislikes."""
    from recsys.progress import bar

    if scenario is not None:
        return _simulate_scenario(home, scenario, users, items, days, seed, json)

    from recsys.simulate import simulate as run

    with bar(json) as step:
        report = run(open_place(home), users=users, items=items, days=days, seed=seed, step=step)
    show(report.as_dict(), json, report)


def _simulate_scenario(home: Path, scenario: str, users: int, items: int, days: float, seed: int, json: bool) -> None:
    from dataclasses import asdict
    from datetime import timedelta

    from recsys.progress import bar
    from recsys.scenarios import phases, simulate_scenario
    from recsys.simulate import OPENING

    timeline = phases(scenario, int(days))
    with bar(json) as step:
        report = simulate_scenario(open_place(home), scenario, users, items, days, seed, step)
    table = Table("phase", "from", "to before", "days", "what is true in it", box=None, pad_edge=False)
    told = []
    for phase in timeline:
        begin, end = (str(OPENING + timedelta(days=day)) for day in (phase.begin, phase.end))
        table.add_row(phase.name, begin, end, f"{phase.begin} to {phase.end}", phase.what)
        told.append(asdict(phase) | {"from": begin, "until": end})
    show(report.as_dict() | {"scenario": scenario, "phases": told}, json, report, table)
