import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from worlds import DAY, NOW, publish_release

from recsys.errors import BadInput, ReleaseDamaged, ReleaseNotFound
from recsys.events import CODE, EVENT_TYPES, SCHEMA
from recsys.neighbours import Neighbours
from recsys.registry import Registry, sealed
from recsys.sessions import Histories, Sessions, histories, sessionise
from recsys.settings import Data, NeighbourSettings, Settings
from serving.engine import Engine
from serving.history import Event, History
from serving.snapshot import Ask, ItemNotFound, Snapshot
from serving.together import MOST, Together

CORNERS = {"north": (0, 1), "north-east": (1, 1), "east": (1, 0), "south-east": (1, -1), "south": (0, -1), "west": (-1, 0)}
"""Items on a compass: who is near whom can be seen. Popularity falls in this order."""


def compass(tmp_path, **options) -> Snapshot:
    return Snapshot.load(publish_release(tmp_path, list(CORNERS), np.array(list(CORNERS.values()), float), **options))


def did(*items: str, kind: str = "play", start: int = NOW) -> list[Event]:
    return [Event(item, kind, start + n * 1000) for n, item in enumerate(items)]


def ids(answer: list[dict]) -> list[str]:
    return [item["item_id"] for item in answer]


ALONE = Settings(neighbours=NeighbourSettings(fuse=False))


def those_who_go_west() -> Neighbours:
    """Three people who went from east to west within the hour; rows as in CORNERS, from 1."""
    start, item = np.array([0, 2, 4, 6]), np.array([3, 6] * 3, np.int32)
    times = NOW - np.repeat([3, 2, 1], 2) * 3_600_000 + np.tile([0, 60_000], 3)
    memory = Neighbours()
    memory.add(Sessions(["a", "b", "c"], start, item, np.full(6, CODE["play"], np.int8), times, np.repeat(range(3), 2), np.arange(6)))
    return memory


def test_what_neighbours_went_on_to_is_recommended_and_says_so(tmp_path):
    memory = those_who_go_west()
    answer = compass(tmp_path, neighbours=memory, weights=(0.8, 0.0)).recommend(did("east"), 5)
    assert (answer[0]["item_id"], answer[0]["source"]) == ("west", "neighbours")
    likely = np.exp([-1, np.sqrt(0.5), np.sqrt(0.5), 0, 0])
    by_towers = 0.2 * likely / likely.sum()
    by_votes = 0.8  # the votes for "east" itself are left out: who votes for it speaks for west alone
    assert answer[0]["score"] == pytest.approx(by_votes + by_towers[0], rel=1e-5)
    assert [item["score"] for item in answer[1:]] == pytest.approx(by_towers[1:], rel=1e-5)
    assert {item["source"] for item in answer[1:]} == {"tower"}


def test_votes_for_what_is_excluded_disliked_or_seen_count_for_nothing(tmp_path):
    snapshot = compass(tmp_path, neighbours=those_who_go_west(), weights=(0.8, 0.0))
    assert "west" not in ids(snapshot.recommend(did("east"), 10, exclude_items=["west"]))
    disliked = did("west", kind="dislike") + did("east", start=NOW + 5000)
    assert "west" not in ids(snapshot.recommend(disliked, 10, exclude_seen=False))
    assert ids(snapshot.recommend(did("east"), 2, exclude_seen=False))[0] in ("west", "east")
    alone = compass(tmp_path / "alone").recommend(did("east"), 10, exclude_items=["west"])
    assert ids(snapshot.recommend(did("east"), 10, exclude_items=["west"])) == ids(alone)  # nobody has a vote left


def test_whoever_neighbours_know_nothing_of_is_answered_by_the_towers(tmp_path):
    snapshot = compass(tmp_path, neighbours=those_who_go_west(), weights=(0.8, 0.0))
    answer = snapshot.recommend(did("north"), 3)
    assert ids(answer)[0] == "north-east"
    assert {item["source"] for item in answer} == {"tower"}


def test_what_is_popular_can_win_and_says_so(tmp_path):
    answer = compass(tmp_path, counts=[0, 0, 0, 0, 0, 9], weights=(0.0, 0.9)).recommend(did("east"), 2)
    assert [(item["item_id"], item["source"]) for item in answer] == [("west", "popular"), (answer[1]["item_id"], "tower")]
    assert answer[0]["score"] > 0.9


def test_the_nearest_unseen_items_come_first(tmp_path):
    answer = compass(tmp_path).recommend(did("east"), 3)
    assert set(ids(answer)[:2]) == {"north-east", "south-east"}
    assert "east" not in ids(answer)
    assert [item["source"] for item in answer] == ["tower"] * 3
    likely = np.exp([np.sqrt(0.5), np.sqrt(0.5), 0, 0, -1])  # among all but "east" itself
    assert [item["score"] for item in answer] == pytest.approx((likely / likely.sum())[:3], rel=1e-5)


def test_without_fusion_a_score_is_what_the_towers_say(tmp_path):
    answer = compass(tmp_path, settings=ALONE, neighbours=those_who_go_west()).recommend(did("east"), 3)
    assert set(ids(answer)[:2]) == {"north-east", "south-east"}
    assert answer[0]["score"] == pytest.approx(np.sqrt(0.5), abs=1e-5)
    assert [item["source"] for item in answer] == ["tower"] * 3


def test_seen_items_come_back_when_asked_for(tmp_path):
    assert ids(compass(tmp_path).recommend(did("east"), 1, exclude_seen=False)) == ["east"]


@pytest.mark.parametrize("kind", ["dislike", "skip"])
def test_disliked_and_skipped_items_stay_out_even_when_seen_ones_are_allowed(tmp_path, kind):
    history = did("east") + did("north-east", kind=kind, start=NOW + 5000)
    answer = ids(compass(tmp_path).recommend(history, 10, exclude_seen=False))
    assert "north-east" not in answer
    assert "east" in answer


@pytest.mark.parametrize("fuse", [True, False])
def test_near_copies_of_what_is_disliked_stay_out_and_what_is_like_it_comes_later(tmp_path, fuse):
    items = {**CORNERS, "east again": (1, 0.1)}
    settings = Settings(neighbours=NeighbourSettings(fuse=fuse))
    snapshot = Snapshot.load(publish_release(tmp_path, list(items), np.array(list(items.values()), float), settings=settings))
    liked = did("north-east", "south-east")
    before = snapshot.recommend(liked, 10)
    after = snapshot.recommend(liked + did("east", kind="dislike", start=NOW + 5000), 10)
    assert set(ids(before)) - set(ids(after)) == {"east", "east again"}
    assert ids(before)[:2] == ["east", "east again"]
    skipped = snapshot.recommend(liked + did("east", kind="skip", start=NOW + 5000), 10)
    assert "east again" in ids(skipped)


@pytest.mark.parametrize("fuse", [True, False])
def test_towers_that_never_learned_from_dislikes_do_not_take_one_for_a_view(tmp_path, fuse):
    settings = Settings(neighbours=NeighbourSettings(fuse=fuse))
    snapshot = replace(compass(tmp_path, settings=settings), kinds=np.zeros(len(EVENT_TYPES), np.int64))
    liked, no = did("north"), did("south", kind="dislike", start=NOW + 5000)
    before, after = ({item["item_id"]: item["score"] for item in snapshot.recommend(history, 10)} for history in (liked, liked + no))
    assert [item for item in after if after[item] < before[item] - 1e-6] == ["south-east"]
    assert ids(snapshot.recommend(no, 10)) == [item for item in CORNERS if item not in ("south", "south-east")] + ["south-east"]


def test_the_newest_word_about_an_item_counts(tmp_path):
    history = did("east", kind="dislike") + did("east", start=NOW + 5000)
    assert "east" in ids(compass(tmp_path).recommend(history, 10, exclude_seen=False))


def test_excluded_items_stay_out_and_unknown_ones_are_no_error(tmp_path):
    answer = ids(compass(tmp_path).recommend(did("east"), 10, exclude_items=["north-east", "never heard of"]))
    assert sorted(answer) == sorted(set(CORNERS) - {"east", "north-east"})


@pytest.mark.parametrize(
    "history", [[], did("never heard of"), did("north", kind="impression")], ids=["empty", "unknown", "only impressions"]
)
def test_who_did_nothing_we_know_gets_the_popular_items(tmp_path, history):
    answer = compass(tmp_path).recommend(history, 3)
    assert ids(answer) == ["north", "north-east", "east"]
    assert {item["source"] for item in answer} == {"popular"}
    assert [item["score"] for item in answer] == pytest.approx([1, 5 / 6, 4 / 6])


def test_asking_for_more_than_there_is_gives_every_other_item_once(tmp_path):
    answer = ids(compass(tmp_path).recommend(did("east", "north"), 500))
    assert sorted(answer) == sorted(set(CORNERS) - {"east", "north"})
    assert "<unknown>" not in answer


def test_what_an_approximate_index_misses_is_filled_from_popular(tmp_path, monkeypatch):
    monkeypatch.setattr("recsys.index.POPULAR", 10)
    names = [f"i{n}" for n in range(400)]
    snapshot = Snapshot.load(publish_release(tmp_path, names, exact_below=0, settings=ALONE))
    snapshot.index.faiss.nprobe = 1
    answer = snapshot.recommend(did("i7"), 300)
    assert len(set(ids(answer))) == 300
    assert "i7" not in ids(answer)
    sources = [item["source"] for item in answer]
    assert 0 < sources.count("tower") < 300
    assert sources == sorted(sources, reverse=True)  # tower first


def test_an_approximate_index_leaves_no_gaps_in_a_fused_answer_either(tmp_path):
    snapshot = Snapshot.load(publish_release(tmp_path, [f"i{n}" for n in range(400)], exact_below=0, weights=(0.4, 0.3)))
    snapshot.index.faiss.nprobe = 1
    answer = snapshot.recommend(did("i7"), 399)
    assert sorted(ids(answer)) == sorted({f"i{n}" for n in range(400)} - {"i7"})


def test_titles_are_given_where_known(tmp_path):
    answer = {item["item_id"]: item.get("title") for item in compass(tmp_path).recommend([], 6)}
    assert answer["north"] == "Film north"
    assert answer["north-east"] is None


def test_popularity_lifts_what_is_recommended_but_not_what_is_similar(tmp_path):
    bias = [0.0, 0.0, 0.0, 0.0, 0.9, 0.0]  # "south" stands at a right angle to "east"
    snapshot = compass(tmp_path, bias=bias, settings=ALONE)
    assert ids(compass(tmp_path / "fused", bias=bias).recommend(did("east"), 1)) == ["south"]
    answer = snapshot.recommend(did("east"), 1)
    assert ids(answer) == ["south"]
    assert answer[0]["score"] == pytest.approx(0.9, abs=1e-5)
    assert set(ids(snapshot.similar("east", 2))) == {"north-east", "south-east"}


def test_similar_items_are_the_nearest_without_the_item_itself(tmp_path):
    snapshot = compass(tmp_path)
    assert set(ids(snapshot.similar("east", 2))) == {"north-east", "south-east"}
    assert len(snapshot.similar("east", 100)) == len(CORNERS) - 1
    with pytest.raises(ItemNotFound, match="does not know item 'nowhere'"):
        snapshot.similar("nowhere", 2)


def test_the_tower_sees_exactly_the_history_that_training_cuts(tmp_path):
    settings = Settings(data=Data(history=5))
    snapshot = compass(tmp_path, settings=settings)
    kinds = ["play", "dislike", "impression", "like", "skip", "watch", "click", "play", "undo", "complete"]
    items = ["north", "nobody", "east", "south", "west", "east", "north", "nobody", "south", "north-east"]
    times = [NOW + n * n * DAY // 3 for n in range(10)]
    spy = Spy(snapshot)
    snapshot = replace(snapshot, user_tower=spy)
    snapshot.recommend(History.of(Event(i, k, t) for i, k, t in zip(items, kinds, times, strict=True)).standing(), 3)
    rows = [{"event_id": str(n), "user_id": "ann", "item_id": items[n], "timestamp": times[n], "event_type": kinds[n]} for n in range(10)]
    rows.append({"event_id": "next", "user_id": "ann", "item_id": "north", "timestamp": times[-1] + DAY, "event_type": "play"})
    table = pa.table({f.name: pa.array([row.get(f.name) for row in rows]).cast(f.type) for f in SCHEMA}, schema=SCHEMA)
    sessions = sessionise(table, snapshot.vocab.base)
    expected = histories(sessions, np.array([len(sessions) - 1]), limit=5)
    assert spy.fed == [[expected.item.tolist(), expected.kind.tolist(), expected.gap.tolist()]]
    assert len(expected.item) == 5


class Spy:
    """A user tower that keeps what it is fed: for each person the rows, kinds and gaps of what is not padding."""

    def __init__(self, snapshot):
        self.tower, self.vectors, self.fed = snapshot.user_tower, snapshot.vectors[:], []

    def run(self, names, feed):
        for items, kinds, gaps, length in zip(*(feed[name] for name in ("items", "kinds", "gaps", "lengths")), strict=True):
            rows = [int(np.flatnonzero((self.vectors == vector).all(axis=1))[0]) for vector in items[:length]]
            self.fed.append([rows, kinds[:length].tolist(), gaps[:length].tolist()])
        return self.tower.run(names, feed)


def test_people_asked_together_are_answered_as_each_alone(tmp_path):
    snapshot = compass(tmp_path, weights=(0.3, 0.2))
    spy = Spy(snapshot)
    asks = [
        Ask(History.of(did("east")), 3),
        Ask(History.of([]), 2),
        Ask(History.of(did("north", "east", "nobody", "west")), 5, exclude_seen=False),
        Ask(History.of([Event("east", "play", NOW), Event("south", "dislike", NOW + 1)]), 2, exclude_items=["north"]),
        Ask(History.of(did("west")), 4, include_items=["east", "north"]),
    ]
    alone = [snapshot.recommend_many([ask])[0] for ask in asks]
    together = replace(snapshot, user_tower=spy).recommend_many(asks)
    assert [ids(answer) for answer in together] == [ids(answer) for answer in alone]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose([item["score"] for item in one], [item["score"] for item in other], rtol=1e-5)
    assert [len(rows) for rows, _, _ in spy.fed] == [1, 3, 2, 1]


def test_kinds_order_and_gaps_reach_the_tower(tmp_path):
    snapshot = compass(tmp_path)

    def user(rows, kinds, times):
        return snapshot._users(Histories(np.array([0, 2]), np.array(rows), np.array(kinds), np.array(times)))[0]

    base = user([1, 3], [2, 2], [NOW, NOW + 60_000])
    assert not np.allclose(base, user([3, 1], [2, 2], [NOW, NOW + 60_000]))
    assert not np.allclose(base, user([1, 3], [2, CODE["dislike"]], [NOW, NOW + 60_000]))
    assert not np.allclose(base, user([1, 3], [2, 2], [NOW, NOW + 8 * DAY]))


FILES = [
    "vectors.npy",
    "prototypes.npy",
    "bias.npy",
    "items.parquet",
    "items.faiss",
    "user_tower.onnx",
    "config.toml",
    "index.json",
    "towers.safetensors",
]


@pytest.mark.parametrize("name", [*FILES, "fusion.json", "neighbours/about.json", "neighbours/item.npy"])
def test_a_release_with_a_changed_file_is_refused_and_the_old_one_keeps_serving(tmp_path, caplog, name):
    publish_release(tmp_path, list(CORNERS))
    engine = Engine(tmp_path / "releases")
    assert engine.refresh()
    broken = publish_release(tmp_path, [*CORNERS, "centre"]).file(name)
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 1
    broken.write_bytes(content)
    assert not engine.refresh()
    assert not engine.refresh()
    assert engine.snapshot is not None
    assert engine.snapshot.id == "000001"
    assert [record.message.count("\n") for record in caplog.records] == [0]  # once, one line
    assert "000001 keeps serving" in caplog.text


BROKEN = {"vectors.npy": b"x", "manifest.json": b"{", "../CURRENT": b"\xff nonsense", "manifest.json ": b"{}", "manifest.json  ": b"[]"}


@pytest.mark.parametrize("name", BROKEN)
def test_a_first_release_that_is_broken_is_one_line_with_the_way_out_and_another_is_still_taken(tmp_path, caplog, name):
    publish_release(tmp_path, list(CORNERS))
    broken = publish_release(tmp_path, [*CORNERS, "centre"])
    broken.file(name.strip()).write_bytes(BROKEN[name])
    engine = Engine(tmp_path / "releases")
    assert not engine.refresh()
    assert not engine.refresh()
    (said,) = (record.message for record in caplog.records)
    for text in (said, engine.missing):
        assert "recsys rollback or recsys fit" in text
        assert "\n" not in text
    assert "no release is serving" in said
    Registry(tmp_path / "releases").point_to("000001")
    assert engine.refresh()


def rewrite(release, name: str, content: bytes) -> None:
    """Change a file and its hash: a release that was published wrong, not damaged later."""
    import hashlib

    release.file(name).write_bytes(content)
    manifest = {**release.manifest, "files": {**release.manifest["files"], name: hashlib.sha256(content).hexdigest()}}
    release.file("manifest.json").write_text(json.dumps(sealed(manifest), indent=1))


@pytest.mark.parametrize(
    "name", ["vectors.npy", "prototypes.npy", "bias.npy", "items.parquet", "items.faiss", "user_tower.onnx", "index.json"]
)
def test_parts_of_two_releases_are_refused_even_when_every_hash_fits(tmp_path, name):
    other = publish_release(tmp_path / "other", [*CORNERS, "centre"], dim=4).file(name).read_bytes()
    release = publish_release(tmp_path, list(CORNERS))
    rewrite(release, name, other)
    with pytest.raises(ReleaseDamaged):
        Snapshot.load(Registry(tmp_path / "releases").open())


def test_a_release_of_which_any_file_was_changed_is_refused_and_the_old_one_keeps_serving(tmp_path):
    """A thousand times: a byte flipped, lost or added, a file cut off, emptied or gone, in any file, the manifest among them."""
    publish_release(tmp_path, list(CORNERS))
    engine = Engine(tmp_path / "releases")
    assert engine.refresh()
    release = publish_release(tmp_path, [*CORNERS, "centre"])
    files = [path for path in sorted(release.folder.rglob("*")) if path.is_file()]
    rng, hit = np.random.default_rng(0), set()
    for number in range(1000):
        path = files[number % len(files)]
        whole = path.read_bytes()
        at = int(rng.integers(len(whole)))
        harmed = {
            0: whole[:at] + bytes([whole[at] ^ (1 << int(rng.integers(8)))]) + whole[at + 1 :],
            1: whole[:at] + whole[at + 1 :],
            2: whole[:at] + b"0" + whole[at:],
            3: whole[:at],
            4: b"",
        }.get(int(rng.integers(6)))
        if harmed is None:
            path.unlink()
        else:
            path.write_bytes(harmed)
        with pytest.raises((ReleaseDamaged, ReleaseNotFound)):
            Snapshot.load(Registry(tmp_path / "releases").open())
        if number % 50 == 0:
            os.utime(tmp_path / "releases" / "CURRENT", ns=(number, number))  # as if it had just gone live
            assert not engine.refresh()
            assert engine.snapshot.id == "000001"
        path.write_bytes(whole)
        hit.add(path.name)
    assert {"manifest.json", "vectors.npy", "items.faiss", "user_tower.onnx", "about.json", "config.toml"} <= hit
    assert Snapshot.load(Registry(tmp_path / "releases").open()).id == "000002"


def test_a_new_release_is_swapped_in_and_a_rollback_back(tmp_path):
    publish_release(tmp_path, ["a", "b"])
    engine = Engine(tmp_path / "releases", watch_seconds=0.01)

    async def wait_for(id: str) -> None:
        async with asyncio.timeout(10):
            while engine.snapshot is None or engine.snapshot.id != id:
                await asyncio.sleep(0.005)

    async def main() -> None:
        watch = asyncio.create_task(engine.watch())
        await wait_for("000001")
        before = engine.snapshot
        publish_release(tmp_path, ["a", "b", "c"])
        await wait_for("000002")
        assert before is not None
        assert len(before.recommend([], 10)) == 2  # a request that began on it can finish
        assert engine.snapshot is not None
        assert len(engine.snapshot.recommend([], 10)) == 3
        Registry(tmp_path / "releases").point_to("000001")
        await wait_for("000001")
        watch.cancel()

    asyncio.run(main())


def test_there_may_be_no_release_yet(tmp_path):
    engine = Engine(tmp_path / "releases")
    assert not engine.refresh()
    assert engine.snapshot is None


def test_serving_imports_no_torch():
    code = (
        "import sys, serving.run, serving.archive; bad = {'torch', 'lightning', 'training', 'onnx'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_of_those_who_are_answered_together_nobody_suffers_from_anothers_mistake(tmp_path, monkeypatch):
    publish_release(tmp_path, list(CORNERS))
    engine = Engine(tmp_path / "releases")
    engine.refresh()
    asked = []
    whole = Snapshot.recommend_many
    monkeypatch.setattr(Snapshot, "recommend_many", lambda self, asks: (asked.append(len(asks)), whole(self, asks))[1])

    async def main():
        together, good = Together(lambda: engine.snapshot), Ask(History.of(did("east")), 2)
        first = await asyncio.gather(*(together.recommend(good) for _ in range(MOST + 3)))
        assert asked == [MOST, 3]
        bad = replace(good, filters={"nothing": {"any": ["x"]}})
        mixed = await asyncio.gather(*(together.recommend(ask) for ask in (good, bad, good)), return_exceptions=True)
        return first, mixed

    first, mixed = asyncio.run(main())
    alone = whole(engine.snapshot, [Ask(History.of(did("east")), 2)])[0]
    assert all(snapshot is engine.snapshot and ids(found) == ids(alone) for snapshot, found in first)
    assert isinstance(mixed[1], BadInput)
    assert [ids(found) for _, found in (mixed[0], mixed[2])] == [ids(alone)] * 2


def test_a_release_without_somebody_who_was_forgotten_is_loaded_under_its_old_name(tmp_path, caplog):
    publish_release(tmp_path, ["a", "b", "c"])
    engine = Engine(tmp_path / "releases")
    engine.refresh()
    before = engine.snapshot
    assert not engine.refresh()
    assert engine.snapshot is before
    Registry(tmp_path / "releases").rewrite("000001", lambda folder: Neighbours(capacity=7).write(folder))
    assert engine.refresh()
    assert engine.snapshot.neighbours.capacity == 7
    assert not engine.refresh()
