"""A home in one folder and back: the same answers, the same log, whatever went on beside; a damaged copy is refused."""

import json
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from worlds import NOW, event_table, publish_release

from recsys import backup as backups
from recsys.backup import BackupDamaged, backup, restore, verify
from recsys.errors import BadInput
from recsys.files import sha256
from recsys.home import Home
from recsys.journal import Journal
from recsys.log import Log
from recsys.registry import Registry
from serving.history import Event
from serving.keys import Keys
from serving.snapshot import Snapshot

ITEMS = [f"i{n}" for n in range(20)]


def plays(first: int, last: int) -> pa.Table:
    rows = [
        {"event_id": f"e{n}", "user_id": "ann", "item_id": "i1", "timestamp": NOW + n, "event_type": "play"} for n in range(first, last)
    ]
    return event_table(rows)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "a home")
    publish_release(home.path, ITEMS)
    publish_release(home.path, [*ITEMS, "new"])
    for n in range(5):
        Log(home.log).append(plays(10 * n, 10 * n + 10), {"note.streams": "x"})
    Keys(home.keys).add("app", "read,write")
    home.config.write_text("[serving]\nport = 0\n")
    Journal(home.job).add("published", release="000002")
    return home


def test_what_was_backed_up_comes_back_as_it_was(home: Home, tmp_path: Path) -> None:
    about = backup(home, tmp_path / "copy")
    assert (about["events"], about["release"]) == (50, "000002")
    again = Home(tmp_path / "again")
    assert restore(tmp_path / "copy", again) == about
    assert Log(again.log).read().equals(Log(home.log).read())
    assert Log(again.log).notes() == {"note.streams": "x"}
    assert (Registry(again.releases).ids(), Registry(again.releases).current()) == (["000001", "000002"], "000002")
    assert Journal(again.job).read() == Journal(home.job).read()
    assert (again.keys.read_bytes(), again.config.read_bytes()) == (home.keys.read_bytes(), home.config.read_bytes())
    assert again.keys.stat().st_mode == home.keys.stat().st_mode
    history = [Event("i3", "play", NOW)]
    before, after = (Snapshot.load(Registry(one.releases).open()).recommend(history, 10) for one in (home, again))
    assert after == before
    Registry(again.releases).point_to("000001")
    assert Snapshot.load(Registry(again.releases).open()).id == "000001"


def test_a_damaged_backup_is_refused_and_names_the_file(home: Home, tmp_path: Path) -> None:
    backup(home, tmp_path / "copy")
    verify(tmp_path / "copy")
    files = list(json.loads((tmp_path / "copy" / "backup.json").read_text())["files"])
    assert len(files) > 20
    for name in np.random.default_rng(0).permutation(files)[:10].tolist():
        broken = Path(shutil.copytree(tmp_path / "copy", tmp_path / "broken"))
        content = (broken / name).read_bytes()
        (broken / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(BackupDamaged, match="is not the file that was copied; take another one") as error:
            restore(broken, Home(tmp_path / "again"))
        assert name in str(error.value)
        (broken / name).unlink()
        with pytest.raises(BackupDamaged, match="misses"):
            restore(broken, Home(tmp_path / "again"))
        shutil.rmtree(broken)
    evil = Path(shutil.copytree(tmp_path / "copy", tmp_path / "evil"))
    (tmp_path / "outside").write_text("not yours")
    digest = sha256(tmp_path / "outside")
    for name in ("../outside", str(tmp_path / "outside")):
        (evil / "backup.json").write_text(json.dumps({"files": {name: digest}}))
        with pytest.raises(BackupDamaged, match="names a file outside itself"):
            restore(evil, Home(tmp_path / "again"))
    with pytest.raises(BackupDamaged, match="is no backup"):
        restore(home.path, Home(tmp_path / "again"))
    assert not (tmp_path / "again").exists()


def test_nothing_is_written_over(home: Home, tmp_path: Path) -> None:
    backup(home, tmp_path / "copy")
    with pytest.raises(BadInput, match="is there already; name a new folder"):
        backup(home, tmp_path / "copy")
    with pytest.raises(BadInput, match="holds something already; restore into a new folder"):
        restore(tmp_path / "copy", home)
    with pytest.raises(BadInput, match="there is no home"):
        backup(Home(tmp_path / "nowhere"), tmp_path / "other")
    (tmp_path / "empty").mkdir()
    assert restore(tmp_path / "copy", Home(tmp_path / "empty"))["events"] == 50


def test_interrupted_it_leaves_nothing_that_looks_whole(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, left = backups._copy, [30]

    def killed(source: Path, target: Path) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        honest(source, target)

    monkeypatch.setattr(backups, "_copy", killed)
    with pytest.raises(KeyboardInterrupt):
        backup(home, tmp_path / "copy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a home"]


def test_releases_are_copied_before_the_log_that_they_have_learned(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that is published meanwhile may be missed; one that knows more than the copied log could not be updated."""
    order, honest = list[str](), backups._copy

    def noted(source: Path, target: Path) -> None:
        order.append(source.relative_to(home.path).parts[0])
        honest(source, target)

    monkeypatch.setattr(backups, "_copy", noted)
    backup(home, tmp_path / "copy")
    assert order.index("log") > max(place for place, part in enumerate(order) if part == "releases")


def test_the_log_may_grow_and_be_put_together_meanwhile(home: Home, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        done = pool.apply_async(_grow, (str(home.log), 50, 150))
        number = 0
        while not done.ready() or number == 0:
            about = backup(home, tmp_path / str(number))
            found = Log(Home(tmp_path / str(number)).log).read()["event_id"].to_pylist()
            assert found == [f"e{n}" for n in range(len(found))]
            assert about["events"] == len(found) >= 50
            number += 1
        done.get()
    assert len(Log(home.log)) == 150


def _grow(folder: str, first: int, last: int) -> None:
    for n in range(first, last):
        Log(Path(folder)).append(plays(n, n + 1))
        Log(Path(folder)).compact()
