"""ADER's period files, one click a line (`session item`), as an event table with made-up times: a week per period."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from recsys.errors import BadInput
from recsys.events import SCHEMA

WEEK = 7 * 86_400_000
"""Milliseconds from one period's beginning to the next one's."""


def period_files(folder: Path) -> list[Path]:
    """Return period_0, period_1, ... of a folder, in order."""
    named = {int(match[1]): path for path in folder.glob("period_*") if (match := re.fullmatch(r"period_(\d+)\.txt(\.gz)?", path.name))}
    if len(named) < 2 or sorted(named) != list(range(len(named))):
        found = f"period {', '.join(map(str, sorted(named)))}" if named else "none"
        raise BadInput(f"{folder} should hold period_0.txt.gz, period_1.txt.gz, ... without a gap, two at least; found: {found}")
    return [named[number] for number in range(len(named))]


def read(files: Sequence[Path]) -> pa.Table:
    """Read period files into one event table of clicks; a session that goes on in the next period is another one there."""
    return pa.concat_tables([_period(path, number) for number, path in enumerate(files)])


def _period(path: Path, number: int) -> pa.Table:
    layout = csv.ReadOptions(column_names=["session", "item"])
    text = csv.ConvertOptions(column_types={"session": pa.string(), "item": pa.string()})
    try:
        clicks = csv.read_csv(path, layout, csv.ParseOptions(delimiter=" "), text)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"{path} is not a period file, one click a line as `session item`: {reason}") from None
    n = len(clicks)
    columns = {
        "event_id": pa.array(f"{number}-{line}" for line in range(n)),
        "item_id": clicks["item"],
        "timestamp": pa.array(number * WEEK + np.arange(n) * WEEK // n).cast(SCHEMA.field("timestamp").type),
        "event_type": pa.array(["click"] * n),
        "session_id": pc.binary_join_element_wise(str(number), clicks["session"], "-"),
    }
    nothing = {field.name: pa.nulls(n, field.type) for field in SCHEMA if field.name not in columns}
    return pa.table({**columns, **nothing}).select(SCHEMA.names).cast(SCHEMA)
