"""The live release of a home, and how the next one takes its place."""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors import SafetensorError

from recsys.catalogue import SCHEMA as CATALOGUE
from recsys.catalogue import Catalogue
from recsys.errors import BadInput, RecsysError
from recsys.registry import MANIFEST, Registry
from recsys.shared import Shared
from recsys.trial import Trial, Trials
from serving.snapshot import Snapshot

_log = logging.getLogger("recsys.engine")

WAY_OUT = "make another live with: recsys rollback or recsys fit"


@dataclass
class _Seat:
    """One release in memory: as it was loaded, with what the catalogue says, and what was refused in its place."""

    plain: Snapshot | None = None
    cool: Snapshot | None = None
    stock: tuple[Any, ...] | None = None
    loaded: tuple[Any, ...] | None = None
    refused: tuple[Any, ...] | None = None


class Engine:
    """The live snapshot, that of a release on trial, and the watch that replaces them when others take their place.

    A request reads `snapshot` once and finishes on it. A release that cannot be served is refused with one line in the
    log, and the old one keeps serving. items: the folder of the catalogue, which may grow at any time. shared: the journal in a store
    that says what is in both, where there is one: see `follow`. trial: what is on trial, with `candidate`, its snapshot; both None where
    nothing is, or where it cannot be served. tell: called after each look.
    """

    def __init__(self, releases: Path, watch_seconds: float = 1.0, items: Path | None = None, shared: Shared | None = None):
        self.registry, self.catalogue = Registry(releases, shared), Catalogue(items, shared) if items else None
        self.trials = Trials(releases)
        self.watch_seconds = watch_seconds
        self.snapshot: Snapshot | None = None
        self.trial: Trial | None = None
        self.candidate: Snapshot | None = None
        self.tell: Callable[[], object] = lambda: None
        self._live, self._tried = _Seat(), _Seat()
        self._liked: Mapping[str, float] = {}
        self._one_at_a_time = threading.Lock()

    @property
    def missing(self) -> str:
        """Why there is no snapshot, and the way out."""
        if self._live.refused:
            return f"release {self._live.refused[0]} cannot be served; {WAY_OUT}"
        return "there is no release yet; train one with: recsys fit"

    def shows(self, owner: str) -> Snapshot | None:
        """Return the snapshot that somebody is answered from."""
        trial, candidate = self.trial, self.candidate
        if trial is not None and candidate is not None and not trial.shadow and trial.shows(owner):
            return candidate
        return self.snapshot

    def beside(self, id: str) -> Snapshot:
        """Load any release, with what the catalogue says, for who compares; it serves nobody."""
        return self._stocked(Snapshot.load(self.registry.open(id)))

    def refresh(self) -> bool:
        """Load the release that CURRENT names, if it is another than the live one, what is on trial, and what the catalogue says of items;
        say whether another release took the live one's place.
        """
        with self._one_at_a_time:
            before = self._live.plain
            self._released()
            after = self._live.plain
            if after is None:
                return False
            self.snapshot = self._warm(self._live, self.snapshot)
            if after is not before:
                _log.info("release %s is live", after.id)
            self._on_trial()
            self.tell()
            return after is not before

    def heat(self, liked: Mapping[str, float]) -> None:
        """Take in what was liked lately, item id -> how often."""
        with self._one_at_a_time:
            self._liked = liked
            if self._live.cool is not None:
                self.snapshot = self._heated(self._live.cool)
            if self.candidate is not None and self._tried.cool is not None:
                self.candidate = self._heated(self._tried.cool)

    def put(self, row: dict[str, Any]) -> None:
        """Write a row into the catalogue and serve by it; raise OSError where it cannot be written."""
        assert self.catalogue is not None, "an engine without a catalogue has nothing to put"
        table = pa.Table.from_pylist([row])
        for place, name in enumerate(table.column_names):
            if name in CATALOGUE.names:
                field = CATALOGUE.field(name)
                table = table.set_column(place, field, table[name].cast(field.type))
        self.catalogue.put(table)
        self.refresh()

    def _released(self) -> None:
        """Load the release that CURRENT names or, where that cannot be served, keep the one that was served before."""
        try:
            id, pointed = self.registry.current(), self.registry.pointer.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if id is not None and (wrong := self._load(self._live, id, pointed)):
            serving = f"release {self._live.plain.id} keeps serving" if self._live.plain else f"no release is serving ({WAY_OUT})"
            _log.error("refused release %s, %s: %s", id, serving, wrong)

    def _on_trial(self) -> None:
        """Load what is on trial."""
        try:
            trial = self.trials.now()
        except BadInput as error:
            if self.trial is not None:
                _log.error("%s", error)
            trial = None
        if trial is None or trial.release == self.registry.current():
            self.trial, self.candidate, self._tried = None, None, _Seat()
            return
        if wrong := self._load(self._tried, trial.release, trial.began):
            _log.error("refused release %s, which is on trial: %s", trial.release, wrong)
        if self._tried.plain is None or self._tried.plain.id != trial.release:
            self.trial, self.candidate = None, None
            return
        self.candidate = self._warm(self._tried, self.candidate)
        if trial != self.trial:
            how = "asked beside the live one" if trial.shadow else "shown"
            _log.info("release %s is on trial: %s to %.4g%% of the people", trial.release, how, 100 * trial.share)
        self.trial = trial

    def _load(self, seat: _Seat, id: str, asked: int) -> RecsysError | None:
        """Load a release into a seat, unless it is there, or was refused before; return why it is refused now. asked: when it was named."""
        made = self._made(id)
        if made == seat.loaded or (*made, asked) == seat.refused:
            return None
        try:
            seat.plain = Snapshot.load(self.registry.open(id))
        except RecsysError as error:
            seat.refused = (*made, asked)
            return error
        seat.loaded, seat.refused = made, None
        return None

    def _made(self, id: str) -> tuple[str, int, int]:
        """Tell a release from the same one without somebody who was forgotten (Registry.rewrite)."""
        try:
            about = (self.registry.folder / id / MANIFEST).stat()
        except OSError:
            return id, 0, 0
        return id, about.st_ino, about.st_mtime_ns

    def _warm(self, seat: _Seat, now: Snapshot | None) -> Snapshot:
        """Return what is served of a seat: the same as now where neither release nor catalogue are others."""
        assert seat.plain is not None
        stock = (seat.loaded, self.catalogue.segments() if self.catalogue else [])
        if now is None or seat.cool is None or stock != seat.stock:
            seat.stock, seat.cool = stock, self._stocked(seat.plain)
            return self._heated(seat.cool)
        return now

    def _heated(self, cool: Snapshot) -> Snapshot:
        return cool.heated(self._liked) if self._liked else cool

    def _stocked(self, plain: Snapshot) -> Snapshot:
        """Return a release with what the catalogue says; one that cannot be read says nothing, and that is logged."""
        if self.catalogue is None or not self.catalogue.segments():
            return plain
        try:
            return plain.stocked(self.catalogue.read())
        except (pa.ArrowException, KeyError, ValueError, SafetensorError) as error:
            _log.error("the catalogue in %s is left out: %s", self.catalogue.folder, error)
            return plain

    async def watch(self) -> None:
        """Look for a new release and new items every `watch_seconds`, in a thread, until cancelled."""
        while True:
            await asyncio.sleep(self.watch_seconds)
            try:
                await asyncio.to_thread(self.refresh)
            except OSError as error:  # a disk that is away for a moment must not end the watch
                _log.error("cannot look for a new release: %s", error)

    async def follow(self, look_seconds: float) -> None:
        """Bring down what other machines have put into the store, in a thread, until cancelled; `watch` finds it here.

        A store that is away, or holds something damaged, is one line in the log, and what is here goes on serving.
        """
        wrong, pause = "", look_seconds
        while True:
            await asyncio.sleep(pause)
            try:
                await asyncio.to_thread(self._pull)
                if wrong:
                    _log.info("the store can be used again")
                wrong, pause = "", look_seconds
            except (RecsysError, OSError, ValueError) as error:
                if str(error) != wrong:
                    _log.error("what is here goes on serving: %s", error)
                wrong, pause = str(error), min(2 * pause, max(60.0, look_seconds))

    def _pull(self) -> None:
        self.registry.pull(all=False)
        if self.catalogue:
            self.catalogue.pull()
