"""The archiver beside a server: a process of its own, for it must not take the time of those who answer."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from recsys.home import Home
from recsys.settings import Settings
from serving.embedded import end_with

_log = logging.getLogger("recsys.archiver")

EVERY = 10.0
"""Seconds between two looks into the streams."""

PAUSE = 1.0
"""Seconds before one that ended is started again; twice as many each time, up to a minute."""


@contextmanager
def archiver(home: Home, settings: Settings) -> Iterator[None]:
    """Run `recsys archive --every` on a home while inside, and again where it ends."""
    over = threading.Event()
    keeper = threading.Thread(target=_keep, args=(home, settings, over), name="archiver")
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()


def _keep(home: Home, settings: Settings, over: threading.Event) -> None:
    command = [sys.executable, "-m", "recsys.cli", "archive", "--every", f"{EVERY:g}", "--home", str(home.path)]
    told = {"RECSYS_REDIS_URL": settings.serving.redis_url, "RECSYS_SERVING__TENANT": settings.serving.tenant}
    told |= {"RECSYS_STORE__URL": settings.store.url, "RECSYS_STORE__ENDPOINT": settings.store.endpoint}
    pause = PAUSE
    while not over.is_set():
        began = time.monotonic()
        child = subprocess.Popen(
            command,
            env={**os.environ, **told},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal is for the server to handle
            preexec_fn=end_with(os.getpid()),
        )
        while child.poll() is None and not over.wait(0.2):
            pass
        if over.is_set():
            child.terminate()  # what it is about it gives up; the next one goes on from there
            child.wait(30)
            return
        pause = PAUSE if time.monotonic() - began > 60 else pause
        _log.error("the archiver ended with code %s; it is started again in %.0f s", child.returncode, pause)
        over.wait(pause)
        pause = min(2 * pause, 60.0)
