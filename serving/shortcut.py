"""The two requests that make up nearly all traffic, past the framework: the same answers at a fraction of its cost.

Only what is plainly right is answered here: a list with `k` and `exclude_seen` alone, and events whose JSON meets every rule. Anything
else, all that is wrong among it, goes on to the routes, which say what they want in words; tests compare the two.
"""

import re
import time
from collections.abc import Coroutine, Iterable
from typing import Annotated, Any, Literal

import msgspec
import orjson
from fastapi import FastAPI, HTTPException, Request, Response
from msgspec import Meta
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.events import EVENT_TYPES
from serving.answers import recommended, taken
from serving.guard import BODY
from serving.history import Event
from serving.messages import BATCH, FUTURE, MAX_K, OLDEST, Wish

PLAIN = re.compile(rb"(?:k=([1-9][0-9]{0,2}))?(?:(?:^|&)exclude_seen=(true|false))?")
RECOMMEND = "/v1/recommend/"
EVENTS = "/v1/events"
LONGEST = 256
PREFIX = "session:"

WISHES = {None: Wish(), b"true": Wish(exclude_seen=True), b"false": Wish(exclude_seen=False)}

_Id = Annotated[str, Meta(min_length=1, max_length=LONGEST)]


class _Event(msgspec.Struct, forbid_unknown_fields=True):
    """serving.messages.EventIn, read in a tenth of the time."""

    item_id: _Id
    event_type: Literal[EVENT_TYPES]  # type: ignore[valid-type]
    timestamp: Annotated[float, Meta(ge=OLDEST)]
    user_id: _Id | None = None
    event_id: _Id | None = None
    session_id: _Id | None = None
    value: Annotated[float, Meta(ge=0, le=1)] | None = None
    request_id: _Id | None = None
    surface: _Id | None = None


_one = msgspec.json.Decoder(_Event)
_many = msgspec.json.Decoder(Annotated[list[_Event], Meta(min_length=1, max_length=BATCH)])


class Shortcut:
    """Answers the plain ones of GET /v1/recommend/ID and POST /v1/events; everything else is for `app`, the routes."""

    def __init__(self, app: ASGIApp, api: FastAPI, routes: Iterable[BaseRoute]):
        self.app, self.api = app, api
        self._routes = {getattr(route, "name", ""): route for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        answer: Response | None = None
        if scope["type"] == "http" and self.api.state.engine.snapshot is not None:
            if scope["method"] == "GET" and scope["path"].startswith(RECOMMEND):
                answer = await self._recommend(scope)
            elif scope["method"] == "POST" and scope["path"] == EVENTS and _is_json(scope):
                body = await _read(receive)
                answer = await self._events(scope, body)
                receive = _again(body, receive)
        if answer is None:
            await self.app(scope, receive, send)
        else:
            await answer(scope, receive, send)

    async def _recommend(self, scope: Scope) -> Response | None:
        user_id, plain = scope["path"][len(RECOMMEND) :], PLAIN.fullmatch(scope["query_string"])
        if plain is None or not 0 < len(user_id) <= LONGEST:
            return None
        k = int(plain[1]) if plain[1] else 20
        if k > MAX_K:
            return None
        return await self._answered(scope, "recommend", recommended(Request(scope), user_id, k, WISHES[plain[2]]))

    async def _events(self, scope: Scope, body: bytes) -> Response | None:
        try:
            told = _many.decode(body) if body.lstrip()[:1] == b"[" else [_one.decode(body)]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        latest = time.time() + FUTURE
        for event in told:
            user, session = event.user_id, event.session_id
            nobody, prefixed = user is None and session is None, (user or "").startswith(PREFIX) or (session or "").startswith(PREFIX)
            if event.timestamp > latest or nobody or prefixed:
                return None
        batch = []
        for e in told:
            when, id = round(e.timestamp * 1000), e.event_id or ""
            batch.append(Event(e.item_id, e.event_type, when, id, e.user_id, e.session_id, e.value, e.request_id, e.surface))
        return await self._answered(scope, "add_events", taken(Request(scope), batch))

    async def _answered(self, scope: Scope, route: str, work: Coroutine[Any, Any, Response]) -> Response:
        """Return the answer; who counts requests shall find by which route it would have come."""
        scope["route"] = self._routes[route]
        try:
            return await work
        except HTTPException as error:  # the routes' own refusal, written as they would
            return Response(orjson.dumps({"detail": error.detail}), error.status_code, error.headers, "application/json")


def _is_json(scope: Scope) -> bool:
    """Say whether a body comes that says it is JSON, and how long it is."""
    kind, length = b"", b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind = value
        elif name == b"content-length":
            length = value
    return kind == b"application/json" and length.isdigit() and int(length) <= BODY


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body that was read once more, and then what comes."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
