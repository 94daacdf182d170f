"""From the command to a server that listens, and to its end."""

import gc
import ipaddress
import logging
import os
import signal
import socket

import orjson
import pyarrow as pa
import uvicorn

from recsys.errors import BadInput, RecsysError
from recsys.home import Home
from recsys.progress import bar
from recsys.settings import Settings
from serving.answers import AWAY
from serving.api import create_app
from serving.embedded import redis_address
from serving.engine import Engine
from serving.keys import Keys
from serving.warm import warm

_log = logging.getLogger("recsys.api")


def run(home: Home, settings: Settings, json: bool = False) -> None:
    """Serve one home until SIGINT or SIGTERM; print one line, or one line of JSON, once it is up."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    _safe(settings.serving.host, Keys(home.keys))
    with _listen(settings.serving.host, settings.serving.port) as listener, redis_address(home, settings) as url:
        known = settings.model_copy(update={"serving": settings.serving.model_copy(update={"redis_url": url})})
        loaded = _warm(url, home, settings, json)
        app = create_app(home, known)
        config = uvicorn.Config(
            app, loop="uvloop", http="httptools", lifespan="on", log_level="warning", access_log=False, proxy_headers=False,
            server_header=False, timeout_graceful_shutdown=5,
        )  # fmt: skip
        before = {sign: signal.signal(sign, lambda *_: None) for sign in (signal.SIGINT, signal.SIGTERM)}
        try:  # uvicorn raises the signal that ended it once more, for whoever was there before: nobody, so we end with 0
            _Server(config, json, loaded).run(sockets=[listener])
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)


class _Server(uvicorn.Server):
    """Says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, json: bool, loaded: int):
        super().__init__(config)
        self.json, self.loaded = json, loaded

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()  # what is there now stays: to look through it again and again only makes people wait
        gc.set_threshold(20_000, 20, 50)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            engine: Engine = self.config.app.state.engine  # type: ignore[union-attr]
            snapshot = engine.snapshot
            up = {"url": url, "docs": f"{url}/docs", "release": snapshot.id if snapshot else None, "loaded": self.loaded}
            what = f"release {snapshot.id}" if snapshot else f"nothing ({engine.missing})"
            filled = f", {self.loaded:,} events loaded from the log" if self.loaded else ""
            text = f"serving {what} on {url}, API docs on {url}/docs{filled}, end with Ctrl-C"
            print(orjson.dumps(up).decode() if self.json else text, flush=True)


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
