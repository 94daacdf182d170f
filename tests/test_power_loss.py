"""The power goes at any moment: what was acknowledged is there, what is there is whole; and no sync can be left out unseen."""

import hashlib
import io
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from power import Trace, crash, trace
from worlds import NOW, event_table

from recsys.log import Log
from recsys.registry import Registry

RUNS = int(os.environ.get("POWER_LOSSES", "10000"))

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks /proc what is synced")


def published(root: Path) -> Trace:
    """Two releases, one after the other, and a third, after which the first goes."""
    (root / "releases").mkdir()
    with trace(root / "releases") as (found, say):
        registry = Registry(root / "releases")
        for number in ("000001", "000002", "000003"):
            with registry.draft() as draft:
                (draft / "towers").write_bytes(b"weights of " + number.encode() * 20)
                (draft / "strategy").mkdir()
                (draft / "strategy" / "state").write_bytes(b"state of " + number.encode() * 20)
                registry.publish(draft, number, registry.current(), {"position": {"offset": 0, "until": None}})
            say(number)
        assert registry.collect(keep=1) == ["000001"]
    return found


def wrong_with_releases(disk: dict[str, Any], said: list[str]) -> str | None:
    """Return what nobody may find after a crash."""
    live = disk.get("CURRENT")
    if live is not None and live.decode().strip() not in disk:
        return f"CURRENT names {live!r}, which is not there"
    if said and (live is None or live.decode().strip() < said[-1]):
        return f"release {said[-1]} was acknowledged, and CURRENT is {live!r}"
    for name, folder in disk.items():
        if name.isdecimal() and (fault := _fault(folder)):
            return f"release {name}: {fault}"
    return None


def _fault(release: dict[str, Any]) -> str | None:
    try:
        manifest = json.loads(release["manifest.json"])
    except (KeyError, ValueError) as error:
        return f"no manifest: {error!r}"
    for path, digest in manifest["files"].items():
        content: Any = release
        for part in path.split("/"):
            content = content.get(part, {})
        if not isinstance(content, bytes) or hashlib.sha256(content).hexdigest() != digest:
            return f"{path} is not what was published"
    return None


def logged(root: Path) -> Trace:
    """A log that grows ten times and is put together then."""
    (root / "log").mkdir()
    with trace(root / "log") as (found, say):
        log = Log(root / "log")
        for n in range(10):
            row = {"event_id": f"e{n}", "user_id": "u", "item_id": "i", "timestamp": NOW + n, "event_type": "play"}
            log.append(event_table([row]))
            say(f"e{n}")
        log.compact()
        say("compacted")
    return found


def wrong_with_the_log(disk: dict[str, Any], said: list[str]) -> str | None:
    end, ids = 0, list[str]()
    segments = sorted((int(name[:12]), -int(name[13:25]), name) for name in disk if name[0].isdigit())
    for first, behind, name in segments:
        if -behind <= end:
            continue
        if first != end:
            return f"a gap before {name}"
        held = _ids(disk[name])
        if held is None:
            return f"{name} is torn"
        ids, end = ids + held, -behind
    missing = [id for id in said if id.startswith("e") and id not in ids]
    if missing:
        return f"{missing} were acknowledged and are gone"
    return None if len(ids) == len(set(ids)) else "an event is there twice"


@cache
def _ids(segment: bytes) -> list[str] | None:
    try:
        found: list[str] = pq.read_table(io.BytesIO(segment))["event_id"].to_pylist()
    except (pa.ArrowException, OSError):
        return None
    return found


WORK: dict[str, tuple[Callable[[Path], Trace], Callable[[dict[str, Any], list[str]], str | None]]] = {
    "registry": (published, wrong_with_releases),
    "log": (logged, wrong_with_the_log),
}


def faults(made: Trace, wrong: Callable[[dict[str, Any], list[str]], str | None], runs: int, seed: int = 0, enough: int = 1) -> list[str]:
    """Cut the power at random moments; return what was wrong then, a few."""
    rng, found = np.random.default_rng(seed), list[str]()
    for at in rng.integers(0, len(made.steps) + 1, runs).tolist():
        fault = wrong(*crash(made, at, rng))
        if fault:
            found.append(f"after step {at}: {fault}")
            if len(found) == enough:
                break
    return found


@pytest.mark.parametrize("what", WORK)
def test_whenever_the_power_goes_nothing_acknowledged_is_lost_and_nothing_is_half(what: str, tmp_path: Path) -> None:
    work, wrong = WORK[what]
    made = work(tmp_path)
    assert wrong(*crash(made, len(made.steps), np.random.default_rng(0))) is None
    assert faults(made, wrong, RUNS) == []


@pytest.mark.parametrize("what", WORK)
def test_no_sync_can_be_left_out_unseen(what: str, tmp_path: Path) -> None:
    """So that the disk above is known to see."""
    work, wrong = WORK[what]
    made = work(tmp_path)
    count = len(made.syncs())
    unseen = [number for number in range(count) if not faults(made.without(number), wrong, 4000)]
    assert count >= 16
    assert unseen == []
