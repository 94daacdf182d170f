"""The file that tells how far a training is: written while it goes on, gone at its end, and never in its way."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from steps import FREEING, full, killed, steps

from recsys import running as module
from recsys.progress import silent
from recsys.running import FILE, now, running


def told(folder: Path, what: str = "update") -> None:
    """Do some work under `running`."""
    with running(folder, silent, what, events=7) as step:
        for done in range(1, 4):
            step("training", done, 3)


def test_it_tells_how_far_the_work_is_and_goes_at_its_end(tmp_path: Path) -> None:
    passed = []
    with running(tmp_path / "job", lambda *step: passed.append(step), "update", events=7, parent="000001") as step:
        begun = now(tmp_path / "job")
        assert begun is not None
        assert {name: begun[name] for name in ("what", "events", "parent", "step", "done", "of", "pid", "lost")} == {
            "what": "update", "events": 7, "parent": "000001", "step": "beginning", "done": 0, "of": 0, "pid": os.getpid(), "lost": None
        }  # fmt: skip
        step("training", 3, 100)
        after = now(tmp_path / "job")
        assert after is not None
        assert (after["step"], after["done"], after["of"]) == ("training", 3, 100)
    assert passed == [("training", 3, 100)]
    assert now(tmp_path / "job") is None
    assert list((tmp_path / "job").iterdir()) == []


def test_it_is_written_once_a_second_and_at_each_new_step_and_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr(module, "_write", lambda folder, told: written.append((told["step"], told["done"])))
    with running(tmp_path, silent, "fit") as step:
        for done in range(1, 5001):
            step("training", done, 5000)
        step("publishing", 0, 1)
    assert written == [("beginning", 0), ("training", 1), ("training", 5000), ("publishing", 0)]


def test_a_work_that_fails_leaves_no_file_and_its_error_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), running(tmp_path, silent, "update"):
        raise KeyboardInterrupt
    assert now(tmp_path) is None


def test_of_two_at_once_the_end_of_one_does_not_take_the_other_ones_file(tmp_path: Path) -> None:
    with running(tmp_path, silent, "update"):
        with running(tmp_path, silent, "fit") as step:
            step("training", 1, 2)
        assert now(tmp_path) is None
        with running(tmp_path, silent, "fit"):
            json.loads((tmp_path / FILE).read_text())
    with running(tmp_path, silent, "update") as step, running(tmp_path, silent, "fit"):
        step("training", 1, 2)
    assert now(tmp_path) is None


def test_whoever_was_killed_is_told_from_who_lives(tmp_path: Path) -> None:
    code = (
        "import os, pathlib; from recsys.progress import silent; from recsys.running import running\n"
        f"with running(pathlib.Path({str(tmp_path)!r}), silent, 'fit'): os.kill(os.getpid(), 9)"
    )
    gone = subprocess.run([sys.executable, "-c", code], check=False).returncode
    left = now(tmp_path)
    assert gone == -9
    assert left is not None
    assert left["lost"] == f"the process {left['pid']} that did it is gone"
    told(tmp_path)
    assert now(tmp_path) is None


def test_of_another_machine_only_a_long_silence_is_known(tmp_path: Path) -> None:
    about = {"what": "fit", "pid": 1, "machine": "elsewhere", "by": "x", "step": "training", "done": 1, "of": 2}
    for silence, lost in ((10, None), (400, "no sign of life for 400 s, on elsewhere")):
        (tmp_path / FILE).write_text(json.dumps({**about, "at": time.time() - silence}))
        found = now(tmp_path)
        assert found is not None
        assert found["lost"] == lost


@pytest.mark.parametrize("torn", ["", "{", "[]", "null", '{"at": "x"}', '{"at": 1}'])
def test_a_torn_file_tells_nothing(tmp_path: Path, torn: str) -> None:
    (tmp_path / FILE).write_text(torn)
    assert now(tmp_path) is None


@pytest.mark.skipif(not hasattr(os, "fork") or not Path("/dev/full").exists(), reason="forks, and writes to /dev/full")
def test_a_full_disk_or_a_kill_at_any_step_is_never_in_the_way(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    found = steps(tmp_path, lambda: told(folder))
    assert len(found) >= 7
    for number, step in enumerate(found):
        for for_good in (False, True):
            if step not in FREEING:
                assert full(tmp_path, lambda: told(folder), number, for_good) is None
                told(folder)
                assert now(folder) is None
        for behind in (False, True):
            assert killed(tmp_path, lambda: told(folder), number, behind)
            left = now(folder)
            assert left is None or left["lost"]
            told(folder)
            assert now(folder) is None
