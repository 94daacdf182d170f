"""The job from the command line: what is due is done once, whoever else tries; what it decided can be read; it ends when it is told to."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import redis
from worlds import NOW, SMALLEST, event_table

from recsys import cli
from recsys.errors import BadInput
from recsys.home import Home
from recsys.journal import FILE, Journal
from recsys.log import Log
from recsys.registry import Registry
from recsys.running import now
from recsys.settings import load_settings
from recsys.trial import Trials
from serving.embedded import EmbeddedRedis
from serving.lease import Busy, lease
from training import job

TINY = f"""{SMALLEST}
[job]
hours = 0
events = 50
poll_seconds = 0.2
"""


def plays(first: int, last: int) -> pa.Table:
    """One event a minute, of thirty people and twenty films."""
    rows = [
        {"event_id": f"e{n}", "user_id": f"u{n * 7 % 30}", "item_id": f"i{n * n % 20}", "timestamp": NOW + n * 60_000, "event_type": "play"}
        for n in range(first, last)
    ]
    return event_table(rows)


@pytest.fixture
def home(exported_once: None, tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    Log(home.log).append(plays(0, 200))
    home.config.write_text(TINY)
    job.fit_and_publish(home, load_settings(home.config, environ={}))
    return home


def command(home: Home, *words: str) -> list[str]:
    return [sys.executable, "-m", "recsys.cli", *words, "--home", str(home.path)]


@pytest.fixture
def recsys(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Call the command in this process; return what it prints: JSON or, where it fails, its complaint."""

    def call(*words: str, code: int = 0, as_json: bool = True) -> Any:
        monkeypatch.setattr(sys, "argv", ["recsys", *words, "--home", str(home.path), *(["--json"] if as_json else [])])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, errors = capsys.readouterr()
        assert end.value.code == code, errors
        return (json.loads(out) if as_json else out) if code == 0 else errors

    return call


def test_it_updates_when_it_is_due_and_says_why(home: Home, recsys: Callable[..., Any]) -> None:
    assert recsys("job", "run")["what"] == "not due"
    Log(home.log).append(plays(200, 230))
    assert recsys("job", "run") == {"what": "not due", "events": 30, "release": "000001", "archived": 0}
    Log(home.log).append(plays(230, 300))
    line = recsys("job", "run")
    assert (line["what"], line["release"], line["events"], line["held back"]) == ("published", "000002", 89, 11)
    assert line["triggers"] == {"volume": "100 new events (job.events = 50)"}
    assert line["measured"].keys() == {"hours", "new items", "drift"}
    assert now(home.job) is None
    assert [told["what"] for told in recsys("job", "log")] == ["published"]
    assert recsys("status")["job"] == {"last": "published", "at": line["time"], "refused_in_a_row": 0}
    assert recsys("releases")["releases"][-1]["why"] == "volume"
    readable = recsys("job", "log", as_json=False).replace("\n", " ")
    assert "release 000002 is live" in readable
    assert "because of 100 new events (job.events = 50)" in readable


def test_force_updates_where_anything_is_new(home: Home, recsys: Callable[..., Any]) -> None:
    Log(home.log).append(plays(200, 220))
    assert recsys("job", "run", "--force")["triggers"] == {"by hand": "asked for with --force"}


def test_while_another_job_holds_the_lease_nothing_is_done(home: Home, recsys: Callable[..., Any]) -> None:
    Log(home.log).append(plays(200, 300))
    with lease(home.job / "lease", "", "recsys"):
        line = recsys("job", "run")
        assert line == {"what": "superseded", "reason": "another job is at work on this machine", "archived": 0}
    assert Registry(home.releases).current() == "000001"
    assert recsys("job", "run")["what"] == "published"


def test_of_two_jobs_at_once_one_publishes_and_both_end_well(home: Home) -> None:
    Log(home.log).append(plays(200, 300))
    both = [subprocess.Popen(command(home, "job", "run", "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    told = []
    for one in both:
        out, errors = one.communicate(timeout=120)
        assert one.returncode == 0, errors
        told.append(json.loads(out)["what"])
    assert sorted(told) in (["published", "superseded"], ["not due", "published"])
    assert Registry(home.releases).ids() == ["000001", "000002"]


def test_without_a_lease_the_registry_lets_one_of_two_publish(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    Log(home.log).append(plays(200, 300))
    settings = load_settings(home.config, environ={})

    class Fine:
        reasons: tuple[str, ...] = ()

        def as_dict(self) -> dict[str, Any]:
            return {"figures": {}}

    def slow(*words: Any) -> Fine:
        """While one candidate is judged another job publishes."""
        if Registry(home.releases).current() == "000001":
            monkeypatch.undo()
            assert job.run(home, settings, lambda *words: Fine())["what"] == "published"
        return Fine()

    line = job.run(home, settings, slow)
    assert line["what"] == "superseded"
    assert "the live release became 000002" in line["reason"]
    assert [told["what"] for told in Journal(home.job).read()] == ["published", "superseded"]


def test_after_three_refusals_somebody_is_called(home: Home, recsys: Callable[..., Any]) -> None:
    journal = Journal(home.job)
    journal.add("refused", reason="it was bad")
    journal.add("refused", reason="it was bad")
    assert recsys("job", "run")["what"] == "not due"
    journal.add("superseded", reason="another was first")
    journal.add("refused", reason="it was bad")
    said = recsys("job", "run", code=1)
    assert "3 updates in a row were refused; see why: recsys job log" in said.replace("\n", " ")
    journal.add("published", release="000002")
    assert recsys("job", "run")["what"] == "not due"


def test_after_a_rollback_the_job_waits_for_somebody(home: Home, recsys: Callable[..., Any]) -> None:
    Log(home.log).append(plays(200, 300))
    assert recsys("job", "run")["release"] == "000002"
    recsys("rollback")
    Log(home.log).append(plays(300, 400))
    line = recsys("job", "run")
    assert (line["what"], line["release"]) == ("not due", "000001")
    assert "somebody rolled back to release 000001" in line["reason"]
    assert "go on with recsys job run --force" in recsys("job", "run", as_json=False).replace("\n", " ")
    assert recsys("job", "run", "--force")["release"] == "000003"
    Log(home.log).append(plays(400, 500))
    assert recsys("job", "run")["release"] == "000004"
    assert "rolled back to release 000001 (was 000002)" in recsys("job", "log", as_json=False)


def test_a_candidate_can_be_shown_to_a_share_of_the_people_first(home: Home, recsys: Callable[..., Any]) -> None:
    Log(home.log).append(plays(200, 300))
    line = recsys("job", "run", "--set", "job.trial=0.05", "--set", "job.trial_hours=2")
    assert (line["what"], line["release"]) == ("on trial", "000002")
    trial = Trials(home.releases).now()
    assert trial is not None
    assert (trial.release, trial.share, trial.shadow, trial.hours) == ("000002", 0.05, False, 2)
    assert Registry(home.releases).current() == "000001"
    Log(home.log).append(plays(300, 400))
    waits = recsys("job", "run", "--force")
    assert (waits["what"], waits["reason"]) == (
        "not due",
        "release 000002 is on trial, so that waits until it is over (by hand: recsys promote --stop)",
    )
    assert "promote --stop" in recsys("update", code=1, as_json=False)
    told = recsys("job", "log", as_json=False)
    assert "release 000002 is on trial after" in told
    Trials(home.releases).end()  # it fell behind
    Journal(home.job).add("trial ended", release="000002", reason="it fell behind")
    assert Journal(home.job).refusals() == 1
    again = recsys("job", "run")
    assert (again["what"], again["release"], again["parent"]) == ("published", "000003", "000001")
    assert Log(home.log).read(Registry(home.releases).open("000001").position).num_rows == 200, "what nobody was taught is learned again"


def test_what_a_first_fit_left_is_due_though_nothing_has_come_since(home: Home, recsys: Callable[..., Any]) -> None:
    job.fit_and_publish(home, load_settings(home.config, environ={}), until=NOW + 100 * 60_000)
    assert recsys("job", "run")["triggers"] == {"volume": "100 new events (job.events = 50)"}
    assert recsys("job", "run")["what"] == "not due"


def test_every_kind_of_line_can_be_read(home: Home, recsys: Callable[..., Any]) -> None:
    Journal(home.job).add("loss", partition=3, reason="5 of its events were removed before anybody took them")
    told = recsys("job", "log", as_json=False)
    assert told.strip().endswith("lost, in partition 3: 5 of its events were removed before anybody took them")


def test_where_there_is_no_release_nothing_is_made(tmp_path: Path) -> None:
    home = Home(tmp_path / "mistyped")
    for words in (("job", "run"), ("archive",)):
        done = subprocess.run(command(home, *words), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == (words == ("job", "run"))
        assert not home.path.exists()
    assert "0 events moved" in done.stdout


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(home: Home, recsys: Callable[..., Any]) -> None:
    """Files of more than 20 kB cannot be written for a while."""
    Log(home.log).append(plays(200, 300))
    code = (
        "import resource, signal; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from recsys import cli; cli.main()"
    )
    words = [sys.executable, "-c", code, "job", "run", "--home", str(home.path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert Registry(home.releases).ids() == ["000001"]
    assert not list(home.releases.glob(".draft-*"))
    assert recsys("job", "run")["release"] == "000002"


def test_a_watch_updates_by_itself_and_ends_when_it_is_told_to(home: Home) -> None:
    with subprocess.Popen(command(home, "job", "watch", "--json"), stdout=subprocess.PIPE, text=True) as watch:
        try:
            assert watch.stdout is not None
            Log(home.log).append(plays(200, 300))
            assert json.loads(watch.stdout.readline())["release"] == "000002"
            Log(home.log).append(plays(300, 400))
            assert json.loads(watch.stdout.readline())["release"] == "000003"
            watch.send_signal(signal.SIGTERM)
            assert watch.wait(20) == 0
            assert watch.stdout.read() == ""
        finally:
            watch.kill()


def test_a_line_torn_by_a_power_loss_is_passed_over_and_the_next_stands_by_itself(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    first = journal.add("refused", reason="bad")
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"time": "2026')
    second = journal.add("published", release="000002")
    assert journal.read() == [first, second]


def test_a_lease_ends_with_its_holder_or_with_its_time(server: EmbeddedRedis, store: redis.Redis, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"  # two machines that share a Redis
    with lease(here, server.url, "t") as one:
        assert one == 1
        with pytest.raises(Busy, match="on this machine or another"), lease(there, server.url, "t"):
            pass
        with pytest.raises(Busy, match=r"on this machine$"), lease(here, server.url, "t"):
            pass
    with pytest.raises(BadInput, match="something else"), lease(here, server.url, "t"):
        raise BadInput("something else")  # is not taken for a busy job
    with lease(there, server.url, "t", seconds=1) as third:
        assert third == 4
        time.sleep(1.6)  # it was renewed meanwhile
        assert store.get("{t}:job") == b"4"
        store.set("{t}:job", 77)  # it slept too long, and another took over
    assert store.get("{t}:job") == b"77"
