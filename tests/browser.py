"""A real Chromium for the console's tests, and a home that is served to it.

The console's own policy holds here too: `page.wait_for_function` is given functions, "() => ...", which need no eval. Where Chromium or
Playwright is missing these tests are skipped, with one line at the end that says so; with CI set they fail instead.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from worlds import DAY, NOW, event_table, publish_release

from recsys.catalogue import Catalogue
from recsys.home import Home
from recsys.log import Log
from recsys.neighbours import Neighbours
from recsys.sessions import sessionise
from recsys.vocab import Vocabulary

ROOT = Path(__file__).parents[1]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SKIPPED = "the console's browser tests were skipped"
DESK, PHONE = (1280, 800), (390, 844)

KINDS = {
    "Sci-Fi": ["The Last Orbit", "Signal from Vega", "Iron Comet", "Tides of Mars", "Zero Hour Station", "The Glass Planet",
               "Children of the Array", "Dark Side Diner", "Antimatter", "Slow Light", "The Europa Line", "Afterglow"],
    "Crime": ["Rain on Fifth Street", "The Long Con", "Cold Ledger", "Nine Witnesses", "The Harbour Job", "A Quiet Alibi",
              "Dead Letter Office", "Burn the Books", "The Understudy", "Blue Murder", "Last Bus to Kirkwall", "Paper Tigers"],
    "Romance": ["Letters to Lisbon", "The Other Summer", "Two for Tea", "Halfway to Vienna", "Snow in April", "The Cartographer's Wife",
                "Old Flames", "Window Seat", "The Slow Train North", "Marigold", "A Room in Trieste", "Before the Tide"],
    "Animation": ["The Clockwork Fox", "Mouse and Moon", "Paper Dragons", "Pip the Brave", "The Upside-Down House", "Kites",
                  "The Button Thief", "Under the Oak", "Oskar's Boat", "The Lighthouse Cat", "Turnip Kingdom", "A Bear at Sea"],
}  # fmt: skip
"""Films of four kinds: what a person of one kind taps brings more of it."""


def missing() -> str | None:
    """Say what is missing for a browser, and how to get it."""
    if not Path(CHROMIUM).exists():
        return f"there is no {CHROMIUM}; install it with: apt-get install chromium"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "the package playwright is missing; install it with: make install"
    return None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say in one line why the browser's tests did not run."""
    skipped = sum(SKIPPED in str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
    if skipped:
        terminalreporter.write_line(f"{SKIPPED}, {skipped} of them: {missing()}", yellow=True)


@contextmanager
def chromium() -> Iterator[Any]:
    """Give a headless Chromium that asks nobody for updates."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        try:
            yield browser
        finally:
            browser.close()


STOPPED = ("ERR_CONNECTION", "ERR_EMPTY", "ERR_SOCKET")
"""What a page writes whose server has ended, as it does at the end of a test that started one; whether it should have, the test shows."""


@pytest.fixture(scope="module")  # not the session: while it lives an event loop runs in this thread, which other tests must not meet
def browser() -> Iterator[Any]:
    if wrong := missing():
        if os.environ.get("CI"):
            pytest.fail(f"CI must not leave the browser's tests out: {wrong}")
        pytest.skip(f"{SKIPPED}: {wrong}")
    with chromium() as browser:
        yield browser


@pytest.fixture
def pages(browser: Any) -> Iterator[Callable[..., Any]]:
    """Give pages, as wide as a desk's or a phone's screen, light or dark; the test fails when one of them wrote an error.

    allowed: what an error that is part of the test may hold, such as "401" where a key is asked for.
    """
    contexts, errors = [], list[str]()

    def opened(url: str = "", size: tuple[int, int] = DESK, dark: bool = False, allowed: tuple[str, ...] = (), **options: Any) -> Any:
        usual = {"viewport": {"width": size[0], "height": size[1]}, "color_scheme": "dark" if dark else "light", "reduced_motion": "reduce"}
        context = browser.new_context(**usual | options)
        contexts.append(context)
        context.set_default_timeout(20_000)
        page = context.new_page()

        def wrote(text: str, where: str = "") -> None:
            if not any(part in text for part in (*allowed, *STOPPED)):
                errors.append(f"{text} {where}")

        page.on("console", lambda said: wrote(said.text, said.location.get("url", "")) if said.type == "error" else None)
        page.on("pageerror", lambda error: wrote(str(error)))
        if url:
            page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not errors, "the page wrote errors to the browser's console:\n" + "\n".join(errors)


@pytest.fixture
def page(pages: Callable[..., Any]) -> Any:
    """Give one page as wide as a desk's screen."""
    return pages()


def films() -> pa.Table:
    """Return the catalogue: films of each kind, with their year and one or two genres."""
    rows = []
    for kind, titles in KINDS.items():
        for number, title in enumerate(titles):
            year, genres = 1980 + 3 * number, [kind, "Drama"] if number % 3 == 0 else [kind]
            rows.append({"item_id": f"{kind[:2].lower()}{number}", "title": f"{title} ({year})", "genres": genres, "year": year})
    return pa.Table.from_pylist(rows)


def what_they_did(people: int = 40) -> list[dict[str, Any]]:
    """Return the log of people who each like one kind and try another once; p0 likes science fiction, p1 crime, and so on."""
    rng, kinds, rows = np.random.default_rng(0), [kind[:2].lower() for kind in KINDS], []
    for number in range(people):
        mine = [f"{kinds[number % 4]}{item}" for item in rng.permutation(12)[:4]] + [f"{kinds[(number + 1) % 4]}{rng.integers(12)}"]
        for place, item in enumerate(mine):
            time = NOW - DAY * int(rng.integers(1, 20)) + place * 60_000
            rows.append(
                {"event_id": f"{number}-{place}", "user_id": f"p{number}", "item_id": item, "timestamp": time, "event_type": "watch"}
            )
    return rows


def small_home(path: Path) -> Home:
    """Return a home with a log, a catalogue and two releases, the second of which knows more films and has moved the others a little."""
    home, catalogue, log = Home(path), films(), event_table(what_they_did())
    Catalogue(home.items).add(catalogue)
    Log(home.log).append(log)
    home.config.write_text("[serving]\nwatch_seconds = 0.1\npopular_hours = 0\nprofile_seconds = 10\n")
    rng, ids = np.random.default_rng(1), catalogue["item_id"].to_pylist()
    kind = np.repeat(np.eye(4, 8), 12, axis=0)
    vectors = kind + 0.25 * rng.normal(size=(len(ids), 8))
    for first, moved in ((40, 0.0), (48, 0.15)):
        memory = Neighbours()
        memory.add(sessionise(log, Vocabulary(ids[:first])))
        publish_release(
            home.path, ids[:first], (vectors + moved * rng.normal(size=vectors.shape))[:first], neighbours=memory, weights=(0.2, 0.1),
            scale=8.0, known=catalogue.slice(0, first), why="first fit" if first == 40 else "new events",
        )  # fmt: skip
    return home


def start(home: Path, port: int = 0, *words: str) -> tuple[subprocess.Popen[str], str]:
    """Run `recsys serve` and return the process and its address, once it is up."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")}
    command = [sys.executable, "-m", "recsys.cli", "serve", "--home", str(home), "--port", str(port), "--json", *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environ)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, f"recsys serve ended with {process.wait(20)}"
    return process, json.loads(line)["url"]


def stop(process: subprocess.Popen[str]) -> None:
    """End it as Ctrl-C does."""
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)


@contextmanager
def serving(home: Path, *words: str) -> Iterator[httpx.Client]:
    """Serve a home in a process of its own, with a Redis of its own, and give a client of it: `str(client.base_url)` is its address."""
    process, url = start(home, 0, *words)
    try:
        with httpx.Client(base_url=url, timeout=10) as client:
            yield client
    finally:
        stop(process)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a home with two releases that tests may read; one that writes to it copies it (`own`)."""
    return small_home(tmp_path_factory.mktemp("console") / "home").path


@pytest.fixture
def own(small: Path, tmp_path: Path) -> Path:
    """Give a copy of the small home that nobody else uses."""
    return Path(shutil.copytree(small, tmp_path / "home", ignore=shutil.ignore_patterns("redis")))


@pytest.fixture(scope="session")
def console(small: Path) -> Iterator[httpx.Client]:
    """Give a client of the API of the small home: `url(console, "live")` opens a page."""
    with serving(small) as client:
        yield client


def url(client: httpx.Client, page: str = "live", **params: str) -> str:
    """Return the address of one of the console's pages."""
    query = str(httpx.QueryParams(params))
    return f"{client.base_url}/console/#/{page}{f'?{query}' if query else ''}".replace("//console", "/console")
