"""Forgetting a person where machines share a store: gone from the bucket and from each machine, whatever they are at meanwhile."""

import itertools
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from buckets import before_the_next_line, bucket_settings, credentials, joined, s3_server
from person import BEGAN, NAME, SESSION, TRACES, fitted_home, ids, others, people, rows, take_in, traces
from worlds import event_table

from recsys.errors import Superseded
from recsys.forgotten import Asked, Forgotten, asked, hashed
from recsys.hidden import hides
from recsys.home import Home
from recsys.intake import import_events
from recsys.joined import open_home, pull
from recsys.log import Log
from recsys.neighbours import Neighbours
from recsys.registry import Registry
from recsys.sessions import owner_numbers
from recsys.settings import Settings
from recsys.shared import Moved, Shared
from recsys.store import Store, StoreAway
from serving.archive import archive_home
from serving.embedded import EmbeddedRedis
from serving.forget import complete, forget
from training import job
from training.candidate import Candidate
from training.forget import forget as clean

PHONE = "phone-55cd"
"""A session of hers that only one of the machines has seen."""


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    yield from s3_server()


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, exported_once: None) -> Home:
    return fitted_home(tmp_path_factory.mktemp("forget") / "a")


@pytest.fixture
def settings(s3: str, fitted: Home, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Settings:
    credentials(monkeypatch)
    return bucket_settings(s3, f"{abs(hash(request.node.name))}", fitted.config)


@pytest.fixture
def a(fitted: Home, settings: Settings, tmp_path: Path) -> Home:
    """The machine that trains: what it holds is in the store."""
    subprocess.run(["cp", "-r", str(fitted.path), str(tmp_path / "a")], check=True)
    return open_home(tmp_path / "a", settings)


@pytest.fixture
def b(a: Home, settings: Settings, tmp_path: Path) -> Home:
    """A machine that serves, which has what is live and the log."""
    home = open_home(tmp_path / "b", settings)
    subprocess.run(["cp", str(a.config), str(home.config)], check=True)
    pull(home, all=False)
    return home


def log(home: Home) -> Log:
    return Log(home.log, home.shared)


def registry(home: Home) -> Registry:
    return Registry(home.releases, home.shared)


def told(home: Home) -> list[str]:
    return ids(log(home).read().to_pylist())


def traces_in_the_store(home: Home, also: tuple[bytes, ...] = ()) -> list[str]:
    """Return which files of the bucket tell of her: every byte, Parquet unpacked."""
    store, found = joined(home).store, []
    for name in store.names():
        content = store.read(name)
        if name.endswith(".parquet"):
            content += json.dumps(pq.read_table(BytesIO(content)).to_pylist(), default=str).encode()
        if any(trace in content for trace in (*TRACES, *also)):
            found.append(name)
    return found


def everything(home: Home, tmp_path: Path, settings: Settings) -> list[str]:
    """Return what tells of her in a machine, in the bucket, and in a machine that brings all of that down."""
    new = open_home(tmp_path / f"new-{time.monotonic_ns()}", settings)
    pull(new)
    return [*traces(home), *traces_in_the_store(home), *traces(new)]


def test_it_is_gone_from_the_store_and_from_every_machine_when_it_looks_next(a: Home, b: Home, settings: Settings, tmp_path: Path) -> None:
    log(a).append(event_table(rows(240, 250)))
    with EmbeddedRedis(b.redis) as server:
        take_in(server.url, rows(250, 300))
        take_in(server.url, [{**rows(0, 1)[0], "user_id": None, "session_id": PHONE, "event_id": "c"}])
        people(server.url, lambda profiles: profiles.sign_in(PHONE, NAME))
        assert archive_home(b, settings) == 51
        take_in(server.url, rows(300, 310))
    assert {"000002 neighbours", "000002 memory"} < set(traces(b))
    assert traces_in_the_store(a)

    receipt = forget(a, settings, NAME, clean)
    assert receipt["completed"]
    assert "each machine erases what it has when it looks next" in receipt["store"]
    assert "versions" not in receipt["store"]
    everybody = ids([*others(event_table(rows(0, 300))), {"event_id": "c"}])
    assert everything(a, tmp_path, settings) == []
    assert told(a) == everybody

    pull(b, all=False)
    assert [where for where in traces(b) if not where.startswith("redis/")] == []
    assert [receipt["completed"] for receipt in Forgotten(b.forgotten).all()] == [None]
    assert [receipt["who"] for receipt in complete(b, settings, clean)] == [hashed(NAME)]
    assert traces(b) == []
    assert told(b) == ids(others(event_table(rows(0, 310)))), "and with it a session that only this machine knew of"
    assert traces_in_the_store(b, also=(PHONE.encode(),)) == []

    pull(a)
    assert [receipt["completed"] for receipt in Forgotten(a.forgotten).all()] == [None], "of which the other machine must hear"
    complete(a, settings, clean)
    assert [receipt["completed"] is None for home in (a, b) for receipt in Forgotten(home.forgotten).all()] == [False, False]
    pull(b)
    assert (complete(a, settings, clean), complete(b, settings, clean)) == ([], [])
    assert told(a) == told(b)
    for home in (a, b):
        assert registry(home).open().verify().id == "000002"
    assert registry(a).open().manifest == registry(b).open().manifest
    assert import_again(b, tmp_path) == 0
    with EmbeddedRedis(b.redis) as server:
        taken = take_in(server.url, [{**row, "event_id": f"{row['event_id']}-again"} for row in rows(0, 8)])
        assert taken == [row.get("user_id") != NAME and row.get("session_id") != SESSION for row in rows(0, 8)]


def import_again(home: Home, tmp_path: Path) -> int:
    pq.write_table(event_table(rows(0, 240)), tmp_path / "again.parquet")
    return import_events(home, [tmp_path / "again.parquet"]).added


def test_what_another_machine_adds_at_that_moment_is_looked_through_again(
    a: Home, b: Home, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_the_next_line(b, monkeypatch, lambda: forget(a, settings, NAME, clean))
    assert log(b).append(event_table(rows(240, 300))) == len(others(event_table(rows(240, 300))))
    pull(a)
    assert told(a) == told(b) == ids(others(event_table(rows(0, 300))))
    assert traces_in_the_store(a) == []


def test_what_another_machine_puts_together_at_that_moment_brings_nothing_back(
    a: Home, b: Home, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(240, 248):
        log(a).append(event_table(rows(n, n + 1)))
    pull(b)
    before_the_next_line(b, monkeypatch, lambda: forget(a, settings, NAME, clean))
    assert log(b).compact() == 0
    assert traces_in_the_store(a) == []
    for home in (a, b):
        pull(home)
        log(home).compact()
    assert told(a) == told(b) == ids(others(event_table(rows(0, 248))))
    assert traces_in_the_store(a) == []


def test_an_update_elsewhere_that_had_read_of_them_does_not_go_live_and_leaves_nothing(
    a: Home, b: Home, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(a).append(event_table(rows(240, 300)))
    pull(b)
    honest, uploaded = job.update, Shared.uploaded

    def forgotten_after(*args: object) -> Candidate:
        found = honest(*args)  # type: ignore[arg-type]
        forget(a, settings, NAME, clean)
        return found

    def forgotten_after_upload(shared: Shared, *args: Any) -> Any:
        stack = ExitStack()
        about = stack.enter_context(uploaded(shared, *args))
        monkeypatch.setattr(Shared, "uploaded", uploaded)
        forget(a, settings, NAME, clean)
        return _with(stack, about)

    for place, name, late in ((job, "update", forgotten_after), (Shared, "uploaded", forgotten_after_upload)):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, late)
            with pytest.raises(Superseded, match="asked to be forgotten while this release was built"):
                job.update_and_publish(b, settings)
        pull(b)
        assert traces_in_the_store(a) == []
        assert {name.split("/")[1] for name in joined(a).store.names("releases/")} == {"000001", "000002"}
    released = job.update_and_publish(b, settings)
    assert released is not None
    assert released.id == "000003"


def _with(stack: ExitStack, about: object) -> Any:
    class Held:
        def __enter__(self) -> object:
            return about

        def __exit__(self, *raised: Any) -> Any:
            return stack.__exit__(*raised)

    return Held()


def test_what_uploads_left_that_were_killed_goes(a: Home, b: Home, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(joined(b).store, "put_if_absent", _killed)
        with pytest.raises(KeyboardInterrupt):
            log(b).append(event_table(rows(240, 260)))
    hers = len(traces_in_the_store(a))
    with monkeypatch.context() as patch:
        patch.setattr(Shared, "purge", lambda shared: 0)
        forget(a, settings, NAME, clean)
    assert 0 < len(traces_in_the_store(a)) < hers, "the lines name nothing of hers, the bucket holds it"
    forget(a, settings, NAME, clean)
    assert traces_in_the_store(a) == []
    assert log(b).append(event_table(rows(240, 260))) == len(others(event_table(rows(240, 260))))
    assert set(joined(b).store.names("log/")) == {segment.name("log") for segment in joined(b).state.log}


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("how", [KeyboardInterrupt, StoreAway])
@pytest.mark.parametrize("step", ["put", "put_if_absent", "remove", "get"])
def test_ended_at_any_request_of_the_store_and_completed_later(
    a: Home, b: Home, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, how: type[BaseException]
) -> None:
    pull(b)
    honest: Callable[..., object] = getattr(Store, step)
    for turn in itertools.count():
        calls = iter(range(turn))

        def deadly(store: Store, *args: Any, calls: Iterator[int] = calls) -> object:
            if next(calls, None) is None:
                raise how("gone")
            return honest(store, *args)

        with monkeypatch.context() as patch:
            patch.setattr(Store, step, deadly)
            try:
                forget(a, settings, NAME, clean)
                break
            except how:
                assert registry(a).open().verify().id == "000002"
                pull(b)
    complete(a, settings, clean)
    pull(b)
    complete(b, settings, clean)
    assert turn > 0 or step == "get", "which a machine that has everything needs not"
    assert (everything(a, tmp_path, settings), traces(b)) == ([], [])
    assert told(a) == told(b) == ids(others(event_table(rows(0, 240))))


def test_two_machines_that_forget_at_once_take_out_both(
    a: Home, b: Home, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull(b)
    honest = Registry._rewrite
    turns = []

    def late(self: Registry, *args: Any) -> bool:
        monkeypatch.setattr(Registry, "_rewrite", honest)
        turns.append(forget(b, settings, "u4", clean))
        return honest(self, *args)

    monkeypatch.setattr(Registry, "_rewrite", late)
    forget(a, settings, NAME, clean)
    assert [receipt["completed"] is not None for receipt in turns] == [True]
    for home in (a, b):
        pull(home)
        complete(home, settings, clean)
    assert everything(a, tmp_path, settings) == []
    assert told(a) == told(b) == ids([row for row in others(event_table(rows(0, 240))) if row["user_id"] != "u4"])
    assert registry(a).open().manifest == registry(b).open().manifest
    assert not np.isin(Neighbours.read(registry(b).open().folder).owner, owner_numbers(["u4"])).any()


def test_a_server_erases_by_itself_whom_others_forgot_and_lets_no_past_in(a: Home, b: Home, settings: Settings) -> None:
    told = {f"RECSYS_STORE__{name.upper()}": value for name, value in settings.store.model_dump().items() if isinstance(value, str)}
    command = [sys.executable, "-m", "recsys.cli", "serve", "--json", "--home", str(b.path), "--set", "store.look_seconds=0.2"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")} | {"OMP_NUM_THREADS": "1", **told}
    with EmbeddedRedis(b.redis) as redis_server, subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as server:
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            take_in(redis_server.url, rows(240, 300))
            assert any(where.startswith("redis/") for where in traces(b))
            forget(a, settings, NAME, clean)
            for _ in range(300):
                receipts = Forgotten(b.forgotten).all()
                if receipts and receipts[0]["completed"]:
                    break
                time.sleep(0.1)
            assert traces(b) == []
            assert [receipt["completed"] is None for receipt in Forgotten(b.forgotten).all()] == [False]
            past = {**rows(252, 253)[0], "user_id": NAME, "session_id": None, "event_id": "again", "timestamp": (BEGAN + 1000) / 1000}
            body = json.dumps([past]).encode()
            request = urllib.request.Request(f"{url}/v1/events", body, {"content-type": "application/json"})
            with urllib.request.urlopen(request) as answer:
                assert json.load(answer)["accepted"] == 0
        finally:
            server.terminate()
            assert server.wait(20) == 0


def test_who_is_known_by_the_hash_alone_is_kept_out_of_redis_too(b: Home, a: Home, settings: Settings) -> None:
    stranger: Asked = {
        "asked": "2026-01-01T00:00:00+00:00",
        "at": BEGAN + 500,
        "sessions": [hashed("session:tv-9")],
        "numbers": [],
        "end": 0,
    }
    joined(a).ask_to_forget(hashed("zoe"), stranger)
    pull(b)
    complete(b, settings, clean)
    before = [
        {**rows(0, 1)[0], "user_id": user, "session_id": session, "event_id": f"{user}{session}", "timestamp": BEGAN}
        for user, session in (("zoe", None), (None, "tv-9"), ("zoe2", None))
    ]
    with EmbeddedRedis(b.redis) as server:
        assert take_in(server.url, before) == [False, False, True]
        assert take_in(server.url, [{**event, "timestamp": BEGAN + 501} for event in before[:2]]) == [True, True]


def test_a_home_that_joins_brings_its_receipts(a: Home, fitted: Home, s3: str, tmp_path: Path) -> None:
    subprocess.run(["cp", "-r", str(fitted.path), str(tmp_path / "alone")], check=True)
    alone = Home(tmp_path / "alone")
    receipt = forget(alone, Settings(), NAME, clean)
    settings = bucket_settings(s3, f"joined-{time.monotonic_ns()}", alone.config)
    open_home(alone.path, settings)
    assert [receipt["completed"] for receipt in Forgotten(alone.forgotten).all()] == [receipt["completed"]]
    new = open_home(tmp_path / "new", settings)
    pull(new)
    assert [each["at"] for each in Forgotten(new.forgotten).pending()] == [receipt["at"]]
    assert import_again(new, tmp_path) == 0
    assert told(new) == ids(others(event_table(rows(0, 240))))


def test_a_bucket_that_keeps_versions_is_told_in_the_receipt(a: Home, settings: Settings, s3: str) -> None:
    joined(a).store._files.call_s3("put_bucket_versioning", Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
    try:
        assert "let the older ones expire" in forget(a, settings, NAME, clean)["store"]
    finally:
        joined(a).store._files.call_s3("put_bucket_versioning", Bucket="bucket", VersioningConfiguration={"Status": "Suspended"})


def test_a_line_that_stands_for_other_segments_than_those_there_is_no_line(a: Home) -> None:
    log(a).append(event_table(rows(240, 241)))
    shared = joined(a)
    first = shared.look().log[0]
    for instead in ([], ["0" * 64], [first.sha256, first.sha256]):
        with pytest.raises(Moved):
            shared.state.after({"log": {"first": 0, "behind": first.behind, "rows": 1, "sha256": "1"}, "instead": instead})
    shared.state.after({"log": {"first": 0, "behind": first.behind, "rows": 1, "sha256": "1"}, "instead": [first.sha256]})


def test_of_two_machines_receipts_the_later_counts_and_both_their_sessions(tmp_path: Path) -> None:
    receipts = Forgotten(tmp_path)
    first = receipts.begin("ann", ["s1"])
    receipts.write({**first, "completed": "then"})
    known: Asked = {"asked": "earlier", "at": first["at"] - 5, "sessions": ["s1"], "numbers": [], "end": 0}
    receipts.follow({hashed("ann"): known})
    assert receipts.pending() == []
    receipts.follow({hashed("ann"): {**known, "sessions": ["s0"]}})
    (pending,) = receipts.pending()
    assert (pending["at"], pending["asked"], pending["sessions"]) == (first["at"], first["asked"], ["s0", "s1"])
    receipts.write({**pending, "completed": "then"})
    receipts.follow({hashed("ann"): {"asked": "later", "at": first["at"] + 5, "sessions": [], "numbers": [], "end": 0}})
    (again,) = receipts.pending()
    assert (again["at"], again["asked"], again["sessions"]) == (first["at"] + 5, "later", ["s0", "s1"])
    assert [earlier["completed"] for earlier in again["earlier"]] == ["then"]


def test_what_another_machine_writes_anew_while_the_store_is_cleared_stays_whole(
    a: Home, b: Home, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, honest = joined(b).store, joined(b).store.put

    def late(files: dict[str, Path]) -> None:
        honest(files)
        if any(name.startswith("releases/") for name in files):
            monkeypatch.setattr(store, "put", honest)
            joined(a).purge()

    monkeypatch.setattr(store, "put", late)
    forget(b, settings, "u4", clean)
    assert store.put == honest
    new = open_home(tmp_path / "new", settings)
    pull(new)
    assert registry(new).ids() == ["000001", "000002"]


def test_an_update_that_began_between_the_line_and_the_erasing_does_not_go_live(
    a: Home, b: Home, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(a).append(event_table(rows(240, 300)))
    joined(a).ask_to_forget(hashed(NAME), asked(Forgotten(a.forgotten).begin(NAME)))
    pull(b)
    honest = job.update

    def forgotten_after(*args: Any) -> Candidate:
        found = honest(*args)
        forget(a, settings, NAME, clean)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(job, "update", forgotten_after)
        with pytest.raises(Superseded, match="asked to be forgotten while this release was built"):
            job.update_and_publish(b, settings)
    assert traces_in_the_store(a) == []


def test_a_release_that_another_machine_publishes_behind_the_rewriting_is_written_anew_too(
    a: Home, b: Home, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull(b)
    before, honest = registry(b).open(), Registry.rewrite
    about = {name: before.manifest[name] for name in before.manifest.keys() - {"id", "parent", "created", "content", "files", "sha256"}}

    def published_after(self: Registry, id: str, *args: Any) -> bool:
        found = honest(self, id, *args)
        if id == "000002":
            monkeypatch.setattr(Registry, "rewrite", honest)
            with registry(b).draft() as draft:
                subprocess.run(f"cp -r {before.folder}/. {draft}; rm {draft}/manifest.json", shell=True, check=True)
                registry(b).publish(draft, "000003", "000002", about)
        return found

    monkeypatch.setattr(Registry, "rewrite", published_after)
    forget(a, settings, NAME, clean)
    assert registry(a).current() == "000003"
    assert everything(a, tmp_path, settings) == []


def test_a_line_whose_receipts_cannot_be_written_is_not_taken_for_read(a: Home, b: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    joined(a).ask_to_forget(hashed("zoe"), {"asked": "now", "at": BEGAN, "sessions": [], "numbers": [], "end": 0})
    with monkeypatch.context() as patch:
        patch.setattr(Forgotten, "follow", _full)
        with pytest.raises(OSError, match="no space"):
            pull(b)
    pull(b)
    assert [receipt["who"] for receipt in Forgotten(b.forgotten).all()] == [hashed("zoe")]


def _full(*_: object) -> None:
    raise OSError("no space")


def test_a_receipt_that_is_being_written_disturbs_no_writer_of_the_log(tmp_path: Path) -> None:
    receipts = Forgotten(tmp_path)
    receipts.begin("u3")
    (tmp_path / ".half.json.tmp").symlink_to(tmp_path / "gone")  # listed, and gone when it is looked at
    hidden = hides(receipts, event_table(rows(0, 20)))
    assert hidden.tolist() == [row.get("user_id") == "u3" for row in rows(0, 20)]


def test_killed_when_the_log_has_no_names_any_more_another_machine_completes_it(
    a: Home, b: Home, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("serving.forget._from_releases", _killed)
        with pytest.raises(KeyboardInterrupt):
            forget(a, settings, NAME, clean)
    pull(b)
    assert [receipt["who"] for receipt in complete(b, settings, clean)] == [hashed(NAME)]
    assert everything(b, tmp_path, settings) == []


def test_who_comes_back_before_another_machine_has_erased_keeps_what_they_do_then(a: Home, b: Home, settings: Settings) -> None:
    ahead = {**rows(0, 1)[0], "event_id": "ahead", "timestamp": round(time.time() * 1000) + 60_000}
    assert log(a).append(event_table([ahead])) == 1
    forget(a, settings, NAME, clean)
    new = {**rows(0, 1)[0], "event_id": "back", "timestamp": round(time.time() * 1000) + 1}
    assert log(a).append(event_table([new])) == 1
    pull(b)
    complete(b, settings, clean)
    assert "back" in told(b)
    assert "ahead" not in told(b)
