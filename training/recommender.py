"""The recommender from Python: pandas in, pandas out, the same log, training and releases as the command line."""

import shutil
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recsys.catalogue import Catalogue
from recsys.errors import BadInput
from recsys.events import counted, positive
from recsys.home import Home
from recsys.intake import Intake, read_events, read_items
from recsys.joined import open_home, pull
from recsys.log import Log
from recsys.registry import Registry
from recsys.sessions import Histories, Pairs, Sessions, histories, sessionise
from recsys.settings import Settings, load_settings
from training.candidate import Candidate, Vectors
from training.job import fit_and_publish, update_and_publish


class Recommender:
    """Learns from events, goes on learning, recommends.

        model = Recommender().fit(events)          # columns user_id, item_id, timestamp (+ event_type, value, session_id, surface)
        model.partial_fit(newer_events)            # new users and new items are welcome
        model.recommend(["ann", "bob"], k=10)      # -> user_id, item_id, score, rank

    Everything it holds lies in one folder, `home`: the log, the releases, the catalogue. Without one, in a temporary
    folder that ends with the object.
    """

    def __init__(self, home: str | Path | None = None, settings: Settings | None = None):
        """Open a home, or start an empty one; `settings` default to the home's config.toml and the environment."""
        self._temporary = TemporaryDirectory(prefix="recsys-") if home is None else None  # lives as long as the object
        self.home = Home(home or str(self._temporary and self._temporary.name))
        self.settings = settings or load_settings(*([self.home.config] if self.home.config.exists() else []))
        self.home = open_home(self.home.path, self.settings)
        pull(self.home)
        self._live: tuple[str, Candidate, Vectors] | None = None

    def fit(self, events: pd.DataFrame, items: pd.DataFrame | None = None) -> "Recommender":
        """Add events to the log and train from scratch on all of it.

        events: user_id (or session_id), item_id, timestamp (s, ms, datetime or ISO-8601), optionally event_type, value,
        session_id, surface, event_id; items: item_id and what describes them (title, genres, ...). Raises BadInput.
        """
        self._take(events, items)
        fit_and_publish(self.home, self.settings)
        return self

    def partial_fit(self, events: pd.DataFrame, items: pd.DataFrame | None = None) -> "Recommender":
        """Add events to the log and learn what is new in it; before a first `fit` this is that first fit.

        Events that the log holds already are not learned twice.
        """
        pull(self.home)
        if Registry(self.home.releases).current() is None:
            return self.fit(events, items)
        self._take(events, items)
        update_and_publish(self.home, self.settings)
        return self

    def recommend(self, users: Iterable[str] | str, k: int = 10, exclude_seen: bool = True, surface: str | None = None) -> pd.DataFrame:
        """Return user_id, item_id, score, rank: the best `k` items of each user, best first.

        A user nobody has met gets what is popular. Disliked and skipped items are never recommended. surface: where they will be shown, as
        events say it; what the strategy `heads` has learned of it counts.
        """
        _check_k(k)
        users = [str(user) for user in ([users] if isinstance(users, str) else users)]
        candidate, vectors = self._candidate()
        table = Log(self.home.log).read()
        table = table.filter(pc.is_in(table["user_id"], value_set=pa.array(users, pa.string())))
        data = candidate.settings.data
        table = _with_a_last_event(counted(table, positive(data.positive)), users, surface)
        sessions = sessionise(table, candidate.vocab, data.session_gap)
        at = sessions.start[1:] - 1  # the made-up last event of each user: everything real lies before it
        past = histories(sessions, at, candidate.settings.serving.profile_events)
        listed: dict[str, pd.DataFrame] = {}
        for first in range(0, len(past), BLOCK):
            part = slice(first, first + BLOCK)
            scores = _scores(candidate, past[part], vectors, _hidden(sessions, first, at[part], exclude_seen))
            owners = sessions.owners[part]
            listed |= {user: _listed(candidate, row, k).assign(user_id=user) for user, row in zip(owners, scores, strict=True)}
        parts = [listed[user] for user in dict.fromkeys(users)]
        return pd.concat(parts, ignore_index=True)[["user_id", "item_id", "score", "rank"]] if parts else _NOTHING.copy()

    def similar_items(self, items: Sequence[str] | str, k: int = 10) -> pd.DataFrame:
        """Return item_id, similar_item_id, score, rank: the nearest `k` items of each, by the cosine of their vectors."""
        _check_k(k)
        candidate, (_, found_at) = self._candidate()
        parts = []
        for item in [items] if isinstance(items, str) else items:
            row = candidate.vocab.row(str(item))
            if not row:
                raise BadInput(f"item {item!r} is not known; it must have been in the events of a fit or partial_fit")
            scores = (found_at @ found_at[row]).astype(np.float64)
            scores[[0, row]] = -np.inf
            parts.append(_listed(candidate, scores, k).rename(columns={"item_id": "similar_item_id"}).assign(item_id=item))
        columns = ["item_id", "similar_item_id", "score", "rank"]
        return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame({name: [] for name in columns})

    def save(self, path: str | Path) -> None:
        """Copy the whole home (log, catalogue, releases) to a folder that does not exist yet."""
        if Path(path).exists():
            raise BadInput(f"{path} exists already; save to a new folder")
        beside = Path(path).with_name(f".{Path(path).name}.tmp")
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(self.home.path, beside, ignore=shutil.ignore_patterns("redis", "store", ".draft-*", ".lock"))
        beside.rename(path)

    @classmethod
    def load(cls, path: str | Path) -> "Recommender":
        """Open what `save` wrote, or the home of the command line; later fits are written there."""
        Registry(Home(path).releases).open()
        return cls(path)

    def _take(self, events: pd.DataFrame, items: pd.DataFrame | None) -> None:
        """Check everything, then add it to the catalogue and the log."""
        described = None if items is None else _read(items, "items", read_items)
        happened = _read(events, "events", read_events)
        if described is not None:
            Catalogue(self.home.items, self.home.shared).add(described)
        Log(self.home.log, self.home.shared).append(happened)

    def _candidate(self) -> tuple[Candidate, Vectors]:
        release = Registry(self.home.releases).open()
        if self._live is None or self._live[0] != release.id:
            candidate = Candidate.load(release)
            self._live = release.id, candidate, candidate.vectors()
        return self._live[1], self._live[2]


BLOCK = 256
"""People scored at once; bounds the memory that one call takes."""

_NOTHING = pd.DataFrame({"user_id": [], "item_id": [], "score": [], "rank": []})


def _hidden(sessions: Sessions, first: int, at: np.ndarray, exclude_seen: bool) -> Pairs:
    """Return what may not be recommended to whom: everything in their timelines, or what their last word on was no.

    at (B,): where the timelines of owners `first`, `first` + 1, ... end; they are numbered from 0 here.
    """
    newest: dict[tuple[int, int], bool] = {}
    for number, end in enumerate(at.tolist()):
        mine = slice(sessions.start[first + number], end)
        newest |= zip(((number, row) for row in sessions.item[mine].tolist()), sessions.positive[mine].tolist(), strict=True)
    pairs = [pair for pair, liked in newest.items() if exclude_seen or not liked]
    person, item = np.array(pairs, np.int64).reshape(-1, 2).T
    return person, item


def _scores(candidate: Candidate, past: Histories, vectors: Vectors, hidden: Pairs) -> np.ndarray:
    """Return what the API would score, (B, n + 1): as of the newest thing known."""
    count = np.diff(past.start)
    newest = np.where(count > 0, past.time[np.maximum(past.start[1:], 1) - 1] if len(past.time) else 0, 0)
    now = np.maximum(candidate.counts.now, newest)
    scores = candidate.served(past, now, vectors, hidden)
    scores[count == 0] = np.where(np.isneginf(scores[count == 0]), -np.inf, candidate.bias())
    return scores


def _read(frame: pd.DataFrame, name: str, read: Callable[[list[Path]], Intake]) -> pa.Table:
    """Pass a frame through the importer's checks; warn of rows that it refuses."""
    _check_columns(frame, name)
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.parquet"
        try:
            frame.to_parquet(file, index=False)
            found = read([file])
        except pa.ArrowException as error:
            raise BadInput(f"the {name} cannot be read: {error.args[-1]}; give each column one type") from None
        except BadInput as error:
            raise BadInput(str(error).replace(str(file), f"the {name}")) from None
    if (report := found.report).refused:
        warnings.warn(f"{report.read - report.kept} of {report.read} rows refused: {'; '.join(report.refused)}", stacklevel=4)
    return found.table


def _check_columns(frame: pd.DataFrame, name: str) -> None:
    if not isinstance(frame, pd.DataFrame):
        raise BadInput(f"the {name} must be a pandas DataFrame; got {type(frame).__name__}")
    if frame.empty:
        raise BadInput(f"the {name} are an empty DataFrame")
    who = () if name == "items" or "session_id" in frame else ("user_id",)
    for column in (*who, "item_id", *(("timestamp",) if name == "events" else ())):
        if column not in frame:
            raise BadInput(f"the {name} have no column {column!r}, only {', '.join(map(str, frame.columns))}; rename what it is called")


def _check_k(k: int) -> None:
    if k < 1:
        raise BadInput(f"k is how many items to return, 1 or more; got {k}")


def _listed(candidate: Candidate, scores: np.ndarray, k: int) -> pd.DataFrame:
    best = np.argsort(-scores, kind="stable")[:k]
    best = best[np.isfinite(scores[best])]
    ids = [candidate.vocab.ids[row] for row in best]
    return pd.DataFrame({"item_id": ids, "score": scores[best], "rank": np.arange(1, len(best) + 1)})


def _with_a_last_event(table: pa.Table, users: list[str], surface: str | None = None) -> pa.Table:
    """Add, for each user, an event of no known item after all others: the moment at which we recommend."""
    n = len(users)
    end = pa.array([2**62] * n).cast(table.schema.field("timestamp").type)
    last = {"event_id": users, "user_id": users, "item_id": [""] * n, "timestamp": end, "event_type": ["click"] * n}
    last["surface"] = pa.array([surface] * n, pa.string())
    columns = [last.get(field.name, pa.nulls(n, field.type)) for field in table.schema]
    return pa.concat_tables([table, pa.table([pa.array(c) if isinstance(c, list) else c for c in columns], schema=table.schema)])
