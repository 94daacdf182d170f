"""The report is read back from its HTML: what it says must be what the results say."""

import copy
import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from eval import pictures
from eval.pictures import Point, Row, Series
from eval.report import page as report
from recsys.errors import BadInput

SECTIONS = ["over-time", "frontier", "forgetting", "slices", "tables", "how-to-read", "reproduce"]


def a_method(recall: float, seconds: float, compared: bool, windows: int = 3) -> dict[str, Any]:
    """A method whose recall@20 falls by a point from window to window, around its mean."""
    rows = [
        {"window": 4 + n, "recall@20": recall + 0.01 * ((windows - 1) / 2 - n), "ndcg@20": recall / 2, "seconds_learn": seconds * (1 + n)}
        for n in range(windows)
    ]
    ahead = recall - 0.4
    gap = {"difference": ahead, "difference_low": ahead - 0.004, "difference_high": ahead + 0.004} if compared else {}
    slices = {
        "item": {
            "new": {
                "targets": 12,
                "recall@20": recall / 3,
                "difference": {"recall@20": [ahead, ahead - 0.1, ahead + 0.1]} if compared else {},
            }
        }
    }
    slices["item"]["unseen"] = {"targets": 0, "recall@20": None, "difference": {"recall@20": [None] * 3}}
    return {
        "macro": {"recall@20": recall, "ndcg@20": recall / 2, "coverage@20": 0.625, "gini@20": 0.71828, "novelty@20": 11.2341},
        "micro": {"recall@20": recall + 0.00123, "ndcg@20": recall / 2 + 0.00321},
        "windows": rows,
        "intervals": {"recall@20": {"value": recall, "low": recall - 0.01, "high": recall + 0.01, **gap}},
        "window_intervals": {"recall@20": [[row["recall@20"] - 0.02, row["recall@20"] + 0.02] for row in rows]},
        "slices": slices,
        "seeds": {"recall@20": [recall - 0.001, recall + 0.001]},
        "cost": {
            "seconds_learn": 6 * seconds,
            "seconds_learn_last": 3 * seconds,
            "peak_mb": 812.5,
            "release_bytes": 2_500_000,
            "index_loss": 0.0012,
        },
        "forgetting": None,
    }


def the_results() -> dict[str, Any]:
    matrix = [[0.3, 0.25, None], [0.5, 0.4, 0.2], [0.45, 0.5, 0.42]]
    ours = a_method(0.45678, 8.0, True)
    ours["forgetting"] = {
        "metric": "recall@20", "windows": [4, 5, 6], "matrix": matrix,
        "forgetting": 0.05, "backward_transfer": -0.05, "forward_transfer": 0.15,
    }  # fmt: skip
    return {
        "protocol": "prequential",
        "command": "recsys evaluate --data 'a & b.csv' --methods 'knn,ours<1>' --seeds 2",
        "settings": {"window_seconds": 604800.0},
        "ks": [20],
        "metrics": ["recall", "ndcg"],
        "baseline": "knn",
        "seeds": 2,
        "versions": {"python": "3.11.2", "torch": None},
        "machine": {"cpu": "a machine", "cores": 2, "memory_gb": 8},
        "data": {"rows": 1234, "sha256": "feedbeef"},
        "started": "2026-01-01T00:00:00",
        "finished": "2026-01-01T00:10:00",
        "seconds": 600.0,
        "windows": [
            {"window": 4 + n, "begin": f"2014-03-0{n + 1}T00:00:00", "queries": 100, "targets": 100 + n, "items": 50} for n in range(3)
        ],
        "methods": {"knn": a_method(0.4, 0.5, False), "ours<1>": ours, "retrain": a_method(0.45, 80.0, True)},
    }


class Page(HTMLParser):
    """What a reader of the page finds: tables as {id: {row: [(number or None, text, small print)]}}, sections, text, attributes."""

    def __init__(self, html: str):
        super().__init__()
        self.sections: list[str] = []
        self.heads: dict[str, list[str]] = {}
        self.tables: dict[str, dict[str, list[tuple[float | None, str, list[str]]]]] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.drawings = 0
        self._table = self._row = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = {name: value or "" for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in found.items()]
        if tag not in ("meta", "wbr"):
            self.open.append(tag)
        if tag == "section":
            self.sections.append(found["id"])
        elif tag == "figure" and found.get("class") != "missing":
            self.drawings += 1
        elif tag == "table":
            self._table = found["id"].removeprefix("table-")
            self.tables[self._table], self.heads[self._table] = {}, []
        elif tag == "th" and found["scope"] == "row":
            self._row = ""
        elif tag == "th":
            self.heads[self._table].append("")
        elif tag == "td":
            self.tables[self._table][self._row].append((float(found["data-value"]) if "data-value" in found else None, "", []))
        elif tag == "small" and "td" in self.open:
            self.tables[self._table][self._row][-1][2].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "th" and "tbody" in self.open:
            self.tables[self._table][self._row] = []

    def handle_data(self, data):
        if {"style", "script"} & set(self.open):
            return
        self.text += data
        if "td" in self.open:
            cells = self.tables[self._table][self._row]
            value, text, small = cells[-1]
            if "small" in self.open:
                small[-1] += data
            else:
                cells[-1] = value, text + data, small
        elif "th" in self.open and "tbody" in self.open:
            self._row += data
        elif "th" in self.open and "small" not in self.open:
            self.heads[self._table][-1] += data


def read(results: dict[str, Any]) -> Page:
    page = Page(report.html(results))
    assert not page.open
    return page


def test_every_section_is_there_and_the_file_is_what_html_gives(tmp_path):
    report.write(the_results(), tmp_path / "folder" / "out.html")
    written = (tmp_path / "folder" / "out.html").read_text()
    assert written == report.html(the_results())
    assert Page(written).sections == SECTIONS


def test_every_number_of_the_quality_tables_is_that_of_the_results():
    results, page = the_results(), read(the_results())
    for average in ("macro", "micro"):
        table = page.tables[average]
        assert page.heads[average] == ["method", "recall@20", "ndcg@20"]
        assert list(table) == ["ours<1>", "retrain", "knn"]  # the best first
        for name, cells in table.items():
            expected = [results["methods"][name][average][figure] for figure in page.heads[average][1:]]
            assert [value for value, _, _ in cells] == expected
            assert [text for _, text, _ in cells] == [f"{100 * value:.2f}" for value in expected]
    assert page.tables["macro"]["ours<1>"][0][2] == ["[44.68, 46.68]", "Δ +5.68 [+5.28, +6.08]"]
    assert page.tables["macro"]["knn"][0][2] == ["[39.00, 41.00]"]


def test_the_other_tables_hold_the_results_with_their_units():
    page = read(the_results())
    assert page.heads["lists"] == ["method", "coverage@20", "gini@20", "novelty@20"]
    assert [cell[:2] for cell in page.tables["lists"]["knn"]] == [(0.625, "62.5"), (0.71828, "0.718"), (11.2341, "11.234")]
    assert page.heads["cost"] == ["method", "an update", "learning", "last update", "peak memory", "release", "index loss"]
    update = (2 + 3) * 8.0 / 2  # the first lesson is the first fit, not an update
    assert [cell[:2] for cell in page.tables["cost"]["ours<1>"]] == [
        (update, "20.0"), (48.0, "48.0"), (24.0, "24.0"), (812.5, "812"), (2_500_000.0, "2.50"), (0.0012, "+0.12"),
    ]  # fmt: skip
    assert [cell[1] for cell in page.tables["seeds"]["knn"]] == ["39.90", "40.10"]
    assert [cell[1] for cell in page.tables["by-window"]["knn"]] == ["41.00", "40.00", "39.00"]
    assert page.heads["by-window"] == ["method", "4", "5", "6"]
    assert [cell[1] for cell in page.tables["windows"]["4"]] == ["2014-03-01T00:00:00", "100", "100", "50"]
    assert page.tables["slice-item"]["ours<1>"] == [(0.45678 / 3, "15.23", ["+5.68 [-4.32, +15.68]"]), (None, "–", [])]


def test_the_headline_says_who_is_best_by_how_much_and_at_what_cost():
    text = " ".join(read(the_results()).text.split())
    assert "303 targets" in text
    assert "ours<1> is best with recall@20 45.68 % [44.68, 46.68]: +5.68 points [+5.28, +6.08] against knn, 14.2 % more." in text
    assert "The interval leaves out zero. Next comes retrain with 45.00 %, 0.68 points behind." in text
    assert "It costs 20.0 s for an update on average, 48.0 s to learn all windows, 812 MB at most for the whole process" in text
    assert "An update takes 10 % as long as that of retrain (3 min)." in text


def test_a_headline_claims_no_more_than_the_numbers_do():
    chance = the_results()
    chance["methods"]["ours<1>"]["intervals"]["recall@20"] |= {"difference_low": -0.001}
    assert "The interval includes zero: this may be chance." in read(chance).text
    unknown = the_results()
    unknown["methods"]["ours<1>"]["intervals"] = {}
    assert "+5.68 points against knn" in read(unknown).text
    assert "There is no interval for the difference, so it may be chance." in read(unknown).text
    behind = the_results()
    behind["baseline"] = "ours<1>"
    assert "none of the other methods is ahead of this baseline" in read(behind).text
    alone = the_results()
    alone["methods"] = {"knn": alone["methods"]["knn"]}
    assert "it is the only method" in read(alone).text
    assert "is best" not in read(alone).text


def test_forgetting_is_drawn_and_said_in_words():
    html = report.html(the_results())
    assert "the last release is 5.00 points below the best release before it (forgetting +5.00)" in html
    assert "Later updates cost 5.00 points on them (backward transfer -5.00)" in html
    assert "updating was worth 15.00 points against never updating (forward transfer +15.00)" in html
    cells = re.findall(r"<title>release before window (\d), asked window (\d): ([^<]*)</title>", html)
    assert cells == [
        ("4", "4", "30.00 %"), ("4", "5", "25.00 %"), ("4", "6", "not asked"),
        ("5", "4", "50.00 %"), ("5", "5", "40.00 %"), ("5", "6", "20.00 %"),
        ("6", "4", "45.00 %"), ("6", "5", "50.00 %"), ("6", "6", "42.00 %"),
    ]  # fmt: skip
    assert html.count('class="live"') == 3


def test_what_is_needed_to_run_it_again_is_there():
    text = read(the_results()).text
    command = "recsys evaluate --data 'a & b.csv' --methods 'knn,ours<1>' --seeds 2"
    for said in (
        command,
        "python 3.11.2, torch not installed",
        "a machine",
        "feedbeef",
        "2026-01-01T00:10:00",
        "10 min",
        '"window_seconds": 604800.0',
    ):
        assert said in text


def test_the_fingerprint_of_the_data_is_found_among_the_settings_too():
    results = the_results()
    results["data"], results["settings"] = None, {"files": ["a.csv 12ab", "b.csv 34cd"]}
    assert "a.csv 12ab; b.csv 34cd" in read(results).text


def test_nothing_is_fetched_from_anywhere():
    html = report.html(the_results())
    for tag, name, value in Page(html).attributes:
        assert tag not in ("link", "img", "iframe", "object", "embed", "use", "image")
        assert name not in ("src", "href", "xlink:href", "srcset", "action", "data", "poster")
        assert not re.search(r"https?:|//|url\(", value) or name in ("content",), (tag, name, value)
    assert "@import" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html


def test_what_the_user_wrote_is_shown_and_never_run():
    nasty = "<script>alert(1)</script>\"'&amp;"
    results = the_results()
    results["methods"] = {nasty: results["methods"]["ours<1>"], "knn": results["methods"]["knn"]}
    results |= {"command": nasty, "protocol": nasty, "settings": {nasty: nasty}, "versions": {nasty: nasty}}
    results["windows"][0][nasty] = nasty
    for found in results["methods"].values():
        found["slices"] = {nasty: {nasty: found["slices"]["item"]["new"]}}
    page = read(results)
    html = report.html(results)
    assert html.count("<script>") == 1
    assert nasty in page.tables["macro"]
    assert nasty in page.text
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_the_same_results_give_the_same_page():
    assert report.html(the_results()) == report.html(json.loads(json.dumps(the_results())))


def test_a_page_without_methods_is_refused_with_the_way_out():
    with pytest.raises(BadInput, match=r"no method.*recsys evaluate"):
        report.html({"methods": {}})


def _without(*path: str):
    def change(results):
        for found in results["methods"].values():
            for key in path:
                found.pop(key)

    return change


def _holes(value: Any):
    def punched(found: Any) -> Any:
        if isinstance(found, dict):
            return {key: punched(inner) for key, inner in found.items()}
        if isinstance(found, list):
            return [punched(inner) for inner in found]
        return value if isinstance(found, (int, float)) else found

    return lambda results: results.update(methods={name: punched(found) for name, found in results["methods"].items()})


def _many(results):
    results["methods"] = {
        f"strategy-{n}(share=0.{n},and_something_long=True)+ewc+neighbours": a_method(0.4 + 0.003 * n, n, True, 30) for n in range(20)
    }
    results["baseline"] = "strategy-0(share=0.0,and_something_long=True)+ewc+neighbours"


def _one_window(results):
    results["methods"] = {"only": a_method(0.4, 1.0, False, 1)}
    results["windows"] = results["windows"][:1]


def _equal(results):
    results["methods"] = {name: a_method(0.0, 0.0, True) for name in "abc"}
    for found in results["methods"].values():
        found["forgetting"] = {"matrix": [[0.0, 0.0], [0.0, 0.0]], "windows": []}


ODD = {
    "one window": (_one_window, 4 + 1),
    "twenty methods, thirty windows": (_many, 6),
    "all nought": (_equal, 4 + 2 + 3),
    "no slices": (_without("slices"), 5),
    "only means": (_without("slices", "micro", "windows", "intervals", "window_intervals", "seeds", "cost", "forgetting"), 0),
    "no means": (_without("macro"), 5),
    "none for every number": (_holes(None), 0),
    "nan for every number": (_holes(math.nan), 0),
    "infinity for every number": (_holes(math.inf), 0),
    "no windows": (lambda results: results.update(windows=None, seeds=None, versions=None, machine=None, settings=None, command=None), 7),
    "no method has anything": (lambda results: results.update(methods={"a": {}, "b": None}), 0),
    "the baseline is not there": (lambda results: results.update(baseline="gone"), 7),
    "no baseline": (lambda results: results.update(baseline=None), 7),
    "ragged": (lambda results: results["methods"]["knn"]["windows"].pop(), 7),
    "an empty matrix": (lambda results: results["methods"]["knn"].update(forgetting={"matrix": [], "windows": []}), 7),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_results_make_a_whole_page(odd):
    """Each picture is either drawn or replaced by a sentence."""
    change, drawings = ODD[odd]
    results = copy.deepcopy(the_results())
    change(results)
    page, html = read(results), report.html(results)
    assert page.sections == SECTIONS
    assert page.drawings == drawings
    assert len(re.findall(r"<figure[^>]*>(?:<p class=\"figure-title\">[^<]*</p>)?(?:<svg|<p>[^<]{20,})", html)) == html.count("<figure")
    assert not re.search(r"(?<![a-z])(nan|inf|None)(?![a-z])", re.sub(r"<(style|script).*?</\1>", "", html, flags=re.S))


def test_results_far_below_the_best_are_named_instead_of_squeezing_the_picture():
    results = the_results()
    results["methods"]["popular"] = a_method(0.01, 0.1, True)
    html = report.html(results)
    assert "Too far below to share the picture: popular (1.00 %)." in html
    assert "popular, window" not in html


def test_labels_fit_and_no_two_are_alike():
    names = [
        "knn",
        "replay(share=0.5)+ewc+neighbours",
        "naive(rate=0.1,epochs=20,x=1)",
        "naive(rate=0.2,epochs=20,x=1)",
        "x" * 30 + "1",
        "x" * 30 + "2",
    ]
    found = pictures.labels(names)
    assert found["knn"] == "knn"
    assert found["replay(share=0.5)+ewc+neighbours"] == "replay(…)+ewc+neighbours"
    assert len(set(found.values())) == len(names)
    assert max(map(len, found.values())) <= 24


def test_ticks_are_round_and_inside():
    assert pictures.ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert pictures.ticks(0.13, 0.87) == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert pictures.ticks(38.3, 55.1) == [40, 45, 50, 55]
    assert pictures.ticks(3, 3) == [3]


def test_a_logarithmic_axis_has_marks_however_short_it_is():
    assert pictures._decades(-1, 3) == [-1, 0, 1, 2, 3]
    assert [10**at for at in pictures._decades(0, 1)] == pytest.approx([1, 2, 5, 10])
    assert pictures._decades(0.35, 0.45) == [pytest.approx(0.4)]  # 2.2 to 2.8


def test_the_front_is_what_nothing_beats_in_both():
    points = [Point(name, 0, y, x=x) for name, x, y in [("a", 1, 10), ("b", 2, 9), ("c", 3, 12), ("d", 3, 11), ("e", 9, 12), ("f", 10, 13)]]
    assert [point.name for point in pictures.pareto(points)] == ["a", "c", "f"]


def test_a_line_is_broken_where_there_is_no_number_and_stands_where_the_scale_says():
    drawn = pictures.lines([Series("a", 0, [1, 2, 3, 4], [10.0, 20.0, None, 30.0])], "window", "%")
    path = re.search(r'class="c0 line" d="([^"]+)"', drawn)
    assert path is not None
    pen = re.findall(r"([ML])([\d.]+),([\d.]+)", path[1])
    assert [move for move, _, _ in pen] == ["M", "L", "M"]
    (x1, y1), (x2, y2), (x4, y4) = [(float(x), float(y)) for _, x, y in pen]
    assert x4 - x1 == pytest.approx(3 * (x2 - x1), abs=0.2)
    assert y1 - y4 == pytest.approx(2 * (y1 - y2), abs=0.2)


def test_an_interval_is_drawn_from_low_to_high():
    drawn = pictures.dots([Row("slice", "9 targets", [Point("a", 0, 1.0, -1.0, 3.0), Point("b", 1, 0.0)])], "points", 2, around_zero=True)
    low, high = map(float, re.findall(r'whisker" d="M([\d.]+),[\d.]+H([\d.]+)"', drawn)[0])
    zero = float(re.findall(r'class="zero" d="M([\d.]+)', drawn)[0])
    assert (zero - low) * 3 == pytest.approx(high - zero, abs=0.3)
    assert drawn.count("whisker") == 1


def test_nothing_to_draw_is_no_picture():
    assert pictures.lines([Series("a", 0, [1.0], [None])], "x", "y") == ""
    assert pictures.frontier([], "x", "y") == ""
    assert pictures.heat([[None]], ["1"], (0, 1)) == ""
    assert pictures.dots([Row("a", "")], "x", 1) == ""


def test_twenty_marks_differ_in_colour_or_shape():
    assert len({pictures.mark(look, 0, 0) for look in range(20)}) == 20
