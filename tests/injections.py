"""The real command line under strace, killed by -9 or told that the disk is full at one system call after the other: `make chaos`.

A command is run once under watch, to learn which of its system calls have to do with its home. Then it is run again and again on a home
just like that, and each time one of these calls ends it, or fails for want of room. Afterwards nothing may be half, the live release must
verify, and the same command must end as if nothing had happened.
"""

import asyncio
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worlds import NOW, SMALLEST, event_table

from recsys.backup import verify
from recsys.home import Home
from recsys.log import Log
from recsys.registry import Registry
from recsys.settings import Settings, load_settings
from serving.archive import archive_home
from serving.embedded import EmbeddedRedis
from serving.history import Event
from serving.profiles import Profiles
from serving.wire import Wire
from training import job

SHARE = {"archive": 0.38, "gc --keep 1": 0.2, "backup COPY": 0.27, "job run --force": 0.15}
"""How many of the injections each command gets: one of the job takes the longest."""

NAMES = ("rename", "link", "unlink", "mkdir")
CALLS = (*NAMES, "renameat", "renameat2", "linkat", "unlinkat", "mkdirat", "openat", "write", "pwrite64", "fsync", "fdatasync", "ftruncate")
FREEING = {"unlink", "unlinkat", "ftruncate"}
"""What a full disk never refuses."""

IN_LOG, WAITING = 200, 20


@dataclass(frozen=True)
class Injection:
    """What comes at which call: the `number`-th of its kind, of every process and thread, as strace counts."""

    kind: str
    call: str
    number: int

    @property
    def words(self) -> list[str]:
        what = "signal=SIGKILL" if self.kind == "kill" else "error=ENOSPC"
        quick = ["--seccomp-bpf"] if self.kind == "full" else []  # stops at nothing else; but a signal is lost in such a stop
        return [*quick, "-e", f"trace=execve,{self.call}", "-e", f"inject={self.call}:{what}:when={self.number}"]


def plays(first: int, last: int) -> list[dict[str, Any]]:
    """One event a minute, of thirty people and twenty films."""
    return [
        {"event_id": f"e{n}", "user_id": f"u{n * 7 % 30}", "item_id": f"i{n * n % 20}", "timestamp": NOW + n * 60_000, "event_type": "play"}
        for n in range(first, last)
    ]


def build(home: Home) -> None:
    """Make a home with a log that is due to be put together, three releases, and events that wait in its Redis."""
    home.path.mkdir()
    home.config.write_text(f"{SMALLEST}\n[gate]\nheld_back = 0\n")
    for first in range(0, IN_LOG, IN_LOG // 7 + 1):
        Log(home.log).append(event_table(plays(first, min(IN_LOG, first + IN_LOG // 7 + 1))))
    for _ in range(3):
        job.fit_and_publish(home, load_settings(home.config, environ={}))

    async def send(server: EmbeddedRedis) -> None:
        wire = Wire(server.url)
        events = [
            Event(one["item_id"], "play", one["timestamp"], one["event_id"], one["user_id"]) for one in plays(IN_LOG, IN_LOG + WAITING)
        ]
        await Profiles(wire, Settings().serving.tenant).merge(events)
        wire.close()

    with EmbeddedRedis(home.redis) as server:
        archive_home(home, Settings())  # gives the streams their name, which is made at random
        asyncio.run(send(server))


def run(words: str, home: Home, *strace: str) -> subprocess.CompletedProcess[str]:
    """Run a command on a home, under strace where that is asked for."""
    command = [sys.executable, "-m", "recsys.cli", *words.replace("COPY", str(home.path / "copy")).split(), "--home", str(home.path)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")}
    environ |= {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "1000"}
    under = ["strace", "-f", "-q", *strace] if strace else []
    return subprocess.run([*under, *command], capture_output=True, text=True, timeout=300, env=environ, check=False)


def candidates(trace: str, home: Home) -> list[Injection]:
    """Return what may be injected: calls that have to do with the home, by their number in the process or thread that made them.

    strace counts in each of them by itself, so a number counts only where the first to come so far is about the home.
    """
    counts: Counter[tuple[str, str]] = Counter()
    come: set[tuple[str, int]] = set()
    found = []
    for line in trace.splitlines():
        if not (told := re.match(r"(\d+) +(\w+)\((.*)", line)):
            continue  # the end of a call that began above, or of a process
        process, call, about = told.groups()
        counts[process, call] += 1
        one = (call, counts[process, call])
        is_first, _ = one not in come, come.add(one)
        reads = call == "openat" and "O_CREAT" not in about
        if not is_first or str(home.path) not in about or reads or re.search("ENOENT|EEXIST", about):
            continue
        found.append(Injection("kill", *one))
        if call not in FREEING and one != ("write", 2):  # by then somebody may be about to tell the user
            found.append(Injection("full", *one))
    return found


def spread(among: list[Injection], count: int, rng: random.Random) -> list[Injection]:
    """Pick some at random, of every kind and call about as many, each once while there are others."""
    heaps = defaultdict[tuple[str, str], list[Injection]](list)
    for one in rng.sample(among, len(among)):
        heaps[one.kind, one.call].append(one)
    picked: list[Injection] = []
    while len(picked) < count and heaps:
        for key in sorted(heaps):
            picked.append(heaps[key].pop())
            if not heaps[key]:
                del heaps[key]
    return rng.sample(picked, len(picked))[:count]


def half(home: Home) -> str | None:
    """Return what nobody may find, whatever happened: the log, every release and the backup are read as their readers do."""
    logged = Log(home.log).read(columns=["event_id"])["event_id"].to_pylist()
    known = len(logged) if len(logged) in (IN_LOG, IN_LOG + WAITING) else 0
    if logged[:IN_LOG] != [f"e{n}" for n in range(IN_LOG)] or set(logged) != {f"e{n}" for n in range(known)}:
        return f"the log holds {len(logged)} events, {len(set(logged))} of them different"
    registry = Registry(home.releases)
    for id in registry.ids():
        registry.open(id).verify()
    if (position := registry.open().position.offset) not in (IN_LOG, IN_LOG + WAITING) or position > len(logged):
        return f"the live release has learned {position} events of {len(logged)}"
    if (home.path / "copy").exists():
        verify(home.path / "copy")
    return None


def result(words: str, home: Home) -> Any:
    """Return what a command is for."""
    live = Registry(home.releases).open()
    log = Log(home.log)
    found: dict[str, Any] = {"log": log.read().to_pydict(), "content": live.manifest["content"], "position": live.position}
    if words.startswith("gc"):
        found |= {"releases": Registry(home.releases).ids()}
    else:
        found |= {"segments": [path.name for path in log.segments()], "notes": log.notes()}
    if words.startswith("backup"):
        found |= {"copied": sorted(verify(home.path / "copy")["files"].items())}
    rooms = {"gc": [home.releases], "archive": [home.log, home.redis]}.get(
        words.split()[0], [home.log, home.redis, home.releases, home.path]
    )
    found["left over"] = [str(path) for room in rooms for path in room.glob(".*") if path.name != ".lock" and path.name.endswith("tmp")]
    found["drafts"] = [str(path) for path in home.releases.glob(".draft-*")] if "releases" in {room.name for room in rooms} else []
    return found


def judged(injection: Injection, done: subprocess.CompletedProcess[str], trace: str) -> tuple[bool, str | None]:
    """Say whether it came to that, and what was wrong with how the command ended."""
    first = trace.split(" ", 1)[0]  # which became the command, and so came before its Redis
    hit = [line for line in trace.splitlines() if "(INJECTED)" in line or "killed by SIGKILL" in line]
    if "Traceback" in done.stderr:
        return bool(hit), f"a traceback: {done.stderr}"
    if done.returncode not in (0, 1, -9):
        return bool(hit), f"exit code {done.returncode}: {done.stderr}"
    if done.returncode == 1:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        if not last.startswith("error: "):
            return bool(hit), f"no clear error: {done.stderr!r}"
        if injection.kind == "full" and any(line.startswith(f"{first} ") for line in hit) and "No space left" not in done.stderr:
            return bool(hit), f"it does not say that the disk is full: {done.stderr!r}"
    return bool(hit), None


def put_through(words: str, began: Home, count: int, folder: Path, rng: random.Random, say: Callable[[str], None]) -> Counter[str]:
    """Inject into one command; return what happened how often."""
    home, log = Home(folder / "home"), folder / "trace"

    def anew() -> None:
        shutil.rmtree(home.path, ignore_errors=True)
        shutil.copytree(began.path, home.path)

    anew()
    watched = run(words, home, "-y", "-o", str(log), "-e", f"trace={','.join(CALLS)}")
    assert watched.returncode == 0, watched.stderr
    among, expected = candidates(log.read_text(errors="replace"), home), result(words, home)
    assert len(among) >= 20, among
    assert not expected["left over"], expected
    found, start = Counter[str](), time.monotonic()
    for injection in spread(among, count, rng):
        anew()
        done = run(words, home, "-o", str(log), *injection.words)
        hit, wrong = judged(injection, done, log.read_text(errors="replace"))
        ended = "came through" if done.returncode == 0 else "died" if done.returncode == -9 else "said so"
        try:
            wrong = wrong or half(home)
            if not wrong and done.returncode and not (words.startswith("backup") and (home.path / "copy").exists()):
                again = run(words, home)
                wrong = None if again.returncode == 0 else f"run again it fails: {again.stderr}"
            if not wrong and (now := result(words, home)) != expected:
                wrong = f"it ends otherwise: {[(name, now[name]) for name in now if now[name] != expected[name]]}"
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        found.update(["injected", injection.kind, *(["hit", ended] if hit else []), *(["wrong"] if wrong else [])])
        found.update([f"call {injection.call}"])
        if wrong:
            say(f"WRONG: {words}, {injection}: {wrong[:1000]}")
    found["seconds"] = round(time.monotonic() - start)
    return found


def main(count: int, seed: int = 0) -> int:
    """Put every command through it; return the exit code."""
    if not shutil.which("strace"):
        print("FAILED: make chaos needs strace to inject faults (apt install strace)")
        return 1
    total = Counter[str]()
    with tempfile.TemporaryDirectory(prefix="recsys-injections-") as folder:
        home = Home(Path(folder) / "began")
        build(home)
        columns = ("injected", "kill", "full", "hit", "died", "said so", "came through", "wrong", "seconds")
        print(f"{'':18}" + "".join(f"{name:>14}" for name in columns), flush=True)
        for words, share in SHARE.items():
            found = put_through(words, home, round(count * share), Path(folder), random.Random(seed), lambda said: print(said, flush=True))
            print(f"{words:18}" + "".join(f"{found[name]:14}" for name in columns), flush=True)
            total += found
        print(f"{'together':18}" + "".join(f"{total[name]:14}" for name in columns))
    calls = {name.removeprefix("call "): number for name, number in sorted(total.items()) if name.startswith("call ")}
    print("by call:", ", ".join(f"{name} {number}" for name, number in calls.items()))
    if total["wrong"] or total["hit"] < 0.8 * total["injected"]:
        print("FAILED: something was half, or lost, or not said; or too few of the injections came to anything")
        return 1
    print("passed: nothing was half, whatever came; and run again, every command ended as if nothing had happened")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 120))
