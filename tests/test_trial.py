"""A release on trial: always the same people see it, what follows is measured, and one that falls behind is over by itself."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from test_api import COMPASS, event, figures, ids, publish, served, wait_until
from typer.testing import CliRunner
from worlds import publish_release

from recsys import cli
from recsys.errors import BadInput, RecsysError
from recsys.home import Home
from recsys.journal import Journal
from recsys.registry import Registry
from recsys.trial import Trial, Trials, bucket
from serving.behind import Comparison, Tally, compared
from serving.embedded import EmbeddedRedis, running
from serving.engine import Engine
from serving.online import Outcome, outcomes
from serving.trial_watch import TrialWatch
from serving.wire import Wire

PEOPLE = [f"p{n}" for n in range(300)]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with three releases: the first is live, the second shows the same lists, the third others."""
    publish(tmp_path)
    publish(tmp_path)
    publish_release(tmp_path, [f"x{n}" for n in range(30)] + list(COMPASS))
    Registry(tmp_path / "releases").point_to("000001")
    return Home(tmp_path)


@contextmanager
def trying(home: Home, release: str, share: float, **about: Any) -> Iterator[tuple[httpx.Client, Trial]]:
    """Serve a home in which a release is on trial."""
    with served(home.path, watch_seconds=0.05, measured=1.0, popular_hours=0) as api:
        trial = Trials(home.releases).begin(release, share, **about)
        if not trial.shadow:
            wait_until(lambda: {answer(api, person)["variant"] for person in PEOPLE[:60]} == {"live", "canary"})
        yield api, trial


def answer(api: httpx.Client, person: str) -> dict[str, Any]:
    return api.get(f"/v1/recommend/{person}?k=3&exclude_seen=false").json()


def shown_and_followed(home: Home, api: httpx.Client, people: list[str], items: list[str] | None = None) -> None:
    """Show everybody a list; each plays the first film of it, or of `items`, one that is."""
    told = []
    for number, person in enumerate(people):
        first = ids(api.get(f"/v1/recommend/{person}?k=3&exclude_seen=false"))[0]
        told.append(event(person, first if items is None else items[number % len(items)], event_id=f"{person}-{time.time()}"))
    before = len(measured(home))
    assert api.post("/v1/events", json=told).status_code == 200
    wait_until(lambda: len(measured(home)) >= before + len(people))


def measured(home: Home) -> list[Outcome]:
    with redis.Redis.from_url(running(home.redis) or "") as client:
        return outcomes(client, "recsys")


def test_always_the_same_people_see_it_and_their_answers_say_so(home: Home) -> None:
    with trying(home, "000003", 0.3) as (api, trial):
        assert api.get("/v1/recommend/p1").json()["variant"] in ("live", "canary")
        found = {person: answer(api, person) for person in PEOPLE}
        assert {person for person, told in found.items() if told["variant"] == "canary"} == {p for p in PEOPLE if trial.shows(p)}
        assert {(told["variant"], told["release"]) for told in found.values()} == {("live", "000001"), ("canary", "000003")}
        assert 60 < sum(map(trial.shows, PEOPLE)) < 120
        mine, other = next(filter(trial.shows, PEOPLE)), next(p for p in PEOPLE if not trial.shows(p))
        assert [api.get(f"/v1/why-not/{person}/x5").json()["stage"] for person in (mine, other)][1] == "unknown"
        assert [api.get(f"/v1/why-not/{person}/x5").json()["release"] for person in (mine, other)] == ["000003", "000001"]
        history = [{"item_id": "east", "timestamp": 1_700_000_000}]
        told = api.post("/v1/recommend", json={"history": history}).json()
        assert (told["release"], told["variant"]) == ("000001", None), "who tells no name is shown what is live"
        Trials(home.releases).end()
        wait_until(lambda: {answer(api, person)["variant"] for person in PEOPLE[:60]} == {None})
        assert {answer(api, person)["release"] for person in PEOPLE} == {"000001"}


def test_one_that_falls_behind_is_over_by_itself_and_one_that_is_as_good_goes_live(home: Home) -> None:
    with trying(home, "000003", 0.5) as (api, trial):
        first = answer(api, next(person for person in PEOPLE if not trial.shows(person)))["items"][0]["item_id"]
        for _ in range(3):
            shown_and_followed(home, api, PEOPLE, [first])  # everybody wants what the live release shows
        wait_until(lambda: Trials(home.releases).now() is None)
        wait_until(lambda: {answer(api, person)["variant"] for person in PEOPLE[:60]} == {None})
        last = Journal(home.job).read()[-1]
        assert (last["what"], last["release"]) == ("trial ended", "000003")
        assert "it fell behind: hit rate 0." in last["reason"]
        assert Journal(home.job).refusals() == 0, "it was not the job's"

        trial = Trials(home.releases).begin("000002", 0.5, hours=0.001)
        wait_until(lambda: {answer(api, person)["variant"] for person in PEOPLE[:60]} == {"live", "canary"})
        for _ in range(3):
            shown_and_followed(home, api, PEOPLE, [first])
        wait_until(lambda: Registry(home.releases).current() == "000002")
        wait_until(
            lambda: {(answer(api, person)["variant"], answer(api, person)["release"]) for person in PEOPLE[:60]} == {(None, "000002")}
        )
        last = Journal(home.job).read()[-1]
        assert (last["what"], last["release"], last["was"]) == ("promoted", "000002", "000001")
        assert Journal(home.job).refusals() == 0
        assert len([told for told in Journal(home.job).read() if told["what"] != "trial"]) == 2


def test_a_shadow_is_asked_and_compared_and_shown_to_nobody(home: Home) -> None:
    with trying(home, "000003", 1.0, shadow=True) as (api, _):
        wait_until(lambda: bool(shown_and_followed(home, api, PEOPLE[:20]) or {one.variant for one in measured(home)} > {"live"}))
        assert {(answer(api, person)["variant"], answer(api, person)["release"]) for person in PEOPLE} == {(None, "000001")}
        assert figures(api)["recsys_shadow_overlap_count"] > 0
        by_variant = {name: [one for one in measured(home) if one.variant == name] for name in ("live", "shadow")}
        assert {one.release for one in by_variant["shadow"]} == {"000003"}
        newest = len(by_variant["shadow"])
        assert {one.rank for one in by_variant["live"]} == {1}
        assert [one.bucket for one in by_variant["live"]][-newest:] == [one.bucket for one in by_variant["shadow"]]
        assert Trials(home.releases).now() is not None


def test_an_outcome_tells_place_and_probability(home: Home) -> None:
    """By hand, from the scores of the answer itself."""
    with served(home.path, measured=1.0) as api:
        items = api.get("/v1/recommend/ann?k=3").json()["items"]
        scores = [item["score"] for item in items]
        for item_id in (items[1]["item_id"], items[1]["item_id"], "never heard of"):
            api.post("/v1/events", json=event("ann", item_id, event_id=f"{item_id}{time.time()}"))
        api.post("/v1/events", json=event("bob", "east"))  # who was shown nothing
        api.post("/v1/events", json=event("ann", items[0]["item_id"], "skip"))
        wait_until(lambda: len(measured(home)) >= 2)
        time.sleep(0.2)
        hit, miss = measured(home)
        assert (hit.rank, hit.release, hit.variant, hit.bucket) == (2, "000001", "live", bucket("ann"))
        assert hit.loss == pytest.approx(-np.log(min(1, scores[1])), abs=1e-4)
        rest = max(1 - sum(scores), 1e-9) / (len(COMPASS) - 3)
        assert (miss.rank, miss.loss) == (0, pytest.approx(-np.log(max(rest, 1e-9)), abs=1e-4))
        wait_until(lambda: figures(api).get('recsys_outcomes_total{outcome="miss",release="000001",variant="live"}') == 1)
        api.get("/v1/recommend/cat?k=3&filters=%7B%22genres%22%3A%7B%22any%22%3A%5B%22Drama%22%5D%7D%7D")
        api.post("/v1/events", json=event("cat", "north"))
        time.sleep(0.2)
        assert len(measured(home)) == 2, "a shelf is not compared with whole lists"


def test_of_those_who_are_not_measured_nothing_is_kept(home: Home) -> None:
    with served(home.path, measured=0.3) as api:
        people = PEOPLE[:100]
        for person in people:
            api.get(f"/v1/recommend/{person}")
        assert api.post("/v1/events", json=[event(person, "east") for person in people]).status_code == 200
        wait_until(lambda: len(measured(home)) >= sum(bucket(person) < 3000 for person in people))
        assert sorted(one.bucket for one in measured(home)) == sorted(bucket(person) for person in people if bucket(person) < 3000)


def test_a_release_that_cannot_be_served_is_not_tried(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    (home.releases / "000003" / "bias.npy").write_bytes(b"x")
    Trials(home.releases).begin("000003", 0.5)
    engine = Engine(home.releases)
    engine.refresh(), engine.refresh()
    assert (engine.trial, engine.candidate) == (None, None)
    assert all(engine.shows(person) is engine.snapshot for person in PEOPLE)
    assert caplog.text.count("which is on trial") == 1
    Trials(home.releases).file.write_text("{")
    engine.refresh()
    assert engine.trial is None


def test_one_that_fails_in_answering_is_over_and_the_live_one_answers(home: Home) -> None:
    async def asked() -> None:
        from recsys.settings import load_settings
        from serving.api import create_app

        with EmbeddedRedis(home.redis) as server:
            app = create_app(home, load_settings(overrides={"serving.redis_url": server.url, "serving.watch_seconds": 60}, environ={}))
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as api,
            ):
                trial = Trials(home.releases).begin("000002", 0.5)
                app.state.engine.refresh()
                object.__setattr__(app.state.engine.candidate, "vocab", None)
                mine = next(filter(trial.shows, PEOPLE))
                told = (await api.get(f"/v1/recommend/{mine}")).json()
                assert (told["release"], told["variant"]) == ("000001", None)
        assert Trials(home.releases).now() is None
        assert "it could not answer" in Journal(home.job).read()[-1]["reason"]

    asyncio.run(asked())


def test_collecting_keeps_what_is_on_trial(home: Home) -> None:
    Trials(home.releases).begin("000002", 0.1)
    for _ in range(3):
        publish(home.path)
    assert Registry(home.releases).collect(1) == ["000001", "000003", "000004"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "name a release: 000001, 000002, 000003"),
        ("000009", "no release '000009'"),
        ("000001 --canary 5%", "live already; a trial is for another one: 000002, 000003"),
        ("000002 --canary lots", "'lots' is no share"),
        ("000002 --canary 80%", "from 0.01% to 50%"),
        ("000001", "release 000001 is live already"),
        ("000002 --shadow --hours 2", "a shadow never goes live by itself"),
        ("000002 --hours 2", "--hours goes with --canary"),
        ("000002 --stop", "leave the rest out"),
    ],
)
def test_what_cannot_be_promoted_is_refused_with_what_can(home: Home, words: str, says: str) -> None:
    with pytest.raises(RecsysError, match=re.escape(says)):
        CliRunner().invoke(cli.app, [*f"promote {words}".split(), "--home", str(home.path)], catch_exceptions=False)
    assert Trials(home.releases).now() is None
    assert Registry(home.releases).current() == "000001"


def test_a_trial_from_the_shell(home: Home) -> None:
    assert "shown to 5.0000% of the people" in recsys(home, "promote 000002 --canary 5%")
    assert Trials(home.releases).now() == Trial("000002", 0.05, False, Trials(home.releases).now().began)  # type: ignore[union-attr]
    listed = recsys(home, "releases")
    assert "000001 *" in listed
    assert "000002 5.000%" in listed
    told = json.loads(recsys(home, "status --json"))["trial"]
    assert (told["release"], told["so_far"]) == ("000002", "hit rate nothing yet, of the live release nothing yet (p = 1)")
    assert "answers everybody" in recsys(home, "promote --stop")
    assert "live is 000003" in recsys(home, "promote 000003")
    assert Registry(home.releases).current() == "000003"
    assert [line["what"] for line in Journal(home.job).read()] == ["trial", "trial ended", "promoted"]
    assert "release 000003 is live (was 000001): by hand" in recsys(home, "job log")


def recsys(home: Home, words: str) -> str:
    done = CliRunner().invoke(cli.app, [*words.split(), "--home", str(home.path)], catch_exceptions=False, env={"COLUMNS": "200"})
    assert done.exit_code == 0
    return done.stdout


def compare(outcomes: list[Outcome]) -> Comparison:
    return Tally("canary").add(outcomes).comparison()


def told(variant: str, hits: np.ndarray, buckets: np.ndarray) -> list[Outcome]:
    return [Outcome(0, "r", variant, 0, int(b), int(hit), None) for hit, b in zip(hits, buckets, strict=True)]


def test_a_comparison_by_hand() -> None:
    """Ten groups each, of 30 outcomes: in half of them all hits, in half none; of the other side 20 of 30 in each."""
    buckets = np.repeat(np.arange(10), 30)
    found = compare(told("canary", buckets % 2 == 0, buckets) + told("live", np.arange(300) % 30 < 20, buckets))
    assert (found.hits, found.n, found.hits_live, found.n_live) == (150, 300, 200, 300)
    variance = 10 * 15**2 * (10 / 9) / 300**2  # each group is 15 off
    variance += 201 / 302 * 101 / 302 / 300  # the groups are all alike: as if each outcome were another person's
    logarithm = 0.5 * np.log(variance / (variance + 0.0025)) + (1 / 6) ** 2 * 0.0025 / (2 * variance * (variance + 0.0025))
    assert found.p == pytest.approx(min(1, np.exp(-logarithm)))
    assert not found.behind


def looks(rng: np.random.Generator, rate: float) -> Iterator[np.ndarray]:
    """Hits and outcomes of 60 groups of people whose own rates differ, (2, 60), after each 100 outcomes."""
    own, told = np.clip(rng.normal(rate, 0.1, 60), 0, 1), np.zeros((2, 60))
    for _ in range(20):
        group = rng.integers(0, 60, 100)
        told += np.stack([np.bincount(group[rng.random(100) < own[group]], minlength=60), np.bincount(group, minlength=60)])
        yield told


@pytest.mark.parametrize(("rate", "least", "most"), [(0.3, 0, 0.02), (0.4, 0, 0.01), (0.15, 0.95, 1.0)])
def test_looked_at_again_and_again_an_equal_release_is_seldom_behind_and_a_bad_one_is_found(rate: float, least: float, most: float) -> None:
    def ended(seed: int) -> bool:
        pairs = zip(looks(np.random.default_rng([seed, 0]), rate), looks(np.random.default_rng([seed, 1]), 0.3), strict=True)
        return any(compared(*pair).behind for pair in pairs)

    assert least <= np.mean([ended(seed) for seed in range(400)]) <= most


def test_by_few_nothing_is_concluded() -> None:
    few = told("canary", np.zeros(199), np.arange(199)) + told("live", np.ones(5000), np.arange(5000))
    assert compare(few).p == 1
    alike = told("canary", np.zeros(900), np.arange(900) % 9) + told("live", np.ones(5000), np.arange(5000))
    assert compare(alike).p == 1, "nor by many of few people"


def test_buckets_are_even_and_others_in_each_trial() -> None:
    names = [f"user-{n}" for n in range(20_000)]
    one, two = Trial("000002", 0.1, False, 1), Trial("000002", 0.1, False, 2)
    first, second = ({name for name in names if trial.shows(name)} for trial in (one, two))
    assert 1850 < len(first) < 2150
    assert 140 < len(first & second) < 260, "a tenth of a tenth, by chance"


def test_of_several_who_end_a_trial_one_is_told_so(tmp_path: Path) -> None:
    trials = Trials(tmp_path)
    trial = trials.begin("000002", 0.1)
    newer = trials.begin("000003", 0.1)
    assert [trials.end(trial), trials.end(newer), trials.end(newer), trials.end()] == [False, True, False, False]
    trials.file.write_text("{}")
    with pytest.raises(BadInput, match="promote --stop"):
        trials.now()
    assert trials.end()


def test_what_was_measured_before_a_trial_does_not_count_in_it(home: Home) -> None:
    async def looked() -> Any:
        engine = Engine(home.releases)
        with EmbeddedRedis(home.redis) as server:
            wire = Wire(server.url)
            old = Outcome(0, "000001", "live", 0, 1, 0, None)
            import orjson

            from serving.online import outcomes_key

            for _ in range(300):
                await wire.call("XADD", outcomes_key("recsys"), "*", "o", orjson.dumps(old))
            await asyncio.sleep(0.01)
            Trials(home.releases).begin("000002", 0.5)
            engine.refresh()
            await wire.call("XADD", outcomes_key("recsys"), "*", "o", b'{"of": "another version"}')  # which must not end the watch
            found = await TrialWatch(engine, wire, "recsys", home).look()
            wire.close()
            return found

    assert asyncio.run(looked()).n_live == 0
