"""Looks after a release on trial: one that falls behind, or fails, is on trial no longer; one that held out goes live."""

import asyncio
import logging
import time

from redis.exceptions import RedisError

from recsys.errors import RecsysError
from recsys.home import Home
from recsys.journal import Journal
from recsys.trial import Trial
from serving.behind import FEW, Comparison, Tally
from serving.engine import Engine
from serving.online import outcomes_key, read
from serving.wire import Wire

_log = logging.getLogger("recsys.trial")

EVERY = 5
"""Looked at every so-manieth time that the engine looks for a release."""

READ = 200
"""Outcomes read at a time; in between, those who ask are answered."""


class TrialWatch:
    """The watch of one server process; of several that end one trial, one writes it into the journal."""

    def __init__(self, engine: Engine, wire: Wire, tenant: str, home: Home):
        self.engine, self.wire, self.stream = engine, wire, outcomes_key(tenant)
        self.journal = Journal(home.job)
        self._trial: Trial | None = None
        self._tally = Tally("canary")
        self._after = "-"

    async def look(self) -> Comparison | None:
        """Read what was measured since the last look, and decide; return how the two compare, None where nothing is on trial."""
        trial = self.engine.trial
        if trial != self._trial:
            self._trial, self._after = trial, f"{trial.began}-0" if trial else "-"
            self._tally = Tally("shadow" if trial and trial.shadow else "canary")
        if trial is None:
            return None
        while some := await self.wire.call("XRANGE", self.stream, self._after, "+", "COUNT", READ):
            found = read(fields[1] for _, fields in some)
            self._tally.add(one for one in found if one.trial == trial.began)  # else it followed a list from before
            self._after = f"({some[-1][0].decode()}"
        so_far = self._tally.comparison()
        over = trial.hours and time.time() * 1000 >= trial.began + trial.hours * 3_600_000
        if trial.shadow:
            return so_far
        if so_far.behind:
            await asyncio.to_thread(self._end, trial, f"it fell behind: {so_far}")
        elif over and min(so_far.n, so_far.n_live) >= FEW:
            await asyncio.to_thread(self._promote, trial, f"it held out for {trial.hours:g} hours: {so_far}")
        return so_far

    def so_far(self, began: int) -> Comparison | None:
        """Return how the trial that began then compares, as of the last look; None where this process has not looked yet."""
        return self._tally.comparison() if self._trial is not None and self._trial.began == began else None

    def failed(self, error: Exception) -> None:
        """End a trial in which the release could not answer."""
        if trial := self.engine.trial:
            _log.error("release %s, which is on trial, cannot answer: %r", trial.release, error)
            self._end(trial, f"it could not answer: {error!r}")

    async def watch(self) -> None:
        """Look again and again until cancelled; what is away is looked at later."""
        while True:
            await asyncio.sleep(EVERY * self.engine.watch_seconds)
            try:
                await self.look()
            except (RedisError, OSError, RecsysError) as error:  # a TimeoutError is one
                _log.debug("cannot look after what is on trial: %s", error)

    def _end(self, trial: Trial, why: str) -> None:
        self.engine.trial = None  # here at once, in other processes within a second
        if self.engine.trials.end(trial):
            live = self.engine.registry.current()
            _log.error("the trial of release %s is over, %s answers everybody: %s", trial.release, live, why)
            self.journal.add("trial ended", release=trial.release, reason=why)

    def _promote(self, trial: Trial, why: str) -> None:
        if self.engine.trials.end(trial):
            was = self.engine.registry.current()
            self.engine.registry.point_to(trial.release)
            _log.info("release %s is live: %s", trial.release, why)
            self.journal.add("promoted", release=trial.release, was=was, reason=why)
