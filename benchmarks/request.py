"""What answering one recommendation costs inside the process, against its parts alone."""

import sys
from pathlib import Path

import numpy as np

from benchmarks.measure import Figure, milliseconds, scratch
from recsys.events import CODE
from recsys.sessions import gap_buckets
from recsys.settings import load_settings
from serving.engine import Snapshot
from serving.profiles import Event

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from worlds import publish_release

ITEMS, DIM, HISTORY, K = 20_000, 64, 50, 20


def run(quick: bool = False) -> list[Figure]:
    """Time Snapshot.recommend over many histories, and in the same run the user tower, the search and the filter alone."""
    times = 300 if quick else 3000
    rng = np.random.default_rng(0)
    with scratch() as folder:
        snapshot = Snapshot.load(publish_release(folder, [f"i{n}" for n in range(ITEMS)], dim=DIM))
        _real_tower(folder / "user_tower.onnx")
