import gzip
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from replay_worlds import DAY, Spy, a_log, log_of

from eval import ader as periods
from eval import timeline as timelines
from eval.methods import Method, methods
from eval.metrics import MISS
from eval.protocols import Plan, ader
from eval.protocols import prequential as plan_of
from eval.replay import replay
from eval.results import Results
from eval.timeline import Leak, Queries, Rules, Timeline
from recsys.errors import BadInput
from recsys.settings import Settings

DATA = Path(os.environ.get("RECSYS_DATA") or Path(__file__).parents[2] / "shared" / "data") / "diginetica"


def prequential(events: pa.Table, methods: Sequence[Method], ks: Sequence[int] = (10, 20), **options: Any) -> Results:
    return replay(plan_of(events, **options), methods, ks)


def found(results: Results, name: str = "spy") -> list[list[int]]:
    """The ranks in each window."""
    return [answers.ranks.tolist() for answers in results.answers[name][0]]


def counts(results: Results) -> list[dict[str, int]]:
    return [asked.counts for asked in results.windows]


WORLD = log_of(
    ("ann", "A", 0), ("bob", "B", 1), ("ann", "C", 2),  # day 0: the first fit; rows A 1, B 2, C 3
    ("ann", "B", DAY), ("eve", "C", DAY + 1), ("bob", "D", DAY + 2), ("ann", "A", DAY + 3), ("ann", "C", DAY + 4, "dislike"),
    ("eve", "D", 3 * DAY), ("eve", "D", 3 * DAY + 1),  # day 2 is empty
)  # fmt: skip


def test_each_window_is_answered_event_by_event_before_it_is_learned():
    spy = Spy()
    results = prequential(WORLD, [spy], window_seconds=DAY, train=1)
    assert spy.story == ["learn", "answer", "learn", "answer"]
    assert spy.learned == [["A", "B", "C"], ["B", "C", "D", "A", "C"]]
    assert spy.past == [[], ["A", "B", "C"]]
    # ann before B; eve, new; bob before D. ann's second A is a repeat and is not asked; a dislike is never asked
    assert spy.asked == [["A", "C"], [], ["B"], ["C"]]
    # ann's B: A and C are out of play, rank 1. eve's C: rank 3. bob's D was never learned. eve's D (row 4): A, B before it, C is out
    assert found(results) == [[1, 3, MISS], [3]]
    assert counts(results)[0] == {
        "events": 4, "repeats left out": 1, "queries": 3, "targets": 3, "unseen targets": 1, "items": 3
    }  # fmt: skip
    assert counts(results)[1]["repeats left out"] == 1
    assert counts(results)[1]["items"] == 4
    assert results.macro("spy")["recall@10"] == pytest.approx((2 / 3 + 1) / 2)
    assert results.micro("spy")["recall@10"] == pytest.approx(3 / 4)
    assert results.macro("spy")["mrr@10"] == pytest.approx(((1 + 1 / 3) / 3 + 1 / 3) / 2)


def test_filter_unseen_leaves_out_what_nobody_could_have_learned():
    results = prequential(WORLD, [Spy()], window_seconds=DAY, train=1, filter_unseen=True)
    assert found(results) == [[1, 3], [3]]
    assert counts(results)[0]["unseen left out"] == 1


def test_where_the_seen_may_be_shown_again_repeats_are_asked():
    spy = Spy()
    results = prequential(WORLD, [spy], window_seconds=DAY, train=1, exclude_seen=False)
    assert found(results) == [[2, 3, MISS, 1], [4, 4]]
    assert spy.asked[3] == ["A", "C", "B"]
    assert spy.asked[5] == ["C", "D"]


def test_new_items_are_those_first_met_in_the_window_before_however_long_the_first_fit():
    log = log_of(
        ("ann", "A", 0), ("ann", "B", DAY), ("zoe", "A", DAY + 1), ("ann", "C", 2 * DAY),  # C is a day old when the fourth day begins
        *((who, item, 3 * DAY + n) for n, (who, item) in enumerate([("bob", "A"), ("eve", "C"), ("ivy", "D")])),
        ("bob", "D", 4 * DAY), ("eve", "A", 4 * DAY + 1),
    )  # fmt: skip
    parts = [asked.slices["item"] for asked in prequential(log, [Spy()], window_seconds=DAY, train=3).windows]
    assert [part["new"].tolist() for part in parts] == [[False, True, False], [True, False]]
    assert [part["old"].tolist() for part in parts] == [[True, False, False], [False, True]]
    (first, *_) = prequential(log, [Spy()], window_seconds=DAY, train=1).windows
    assert first.slices["item"]["old"].tolist() == [False, True]
    assert not first.slices["item"]["new"].any()  # where the log begins nobody knows how old an item is


def test_what_is_undone_later_was_done_before():
    spies = Spy(), Spy()
    plain = prequential(WORLD, [spies[0]], window_seconds=DAY, train=1)
    more = log_of(("ann", "C", 3 * DAY + 2, "undo"), ("bob", "B", 3 * DAY + 3, "undo"))
    more = more.set_column(0, more.schema.field("event_id"), [["undo1", "undo2"]])
    undone = prequential(pa.concat_tables([WORLD, more]), [spies[1]], window_seconds=DAY, train=1)
    assert found(plain) == found(undone)
    assert spies[0].asked == spies[1].asked


HOUR = 3600
SESSIONS = log_of(
    ("ann", "A", 0), ("bob", "B", 1), ("ann", "C", 2),  # the first fit; rows A 1, B 2, C 3
    ("eve", "A", DAY - 60), ("eve", "B", DAY + 60),  # a session that began in the first fit is not asked
    ("ann", "B", DAY + HOUR), ("ann", "C", DAY + HOUR + 1), ("ann", "B", DAY + HOUR + 2), ("ann", "D", DAY + HOUR + 3),
    ("bob", "A", DAY + 2 * HOUR, "skip"), ("bob", "C", DAY + 2 * HOUR + 1),
    ("ann", "A", DAY + 5 * HOUR),  # ann's second session of the day, of nothing new to her
    ("eve", "C", 2 * DAY - 10), ("eve", "D", 2 * DAY + 10),  # a session belongs to the window it begins in, with all its items
)  # fmt: skip


def test_next_session_asks_for_all_items_of_a_session_at_its_start():
    spy = Spy()
    plan = plan_of(SESSIONS, window_seconds=DAY, train=1, whole_sessions=True)
    assert plan.protocol == "next-session"
    results = replay(plan, [spy])
    # ann wants B and D (C she has met); bob C, whose session begins with a skip; eve C and D. Nobody is told of the session itself.
    assert spy.asked == [["A", "C"], ["B"], ["A", "B"]]
    assert [asked.start.tolist() for asked in results.windows] == [[0, 2, 3, 5]]
    assert found(results) == [[1, MISS, 2, 1, MISS]]  # ann: A and C are out; bob: A comes before C, B is out; eve: A and B are out
    assert counts(results)[0] == {
        "events": 7, "repeats left out": 2, "queries": 3, "targets": 5, "unseen targets": 2, "items": 3
    }  # fmt: skip
    assert results.macro("spy")["recall@10"] == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    assert results.macro("spy")["hit_rate@10"] == 1


def test_next_session_with_repeats_and_without_the_unseen():
    plan = plan_of(SESSIONS, window_seconds=DAY, train=1, whole_sessions=True, exclude_seen=False, filter_unseen=True)
    results = replay(plan, [Spy()])
    # ann: B, C, each once; bob: C; ann again: A; eve: C
    assert [asked.start.tolist() for asked in results.windows] == [[0, 2, 3, 4, 5]]
    assert found(results) == [[2, 3, 3, 1, 3]]


def test_next_session_with_a_history_of_the_session_itself_is_a_leak(monkeypatch):
    honest = Timeline._sessions

    def late(self, window):
        wanted, _ = honest(self, window)
        return wanted, wanted

    monkeypatch.setattr(Timeline, "_sessions", late)
    with pytest.raises(Leak, match="of the session that is asked"):
        replay(plan_of(SESSIONS, window_seconds=DAY, train=1, whole_sessions=True), [Spy()])


def test_figures_of_the_lists_come_from_what_was_shown():
    results = prequential(WORLD, [Spy()], window_seconds=DAY, train=1, ks=[1])
    assert results.answers["spy"][0][0].lists["coverage@1"] == 2 / 3  # ann is shown B; eve and bob A


def test_windows_can_be_limited_and_the_order_of_the_log_does_not_matter():
    shuffled = WORLD.take(np.random.default_rng(0).permutation(len(WORLD)))
    assert found(prequential(shuffled, [Spy()], window_seconds=DAY, train=1, windows=1)) == [[1, 3, MISS]]


def test_events_of_one_moment_are_taken_in_the_order_of_their_ids_everywhere():
    rows = [("ann", item, DAY) for item in "ABCDEFGHIJK"]  # event 10 comes before event 2
    spy = Spy()
    prequential(log_of(("bob", "A", 0), *rows), [spy], window_seconds=DAY, train=1, exclude_seen=False)
    assert len(spy.asked) == 11


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lesson, timeline, later: replace(lesson, events=later.events), "before it was answered"),
        (lambda lesson, timeline, later: replace(lesson, past=timeline.events), "before it was answered"),
        (lambda lesson, timeline, later: replace(lesson, vocab=timeline.vocab), "vocabulary"),
        (lambda lesson, timeline, later: replace(lesson, catalogue=timeline.catalogue), "catalogue"),
    ],
)
@pytest.mark.parametrize("whole_sessions", [False, True])
def test_a_lesson_from_the_future_is_a_leak(monkeypatch, change, says, whole_sessions):
    honest = Timeline.lesson
    monkeypatch.setattr(
        Timeline, "lesson", lambda self, first, behind: change(honest(self, first, behind), self, honest(self, first, behind + 1))
    )
    catalogue = {item: {"item_id": item, "title": "a film"} for item in "ABCD"}
    with pytest.raises(Leak, match=says):
        prequential(SESSIONS, [Spy()], window_seconds=DAY, train=1, catalogue=catalogue, whole_sessions=whole_sessions)


def test_a_method_is_told_what_an_item_is_only_when_it_has_appeared():
    spy = Spy()
    catalogue = {item: {"item_id": item, "title": f"film {item}"} for item in "ABCDE"}
    prequential(WORLD, [spy], window_seconds=DAY, train=1, catalogue=catalogue)
    assert spy.described == [["A", "B", "C"], ["A", "B", "C", "D"]]


def test_a_history_that_holds_the_event_itself_is_a_leak(monkeypatch):
    honest = timelines.histories
    monkeypatch.setattr(timelines, "histories", lambda sessions, at, limit: honest(sessions, np.minimum(at + 1, len(sessions) - 1), limit))
    with pytest.raises(Leak, match="history"):
        prequential(WORLD, [Spy()], window_seconds=DAY, train=1, exclude_seen=False)


def test_timelines_out_of_order_are_a_leak(monkeypatch):
    honest = timelines.sessionise

    def backwards(*arguments, **more):
        sessions = honest(*arguments, **more)
        return replace(sessions, time=sessions.time[::-1].copy(), place=sessions.place[::-1].copy())

    monkeypatch.setattr(timelines, "sessionise", backwards)
    with pytest.raises(Leak):
        prequential(WORLD, [Spy()], window_seconds=DAY, train=1, exclude_seen=False)


@pytest.mark.parametrize("whole_sessions", [False, True])
def test_blocks_of_queries_do_not_change_the_answers(monkeypatch, whole_sessions):
    options = {"window_seconds": DAY, "train": 3, "whole_sessions": whole_sessions}
    whole = prequential(a_log(), methods("knn", Settings()), **options)
    monkeypatch.setattr(timelines, "CELLS", 40)
    parts = prequential(a_log(), methods("knn", Settings()), **options)
    assert len(found(whole, "knn")) == 5
    assert found(whole, "knn") == found(parts, "knn")
    assert whole.macro("knn") == parts.macro("knn")


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_every_block_knows_whether_the_seen_is_left_out(exclude_seen):
    plan = plan_of(WORLD, window_seconds=DAY, train=1, exclude_seen=exclude_seen)
    blocks = [queries.exclude_seen for _, questions in plan.questions() for queries, _, _ in questions.blocks()]
    assert blocks == [exclude_seen] * 2


@pytest.mark.parametrize(("options", "says"), [({"train": 9}, "fills 3 windows"), ({"train": 0}, "fills 3 windows")])
def test_a_log_too_short_for_the_windows_is_one_clear_line(options, says):
    with pytest.raises(BadInput, match=says):
        prequential(WORLD, [Spy()], window_seconds=DAY, **options)
    with pytest.raises(BadInput, match="no events"):
        prequential(WORLD.slice(0, 0), [Spy()])


def write_periods(folder: Path, *texts: str) -> Path:
    for number, text in enumerate(texts):
        with gzip.open(folder / f"period_{number}.txt.gz", "wt") as file:
            file.write("\n".join(text.split("|")) + "\n")
    return folder


def test_ader_cycle_by_cycle_by_hand(tmp_path):
    # Rows in order of appearance: 1, 2, 3 | 9 | 10.
    # Cycle 1: item 9 was never learned and goes, from the inputs (session 4) as from the targets (5); session 5 is then one click long
    # and goes too, as does 6. Session 1 goes on, but as another one. Repeats stay: session 7.
    # Cycle 2: 9 is known by now, 10 is not; in session 8 that leaves 9 -> 1, in session 9 nothing.
    # Cycle 3: everything is known; session 11 asks twice.
    folder = write_periods(tmp_path, "1 1|1 2|2 3|3 1", "1 2|4 1|4 9|5 3|4 2|5 9|6 1|7 2|7 2", "8 9|8 1|8 10|9 10|9 2", "11 10|11 9|11 10")
    spy = Spy()
    results = replay(ader(folder), [spy])
    assert spy.learned == [["1", "2", "3", "1"], ["2", "1", "9", "3", "2", "9", "1", "2", "2"], ["9", "1", "10", "10", "2"]]
    assert spy.asked == [["1"], ["2"], ["9"], ["10"], ["10", "9"]]
    assert found(results) == [[2, 2], [1], [4, 5]]
    assert [count["targets"] for count in counts(results)] == [2, 1, 2]
    assert [count["items"] for count in counts(results)] == [3, 4, 5]
    assert [(count["unseen left out"], count["without history left out"]) for count in counts(results)] == [(2, 5), (2, 2), (0, 1)]
    by_cycle = [0.5, 1, (1 / 4 + 1 / 5) / 2]
    assert results.macro("spy")["mrr@20"] == pytest.approx(np.mean(by_cycle)), "the mean of a period first, then of the periods"


def test_ader_runs_as_many_cycles_as_asked(tmp_path):
    folder = write_periods(tmp_path, "1 1|1 2", "2 1|2 2", "3 1|3 2")
    assert len(replay(ader(folder, cycles=1), [Spy()]).windows) == 1
    for cycles in (0, 3):
        with pytest.raises(BadInput, match="1 to 2 cycles"):
            ader(folder, cycles=cycles)


def test_period_files_that_are_none_are_one_clear_line(tmp_path):
    with pytest.raises(BadInput, match="found: none"):
        ader(tmp_path)
    write_periods(tmp_path, "1 1|1 2", "2 1 7|2")
    with pytest.raises(BadInput, match="period_1") as error:
        ader(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / "period_1.txt.gz").write_bytes(b"\x1f\x8b but torn")
    with pytest.raises(BadInput, match="period_1"):
        ader(tmp_path)


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the DIGINETICA period files under $RECSYS_DATA")
def test_diginetica_has_the_688105_targets_of_the_paper():
    files = periods.period_files(DATA)
    assert len(files) == 17
    plan = ader(files)
    assert sum(len(questions) for _, questions in plan.questions()) == 688_105


def test_scores_of_the_wrong_shape_are_refused():
    class Short(Spy):
        def scores(self, queries: Queries) -> np.ndarray:
            return super().scores(queries)[:, :-1]

    with pytest.raises(AssertionError, match="shape"):
        replay(Plan("x", Timeline(WORLD, np.array([0, DAY * 1000])), Rules(), 1, 2), [Short()])


def test_seconds_are_those_of_the_method(monkeypatch):
    clock = iter((20, 21))  # the one block of scores
    monkeypatch.setattr("eval.replay.thread_time", lambda: next(clock))
    learning = iter((10, 13))
    monkeypatch.setattr("eval.cost.perf_counter", lambda: next(learning))
    cost = prequential(WORLD, [Spy(borrowed=4.0, examples=7)], window_seconds=DAY, train=1, windows=1).answers["spy"][0][0].cost
    assert (cost.seconds_learn, cost.seconds_answer, cost.examples) == (3 + 4, 1, 7)
    assert cost.peak_mb > 10
    assert (cost.release_bytes, cost.index_loss, cost.stale_loss) == (12, None, None)
