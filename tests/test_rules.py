"""What editors want of every list: boost, bury, pin and cap, in the engine and over HTTP, and files with mistakes."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from test_api import event, ids, served, wait_until
from test_cli import shell
from worlds import NOW, publish_release

from recsys.catalogue import Catalogue
from recsys.errors import BadInput
from recsys.registry import Registry
from serving.arrange import explored
from serving.history import Event
from serving.rules import EXAMPLE, Rules, RulesFile
from serving.snapshot import Snapshot

NAMES = [f"i{n}" for n in range(12)]
GENRES = [["Drama"], ["Crime", "Drama"], ["Comedy"]]


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    publish_release(tmp_path, NAMES)
    rows = [{"item_id": name, "title": name, "genres": GENRES[n % 3]} for n, name in enumerate(NAMES[:-1])]
    catalogue = Catalogue(tmp_path / "items")
    catalogue.put(pa.Table.from_pylist(rows))
    return Snapshot.load(Registry(tmp_path / "releases").open()).stocked(catalogue.read())


def arranged(snapshot: Snapshot, k: int, **rules: Any) -> list[str]:
    ranked = snapshot.recommend([Event("i0", "play", NOW)], 500)
    return [item["item_id"] for item in snapshot.arranged(ranked, k, 0.0, 0.0, 7, Rules.model_validate(rules))]


def test_boosted_items_come_earlier_and_buried_ones_later_by_their_scores(snapshot: Snapshot) -> None:
    ranked = snapshot.recommend([Event("i0", "play", NOW)], 500)
    score = {item["item_id"]: item["score"] for item in ranked}
    before = list(score)
    assert arranged(snapshot, 12) == before
    for rules, factor in (
        ({"boost": [{"items": [before[5]], "by": 1e6}]}, {before[5]: 1e6}),
        ({"bury": [{"items": [before[0]], "by": 1e-6}]}, {before[0]: 1e-6}),
        ({"boost": [{"filter": {"genres": {"any": ["Crime"]}}, "by": 3.0}]}, dict.fromkeys(NAMES[1:11:3], 3.0)),
        ({"boost": [{"items": ["i4"], "by": 3.0}], "bury": [{"filter": {"genres": {"any": ["Crime"]}}, "by": 0.5}]},
         {**dict.fromkeys(NAMES[1:11:3], 0.5), "i4": 1.5}),
    ):  # fmt: skip
        expected = sorted(before, key=lambda id, factor=factor: (-score[id] * factor.get(id, 1.0), before.index(id)))
        assert arranged(snapshot, 12, **rules) == expected
        assert arranged(snapshot, 3, **rules) == expected[:3]


def test_of_a_kind_there_come_no_more_than_the_cap(snapshot: Snapshot) -> None:
    before = arranged(snapshot, 12)
    genres = {name: GENRES[n % 3] for n, name in enumerate(NAMES[:-1])}
    found = arranged(snapshot, 12, cap=[{"column": "genres", "most": 2}])
    count: dict[str, int] = {}
    expected = []
    for name in before:
        if all(count.get(genre, 0) < 2 for genre in genres.get(name, [])):
            expected.append(name)
            for genre in genres.get(name, []):
                count[genre] = count.get(genre, 0) + 1
    assert found == expected
    assert len(found) == 5  # two dramas, two comedies, and the one that nothing is known of
    assert arranged(snapshot, 2, cap=[{"column": "genres", "most": 2}]) == expected[:2]


def test_a_rule_about_a_column_that_is_not_there_does_nothing_and_says_so(snapshot: Snapshot, caplog: pytest.LogCaptureFixture) -> None:
    before = arranged(snapshot, 12)
    rules: dict[str, Any] = {"boost": [{"filter": {"mood": {"any": ["dark"]}}}], "cap": [{"column": "moods", "most": 1}]}
    for _ in range(2):
        assert arranged(snapshot, 12, **rules) == before
    assert [record.message for record in caplog.records] == [
        "a rule in rules.toml has no effect: filters: no item has a column 'mood'; allowed: genres, title",
        "a rule in rules.toml has no effect: no item has a column 'moods'",
    ]


def test_explored_lists_keep_the_cap_and_say_true_propensities() -> None:
    groups = [["a"], ["a"], ["b"], ["a"], ["b"], []]
    scores, most = np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]), {"a": 1, "b": 1}
    first = {}
    for seed in range(400):
        places, propensity, _ = explored(scores, 6, 0.5, np.random.default_rng(seed), groups, most)
        kinds = [kind for place in places.tolist() for kind in groups[place]]
        assert sorted(kinds) == ["a", "b"]
        assert len(places) == 3
        first.setdefault(int(places[0]), []).append(float(propensity[0]))
    for place, told in first.items():
        expected = 0.5 * scores[place] / scores.sum() + 0.5 * (place == 0)
        assert told == pytest.approx([expected] * len(told))
        assert len(told) / 400 == pytest.approx(expected, abs=0.08)


MISTAKES = [
    ("boost = 3", "boost: input should be a valid list; got '3'"),
    ("boosts = []", "there is no 'boosts'; did you mean 'boost'?"),
    ("boost = [{items = ['a'], bye = 2}]", "there is no 'boost.0.bye'; did you mean 'by'?"),
    ("boost = [{items = ['a'], by = 0.5}]", "boost.0.by: input should be greater than or equal to 1; got '0.5'"),
    ("bury = [{items = ['a'], by = 2}]", "bury.0.by: input should be less than or equal to 1; got '2'"),
    ("pin = [{item_id = 'a'}]", "pin.0.place: field required"),
    ("cap = [{column = 'genres', most = 0}]", "cap.0.most: input should be greater than or equal to 1; got '0'"),
    ("boost = [", "is not TOML"),
    ("boost = [{by = 2}]", "boost.0: name items or a filter: it selects nothing"),
    ("pin = [{item_id = 'a', place = 1}, {item_id = 'b', place = 1}]", "pin: place 1 is there twice"),
    ("pin = [{item_id = 'a', place = 1}, {item_id = 'a', place = 2}]", "pin: item 'a' is there twice"),
]


@pytest.mark.parametrize(("text", "told"), MISTAKES)
def test_a_mistake_is_named_and_the_rules_from_before_hold(
    tmp_path: Path, text: str, told: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = RulesFile(tmp_path / "rules.toml")
    assert not file.now
    file.file.write_text("pin = [{item_id = 'a', place = 2}]")
    file._look_again = 0.0
    before = file.now
    assert before.pin[0].place == 2
    file.file.write_text(text)
    file._look_again = 0.0
    assert file.now is before
    assert told in caplog.text
    with pytest.raises(BadInput, match=r"rules\.toml"):
        file.read()
    file.file.unlink()
    file._look_again = 0.0
    assert not file.now


def test_the_example_is_a_file_of_rules_and_the_command_checks_it(tmp_path: Path) -> None:
    assert "no rules; write some into" in shell("rules", "--home", tmp_path, folder=tmp_path).out
    (tmp_path / "rules.toml").write_text(EXAMPLE)
    assert {"boost", "bury", "pin", "cap"} == set(RulesFile(tmp_path / "rules.toml").read().model_fields_set)
    assert "99" in shell("rules", "--home", tmp_path, folder=tmp_path).out
    (tmp_path / "rules.toml").write_text("boosts = []")
    done = shell("rules", "--home", tmp_path, folder=tmp_path)
    assert done.code == 1
    assert "did you mean 'boost'?" in done.err
    Catalogue(tmp_path / "items").put(pa.Table.from_pylist([{"item_id": "99", "genres": ["Drama"], "year": 1999}]))
    for text, told in (
        ("boost = [{filter = {genre = {any = ['Drama']}}}]", "no item has a column 'genre'; did you mean 'genres'?"),
        ("boost = [{filter = {genres = {any = 'Drama'}}}]", "filters.genres.any is a list of values"),
        ("cap = [{column = 'genr', most = 1}]", "cap: no item has a column 'genr'; did you mean 'genres'?"),
    ):
        (tmp_path / "rules.toml").write_text(text)
        done = shell("rules", "--home", tmp_path, folder=tmp_path)
        assert (done.code, told in done.err) == (1, True), done
    (tmp_path / "rules.toml").write_text("pin = [{item_id = '99', place = 1}, {item_id = '98', place = 2}]")
    assert "no item '98' is known" in shell("rules", "--home", tmp_path, folder=tmp_path).out


def test_over_http_a_running_server_follows_the_rules(tmp_path: Path) -> None:
    publish_release(tmp_path, NAMES)
    Catalogue(tmp_path / "items").put(pa.Table.from_pylist([{"item_id": name, "genres": GENRES[n % 3]} for n, name in enumerate(NAMES)]))
    with served(tmp_path) as api:
        before = ids(api.get("/v1/recommend/ann?k=12"))
        assert before == NAMES  # by popularity, nobody knows ann
        (tmp_path / "rules.toml").write_text("""
            boost = [{items = ["i9"], by = 1e6}]
            pin = [{item_id = "i7", place = 2}, {item_id = "i8", place = 1}]
            cap = [{column = "genres", most = 3}]
        """)
        wait_until(lambda: ids(api.get("/v1/recommend/ann?k=12")) != before)
        answer = api.get("/v1/recommend/ann?k=5")
        assert ids(answer)[:3] == ["i8", "i7", "i9"]
        assert [item["source"] for item in answer.json()["items"]][:3] == ["pinned", "pinned", "popular"]
        following = api.get(f"/v1/recommend/ann?k=5&cursor={answer.json()['next_cursor']}")
        assert not set(ids(following)) & set(ids(answer))
        why = api.get("/v1/why-not/ann/i7?k=5").json()
        assert (why["stage"], why["rank"], why["source"]) == ("recommended", 2, "pinned")
        why = api.get("/v1/why-not/ann/i2?k=5").json()
        assert (why["stage"], why["rank"]) == ("house rules", 3)
        assert ids(api.get("/v1/recommend/ann?k=1")) == ["i8"]  # the other's place is on no page of one
        assert len(ids(api.get("/v1/recommend/ann?k=1"))) == 1
        assert "pinned" not in {item["source"] for item in following.json()["items"]}
        assert ids(api.get("/v1/recommend/ann?k=5&exclude_items=i8"))[:2] == [ids(answer)[2], "i7"]
        assert not {"i7", "i8"} & set(ids(api.get('/v1/recommend/ann?k=5&filters={"genres":{"any":["none"],"none":["x"]}}')))
        api.post("/v1/events", json=event("ann", "i7", "dislike"))
        api.post("/v1/events", json=event("ann", "i8"))
        assert not {"i7", "i8"} & set(ids(api.get("/v1/recommend/ann?k=12")))
        explored_list = api.get("/v1/recommend/bob?k=4&explore=0.5").json()["items"]
        assert [item["propensity"] for item in explored_list[:2]] == [1.0, 1.0]
        (tmp_path / "rules.toml").write_text("cap = [{column = 'genres', most = 1}]")
        wait_until(lambda: ids(api.get("/v1/recommend/eve?k=12")) == ["i0", "i2"])
        pages, cursor = [], ""
        while cursor is not None:
            answer = api.get(f"/v1/recommend/eve?k=12{cursor and '&cursor='}{cursor}")
            pages.append(ids(answer))
            cursor = answer.json()["next_cursor"]
        assert pages[:2] == [["i0", "i2"], ["i1", "i5"]]  # a page is short, the list is not
        assert sorted(id for page in pages for id in page) == sorted(NAMES)
        (tmp_path / "rules.toml").unlink()
        wait_until(lambda: ids(api.get("/v1/recommend/eve?k=12")) == before)
