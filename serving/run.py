"""From the command to a server that listens, and to its end."""

import ipaddress
import logging
import multiprocessing
import os
import signal
import socket
from contextlib import nullcontext
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import orjson
import pyarrow as pa
import uvicorn
from uvicorn.supervisors import Multiprocess

from recsys.errors import BadInput, RecsysError
from recsys.home import Home
from recsys.progress import bar
from recsys.settings import Settings
from serving.answers import AWAY
from serving.api import Api, create_app
from serving.archiver import archiver
from serving.embedded import end_with_parent, redis_address
from serving.engine import Engine
from serving.keys import Keys
from serving.logs import set_up
from serving.metrics import SHARED
from serving.warm import warm

_log = logging.getLogger("recsys.api")

READY = 60
"""Seconds in which a worker must be ready."""


def run(home: Home, settings: Settings, json: bool = False, with_archiver: bool = False) -> None:
    """Serve one home until SIGINT or SIGTERM; print one line, or one line of JSON, once it is up."""
    set_up(settings.serving.log)
    _safe(settings.serving.host, Keys(home.keys))
    with _listen(settings.serving.host, settings.serving.port) as listener, redis_address(home, settings) as url:
        known = settings.model_copy(update={"serving": settings.serving.model_copy(update={"redis_url": url})})
        loaded = _warm(url, home, settings, json)
        served = _Served(home, known, Keys(home.keys).needed)
        config = uvicorn.Config(
            served,
            factory=True,
            loop="uvloop",
            http="httptools",
            lifespan="on",
            log_level="warning",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=5,
            timeout_worker_healthcheck=10,
            workers=settings.serving.workers,
        )
        before = {sign: signal.signal(sign, lambda *_: None) for sign in (signal.SIGINT, signal.SIGTERM)}
        beside = archiver(home, known) if with_archiver else nullcontext()
        try:  # uvicorn raises the signal that ended it once more, for whoever was there before: nobody, so we end with 0
            with beside:
                if settings.serving.workers == 1:
                    _Server(config, json, loaded).run(sockets=[listener])
                else:
                    with TemporaryDirectory(prefix="recsys-metrics-") as counted:
                        os.environ[SHARED] = counted  # for the workers, who have not imported anything yet
                        _Workers(config, listener, json, loaded, home).run()
        finally:
            os.environ.pop(SHARED, None)
            for sign, handler in before.items():
                signal.signal(sign, handler)


@dataclass(frozen=True)
class _Served:
    """Makes the app, here or in a worker, which is a process of its own."""

    home: Home
    settings: Settings
    guarded: bool

    def __call__(self) -> Api:
        if multiprocessing.parent_process() is not None:
            set_up(self.settings.serving.log)
            end_with_parent()
        return create_app(self.home, self.settings, self.guarded)


class _Server(uvicorn.Server):
    """Says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, json: bool, loaded: int):
        super().__init__(config)
        self.json, self.loaded = json, loaded

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            engine: Engine = self.config.loaded_app.state.engine
            _say_so(sockets[0], engine.snapshot.id if engine.snapshot else None, engine.missing, self.loaded, self.json)


class _Workers(Multiprocess):
    """Several processes on one address, looked after: one that dies is replaced. Says where they listen once all do."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket, json: bool, loaded: int, home: Home):
        super().__init__(config, [listener])
        self.json, self.loaded, self.home = json, loaded, home

    def init_processes(self) -> None:
        super().init_processes()
        for process in self.processes:
            if not process.wait_until_ready(READY, self.should_exit):
                return  # whoever looks after them says why
        engine = Engine(self.home.releases)
        _say_so(self.sockets[0], engine.registry.current(), engine.missing, self.loaded, self.json)


def _say_so(listener: socket.socket, release: str | None, missing: str, loaded: int, as_json: bool) -> None:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    up = {"url": url, "docs": f"{url}/docs", "release": release, "loaded": loaded}
    what = f"release {release}" if release else f"nothing ({missing})"
    filled = f", {loaded:,} events loaded from the log" if loaded else ""
    text = f"serving {what} on {url}, console on {url}/console/, API docs on {url}/docs{filled}, end with Ctrl-C"
    print(orjson.dumps(up).decode() if as_json else text, flush=True)


def _warm(url: str, home: Home, settings: Settings, quiet: bool) -> int:
    """Fill the profiles from the log; what stands in the way is one line, for people can be served without."""
    try:
        with bar(quiet) as step:
            return warm(url, home, settings, step)
    except (*AWAY, RecsysError, pa.ArrowException) as error:
        _log.error("profiles are not filled from the log: %s; start again once that is mended", error)
        return 0


def _safe(host: str, keys: Keys) -> None:
    """Refuse to let a network in that needs no key."""
    if keys.needed:
        return
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return  # `_listen` says what is wrong with it
    if not all(ipaddress.ip_address(address.split("%")[0]).is_loopback for address in addresses):
        raise BadInput(
            f"{host} can be reached from other machines, and this home has no API keys; make one with: recsys keys add NAME, "
            "or serve this machine alone with --host 127.0.0.1"
        )


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=1024)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise BadInput(f"cannot serve on {host}:{port}: {why}; choose another with --host and --port (0 picks a free port)") from None
