import asyncio
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import orjson
import pytest
import redis

from recsys.errors import RecsysError
from recsys.events import SCHEMA
from recsys.home import Home
from recsys.journal import Journal
from recsys.log import Log
from recsys.settings import Settings, load_settings
from serving import archive as archiving
from serving.archive import archive, archive_home
from serving.embedded import EmbeddedRedis
from serving.history import Event
from serving.profiles import PARTITIONS, Profiles, stream_key
from serving.wire import Wire


def send(server: EmbeddedRedis, *batch: Event) -> None:
    asyncio.run(_send_as(server, "t", *batch))


async def _send_as(server: EmbeddedRedis, tenant: str, *batch: Event) -> None:
    wire = Wire(server.url)
    await Profiles(wire, tenant).merge(batch)
    wire.close()


def plays(first: int, last: int) -> list[Event]:
    return [Event(f"i{n}", "play", 1_700_000_000_000 + n, event_id=f"e{n}", user_id=f"u{n % 7}") for n in range(first, last)]


def waiting(store: redis.Redis) -> int:
    return sum(store.xlen(stream_key("t", partition)) for partition in range(PARTITIONS))


def logged(folder) -> list[str]:
    return sorted(Log(folder).read()["event_id"].to_pylist(), key=lambda id: int(id[1:]))


def test_every_event_reaches_the_log_once_and_leaves_the_stream(server, store, tmp_path):
    send(server, *plays(0, 50))
    assert archive(store, "t", tmp_path) == 50
    assert waiting(store) == 0
    assert archive(store, "t", tmp_path) == 0
    send(server, *plays(50, 80))
    assert archive(store, "t", tmp_path) == 30
    assert logged(tmp_path) == [f"e{n}" for n in range(80)]


def test_the_log_holds_every_column_of_an_event(server, store, tmp_path):
    whole = Event("heat", "watch", 1_700_000_000_123, "e1", "ann", "s1", 0.5, "r1", "kids")
    bare = Event("heat", "impression", 1_700_000_000_124, session_id="s2")
    send(server, whole, bare)
    archive(store, "t", tmp_path)
    table = Log(tmp_path).read()
    assert table.schema.equals(SCHEMA)
    first, second = sorted(table.cast(SCHEMA).to_pylist(), key=lambda row: row["timestamp"])
    assert (first.pop("timestamp").timestamp(), second.pop("timestamp").timestamp()) == (1_700_000_000.123, 1_700_000_000.124)
    assert first == {
        "event_id": "e1", "user_id": "ann", "item_id": "heat", "event_type": "watch", "value": 0.5, "session_id": "s1",
        "request_id": "r1", "surface": "kids",
    }  # fmt: skip
    assert (second["user_id"], second["session_id"], second["value"], second["surface"]) == (None, "s2", None, None)
    assert second["event_id"] == bare.id


def test_events_keep_the_order_in_which_they_arrived(server, store, tmp_path):
    for n in (3, 1, 2, 0):
        send(server, *plays(n, n + 1))
        time.sleep(0.002)  # a stream counts in milliseconds
    archive(store, "t", tmp_path)
    assert Log(tmp_path).read()["event_id"].to_pylist() == ["e3", "e1", "e2", "e0"]


def test_more_than_one_read_drains_a_long_stream(server, store, tmp_path, monkeypatch):
    monkeypatch.setattr(archiving, "READ", 3)
    send(server, *plays(0, 100))
    assert archive(store, "t", tmp_path) == 100
    assert logged(tmp_path) == [f"e{n}" for n in range(100)]


class Killed(BaseException):
    """Stands for the end of the process."""


def killed(*_: object) -> None:
    raise Killed


@pytest.mark.parametrize("step", ["_read", "_table", "append", "_trim"])
def test_killed_at_any_step_and_run_again_nothing_is_lost_or_doubled(server, store, tmp_path, monkeypatch, step):
    send(server, *plays(0, 20))
    archive(store, "t", tmp_path)
    send(server, *plays(20, 40))
    whole = archiving._trim
    trims = iter([whole, killed])  # the second trim is the one behind the new segment
    with monkeypatch.context() as patch:
        if step == "append":
            patch.setattr(Log, "append", killed)
        elif step == "_trim":
            patch.setattr(archiving, "_trim", lambda *words: next(trims)(*words))
        else:
            patch.setattr(archiving, step, killed)
        with pytest.raises(Killed):
            archive(store, "t", tmp_path)
    assert waiting(store) == 20
    send(server, *plays(40, 45))
    assert archive(store, "t", tmp_path) == (5 if step == "_trim" else 25)
    assert logged(tmp_path) == [f"e{n}" for n in range(45)]
    assert waiting(store) == 0


def test_the_last_ids_travel_in_the_segment_and_what_is_behind_them_is_not_read_again(server, store, tmp_path, monkeypatch):
    send(server, *plays(0, 20))
    last = {n: store.xrevrange(stream_key("t", n), count=1)[0][0].decode() for n in range(PARTITIONS) if store.xlen(stream_key("t", n))}
    with monkeypatch.context() as patch:
        trims = iter([lambda *_: None, killed])
        patch.setattr(archiving, "_trim", lambda *words: next(trims)(*words))
        with pytest.raises(Killed):
            archive(store, "t", tmp_path)
    notes = Log(tmp_path).notes()
    assert {int(name.removeprefix("note.stream.")): id for name, id in notes.items() if name.startswith("note.stream.")} == last
    monkeypatch.setattr(archiving, "_table", killed)  # nothing is left to make a table of
    assert archive(store, "t", tmp_path) == 0
    assert waiting(store) == 0


def test_an_import_in_between_does_not_hide_the_last_ids(server, store, tmp_path):
    send(server, *plays(0, 5))
    archive(store, "t", tmp_path)
    notes = Log(tmp_path).notes()
    other = Log(tmp_path / "other")
    send(server, *plays(100, 103))
    archive(store, "t", tmp_path / "other")
    Log(tmp_path).append(other.read())
    assert Log(tmp_path).notes() == notes


def test_ids_of_another_redis_never_hide_events(server, store, tmp_path):
    send(server, *plays(0, 200))
    archive(store, "t", tmp_path)
    store.flushall()  # now it is another server, and what waits there came before the ids in the log
    for partition in range(PARTITIONS):
        event = asdict(plays(1000 + partition, 1001 + partition)[0])
        store.xadd(stream_key("t", partition), {"event": orjson.dumps(event)}, id="5-1")
    assert archive(store, "t", tmp_path) == PARTITIONS
    assert len(Log(tmp_path)) == 200 + PARTITIONS


def test_a_home_is_archived_with_its_own_redis(tmp_path):
    home = Home(tmp_path)
    with EmbeddedRedis(home.redis) as server:
        asyncio.run(_send_as(server, Settings().serving.tenant, *plays(0, 3)))
        assert archive_home(home, Settings()) == 3  # beside a server that runs
        asyncio.run(_send_as(server, Settings().serving.tenant, *plays(3, 5)))
    assert archive_home(home, Settings()) == 2  # and without one
    assert logged(home.log) == [f"e{n}" for n in range(5)]


@pytest.mark.parametrize(
    ("url", "says"), [("redis://127.0.0.1:1", "cannot read the event streams"), ("http://x", "must begin with redis://")]
)
def test_a_redis_that_cannot_be_reached_is_one_clear_error(tmp_path, url, says):
    settings = load_settings(environ={"RECSYS_REDIS_URL": url})
    with pytest.raises(RecsysError, match=says) as error:
        archive_home(Home(tmp_path), settings)
    assert "\n" not in str(error.value)


def losses(home: Home) -> list[tuple[int, str]]:
    return [(line["partition"], line["reason"]) for line in Journal(home.job).read() if line["what"] == "loss"]


def test_a_redis_that_was_set_back_is_told_and_nothing_new_is_passed_over(server, store, tmp_path, caplog):
    home = Home(tmp_path)
    send(server, *plays(0, 20))
    archive(store, "t", home.log, Journal(home.job))
    partition = next(n for n in range(PARTITIONS) if store.exists(stream_key("t", n)))
    key = stream_key("t", partition)
    last = store.xinfo_stream(key)["last-generated-id"].decode()
    store.delete(key)  # the same Redis, from an older copy of its files
    event = {**asdict(plays(500, 501)[0]), "event_id": "late"}
    store.xadd(key, {"event": orjson.dumps(event)}, id="7-1")
    store.xadd(key, {"event": orjson.dumps({**asdict(plays(0, 1)[0]), "event_id": "again"})}, id="7-2")
    assert archive(store, "t", home.log, Journal(home.job)) == 2
    assert {"late", "again"} <= set(Log(home.log).read()["event_id"].to_pylist())
    ((where, why),) = losses(home)
    assert where == partition
    assert why == f"its stream ends at 7-2, and {last} was taken: Redis was set back and may have lost events"
    assert caplog.messages == [f"partition {partition}: {why}"]
    assert archive(store, "t", home.log, Journal(home.job)) == 0
    assert len(losses(home)) == 1  # it is said once


def test_events_that_somebody_else_removed_are_counted(server, store, tmp_path):
    home = Home(tmp_path)
    send(server, *plays(0, 50))
    archive(store, "t", home.log, Journal(home.job))
    send(server, *plays(50, 100))
    partition = max(range(PARTITIONS), key=lambda n: store.xlen(stream_key("t", n)))
    removed = store.xlen(stream_key("t", partition)) - 1
    store.xtrim(stream_key("t", partition), maxlen=1, approximate=False)
    if "entries-added" not in store.xinfo_stream(stream_key("t", partition)):
        pytest.skip("this server cannot tell")
    assert archive(store, "t", home.log, Journal(home.job)) == 50 - removed
    (said,) = losses(home)
    assert said[0] == partition
    assert said[1].startswith(f"{removed} of its events were removed before anybody took them; the newest in the log is ")
    send(server, *plays(100, 150))
    assert archive(store, "t", home.log, Journal(home.job)) == 50
    assert len(losses(home)) == 1


def test_honest_streams_lose_nothing(server, store, tmp_path, monkeypatch):
    home = Home(tmp_path)
    monkeypatch.setattr(archiving, "READ", 3)
    for first in range(0, 200, 40):
        send(server, *plays(first, first + 40))
        archive(store, "t", home.log, Journal(home.job))
    assert losses(home) == []
    assert logged(home.log) == [f"e{n}" for n in range(200)]


def test_repeats_that_the_log_holds_already_are_no_loss(server, store, tmp_path):
    for _ in range(3):
        store.delete(*store.keys("*:seen:*") or ["none"])  # what was sent so long ago that nobody knows it is a repeat
        send(server, *plays(0, 4))
        archive(store, "t", tmp_path / "log", Journal(tmp_path))
    send(server, *plays(4, 6))
    assert archive(store, "t", tmp_path / "log", Journal(tmp_path)) == 2
    assert Journal(tmp_path).read() == []
    partition = next(number for number in range(PARTITIONS) if store.exists(stream_key("t", number)))
    store.xadd(stream_key("t", partition), {"event": b"{}"})
    store.xtrim(stream_key("t", partition), maxlen=0)
    archive(store, "t", tmp_path / "log", Journal(tmp_path))
    assert [line["what"] for line in Journal(tmp_path).read()] == ["loss"], "what is one is still told"


def test_under_steady_traffic_a_look_into_the_streams_comes_to_its_end(server, store, tmp_path, monkeypatch):
    """The job looks before it decides: were it to wait until nobody sends, it would never update."""
    sent, read = [], archiving._read

    def busy(*words):
        sent.append(len(sent))
        assert len(sent) < 10, "it does not end"
        send(server, *plays(20 * len(sent), 20 * len(sent) + 20))
        return read(*words)

    monkeypatch.setattr(archiving, "_read", busy)
    assert archive(store, "t", tmp_path) == 20
    monkeypatch.setattr(archiving, "READ", 3)
    monkeypatch.setattr(archiving, "_read", read)
    send(server, *plays(100, 200))
    assert archive(store, "t", tmp_path) == 100  # page by page, all that waited


def test_of_two_archivers_at_once_neither_takes_the_others_events_for_lost(server, store, tmp_path, monkeypatch):
    home, names, threads = Home(tmp_path), archiving._name_of_streams, []
    send(server, *plays(0, 50))
    archive(store, "t", home.log, Journal(home.job))
    send(server, *plays(50, 100))

    def overtaken(client, tenant):  # asked when the log was read and the streams were not yet
        found = names(client, tenant)
        if not threads:
            threads.append(threading.Thread(target=archive, args=(redis.Redis.from_url(server.url), "t", home.log, Journal(home.job))))
            threads[0].start()
            threads[0].join(1)
        return found

    monkeypatch.setattr(archiving, "_name_of_streams", overtaken)
    archive(store, "t", home.log, Journal(home.job))
    threads[0].join()
    assert losses(home) == []
    assert logged(home.log) == [f"e{n}" for n in range(100)]


def test_on_a_full_disk_events_wait_in_the_stream(tmp_path):
    """Files of more than a kilobyte cannot be written for a while."""
    home = Home(tmp_path)
    code = (
        "import resource, signal; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from recsys import cli; cli.main()"
    )
    with EmbeddedRedis(home.redis) as server:
        asyncio.run(_send_as(server, Settings().serving.tenant, *plays(0, 50)))
        words = [sys.executable, "-c", code, "archive", "--home", str(home.path)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
        assert [path.name for path in home.log.iterdir() if not path.name.startswith(".lock")] == []
        assert archive_home(home, Settings()) == 50
    assert logged(home.log) == [f"e{n}" for n in range(50)]
