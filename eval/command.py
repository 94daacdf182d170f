"""What `recsys evaluate` runs: find the data, build the methods, replay."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from eval import replay
from eval.methods import methods as build
from eval.results import Results
from eval.timeline import Catalogue
from recsys.catalogue import Catalogue as Items
from recsys.errors import BadInput, nearest
from recsys.home import Home
from recsys.intake import import_items, read_events
from recsys.log import Log
from recsys.progress import Step, silent
from recsys.settings import Settings

PROTOCOLS = ("prequential", "ader")


def evaluate(
    protocol: str,
    data: Sequence[Path],
    items: Sequence[Path],
    home: Home | None,
    window: float,
    train: int,
    cycles: int | None,
    methods: str,
    ks: Sequence[int],
    exclude_seen: bool,
    filter_unseen: bool,
    settings: Settings,
    step: Step = silent,
) -> Results:
    """Run one protocol over files, or over the log of a home. window: seconds; cycles: how many windows to answer, None for all."""
    if protocol not in PROTOCOLS:
        raise BadInput(f"there is no protocol {protocol!r}; {nearest(protocol, PROTOCOLS)}")
    chosen = build(methods, settings)
    if protocol == "ader":
        if len(data) != 1 or not data[0].is_dir():
            raise BadInput("--protocol ader wants --data FOLDER, one folder with period_0.txt.gz, period_1.txt.gz, ...")
        return replay.ader(data[0], chosen, cycles, ks, step)
    events, catalogue = _log(home) if home and not data else _files(data, items, step)
    gap = settings.data.session_gap
    return replay.prequential(events, chosen, window, train, cycles, ks, exclude_seen, filter_unseen, catalogue, gap, step)


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
