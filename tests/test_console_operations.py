"""Updates, Index & drift and System: what they ask the API, what they tell it to do, and what they show of it in a browser."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from browser import serving, url
from test_api import figures, served, wait_until
from worlds import publish_release

from recsys.home import Home
from recsys.journal import Journal
from recsys.progress import silent
from recsys.registry import Registry
from recsys.running import running
from recsys.trial import Trials
from serving.console.operations import _movement
from serving.embedded import EmbeddedRedis
from serving.keys import Keys
from serving.workers import Worker

GATE = {
    "accepted": False,
    "reasons": ["the newest events: ndcg@20 0.0412, 31% less than the 0.0600 of the live release (5,000 questions; gate.worse = 0.01)"],
    "notes": ["no update was judged before this one"],
    "figures": {"questions": 5000, "ndcg@20": 0.0412, "ndcg@20 live": 0.06, "memory ndcg@20": 0.2, "memory ndcg@20 live": 0.21},
}


@pytest.fixture(scope="module")
def writable(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, httpx.Client]]:
    """Serve a copy of the small home whose releases are turned; every test leaves 000002 live and nothing on trial."""
    path = Path(shutil.copytree(small, tmp_path_factory.mktemp("turns") / "home", ignore=shutil.ignore_patterns("redis")))
    with serving(path) as client:
        yield Home(path), client


@pytest.fixture
def turned(writable: tuple[Home, httpx.Client]) -> Iterator[tuple[Home, httpx.Client]]:
    home, client = writable
    yield home, client
    Trials(home.releases).end()
    Registry(home.releases).point_to("000002")
    shutil.rmtree(home.job, ignore_errors=True)
    wait_until(lambda: live(client) == "000002")


def live(client: httpx.Client) -> str:
    return str(client.get("/v1/releases").json()["live"])


def lines(home: Home) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "time"} for line in Journal(home.job).read()]


# --- the API


def test_a_rollback_and_a_promotion_are_served_by_the_next_request_and_stand_in_the_journal(turned: tuple[Home, httpx.Client]) -> None:
    home, client = turned
    back = client.post("/v1/releases/rollback", json={})
    assert back.json() == {"live": "000001", "was": "000002", "trial": None, "serving": "000001"}
    assert live(client) == client.get("/v1/recommend/p0").json()["release"] == Registry(home.releases).current() == "000001"
    forward = client.post("/v1/releases/000002/promote", json={})
    assert forward.json() == {"live": "000002", "was": "000001", "trial": None, "serving": "000002"}
    assert client.get("/v1/recommend/p0").json()["release"] == "000002"
    named = client.post("/v1/releases/rollback", json={"release": "000001"})
    assert named.json()["live"] == "000001"
    assert lines(home) == [
        {"what": "rolled back", "release": "000001", "was": "000002"},
        {"what": "promoted", "release": "000002", "was": "000001", "reason": "by hand"},
        {"what": "rolled back", "release": "000001", "was": "000002"},
    ]
    told = client.get("/v1/console/job").json()
    assert [line["what"] for line in told["lines"]] == ["rolled back", "promoted", "rolled back"]
    assert told["rolled_back_to"] == "000001"


def test_a_trial_is_begun_shown_and_stopped(turned: tuple[Home, httpx.Client]) -> None:
    home, client = turned
    begun = client.post("/v1/releases/000001/promote", json={"canary": 0.5, "hours": 2}).json()
    assert (begun["live"], begun["was"]) == ("000002", "000002")
    assert {name: begun["trial"][name] for name in ("release", "share", "shadow", "hours")} == {
        "release": "000001", "share": 0.5, "shadow": False, "hours": 2.0
    }  # fmt: skip
    assert {client.get(f"/v1/recommend/p{n}").json()["release"] for n in range(30)} == {"000001", "000002"}
    wait_until(lambda: "nothing yet" in (client.get("/v1/console/job").json()["trial"]["so_far"] or ""))
    beside = client.post("/v1/releases/000001/promote", json={"shadow": 1}).json()
    assert beside["trial"]["shadow"] is True
    assert client.delete("/v1/releases/trial").json() == {"ended": True, "live": "000002"}
    assert client.delete("/v1/releases/trial").json() == {"ended": False, "live": "000002"}
    assert {client.get(f"/v1/recommend/p{n}").json()["release"] for n in range(30)} == {"000002"}
    assert [(line["what"], line["release"]) for line in lines(home)] == [
        ("trial", "000001"), ("trial ended", "000001"), ("trial", "000001"), ("trial ended", None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("000009/promote", {}, 404, "no release '000009'; there are: 000001, 000002"),
        ("..%2f..%2fetc/promote", {}, 404, "no release '../../etc'"),
        ("000002/promote", {}, 409, "release 000002 is live already"),
        ("000002/promote", {"canary": 0.1}, 409, "release 000002 is live already; a trial is for another one: 000001"),
        ("000001/promote", {"canary": 0.8}, 422, "canary: input should be less than or equal to 0.5; got 0.8"),
        ("000001/promote", {"canary": 0.1, "shadow": 0.1}, 422, "send one of them"),
        ("000001/promote", {"hours": 1}, 422, "hours goes with canary"),
        ("000001/promote", {"canry": 0.1}, 422, "there is no field 'canry'; did you mean 'canary'?"),
        ("rollback", {"release": "000009"}, 404, "no release '000009'"),
        ("rollback?id=000001", {}, 422, "there is no parameter 'id'; this address takes none"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_changes_nothing(
    turned: tuple[Home, httpx.Client], path: str, body: Any, status: int, says: str
) -> None:
    home, client = turned
    answer = client.post(f"/v1/releases/{path}", json=body)
    assert (answer.status_code, says in answer.json()["detail"], "\n" in answer.json()["detail"]) == (status, True, False), answer.text
    assert (live(client), Trials(home.releases).now(), lines(home)) == ("000002", None, [])


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_page_from_elsewhere_cannot_turn_releases_with_what_a_browser_sends_unasked(turned: tuple[Home, httpx.Client], kind: Any) -> None:
    home, client = turned
    for path in ("rollback", "000001/promote"):
        answer = client.post(f"/v1/releases/{path}", content="{}", headers={"content-type": kind} if kind else {})
        assert answer.status_code == 422
    assert (live(client), lines(home)) == ("000002", [])


def test_a_damaged_release_is_not_promoted(turned: tuple[Home, httpx.Client]) -> None:
    home, client = turned
    file = home.releases / "000001" / "bias.npy"
    whole = file.read_bytes()
    file.write_bytes(b"no array")
    try:
        for path in ("000001/promote", "rollback"):
            damaged = client.post(f"/v1/releases/{path}", json={})
            assert (damaged.status_code, "bias.npy is not the file that was published" in damaged.json()["detail"]) == (409, True)
    finally:
        file.write_bytes(whole)
    assert (live(client), lines(home)) == ("000002", [])


def test_the_first_release_has_nothing_to_go_back_to(turned: tuple[Home, httpx.Client]) -> None:
    home, client = turned
    Registry(home.releases).point_to("000001")
    nothing = client.post("/v1/releases/rollback", json={})
    assert (nothing.status_code, "has no parent to go back to; name one of: 000002" in nothing.json()["detail"]) == (409, True)


def test_only_the_scope_admin_turns_releases_and_sees_behind_the_pages(own: Path) -> None:
    keys = Keys(Home(own).keys)
    secrets = {scope: keys.add(scope, scope) for scope in ("read", "write", "admin")}
    with served(own, watch_seconds=0.05) as client:
        for scope, allowed in (("read", False), ("write", False), ("admin", True)):
            told = {"x-api-key": secrets[scope]}
            for method, path in (("POST", "rollback"), ("POST", "000009/promote"), ("DELETE", "trial")):
                assert (client.request(method, f"/v1/releases/{path}", headers=told).status_code != 403) == allowed
            for path in ("releases", "job", "index", "movement/000002", "system", "disk"):
                assert client.get(f"/v1/console/{path}", headers=told).status_code == (200 if allowed else 403)


def test_of_every_release_it_is_told_how_it_came_about(console: httpx.Client, small: Path) -> None:
    told = console.get("/v1/console/releases").json()
    assert (told["live"], told["left_out"]) == ("000002", 0)
    for about in told["releases"]:
        release = Registry(Home(small).releases).open(about["id"])
        assert about["bytes"] == sum(release.file(name).stat().st_size for name in release.manifest["files"])
        assert {about[name] == release.manifest[name] for name in ("parent", "created", "why", "metrics")} == {True}
        assert (about["strategy"], about["index"]["exact"], about["index"]["items"]) == ("replay+ewc", True, about["metrics"]["items"])
    assert [about["id"] for about in told["releases"]] == ["000001", "000002"]
    assert console.get("/v1/console/releases?all=1").status_code == 422


def test_how_far_an_update_moved_things_by_hand(tmp_path: Path) -> None:
    """Of three items one stays, one turns by 60 degrees, one by 90; a fourth is new, and half of what is watched is now that."""
    turn = np.pi / 3
    publish_release(tmp_path, ["a", "b", "c"], np.array([[1, 0], [1, 0], [1, 0]], float), counts=[6, 2, 2], number=0)
    child = np.array([[1, 0], [np.cos(turn), np.sin(turn)], [0, 1], [0, -1]], float)
    publish_release(tmp_path, ["a", "b", "c", "d"], child, counts=[1, 2, 2, 5], number=1)
    publish_release(tmp_path, ["a", "c"], child[:2], counts=[1, 1], number=0)
    found = _movement(Home(tmp_path), "000002")
    assert (found["parent"], found["items"], found["new"], found["gone"], found["anew"]) == ("000001", 4, 1, 0, False)
    assert (found["vectors"]["compared"], found["vectors"]["same"]) == (3, pytest.approx(1 / 3))
    assert found["vectors"]["quantiles"]["0.5"] == pytest.approx(0.5)
    assert found["vectors"]["quantiles"]["0.25"] == pytest.approx(0.25)
    assert found["popularity"]["moved"] == pytest.approx(0.5)
    assert found["popularity"]["new"] == pytest.approx(0.5)
    assert [(one["item_id"], one["from"], one["to"]) for one in found["popularity"]["up"]] == [("d", 0.0, 0.5)]
    assert [one["item_id"] for one in found["popularity"]["down"]] == ["a"]
    anew = _movement(Home(tmp_path), "000003")
    assert (anew["anew"], anew["vectors"], anew["gone"]) == (True, None, 2)
    assert anew["popularity"]["moved"] == pytest.approx(0.7)  # of b's 0.2 and d's 0.5
    assert "has none before it" in _movement(Home(tmp_path), "000001")["missing"]


def test_a_release_that_is_not_there_has_not_moved(console: httpx.Client) -> None:
    unknown = console.get("/v1/console/movement/000009")
    assert (unknown.status_code, "no release '000009'" in unknown.json()["detail"]) == (404, True)


def test_the_system_says_who_answers_how_redis_is_and_what_waits(console: httpx.Client, small: Path) -> None:
    sent = {"user_id": "system", "item_id": "sc1", "event_type": "play", "timestamp": time.time()}
    console.post("/v1/events", json=sent).raise_for_status()
    told = console.get("/v1/console/system").json()
    assert [(one["pid"], one["release"]) for one in told["workers"]] == [(told["answered_by"], "000002")]
    assert told["workers"][0]["bytes"] > 10_000_000
    assert told["redis"]["used_memory"] > 0
    assert told["waiting"]["events"] == figures(console)["recsys_events_waiting"] >= 1
    assert abs(told["waiting"]["oldest"] - time.time() * 1000) < 600_000
    disk = console.get("/v1/console/disk").json()
    assert disk["folders"]["releases"]["files"] == sum(path.is_file() for path in (small / "releases").rglob("*"))
    assert disk["free"] < disk["of"]


def test_a_worker_says_what_it_serves_when_that_changes_and_one_that_was_killed_says_nothing(tmp_path: Path) -> None:
    """With processes that answer it is in test_api.py."""
    serves = SimpleNamespace(snapshot=None, candidate=None)
    worker = Worker(serves, tmp_path)  # type: ignore[arg-type]
    assert [told["release"] for told in worker.all()] == [None]
    written = next(tmp_path.iterdir())
    before = written.read_bytes()
    worker.say()
    assert written.read_bytes() == before
    serves.snapshot, serves.candidate = SimpleNamespace(id="000002"), SimpleNamespace(id="000003")
    worker.say()
    assert [(told["pid"], told["release"], told["trial"]) for told in worker.all()] == [(os.getpid(), "000002", "000003")]
    code = (
        "import sys, time, types, pathlib; from serving.workers import Worker\n"
        "Worker(types.SimpleNamespace(snapshot=types.SimpleNamespace(id='000001'), candidate=None), pathlib.Path(sys.argv[1]))\n"
        "print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "up\n"
        assert [told["release"] for told in worker.all()] == ["000002", "000001"]
        other.kill()
        other.wait(20)
    assert [told["release"] for told in worker.all()] == ["000002"]
    assert list(tmp_path.iterdir()) == [written]
    worker.close()


def test_what_is_being_trained_is_told_and_what_was_killed_is_told_apart(console: httpx.Client, small: Path) -> None:
    assert console.get("/v1/console/job").json()["running"] is None
    with running(Home(small).job, silent, "update", why="volume", events=7, parent="000002") as step:
        step("training", 3, 10)
        told = console.get("/v1/console/job").json()["running"]
        assert (told["step"], told["done"], told["of"], told["events"], told["lost"]) == ("training", 3, 10, 7, None)
    assert console.get("/v1/console/job").json()["running"] is None


# --- the pages


def words(page: Any, selector: str) -> str:
    return " ".join(str(page.inner_text(selector)).split())


def test_a_rollback_from_the_page_is_asked_about_served_and_shown(turned: tuple[Home, httpx.Client], page: Any) -> None:
    home, client = turned
    page.goto(url(client, "updates"))
    back = page.get_by_role("button", name="Roll back to 000001")
    back.click()
    page.wait_for_selector("dialog[open]")
    assert "Roll back to release 000001?" in words(page, "dialog")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    assert (live(client), lines(home)) == ("000002", [])
    back.click()
    page.locator("dialog").get_by_role("button", name="Roll back to 000001").click()
    page.wait_for_selector(".said")
    assert "Release 000001 answers everybody now (it was 000002)." in words(page, ".said")
    assert page.evaluate("document.activeElement.ariaLabel") == "Close this message"
    assert live(client) == client.get("/v1/recommend/p0").json()["release"] == "000001"
    assert words(page, ".now .card >> nth=0 >> .figure") == "000001"
    assert "the job waits" in words(page, ".now")
    assert page.locator('[data-release="000001"] .badge').all_inner_texts()[0] == "live"
    assert "Rolled back to 000001" in words(page, ".timeline > li >> nth=0")
    page.wait_for_function("() => document.getElementById('now').textContent === 'release 000001'")
    page.locator('[data-release="000002"]').get_by_role("button", name="Make it live").click()
    page.locator("dialog").get_by_role("button", name="Make 000002 live").click()
    page.wait_for_function("() => document.querySelector('.said')?.textContent.includes('Release 000002 answers everybody')")
    assert live(client) == client.get("/v1/recommend/p0").json()["release"] == "000002"
    assert [line["what"] for line in lines(home)] == ["rolled back", "promoted"]


def test_a_trial_is_begun_and_ended_from_the_page(turned: tuple[Home, httpx.Client], page: Any) -> None:
    home, client = turned
    page.goto(url(client, "updates"))
    page.locator('[data-release="000001"]').get_by_role("button", name="Try it").click()
    page.get_by_label("Share of the people in per cent").fill("12.5")
    page.get_by_label("Hours until it goes live").fill("3")
    page.get_by_label("Hours until it goes live").press("Enter")  # in a field it begins, and does not cancel
    page.wait_for_selector(".said")
    trial = Trials(home.releases).now()
    assert trial is not None
    assert (trial.release, trial.share, trial.shadow, trial.hours) == ("000001", 0.125, False, 3.0)
    assert "Release 000001 is on trial: shown to 12.5% of the people." in words(page, ".said")
    assert "Shown to 12.5% of the people" in words(page, ".now .card >> nth=1")
    page.get_by_role("button", name="End the trial").click()
    page.locator("dialog").get_by_role("button", name="End it").click()
    page.wait_for_function("() => document.querySelector('.said')?.textContent.includes('The trial is over')")
    assert Trials(home.releases).now() is None


def test_what_became_of_a_button_far_down_is_seen_there(turned: tuple[Home, httpx.Client], page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 400})
    page.goto(url(turned[1], "updates"))
    page.locator('[data-release="000001"]').get_by_role("button", name="Make it live").click()
    page.locator("dialog").get_by_role("button", name="Make 000001 live").click()
    box = page.locator(".said").bounding_box()
    assert page.evaluate("scrollY") > 300
    assert box["y"] >= page.locator(".top").bounding_box()["height"]
    assert box["y"] + box["height"] <= 400


def test_a_refused_candidate_shows_its_reasons_and_what_it_was_measured_at(turned: tuple[Home, httpx.Client], page: Any) -> None:
    home, client = turned
    about = {"triggers": {"volume": "50,123 new events (job.events = 50,000)"}, "events": 45_110, "held back": 5_013, "parent": "000002"}
    line = Journal(home.job).add("refused", **about, gate=GATE, reason="; ".join(GATE["reasons"]), seconds=12.0)
    page.goto(url(client, "updates"))
    entry = page.locator(".timeline > li.bad")
    shown = " ".join(entry.inner_text().split())
    for told in (
        *GATE["reasons"],
        about["triggers"]["volume"],
        "45,110 events",
        "0.0600 → 0.0412",
        "▼ −31.3%",
        "Release 000002 stayed live.",
    ):
        assert told in shown
    entry.locator("summary").click()
    assert "no update was judged before this one" in entry.inner_text()
    page.get_by_role("button", name="Releases").click()
    assert page.locator(".timeline > li").count() == 2
    page.get_by_role("button", name="Refused").click()
    assert page.locator(".timeline > li").count() == 1
    assert client.get("/v1/console/job").json()["lines"] == [line]


def test_a_training_is_followed_without_a_reload(turned: tuple[Home, httpx.Client], page: Any) -> None:
    home, client = turned
    page.goto(url(client, "updates"))
    page.wait_for_function("() => document.querySelector('.now')?.textContent.includes('Nothing is being trained')")
    with running(home.job, silent, "update", why="new events", events=1234, parent="000002") as step:
        step("training", 30, 120)
        page.wait_for_function("() => document.querySelector('.doing')?.textContent.includes('training: 30 of 120, 25%')")
        assert page.locator(".how-far").evaluate("(bar) => bar.value") == 0.25
        assert "1,234 events" in words(page, ".now")
        step("judging", 0, 1)
        page.wait_for_function("() => document.querySelector('.doing')?.textContent.includes('the gate judges')")
    page.wait_for_function("() => !document.querySelector('.how-far')")


def test_the_system_page_shows_the_counts_of_metrics(console: httpx.Client, page: Any) -> None:
    for number in range(7):
        console.get(f"/v1/recommend/p{number}").raise_for_status()
    assert console.get("/v1/recommend/p0?k=0").status_code == 422
    page.goto(url(console, "system"))
    row = page.locator('tr[data-route="GET /v1/recommend/{user_id:id}"]')
    row.wait_for()
    count, told = 'recsys_requests_total{method="GET",route="/v1/recommend/{user_id:id}",status="%d"}', figures(console)
    asked = {status: told[count % status] for status in (200, 422)}
    cells = row.locator("td").all_inner_texts()
    assert (int(cells[1].replace(",", "")), int(cells[9]), int(cells[10])) == (sum(asked.values()), asked[422], 0)
    assert page.locator('tr[data-route^="GET /v1/console"]').count() == 0
    page.get_by_label("with what this console asks itself").check()
    page.wait_for_selector('tr[data-route="GET /v1/console/system"]')
    workers = console.get("/v1/console/system").json()["workers"]
    assert f"{workers[0]['pid']} answered this 000002" in words(page, "main")
    page.get_by_role("button", name="Look through the disk").click()
    page.wait_for_function("() => document.querySelector('main')?.textContent.includes('are free')")
    assert "releases/" in page.locator(".page-system").inner_text()


def test_a_chart_of_nothing_but_zeros_begins_at_zero(console: httpx.Client, page: Any) -> None:
    page.goto(url(console, "system"))
    found = page.evaluate("async () => (await import('./lib/scales.js')).nice(0, 0)")
    assert (found["from"], found["to"]) == (0, 1)


def test_what_was_opened_on_the_system_page_stays_open(console: httpx.Client, page: Any) -> None:
    page.goto(url(console, "system"))
    page.locator("summary", has_text="Versions").click()
    for _ in range(2):
        with page.expect_response("**/metrics"):
            pass
    page.wait_for_timeout(200)
    assert page.locator("details").evaluate("(one) => one.open") is True


def test_percentiles_of_a_histogram_by_hand(console: httpx.Client, page: Any) -> None:
    """Ten answers: four within 10 ms, eight within 100 ms, nine within 1 s, one beyond."""
    page.goto(url(console, "updates"))
    name = r's_%s{route="a \"b\""%s} %d'

    def text(times: int) -> str:
        buckets = [name % ("bucket", f',le="{le}"', n * times) for le, n in (("0.01", 4), ("0.1", 8), ("1.0", 9), ("+Inf", 10))]
        return "\n".join(["# TYPE s histogram", *buckets, name % ("count", "", 10 * times), "other 3", ""])

    found = page.evaluate(
        """async (texts) => {
          const { parse, histograms, between, quantile, sum } = await import("./lib/prometheus.js");
          const [all, twice, thrice] = texts.map((text) => [...histograms(parse(text), "s", ["route"]).values()][0]);
          const more = between(thrice, all);
          return {
            label: all.labels.route, quantiles: [0.2, 0.5, 0.85, 0.99].map((q) => quantile(all, q)), other: sum(parse(texts[0]), "other"),
            count: more.count, p50: quantile(more, 0.5).value, none: quantile(between(all, all), 0.5), anew: between(all, twice).count,
          };
        }""",
        [text(1), text(2), text(3)],
    )
    assert found["label"] == 'a "b"'
    assert [one["beyond"] for one in found["quantiles"]] == [False, False, False, True]
    assert [one["value"] for one in found["quantiles"]] == pytest.approx([0.005, 0.0325, 0.55, 1.0])
    assert (found["count"], found["p50"], found["none"], found["anew"], found["other"]) == (20, pytest.approx(0.0325), None, 10, 3)


def test_the_index_page_shows_the_size_of_metrics_and_what_came_and_went_since(turned: tuple[Home, httpx.Client], page: Any) -> None:
    home, client = turned
    client.put("/v1/items/brand-new", json={"title": "Brand new"}).raise_for_status()
    client.delete("/v1/items/sc0").raise_for_status()
    measured = {"hours": 2.5, "new items": 0.123, "drift": {"popularity": {"now": 0.41, "before": 0.05}}}
    about = {"triggers": {"drift": "the popularity drift: stability index 0.41"}, "events": 10, "held back": 0, "parent": "000001"}
    Journal(home.job).add("published", **about, measured=measured, gate={**GATE, "reasons": []}, release="000002", seconds=1)
    page.goto(url(client, "index"))
    page.wait_for_selector('[data-figure="items"]')
    states, told = {"items": "released", "delta": "new", "tombstones": "withdrawn"}, figures(client)
    shown = {name: int(page.inner_text(f'[data-figure="{name}"] b').replace(",", "")) for name in states}
    assert shown == {name: told[f'recsys_items{{state="{state}"}}'] for name, state in states.items()}
    assert (shown["delta"], shown["tombstones"]) == (1, 1)
    assert page.inner_text('[data-figure="recall"] b') == "100.0%"
    page.wait_for_function("() => document.querySelector('main')?.textContent.includes('half have a cosine')")
    cells = page.locator("td").evaluate_all("(cells) => cells.map((cell) => getComputedStyle(cell).display)")
    assert set(cells) == {"table-cell"}  # no style of another page's falls on them
    moved = client.get("/v1/console/movement/000002").json()["vectors"]
    assert f"half have a cosine above {moved['quantiles']['0.5']:.3f}" in words(page, "main")
    for told_too in ("far more than before", "the popularity drift: stability index 0.41", "12.3%"):
        assert told_too in words(page, "main")


def test_redis_that_is_away_is_said_in_plain_words(own: Path, page: Any) -> None:
    with served(own, redis_url="redis://127.0.0.1:9", watch_seconds=0.05) as client:
        began = time.monotonic()
        told = client.get("/v1/console/system").json()
        assert time.monotonic() - began < 3
        assert (told["redis"], told["waiting"], told["workers"][0]["release"]) == (None, None, "000002")
        page.goto(url(client, "system"))
        page.wait_for_selector("main .problem")
        assert "Redis does not answer" in words(page, "main .problem")
        assert "marked degraded" in words(page, "main .problem")


def test_redis_that_does_not_tell_of_itself_is_not_taken_for_away(own: Path, page: Any, server: EmbeddedRedis, store: redis.Redis) -> None:
    with served(own, redis_url=server.url, watch_seconds=0.05) as client:
        store.execute_command("ACL", "SETUSER", "default", "-info")
        try:
            page.goto(url(client, "system"))
            page.wait_for_selector("main .warn")
        finally:
            store.execute_command("ACL", "SETUSER", "default", "+info")
        assert "Redis answers, but does not tell how it is" in words(page, "main .warn")
        assert "0 events wait" in words(page, "main")


def test_a_home_without_a_release_says_what_to_do_next(tmp_path: Path, page: Any) -> None:
    with served(tmp_path, watch_seconds=0.05) as client:
        for name, command in (("updates", "recsys fit"), ("index", "recsys fit"), ("system", "serves")):
            page.goto(url(client, name))
            page.wait_for_selector(f".page-{name} h1")
            page.wait_for_function("(text) => document.querySelector('main')?.textContent.includes(text)", arg=command)
            assert page.locator("main .problem").count() == 0
