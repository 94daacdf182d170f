import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from eval.answers import Answers, Asked
from eval.cost import Cost
from eval.metrics import METRICS, MISS
from eval.results import Results, report
from eval.table import table
from recsys.errors import BadInput

COST = Cost(seconds_learn=2.0, seconds_answer=0.5, examples=10, peak_mb=100.0, release_bytes=3000)
NEW, OLD = np.array([True, False, False, True]), np.array([False, True, True, False])


def asked(window: int, start: list[int], new: np.ndarray) -> Asked:
    counts = {"queries": len(start) - 1, "targets": start[-1]}
    return Asked(window, 86_400_000 * window, 5, np.array(start), np.arange(len(start) - 1), counts, {"item": {"new": new, "old": ~new}})


def answers(method: str, seed: int, window: int, *ranks: int, cost: Cost = COST, matrix: list[float] | None = None) -> Answers:
    coverage = {"coverage@2": 0.5 if window == 3 else np.nan}
    return Answers(method, seed, window, np.array(ranks), coverage, cost, matrix=None if matrix is None else np.array(matrix))


def found() -> Results:
    """Two windows, the first with a query that wants two items; the method "lots" under two seeds."""
    results = Results("prequential", [2])
    results.windows = [asked(3, [0, 2, 3, 4], NEW), asked(4, [0, 1], np.array([False]))]
    for each in (
        answers("plain", 0, 3, 1, 9, 9, 2, matrix=[0.5, 0.0]),
        answers("plain", 0, 4, 1, cost=replace(COST, seconds_learn=4.0, peak_mb=90.0, release_bytes=5000), matrix=[0.25, 1.0]),
        answers("lots", 0, 3, 1, 2, 1, MISS),
        answers("lots", 1, 3, 9, 2, 9, 9, cost=replace(COST, seconds_learn=4.0, stale_loss=0.2)),
        answers("lots", 0, 4, 9),
        answers("lots", 1, 4, 1),
    ):
        results.add(each)
    return results


def test_macro_counts_windows_alike_and_micro_queries():
    results = found()
    # window 3: the queries of plain find 1/2, 0, 1; window 4: 1
    assert results.macro("plain")["recall@2"] == pytest.approx((0.5 + 1) / 2)
    assert results.micro("plain")["recall@2"] == pytest.approx((0.5 + 0 + 1 + 1) / 4)
    # lots, window 3: 1, 1, 0 and 1/2, 0, 0; window 4: 0 and 1
    assert results.macro("lots")["recall@2"] == pytest.approx(((2 / 3 + 1 / 6) / 2 + 1 / 2) / 2)
    written = report(results)["methods"]["lots"]
    assert written["seeds"]["recall@2"] == pytest.approx([(2 / 3 + 0) / 2, (1 / 6 + 1) / 2], abs=1e-6)
    assert [row["recall@2"] for row in written["windows"]] == pytest.approx([5 / 12, 1 / 2], abs=1e-6)


def test_the_json_has_the_agreed_shape():
    written = report(found(), "plain")
    assert json.loads(json.dumps(written)) == written
    assert (written["ks"], written["metrics"], written["baseline"]) == ([2], list(METRICS), "plain")
    assert written["windows"][0] == {"window": 3, "begin": "1970-01-04T00:00:00.000", "queries": 3, "targets": 4}
    for method in written["methods"].values():
        assert set(method) == {"macro", "micro", "windows", "intervals", "window_intervals", "slices", "seeds", "cost", "forgetting"}
        assert set(method["macro"]) == {*(f"{name}@2" for name in METRICS), "coverage@2"}
        assert len(method["window_intervals"]["recall@2"]) == 2
        costs = {"seconds_learn", "seconds_answer", "examples", "peak_mb", "release_bytes"}
        assert {"window", "recall@2", "coverage@2", *costs} <= set(method["windows"][0])
        assert {*costs, "seconds_learn_last", "index_loss", "stale_loss"} == set(method["cost"])
    assert written["methods"]["plain"]["windows"][1]["coverage@2"] is None, "nan is no JSON"
    assert written["methods"]["plain"]["macro"]["coverage@2"] == 0.5, "a window with nothing to look at is passed over"


def test_costs_of_all_windows():
    costs = {name: method["cost"] for name, method in report(found())["methods"].items()}
    assert costs["plain"] == {
        "seconds_learn": 6, "seconds_learn_last": 4, "seconds_answer": 1, "examples": 20, "peak_mb": 100, "release_bytes": 5000,
        "index_loss": None, "stale_loss": None,
    }  # fmt: skip
    assert costs["lots"]["seconds_learn"] == 3 + 2, "the mean over the seeds"


def test_slices_count_queries_alike_and_leave_out_what_does_not_belong():
    written = report(found(), "plain")["methods"]
    # new: the first item of query 0 (rank 1) and query 2 (rank 2); old: the second of query 0, query 1, and window 4's
    new, old = written["plain"]["slices"]["item"]["new"], written["plain"]["slices"]["item"]["old"]
    assert (new["targets"], old["targets"]) == (2, 3)
    assert (new["recall@2"], new["mrr@2"]) == (1, 0.75)
    assert (old["recall@2"], old["mrr@2"]) == pytest.approx((1 / 3, 1 / 3), abs=1e-6)
    assert new["difference"] == {}
    lots = written["lots"]["slices"]["item"]["old"]
    assert lots["recall@2"] == pytest.approx(np.mean([1, 1 / 2, 1 / 2]))
    assert lots["difference"]["recall@2"][0] == pytest.approx(np.mean([1, 1 / 2, 1 / 2]) - 1 / 3, abs=1e-6)
    assert set(lots["difference"]) == {"recall@2", "ndcg@2"}
    assert new["windows"] == {"targets": [2, 0], "recall@2": [1, None]}, "a window in which nobody wants a new item has no figure"
    assert old["windows"]["targets"] == [2, 1]
    assert old["windows"]["recall@2"] == pytest.approx([0, 1]), "query 0's second item and query 1 are missed, window 4's is found"
    assert lots["windows"]["recall@2"] == pytest.approx([(1 + 1 / 2) / 2, (0 + 1) / 2]), "the mean over the seeds"


def test_a_slice_that_nothing_belongs_to_says_so():
    results = found()
    nothing = [replace(window, slices={"item": {"new": np.zeros(len(window.slices["item"]["new"]), bool)}}) for window in results.windows]
    results.windows = nothing
    new = report(results)["methods"]["lots"]["slices"]["item"]["new"]
    assert (new["targets"], new["recall@2"], new["difference"]["recall@2"]) == (0, None, [None] * 3)


def test_intervals_are_paired_with_the_baseline():
    results = Results("x", [2])
    rng = np.random.default_rng(0)
    start, ranks = np.arange(301), rng.integers(1, 6, (2, 300))
    for window in range(2):
        mask = np.zeros(300, bool)
        results.windows.append(Asked(window, 0, 5, start, np.arange(300), {"queries": 300, "targets": 300}, {"item": {"new": mask}}))
        results.add(Answers("one", 0, window, ranks[window], {}, COST))
        results.add(Answers("same", 0, window, ranks[window], {}, COST))
        results.add(Answers("better", 0, window, np.where(np.arange(300) % 3 == 0, 1, ranks[window]), {}, COST))
    written = report(results, "one")["methods"]
    assert set(written["one"]["intervals"]["recall@2"]) == {"value", "low", "high"}
    same, better = (written[name]["intervals"]["recall@2"] for name in ("same", "better"))
    assert (same["difference"], same["difference_low"], same["difference_high"]) == (0, 0, 0)
    assert 0 < better["difference_low"] < better["difference"] < better["difference_high"]
    assert better["difference"] == pytest.approx(results.macro("better")["recall@2"] - results.macro("one")["recall@2"], abs=1e-6)
    assert better["low"] < better["value"] < better["high"]
    assert better["difference_high"] - better["difference_low"] < better["high"] - better["low"], "paired, it is the narrower one"
    low, high = written["better"]["window_intervals"]["recall@2"][0]
    assert low < written["better"]["windows"][0]["recall@2"] < high


def test_however_many_methods_are_compared_at_once_the_intervals_are_the_same(monkeypatch):
    together = report(found(), "plain")
    monkeypatch.setattr("eval.results.CELLS", 1)
    assert report(found(), "plain") == together


def test_the_matrix_is_written_with_what_follows_from_it():
    written = report(found())["methods"]
    assert written["plain"]["forgetting"]["matrix"] == [[0.5, 0.0], [0.25, 1.0]]
    assert written["plain"]["forgetting"]["windows"] == [3, 4]
    assert written["plain"]["forgetting"]["forward_transfer"] == 1.0
    assert written["lots"]["forgetting"] is None
    assert "seeds" not in written["plain"]["forgetting"], "one seed is its own mean"


def test_the_matrix_of_each_seed_stands_beside_their_mean():
    results = found()
    del results.answers["lots"]
    for seed, last in enumerate(([0.25, 1.0], [0.75, 0.5])):
        results.add(answers("drawn", seed, 3, 1, 9, 9, 2, matrix=[0.5, 0.0]))
        results.add(answers("drawn", seed, 4, 1, matrix=last))
    forgetting = report(results)["methods"]["drawn"]["forgetting"]
    assert forgetting["seeds"] == [[[0.5, 0.0], [0.25, 1.0]], [[0.5, 0.0], [0.75, 0.5]]]
    assert forgetting["matrix"] == [[0.5, 0.0], [0.5, 0.75]]


def test_the_table_says_what_is_forgotten_where_old_windows_were_asked_again():
    results = Results("prequential", [2])
    results.windows = [asked(window, [0, 1], np.array([False])) for window in (3, 4, 5)]
    for method, last in (("plain", [0.25, 0.5, 1.0]), ("lots", [0.75, 0.5, 1.0])):
        for window, row in zip((3, 4, 5), ([0.5, 0.0, 0.0], [0.5, 0.5, 0.0], last), strict=True):
            results.add(answers(method, 0, window, 1, matrix=row))
    results.add(answers("unasked", 0, 3, 1))
    results.add(answers("unasked", 0, 4, 1))
    results.add(answers("unasked", 0, 5, 1))

    def shown(results: Results) -> list[str]:
        console = Console(width=140, record=True, file=io.StringIO())
        console.print(table({"protocol": "prequential", **report(results, "plain")}, 140))
        return console.export_text().splitlines()

    lines = shown(results)
    rows = {words[0]: words for line in lines if (words := line.split())}
    assert [rows[name][-6] for name in ("plain", "lots", "unasked")] == ["+25.00", "-25.00", "+0.00"], "the last is not asked: ahead"
    assert any(line.split()[-9:-6] == ["@2", "ahead", "forgets"] for line in lines)
    assert "the last release has lost" in " ".join(" ".join(lines).split())
    assert "shows from the third window on" in " ".join(" ".join(shown(found())).split())


def test_a_baseline_that_is_no_method_is_one_clear_line():
    with pytest.raises(BadInput, match="did you mean 'plain'"):
        report(found(), "plane")


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_the_table_fits_the_terminal(width):
    results = found()
    results.answers = {("x" * 20 if name == "lots" else name): rows for name, rows in results.answers.items()}
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table({"protocol": "prequential", **report(results, "plain")}, width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    row = next(line.split() for line in text.splitlines() if "plain" in line and "ahead" not in line)
    assert row[:2] == ["plain", "75.00"]
    assert next(line for line in text.splitlines() if "x" * 20 in line).count("-29.17") == 1
    shown, caption = text.split("ahead:")
    assert ("peak" in shown) == (width == 200) == ("peak" not in caption)
    assert ("hit_rate" in shown) == (width >= 100) == ("hit_rate" not in caption), "some query wants two items"
