"""Forgetting a person: afterwards nothing under the home tells of them, whatever was interrupted, and nobody else lost anything."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest
import redis
from person import BEGAN, NAME, SESSION, fitted_home, ids, others, people, rows, take_in, traces
from typer.testing import CliRunner
from worlds import event_table

from recsys.cli import app
from recsys.errors import RecsysError, Superseded
from recsys.forgotten import Forgotten, hashed
from recsys.home import Home
from recsys.intake import import_events
from recsys.journal import Journal
from recsys.log import Log, Position
from recsys.registry import Registry
from recsys.settings import Settings, load_settings
from serving import forget as rooms
from serving.archive import archive_home
from serving.embedded import EmbeddedRedis
from serving.forget import complete, forget
from serving.snapshot import Snapshot
from serving.warm import warm, warmed
from training import job
from training.candidate import Candidate
from training.forget import forget as clean


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, exported_once: None) -> Home:
    return fitted_home(tmp_path_factory.mktemp("forget") / "a home")


@pytest.fixture
def home(fitted: Home, tmp_path: Path) -> Home:
    subprocess.run(["cp", "-r", str(fitted.path), str(tmp_path / "a home")], check=True)
    return Home(tmp_path / "a home")


@pytest.fixture
def settings(home: Home) -> Settings:
    return load_settings(home.config, environ={})


def test_over_http_everything_goes_that_is_kept_of_a_person_and_nothing_of_anybody_else(home: Home, settings: Settings) -> None:
    command = [sys.executable, "-m", "recsys.cli", "serve", "--json", "--home", str(home.path)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")} | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as server:
        try:
            assert server.stdout is not None
            with httpx.Client(base_url=json.loads(server.stdout.readline())["url"], timeout=60) as client:
                new = [{**row, "timestamp": row["timestamp"] / 1000} for row in rows(240, 300)]  # type: ignore[operator]
                assert client.post("/v1/events", json=new).json()["accepted"] == 60
                shown = client.get(f"/v1/recommend/{NAME}?explore=0.5&k=5&exclude_seen=false").json()["items"]
                assert len(shown) == 5, "impressions of her wait in the stream, and what she was shown is remembered"
                found = traces(home)
                assert {"000001 memory", "000002 memory", "000001 neighbours", "000002 neighbours"} < set(found)
                assert any(where.startswith("log/") for where in found)
                assert any(where.startswith("redis/") for where in found)

                answer = client.delete(f"/v1/users/{NAME}?erase=true")
                receipt = answer.json()["receipt"]
                assert (answer.status_code, answer.json()["deleted"], receipt["who"]) == (200, True, hashed(NAME))
                assert receipt["completed"] is not None
                hers = len(rows(0, 300)) - len(others(event_table(rows(0, 300))))
                assert receipt["erased"]["events in the log"] == hers + 5, "and what she was shown"
                assert traces(home) == []
                assert [path.name for path in home.path.rglob(f"*{hashed(NAME)}*")] == [f"{hashed(NAME)}.json"]
                assert ids(Log(home.log).read().to_pylist()) == ids(others(event_table(rows(0, 300))))
                assert client.get("/v1/recommend/u1").json()["release"] == "000002"

                assert client.post("/v1/events", json=new).json()["duplicates"] == 60
                now = {"user_id": NAME, "item_id": "i3", "event_type": "play", "timestamp": time.time() + 0.01}
                time.sleep(0.02)
                assert client.post("/v1/events", json=now).json()["accepted"] == 1, "who comes back is a new person"
                assert client.get("/health/ready").status_code == 200
        finally:
            server.terminate()
            assert server.wait(20) == 0


def test_whatever_comes_again_of_somebody_forgotten_stays_out(home: Home, settings: Settings, tmp_path: Path) -> None:
    forget(home, settings, NAME, clean)
    pq.write_table(event_table(rows(0, 240)), tmp_path / "again.parquet")
    report = import_events(home, [tmp_path / "again.parquet"])
    assert (report.added, report.forgotten) == (0, 240 - len(others(event_table(rows(0, 240)))))
    with EmbeddedRedis(home.redis) as server:
        assert take_in(server.url, rows(0, 8)) == [n % 7 != 0 for n in range(8)]
    assert traces(home) == []
    assert len(Log(home.log).read()) == len(others(event_table(rows(0, 240))))
    later = [{**row, "event_id": f"{row['event_id']}-later"} for row in rows(0, 8, BEGAN + 2 * 86_400_000)]
    assert Log(home.log).append(event_table(later)) == 8, "what she does from now on counts"


STEPS = ("the receipt", "the mark", "a key", "archiving", "a segment", "a release's file", "a release's name", "redis rewriting")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_any_step_and_run_again_it_is_completed(home: Home, settings: Settings, step: str, before: bool) -> None:
    with EmbeddedRedis(home.redis) as server:
        take_in(server.url, rows(240, 300))
        known = settings.model_copy(update={"serving": settings.serving.model_copy(update={"redis_url": server.url})})
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_killed, args=(home, known, step, before))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert Registry(home.releases).open().verify().id == "000002", "whenever it is killed, the live release can be served"
        assert Snapshot.load(Registry(home.releases).open())
        Log(home.log).read()
        receipt = forget(home, known, NAME, clean)
    assert receipt["completed"]
    assert traces(home) == []
    assert ids(Log(home.log).read().to_pylist()) == ids(others(event_table(rows(0, 300))))
    assert len(list(Registry(home.releases).folder.glob(".draft-*"))) == 0


def _killed(home: Home, settings: Settings, step: str, before: bool) -> None:
    """Forget her, and end by SIGKILL just before or after a step."""
    from recsys import files, forgotten, log, registry

    room, name, turn = {
        "the receipt": (forgotten, "write_atomically", 1),
        "the mark": (redis.Redis, "eval", 1),
        "a key": (redis.Redis, "unlink", 1),
        "archiving": (rooms, "archive", 2),
        "a segment": (log, "write_beside", 3),  # the first is that of the archiver, which puts nothing together here
        "a release's file": (files.os, "replace", 9),
        "a release's name": (registry, "exchange", 1),
        "redis rewriting": (redis.Redis, "bgrewriteaof", 1),
    }[step]
    honest, calls = getattr(room, name), [0]

    def deadly(*args: object, **named: object) -> object:
        calls[0] += 1
        if before and calls[0] == turn:
            os.kill(os.getpid(), signal.SIGKILL)
        done = honest(*args, **named)
        if calls[0] == turn:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    setattr(room, name, deadly)
    forget(home, settings, NAME, clean)


@pytest.mark.parametrize("asked", [False, True], ids=["before they asked", "before they were erased"])
def test_an_update_that_had_read_of_them_does_not_go_live(
    home: Home, settings: Settings, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    Log(home.log).append(event_table(rows(240, 300)))
    if asked:
        Forgotten(home.forgotten).begin(NAME)
    honest = job.update

    def meanwhile(*args: object) -> Candidate:
        found = honest(*args)  # type: ignore[arg-type]
        forget(home, settings, NAME, clean)
        return found

    monkeypatch.setattr(job, "update", meanwhile)
    with pytest.raises(Superseded, match="asked to be forgotten"):
        job.update_and_publish(home, settings)
    assert traces(home) == []
    monkeypatch.setattr(job, "update", honest)
    release = job.update_and_publish(home, settings)
    assert release is not None
    assert release.position == Position(300)
    assert traces(home) == []


def play(user: str | None, session: str | None, id: str, at: int = BEGAN) -> dict[str, object]:
    return {"event_id": id, "user_id": user, "session_id": session, "item_id": "i1", "timestamp": at, "event_type": "play"}


@contextmanager
def alone(path: Path) -> Iterator[tuple[Home, Settings, EmbeddedRedis]]:
    """A home without releases, whose Redis runs."""
    home = Home(path / "home")
    with EmbeddedRedis(home.redis) as server:
        yield home, load_settings(environ={}, overrides={"serving.redis_url": server.url}), server


def test_the_past_stays_out_of_redis_though_the_profile_is_deleted_later(tmp_path: Path) -> None:
    with alone(tmp_path) as (home, settings, server):
        take_in(server.url, [play(NAME, None, "a")])
        forget(home, settings, NAME, clean)
        people(server.url, lambda profiles: profiles.remove(NAME))
        assert take_in(server.url, [play(NAME, None, "a")]) == [False]
        assert take_in(server.url, [play(NAME, None, "b", round(time.time() * 1000) + 1)]) == [True]


def test_an_older_forgetting_that_is_completed_late_lets_nothing_in_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with alone(tmp_path) as (home, settings, server):
        interrupted(monkeypatch, "archive", home, settings)
        now = round(time.time() * 1000) + 1
        time.sleep(0.01)
        take_in(server.url, [play(NAME, None, "b", now)])
        people(server.url, lambda profiles: profiles.remove(NAME))
        forget(home, settings, NAME, clean)
        take_in(server.url, [play(NAME, None, "b", now)])
        assert len(people(server.url, lambda profiles: profiles.read(NAME))) == 0, "it was deleted since"


def interrupted(monkeypatch: pytest.MonkeyPatch, step: str, home: Home, settings: Settings) -> None:
    """Forget her up to a step."""
    with monkeypatch.context() as patch:
        patch.setattr(rooms, step, _stop)
        with pytest.raises(KeyboardInterrupt):
            forget(home, settings, NAME, clean)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_session_that_was_told_at_sign_in_alone_is_theirs(tmp_path: Path) -> None:
    with alone(tmp_path) as (home, settings, server):
        take_in(server.url, [play(None, SESSION, "a"), play(None, "another", "b")])
        people(server.url, lambda profiles: profiles.sign_in(SESSION, NAME))
        take_in(server.url, [play(None, SESSION, "c")])
        forget(home, settings, NAME, clean)
        assert ids(Log(home.log).read().to_pylist()) == ["b"]
        assert traces(home) == []


def test_forgotten_again_what_was_done_in_their_old_sessions_goes_too(home: Home, settings: Settings) -> None:
    forget(home, settings, NAME, clean)
    later = [{**row, "event_id": f"{row['event_id']}-later"} for row in rows(0, 60, round(time.time() * 1000) + 1)]
    Log(home.log).append(event_table([row for row in later if row.get("user_id") != NAME]))
    job.update_and_publish(home, settings)
    assert "000003 neighbours" in traces(home)
    time.sleep(0.1)
    forget(home, settings, NAME, clean)
    assert traces(home) == []


def test_what_tells_of_a_session_is_not_lost_between_two_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with alone(tmp_path) as (home, settings, server):
        take_in(server.url, [play(None, SESSION, "a")])
        archive_home(home, settings)
        take_in(server.url, [play(NAME, SESSION, "b")])
        interrupted(monkeypatch, "_from_redis", home, settings)  # the receipt is there, and nothing else
        archive_home(home, settings)  # takes nothing of hers
        forget(home, settings, NAME, clean)
        assert traces(home) == []


def test_what_a_file_dated_ahead_goes_too_and_receipts_add_up(home: Home, settings: Settings) -> None:
    Log(home.log).append(event_table(rows(0, 8, round(time.time() * 1000) + 20 * 3_600_000)))
    first = forget(home, settings, NAME, clean)
    assert traces(home) == []
    again = forget(home, settings, NAME, clean)
    assert again["earlier"] == [{name: first[name] for name in ("asked", "completed", "erased")}]
    assert again["erased"]["events in the log"] == 0


def test_the_profile_of_a_session_goes_though_only_the_receipt_still_tells_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with alone(tmp_path) as (home, settings, server):
        take_in(server.url, [play(None, SESSION, "a"), play(NAME, SESSION, "b")])
        interrupted(monkeypatch, "_from_redis", home, settings)
        archive_home(home, settings)  # what waited goes nowhere, by the receipt
        forget(home, settings, NAME, clean)
        assert len(people(server.url, lambda profiles: profiles.read(f"session:{SESSION}"))) == 0
        assert traces(home) == []


def test_forgotten_again_what_comes_late_of_a_session_that_only_receipts_know_stays_out(tmp_path: Path) -> None:
    with alone(tmp_path) as (home, settings, server):
        take_in(server.url, [play(NAME, SESSION, "a")])
        forget(home, settings, NAME, clean)
        between = round(time.time() * 1000) + 1
        time.sleep(0.01)
        forget(home, settings, NAME, clean)
        assert take_in(server.url, [play(None, SESSION, "b", between)]) == [False]


def test_how_far_the_profiles_were_filled_is_known_though_the_last_event_was_theirs(home: Home, settings: Settings) -> None:
    Log(home.log).append(event_table(rows(240, 246)))  # ends with one of hers, whose id tells how far it came
    with EmbeddedRedis(home.redis) as server, redis.Redis.from_url(server.url) as client:
        warm(server.url, home, settings)
        assert "redis" in " ".join(traces(home))
        forget(home, settings, NAME, clean)
        assert traces(home) == []
        assert warmed(client, Log(home.log), settings.serving) == 246


def test_a_stranger_costs_nothing_but_a_receipt(home: Home, settings: Settings) -> None:
    before = [(release.manifest, Log(home.log).segments()) for release in map(Registry(home.releases).open, ("000001", "000002"))]
    receipt = forget(home, settings, "nobody", clean)
    assert set(receipt["erased"].values()) == {0}
    assert before == [(release.manifest, Log(home.log).segments()) for release in map(Registry(home.releases).open, ("000001", "000002"))]
    assert traces(home) != []


def test_what_cannot_be_read_is_told_and_keeps_it_from_being_complete(home: Home, settings: Settings) -> None:
    (home.releases / "000001" / "bias.npy").write_bytes(b"x")
    with pytest.raises(RecsysError, match=r"000001.*bias\.npy.*recsys gc"):
        forget(home, settings, NAME, clean)
    assert [receipt["completed"] for receipt in Forgotten(home.forgotten).all()] == [None]
    assert {where.split()[0] for where in traces(home)} == {"000001"}, "all else is gone"
    Registry(home.releases).collect(1)
    subprocess.run(["rm", "-r", str(home.releases / "000001")], check=True)
    assert forget(home, settings, NAME, clean)["completed"]
    assert traces(home) == []


def test_what_was_killed_is_completed_without_being_told_the_name(home: Home, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in ("_from_redis", "archive", "_from_log", "_from_releases", "_rewritten"):
        with EmbeddedRedis(home.redis) as server:
            take_in(server.url, rows(240, 300))
        interrupted(monkeypatch, step, home, settings)
    assert [receipt["completed"] for receipt in complete(home, settings, clean)] != [None]
    assert traces(home) == []
    assert ids(Log(home.log).read().to_pylist()) == ids(others(event_table(rows(0, 300))))
    assert complete(home, settings, clean) == []


def test_the_command_completes_whoever_is_pending_and_says_what_it_cannot_read(home: Home) -> None:
    def recsys(*words: str) -> str:
        result = CliRunner().invoke(app, ["forget", *words, "--home", str(home.path)])
        return result.output if result.exception is None else str(result.exception)

    Forgotten(home.forgotten).begin("somebody else")
    assert "completed: 1" in recsys("--pending")
    assert "everybody who asked to be forgotten is" in recsys("--pending")
    assert "leave the user_id out" in recsys("--pending", NAME)
    assert "whom? recsys forget wants a user_id" in recsys()


def test_a_server_completes_what_was_killed(home: Home, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, "_from_log", home, settings)
    command = [sys.executable, "-m", "recsys.cli", "serve", "--json", "--home", str(home.path), "--set", "store.look_seconds=0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}) as server:
        try:
            for _ in range(900):
                if not Forgotten(home.forgotten).pending():
                    break
                time.sleep(0.1)
            assert traces(home) == []
        finally:
            server.terminate()
            server.wait(20)


def test_the_command_reads_a_name_from_stdin_lists_backups_and_says_where_the_receipt_is(home: Home, tmp_path: Path) -> None:
    def recsys(*words: str, told: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "recsys.cli", *words, "--home", str(home.path)]
        return subprocess.run(command, input=told, capture_output=True, text=True, env={**os.environ, "COLUMNS": "500"})

    (tmp_path / "copy").mkdir()
    Journal(home.job).add("backup", folder=str(tmp_path / "copy"))
    Journal(home.job).add("backup", folder=str(tmp_path / "was removed"))
    done = recsys("forget", "-", told=f"{NAME}\n")
    assert done.returncode == 0, done.stderr
    assert f"the backup {tmp_path / 'copy'}" in done.stdout
    assert str(home.forgotten / f"{hashed(NAME)}.json") in done.stdout
    assert "was removed" not in done.stdout
    assert NAME not in done.stdout
    assert "nothing was kept of them" in recsys("forget", NAME).stdout
    assert traces(home) == []
