"""Small logs for replays that can be worked out by hand."""

import numpy as np
import pyarrow as pa

from eval.timeline import Learned, Queries, Window
from recsys.events import SCHEMA

DAY = 86_400


def log_of(*rows: tuple[str | None, str, float] | tuple[str | None, str, float, str], session: bool = False) -> pa.Table:
    """An event table from (person, item, seconds[, event type]); with `session` the first is a session's id instead."""
    who = [row[0] for row in rows]
    return pa.table(
        {
            "event_id": [str(number) for number in range(len(rows))],
            "user_id": pa.array([None] * len(rows) if session else who, pa.string()),
            "item_id": [row[1] for row in rows],
            "timestamp": pa.array([round(1000 * row[2]) for row in rows]).cast(pa.timestamp("ms", tz="UTC")),
            "event_type": [row[3] if len(row) > 3 else "play" for row in rows],
            "value": pa.nulls(len(rows), pa.float32()),
            "session_id": pa.array(who if session else [None] * len(rows), pa.string()),
            "request_id": pa.nulls(len(rows), pa.string()),
            "surface": pa.nulls(len(rows), pa.string()),
        },
        schema=SCHEMA,
    )


def a_log(days: int = 8, people: int = 12, seed: int = 0) -> pa.Table:
    """A log in which every day some people watch two or three films in a row of a chain that grows by a film a day."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[str, str, float]] = []
    for day in range(days):
        for person in rng.choice(people, people // 2, replace=False):
            first = int(rng.integers(0, 6 + day))
            rows += [(f"u{person}", f"film{first + step}", day * DAY + 60.0 * person + step) for step in range(int(rng.integers(2, 4)))]
    return log_of(*rows)


class Spy:
    """A method that scores the rows 1, 2, 3, ... in falling order and keeps what it was given."""

    name = "spy"
    random = False

    def __init__(self, borrowed: float = 0.0, examples: int = 0) -> None:
        self.tells = Learned(borrowed, examples)
        self.learned: list[list[str]] = []
        self.past: list[list[str]] = []
        self.described: list[list[str]] = []
        self.asked: list[list[str]] = []
        self.story: list[str] = []

    def learn(self, window: Window) -> Learned:
        self.vocab = window.vocab
        self.learned.append(window.events["item_id"].to_pylist())
        self.past.append(window.past["item_id"].to_pylist())
        self.described.append(sorted(window.catalogue))
        self.story.append("learn")
        return self.tells

    def scores(self, queries: Queries) -> np.ndarray:
        past = queries.histories
        self.asked += [[self.vocab.ids[row] for row in past.item[a:b]] for a, b in zip(past.start, past.start[1:], strict=False)]
        self.story.append("answer")
        return np.tile(-np.arange(queries.n_items, dtype=np.float32), (len(queries), 1))

    def size(self) -> int:
        return 12
