"""Everything at once: events, repeats, archives, updates, rollbacks, kills and people who want to be forgotten, against a simple model."""

import asyncio
import copy
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from home_model import LIMIT, Learned, Model
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from safetensors.torch import load_file, save_file
from worlds import event_table

import recsys.forgotten
import recsys.log
import recsys.registry
import serving.archive
import serving.forget
import serving.profiles
from recsys.batches import examples
from recsys.events import CODE, milliseconds
from recsys.forgotten import Forgotten, hashed
from recsys.home import Home
from recsys.journal import Journal
from recsys.log import Log, Position
from recsys.neighbours import Neighbours
from recsys.registry import Registry, Release
from recsys.sessions import owner_numbers, sessionise
from recsys.settings import Settings, load_settings
from recsys.vocab import Vocabulary
from serving.archive import archive
from serving.embedded import EmbeddedRedis
from serving.forget import forget
from serving.history import Event
from serving.profiles import Profiles, stream_key
from serving.wire import Wire
from training import job
from training.candidate import MEMORY, STATE, memory_from, memory_tensors
from training.forget import forget as clean
from training.memory import Memory

EXAMPLES = int(os.environ.get("STATE_MACHINE", "30"))
MINUTE = 60_000
BEGAN = 1_700_000_000_000
TENANT = "t"
PARTITIONS = 4
"""So few, that people share one, and that looking at all takes no time."""

ITEMS = ["heat", "alien", "brazil"]
USERS, VISITS = ["ann", "bob"], ["s1", "s2", "s3"]
OWNERS = [*USERS, *(f"session:{visit}" for visit in VISITS)]

WHO = st.sampled_from([("ann", None), ("ann", "s1"), ("ann", "s2"), ("bob", None), ("bob", "s2"), (None, "s1"), (None, "s2"), (None, "s3")])
AGES = st.sampled_from([0, 0, MINUTE, 7 * MINUTE, 25 * MINUTE, 26 * 60 * MINUTE])
KINDS = st.sampled_from(["play", "play", "like", "dislike", "undo", "impression"])
FACTS = st.lists(st.tuples(WHO, AGES, KINDS, st.sampled_from(ITEMS)), min_size=1, max_size=4)
SOME = st.lists(st.integers(0, 1000), min_size=1, max_size=3)

ARCHIVING = [(Log, "append"), (serving.archive, "_trim"), (Log, "compact"), (recsys.log, "write_beside")]
FORGETTING = [
    *((recsys.forgotten, "write_atomically"), (recsys.log, "write_beside"), (recsys.registry, "exchange"), (serving.forget, "archive")),
    *((redis.Redis, name) for name in ("set", "eval", "unlink", "bgrewriteaof")),
]
LEARNING = [(job, "update"), (job, "_publish"), (recsys.registry, "write_atomically")]


class Killed(BaseException):
    """Stands for a kill: nobody catches it."""


@contextmanager
def killed(room: Any, name: str, turn: int, before: bool) -> Iterator[None]:
    """End whatever is done in here before or behind the `turn`th call of something; or not at all, if it does not come to that."""
    honest, calls = getattr(room, name), [0]

    def deadly(*words: Any, **named: Any) -> Any:
        calls[0] += 1
        if before and calls[0] == turn:
            raise Killed
        done = honest(*words, **named)
        if calls[0] == turn:
            raise Killed
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, name, deadly)
        yield


class Taught:
    """Stands for a trained candidate: it has no towers, but remembers people as a real one does."""

    settings: ClassVar[Settings]
    lesson: ClassVar[set[Event]]
    """What was taught last."""

    def __init__(self, neighbours: Neighbours, memory: Memory, now: int = 0, position: Position | None = None):
        self.neighbours, self.memory, self.now, self.position = neighbours, memory, now, position or Position()

    @classmethod
    def load(cls, release: Release, settings: Settings) -> "Taught":
        release.verify()
        return cls(Neighbours.read(release.folder), memory_from(load_file(release.file(STATE))), release.manifest["now"])

    @classmethod
    def fit(cls, events: pa.Table, *_: Any) -> "Taught":
        return cls(Neighbours(), Memory.empty(1000)).update(events, events.slice(0, 0))

    def update(self, new: pa.Table, past: pa.Table, *_: Any) -> "Taught":
        Taught.lesson = set(facts(new))
        sessions = sessionise(pa.concat_tables([past, new]), Vocabulary(ITEMS))
        neighbours, memory = copy.copy(self.neighbours), Memory(1000, self.memory.examples, self.memory.keys)
        neighbours.add(sessions)
        memory = memory.add(examples(sessions, sessions.place >= len(past), 20).remembered(), [len(new)])
        return Taught(neighbours, memory, max([self.now, *milliseconds(new).tolist()]))

    def at(self, position: Position, parent: Release | None) -> "Taught":
        return Taught(self.neighbours, self.memory, self.now, position)

    def write(self, draft: Path) -> dict[str, Any]:
        self.neighbours.write(draft)
        (draft / "strategy").mkdir()
        save_file(memory_tensors(self.memory), draft / STATE)
        pq.write_table(pa.table({"item_id": ITEMS}), draft / "items.parquet")
        return {"position": self.position.as_dict(), "metrics": {}, "now": self.now}


class Fine:
    """A gate that lets everything through."""

    reasons: ClassVar[list[str]] = []

    def as_dict(self) -> dict[str, Any]:
        return {"figures": {}}


def facts(table: pa.Table) -> list[Event]:
    """Return the events of a table."""
    columns = [table[name].to_pylist() for name in ("item_id", "event_type", "event_id", "user_id", "session_id", "value")]
    return [
        Event(item, kind, at, id, user, visit, value)
        for at, item, kind, id, user, visit, value in zip(milliseconds(table).tolist(), *columns, strict=True)
    ]


def as_table(events: list[Event]) -> pa.Table:
    names = ("event_id", "user_id", "session_id", "item_id", "timestamp", "event_type")
    return event_table([{name: getattr(event, name) for name in names} for event in events])


def remembered(folder: Path) -> dict[str, set[int]]:
    """Return the numbers of whom a release remembers."""
    return {
        "neighbours": set(Neighbours.read(folder).owner.tolist()),
        "memory": set(load_file(folder / STATE)[f"{MEMORY}whose"].numpy().tolist()),
    }


class Everything(RuleBasedStateMachine):
    """A home with its Redis, by whose real parts everything is done, and the model of it. Ten minutes pass with each step."""

    server: ClassVar[EmbeddedRedis]

    def __init__(self) -> None:
        super().__init__()
        self.home = Home(Path(tempfile.mkdtemp(dir=self.server.folder.parent)) / "home")
        self.model, self.now, self.sent, self.restarts = Model(), BEGAN, list[Event](), 0
        self.store = redis.Redis.from_url(self.server.url)
        self.store.flushall()
        self.store.config_set("hz", 100)  # it sees at once that its file was written anew
        told = {"serving.redis_url": self.server.url, "serving.tenant": TENANT}
        self.settings, self.holding_back = (load_settings(environ={}, overrides={**told, "gate.held_back": share}) for share in (0, 0.4))
        Taught.settings, Taught.lesson = self.settings, set()
        self.patch = pytest.MonkeyPatch()
        clock = SimpleNamespace(time=lambda: self.now / 1000, monotonic=time.monotonic, sleep=time.sleep)
        self.patch.setattr(serving.profiles, "time", clock)
        self.patch.setattr(recsys.forgotten, "time", clock)
        hasty = SimpleNamespace(monotonic=time.monotonic, sleep=lambda seconds: time.sleep(seconds / 20))
        self.patch.setattr(serving.forget, "time", hasty)
        self.patch.setattr(recsys.log, "TOGETHER", 3)
        for module in (serving.profiles, serving.archive, serving.forget):
            self.patch.setattr(module, "PARTITIONS", PARTITIONS)
        self.patch.setattr(serving.archive, "READ", 2)
        self.patch.setattr(serving.forget, "READ", 2)
        self.patch.setattr(job, "Candidate", Taught)
        self.patch.setattr(job, "fit", Taught.fit)
        self.patch.setattr(job, "update", Taught.update)
        self.patch.setattr(job, "faults", lambda *_: [])
        self.runner = asyncio.Runner()
        self.wire = Wire(self.server.url)
        self.people = Profiles(self.wire, TENANT, LIMIT)

    # --- what comes in

    def events(self, told: list[tuple[tuple[str | None, str | None], int, str, str]]) -> list[Event]:
        """Make events that nobody sent before; two people may give theirs the same ids."""
        made: list[Event] = []
        for (user, visit), age, kind, item in told:
            if user in self.model.half and visit not in self.model.sessions[user]:
                visit = None  # whether it would be known for theirs is up to chance
            owner = user or f"session:{visit}"
            id = f"e{sum(event.owner == owner for event in (*self.sent, *made))}"
            made.append(Event(item, kind, self.now - age, id, user, visit))
        self.sent += made
        return made

    def some(self, which: list[int]) -> list[Event]:
        return [self.sent[-1 - number % len(self.sent)] for number in which]

    def merge(self, batch: list[Event]) -> None:
        answers = self.runner.run(self.people.merge(batch))
        for event, new in zip(batch, answers, strict=True):
            if event.owner not in self.model.in_between():
                assert new == (not self.model.knows(event)), event
            elif not new:
                assert self.model.knows(event) or self.model.unsure(event), event
            if new:
                self.model.merge(event)

    @initialize(told=FACTS, learned=st.booleans())
    def begin(self, told: Any, learned: bool) -> None:
        self.come_in_from_a_file(told, [0])
        if learned:
            self.all_is_as_the_model_says()
            self.fit()

    @rule(told=FACTS)
    def send(self, told: Any) -> None:
        self.merge(self.events(told))

    @rule(told=FACTS, again=SOME)
    def send_a_batch_with_repeats(self, told: Any, again: list[int]) -> None:
        batch = self.events(told)
        self.merge([*batch, *self.some(again), batch[0]])

    @rule(again=SOME)
    def send_again(self, again: list[int]) -> None:
        self.merge(self.some(again))

    @rule(told=FACTS, again=SOME)
    def come_in_from_a_file(self, told: Any, again: list[int]) -> None:
        batch = [*self.events(told), *self.some(again)]
        Log(self.home.log).append(as_table([*batch, batch[0]]))
        for event in batch:
            self.model.hold(event)

    @rule(visit=st.sampled_from(VISITS), user=st.sampled_from(USERS))
    def sign_in(self, visit: str, user: str) -> None:
        if {user, f"session:{visit}"} & self.model.in_between():
            return  # who knows whether there is anything to be moved
        self.runner.run(self.people.sign_in(visit, user))
        self.model.sign_in(visit, user)

    @rule(told=FACTS, user=st.sampled_from(USERS))
    def visit_and_sign_in(self, told: Any, user: str) -> None:
        """As `sign_in`, with something to be moved and no event that names them together."""
        self.merge(self.events([((None, "s3"), *rest) for _, *rest in told]))
        self.sign_in("s3", user)

    @rule(owner=st.sampled_from(OWNERS), again=st.booleans())
    def delete_a_profile(self, owner: str, again: bool) -> None:
        self.runner.run(self.people.remove(owner))
        self.model.delete(owner, self.now)
        if again:
            self.merge([event for event in self.sent if event.owner == owner])

    # --- what the home does

    def archived(self) -> None:
        archive(self.store, TENANT, self.home.log, Journal(self.home.job))

    @rule()
    def archive(self) -> None:
        self.archived()
        assert self.waiting() == []

    @rule(point=st.sampled_from(ARCHIVING), turn=st.integers(1, 2), before=st.booleans())
    def archive_and_be_killed(self, point: Any, turn: int, before: bool) -> None:
        with suppress(Killed), killed(*point, turn, before):
            self.archived()

    @rule()
    def compact(self) -> None:
        notes = Log(self.home.log).notes()
        Log(self.home.log).compact()
        assert Log(self.home.log).notes() == notes

    @precondition(lambda self: self.restarts < 1)
    @rule()
    def kill_redis(self) -> None:
        self.restarts += 1
        assert self.server.pid is not None
        before = self.server.pid
        os.kill(before, signal.SIGKILL)
        while self.server.pid == before or not self.answers():
            time.sleep(0.002)

    def answers(self) -> bool:
        try:
            return bool(self.store.ping())
        except redis.RedisError:
            return False

    # --- releases

    def update(self, how: Callable[[], object], again: bool = False) -> None:
        """Learn; see that nothing is taught twice, and nothing of anybody that should not be known."""
        Taught.lesson = set()
        registry, before = Registry(self.home.releases), set(self.model.releases)
        learned = set() if again or not self.model.live else self.model.releases[self.model.live].events
        try:
            how()
        except Killed:
            assert registry.current() == self.model.live or {registry.current()} == {*registry.ids()} - before
        assert not Taught.lesson & learned, "learned twice"
        for id in {*registry.ids()} - before:
            self.model.releases[id] = Learned(self.model.live, learned | Taught.lesson, remembered(self.home.releases / id))
            if registry.current() == id:
                self.model.live = id

    @rule()
    def fit(self) -> None:
        if not self.model.log:
            return
        self.update(lambda: job.fit_and_publish(self.home, self.settings), again=True)

    @precondition(lambda self: self.model.live)
    @rule()
    def learn_all(self) -> None:
        self.update(lambda: job.update_and_publish(self.home, self.settings))

    @precondition(lambda self: self.model.live)
    @rule(holding_back=st.booleans())
    def run_the_job(self, holding_back: bool) -> None:
        settings = self.holding_back if holding_back else self.settings
        self.update(lambda: job.run(self.home, settings, lambda *_: Fine(), force=True))

    @precondition(lambda self: self.model.live)
    @rule(point=st.sampled_from(LEARNING), before=st.booleans())
    def learn_and_be_killed(self, point: Any, before: bool) -> None:
        with killed(*point, 1, before):
            self.update(lambda: job.update_and_publish(self.home, self.settings))

    @precondition(lambda self: self.model.live)
    @rule(which=st.integers(0, 20))
    def roll_back(self, which: int) -> None:
        ids = sorted(self.model.releases)
        self.model.live = ids[which % len(ids)]
        Registry(self.home.releases).point_to(self.model.live)

    @precondition(lambda self: self.model.live)
    @rule(keep=st.integers(1, 3))
    def collect(self, keep: int) -> None:
        kept = self.model.kept(keep)
        assert {*Registry(self.home.releases).collect(keep)} == {*self.model.releases} - kept
        self.model.releases = {id: self.model.releases[id] for id in sorted(kept)}

    # --- forgetting

    def forget(self, owner: str) -> None:
        assert forget(self.home, self.settings, owner, clean)["completed"]
        whose = {*owner_numbers(sorted(self.model.names(owner))).tolist()}
        for release in self.model.releases.values():
            release.remembered = {what: numbers - whose for what, numbers in release.remembered.items()}
        self.model.forget(owner, self.now)
        assert not {event.owner for event in self.waiting()} & self.model.names(owner)

    @rule(owner=st.sampled_from(OWNERS), deleted=st.booleans())
    def forget_somebody(self, owner: str, deleted: bool) -> None:
        self.forget(owner)
        if deleted:
            self.delete_a_profile(owner, True)
        self.check_releases()

    @rule(owner=st.sampled_from(OWNERS), point=st.sampled_from(FORGETTING), turn=st.integers(1, 3), before=st.booleans())
    def forget_somebody_and_be_killed(self, owner: str, point: Any, turn: int, before: bool) -> None:
        try:
            with killed(*point, turn, before):
                self.forget(owner)
        except Killed:
            asked = {receipt["who"]: receipt["at"] for receipt in Forgotten(self.home.forgotten).all() if receipt["completed"] is None}
            if hashed(owner) in asked:
                self.model.half.setdefault(owner, (asked[hashed(owner)], {*self.model.held}))

    @rule(owner=st.sampled_from(USERS), told=FACTS)
    def be_named_in_a_visit_and_half_forgotten(self, owner: str, told: Any) -> None:
        """Killed as soon as the receipt is there, while what tells of the visit waits; then the archiver comes by."""
        self.merge(self.events([*(((None, "s3"), *rest) for _, *rest in told), ((owner, "s3"), 0, "play", "heat")]))
        self.forget_somebody_and_be_killed(owner, FORGETTING[0], 1, False)
        self.archived()

    @rule(owner=st.sampled_from(USERS), told=FACTS)
    def go_on_in_their_sessions_and_be_forgotten_again(self, owner: str, told: Any) -> None:
        visits = sorted(self.model.sessions[owner])
        if not visits or self.model.forgotten[owner] < 0:
            return
        self.merge(self.events([((None, visits[n % len(visits)]), 0, kind, item) for n, (_, _, kind, item) in enumerate(told)]))
        self.all_is_as_the_model_says()
        self.forget(owner)

    # --- what must be so

    def waiting(self) -> list[Event]:
        """Return what waits in the streams."""
        with self.store.pipeline(transaction=False) as pipeline:
            for partition in range(PARTITIONS):
                pipeline.xrange(stream_key(TENANT, partition))
            found = cast(list[list[tuple[bytes, dict[bytes, bytes]]]], pipeline.execute())
        return [Event(**orjson.loads(fields[b"event"])) for entries in found for _, fields in entries]

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        self.the_log_only_grows_and_with_the_streams_it_holds_everything_once()
        self.profiles_hold_the_newest_events()
        self.the_live_release_goes_on_where_it_ended()
        self.now += 10 * MINUTE

    def sure(self, events: Any) -> set[Event]:
        return {event for event in events if not self.model.unsure(event)}

    def the_log_only_grows_and_with_the_streams_it_holds_everything_once(self) -> None:
        log, known = Log(self.home.log), self.model.log
        rows, offsets = facts(log.read()), log.offsets().tolist()
        assert len({(event.owner, event.id) for event in rows}) == len(rows)
        found = dict(zip(offsets, rows, strict=True))
        assert len(found) == len(rows)
        end = max(known, default=-1) + 1 if not self.ends else self.ends
        new = {offset: event for offset, event in found.items() if offset >= end}
        assert {o: e for o, e in found.items() if o < end and not self.model.unsure(e)} == {
            o: e for o, e in known.items() if not self.model.unsure(e)
        }
        self.model.log, self.ends = {**{o: e for o, e in known.items() if o in found}, **new}, len(log)
        assert self.sure([*rows, *self.waiting()]) == self.sure(self.model.held)
        assert [line for line in Journal(self.home.job).read() if line["what"] == "loss"] == []

    ends = 0

    def profiles_hold_the_newest_events(self) -> None:
        async def read() -> list[Any]:
            return [await self.people.read(owner) for owner in OWNERS]

        for owner, found in zip(OWNERS, self.runner.run(read()), strict=True):
            if owner not in self.model.in_between():
                told = self.model.told(owner)
                assert (found.items, found.kinds, found.times) == tuple(
                    [one[0] for one in told] if n == 0 else [CODE[one[1]] for one in told] if n == 1 else [one[2] for one in told]
                    for n in range(3)
                ), owner

    def the_live_release_goes_on_where_it_ended(self) -> None:
        registry = Registry(self.home.releases)
        assert registry.ids() == sorted(self.model.releases)
        assert registry.current() == self.model.live
        if self.model.live:
            learned = self.model.releases[self.model.live].events
            new = facts(Log(self.home.log).read(registry.open().verify().position))
            assert new == [event for _, event in sorted(self.model.log.items()) if event not in learned]
            self.check_memory(self.model.live)

    def check_memory(self, id: str) -> None:
        expected, found = self.model.releases[id].remembered, remembered(self.home.releases / id)
        perhaps = {*owner_numbers(sorted(self.model.in_between())).tolist()}
        assert {what: numbers - perhaps for what, numbers in found.items()} == {
            what: numbers - perhaps for what, numbers in expected.items()
        }

    def check_releases(self) -> None:
        for id, release in self.model.releases.items():
            position = Registry(self.home.releases).open(id).verify().position
            learned = [event for _, event in sorted(self.model.log.items()) if event in release.events]
            assert facts(Log(self.home.log).read(upto=position)) == learned, id
            self.check_memory(id)

    def teardown(self) -> None:
        try:
            self.in_the_end()
        finally:
            self.runner.run(self.close())
            self.runner.close()
            self.patch.undo()
            self.store.close()
            shutil.rmtree(self.home.path.parent)

    def in_the_end(self) -> None:
        """Complete what was interrupted; then nothing is unsure, all is in the log, and nothing tells of who did not come back."""
        for owner in list(self.model.half):
            self.now += 10 * MINUTE
            self.forget(owner)
        self.archive()
        self.all_is_as_the_model_says()
        self.check_releases()
        assert set(self.model.log.values()) == self.model.held
        gone = {name for name, at in self.model.forgotten.items() if at >= 0} - {event.owner for event in self.model.held} - self.model.back
        kept = b"\n".join(self.store.keys() + [one for key in self.store.scan_iter("*:likers") for one in self.store.smembers(key)])
        assert [name for name in gone if kept.endswith(name.encode()) or f"{name}\n".encode() in kept] == []

    async def close(self) -> None:
        self.wire.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory, where there is such a place: no power is lost here, so no disk has to be waited for."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() and os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def test_whatever_happens_in_whatever_order_the_home_is_as_the_model_says(folder: Path) -> None:
    with EmbeddedRedis(folder / "redis") as Everything.server:
        run_state_machine_as_test(
            Everything,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=25,
                derandomize=True,
                deadline=None,
                report_multiple_bugs=False,
                phases=[Phase.generate] if "STATE_MACHINE" in os.environ else [Phase.generate, Phase.shrink],
                suppress_health_check=[*HealthCheck],
            ),
        )
