"""The live release of a home, and how the next one takes its place."""

import asyncio
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors import SafetensorError

from recsys.catalogue import SCHEMA as CATALOGUE
from recsys.catalogue import Catalogue
from recsys.errors import RecsysError
from recsys.registry import MANIFEST, Registry
from recsys.shared import Shared
from serving.snapshot import Snapshot

_log = logging.getLogger("recsys.engine")

WAY_OUT = "make another live with: recsys rollback or recsys fit"


class Engine:
    """The live snapshot, and the watch that replaces it when another release goes live.

    A request reads `snapshot` once and finishes on it. A release that cannot be served is refused with one line in the
    log, and the old one keeps serving. items: the folder of the catalogue, which may grow at any time. shared: the journal in a store
    that says what is in both, where there is one: see `follow`.
    """

    def __init__(self, releases: Path, watch_seconds: float = 1.0, items: Path | None = None, shared: Shared | None = None):
        self.registry, self.catalogue = Registry(releases, shared), Catalogue(items, shared) if items else None
        self.watch_seconds = watch_seconds
        self.snapshot: Snapshot | None = None
        self._plain: Snapshot | None = None
        self._cool: Snapshot | None = None
        self._liked: Mapping[str, float] = {}
        self._stock: tuple[str, list[Path]] | None = None
        self._loaded: tuple[str, int, int] | None = None
        self._refused: tuple[str, int, int, int] | None = None
        self._one_at_a_time = threading.Lock()

    @property
    def missing(self) -> str:
        """Why there is no snapshot, and the way out."""
        if self._refused:
            return f"release {self._refused[0]} cannot be served; {WAY_OUT}"
        return "there is no release yet; train one with: recsys fit"

    def refresh(self) -> bool:
        """Load the release that CURRENT names, if it is another than the live one, and what the catalogue says of items; say whether
        another release took the live one's place.
        """
        with self._one_at_a_time:
            before, after = self._plain, self._released()
            if after is None:
                return False
            stock = (after.id, self.catalogue.segments()) if self.catalogue else (after.id, [])
            if after is not before or stock != self._stock:
                self._cool = self._stocked(after, stock)
                self.snapshot = self._cool.heated(self._liked) if self._liked else self._cool
            if after is not before:
                _log.info("release %s is live", after.id)
            return after is not before

    def heat(self, liked: Mapping[str, float]) -> None:
        """Take in what was liked lately, item id -> how often."""
        with self._one_at_a_time:
            self._liked = liked
            if self._cool is not None:
                self.snapshot = self._cool.heated(liked) if liked else self._cool

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

    def _released(self) -> Snapshot | None:
        """Return the release that CURRENT names or, where that cannot be served, the one that was served before."""
        try:
            id, pointed = self.registry.current(), self.registry.pointer.stat().st_mtime_ns
        except FileNotFoundError:
            return self._plain
        if id is None or (made := self._made(id)) == self._loaded or (*made, pointed) == self._refused:
            return self._plain
        try:
            self._plain = Snapshot.load(self.registry.open(id))
        except RecsysError as error:
            self._refused = (*made, pointed)
            serving = f"release {self._plain.id} keeps serving" if self._plain else f"no release is serving ({WAY_OUT})"
            _log.error("refused release %s, %s: %s", id, serving, error)
            return self._plain
        self._loaded, self._refused = made, None
        return self._plain

    def _made(self, id: str) -> tuple[str, int, int]:
        """Tell a release from the same one without somebody who was forgotten (Registry.rewrite)."""
        try:
            about = (self.registry.folder / id / MANIFEST).stat()
        except OSError:
            return id, 0, 0
        return id, about.st_ino, about.st_mtime_ns

    def _stocked(self, plain: Snapshot, stock: tuple[str, list[Path]]) -> Snapshot:
        """Return a release with what the catalogue says; one that cannot be read says nothing, and that is logged."""
        self._stock = stock
        if not stock[1] or self.catalogue is None:
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
