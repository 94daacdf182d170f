"""What stands before the routes: keys and their scopes, rates, and the size of a body. Plain ASGI, for it runs in every request."""

import ipaddress
import math
from collections import OrderedDict
from time import monotonic
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.keys import Keys

BODY = 256 * 1024
"""Bytes of a request's body at most."""

PEOPLE = 10_000
"""Keys whose rate is followed; who asked least lately is forgotten first, and starts with a full bucket."""

OPEN = ("/health/", "/docs", "/openapi.json", "/console")
"""Addresses that need no key: whether it runs, what it can do, and the files of the console, which asks for one itself."""

ASKED = frozenset({b"content-length", b"x-api-key", b"authorization", b"host"})
"""Headers that are looked at."""

REFUSALS = {
    401: "no API key, or one that this server does not know",
    403: "the key lacks the scope",
    413: "the body is too large",
    429: "the key's rate is used up; Retry-After says for how many seconds",
}
"""What may be answered before a route is asked."""


class Buckets:
    """Token buckets: a second's worth of requests at once, and no more than the rate in the long run."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, who: str, rate: float, now: float) -> float:
        """Take one request of `who`, who may make `rate` a second; return 0, or in how many seconds there will be one."""
        most = max(1.0, rate)
        left, then = self._left.pop(who, (most, now))
        left = min(most, left + rate * (now - then))
        taken = left >= 1
        self._left[who] = (left - taken, now)
        if len(self._left) > PEOPLE:
            self._left.popitem(last=False)
        return 0.0 if taken else (1 - left) / rate


class Guard:
    """Lets a request through to `app`, or refuses it: 401 without a key, 403 without its scope, 429 beyond its rate, 413 for a large body.

    Until a home has its first key everybody may do everything; `run` then listens on this machine alone. What needs the scope admin is
    then done for who asks by an address, or for localhost: a page from elsewhere that calls its own name 127.0.0.1 (DNS rebinding) would
    come by that name.
    """

    def __init__(self, app: ASGIApp, keys: Keys):
        self.app, self.keys = app, keys
        self.buckets = Buckets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        told = {name: value for name, value in scope["headers"] if name in ASKED}
        refusal = self._refusal(scope["method"], scope["path"], told)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        await self.app(scope, _limited(receive), send)

    def _refusal(self, method: str, path: str, headers: dict[bytes, bytes]) -> tuple[int, str, dict[str, str]] | None:
        if not _fits(headers.get(b"content-length")):
            return 413, TOO_LARGE, {"connection": "close"}
        if path.startswith(OPEN):
            return None
        if not self.keys.needed:
            host = headers.get(b"host", b"localhost").decode("latin-1")
            if scope_of(method, path) == "admin" and not _by_address(host):
                why = f"without keys {method} {path[:80]} is for this machine alone, and {host[:80]!r} may be anybody's name"
                return 403, f"{why}; ask it as localhost or by its address, or make a key: recsys keys add", {}
            return None
        secret = _secret(headers)
        key = self.keys.find(secret) if secret else None
        if key is None:
            what = "no key of this server" if secret else "missing"
            way = "send one as 'authorization: Bearer KEY'; make one with: recsys keys add"
            return 401, f"the API key is {what}; {way}", {"www-authenticate": "Bearer"}
        needed = scope_of(method, path)
        if needed not in key.scopes:
            return 403, f"key {key.name!r} may {', '.join(key.scopes)}; {method} {path.split('?')[0][:80]} needs the scope {needed!r}", {}
        wait = self.buckets.wait(key.name, key.rate, monotonic()) if key.rate else 0.0
        if wait:
            again = str(max(1, math.ceil(wait)))
            return 429, f"key {key.name!r} may ask {key.rate:g} times a second; try again in {again} s", {"retry-after": again}
        return None


TOO_LARGE = f"the body is larger than {BODY // 1024} KB, which is the most; send fewer events at a time"


def scope_of(method: str, path: str) -> str:
    """Return the scope that a request needs."""
    if path.startswith(("/v1/console/", "/v1/releases/")):
        return "admin"
    if method in ("GET", "HEAD", "OPTIONS") or path == "/v1/recommend":
        return "read"
    return "write" if method == "POST" else "admin"


def _by_address(host: str) -> bool:
    """Say whether a Host header is an address, or localhost: a name that nobody else can give to this machine."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _secret(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-api-key", b"")
    kind, _, token = headers.get(b"authorization", b"").partition(b" ")
    return (given or (token.strip() if kind.lower() == b"bearer" else b"")).decode("latin-1")


def _fits(length: bytes | None) -> bool:
    return length is None or not length.isdigit() or int(length) <= BODY


def _limited(receive: Receive) -> Receive:
    """Count what comes in: a client may send without saying how much."""
    came = 0

    async def counted() -> Message:
        nonlocal came
        message = await receive()
        came += len(message.get("body", b""))
        if came > BODY:
            raise HTTPException(413, TOO_LARGE)
        return message

    return counted


async def _refuse(send: Send, status: int, why: str, more: dict[str, str]) -> None:
    body = orjson.dumps({"detail": why})
    headers: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.encode(), value.encode()) for name, value in more.items()]
    start: dict[str, Any] = {"type": "http.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": "http.response.body", "body": body})
