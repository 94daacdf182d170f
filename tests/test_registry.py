"""A release is whole or not there; CURRENT names one that is; of two jobs that started from one parent, one publishes."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from recsys import files
from recsys import registry as rooms
from recsys.errors import ReleaseDamaged, ReleaseNotFound, Superseded
from recsys.files import write_atomically
from recsys.log import Position
from recsys.registry import Registry, Release

ABOUT = {"position": {"offset": 7, "until": None}}
HOLD_A_DRAFT = """
import sys
from pathlib import Path
from recsys.registry import Registry
with Registry(Path(sys.argv[1])).draft() as draft:
    (draft / "half").write_text("half")
    print(draft, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "releases")


def publish(registry: Registry, id: str | None = None, parent: str | None = None, text: str = "towers") -> Release:
    with registry.draft() as draft:
        (draft / "strategy").mkdir()
        (draft / "towers").write_text(text)
        (draft / "strategy" / "state").write_text(text)
        return registry.publish(draft, id or registry.next_id(), parent or registry.current(), ABOUT)


def drafts(registry: Registry) -> list[Path]:
    return list(registry.folder.glob(".draft-*"))


def test_a_published_release_is_live_and_says_what_it_holds(registry: Registry) -> None:
    release = publish(registry)
    assert (release.id, registry.current(), registry.open().folder) == ("000001", "000001", release.folder)
    assert release.position == Position(7)
    assert sorted(release.manifest["files"]) == ["strategy/state", "towers"]
    assert release.verify().file("towers").read_text() == "towers"
    assert drafts(registry) == []


def test_the_same_files_have_the_same_content_hash_whatever_the_number(registry: Registry) -> None:
    first, again, other = publish(registry), publish(registry), publish(registry, text="other")
    assert first.manifest["content"] == again.manifest["content"] != other.manifest["content"]
    assert [first.manifest["parent"], again.manifest["parent"], other.manifest["parent"]] == [None, "000001", "000002"]


def test_publish_then_roll_back_serves_the_older_release_and_numbers_go_on(registry: Registry) -> None:
    publish(registry, text="old")
    publish(registry, text="new")
    registry.point_to("000001")
    assert registry.open().file("towers").read_text() == "old"
    assert publish(registry).id == "000003"
    assert registry.open("000003").manifest["parent"] == "000001"
    assert registry.ids() == ["000001", "000002", "000003"]


def test_current_is_replaced_only_when_the_folder_is_there(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(registry)

    def power_cut(path: Path, content: str) -> None:
        seen.append((path.name, content, (registry.folder / content.strip() / "manifest.json").exists()))
        raise KeyboardInterrupt

    seen: list[tuple[str, str, bool]] = []
    monkeypatch.setattr(rooms, "write_atomically", power_cut)
    with pytest.raises(KeyboardInterrupt):
        publish(registry)
    assert seen == [("CURRENT", "000002\n", True)]
    assert registry.current() == "000001"
    registry.open().verify()


def test_a_reader_sees_the_old_release_or_the_new_one_whole(registry: Registry) -> None:
    publish(registry, text="0")
    wrong, reads, done = [], [0], threading.Event()

    def read() -> None:
        while not done.is_set():
            release = registry.open().verify()
            reads[0] += 1
            if release.file("towers").read_text() != str(int(release.id) - 1):
                wrong.append(release.id)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 15):
        publish(registry, text=str(number))
    done.set()
    reader.join()
    assert reads[0] > 0
    assert wrong == []


def test_a_number_that_is_taken_is_superseded_and_the_first_stays(registry: Registry) -> None:
    publish(registry, text="first")
    with pytest.raises(Superseded, match="release 000001 was published by another job meanwhile; run the update again"):
        publish(registry, id="000001", text="second")
    assert registry.open("000001").verify().file("towers").read_text() == "first"
    assert drafts(registry) == []


@pytest.mark.parametrize("parent", ["000001", None])
def test_a_job_whose_parent_is_no_longer_live_is_superseded(registry: Registry, parent: str | None) -> None:
    publish(registry)
    publish(registry)
    with registry.draft() as draft, pytest.raises(Superseded, match="became 000002 while this one was built from"):
        registry.publish(draft, "000003", parent, ABOUT)
    assert registry.ids() == ["000001", "000002"]
    assert registry.current() == "000002"


def test_a_rollback_supersedes_the_job_that_was_running(registry: Registry) -> None:
    publish(registry)
    publish(registry)
    with registry.draft() as draft:
        registry.point_to("000001")
        with pytest.raises(Superseded, match="became 000001"):
            registry.publish(draft, "000003", "000002", ABOUT)


@pytest.mark.parametrize("same_number", [True, False])
def test_of_jobs_that_race_from_one_parent_exactly_one_wins(registry: Registry, same_number: bool) -> None:
    for parent in range(1, 6):
        publish(registry)
        gate = threading.Barrier(4)
        won: list[str] = []
        lost: list[int] = []

        def race(job: int, live: str, gate: threading.Barrier, won: list[str], lost: list[int]) -> None:
            with registry.draft() as draft:
                (draft / "towers").write_text(str(job))
                gate.wait()
                try:
                    number = int(live) + (1 if same_number else job)
                    won.append(registry.publish(draft, f"{number:06d}", live, ABOUT).file("towers").read_text())
                except Superseded:
                    lost.append(job)

        live = registry.open().id
        jobs = [threading.Thread(target=race, args=(job, live, gate, won, lost)) for job in range(1, 5)]
        for job in jobs:
            job.start()
        for job in jobs:
            job.join()
        assert (len(won), len(lost)) == (1, 3), f"round {parent}"
        assert registry.open().verify().file("towers").read_text() == won[0]
        assert registry.open().manifest["parent"] == live
    assert len(registry.ids()) == 10


def test_processes_that_race_for_a_number_leave_one_release_and_no_drafts(registry: Registry) -> None:
    code = """
import sys
from pathlib import Path
from recsys.errors import Superseded
from recsys.registry import Registry
registry = Registry(Path(sys.argv[1]))
with registry.draft() as draft:
    (draft / "towers").write_text(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        registry.publish(draft, "000001", None, {"position": {"offset": 0, "until": None}})
        print("won")
    except Superseded:
        print("lost")
"""
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(registry.folder), str(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for job in range(3)
    ]
    for job in jobs:
        assert job.stdout is not None
        assert job.stdout.readline() == "ready\n"
    for job in jobs:
        assert job.stdin is not None
        job.stdin.write("go\n")
        job.stdin.flush()
    said = [job.communicate()[0].strip() for job in jobs]
    assert sorted(said) == ["lost", "lost", "won"]
    assert registry.open().verify().file("towers").read_text() == str(said.index("won"))
    assert drafts(registry) == []


def test_a_draft_vanishes_when_its_job_fails(registry: Registry) -> None:
    def fail() -> None:
        with registry.draft() as draft:
            (draft / "half").write_text("half")
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        fail()
    assert drafts(registry) == []
    assert registry.ids() == []
    assert registry.current() is None


def test_the_draft_of_a_killed_process_is_swept_and_that_of_a_live_one_is_not(registry: Registry) -> None:
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD_A_DRAFT, str(registry.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    killed, alive = jobs
    try:
        paths = [Path(job.stdout.readline().strip()) for job in jobs if job.stdout]
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert all((path / "half").exists() for path in paths)
        with registry.draft() as own:
            assert sorted(drafts(registry)) == sorted([paths[1], own])
    finally:
        alive.communicate("")
        killed.communicate()
    assert drafts(registry) == []


def test_verify_finds_a_changed_and_a_missing_file(registry: Registry) -> None:
    release = publish(registry)
    state = release.file("strategy/state")
    state.write_text("tower5")
    with pytest.raises(ReleaseDamaged, match="strategy/state is not the file that was published; roll back with: recsys rollback"):
        release.verify()
    state.unlink()
    with pytest.raises(ReleaseDamaged, match="strategy/state is missing; roll back with: recsys rollback"):
        release.verify()


def test_a_manifest_that_is_not_json_is_damage(registry: Registry) -> None:
    publish(registry).file("manifest.json").write_text('{"id": ')
    with pytest.raises(ReleaseDamaged, match=r"release 000001: manifest\.json is not JSON"):
        registry.open()


def test_what_is_not_there_is_answered_with_what_is(registry: Registry) -> None:
    with pytest.raises(ReleaseNotFound, match="train the first with: recsys fit --home"):
        registry.open()
    with pytest.raises(ReleaseNotFound, match=r"no release '000001'; there are: none; train one with: recsys fit$"):
        registry.point_to("000001")
    assert not registry.folder.exists()
    publish(registry)
    publish(registry)
    elsewhere = registry.folder.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "manifest.json").write_text("{}")
    for ask in (registry.open, registry.point_to):
        for id in ("000009", ""):
            with pytest.raises(ReleaseNotFound, match=f"no release '{id}'; there are: 000001, 000002$"):
                ask(id)
        with pytest.raises(ReleaseNotFound, match=r"no release '\.\./elsewhere'"):
            ask("../elsewhere")
    assert registry.current() == "000002"
    registry.pointer.write_text("000009\n")
    with pytest.raises(ReleaseNotFound, match=r"there are: 000001, 000002; make one of them live with: recsys rollback 000002$"):
        registry.open()


def test_a_copy_that_somebody_left_beside_the_releases_is_none_of_them(registry: Registry) -> None:
    release = publish(registry)
    copy = registry.folder / "000001-backup"
    copy.mkdir()
    (copy / "manifest.json").write_text(json.dumps(release.manifest))
    (registry.folder / "000007").mkdir()  # no manifest: not published
    assert registry.ids() == ["000001"]
    assert registry.next_id() == "000002"


def test_a_manifest_is_on_disk_before_the_release_has_its_name(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(rooms, "sync", lambda path: order.append(path.name))
    rename = os.rename

    def noted(source: Path, target: Path) -> None:
        order.append("rename")
        rename(source, target)

    monkeypatch.setattr(rooms.os, "rename", noted)
    publish(registry)
    before = order[: order.index("rename")]
    assert {"manifest.json", "towers", "state", "strategy"} <= set(before)


def test_old_releases_go_but_never_the_live_one_or_its_parent(registry: Registry) -> None:
    for number in range(1, 8):
        publish(registry, f"{number:06d}", registry.current())
    registry.point_to("000003")  # rolled back: its parent is 000002
    assert registry.collect(keep=2) == ["000001", "000004", "000005"]
    assert registry.ids() == ["000002", "000003", "000006", "000007"]
    assert registry.collect(keep=2) == []
    assert registry.open().verify().id == "000003"
    assert registry.next_id() == "000008"
    assert drafts(registry) == []


def test_a_release_that_went_half_way_is_swept_later(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 5):
        publish(registry, f"{number:06d}", registry.current())

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rooms.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            registry.collect(keep=1)
    assert registry.ids() == ["000003", "000004"]  # whole, each of them
    assert len(drafts(registry)) == 2
    assert registry.collect(keep=1) == []
    with registry.draft():
        assert len(drafts(registry)) == 1  # its own: the others were swept


def test_nothing_is_collected_where_there_is_nothing_or_nobody_knows_what_is_live(registry: Registry) -> None:
    assert registry.collect(keep=1) == []
    publish(registry)
    publish(registry)
    registry.pointer.write_text("garbage")
    with pytest.raises(ReleaseNotFound, match="no release 'garbage'"):
        registry.collect(keep=1)
    assert len(registry.ids()) == 2


@pytest.mark.parametrize("system", ["exchanges folders", "does not"])
def test_a_release_written_anew_has_its_old_name_and_only_the_new_files(
    registry: Registry, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if system == "does not":
        monkeypatch.setattr(files, "_EXCHANGE", 1 << 20)  # a flag that the kernel refuses
    publish(registry), publish(registry)
    before = registry.open("000002")
    assert not registry.rewrite("000002", lambda folder: None)
    assert registry.open("000002").manifest == before.manifest
    assert registry.rewrite("000002", lambda folder: write_atomically(folder / "strategy" / "state", "less"))
    after = registry.open("000002").verify()
    assert ((after.folder / "strategy" / "state").read_text(), (after.folder / "towers").read_text()) == ("less", "towers")
    changed = {name for name in after.manifest if after.manifest[name] != before.manifest[name]}
    assert changed == {"content", "files", "sha256"}
    assert registry.ids() == ["000001", "000002"]
    assert registry.current() == "000002"
    assert sorted(path.name for path in registry.folder.iterdir()) == [".lock", "000001", "000002", "CURRENT"]


@pytest.mark.parametrize("renamed", [1, 2, 3])
def test_where_folders_cannot_be_exchanged_a_kill_in_between_loses_no_release(
    registry: Registry, renamed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_EXCHANGE", 1 << 20)
    publish(registry)
    process = multiprocessing.get_context("fork").Process(target=_rewrite_and_die, args=(registry, renamed))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    registry.sweep()
    assert registry.open("000001").verify()
    assert registry.rewrite("000001", lambda folder: write_atomically(folder / "towers", "others"))
    assert registry.open("000001").verify().file("towers").read_text() == "others"
    assert sorted(path.name for path in registry.folder.iterdir()) == [".lock", "000001", "CURRENT"]


def _rewrite_and_die(registry: Registry, renamed: int) -> None:
    honest, count = os.rename, [0]

    def deadly(*names: object) -> None:
        honest(*names)  # type: ignore[arg-type]
        count[0] += 1
        if count[0] == renamed:
            os.kill(os.getpid(), signal.SIGKILL)

    os.rename = deadly  # type: ignore[assignment]
    registry.rewrite("000001", lambda folder: write_atomically(folder / "towers", "less"))
