"""Estimates of what another policy would have earned: by hand, on logs whose truth is known, and through releases that served them."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest
from test_api import served
from test_policy import many
from typer.testing import CliRunner
from worlds import NOW, event_table, publish_release

from eval.estimate import GONE, UNLIKE, Earning, estimate
from eval.explored import LEARNED, OLDER, OTHERWISE, TOO_NEW, Shown, explored
from eval.off_policy import Estimate, ahead, as_shown, doubly_robust, doubts, effective, ips, lost, snips, weights
from recsys import cli
from recsys.errors import BadInput
from recsys.home import Home
from recsys.log import Log, Position
from recsys.registry import Registry
from recsys.settings import Settings, load_settings
from serving.archive import archive_home
from serving.arrange import explored as draw
from serving.arrange import propensities
from serving.history import History
from serving.impressions import Made, impressions, read
from serving.snapshot import Snapshot

SETTINGS = load_settings(environ={})
REWARD, LOGGED, TARGET = np.array([1.0, 0.0, 1.0]), np.array([0.5, 0.25, 0.2]), np.array([0.25, 0.5, 0.4])
PEOPLE = np.array(["ann", "bob", "cid"])


def test_each_estimate_is_the_number_worked_out_by_hand() -> None:
    weight = weights(TARGET, LOGGED)
    assert weight.tolist() == pytest.approx([0.5, 2.0, 2.0])
    assert weights(TARGET, LOGGED, clip=1.0).tolist() == [0.5, 1.0, 1.0]
    assert as_shown(REWARD, PEOPLE).value == pytest.approx(2 / 3)
    assert ips(REWARD, weight, PEOPLE).value == pytest.approx((0.5 + 0 + 2) / 3)
    assert snips(REWARD, weight, PEOPLE).value == pytest.approx(2.5 / 4.5)
    robust = doubly_robust(REWARD, weight, np.array([0.4, 0.2, 0.6]), np.array([0.5, 0.5, 0.5]), PEOPLE)
    assert robust.terms.tolist() == pytest.approx([0.4 + 0.25, 0.2 - 1.0, 0.6 + 1.0])
    assert robust.value == pytest.approx(1.45 / 3)
    assert effective(weight) == pytest.approx(4.5**2 / 8.25)
    for found in (ips(REWARD, weight, PEOPLE), snips(REWARD, weight, PEOPLE), robust):
        assert found.terms.mean() == pytest.approx(found.value)
        assert found.low < found.value < found.high


def test_what_was_drawn_cannot_have_been_impossible_and_no_weight_at_all_is_no_number() -> None:
    with pytest.raises(ValueError, match="sample 1 has 0"):
        weights(TARGET, np.array([0.5, 0.0, 0.2]))
    with pytest.raises(ValueError, match="clip is the largest weight"):
        weights(TARGET, LOGGED, clip=0)
    nothing = np.zeros(3)
    assert ips(REWARD, nothing, PEOPLE).value == effective(nothing) == 0
    assert np.isnan(snips(REWARD, nothing, PEOPLE).value)


class Bandit(NamedTuple):
    """A log of a bandit with known rewards: its samples, what the target earns in truth, and a true model of it."""

    reward: np.ndarray
    weight: np.ndarray
    owner: np.ndarray
    truth: float
    expected: np.ndarray
    foretold: np.ndarray


def softmax(scores: np.ndarray) -> np.ndarray:
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def bandit(seed: int, people: int = 1000, each: int = 4) -> Bandit:
    """Five contexts, eight actions; the logging policy likes other actions than the target does, whose taste is the better one."""
    world, rng, n = np.random.default_rng(7), np.random.default_rng(seed), people * each
    chance = world.uniform(0.02, 0.5, (5, 8))
    logging, target = softmax(world.normal(size=(5, 8))), softmax(6 * chance + 0.5 * world.normal(size=(5, 8)))
    context = rng.integers(0, 5, n)
    action = (rng.random((n, 1)) > logging[context].cumsum(axis=1)).sum(axis=1).clip(max=7)
    reward = (rng.random(n) < chance[context, action]).astype(float)
    value = (target * chance).sum(axis=1)
    weight = weights(target[context, action], logging[context, action])
    return Bandit(reward, weight, np.repeat(np.arange(people), each), value.mean(), value[context], chance[context, action])


def estimates(log: Bandit) -> dict[str, Estimate]:
    return {
        "ips": ips(log.reward, log.weight, log.owner),
        "snips": snips(log.reward, log.weight, log.owner),
        "doubly robust": doubly_robust(log.reward, log.weight, log.expected, log.foretold, log.owner),
    }


def test_the_truth_lies_in_their_intervals_and_not_in_that_of_what_was_shown() -> None:
    inside, runs = dict.fromkeys(("ips", "snips", "doubly robust", "as shown"), 0), 30
    for seed in range(runs):
        log = bandit(seed)
        for name, found in {**estimates(log), "as shown": as_shown(log.reward, log.owner)}.items():
            inside[name] += found.low <= log.truth <= found.high
    assert inside.pop("as shown") == 0
    assert all(count >= 0.88 * runs for count in inside.values()), inside  # 95 of 100 in the mean


def test_a_good_model_has_less_variance_and_a_wrong_one_does_no_harm_in_the_mean() -> None:
    logs = [bandit(seed, people=100) for seed in range(120)]
    truth = logs[0].truth
    found = {name: np.array([estimates(log)[name].value for log in logs]) for name in ("ips", "snips", "doubly robust")}
    assert found["doubly robust"].std() < 0.9 * found["ips"].std()
    much = np.full(400, 0.9)  # whatever is done
    wrong = np.array([doubly_robust(log.reward, log.weight, much, much, log.owner).value for log in logs])
    for values in (*found.values(), wrong):
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(len(values))


def test_snips_moves_with_the_rewards_and_ips_does_not() -> None:
    log = bandit(3)
    plain, more = snips(log.reward, log.weight, log.owner), snips(log.reward + 5, log.weight, log.owner)
    assert (more.value, more.low, more.high) == pytest.approx((plain.value + 5, plain.low + 5, plain.high + 5))
    moved = ips(log.reward + 5, log.weight, log.owner).value - ips(log.reward, log.weight, log.owner).value
    assert moved == pytest.approx(5 * log.weight.mean())
    assert abs(moved - 5) > 0.01


def test_two_targets_are_compared_on_the_same_people() -> None:
    log = bandit(1)
    better, as_it_was = ips(log.reward, log.weight, log.owner), as_shown(log.reward, log.owner)
    found = ahead(better, as_it_was, log.owner)
    assert found.value == pytest.approx(better.value - as_it_was.value)
    assert found.low > 0
    assert ahead(better, better, log.owner).high == 0


def test_what_is_out_of_reach_is_what_the_weights_lack_in_the_mean() -> None:
    target, logged = np.array([[0.6, 0.3, 0.1]]), np.array([[0.1, 0.9, 0.0]])
    assert lost(target, logged) == pytest.approx([0.1])  # the third cannot be drawn
    assert lost(target, logged, clip=4.0) == pytest.approx([0.1 + 0.6 - 4 * 0.1])
    for clip in (np.inf, 4.0):
        reachable = logged[0] > 0
        mean = (logged[0][reachable] * weights(target[0][reachable], logged[0][reachable], clip)).sum()
        assert mean == pytest.approx(1 - lost(target, logged, clip)[0])


def test_doubts_are_said_in_words() -> None:
    assert doubts(np.ones(1000), np.zeros(1000)) == []
    once = np.where(np.arange(1000) < 20, 45.0, 1e-9)
    assert doubts(once, np.zeros(1000)) == [
        "1,000 samples count like 20: what it would do was hardly ever done, the intervals are too narrow"
    ]
    assert doubts(np.ones(1000), np.full(1000, 0.25))[0].startswith("25.0% of what it would do was never or hardly ever to come")


def test_the_chances_of_a_list_are_those_that_were_said_when_it_was_drawn() -> None:
    scores = np.array([5.0, 4.0, 2.0, 1.0, 0.0, 3.0])
    for seed in range(50):
        places, propensity, _ = draw(scores, 4, 0.6, np.random.default_rng(seed))
        found = propensities(scores, places, 0.6)
        assert found[np.arange(4), places] == pytest.approx(propensity, rel=1e-12)
        assert found.sum(axis=1) == pytest.approx(np.ones(4))
        assert (np.tril(found[:, places], -1) == 0).all()  # what stands above does not come again
    # by hand: behind an item that is not among the three, nothing is gone; then the first is
    found = propensities(np.array([2.0, 1.0, 1.0]), np.array([-1, 0, 2]), 0.5)
    assert found == pytest.approx(np.array([[0.75, 0.125, 0.125], [0.75, 0.125, 0.125], [0.0, 0.75, 0.25]]))
    assert propensities(np.array([1.0]), np.array([0, -1]), 0.5).tolist() == [[1.0], [0.0]]


def test_how_a_list_was_made_is_read_from_the_ids_of_its_impressions() -> None:
    made = Made("000012", 20, 1e-05, 0.25, True)
    one = impressions([{"item_id": "a", "propensity": 0.5}, {"item_id": "b", "propensity": 0.25}], "session:s", "f00d", made)[1]
    assert (one.session_id, one.user_id, one.value) == ("s", None, 0.25)
    assert read(one.event_id, "f00d") == (1, made)
    assert read(impressions([{"item_id": "a", "propensity": 0.5}], "ann", "f00d", None)[0].event_id, "f00d") == (0, None)
    for not_ours in ("f00d-x", "f00d", "beef-0", "f00d-000012/20/0.1/0-1"):
        assert read(not_ours, "f00d") is None


MADE = Made("000001", 2, 0.5, 0.0, True)


def rows(owner: str, request: str, at: int, *items: str, made: Made | None = MADE) -> list[dict[str, Any]]:
    told = [asdict(one) for one in impressions([{"item_id": id, "propensity": 0.5} for id in items], owner, request, made)]
    return [one | {"timestamp": at} for one in told]


def did(owner: str, item: str, at: int, kind: str = "play", **more: Any) -> dict[str, Any]:
    return {"event_id": f"{owner}{item}{at}{kind}", "user_id": owner, "item_id": item, "timestamp": at, "event_type": kind, **more}


MINUTE = 60_000
END = did("somebody", "else", NOW + 10 * 60 * MINUTE)


def test_a_place_earns_what_came_of_it_within_the_hour_or_by_its_request() -> None:
    table = event_table(
        [
            *rows("ann", "r1", NOW, "a", "b"),
            *rows("ann", "r2", NOW + MINUTE, "a", "c"),
            *rows("ann", "r3", NOW + 2 * MINUTE, "d", "e"),
            *rows("bob", "r4", NOW, "a", "b"),
            did("ann", "a", NOW + 5 * MINUTE),  # without a request: of the newest list that showed it
            did("ann", "b", NOW + 300 * MINUTE, request_id="r1"),  # late, but it says where from
            did("ann", "c", NOW + 62 * MINUTE),  # too late
            did("ann", "d", NOW + 3 * MINUTE, "dislike"),
            did("ann", "e", NOW + 3 * MINUTE, "like"),
            did("ann", "e", NOW + 4 * MINUTE, "undo"),
            did("bob", "a", NOW + MINUTE, request_id="some other"),
            did("bob", "b", NOW + MINUTE, "watch", value=0.2),
            END,
        ]
    )

    def earned(window: float = 3600, settings: Settings = SETTINGS) -> list[list[float]]:
        return [one.reward.tolist() for one in explored(table, settings, window=window)[0]]

    assert earned() == [[0, 1], [1, 0], [0, 0], [0, 1]]
    assert earned(2 * 3600) == [[0, 1], [1, 1], [0, 0], [0, 1]]
    assert earned(settings=load_settings(overrides={"data.positive": "play, watch >= 0.5"}, environ={})) == [[0, 1], [1, 0], [0, 0], [0, 0]]


def test_the_profile_is_what_had_arrived_before_the_list() -> None:
    before = [
        did("ann", "x", NOW - 2),
        did("ann", "y", NOW - 3),
        did("bob", "z", NOW - 9),
        did("ann", "w", NOW - 4),
        did("ann", "w", NOW - 1, "undo"),
    ]
    table = event_table(
        [*before, *rows("ann", "r1", NOW, "a", "b"), did("ann", "late", NOW - 5), *rows("ann", "r2", NOW + 1, "a", "b"), END]
    )
    one, other = explored(table, SETTINGS)[0]
    assert one.past == History(["y", "x"], [2, 2], [NOW - 3, NOW - 2])
    assert other.past.items == ["late", "y", "x"]
    short = load_settings(overrides={"serving.profile_events": 2}, environ={})
    assert explored(table, short)[0][1].past.items == ["x"]  # the undo takes a place, too


def test_what_is_left_out_is_counted() -> None:
    lists = [rows(f"u{n}", f"r{n}", NOW + n * MINUTE, "a", "b") for n in range(5)]
    filtered = rows("ann", "f", NOW, "a", "b", made=None)
    theirs = [did("ann", "a", NOW, "impression", value=0.5, request_id="f"), did("ann", "a", NOW, "impression")]  # a client's own
    table = event_table(
        [*(row for one in lists for row in one), *filtered, *theirs, END, *rows("ann", "new", NOW + 590 * MINUTE, "a", "b")]
    )
    found, left_out = explored(table, SETTINGS, [Position(2), Position(100, NOW + 2 * MINUTE)], most=2)
    assert [one.owner for one in found] == ["u3", "u4"]
    assert left_out == {OTHERWISE: 1, LEARNED: 2, TOO_NEW: 1, OLDER: 1}
    with pytest.raises(BadInput, match="no list in the log says how likely"):
        explored(event_table([*theirs, END]), SETTINGS)
    assert [one.owner for one in explored(event_table([*lists[0][1:], *lists[1], END]), SETTINGS)[0]] == ["u1"]  # a part is no list


def test_the_model_of_rewards_foretells_nobody_by_himself() -> None:
    def shown(owner: str, reward: list[float]) -> Shown:
        return Shown(owner, MADE, History([], [], []), ["a", "b"], np.full(2, 0.5), np.array(reward))

    lists = [shown(f"u{n}", [1.0, 0.0]) for n in range(200)]
    model = Earning(lists)
    again = Earning([replace(one, reward=np.array([0.0, 1.0])) if one.owner == "u3" else one for one in lists])
    place, lift = model.of("u3", ["a", "b", "never shown"])
    assert place[0] > 0.8 > 0.2 > place[1]
    assert lift[2] == 1
    assert [part.tolist() for part in again.of("u3", ["a", "b"])] == [part.tolist() for part in model.of("u3", ["a", "b"])]


# --- through releases -------------------------------------------------------------------------------------------------------------------

ITEMS, K, EXPLORE = 24, 6, 0.5


class Readers(NamedTuple):
    """Releases that know the truth, a part of it and nothing of it, a log of lists by the second, and how likely each is to play what."""

    home: Home
    good: str
    bad: str
    live: str
    likes: np.ndarray


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Readers:
    home, rng = Home(tmp_path_factory.mktemp("readers")), np.random.default_rng(5)
    names, people = [f"i{n}" for n in range(ITEMS)], 400
    vectors, taste = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in rng.normal(size=(2, max(ITEMS, people), 8)))
    vectors = vectors[:ITEMS]
    likes = 1 / (1 + np.exp(1.5 - 5 * taste @ vectors.T))

    def published(known: np.ndarray) -> str:
        return publish_release(home.path, names, known, scale=2.0).id

    bad, good = published(rng.permutation(vectors)), published(vectors)
    live = published(vectors + 0.35 * rng.normal(size=vectors.shape))
    snapshot, log = Snapshot.load(Registry(home.releases).open(live)), Log(home.log)
    made, pasts = Made(live, K, EXPLORE, 0.0, True), list[History]()
    told = list[dict[str, Any]]()
    for person in range(people):
        best = np.argsort(-(taste[person] @ vectors.T))[:8]
        some = rng.choice(best, 3, replace=False).tolist()
        pasts.append(History([names[row] for row in some], [2] * 3, [NOW + n for n in range(3)]))
        told += [did(f"u{person}", names[row], NOW + n) for n, row in enumerate(some)]
    log.append(event_table(told))
    for turn in (1, 2):
        at, told = NOW + turn * 3 * 60 * MINUTE, []
        for person in range(people):
            id, request = f"u{person}", f"{turn * 1000 + person:032x}"
            shown = snapshot.arranged(snapshot.recommend(pasts[person], 4 * K), K, 0.0, EXPLORE, 1000 * turn + person)
            told += [asdict(one) | {"timestamp": at} for one in impressions(shown, id, request, made)]
            for place, item in enumerate(shown):
                if rng.random() < likes[person, names.index(item["item_id"])]:
                    told.append(did(id, item["item_id"], at + 1000 + place, request_id=request if person % 2 else None))
                    past = pasts[person]
                    pasts[person] = History([*past.items, item["item_id"]], [*past.kinds, 2], [*past.times, at + 1000 + place])
        log.append(event_table(told))
    log.append(event_table([did("somebody", "else", NOW + 20 * 60 * MINUTE)]))
    return Readers(home, good, bad, live, likes)


def truth(readers: Readers, id: str) -> float:
    """Return what a place that the release fills earns in truth, below what was shown."""
    snapshot, values = Snapshot.load(Registry(readers.home.releases).open(id)), list[np.ndarray]()
    for one in explored(Log(readers.home.log).read(), SETTINGS)[0]:
        ids, chances = snapshot.chances(snapshot.recommend(one.past, 4 * K), K, 0.0, EXPLORE, one.items)
        values.append(chances @ readers.likes[int(one.owner[1:]), [int(id[1:]) for id in ids]])
    return float(np.concatenate(values).mean())


def test_a_release_that_answered_has_weights_of_one_and_earned_what_it_earned(readers: Readers) -> None:
    found = estimate(readers.home, SETTINGS, readers.live)
    assert (found["lists"], found["places"], found["people"], found["left out"]) == (800, 4800, 400, {})
    told = found["releases"][readers.live]
    assert told["mean weight"] == pytest.approx(1, abs=1e-6)
    assert told["largest weight"] == pytest.approx(1, abs=1e-6)
    assert told["effective"] == pytest.approx(4800, rel=1e-6)
    assert (told["lost"], told["doubts"]) == (0, [])
    for how in ("ips", "snips"):
        assert told[how] == pytest.approx(found["as shown"], abs=1e-6)
    assert told["doubly robust"]["value"] == pytest.approx(found["as shown"]["value"], abs=0.01)
    assert found["ahead"] == {}


def test_releases_are_ordered_by_what_they_would_have_earned(readers: Readers) -> None:
    for id, better in ((readers.good, True), (readers.bad, False)):
        found = estimate(readers.home, SETTINGS, id)
        real, shown, told = truth(readers, id), found["as shown"], found["releases"][id]
        assert not shown["low"] <= real <= shown["high"]  # what was earned is not what it would have
        for how in ("ips", "snips", "doubly robust"):
            assert told[how]["low"] <= real <= told[how]["high"], how
            assert found["ahead"][how]["low" if better else "high"] * (1 if better else -1) > 0, how
            assert found["releases"][readers.live][how]["value"] == pytest.approx(shown["value"], abs=0.01)
        assert 100 < told["effective"] < 1000
        assert told["lost"] < 0.01
        assert told["doubts"] == []


def test_weights_that_are_cut_and_what_is_out_of_reach_are_said(readers: Readers) -> None:
    told = estimate(readers.home, SETTINGS, readers.bad, clip=3.0)["releases"][readers.bad]
    assert told["largest weight"] == 3
    assert told["mean weight"] == pytest.approx(1 - told["lost"], abs=0.05)
    assert told["lost"] > 0.2
    assert "was never or hardly ever to come" in told["doubts"][-1]


def test_lists_that_cannot_be_made_again_are_left_out_and_none_is_an_error(readers: Readers, tmp_path: Path) -> None:
    shorter = load_settings(overrides={"serving.profile_events": 3}, environ={})
    found = estimate(readers.home, shorter, readers.live)
    played = found["left out"][UNLIKE]
    assert 200 < played < 400  # second lists of those who had played something by then
    assert found["lists"] == 800 - played
    with pytest.raises(BadInput, match=f"can be judged: 800 {UNLIKE}; explore on"):
        estimate(readers.home, load_settings(overrides={"serving.profile_events": 1}, environ={}), readers.live)
    home = Home(tmp_path)
    publish_release(tmp_path, ["a", "b"])
    Log(home.log).append(event_table([*rows("ann", "r1", NOW, "a", "b", made=replace(MADE, release="000009")), END]))
    with pytest.raises(BadInput, match=f"1 {GONE}"):
        estimate(home, SETTINGS, "000001")


def test_what_was_explored_over_http_is_made_again_to_the_last_propensity(tmp_path: Path) -> None:
    many(tmp_path, fuse=True, exact_below=1000)
    with served(tmp_path) as api:

        def say(item: str, kind: str, **more: Any) -> None:
            assert (
                api.post("/v1/events", json={"item_id": item, "event_type": kind, "timestamp": time.time(), **more}).json()["accepted"] == 1
            )

        def ask(who: str, wish: str) -> dict[str, Any]:
            return api.get(f"/v1/recommend/{who}?k=8&explore=0.4{wish}").json()

        for n in range(8):
            who, about = ("session:s", {"session_id": "s"}) if n == 7 else (f"p{n}", {"user_id": f"p{n}"})
            for place, kind in enumerate(("play", "dislike", "play", "undo")[: 1 + n % 4]):
                say(f"i{30 * n + min(place, 2)}", kind, **about)
            for wish in ("", "&diversity=0.8", "&exclude_seen=false"):
                answer = ask(who, wish)
            say(answer["items"][n]["item_id"], "like", request_id=answer["request_id"], **about)
            red = '&filters={"colour":{"any":["red"]}}'
            for wish in (red, "&exclude_items=i1", f"&exclude_seen=false&cursor={answer['next_cursor']}"):
                assert ask(who, wish)["items"]
        say("i1", "play", user_id="somebody", timestamp=time.time() + 240)
    home = Home(tmp_path)
    archive_home(home, SETTINGS)
    said = CliRunner().invoke(cli.app, ["estimate", "000001", "--home", str(tmp_path), "--window", "1m", "--json"])
    assert said.exit_code == 0, said.exception
    found = orjson.loads(said.stdout)
    told = found["releases"]["000001"]
    assert (found["lists"], found["people"], found["left out"]) == (24, 8, {OTHERWISE: 24})
    assert (told["mean weight"], told["largest weight"]) == pytest.approx((1, 1), abs=1e-6)
    assert found["as shown"]["value"] * found["places"] == pytest.approx(8)
    shown = CliRunner().invoke(cli.app, ["estimate", "000001", "--home", str(tmp_path), "--window", "1m"], env={"COLUMNS": "120"})
    assert "000001 *" in shown.stdout
    assert f"left out: 24 lists {OTHERWISE}" in shown.stdout
