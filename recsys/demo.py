"""The whole system on a real log, step by step, with the commands that a user would type."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from recsys.errors import BadInput, RecsysError
from recsys.home import Home
from recsys.log import Log
from recsys.registry import Registry

MARK = ".recsys-demo"
TRAIN = 8
UPDATES = 5
PORT = 8000
METHODS = "popular,knn,frozen,naive,replay+ewc,replay+ewc+neighbours"


class DemoFailed(RecsysError):
    """A step of the demo did not end well."""


def run(folder: Path, quiet: bool = False) -> dict[str, Any]:
    """Run the demo in a folder of its own; return what was measured. At a terminal it then serves on, with the console, until Ctrl-C."""
    demo = _Demo(folder, quiet)
    found = demo.run()
    if not quiet and sys.stdin.isatty() and sys.stdout.isatty():
        demo.stay()
    return found


class _Demo:
    def __init__(self, folder: Path, quiet: bool):
        self.home = Home(_emptied(folder))
        self.say = Console(quiet=quiet)
        self.seconds: dict[str, float] = {}

    def run(self) -> dict[str, Any]:
        began = time.monotonic()
        source = self.import_log()
        week, first = self.windows()
        self.step(f"Train the first release on the first {TRAIN} windows of the log")
        self.recsys("fit", "--until", _text(first))
        self.step("Update it, window by window: new films and new people every time, only the new events are read")
        for number in range(1, UPDATES + 1):
            self.recsys("update", "--until", _text(first + number * week))
        self.recsys("releases")
        self.step("Replay the log offline: every window is answered before it is learned, over the full catalogue")
        report, pictures = self.home.reports / "replay.json", self.home.reports / "replay.html"
        windows = ("--window", f"{week.days}d", "--train", str(TRAIN), "--cycles", "4")
        self.recsys("evaluate", *windows, "--methods", METHODS, "--k", "20", "--json", str(report), "--report", str(pictures))
        self.step("Serve the newest release, and tap")
        tap = self.serve_and_tap()
        total = time.monotonic() - began
        self.say.print(f"\n[bold]Done in {total:.0f} s.[/bold] The replay in pictures: {pictures}. Next, by hand:")
        shown = shlex.quote(str(self.home.path))
        for command in (
            f"recsys serve --home {shown}       # and the console on http://127.0.0.1:8000/console/",
            f"recsys rollback --home {shown}",
            "recsys import YOUR_LOG.csv --home YOUR_HOME",
        ):
            self.say.print(f"  .venv/bin/{command}", soft_wrap=True, highlight=False)
        return {
            "source": source,
            "releases": Registry(self.home.releases).ids(),
            "replay": orjson.loads(report.read_bytes())["methods"],
            "tap": tap,
            "seconds": {**self.seconds, "total": round(total, 1)},
        }

    def stay(self) -> None:
        """Serve on, for whoever looks, until Ctrl-C."""
        self.step("See it learn: open the console in a browser; Ctrl-C ends this")
        with socket.socket() as free:
            port = free.connect_ex(("127.0.0.1", PORT)) and PORT  # another server may be there
        command = [sys.executable, "-m", "recsys.cli", "serve", "--with-archiver", "--home", str(self.home.path), "--port", str(port)]
        with suppress(KeyboardInterrupt), subprocess.Popen(command) as server:
            try:
                server.wait()
            finally:
                server.terminate()  # at a terminal Ctrl-C has reached it already, and a second SIGINT would cut it short

    def import_log(self) -> str:
        """Take MovieTweetings where it lies, else download MovieLens, else simulate; say which."""
        given = os.environ.get("RECSYS_DATA")
        tweets = Path(given) / "movietweetings" if given else None
        if tweets and tweets.is_dir():
            self.step(f"Import MovieTweetings from {given}: film ratings of 2013 as people tweeted them")
            self.recsys("import", "--items", str(tweets / "movies.dat.gz"))
            self.recsys("import", str(tweets / "ratings.dat.gz"))
            return "movietweetings"
        self.step("Download MovieLens latest-small (1 MB), and import it")
        try:
            self.recsys("data", "get", "movielens-latest-small", complain=False)
            return "movielens-latest-small"
        except DemoFailed:
            self.say.print("[yellow]no network to download it from: the demo runs on a simulated log instead[/yellow]")
        self.step("Simulate what a streaming app's log would hold")
        self.recsys("simulate", "--users", "400", "--items", "300", "--days", "105")
        return "simulated"

    def windows(self) -> tuple[timedelta, datetime]:
        """Return the length of a window and the moment up to which the first fit learns.

        A week where the log spans less than two years, else half a year (MovieLens spans more than twenty).
        """
        times = Log(self.home.log).read(columns=["timestamp"])["timestamp"]
        first, last = (datetime.fromtimestamp(pc.cast(edge, pa.int64()).as_py() / 1000, UTC) for edge in (pc.min(times), pc.max(times)))
        week = timedelta(days=7 if last - first < timedelta(days=730) else 182)
        return week, first + TRAIN * week

    def serve_and_tap(self) -> dict[str, Any]:
        """Start the API, show one person's recommendations, tap, show them again, move the tap into the log, and stop."""
        command = [sys.executable, "-m", "recsys.cli", "serve", "--home", str(self.home.path), "--port", "0", "--json"]
        self.say.print(f"[dim]$ recsys serve --home {shlex.quote(str(self.home.path))}[/dim]", soft_wrap=True)
        with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
            try:
                assert server.stdout is not None
                line = server.stdout.readline()
                if not line:
                    raise DemoFailed("the server did not start; its reason stands above")
                url = orjson.loads(line)["url"]
                self.say.print(f"serving on {url} (API docs: {url}/docs)")
                shown = self.tap(url)
                self.recsys("archive")
            finally:
                server.send_signal(signal.SIGINT)
        if server.returncode:
            raise DemoFailed(f"the server ended with exit code {server.returncode}")
        self.say.print("the server has stopped cleanly")
        return shown

    def tap(self, url: str) -> dict[str, Any]:
        user = self.somebody()
        path = f"{url}/v1/recommend/{user}?k=8"
        before = _get(path)["items"]
        liked = before[1]
        event = {"user_id": user, "item_id": liked["item_id"], "event_type": "play", "timestamp": time.time()}
        started = time.perf_counter()
        _get(f"{url}/v1/events", event)
        after = _get(path)["items"]
        milliseconds = 1000 * (time.perf_counter() - started)
        old = {item["item_id"]: rank for rank, item in enumerate(before, 1)}
        table = Table(title=f"user {user} plays {_title(liked)!r}", box=None, title_justify="left")
        for heading in ("rank", "before the tap", "after the tap", "moved"):
            table.add_column(heading)
        for rank, (was, now) in enumerate(zip(before, after, strict=False), 1):
            place = old.get(now["item_id"])
            moved = "new" if place is None else "" if place == rank else f"{place} -> {rank}"
            table.add_row(str(rank), _title(was), _title(now), moved)
        self.say.print(table)
        self.say.print(f"event in, next recommendation out: {milliseconds:.1f} ms for the two requests")
        if [item["item_id"] for item in after] == [item["item_id"] for item in before]:
            raise DemoFailed("the recommendations did not change after the tap")
        return {"user_id": user, "played": liked["item_id"], "before": before, "after": after, "milliseconds": milliseconds}

    def somebody(self) -> str:
        """Return a person with about a dozen events, from the log."""
        counts = pc.value_counts(Log(self.home.log).read(columns=["user_id"])["user_id"].drop_null()).to_pylist()
        return min(counts, key=lambda count: (abs(count["counts"] - 12), count["values"]))["values"]

    def step(self, what: str) -> None:
        self.say.print(f"\n[bold cyan]{what}[/bold cyan]", soft_wrap=True)

    def recsys(self, *words: str, complain: bool = True) -> None:
        """Show a command and run it; without `complain` its own error is not shown."""
        command = [*words, "--home", str(self.home.path)]
        self.say.print(f"[dim]$ recsys {shlex.join(command)}[/dim]", soft_wrap=True, highlight=False)
        started = time.monotonic()
        where = subprocess.DEVNULL if self.say.quiet else None
        done = subprocess.run(
            [sys.executable, "-m", "recsys.cli", *command], stdout=where, stderr=None if complain else subprocess.DEVNULL, check=False
        )
        self.seconds[words[0]] = round(self.seconds.get(words[0], 0) + time.monotonic() - started, 1)
        if done.returncode:
            raise DemoFailed(f"recsys {shlex.join(command)} ended with exit code {done.returncode}")


def _emptied(folder: Path) -> Path:
    """Empty a folder that an earlier demo made; refuse one that holds anything else."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise BadInput(f"{folder} is not a demo's folder and is not empty; name another with --home")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    return folder


def _get(url: str, body: Any = None) -> Any:
    request = urllib.request.Request(url, None if body is None else orjson.dumps(body), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return orjson.loads(answer.read())
    except urllib.error.URLError as error:
        raise DemoFailed(f"{url}: {error}") from None


def _title(item: dict[str, Any]) -> str:
    return item.get("title") or item["item_id"]


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
