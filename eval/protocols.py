"""What is asked of whom and when: a log cut into windows, and the rules of asking."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from eval import ader as periods
from eval.timeline import Catalogue, Questions, Rules, Timeline
from recsys.errors import BadInput
from recsys.events import milliseconds
from recsys.sessions import SESSION_GAP

PROTOCOLS = ("prequential", "next-session", "ader")


@dataclass(frozen=True)
class Plan:
    """One timeline of which the windows `first` to `behind` - 1 are asked, by its rules; those before are for the first fit."""

    protocol: str
    timeline: Timeline
    rules: Rules
    first: int
    behind: int

    def questions(self) -> Iterator[tuple[int, Questions]]:
        """Give the windows that hold anything to ask, with what is asked."""
        for window in range(self.first, self.behind):
            questions = self.timeline.questions(window, self.rules)
            if len(questions):
                yield window, questions


def prequential(
    events: pa.Table,
    window_seconds: float = 7 * 86_400.0,
    train: int = 8,
    windows: int | None = None,
    exclude_seen: bool = True,
    filter_unseen: bool = False,
    whole_sessions: bool = False,
    catalogue: Catalogue | None = None,
    gap: float = SESSION_GAP,
) -> Plan:
    """Ask a log window by window: every positive event, its owner's history before it given.

    With `whole_sessions` (the protocol next-session) all items of a session are asked together, at its start. The first `train`
    windows that hold events are for the first fit; windows: how many to ask, None for all. An item that was never learned is a
    miss, unless `filter_unseen`. With `exclude_seen` repeats are neither recommended nor asked.
    """
    if not len(events):
        raise BadInput("there are no events to evaluate on; import some with: recsys import")
    time = milliseconds(events)
    width = max(1, round(window_seconds * 1000))
    begins = np.unique((time - time.min()) // width) * width + time.min()
    if not 1 <= train < len(begins):
        raise BadInput(
            f"the first {train} windows are for the first fit, but the log fills {len(begins)} windows of {window_seconds / 86_400:g} days;"
            " take shorter windows or fewer for the first fit"
        )
    rules = Rules(exclude_seen, filter_unseen, whole_sessions=whole_sessions)
    behind = min(train + (windows or len(begins)), len(begins))
    return Plan("next-session" if whole_sessions else "prequential", Timeline(events, begins, catalogue, gap), rules, train, behind)


def ader(files: Path | Sequence[Path], cycles: int | None = None) -> Plan:
    """Ask ADER's period files (Mi, Lin & Faltings, RecSys 2020): for t = 1, 2, ... learn period t - 1 alone, then answer all of period t.

    Clicks on items never learned are taken out of inputs and targets, then sessions of one click; repeats stay.
    """
    files = periods.period_files(files) if isinstance(files, Path) else list(files)
    if cycles is not None and not 1 <= cycles < len(files):
        raise BadInput(f"{len(files)} periods give 1 to {len(files) - 1} cycles, not {cycles}; mend --cycles")
    files = files[: None if cycles is None else cycles + 1]
    timeline = Timeline(periods.read(files), np.arange(len(files)) * periods.WEEK)
    return Plan("ader", timeline, Rules(exclude_seen=False, filter_unseen=True, need_history=True), 1, len(files))
