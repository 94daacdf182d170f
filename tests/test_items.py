"""Items that come and go while a release is served: in the engine, over HTTP, in a second server, and over a restart."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from test_api import event, ids, served, wait_until
from worlds import NOW, publish_release

from recsys import catalogue as catalogues
from recsys.catalogue import WITHDRAWN, Catalogue
from recsys.content import features, placed
from recsys.settings import NeighbourSettings, Settings
from serving.cursor import fingerprints
from serving.engine import Engine
from serving.history import Event
from serving.snapshot import ItemNotFound, Snapshot
from serving.stock import Names, Rows

NEW = {"item_id": "new", "title": "Heat 2", "genres": ["Crime", "Drama"]}


def a_release(home: Path, fuse: bool = True, exact_below: int = 1000) -> Any:
    """60 items around a circle in a release, the item tower's content table beside it."""
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False) + np.random.default_rng(0).normal(size=60) / 100
    settings = Settings(neighbours=NeighbourSettings(fuse=fuse, fresh=1.5))
    names = [f"i{n}" for n in range(60)]
    return publish_release(home, names, np.column_stack([np.cos(turn), np.sin(turn)]), settings=settings, exact_below=exact_below)


def near(snapshot: Snapshot, vector: np.ndarray) -> str:
    """The item of the release that is nearest to a vector."""
    return snapshot.vocab.id(int(np.argmax(snapshot.vectors.base @ vector)))


@pytest.fixture(params=[(True, 1000), (False, 1000), (True, 10)], ids=["fused", "alone", "approximate"])
def plain(request: pytest.FixtureRequest, tmp_path: Path) -> Snapshot:
    fuse, exact_below = request.param
    return Snapshot.load(a_release(tmp_path, fuse, exact_below))


def rows(*told: dict[str, Any]) -> pa.Table:
    """A catalogue in which all of these were put."""
    return catalogues.merge([catalogues.SCHEMA.empty_table(), *(pa.Table.from_pylist([{WITHDRAWN: 0, **row}]) for row in told)])


def test_a_new_item_stands_where_its_content_puts_it(plain: Snapshot) -> None:
    table = load_file(plain.folder / "towers.safetensors")["items.content.weight"]
    where = placed(table, features(NEW, plain.buckets))
    assert np.linalg.norm(where) == pytest.approx(1)
    stocked = plain.stocked(rows(NEW))
    neighbour = near(plain, where)
    history = [Event(neighbour, "play", NOW + 1000)]
    answer = stocked.recommend(history, 200)
    place = {item["item_id"]: number for number, item in enumerate(answer)}
    assert len(place) == len(answer) == 60  # all but the one in the history, and the new one
    assert answer[place["new"]]["title"] == "Heat 2"
    assert ids_of(stocked.similar("new", 3))[0] == neighbour
    assert "new" in [item["item_id"] for item in stocked.similar(neighbour, 5)]
    assert ids_of(stocked.recommend([Event("new", "play", NOW + 1000)], 3))[0] in ids_of(stocked.similar("new", 3))
    assert "new" not in ids_of(stocked.recommend([*history, Event("new", "dislike", NOW + 2000)], 200))
    if plain.fusion is None:
        assert place["new"] <= 5  # its popularity is that of what nobody has watched
        assert answer[place["new"]]["score"] == pytest.approx(float(where @ plain.vectors[plain.vocab.row(neighbour)]), abs=1e-5)
    with pytest.raises(ItemNotFound):
        plain.similar("new", 3)


def ids_of(answer: list[dict[str, Any]]) -> list[str]:
    return [item["item_id"] for item in answer]


def test_what_is_only_described_is_not_on_the_shelf(plain: Snapshot) -> None:
    described = catalogues.merge([catalogues.SCHEMA.empty_table(), pa.Table.from_pylist([NEW])])
    for catalogue in (described, catalogues.merge([described, rows({"item_id": "other"})])):
        assert "new" not in ids_of(plain.stocked(catalogue).recommend([Event("i3", "play", NOW + 1000)], 200))


def test_one_of_which_nothing_is_known_can_be_recommended_at_the_end(plain: Snapshot) -> None:
    stocked = plain.stocked(rows({"item_id": "bare"}))
    assert "bare" in ids_of(stocked.recommend([Event("i3", "play", NOW + 1000)], 200))
    assert ids_of(stocked.recommend([], 200))[-1] == "bare"


def test_what_is_withdrawn_is_nowhere_and_the_rest_as_before(plain: Snapshot) -> None:
    history = [Event("i3", "play", NOW + 1000)]
    gone = ids_of(plain.recommend(history, 12))[:10]
    before = ids_of(plain.recommend(history, 30))
    stocked = plain.stocked(rows(*({"item_id": id, WITHDRAWN: 1} for id in [*gone, "never heard of"])))
    for asked in (history, []):
        for k in (5, 200):
            assert not set(ids_of(stocked.recommend(asked, k))) & set(gone)
    assert len(stocked.recommend(history, 200)) == 60 - 1 - 10
    assert ids_of(stocked.recommend(history, 5)) == [id for id in before if id not in gone][:5]
    assert not set(ids_of(stocked.similar("i3", 60))) & set(gone)
    assert len(stocked.similar("i3", 60)) == 49
    assert ids_of(stocked.recommend(history, 5, include_items=[*gone, "i40"])) == ["i40"]
    assert not set(ids_of(stocked.recommend(history, 5, exclude_seen=False))) & set(gone)
    back = plain.stocked(rows(*({"item_id": id, WITHDRAWN: 1} for id in gone), *({"item_id": id, WITHDRAWN: 0} for id in gone)))
    assert ids_of(back.recommend(history, 30)) == before


def test_pages_and_filters_know_what_came(plain: Snapshot) -> None:
    stocked = plain.stocked(rows(NEW, {"item_id": "i7", "genres": ["Crime"]}))
    history, crime = [Event("i3", "play", NOW + 1000)], {"genres": {"any": ["Crime"]}}
    assert set(ids_of(stocked.recommend(history, 10, filters=crime))) == {"new", "i7"}
    assert ids_of(stocked.recommend(history, 10, filters=crime, shown=fingerprints(["i7"]))) == ["new"]
    assert ids_of(stocked.recommend(history, 10, filters=crime, shown=fingerprints(["new"]))) == ["i7"]


def test_rows_behind_rows() -> None:
    both = Rows(np.arange(6.0).reshape(3, 2), np.array([[7.0, 8.0]]))
    assert (len(both), both.width) == (4, 2)
    np.testing.assert_array_equal(both[np.array([3, 0, 2])], [[7, 8], [0, 1], [4, 5]])
    np.testing.assert_array_equal(both[3], [7, 8])
    np.testing.assert_array_equal(both[1], [2, 3])


def test_a_put_costs_a_segment_and_many_are_tidied_up_without_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogues, "SEGMENTS", 3)
    catalogue = Catalogue(tmp_path)
    catalogue.add(catalogues.merge([catalogues.SCHEMA.empty_table(), pa.Table.from_pylist([{"item_id": "a", "title": "A", "year": 1990}])]))
    for n in range(9):
        catalogue.put(pa.Table.from_pylist([{"item_id": f"b{n % 4}", "year": n, WITHDRAWN: n % 2}]))
        assert len(catalogue.segments()) <= 3
    assert catalogue.read().to_pylist() == [
        {"item_id": "a", "title": "A", "genres": None, "year": 1990, "withdrawn": None},
        *({"item_id": f"b{n}", "title": None, "genres": None, "year": [8, 5, 6, 7][n], "withdrawn": n % 2} for n in range(4)),
    ]
    assert features({"item_id": "a", WITHDRAWN: 1}, 100) == []


def test_a_reader_beside_somebody_who_tidies_up_sees_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue(tmp_path)
    for id in "ab":
        catalogue.put(rows({"item_id": id}))
    whole, read = catalogue.read(), pq.read_table

    def tidied_first(path: Path) -> pa.Table:
        monkeypatch.setattr(pq, "read_table", read)
        catalogue._written(lambda: whole, instead=True)
        return read(path)

    monkeypatch.setattr(pq, "read_table", tidied_first)
    assert catalogue.read()["item_id"].to_pylist() == ["a", "b"]


def test_a_catalogue_that_cannot_be_read_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a_release(tmp_path)
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "000000.parquet").write_bytes(b"no parquet")
    engine = Engine(tmp_path / "releases", 1.0, tmp_path / "items")
    assert engine.refresh()
    assert engine.snapshot is not None
    assert len(engine.snapshot.recommend([], 10)) == 10
    assert f"the catalogue in {tmp_path / 'items'} is left out" in caplog.text


def withdrawn_or_not(api: httpx.Client, item: str) -> bool:
    return item not in ids(api.get("/v1/recommend/ann?k=200"))


def test_over_http_in_two_servers_and_over_a_restart(tmp_path: Path) -> None:
    a_release(tmp_path)
    with served(tmp_path) as api:
        api.post("/v1/events", json=event("ann", "i3"))
        assert api.put("/v1/items/a new/one", json={"title": "Heat 2", "year": 2026, "cast": ["Pacino"]}).json()["release_knows"] is False
        assert not withdrawn_or_not(api, "a new/one")
        refused = api.put("/v1/items/another", json={"title": "Heat 3", "year": "soon"})
        assert (refused.status_code, refused.json()["detail"]) == (422, "year: this column holds numbers, one an item; got 'soon'")
        assert api.put("/v1/items/another", json={"cast": "Pacino", "year": 2027.5}).status_code == 200
        refused = api.put("/v1/items/another", json={"year": ["2027"]})
        assert (refused.status_code, refused.json()["detail"]) == (422, "year: this column holds numbers, one an item; got \"['2027']\"")
        alone = api.get("/v1/recommend/ann", params={"filters": '{"cast": {"any": ["Pacino"]}, "year": {"min": 2027}}'})
        assert ids(alone) == ["another"]
        api.delete("/v1/items/another")
        found = api.get("/v1/recommend/ann", params={"filters": '{"cast": {"any": ["Pacino"]}, "year": {"min": 2026}}'})
        assert ids(found) == ["a new/one"]
        with served(tmp_path) as other:
            assert not withdrawn_or_not(other, "a new/one")
            assert api.delete("/v1/items/i4").status_code == 200
            assert withdrawn_or_not(api, "i4")
            assert api.get("/v1/why-not/ann/another").json()["stage"] == "withdrawn"
            wait_until(lambda: withdrawn_or_not(other, "i4"), 5)
            assert other.put("/v1/items/i4", json={}).json()["release_knows"] is True
            assert not withdrawn_or_not(other, "i4")
            wait_until(lambda: not withdrawn_or_not(api, "i4"), 5)
        api.delete("/v1/items/i5")
        assert api.put("/v1/items/i6", json={"cast": [], "genres": []}).status_code == 200
    with served(tmp_path) as api:
        assert (withdrawn_or_not(api, "i5"), withdrawn_or_not(api, "a new/one")) == (True, False)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"year": True}, "year: a column holds texts, numbers or lists of texts; write 0 or 1 for true"),
        ({"withdrawn": 1}, "'withdrawn' is no name for a column: "),
        ({"item_id": "x"}, "'item_id' is no name for a column: "),
        ({"1st": "x"}, "'1st' is no name for a column: "),
        ({"year": 2**60}, "is too large a number"),
        ({f"c{n}": 1 for n in range(65)}, "an item has 64 columns at most; got 65"),
        ({"genres": "Drama"}, "genres: input should be a valid list; got 'Drama'"),
        ({"cast": {"lead": "Pacino"}}, "cast"),
        ({"title": "x" * 2001}, "title: string should have at most 2000 characters"),
    ],
)
def test_an_item_that_makes_no_sense_is_refused(shop: httpx.Client, body: dict[str, Any], says: str) -> None:
    answer = shop.put("/v1/items/i1", json=body)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("shop")
    a_release(home)
    with served(home) as client:
        yield client


def test_names_count_on_behind_the_release(plain: Snapshot) -> None:
    names = Names(plain.vocab.base, ["x", "y"])
    assert (len(names), names.row("y"), names.row("i0"), names.row("z")) == (63, 62, 1, 0)
    assert [names.id(row) for row in (1, 60, 61, 62)] == ["i0", "i59", "x", "y"]
    assert names.rows(["x", "i1", "?"]).tolist() == [61, 2, 0]
