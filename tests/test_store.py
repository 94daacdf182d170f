"""Two machines and one store: what one publishes the other serves, of two at once one wins, and nothing half done is ever seen."""

import asyncio
import logging
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pyarrow as pa
import pytest
import redis
from buckets import before_the_next_line, bucket_settings, credentials, joined, s3_server
from fastapi import HTTPException
from typer.testing import CliRunner
from worlds import event_table, publish_release

from recsys import shared as journal
from recsys.backup import backup, restore
from recsys.catalogue import Catalogue
from recsys.cli import app
from recsys.errors import BadInput, ReleaseDamaged, Superseded
from recsys.home import Home
from recsys.joined import open_home, pull
from recsys.journal import Journal
from recsys.log import Log
from recsys.registry import Registry, Release
from recsys.settings import Settings, load_settings
from recsys.store import Store, StoreAway
from serving import archive as archiver
from serving.api import _restock
from serving.archive import archive
from serving.engine import Engine
from serving.profiles import stream_key

ITEMS = ["alien", "brazil", "casablanca", "dune"]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    yield from s3_server()


@pytest.fixture(scope="module")
def deaf() -> Iterator[str]:
    yield from s3_server("--deaf")


@pytest.fixture(autouse=True)
def bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials(monkeypatch)


@pytest.fixture
def settings(s3: str, request: pytest.FixtureRequest) -> Settings:
    """Settings that name an empty folder in the bucket."""
    return bucket_settings(s3, str(abs(hash(request.node.name))))


@pytest.fixture
def a(settings: Settings, tmp_path: Path) -> Home:
    return open_home(tmp_path / "a", settings)


@pytest.fixture
def b(settings: Settings, tmp_path: Path) -> Home:
    return open_home(tmp_path / "b", settings)


def registry(home: Home) -> Registry:
    return Registry(home.releases, home.shared)


def publish(home: Home, text: str = "towers") -> Release:
    """Publish a release of two files that nobody could serve."""
    with registry(home).draft() as draft:
        (draft / "strategy").mkdir()
        (draft / "towers").write_text(text)
        (draft / "strategy" / "state").write_text(text)
        about = {"position": {"offset": 0, "until": None}}
        return registry(home).publish(draft, registry(home).next_id(), registry(home).current(), about)


def log(home: Home) -> Log:
    return Log(home.log, home.shared)


def catalogue(home: Home) -> Catalogue:
    return Catalogue(home.items, home.shared)


def events(*ids: int) -> pa.Table:
    return event_table(
        [{"timestamp": 1000 + n, "user_id": "ann", "item_id": "alien", "event_type": "play", "event_id": f"e{n}"} for n in ids]
    )


def ids(home: Home) -> list[str]:
    return log(home).read()["event_id"].to_pylist()


def in_the_store(home: Home, room: str) -> list[str]:
    return list(joined(home).store.names(f"{room}/"))


def power_cut(*_: object) -> None:
    raise KeyboardInterrupt


# Releases


def test_what_one_machine_publishes_another_serves_and_a_rollback_there_is_seen_here(a: Home, b: Home) -> None:
    publish_release(a.path, ITEMS[:2], shared=a.shared)
    first = publish_release(a.path, ITEMS[:3], shared=a.shared)
    publish_release(a.path, ITEMS, shared=a.shared)
    pull(b)
    engine = Engine(b.releases)
    assert engine.refresh()
    assert engine.snapshot is not None
    assert (engine.snapshot.id, registry(b).ids()) == ("000003", ["000001", "000002", "000003"])
    assert registry(b).open().verify().manifest == registry(a).open().manifest
    registry(b).point_to("000002")
    pull(a)
    assert registry(a).current() == first.id == "000002"


def test_a_server_brings_down_only_what_is_live(a: Home, b: Home) -> None:
    publish(a)
    publish(a)
    registry(b).pull(all=False)
    assert registry(b).ids() == ["000002"]


def test_of_two_that_publish_at_once_one_wins_and_the_other_is_superseded(a: Home, b: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before_the_next_line(a, monkeypatch, lambda: publish(b, "others"))
    with pytest.raises(Superseded, match="the live release became 000001 while this one was built from None"):
        publish(a)
    assert registry(a).ids() == []
    pull(a)
    assert registry(a).open().verify().manifest == registry(b).open().manifest


def test_a_rollback_elsewhere_supersedes_the_job_that_was_running(a: Home, b: Home) -> None:
    publish(a)
    publish(a)
    pull(b)
    registry(b).point_to("000001")
    with pytest.raises(Superseded, match="became 000001 while this one was built from 000002"):
        publish(a)


def test_machines_that_race_leave_one_winner_each_time(settings: Settings, tmp_path: Path) -> None:
    homes = [open_home(tmp_path / str(number), settings) for number in range(3)]
    for turn in range(1, 4):
        for home in homes:
            pull(home)
        won: list[int] = []
        gate = threading.Barrier(len(homes))

        def race(number: int, won: list[int], gate: threading.Barrier) -> None:
            with registry(homes[number]).draft() as draft:
                (draft / "towers").write_text(f"{number}")
                gate.wait()
                try:
                    about = {"position": {"offset": 0, "until": None}}
                    registry(homes[number]).publish(draft, registry(homes[number]).next_id(), registry(homes[number]).current(), about)
                    won.append(number)
                except Superseded:
                    pass

        racers = [threading.Thread(target=race, args=(number, won, gate)) for number in range(len(homes))]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert len(won) == 1
        for home in homes:
            pull(home)
        assert [registry(home).open().verify().file("towers").read_text() for home in homes] == [f"{won[0]}"] * 3
        assert registry(homes[0]).current() == f"{turn:06d}"


def test_killed_between_upload_and_claim_nothing_is_seen_and_the_next_publish_works(
    a: Home, b: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(joined(a).store, "put_if_absent", power_cut)
        with pytest.raises(KeyboardInterrupt):
            publish(a)
    left = in_the_store(b, "releases")
    pull(b)
    assert (registry(b).ids(), registry(b).current()) == ([], None)
    publish(b, "others")
    pull(a)
    assert registry(a).open().verify().id == "000001"
    assert len(left) == 3
    registry(a).collect(keep=1)
    assert set(left) < set(in_the_store(a, "releases"))  # it might still be on its way
    monkeypatch.setattr(journal, "LEFT_OVER", timedelta(0))
    registry(a).collect(keep=1)
    assert not set(left) & set(in_the_store(a, "releases"))


def test_killed_between_claim_and_rename_the_next_look_brings_it_back(a: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("recsys.registry.os.rename", power_cut)
        with pytest.raises(KeyboardInterrupt):
            publish(a)
    assert registry(a).current() is None
    pull(a)
    assert registry(a).open().verify().id == "000001"


@pytest.mark.parametrize("name", ["towers", "manifest.json"])
def test_a_damaged_download_is_refused_and_the_old_release_stays_live(a: Home, b: Home, name: str) -> None:
    publish(a)
    pull(b)
    publish(a)
    damaged = next(path for path in in_the_store(a, "releases") if path.startswith("releases/000002/") and path.endswith(name))
    content = bytearray(joined(a).store.read(damaged))
    content[len(content) // 2] ^= 1
    (a.path / "damaged").write_bytes(content)
    joined(a).store.put({damaged: a.path / "damaged"})
    with pytest.raises(ReleaseDamaged, match=f"release 000002.*: {name}.* is not the file that was published"):
        pull(b)
    assert (registry(b).ids(), registry(b).current()) == (["000001"], "000001")
    assert not list(b.releases.glob(".draft-*"))


def test_what_goes_live_while_another_is_brought_down_waits_for_the_next_look(a: Home, b: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(a)
    honest = Store.get

    def late(store: Store, files: dict[str, Path]) -> None:
        monkeypatch.setattr(Store, "get", honest)
        publish(a)
        honest(store, files)

    monkeypatch.setattr(Store, "get", late)
    pull(b)
    assert (registry(b).ids(), registry(b).current()) == (["000001"], None)
    pull(b)
    assert registry(b).open().verify().id == "000002"


def test_gc_here_takes_the_files_there_and_the_releases_of_others(a: Home, b: Home) -> None:
    for _ in range(4):
        publish(a)
    pull(b)
    assert registry(a).collect(keep=1) == ["000001", "000002"]
    assert {path.split("/")[1] for path in in_the_store(a, "releases")} == {"000003", "000004"}
    pull(b)
    assert registry(b).ids() == ["000003", "000004"]
    registry(b).open().verify()


# The log


def test_events_that_two_machines_add_at_once_are_all_there_once(a: Home, b: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    log(a).append(events(0))
    before_the_next_line(a, monkeypatch, lambda: log(b).append(events(1, 2)))
    assert log(a).append(events(2, 3, 4)) == 2
    pull(b)
    assert ids(a) == ids(b) == ["e0", "e1", "e2", "e3", "e4"]


def test_two_that_add_the_very_same_bytes_at_once_count_them_once(a: Home, b: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    gained = []
    before_the_next_line(a, monkeypatch, lambda: gained.append(log(b).append(events(1, 2))))
    gained.append(log(a).append(events(1, 2)))
    assert gained == [2, 0]
    assert ids(a) == ["e1", "e2"]


def test_killed_before_the_store_s_segment_is_here_the_next_look_brings_it(a: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("recsys.files.os.link", power_cut)
        with pytest.raises(KeyboardInterrupt):
            log(a).append(events(1, 2))
    assert len(Log(a.log)) == 0
    assert log(a).append(events(1, 2, 3)) == 1
    assert ids(a) == ["e1", "e2", "e3"]


def test_segments_put_together_by_any_machine_hold_every_event_once(settings: Settings, tmp_path: Path) -> None:
    homes = [open_home(tmp_path / str(number), settings) for number in range(3)]
    gained: list[int] = []

    def work(number: int) -> None:
        for turn in range(8):
            gained.append(log(homes[number]).append(events(3 * turn, 3 * turn + number)))  # the first is everybody's
            log(homes[number]).compact()

    machines = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for machine in machines:
        machine.start()
    for machine in machines:
        machine.join()
    for home in homes:
        pull(home)
        log(home).compact()
    for home in homes:
        pull(home)
        assert sorted(ids(home), key=lambda id: int(id[1:])) == [f"e{n}" for n in range(24)]
    assert sum(gained) == 24
    assert ids(homes[0]) == ids(homes[1]) == ids(homes[2])
    assert len(log(homes[0]).segments()) < 12
    assert {segment.name("log") for segment in joined(homes[0]).look().log} <= set(in_the_store(homes[0], "log"))


def test_a_machine_that_slept_cannot_write_over_what_others_put_together(a: Home, b: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    log(a).append(events(0))

    def long_sleep() -> None:
        for number in range(1, 20):
            log(b).append(events(number))
            log(b).compact()

    before_the_next_line(a, monkeypatch, long_sleep)
    assert log(a).append(events(*range(15, 25))) == 5
    pull(b)
    assert sorted(ids(b)) == sorted(ids(a)) == sorted(f"e{n}" for n in range(25))


def test_a_damaged_segment_is_refused(a: Home, b: Home) -> None:
    log(a).append(events(1))
    (a.path / "damaged").write_bytes(b"nothing")
    joined(a).store.put({in_the_store(a, "log")[0]: a.path / "damaged"})
    with pytest.raises(BadInput, match="is not the file that was put there"):
        pull(b)
    assert len(Log(b.log)) == 0


def test_a_damaged_line_is_refused_and_the_home_stays_where_it_is(a: Home, b: Home) -> None:
    log(a).append(events(1))
    pull(b)
    for content in (b"half a li", b"[]", b'{"log": {"first": 7, "behind": 9, "sha256": ""}, "instead": false}'):
        (a.path / "damaged").write_bytes(content)
        joined(a).store.put({"journal/000000000002.json": a.path / "damaged"})
        with pytest.raises(BadInput, match=r"journal/000000000002.json in the store .* is not the line that was put there"):
            pull(b)
    assert ids(b) == ["e1"]


def test_a_new_machine_reads_the_sum_and_not_every_line(a: Home, b: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SUMMED_UP", 4)
    for number in range(6):
        log(a).append(events(number))
    read: list[str] = []
    honest = joined(b).store.read
    monkeypatch.setattr(joined(b).store, "read", lambda name: (read.append(name), honest(name))[1])
    pull(b)
    assert len(ids(b)) == 6
    lines = [name for name in read if name.startswith("journal/")]
    assert lines[:3] == [f"journal/{n:012d}.json" for n in (5, 6, 7)]


# Items


def test_items_described_anywhere_are_known_everywhere(a: Home, b: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    row = pa.table({"item_id": ["alien"], "title": ["Alien"], "genres": pa.array([["Horror"]], pa.list_(pa.string()))})
    other = row.set_column(0, "item_id", pa.array(["brazil"]))
    before_the_next_line(a, monkeypatch, lambda: catalogue(b).put(other))
    assert catalogue(a).add(row) == 1
    monkeypatch.setattr("recsys.catalogue.SEGMENTS", 3)
    for _ in range(3):
        catalogue(b).put(other)
    pull(a)
    assert set(catalogue(a).items()) == set(catalogue(b).items()) == {"alien", "brazil"}
    assert len(in_the_store(a, "items")) == len(catalogue(a).segments()) == 2


# Joining


def test_what_a_home_held_goes_into_an_empty_store_and_a_kill_in_the_middle_changes_nothing(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Home(tmp_path / "old")
    Log(old.log).append(events(0, 1))
    Log(old.log).append(events(2))
    Catalogue(old.items).put(pa.table({"item_id": ["alien"], "title": ["Alien"]}))
    publish_release(old.path, ITEMS[:2])
    publish_release(old.path, ITEMS)
    Registry(old.releases).point_to("000001")
    honest = Store.put
    for survived in range(6):
        calls = iter(range(survived + 1))

        def put(store: Store, files: dict[str, Path], calls: Iterator[int] = calls) -> None:
            if next(calls, None) is None:
                raise KeyboardInterrupt
            honest(store, files)

        monkeypatch.setattr(Store, "put", put)
        try:
            home = open_home(old.path, settings)
        except KeyboardInterrupt:
            continue
    new = open_home(tmp_path / "new", settings)
    pull(new)
    assert ids(new) == ids(home) == ["e0", "e1", "e2"]
    assert set(catalogue(new).items()) == {"alien"}
    assert (registry(new).ids(), registry(new).current()) == (["000001", "000002"], "000001")
    registry(new).open().verify()


def test_a_home_with_events_of_its_own_does_not_join_a_store_with_others(a: Home, settings: Settings, tmp_path: Path) -> None:
    log(a).append(events(1))
    Log(tmp_path / "other" / "log").append(events(2))
    with pytest.raises(BadInput, match=r"holds events or releases of its own, and the store .* has others; join it with an empty home"):
        open_home(tmp_path / "other", settings)


def test_a_home_that_shares_a_store_does_not_go_its_own_way_unasked(a: Home, settings: Settings) -> None:
    log(a).append(events(1))
    with pytest.raises(BadInput, match=r"is a copy of a store; name it in store.url, or remove"):
        open_home(a.path, Settings())
    other = load_settings(overrides={"store.url": "s3://bucket/other", "store.endpoint": settings.store.endpoint}, environ={})
    with pytest.raises(BadInput, match=r"shares the store s3://bucket/.*, and store.url says s3://bucket/other"):
        open_home(a.path, other)


def test_a_backup_of_such_a_home_starts_another_store(a: Home, settings: Settings, tmp_path: Path) -> None:
    log(a).append(events(1))
    publish(a)
    backup(a, tmp_path / "backup")
    restore(tmp_path / "backup", Home(tmp_path / "restored"))
    with pytest.raises(BadInput, match="holds events or releases of its own"):
        open_home(tmp_path / "restored", settings)
    anew = load_settings(overrides={"store.url": f"{settings.store.url}-anew", "store.endpoint": settings.store.endpoint}, environ={})
    open_home(tmp_path / "restored", anew)
    pull(new := open_home(tmp_path / "new", anew))
    assert (ids(new), registry(new).open().verify().id) == (["e1"], "000001")


@pytest.mark.parametrize("url", ["file:///mnt/store", "memory://store", "ftp://host/store", "/mnt/store", "gs://bucket/x"])
def test_a_store_that_cannot_put_if_absent_is_refused_by_its_name(url: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot put a file only where none is.*name s3://BUCKET/FOLDER, or leave store.url empty"):
        open_home(tmp_path, load_settings(overrides={"store.url": url}, environ={}))


def test_a_server_that_does_not_hear_the_condition_is_refused_before_anything_is_written(deaf: str, tmp_path: Path) -> None:
    Log(tmp_path / "log").append(events(1))
    settings = bucket_settings(deaf, "deaf")
    with pytest.raises(BadInput, match="puts a file where one is, though it was asked not to"):
        open_home(tmp_path, settings)
    assert list(Store(settings.store.url, deaf).names()) == ["recsys"]


def test_what_was_put_by_a_request_whose_answer_was_lost_is_not_taken_for_anothers(settings: Settings) -> None:
    store = Store(settings.store.url, settings.store.endpoint)
    store.put_if_absent("line", b"mine")
    store.put_if_absent("line", b"mine")
    with pytest.raises(FileExistsError):
        store.put_if_absent("line", b"another's")
    assert store.read("line") == b"mine"


def test_what_is_put_together_while_it_is_brought_down_is_looked_up_again(a: Home, b: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(7):
        log(a).append(events(number))
    honest = Store.get

    def late(store: Store, files: dict[str, Path]) -> None:
        monkeypatch.setattr(Store, "get", honest)
        log(a).append(events(7))
        assert log(a).compact() == 7
        honest(store, files)

    monkeypatch.setattr(Store, "get", late)
    pull(b)
    assert (len(ids(b)), len(log(b).segments())) == (8, 1)


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    for url, endpoint in (("s3://key:secret@bucket/x", ""), ("http://key:secret@host/x", ""), ("s3://bucket/x", "http://key:secret@host")):
        with pytest.raises(BadInput) as refusal:
            Store(url, endpoint)
        assert "secret" not in str(refusal.value)


def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(BadInput, match=r"a store needs the extra s3: pip install 'recsys\[s3\]'"):
        open_home(tmp_path, load_settings(overrides={"store.url": "s3://bucket/x"}, environ={}))


def test_a_bucket_that_is_not_there_is_one_line(s3: str, tmp_path: Path) -> None:
    with pytest.raises(StoreAway, match=r"there is no bucket 'nowhere'; make it first, or name another in store.url"):
        open_home(tmp_path, load_settings(overrides={"store.url": "s3://nowhere/x", "store.endpoint": s3}, environ={}))


# The store is away


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that takes the store from a home, and gives a function that gives it back."""
    monkeypatch.setattr("recsys.store.ATTEMPTS", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"

    def take(home: Home) -> Any:
        honest = joined(home).store
        joined(home).store = Store(honest.url, nobody)
        return lambda: setattr(joined(home), "store", honest)

    return take


def test_while_the_store_is_away_a_server_goes_on_and_says_so_once(a: Home, b: Home, away: Any, caplog: pytest.LogCaptureFixture) -> None:
    publish_release(a.path, ITEMS[:2], shared=a.shared)
    pull(b)
    engine = Engine(b.releases, 0.02, b.items, b.shared)
    assert engine.refresh()
    publish_release(a.path, ITEMS, shared=a.shared)
    give_back = away(b)

    async def serve() -> list[str]:
        tasks = [asyncio.create_task(engine.watch()), asyncio.create_task(engine.follow(0.02))]
        served = []
        for back in (False, True):
            for _ in range(400):
                await asyncio.sleep(0.05)
                if engine.snapshot and engine.snapshot.id == "000002" if back else "goes on serving" in caplog.text:
                    break
            if not back:
                await asyncio.sleep(0.5)
                give_back()
            served.append(engine.snapshot.id if engine.snapshot else "nothing")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return served

    with caplog.at_level(logging.INFO, "recsys.engine"):
        assert asyncio.run(serve()) == ["000001", "000002"]
    said = [record.getMessage() for record in caplog.records if record.name == "recsys.engine"]
    assert [line.split(": ")[0] for line in said if "store" in line] == ["what is here goes on serving", "the store can be used again"]
    assert f"the store {joined(b).store.url} cannot be used" in caplog.text


def test_while_the_store_is_away_an_item_is_refused_with_the_reason(a: Home, away: Any) -> None:
    publish_release(a.path, ITEMS[:2], shared=a.shared)
    engine = Engine(a.releases, 1.0, a.items, a.shared)
    away(a)
    request: Any = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(engine=engine)))
    with pytest.raises(HTTPException, match=f"503: the catalogue cannot be written: the store {joined(a).store.url} cannot be used"):
        asyncio.run(_restock(request, {"item_id": "new", "title": "New"}))
    assert catalogue(a).segments() == []


def waiting(client: redis.Redis, *ids: int) -> None:
    for row in events(*ids).to_pylist():
        row["timestamp"] = int(row["timestamp"].timestamp() * 1000)
        client.xadd(stream_key("t", 0), {"event": orjson.dumps({name: value for name, value in row.items() if value is not None})})


def test_while_the_store_is_away_archive_fails_and_loses_nothing(a: Home, b: Home, away: Any, store: redis.Redis) -> None:
    waiting(store, 1, 2)
    assert archive(store, "t", a.log, Journal(a.job), a.shared) == 2
    waiting(store, 3, 4)
    give_back = away(a)
    with pytest.raises(StoreAway, match=r"the store s3://bucket/.* cannot be used: "):
        archive(store, "t", a.log, Journal(a.job), a.shared)
    assert (store.xlen(stream_key("t", 0)), len(Log(a.log))) == (2, 2)
    give_back()
    assert archive(store, "t", a.log, Journal(a.job), a.shared) == 2
    assert archive(store, "t", b.log, Journal(b.job), b.shared) == 0  # and brings down what there is
    assert (store.xlen(stream_key("t", 0)), ids(b)) == (0, ["e1", "e2", "e3", "e4"])


def test_the_store_goes_away_in_the_middle_and_the_stream_keeps_what_it_does_not_have(
    a: Home, b: Home, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise StoreAway("gone")

    for part in ("put", "put_if_absent"):
        waiting(store, 1, 2)
        with monkeypatch.context() as patch:
            patch.setattr(joined(a).store, part, gone)
            with pytest.raises(StoreAway):
                archive(store, "t", a.log, Journal(a.job), a.shared)
        assert store.xlen(stream_key("t", 0)) in (2, 4)
        assert len(Log(a.log)) == 0
    assert archive(store, "t", b.log, Journal(b.job), b.shared) == 2
    pull(a)
    assert (store.xlen(stream_key("t", 0)), ids(a)) == (0, ["e1", "e2"])


def test_two_archivers_at_once_bring_every_event_once_and_neither_thinks_that_any_were_lost(
    a: Home, b: Home, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting(store, 0)
    assert archive(store, "t", a.log, Journal(a.job), a.shared) == 1
    for turn in range(1, 4):
        waiting(store, 2 * turn)

        def meanwhile(turn: int = turn) -> None:
            waiting(store, 2 * turn + 1)
            archive(store, "t", b.log, Journal(b.job), b.shared)

        before_the_next_line(a, monkeypatch, meanwhile)
        archive(store, "t", a.log, Journal(a.job), a.shared)
    assert archive(store, "t", b.log, Journal(b.job), b.shared) == 0
    assert ids(a) == ids(b) == ["e0", *(f"e{n}" for n in range(2, 8))]
    assert store.xlen(stream_key("t", 0)) == 0
    assert Journal(a.job).read() == Journal(b.job).read() == []


def test_an_archiver_that_read_the_notes_before_another_took_events_looks_again(
    a: Home, b: Home, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting(store, 1)
    archive(store, "t", a.log, Journal(a.job), a.shared)
    honest, done = archiver._name_of_streams, []

    def later(client: redis.Redis, tenant: str) -> str:
        if not done:
            done.append(True)
            waiting(store, 2, 3)
            archive(store, "t", b.log, Journal(b.job), b.shared)
        return honest(client, tenant)

    monkeypatch.setattr(archiver, "_name_of_streams", later)
    waiting(store, 4)
    assert archive(store, "t", a.log, Journal(a.job), a.shared) == 0
    assert Journal(a.job).read() == []
    assert ids(a) == ["e1", "e4", "e2", "e3"]


# The command


def published_again(home: Home) -> None:
    """Publish the files of the live release once more."""
    release = registry(home).open()
    about = {name: told for name, told in release.manifest.items() if name not in ("id", "parent", "created", "content", "files", "sha256")}
    with registry(home).draft() as draft:
        shutil.copytree(release.folder, draft, dirs_exist_ok=True)
        (draft / "manifest.json").unlink()
        registry(home).publish(draft, registry(home).next_id(), release.id, about)


def test_the_command_shares_a_store_between_two_homes(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported_once: None
) -> None:
    monkeypatch.setenv("RECSYS_STORE__URL", settings.store.url)
    monkeypatch.setenv("RECSYS_STORE__ENDPOINT", settings.store.endpoint)

    def recsys(command: str, home: str) -> Any:
        result = CliRunner().invoke(app, [*command.split(), "--home", str(tmp_path / home), "--json"], catch_exceptions=False)
        assert result.exit_code == 0
        return orjson.loads(result.stdout)

    small = "--set model.dim=8 --set model.features=16 --set training.epochs=1 --set data.history=5"
    recsys("simulate --users 15 --items 40 --days 15", "a")
    assert recsys(f"fit {small}", "b")["release"] == "000001"
    assert recsys("status", "a")["release"] == "000001"
    told = recsys("status", "b")
    assert (told["events"], told["items_described"]) == (recsys("status", "a")["events"], recsys("status", "a")["items_described"])
    for _ in range(2):
        published_again(open_home(tmp_path / "a", settings))
    assert recsys("rollback", "b") == {"live": "000002", "was": "000003"}
    assert recsys("releases", "a")["live"] == "000002"
    assert recsys("rollback 000003", "a") == {"live": "000003", "was": "000002"}
    assert recsys("gc --keep 1", "b") == {"removed": ["000001"], "left": ["000002", "000003"]}
    assert [release["id"] for release in recsys("releases", "a")["releases"]] == ["000002", "000003"]
    assert {path.split("/")[1] for path in Store(settings.store.url, settings.store.endpoint).names("releases/")} == {"000002", "000003"}
    assert "secret" not in (tmp_path / "a" / "store" / "state.json").read_text()
