import gzip
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from replay_worlds import DAY, a_log, log_of
from rich.console import Console

from eval import ader as periods
from eval import timeline as timelines
from eval.methods import methods
from eval.metrics import MISS
from eval.replay import ader, prequential, replay
from eval.results import Results
from eval.timeline import Leak, Queries, Rules, Timeline, Window
from recsys.errors import BadInput
from recsys.settings import Settings

DATA = Path(os.environ.get("RECSYS_DATA") or Path(__file__).parents[2] / "shared" / "data") / "diginetica"


class Spy:
    """Scores the rows 1, 2, 3, ... in falling order and keeps what it was given."""

    name = "spy"

    def __init__(self) -> None:
        self.learned: list[list[str]] = []
        self.past: list[list[str]] = []
        self.asked: list[list[str]] = []
        self.story: list[str] = []

    def learn(self, window: Window) -> float:
        self.vocab = window.vocab
        self.learned.append(window.events["item_id"].to_pylist())
        self.past.append(window.past["item_id"].to_pylist())
        self.story.append("learn")
        return 0.0

    def scores(self, queries: Queries) -> np.ndarray:
        past = queries.histories
        self.asked += [[self.vocab.ids[row] for row in past.item[a:b]] for a, b in zip(past.start, past.start[1:], strict=False)]
        self.story.append("answer")
        return np.tile(-np.arange(queries.n_items, dtype=np.float32), (len(queries), 1))


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
    assert [row.ranks.tolist() for row in results.methods["spy"]] == [[1, 3, MISS], [3]]
    assert results.windows[0]["targets"] == 3
    assert results.windows[0]["repeats left out"] == 1
    assert results.windows[0]["unseen targets"] == 1
    assert results.windows[1]["repeats left out"] == 1
    assert results.windows[1]["items"] == 4
    assert results.mean("spy")["recall@10"] == pytest.approx((2 / 3 + 1) / 2)
    assert results.mean("spy")["mrr@10"] == pytest.approx(((1 + 1 / 3) / 3 + 1 / 3) / 2)


def test_filter_unseen_leaves_out_what_nobody_could_have_learned():
    results = prequential(WORLD, [Spy()], window_seconds=DAY, train=1, filter_unseen=True)
    assert [row.ranks.tolist() for row in results.methods["spy"]] == [[1, 3], [3]]
    assert results.windows[0]["unseen left out"] == 1


def test_where_the_seen_may_be_shown_again_repeats_are_asked():
    spy = Spy()
    results = prequential(WORLD, [spy], window_seconds=DAY, train=1, exclude_seen=False)
    assert [row.ranks.tolist() for row in results.methods["spy"]] == [[2, 3, MISS, 1], [4, 4]]
    assert spy.asked[3] == ["A", "C", "B"]
    assert spy.asked[5] == ["C", "D"]


def test_coverage_counts_what_was_shown():
    results = prequential(WORLD, [Spy()], window_seconds=DAY, train=1, ks=[1])
    assert results.methods["spy"][0].coverage == {1: 2 / 3}  # ann is shown B; eve and bob A


def test_windows_can_be_limited_and_the_order_of_the_log_does_not_matter():
    shuffled = WORLD.take(np.random.default_rng(0).permutation(len(WORLD)))
    results = prequential(shuffled, [Spy()], window_seconds=DAY, train=1, windows=1)
    assert [row.ranks.tolist() for row in results.methods["spy"]] == [[1, 3, MISS]]


def test_learning_a_window_before_answering_it_is_a_leak(monkeypatch):
    honest = Timeline.lesson
    monkeypatch.setattr(Timeline, "lesson", lambda self, first, behind: honest(self, first, behind + 1))
    with pytest.raises(Leak, match="before it was answered"):
        prequential(WORLD, [Spy()], window_seconds=DAY, train=1)


def test_a_past_that_reaches_into_the_future_is_a_leak(monkeypatch):
    honest = Timeline.lesson
    monkeypatch.setattr(Timeline, "lesson", lambda self, first, behind: replace(honest(self, first, behind), past=self.events))
    with pytest.raises(Leak, match="before it was answered"):
        prequential(WORLD, [Spy()], window_seconds=DAY, train=1)


def test_a_vocabulary_from_the_future_is_a_leak(monkeypatch):
    honest = Timeline.lesson
    monkeypatch.setattr(Timeline, "lesson", lambda self, first, behind: replace(honest(self, first, behind), vocab=self.vocab))
    with pytest.raises(Leak, match="vocabulary"):
        prequential(WORLD, [Spy()], window_seconds=DAY, train=1)


def test_a_history_that_holds_the_event_itself_is_a_leak(monkeypatch):
    honest = timelines.histories
    monkeypatch.setattr(timelines, "histories", lambda sessions, at, limit: honest(sessions, np.minimum(at + 1, len(sessions) - 1), limit))
    with pytest.raises(Leak, match="history"):
        prequential(WORLD, [Spy()], window_seconds=DAY, train=1, exclude_seen=False)


def test_timelines_out_of_order_are_a_leak(monkeypatch):
    honest = timelines.sessionise

    def backwards(*arguments):
        sessions = honest(*arguments)
        return replace(sessions, time=sessions.time[::-1].copy(), place=sessions.place[::-1].copy())

    monkeypatch.setattr(timelines, "sessionise", backwards)
    with pytest.raises(Leak):
        prequential(WORLD, [Spy()], window_seconds=DAY, train=1, exclude_seen=False)


def test_blocks_of_queries_do_not_change_the_answers(monkeypatch):
    whole = prequential(a_log(), methods("knn", Settings()), window_seconds=DAY, train=3)
    monkeypatch.setattr(timelines, "CELLS", 40)
    parts = prequential(a_log(), methods("knn", Settings()), window_seconds=DAY, train=3)
    assert len(whole.methods["knn"]) == 5
    for one, other in zip(whole.methods["knn"], parts.methods["knn"], strict=True):
        assert one.ranks.tolist() == other.ranks.tolist()
        assert one.coverage == other.coverage


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


def test_ader_by_hand(tmp_path):
    # period 1: item 9 was never learned and goes, from the inputs (session 4) as from the targets (5); session 5 is then one
    # click long and goes too, as does 6. Session 1 goes on, but as another one. Repeats stay: session 7.
    folder = write_periods(tmp_path, "1 1|1 2|2 3|3 1", "1 2|4 1|4 9|5 3|4 2|5 9|6 1|7 2|7 2", "8 9|8 1|8 10")
    spy = Spy()
    results = ader(folder, [spy])
    assert spy.learned == [["1", "2", "3", "1"], ["2", "1", "9", "3", "2", "9", "1", "2", "2"]]
    assert spy.asked == [["1"], ["2"], ["9"]]
    assert [row.ranks.tolist() for row in results.methods["spy"]] == [[2, 2], [1]]
    assert [window["targets"] for window in results.windows] == [2, 1]
    assert results.mean("spy")["mrr@20"] == pytest.approx((0.5 + 1) / 2), "the mean of a period first, then of the periods"


def test_ader_runs_as_many_cycles_as_asked(tmp_path):
    folder = write_periods(tmp_path, "1 1|1 2", "2 1|2 2", "3 1|3 2")
    assert len(ader(folder, [Spy()], cycles=1).windows) == 1
    for cycles in (0, 3):
        with pytest.raises(BadInput, match="1 to 2 cycles"):
            ader(folder, [Spy()], cycles=cycles)


def test_period_files_that_are_none_are_one_clear_line(tmp_path):
    with pytest.raises(BadInput, match="found: none"):
        ader(tmp_path, [Spy()])
    write_periods(tmp_path, "1 1|1 2", "2 1 7|2")
    with pytest.raises(BadInput, match="period_1") as error:
        ader(tmp_path, [Spy()])
    assert "\n" not in str(error.value)
    (tmp_path / "period_1.txt.gz").write_bytes(b"\x1f\x8b but torn")
    with pytest.raises(BadInput, match="period_1"):
        ader(tmp_path, [Spy()])


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the DIGINETICA period files under $RECSYS_DATA")
def test_diginetica_has_the_688105_targets_of_the_paper():
    files = periods.period_files(DATA)
    assert len(files) == 17
    world = Timeline(periods.read(files), np.arange(17) * periods.WEEK)
    rules = Rules(exclude_seen=False, filter_unseen=True, need_history=True)
    assert sum(len(world.questions(cycle, rules)) for cycle in range(1, 17)) == 688_105


def test_the_json_has_the_agreed_shape_and_the_table_a_row_per_method(tmp_path):
    results = prequential(a_log(), methods("popular,knn", Settings()), window_seconds=DAY, train=3)
    results.write(tmp_path / "deep" / "out.json")
    written = json.loads((tmp_path / "deep" / "out.json").read_text())
    assert written["protocol"] == "prequential"
    assert list(written["methods"]) == ["popular", "knn"]
    windows = written["methods"]["knn"]["windows"]
    assert [row["window"] for row in windows] == [3, 4, 5, 6, 7]
    assert {"window", "recall@10", "recall@20", "ndcg@20", "mrr@20", "coverage@20", "seconds"} <= set(windows[0])
    mean = written["methods"]["knn"]["mean"]
    assert mean["recall@10"] == pytest.approx(np.mean([row["recall@10"] for row in windows]), abs=1e-5)
    assert 0 < mean["recall@10"] <= 1
    assert mean["seconds"] == pytest.approx(mean["seconds_learn"] + mean["seconds_answer"], abs=1e-5)
    assert written["settings"]["train"] == 3
    assert written["windows"][0]["targets"] > 0
    assert written["versions"]["python"]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(results.table())
    assert console.export_text().count("knn") == 1


def test_seconds_are_those_of_the_method(monkeypatch):
    clock = iter((10, 13, 20, 21))  # learn from 10 to 13, the one block of scores from 20 to 21
    monkeypatch.setattr("eval.replay.perf_counter", lambda: next(clock))
    row = prequential(WORLD, [Spy()], window_seconds=DAY, train=1, windows=1).methods["spy"][0]
    assert (row.learn_seconds, row.answer_seconds) == (3, 1)
    assert row.figures()["seconds"] == 4


def test_scores_of_the_wrong_shape_are_refused():
    class Short(Spy):
        def scores(self, queries: Queries) -> np.ndarray:
            return super().scores(queries)[:, :-1]

    with pytest.raises(AssertionError, match="shape"):
        replay(Timeline(WORLD, np.array([0, DAY * 1000])), [Short()], Rules(), 1, 2, Results("x", {}), [10], lambda *_: None)
