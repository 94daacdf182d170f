"""How fast a big csv of ratings becomes a log."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.csv

from benchmarks.measure import Figure, scratch, seconds
from recsys.home import Home
from recsys.intake import import_events


def run(quick: bool = False) -> list[Figure]:
    """Import a csv of a million rows and, for the floor, only parse it."""
    rows = 100_000 if quick else 1_000_000
    with scratch() as folder:
        path = _csv(folder / "ratings.csv", rows)
        floor = min(seconds(lambda: pyarrow.csv.read_csv(path)) for _ in range(3))
        report = import_events(Home(folder / "home"), [path])
    assert report.added == rows
    return [Figure(f"import of a csv, {rows:,} rows", rows / report.seconds, "rows/s", rows / floor, "pyarrow.csv.read_csv, same file")]


def _csv(path: Path, rows: int) -> Path:
    rng = np.random.default_rng(0)
    frame = {
        "userId": rng.integers(0, rows // 100, rows),
        "movieId": (rng.pareto(1.2, rows) * 50).astype(np.int64) % 20_000,
        "rating": rng.integers(1, 11, rows) / 2,
        "timestamp": 1_400_000_000 + np.sort(rng.integers(0, 100_000_000, rows)),
    }
    unique = pd.DataFrame(frame)
    unique["timestamp"] += np.arange(rows)  # no two rows say the same
    unique.to_csv(path, index=False)
    return path
