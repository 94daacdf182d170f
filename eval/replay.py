"""Strict test-then-train on one timeline: answer a window, reveal it, learn it."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa

from eval import ader as periods
from eval import metrics
from eval.methods import Method
from eval.results import Answers, Results
from eval.timeline import Catalogue, Queries, Questions, Rules, Timeline, assert_unanswered
from recsys.errors import BadInput
from recsys.events import milliseconds
from recsys.progress import Step, silent
from recsys.sessions import SESSION_GAP

KS = (10, 20)


def prequential(
    events: pa.Table,
    methods: Sequence[Method],
    window_seconds: float = 7 * 86_400.0,
    train: int = 8,
    windows: int | None = None,
    ks: Sequence[int] = KS,
    exclude_seen: bool = True,
    filter_unseen: bool = False,
    catalogue: Catalogue | None = None,
    gap: float = SESSION_GAP,
    progress: Step = silent,
) -> Results:
    """Answer a log window by window: every positive event is asked, its owner's history before it given, before anybody learns it.

    The first `train` windows that hold events are for the first fit; `windows`: how many to answer, None for all.
    An item that was never learned is a miss, unless `filter_unseen`. With `exclude_seen` repeats are neither recommended nor asked.
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
    rules = Rules(exclude_seen, filter_unseen)
    timeline = Timeline(events, begins, catalogue, gap)
    settings = {"window_seconds": window_seconds, "train": train, "exclude_seen": exclude_seen, "filter_unseen": filter_unseen}
    return replay(timeline, methods, rules, train, train + (windows or len(timeline)), Results("prequential", settings), ks, progress)


def ader(
    files: Path | Sequence[Path], methods: Sequence[Method], cycles: int | None = None, ks: Sequence[int] = KS, progress: Step = silent
) -> Results:
    """Run ADER's protocol on period files: for t = 1, 2, ... learn period t - 1 alone, then answer all of period t.

    Clicks on items never learned are taken out of inputs and targets, then sessions of one click; repeats stay.
    """
    files = periods.period_files(files) if isinstance(files, Path) else list(files)
    if cycles is not None and not 1 <= cycles < len(files):
        raise BadInput(f"{len(files)} periods give 1 to {len(files) - 1} cycles, not {cycles}; mend --cycles")
    files = files[: None if cycles is None else cycles + 1]
    begins = np.arange(len(files)) * periods.WEEK
    timeline = Timeline(periods.read(files), begins)
    rules = Rules(exclude_seen=False, filter_unseen=True, need_history=True)
    return replay(timeline, methods, rules, 1, len(timeline), Results("ader", {"cycles": len(files) - 1}), ks, progress)


def replay(
    timeline: Timeline,
    methods: Sequence[Method],
    rules: Rules,
    first: int,
    behind: int,
    results: Results,
    ks: Sequence[int],
    progress: Step,
) -> Results:
    """Answer the windows `first` to `behind` - 1; before each, learn all that was answered since the last, and no more."""
    behind = min(behind, len(timeline))
    results.settings |= {"ks": list(ks), "methods": [method.name for method in methods]}
    results.methods = {method.name: [] for method in methods}
    learned = 0
    for window in range(first, behind):
        questions = timeline.questions(window, rules)
        if not len(questions):
            continue
        lesson = timeline.lesson(learned, window)
        learned = window
        results.windows.append({"window": window, "begin": _iso(questions.begin), **questions.counts})
        for method in methods:
            assert_unanswered(lesson, questions)
            started = perf_counter()
            borrowed = method.learn(lesson)
            seconds = perf_counter() - started + borrowed
            results.methods[method.name].append(answer(method, questions, window, ks, seconds))
        progress("answering", window - first + 1, behind - first)
    if not results.windows:
        raise BadInput("no window holds anything to ask; the log is too short or holds no positive events")
    return results


def answer(method: Method, questions: Questions, window: int, ks: Sequence[int], learn_seconds: float) -> Answers:
    """Ask a method about every event of a window; only its own work is timed."""
    ranks, seconds = [], 0.0
    shown = {k: np.zeros(questions.n_items, bool) for k in ks}
    for queries, targets in questions.blocks():
        started = perf_counter()
        scores = method.scores(queries)
        seconds += perf_counter() - started
        if scores.shape != (len(queries), queries.n_items):
            raise AssertionError(f"{method.name} gave scores of shape {scores.shape}, not {(len(queries), queries.n_items)}")
        seen = _seen(queries) if questions.exclude_seen else None
        ranks.append(metrics.ranks(scores, targets, seen))
        best = metrics.top(scores, max(ks), seen)
        for k in ks:
            shown[k][best[:, :k]] = True
    coverage = {k: metrics.coverage(np.flatnonzero(shown[k]), questions.n_items - 1) for k in ks}
    return Answers(window, np.concatenate(ranks), coverage, learn_seconds, seconds)


def _seen(queries: Queries) -> metrics.Pairs:
    return np.repeat(np.arange(len(queries)), np.diff(queries.histories.start)), queries.histories.item


def _iso(time: int) -> str:
    return str(np.datetime64(time, "ms"))
