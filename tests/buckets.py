"""A bucket for tests: moto's S3 over HTTP (tests/s3.py), who may use it, and settings that name a folder in it."""

import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recsys.home import Home
from recsys.settings import Settings, load_settings
from recsys.shared import Shared


def s3_server(*arguments: str) -> Iterator[str]:
    """Give the address of a server."""
    command = [sys.executable, str(Path(__file__).with_name("s3.py")), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    yield process.stdout.readline().strip()
    process.stdin.close()
    process.wait(10)


def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ACCESS_KEY_ID", "somebody"), ("SECRET_ACCESS_KEY", "secret"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)


def bucket_settings(endpoint: str, folder: str, *files: Path) -> Settings:
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT")).read()
    return load_settings(*files, overrides={"store.url": f"s3://bucket/{folder}", "store.endpoint": endpoint}, environ={})


def joined(home: Home) -> Shared:
    assert home.shared is not None
    return home.shared


def before_the_next_line(home: Home, monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Let something happen between a machine's look at the journal and the line that it puts: once."""
    store, honest = joined(home).store, joined(home).store.put_if_absent

    def late(name: str, content: bytes) -> None:
        monkeypatch.setattr(store, "put_if_absent", honest)
        do()
        honest(name, content)

    monkeypatch.setattr(store, "put_if_absent", late)
