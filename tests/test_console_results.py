"""Replay and Forgetting: what the pages show is what the result holds, wherever it comes from; what is no result is refused in words."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from browser import DESK, PHONE, serving, url
from fastapi import FastAPI
from fastapi.testclient import TestClient

from eval.answers import Answers, Asked
from eval.cost import Cost
from eval.forgetting import Matrix
from eval.methods import methods
from eval.names import listed
from eval.report.facts import SHARES
from eval.results import Results, report
from recsys.home import Home
from recsys.settings import Settings
from serving.console import results as endpoint
from serving.guard import scope_of

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
MADE = sorted(RESULTS.glob("*.json"))
REPLAYS = [path.name for path in MADE if path.stem != "day"]
ODD = "a résumé #1 100%.json"
GRID = ["replay(share=0.1)+ewc", "replay(share=0.3)+ewc", "replay+ewc", "replay+ewc(strength=10)", "naive", "popular"]


def answer(reports: Path, path: str = "") -> httpx.Response:
    app = FastAPI()
    app.state.home = Home(reports.parent)
    app.include_router(endpoint.results)
    return TestClient(app).get("/v1/console/results" + path)


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """A home's reports: a result, a run that has finished, one that has not, and something that is none of these."""
    folder = tmp_path / "home" / "reports"
    for run in ("prequential-1", "prequential-2"):
        (folder / run).mkdir(parents=True)
        (folder / run / "run.json").write_text(json.dumps({"question": {"protocol": "prequential", "methods": ["naive", "knn"]}}))
    (folder / "prequential-1" / "results.json").write_text('{"methods": {}}')
    (folder / "replay.json").write_text('{"methods": {"knn": {}}}')
    (folder / "replay.html").write_text("<p>")
    os.utime(folder / "replay.json", (1, 1))
    return folder


def test_results_are_listed_newest_first_with_what_a_run_was_asked(reports):
    found = answer(reports).json()
    assert [each["name"] for each in found["results"]] == ["prequential-1/results.json", "replay.json"]
    assert found["results"][0]["methods"] == ["naive", "knn"]
    assert found["results"][1] == {"name": "replay.json", "bytes": 24, "modified": 1000}
    assert (found["folder"], found["unfinished"], found["left_out"]) == (str(reports), ["prequential-2"], 0)


def test_a_home_without_reports_lists_none(tmp_path):
    found = answer(tmp_path / "home" / "reports").json()
    assert (found["results"], found["unfinished"]) == ([], [])


def test_a_listed_result_comes_as_it_stands_in_its_file(reports):
    (reports / ODD).write_text('{"methods": 1}')
    for each in answer(reports).json()["results"]:
        found = answer(reports, f"/{quote(each['name'])}")
        assert found.content == (reports / each["name"]).read_bytes()
        assert found.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "name",
    [
        "../config.json", "..%2fconfig.json", "%2e%2e/config.json", "prequential-1/../../config.json", "/etc/passwd", "%2fetc%2fhostname",
        "out.json", "out/results.json", "replay.html", "prequential-1", "prequential-1/run.json", "prequential-2/results.json",
        "replay.json/",
        "replay.json%00", "", "%ff",
    ],
)  # fmt: skip
def test_nothing_else_can_be_read(reports, name):
    secret = reports.parent / "config.json"
    secret.write_text('{"secret": 1}')
    (reports / "out.json").symlink_to(secret)
    (reports.parent / "elsewhere").mkdir()
    (reports.parent / "elsewhere" / "results.json").write_text('{"secret": 1}')
    (reports / "out").symlink_to(reports.parent / "elsewhere")
    found = answer(reports, f"/{name}")
    assert found.status_code in (404, 422) or "results" in found.json(), "an empty name is the list"
    assert b"secret" not in found.content


def test_a_huge_result_is_refused_with_the_way_out(reports, monkeypatch):
    monkeypatch.setattr(endpoint, "LARGEST", 20)
    found = answer(reports, "/replay.json")
    assert found.status_code == 422
    assert "opens 0 MB at most" in found.json()["detail"]
    assert answer(reports, "/prequential-1/results.json").status_code == 200


def test_beyond_a_bound_the_oldest_are_left_out_of_the_list_and_still_open(reports, monkeypatch):
    monkeypatch.setattr(endpoint, "MOST", 1)
    found = answer(reports).json()
    assert ([each["name"] for each in found["results"]], found["left_out"]) == (["prequential-1/results.json"], 1)
    assert answer(reports, "/replay.json").status_code == 200


@pytest.mark.parametrize(
    "about", [b"{", b"[]", b'{"question": 3}', b'{"question": {"protocol": "x", "methods": 3}}', b"\xff", b" " * 300_000]
)
def test_a_run_whose_question_cannot_be_read_is_listed_all_the_same(reports, about):
    (reports / "prequential-1" / "run.json").write_bytes(about)
    assert [each["name"] for each in answer(reports).json()["results"]] == ["prequential-1/results.json", "replay.json"]


def test_unknown_parameters_are_refused_and_keys_need_the_scope_admin(reports):
    assert "no parameter 'folder'" in answer(reports, "?folder=/etc").json()["detail"]
    assert {scope_of("GET", "/v1/console/results"), scope_of("GET", "/v1/console/results/replay.json")} == {"admin"}


def test_files_are_looked_for_in_a_thread(reports, monkeypatch):
    """While a slow disk is asked, the event loop goes on answering."""
    loops = []
    monkeypatch.setattr(endpoint, "_candidates", lambda folder: loops.append(asyncio._get_running_loop()) or [])
    assert (answer(reports).status_code, answer(reports, "/replay.json").status_code) == (200, 404)
    assert loops == [None, None]


# What the pages show.


def drawn(name: str, window: int, rng: np.random.Generator, seed: int, windows: int) -> Answers:
    ranks = np.where(rng.random(60) < 0.5, rng.integers(1, 21, 60), 99)
    matrix = None if name == "popular" else rng.random(windows)
    return Answers(name, seed, window + 3, ranks, {"coverage@20": 0.5}, Cost(2.0, 0.5, 10, 100.0, 3000), matrix=matrix)


def grid(windows: int = 5) -> dict[str, Any]:
    """Return a result of two seeds, with two curves in it and slices by window."""
    rng, found = np.random.default_rng(4), Results("prequential", [20])
    new = rng.random((windows, 60)) < 0.3
    for window in range(windows):
        mask = {"item": {"new": new[window], "old": ~new[window]}, "user": {"new": np.zeros(60, bool), "old": np.ones(60, bool)}}
        found.windows.append(
            Asked(window + 3, window * 7 * 86_400_000, 500, np.arange(61), np.arange(60), {"queries": 60, "targets": 60}, mask)
        )
    for name in GRID:
        for seed in range(1 if name == "popular" else 2):
            for window in range(windows):
                found.add(drawn(name, window, rng, seed, windows))
    return {"protocol": "prequential", "seeds": 2, "command": "recsys evaluate", "settings": {}, **report(found, "naive")}


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return grid()


@pytest.fixture(scope="module")
def api(small: Path, tmp_path_factory: pytest.TempPathFactory, made: dict[str, Any]) -> Iterator[httpx.Client]:
    """Serve a home whose reports hold every result of benchmarks/, one of a run, and some that cannot be used."""
    home = Path(shutil.copytree(small, tmp_path_factory.mktemp("results") / "home", ignore=shutil.ignore_patterns("redis")))
    run = home / "reports" / "prequential-7"
    run.mkdir(parents=True)
    for path in MADE:
        shutil.copy(path, home / "reports")
    (run / "run.json").write_text(json.dumps({"question": {"protocol": "prequential", "methods": GRID}}))
    (run / "results.json").write_text(json.dumps(made))
    shutil.copy(MADE[0].with_name("strategies.json"), home / "reports" / ODD)
    (home / "reports" / "half.json").write_text(json.dumps(made)[:5000])
    (home / "reports" / "other.json").write_text('{"imported": 3, "refused": 0}')
    with serving(home) as client:
        yield client


def told(page: Any, selector: str, *keys: str) -> list[Any]:
    """Return what elements say: their text and, by key, what they carry."""
    script = """(all, keys) => all.map((each) =>
      [each.textContent, ...keys.map((key) => each.closest(`[data-${key}]`)?.dataset[key] ?? null)])"""
    return page.locator(selector).evaluate_all(script, list(keys))


def expected(found: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return the figures of each method as shares, whatever kind of file they are in."""
    if "macro" in next(iter(found["methods"].values())):
        return {name: method["macro"] for name, method in found["methods"].items()}
    return {
        name: {key: value / 100 for key, value in method.items() if "@" in key} for name, method in found["methods"].items()
    }  # per cent


def test_replay_shows_the_figures_of_every_result(api, page):
    page.goto(url(api, "replay", result=REPLAYS[0]))
    for name in REPLAYS:
        found = json.loads((RESULTS / name).read_text())
        page.get_by_label("result", exact=True).select_option(name)
        page.wait_for_url(re.compile(f"result={name}"))
        figures, shown = expected(found), told(page, "[data-figure]", "method", "figure", "value")
        assert {method for _, method, _, _ in shown} == set(figures), name
        for text, method, figure, value in shown:
            assert float(value) == pytest.approx(figures[method][figure]), (name, method, figure)
            assert text == (f"{100 * float(value):.2f}%" if figure.split("@")[0] in SHARES else f"{float(value):.3f}")
        best = max(figures, key=lambda method: figures[method]["recall@20"])
        assert page.locator(".headline").inner_text().startswith(f"{best} is best")
        if name.startswith("strategies"):
            continue  # a summary, with neither windows nor all the costs
        for _, method, cost, value in told(page, "[data-cost]", "method", "cost", "value"):
            assert float(value) == pytest.approx(found["methods"][method]["cost"][cost]), (name, method, cost)
        series = told(page, ".grid .card:first-child .series", "name", "points")
        assert len(series) == min(8, len(found["methods"]))
        for _, method, points in series:
            assert [y for _, y in json.loads(points)] == [row["recall@20"] for row in found["methods"][method]["windows"]], (name, method)


def test_the_heat_map_is_the_matrix(api, page):
    page.goto(url(api, "forgetting", result=REPLAYS[0]))
    looked = 0
    for name in REPLAYS:
        found = json.loads((RESULTS / name).read_text())["methods"]
        page.get_by_label("result", exact=True).select_option(name)
        page.wait_for_url(re.compile(f"result={name}"))
        asked = [method for method, figures in found.items() if figures["forgetting"] is not None]
        if not asked:
            assert "recsys evaluate --matrix" in page.locator(".empty").first.inner_text()
        for method in asked[:3]:
            forgetting = found[method]["forgetting"]
            page.select_option("#matrix select", method)
            shown = {key: float(value) for _, key, value in told(page, "[data-transfer]", "transfer", "value")}
            assert len(shown) == 3
            if isinstance(forgetting, float):  # a summary: no matrix, and points
                assert shown == pytest.approx({key: found[method][key] / 100 for key in shown}), (name, method)
                continue
            assert shown == {key: forgetting[key] for key in shown}, (name, method)
            matrix, cells = forgetting["matrix"], told(page, "#matrix .cell", "value")
            assert [float(value) for _, value in cells] == [row[window] for window in range(len(matrix)) for row in matrix], (name, method)
            looked += 1
        assert page.locator(".problem").count() == 0
    assert looked >= 8


def test_every_kind_of_result_is_among_them():
    assert len(MADE) == 8
    assert {"day.json", "strategies.json", "strategies-diginetica.json", "diginetica.json", "movietweetings.json"} <= {
        path.name for path in MADE
    }


def test_a_day_served_live_is_told_hour_by_hour(api, page):
    runs = json.loads((RESULTS / "day.json").read_text())["runs"]
    page.goto(url(api, "replay", result="day.json"))
    page.wait_for_selector(".series")
    series = [json.loads(points) for _, points in told(page, ".series", "points")]
    assert series == [[[each["hour"], each["rate"]] for each in run["bins"][arm]] for run in runs for arm in run["bins"]]
    page.goto(url(api, "forgetting", result="day.json"))
    assert "asks no old windows again" in page.locator(".empty").inner_text()


def test_differences_come_with_their_intervals_and_a_word(api, page, made):
    page.goto(url(api, "replay", result="prequential-7/results.json"))
    row = page.locator("tr[data-method='replay+ewc']").first
    gap = made["methods"]["replay+ewc"]["intervals"]["recall@20"]
    text = row.inner_text().replace("−", "-")
    assert f"{100 * gap['difference']:+.2f}" in text
    assert f"{100 * gap['difference_low']:+.2f} to {100 * gap['difference_high']:+.2f}" in text
    word = "ahead" if gap["difference_low"] > 0 else "behind" if gap["difference_high"] < 0 else "level"
    assert word in text


def test_metric_view_and_methods_are_chosen_and_stay_in_the_address(api, page, made):
    page.goto(url(api, "replay", result="prequential-7/results.json"))
    page.get_by_label("metric").select_option("mrr@20")
    page.get_by_role("button", name="so far").click()
    for name in GRID[1:]:
        page.locator(f".chip[data-method='{name}']").click()
    page.reload()
    page.wait_for_selector(".grid .series")
    ((_, name, points),) = told(page, ".grid .card:first-child .series", "name", "points")
    rows = [row["mrr@20"] for row in made["methods"][GRID[0]]["windows"]]
    assert name == GRID[0]
    assert [y for _, y in json.loads(points)] == pytest.approx([np.mean(rows[: n + 1]) for n in range(len(rows))])
    assert json.loads(points)[-1][1] == pytest.approx(made["methods"][name]["macro"]["mrr@20"], abs=1e-6)
    page.locator(f".chip[data-method='{GRID[0]}']").click()
    assert "No method is chosen" in page.locator(".empty").inner_text()


def test_slices_stand_by_part_and_window_by_window(api, page, made):
    page.goto(url(api, "replay", result="prequential-7/results.json", slice="user"))
    page.wait_for_selector("[data-slice]")
    slices = {name: method["slices"] for name, method in made["methods"].items()}
    shown = told(page, "[data-slice]", "slice", "value")
    assert sorted(float(value) for _, key, value in shown) == sorted(each["user"]["old"]["recall@20"] for each in slices.values())
    assert {key for _, key, _ in shown} == {"user/old"}, "a part that nobody belongs to is left out"
    page.goto(url(api, "forgetting", result="prequential-7/results.json", method="naive"))
    page.wait_for_selector("#slice-lines .series")
    lines = {name: [y for _, y in json.loads(points)] for _, name, points in told(page, "#slice-lines .series", "name", "points")}
    assert lines == {f"{part} items": slices["naive"]["item"][part]["windows"]["recall@20"] for part in ("new", "old")}


def test_each_seed_has_its_matrix_and_what_follows_from_it(api, page, made):
    page.goto(url(api, "forgetting", result="prequential-7/results.json", method="replay+ewc"))
    page.wait_for_selector("#matrix .cell")
    found = made["methods"]["replay+ewc"]["forgetting"]
    for choice, quality in (("mean", found["matrix"]), ("0", found["seeds"][0]), ("1", found["seeds"][1])):
        page.locator("#matrix select").nth(1).select_option(choice)
        assert [float(value) for _, value in told(page, "#matrix .cell", "value")] == [
            row[window] for window in range(5) for row in quality
        ]
        follows = Matrix("recall@20", found["windows"], np.array(quality)).as_dict()
        for _, key, value in told(page, "[data-transfer]", "transfer", "value"):
            assert float(value) == pytest.approx(follows[key], abs=2e-6), (choice, key)


def test_curves_join_what_differs_in_share_alone_or_in_strength_alone(api, page, made):
    page.goto(url(api, "forgetting", result="prequential-7/results.json"))
    page.wait_for_selector("#trade-off .dot")
    assert [text for (text,) in told(page, ".curves li")] == [
        "replay share 0.1 → 0.3 → 0.5 in replay(share=…)+ewc(strength=1)",
        "EWC strength 1 → 10 in replay(share=0.5)+ewc(strength=…)",
    ]
    assert page.locator("#trade-off .joined").count() == 2
    matrix = np.array(made["methods"]["replay+ewc"]["forgetting"]["matrix"])
    dot = page.locator("#trade-off .dot[data-name='replay+ewc']")
    assert float(dot.get_attribute("data-x")) == pytest.approx(np.diag(matrix)[1:].mean())
    assert float(dot.get_attribute("data-y")) == pytest.approx(matrix[-1, :-2].mean())


def test_where_there_is_no_curve_the_command_that_makes_one_can_be_run(api, page):
    page.goto(url(api, "forgetting", result="movietweetings.json"))
    command = page.locator("#trade-off .empty pre").inner_text()
    asked = re.search(r'--methods "([^"]+)"', command)
    assert asked is not None
    assert "--resume --run" in command
    assert len(methods(asked[1], Settings())) == len(listed(asked[1])) == 5, "every name is one that recsys evaluate knows"


def test_the_chosen_result_stays_from_page_to_page(api, page):
    page.goto(url(api, "replay", result="diginetica-seeds.json"))
    page.wait_for_selector(".headline")
    page.get_by_role("link", name="Forgetting").click()
    page.wait_for_selector("#matrix")
    assert page.get_by_label("result", exact=True).input_value() == "diginetica-seeds.json"
    page.get_by_role("link", name="Live").click()
    page.get_by_role("link", name="Replay").click()
    page.wait_for_selector(".headline")
    assert "result=diginetica-seeds.json" in page.url
    page.get_by_label("result", exact=True).select_option(ODD)
    page.wait_for_url(re.compile("sum"))
    page.reload()
    page.wait_for_selector(".headline")
    assert page.get_by_label("result", exact=True).input_value() == ODD


def test_a_file_of_the_home_that_is_no_result_is_refused_in_words(api, page):
    page.goto(url(api, "replay", result="half.json"))
    for name, why in (("half.json", "is not JSON, or not all of it"), ("other.json", 'it holds "imported", "refused"')):
        page.get_by_label("result", exact=True).select_option(name)
        said = page.locator(f".problem:has-text('{name}')").inner_text()
        assert why in said
        assert "recsys evaluate --json FILE" in said
    page.get_by_label("result", exact=True).select_option("strategies.json")
    page.wait_for_selector(".headline")
    assert page.locator(".problem").count() == 0


def test_a_result_that_is_gone_is_told(api, pages):
    page = pages(url(api, "forgetting", result="gone.json"), allowed=("404",))
    assert "there is no result 'gone.json'" in page.locator(".problem").inner_text()


DROP = """([name, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], name, {type: "application/json"}));
  document.body.dispatchEvent(new DragEvent("dragenter", {dataTransfer: data, bubbles: true}));
  const shown = !document.querySelector(".drop").hidden;
  document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
  return shown;
}"""


def test_a_file_of_ones_own_is_dropped_or_picked_and_never_sent(api, page, made, tmp_path):
    sent = []
    page.on("request", lambda request: sent.append((request.method, request.url, request.post_data)))
    page.goto(url(api, "replay"))
    page.wait_for_selector(".headline")
    mine = {**made, "methods": {name: made["methods"][name] for name in ("naive", "popular")}}
    assert page.evaluate(DROP, ["mine.json", json.dumps(mine)]), "where it will land is shown"
    page.wait_for_selector(".facts:has-text('2 methods')")
    assert {method for _, method in told(page, "[data-figure]", "method")} == {"naive", "popular"}
    (tmp_path / "picked.json").write_text(json.dumps(made))
    page.set_input_files("#own-file", tmp_path / "picked.json")
    page.wait_for_selector(".facts:has-text('6 methods')")
    page.get_by_role("link", name="Forgetting").click()
    page.wait_for_selector("#matrix")
    assert page.get_by_label("result", exact=True).input_value() == "file:picked.json"
    assert {method for method, _, _ in sent} == {"GET"}
    assert not any("mine" in where or "picked" in where.split("#")[0] for _, where, _ in sent)
    page.reload()
    assert "open it again" in page.locator(".problem").inner_text()


def test_a_dropped_file_that_is_no_result_is_refused_and_the_page_goes_on(api, page):
    page.goto(url(api, "replay", result="strategies.json"))
    page.wait_for_selector(".headline")
    wrong = {
        "user,item\n1,2": "is not JSON",
        "[1, 2, 3]": "it holds a list of 3",
        '{"a": 1, "b": 2}': 'it holds "a", "b"',
        '{"methods": {}}': 'it holds "methods"',
        '{"methods": {"knn": {"speed": 3}}}': "no figure of theirs",
        "null": "it holds null",
        "": "is not JSON",
    }
    for number, (text, why) in enumerate(wrong.items()):
        page.evaluate(DROP, [f"wrong{number}.json", text])
        said = page.locator(f".problem:has-text('wrong{number}.json')").inner_text()
        assert why in said
        assert "Wanted is a result" in said
    assert page.locator(".headline").count() == 1, "what was looked at is still there"


def test_the_heat_map_is_read_out_by_arrow_keys(api, page, made):
    page.goto(url(api, "forgetting", result="prequential-7/results.json", method="naive"))
    page.wait_for_selector("#matrix .cell")
    page.locator("#matrix .picture").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    value = made["methods"]["naive"]["forgetting"]["matrix"][1][1]
    said = page.locator("#matrix .readout").inner_text()
    assert f"{100 * value:.1f}%" in said
    assert "window 1970-01-08, release, the first fit is 1 2" in said
    page.keyboard.press("Escape")
    assert page.locator("#matrix .readout").is_hidden()


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_nothing_is_wider_than_the_screen(api, pages, size):
    page = pages(url(api, "replay", result="prequential-7/results.json"), size=size, dark=True)
    page.wait_for_selector(".series")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    page.get_by_role("link", name="Forgetting").click()
    page.wait_for_selector("#slice-lines .series")
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def test_a_home_without_results_says_what_to_run(console, page):
    for name in ("replay", "forgetting"):
        page.goto(url(console, name))
        assert "recsys evaluate --window 7d" in page.locator(".empty pre").inner_text()
