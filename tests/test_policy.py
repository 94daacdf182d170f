"""What a list may hold: filters, selections and pages, in the engine and over HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from test_api import event, ids, served
from worlds import NOW, publish_release

from recsys.catalogue import Catalogue, merge
from recsys.errors import BadInput
from recsys.home import Home
from recsys.registry import Registry
from recsys.settings import NeighbourSettings, Settings
from recsys.vocab import Vocabulary
from serving import cursor as cursors
from serving.history import Event
from serving.reasons import because as reasons_of
from serving.reasons import why_not
from serving.shelf import Shelf
from serving.snapshot import Snapshot

FILMS = [
    {"item_id": "a", "genres": ["Drama", "Crime"], "year": 1995, "country": "US", "stars": 4.5},
    {"item_id": "b", "genres": ["Drama", "Drama"], "year": 2001, "country": "FR", "stars": None},
    {"item_id": "c", "genres": [], "year": None, "country": None, "stars": 3.0},
    {"item_id": "d", "genres": ["Comedy"], "year": 2010, "country": "US|FR", "stars": 2.0},
    {"item_id": "unknown to the release", "genres": ["Drama"], "year": 1995, "country": "US", "stars": 5.0},
]
SHELF = Shelf(pa.Table.from_pylist(FILMS), Vocabulary("eabcd"))


def through(filters: Any, shelf: Shelf = SHELF) -> str:
    names = "-eabcd"
    return "".join(names[row] for row in np.flatnonzero(shelf.let_through(filters)))


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "eabcd"),
        ({"genres": {"any": ["Drama", "Comedy"]}}, "abd"),
        ({"genres": {"all": ["Drama", "Crime"]}}, "a"),
        ({"genres": {"all": ["Drama", "Drama"]}}, "ab"),
        ({"genres": {"none": ["Drama"]}}, "ecd"),  # of e nothing is known at all
        ({"genres": {"any": ["drama"]}}, ""),
        ({"year": {"min": 1996}}, "bd"),
        ({"year": {"min": 1995, "max": 2001}}, "ab"),
        ({"year": {"any": [1995, 2010.0, "2001"]}}, "abd"),
        ({"year": {"any": ["long ago", 1995.5]}}, ""),
        ({"year": {"all": [2001, "long ago"]}}, ""),
        ({"year": {"any": ["inf", "nan", 1e300, 10**400, -(2**63) - 2**12]}}, ""),
        ({"stars": {"any": ["inf", 10**400, 4.5]}}, "a"),
        ({"year": {"none": ["long ago"]}}, "eabcd"),
        ({"stars": {"max": 3}}, "cd"),
        ({"country": {"any": ["US"]}}, "a"),
        ({"genres": {"any": ["Drama"], "none": ["Crime"]}, "country": {"any": ["FR"]}}, "b"),
    ],
)
def test_a_filter_lets_through_what_meets_all_of_it(filters: Any, found: str) -> None:
    assert through(filters) == found
    assert through(filters) == found  # remembered


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        (
            {"genre": {"any": ["Drama"]}},
            "filters: no item has a column 'genre'; did you mean 'genres'? allowed: country, genres, stars, year",
        ),
        ({"genres": {"some": ["Drama"]}}, "filters.genres: there is no 'some'; allowed: all, any, max, min, none"),
        ({"genres": {}}, 'filters.genres: say what it must be, such as {"any": ["..."]}; there are: any, all, none, min, max'),
        ({"genres": {"any": "Drama"}}, 'filters.genres.any is a list of values; got "Drama"'),
        ({"genres": {"any": []}}, "filters.genres.any is a list of values; got []"),
        ({"genres": {"min": 3}}, "filters.genres.min: 'genres' holds list<element: string>, no numbers; use any, all or none"),
        ({"year": {"min": "1990"}}, 'filters.year.min is a number; got "1990"'),
        ({"year": {"max": 10**400}}, f"filters.year.max is a number; got 1{'0' * 79}"),
    ],
)
def test_a_filter_that_makes_no_sense_says_so(filters: Any, says: str) -> None:
    with pytest.raises(BadInput) as told:
        SHELF.let_through(filters)
    assert str(told.value).replace("list<item:", "list<element:") == says


def test_where_nothing_is_known_of_the_items_that_is_said() -> None:
    with pytest.raises(BadInput, match="no item has a column 'genres'; nothing is known of the items"):
        Shelf(pa.table({}), Vocabulary("ab")).let_through({"genres": {"any": ["Drama"]}})


def test_a_cursor_holds_what_was_shown_and_belongs_to_one_question() -> None:
    asked = cursors.question(user="ann", filters={})
    shown = cursors.fingerprints(["a", "b", "c"])
    cursor = cursors.encode(asked, shown)
    np.testing.assert_array_equal(cursors.decode(cursor, asked), shown)
    with pytest.raises(BadInput, match="it belongs to another question"):
        cursors.decode(cursor, cursors.question(user="bob", filters={}))
    for broken in ("", "!", "AA", cursor + "AA", "é", "A" * 5600):
        with pytest.raises(BadInput, match="cursor: "):
            cursors.decode(broken, asked)


def many(tmp_path: Path, fuse: bool, exact_below: int) -> Snapshot:
    """300 items around a circle, every third of them red; the most popular are on one side."""
    turn = np.linspace(0, 2 * np.pi, 300, endpoint=False) + np.random.default_rng(0).normal(size=300) / 1000  # no two equally far
    settings = Settings(neighbours=NeighbourSettings(fuse=fuse))
    names = [f"i{n}" for n in range(300)]
    release = publish_release(tmp_path, names, np.column_stack([np.cos(turn), np.sin(turn)]), settings=settings, exact_below=exact_below)
    Catalogue(tmp_path / "items").add(pa.table({"item_id": names, "colour": ["red" if n % 3 == 0 else "blue" for n in range(300)]}))
    return Snapshot.load(release).stocked(Catalogue(tmp_path / "items").read())


@pytest.mark.parametrize("exact_below", [1000, 10])
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("dislike", [True, False])
def test_pages_hold_every_allowed_item_once_and_the_best_first(tmp_path: Path, fuse: bool, exact_below: int, dislike: bool) -> None:
    snapshot = many(tmp_path, fuse, exact_below)
    history = [Event("i100", "play", NOW + 1000)] + [Event("i0", "dislike", NOW + 2000)] * dislike
    red = {"colour": {"any": ["red"]}}
    for filters, allowed in ((red, {f"i{n}" for n in range(0, 300, 3)}), ({}, {f"i{n}" for n in range(300)})):
        whole = [item["item_id"] for item in snapshot.recommend(history, 500, filters=filters)]
        seen: list[str] = []
        while page := snapshot.recommend(history, 7, filters=filters, shown=cursors.fingerprints(seen)):
            seen += [item["item_id"] for item in page]
        assert len(seen) == len(set(seen))
        assert set(seen) == set(whole) <= allowed
        copies = {f"i{n % 300}" for n in range(-15, 16)} if dislike else set()  # within a cosine of 0.95 of what is disliked
        assert set(whole) == allowed - {"i100"} - copies
        if exact_below > 300:
            assert seen == whole


def test_a_selection_is_ranked_as_if_there_were_nothing_else(tmp_path: Path) -> None:
    snapshot = many(tmp_path, fuse=False, exact_below=1000)
    history = [Event("i100", "play", NOW + 1000)]
    picked = [item["item_id"] for item in snapshot.recommend(history, 10, include_items=["i5", "i100", "i90", "i200", "never heard of"])]
    assert picked == ["i90", "i5", "i200"]
    assert snapshot.recommend(history, 10, include_items=[]) == []
    assert [item["item_id"] for item in snapshot.recommend([], 10, include_items=["i5", "i2"], exclude_items=["i7"])] == ["i2", "i5"]


@pytest.mark.parametrize("fuse", [True, False])
def test_what_an_item_is_there_for_is_what_lowers_it_when_left_out(tmp_path: Path, fuse: bool) -> None:
    snapshot = many(tmp_path, fuse, exact_below=1000)
    history = [Event(id, "play", NOW + n * 1000) for n, id in enumerate(["i20", "i90", "i24"])]
    answer = snapshot.recommend(history, 100)
    reasons = reasons_of(snapshot, history, answer)
    assert sum(map(bool, reasons)) > 20
    for item, because in zip(answer, reasons, strict=True):
        assert [reason["share"] for reason in because] == sorted((reason["share"] for reason in because), reverse=True)
        for reason in because:
            without = [event for event in history if event.item_id != reason["item_id"]]
            scores = {item["item_id"]: item["score"] for item in snapshot.recommend(without, 300)}
            assert scores[item["item_id"]] < item["score"]
            lost = (item["score"] - scores[item["item_id"]]) / item["score"]
            assert reason["share"] == pytest.approx(min(1.0, lost), rel=1e-3, abs=1e-6)
    best = {item["item_id"]: [reason["item_id"] for reason in because] for item, because in zip(answer, reasons, strict=True)}
    assert set(best["i22"]) == {"i20", "i24"}
    assert reasons_of(snapshot, [], snapshot.recommend([], 3)) == [[], [], []]
    red: dict[str, Any] = {"filters": {"colour": {"any": ["red"]}}, "exclude_items": ["i21"]}
    (item, *_), (because, *_) = (chosen := snapshot.recommend(history, 5, **red)), reasons_of(snapshot, history, chosen, **red)
    without = [event for event in history if event.item_id != because[0]["item_id"]]
    left = next(other["score"] for other in snapshot.recommend(without, 300, **red) if other["item_id"] == item["item_id"])
    assert because[0]["share"] == pytest.approx(min(1.0, (item["score"] - left) / item["score"]), rel=1e-3)


def test_why_not_names_the_stage_at_which_an_item_falls_out(tmp_path: Path) -> None:
    plain = many(tmp_path, fuse=True, exact_below=1000)
    told = plain.shelf.table.append_column("item_id", pa.array([plain.vocab.id(row) for row in plain.shelf.rows.tolist()]))
    snapshot = Snapshot.load(Registry(tmp_path / "releases").open()).stocked(
        merge([told, pa.table({"item_id": ["i9", "i8"], "withdrawn": [1, 0]})])
    )
    history = [Event(id, kind, NOW + n * 1000) for n, (id, kind) in enumerate(
        [("i100", "play"), ("i0", "dislike"), ("i200", "skip"), ("i50", "dislike"), ("i50", "play")]
    )]  # fmt: skip
    red = {"colour": {"any": ["red"]}}

    def stage(item: str, **wish: Any) -> str:
        return why_not(snapshot, history, item, wish.pop("k", 5), **wish)["stage"]

    assert [stage(item) for item in ("nobody", "i9", "i100", "i0", "i200", "i50", "i1")] == [
        "unknown", "withdrawn", "seen", "dislike", "skip", "seen", "near copy"
    ]  # fmt: skip
    assert stage("i101", exclude_items=["i101"]) == "excluded"
    assert stage("i101", include_items=["i102"]) == "not included"
    assert why_not(snapshot, history, "i101", 5, filters=red)["detail"] == "it does not meet the filter on colour"
    answer = snapshot.recommend(history, 10)
    for place, item in enumerate(answer, 1):
        found = why_not(snapshot, history, item["item_id"], 5)
        assert (found["stage"], found["rank"]) == ("recommended" if place <= 5 else "ranked", place)
        assert found["score"] == pytest.approx(item["score"])
    assert stage("i50", exclude_seen=False, k=200) == "recommended"
    assert why_not(snapshot, [], "i0", 5)["rank"] == 1


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    home = tmp_path_factory.mktemp("home")
    many(home, fuse=True, exact_below=1000)
    assert Home(home).items == home / "items"
    with served(home) as client:
        yield client


def test_over_http_pages_go_on_though_the_person_goes_on_too(api: httpx.Client) -> None:
    seen: list[str] = []
    parameters: dict[str, Any] = {"k": 30, "filters": json.dumps({"colour": {"any": ["red"]}}), "exclude_items": ["i3", "i6"]}
    for page in range(5):
        answer = api.get("/v1/recommend/ann", params=parameters)
        seen += ids(answer)
        parameters["cursor"] = answer.json()["next_cursor"]
        if parameters["cursor"] is None:
            break
        api.post("/v1/events", json=event("ann", f"i{page}"))
    assert page == 3
    assert len(seen) == len(set(seen)) >= 94
    assert set(seen) <= {f"i{n}" for n in range(0, 300, 3)} - {"i3", "i6"}


def test_over_http_reasons_and_their_absence_are_told(api: httpx.Client) -> None:
    api.post("/v1/events", json=[event("kim", "i100"), event("kim", "i0", "dislike")])
    plain, told = (api.get("/v1/recommend/kim?k=3", params=more) for more in ({"k": 3}, {"k": 3, "explain": "true"}))
    assert ids(plain) == ids(told)
    assert all("because" not in item for item in plain.json()["items"])
    assert [[reason["item_id"] for reason in item["because"]] for item in told.json()["items"]] == [["i100"]] * 3
    brought = api.post("/v1/recommend", json={"history": [{"item_id": "i100"}], "k": 3, "explain": True})
    assert brought.json()["items"][0]["because"][0]["item_id"] == "i100"
    answer = api.get(f"/v1/why-not/kim/{ids(plain)[1]}?k=3").json()
    assert (answer["stage"], answer["rank"], answer["release"]) == ("recommended", 2, "000001")
    assert api.get("/v1/why-not/kim/i1").json()["detail"] == "it is nearly the same as 'i0', which the person dislikes"


def test_over_http_a_history_brings_its_wishes_along(api: httpx.Client) -> None:
    body = {"history": [{"item_id": "i100"}], "k": 2, "filters": {"colour": {"none": ["red"]}}, "include_items": ["i98", "i99", "i101"]}
    first = api.post("/v1/recommend", json=body)
    assert set(ids(first)) == {"i98", "i101"}
    assert ids(api.post("/v1/recommend", json={**body, "cursor": first.json()["next_cursor"]})) == []


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"filters": "red"}, 'filters is JSON such as {"genres": {"any": ["Drama"]}}, written for an address; got \'red\''),
        (
            {"filters": '{"color": {"any": ["red"]}}'},
            "filters: no item has a column 'color'; did you mean 'colour'? allowed: colour, genres, title",
        ),
        ({"cursor": "x"}, "cursor: this is none; send the next_cursor of the last answer, or none for the first page"),
    ],
)
def test_over_http_a_wish_that_makes_no_sense_is_refused(api: httpx.Client, parameters: dict[str, str], says: str) -> None:
    answer = api.get("/v1/recommend/ann", params=parameters)
    assert (answer.status_code, answer.json()) == (422, {"detail": says})


def test_half_of_a_character_and_no_number_are_refused_in_a_filter(tmp_path: Path) -> None:
    publish_release(tmp_path, ["a", "b"])
    Catalogue(tmp_path / "items").put(pa.Table.from_pylist([{"item_id": "a", "genres": ["Drama"], "year": 1999}]))
    with served(tmp_path) as api:
        for body in ('{"genres": {"any": ["\\ud800"]}}', '{"year": {"min": NaN}}', '{"year": {"max": -Infinity}}'):
            answer = api.post(
                "/v1/recommend", content=f'{{"history": [], "filters": {body}}}', headers={"content-type": "application/json"}
            )
            assert answer.status_code == 422, answer.text
            assert answer.json()["detail"].startswith("filters.")
