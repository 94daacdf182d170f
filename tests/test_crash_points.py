"""Killed by -9 before or behind any step of any work, or on a disk that is full there: nothing is half, and run again it is done."""

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
import redis
from steps import FREEING, full, killed, steps
from worlds import NOW, event_table, publish_release

from recsys import catalogue
from recsys.backup import backup, restore, verify
from recsys.catalogue import Catalogue
from recsys.commands.releases import rollback
from recsys.files import write_atomically
from recsys.forgotten import Forgotten
from recsys.hidden import did
from recsys.home import Home
from recsys.journal import Journal
from recsys.log import Log, Position
from recsys.registry import Registry, Release
from recsys.settings import load_settings
from serving.archive import archive
from serving.embedded import EmbeddedRedis
from serving.history import Event
from serving.profiles import PARTITIONS, Profiles, stream_key
from serving.wire import Wire
from training import job

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or not Path("/dev/full").exists(), reason="forks, and writes to /dev/full")

ALL = "CRASH_POINTS" in os.environ
"""Whether every step is tried, as `make chaos` does, or six of each piece of work."""

ITEMS = [f"i{n}" for n in range(20)]


@dataclass
class Work:
    """A piece of work: what it begins with, what it does, what nobody may find after a crash, and what is there once it is done."""

    prepare: Callable[[Home], object]
    run: Callable[[Home], object]
    wrong: Callable[[Home], str | None]
    result: Callable[[Home], Any]
    least: int
    """So many steps it has at least: else it was not watched."""
    anew: Callable[[Home], object] = lambda home: None
    """What is put back beside the home before each time."""


WORK: dict[str, Work] = {}


# --- the log


def plays(*numbers: int) -> Any:
    rows = [
        {"event_id": f"e{n}", "user_id": f"u{n % 7}", "item_id": f"i{n % 20}", "timestamp": NOW + n, "event_type": "play"} for n in numbers
    ]
    return event_table(rows)


def ids(home: Home) -> list[str]:
    return Log(home.log).read(columns=["event_id"])["event_id"].to_pylist()


def the_log(home: Home) -> Any:
    return ids(home), Log(home.log).notes(), [path.name for path in Log(home.log).segments()]


def many_segments(home: Home) -> None:
    for n in range(10):
        Log(home.log).append(plays(n), {"note.at": str(n)})


def wrong_with_ten(home: Home) -> str | None:
    return None if ids(home) == [f"e{n}" for n in range(10)] else f"the log holds {ids(home)}"


def wrong_with_thirty(home: Home) -> str | None:
    return None if ids(home) in ([f"e{n}" for n in range(10)], [f"e{n}" for n in range(30)]) else f"the log holds {ids(home)}"


WORK["compact"] = Work(many_segments, lambda home: Log(home.log).compact(), wrong_with_ten, the_log, 10)
WORK["append"] = Work(many_segments, lambda home: Log(home.log).append(plays(*range(30)), {"note.at": "29"}), wrong_with_thirty, the_log, 5)


# --- releases


def releases(home: Home) -> None:
    for n in range(4):
        publish_release(home.path, [*ITEMS, *(f"new{k}" for k in range(n))])


def wrong_with_releases(home: Home) -> str | None:
    registry = Registry(home.releases)
    registry.open().verify()
    for id in registry.ids():
        registry.open(id).verify()
    return None if len(registry.ids()) >= 2 else f"only {registry.ids()} are left"


WORK["gc"] = Work(
    releases,
    lambda home: Registry(home.releases).collect(1),
    wrong_with_releases,
    lambda home: (Registry(home.releases).ids(), Registry(home.releases).current()),
    30,
)


def rolled_back(home: Home) -> str | None:
    live, told = Registry(home.releases).current(), Journal(home.job).rolled_back_to()
    return wrong_with_releases(home) or (None if live == "000004" or told == live else f"{live} is live, and the job goes on from it")


WORK["rollback"] = Work(
    releases,
    lambda home: rollback("000002", home.path, True),
    rolled_back,
    lambda home: (Registry(home.releases).current(), Journal(home.job).rolled_back_to()),
    8,
)


def log_and_releases(home: Home) -> None:
    many_segments(home)
    releases(home)


def without_u3(home: Home) -> None:
    """What recsys forget does to log and releases; all of it, with its Redis, is in test_forget.py."""
    receipts = Forgotten(home.forgotten)
    receipt = receipts.begin("u3", end=len(Log(home.log)))
    Log(home.log).erase(partial(did, receipt))
    for id in Registry(home.releases).ids():
        Registry(home.releases).rewrite(id, lambda folder: write_atomically(folder / "config.toml", "less"))
    receipts.write({**receipt, "completed": "now"})


def wrong_with_others(home: Home) -> str | None:
    left = [id for id in ids(home) if id != "e3"]
    return wrong_with_releases(home) or (None if left == [f"e{n}" for n in range(10) if n != 3] else f"the log holds {ids(home)}")


WORK["forget"] = Work(
    log_and_releases,
    without_u3,
    wrong_with_others,
    lambda home: (ids(home), Log(home.log).offsets().tolist(), [path.read_text() for path in sorted(home.releases.glob("0*/config.toml"))]),
    40,
)


class Learned:
    """Stands for a trained candidate: a release that was made before, taken as it is."""

    def __init__(self, made: Path, position: Position | None = None):
        self.made, self.position, self.settings = made, position or Position(), SETTINGS

    def at(self, position: Position, parent: Release) -> "Learned":
        return Learned(self.made, position)

    def write(self, draft: Path) -> dict[str, Any]:
        for path in sorted(self.made.rglob("*")):
            target = draft / path.relative_to(self.made)
            if path.is_dir():
                target.mkdir()
            elif path.name != "manifest.json":
                target.write_bytes(path.read_bytes())
        return {"position": self.position.as_dict(), "metrics": {}, "now": NOW}


class Fine:
    """A gate that lets everything through."""

    reasons: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {"figures": {}}


SETTINGS = load_settings(environ={}, overrides={"gate.held_back": 0})


def update(home: Home) -> None:
    """Run the job as it is, but for the training, and for the file of which a failure is passed over (tests/test_running.py)."""
    made = home.path.with_name("made") / "releases" / "000001"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "running", lambda folder, step, *_, **__: nullcontext(step))
        patch.setattr(job.Candidate, "load", lambda live, settings: Learned(made))
        patch.setattr(job, "update", lambda *_: Learned(made))
        patch.setattr(job, "faults", lambda *_: [])
        job.run(home, SETTINGS, lambda *_: Fine(), force=True)


def one_release_and_news(home: Home) -> None:
    publish_release(home.path, ITEMS)
    if not (made := home.path.with_name("made")).exists():
        publish_release(made, [*ITEMS, "new"])
    Log(home.log).append(plays(*range(10)))


def wrong_with_update(home: Home) -> str | None:
    registry = Registry(home.releases)
    for id in registry.ids():
        registry.open(id).verify()
    if registry.open().position.offset not in (0, 10):
        return f"the live release is at {registry.open().position}"
    return wrong_with_ten(home)


def live(home: Home) -> Any:
    release = Registry(home.releases).open()
    return release.manifest["content"], release.position, release.manifest["parent"], the_log(home)


WORK["update"] = Work(one_release_and_news, update, wrong_with_update, live, 50)


# --- items


def some_items(home: Home) -> None:
    for n in range(4):
        Catalogue(home.items).put(catalogue.SCHEMA.empty_table().from_pylist([{"item_id": f"i{n}", "title": f"Film {n}"}]))


def more_items(home: Home) -> None:
    """One more, by which there are too many segments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "SEGMENTS", 4)
        Catalogue(home.items).put(catalogue.SCHEMA.empty_table().from_pylist([{"item_id": "i1", "title": "Another title"}]))


def titles(home: Home) -> dict[str, str]:
    return {id: row["title"] for id, row in Catalogue(home.items).items().items()}


def wrong_with_items(home: Home) -> str | None:
    before = {f"i{n}": f"Film {n}" for n in range(4)}
    return None if titles(home) in (before, before | {"i1": "Another title"}) else f"the items are {titles(home)}"


WORK["items"] = Work(some_items, more_items, wrong_with_items, titles, 12)


# --- backups


def a_whole_home(home: Home) -> None:
    one_release_and_news(home)
    some_items(home)
    Journal(home.job).add("published", release="000001")
    home.config.write_text("[serving]\nport = 0\n")


def copied(home: Home) -> None:
    if not (home.path / "copy").exists():
        backup(home, home.path / "copy")


def wrong_with_copy(home: Home) -> str | None:
    if (home.path / "copy").exists():
        verify(home.path / "copy")
    return wrong_with_ten(home)


WORK["backup"] = Work(a_whole_home, copied, wrong_with_copy, lambda home: verify(home.path / "copy")["files"], 60)


def brought_back(home: Home) -> None:
    if not (again := Home(home.path / "again")).path.exists():
        restore(home.path / "copy", again)


def wrong_with_restored(home: Home) -> str | None:
    if (home.path / "again").exists():
        return wrong_with_update(Home(home.path / "again"))
    return wrong_with_copy(home)


WORK["restore"] = Work(
    lambda home: (a_whole_home(home), copied(home)), brought_back, wrong_with_restored, lambda home: live(Home(home.path / "again")), 60
)


# --- from the streams to the log


def archiving(server: EmbeddedRedis) -> Work:
    """Eight archivings, of which the last puts the segments of all together; its Redis goes on, whatever happens to the archiver."""
    store, held = redis.Redis.from_url(server.url), dict[bytes, bytes]()

    def prepare(home: Home) -> None:
        store.flushall()
        for n in range(7):
            asyncio.run(_send(server, range(n, n + 1)))
            archived(home)
        asyncio.run(_send(server, range(7, 12)))
        held.update({key: cast(bytes, store.dump(key)) for key in cast(list[bytes], store.keys())})

    def anew(home: Home) -> None:
        store.flushall()
        for key, value in held.items():
            store.restore(key, 0, value)

    def archived(home: Home) -> None:
        with redis.Redis.from_url(server.url) as client:
            archive(client, "t", home.log, Journal(home.job))

    def waiting() -> list[str]:
        entries = (entry for partition in range(PARTITIONS) for entry in cast(list[Any], store.xrange(stream_key("t", partition))))
        return [orjson.loads(fields[b"event"])["event_id"] for _, fields in entries]

    def wrong(home: Home) -> str | None:
        logged = ids(home)
        if len(logged) != len(set(logged)):
            return f"the log holds something twice: {logged}"
        return None if {*logged, *waiting()} == {f"e{n}" for n in range(12)} else f"lost; the log holds {logged}, the streams {waiting()}"

    return Work(prepare, archived, wrong, lambda home: (the_log(home), waiting(), Journal(home.job).read()), 15, anew)


async def _send(server: EmbeddedRedis, numbers: range) -> None:
    wire = Wire(server.url)
    await Profiles(wire, "t").merge([Event(f"i{n}", "play", NOW + n, event_id=f"e{n}", user_id=f"u{n % 7}") for n in numbers])
    wire.close()


# --- all of it


def leftovers(home: Home) -> list[str]:
    """Return what no reader sees and nobody will ever need: half files, and drafts."""
    return [str(path.relative_to(home.path)) for path in home.path.rglob(".*") if not path.name.startswith(".lock")]


@dataclass
class Place:
    """Where a piece of work is done again and again, each time from its beginning."""

    work: Work
    began: Path
    home: Home
    expected: Any
    steps: list[str]

    def anew(self) -> None:
        shutil.rmtree(self.home.path)
        shutil.copytree(self.began, self.home.path)
        self.work.anew(self.home)

    def run(self) -> None:
        self.work.run(self.home)

    def some(self) -> list[int]:
        """Return the steps to be tried."""
        count = len(self.steps)
        return list(range(count)) if ALL else sorted({place * (count - 1) // 5 for place in range(6)})

    def check(self, where: str) -> None:
        """See that nothing is half; do it again, and see that it is done."""
        fault = self.work.wrong(self.home)
        assert fault is None, f"{where}: {fault}"
        self.run()
        assert self.work.result(self.home) == self.expected, where
        assert leftovers(self.home) == [], where


def place(work: Work, folder: Path) -> Place:
    began, home = Home(folder / "began"), Home(folder / "home")
    work.prepare(began)
    shutil.copytree(began.path, home.path)
    work.anew(home)
    done = steps(home.path, lambda: work.run(home))
    assert len(done) >= work.least
    assert work.wrong(home) is None
    return Place(work, began.path, home, work.result(home), done)


@pytest.fixture(params=[*WORK, "archive"])
def at(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    work = WORK[request.param] if request.param in WORK else archiving(request.getfixturevalue("server"))
    return place(work, tmp_path)


def test_killed_before_or_behind_any_step_nothing_is_half_and_run_again_it_is_done(at: Place) -> None:
    for number in at.some():
        for behind in (False, True):
            at.anew()
            assert killed(at.home.path, at.run, number, behind)
            at.check(f"killed {'behind' if behind else 'before'} step {number} ({at.steps[number]})")


def test_on_a_disk_that_is_full_at_any_step_it_says_so_and_with_room_again_it_is_done(at: Place) -> None:
    for number in at.some():
        if (step := at.steps[number]) in FREEING:
            continue
        for for_good in (False, True):
            at.anew()
            where = f"full at step {number} ({step}){', and from there on' if for_good else ''}"
            error = full(at.home.path, at.run, number, for_good)
            assert isinstance(error, OSError), where
            assert error.errno == errno.ENOSPC, where
            at.check(where)
