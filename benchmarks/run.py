"""Every benchmark, each beside its floor: what `make bench` runs."""

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from benchmarks import events, import_csv, index, neighbours, request, serving, update_cost, warm_up
from benchmarks.measure import Figure

ALL = {
    "import": import_csv,
    "warm": warm_up,
    "events": events,
    "request": request,
    "neighbours": neighbours,
    "index": index,
    "serving": serving,
    "update": update_cost,
}


def main() -> None:
    """Run all benchmarks, or those named, and print one table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(ALL)}; all where left out")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that everything runs, not how fast")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(ALL):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(ALL)}")
    found: dict[str, list[Figure]] = {}
    console = Console(stderr=True)
    for name in asked.names or ALL:
        with console.status(f"measuring {name}"):
            found[name] = ALL[name].run(asked.quick)
    Console(width=None if sys.stdout.isatty() else 170).print(table(found))
    if asked.json:
        figures = {name: [figure.as_dict() for figure in part] for name, part in found.items()}
        about = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "quick": asked.quick, "cpus": os.cpu_count()}
        asked.json.write_bytes(orjson.dumps({**about, "figures": figures}, option=orjson.OPT_INDENT_2))


def table(found: dict[str, list[Figure]]) -> Table:
    """Return what was measured, each with its floor and how far it is from it."""
    shown = Table("what", "measured", "floor", "times the floor", "the floor is", box=None)
    for figure in (figure for part in found.values() for figure in part):
        measured, floor = (f"{_short(number)} {figure.unit}" for number in (figure.measured, figure.floor))
        shown.add_row(figure.what, measured, floor, f"{figure.ratio:.2f}", figure.floor_is)
    return shown


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


if __name__ == "__main__":
    main()
