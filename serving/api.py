"""The HTTP API: routes that check what comes in and say what goes out; the deciding is done in the engine."""

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

import faiss
import orjson
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import Discriminator, Field, Tag
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys import turns
from recsys.catalogue import WITHDRAWN
from recsys.errors import BadInput, RecsysError
from recsys.events import positive
from recsys.home import Home
from recsys.settings import Settings
from serving import reasons
from serving.answers import (
    AWAY,
    Reply,
    answered,
    by_house_rules,
    history,
    not_now,
    page,
    recommended,
    request_id,
    seen,
    taken,
    there_is_one,
    written,
)
from serving.console.films import films
from serving.console.operations import operations as console_operations
from serving.console.people import people
from serving.console.results import results
from serving.console.routes import pages
from serving.docs import docs
from serving.embedded import redis_address
from serving.engine import Engine
from serving.forget import Forgetting
from serving.guard import REFUSALS, Guard
from serving.history import History
from serving.keys import Keys
from serving.lately import Lately
from serving.messages import (
    BATCH,
    CURSOR,
    DIVERSITY,
    EXCLUDE,
    EXPLAIN,
    EXPLORE,
    FILTERS,
    INCLUDE,
    MAX_CURSOR,
    MAX_K,
    SURFACE,
    Accepted,
    Alive,
    Answer,
    Deleted,
    EventIn,
    Id,
    ItemIn,
    K,
    Moved,
    Problem,
    PromoteIn,
    Put,
    Ready,
    RecommendIn,
    Releases,
    RollBackIn,
    SignIn,
    Stopped,
    Turned,
    Unit,
    UserId,
    WhyNot,
    Wish,
    Withdrawn,
)
from serving.metrics import CONTENT_TYPE, FAILED, Measured, Metrics
from serving.online import Online
from serving.profiles import Profiles
from serving.rules import RulesFile
from serving.shortcut import Shortcut
from serving.snapshot import ItemNotFound
from serving.strict import no_unknown_parameter
from serving.together import Together
from serving.trial_watch import TrialWatch
from serving.turning import acted, turned
from serving.wire import Wire
from serving.workers import Worker


class _AnyId(PathConvertor):
    """An id in an address: slashes and line breaks are letters like any other (to "path" a line break at the end is nothing)."""

    regex = "(?s:.*)"


register_url_convertor("id", _AnyId())


_RETRY = {"description": "not now; try again", "model": Problem, "headers": {"Retry-After": {"schema": {"type": "integer"}}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {422: {"description": "what came cannot be used", "model": Problem}, 503: _RETRY}

_TURNED: dict[int | str, dict[str, Any]] = {
    404: {"description": "there is no such release", "model": Problem},
    409: {"description": "it makes no sense as things stand, or the release is damaged; nothing was changed", "model": Problem},
}

v1 = APIRouter(prefix="/v1", dependencies=[Depends(no_unknown_parameter)], responses=_RESPONSES)
health = APIRouter(prefix="/health", tags=["health"])
operations = APIRouter(tags=["operations"])


@v1.post("/events", response_model=Accepted, tags=["events"])
async def add_events(
    request: Request,
    body: Annotated[
        Annotated[EventIn, Tag("event")] | Annotated[list[EventIn], Field(min_length=1, max_length=BATCH), Tag("events")],
        Discriminator(lambda body: "events" if isinstance(body, list) else "event"),
    ],
) -> Response:
    """Take one event or a batch of up to 500. One that is invalid refuses the whole batch, and nothing of it is stored."""
    return await taken(request, [event.as_event() for event in (body if isinstance(body, list) else [body])])


@v1.post("/users/{user_id:id}/merge", response_model=Moved, tags=["people"])
async def sign_in(request: Request, user_id: Annotated[UserId, Path()], body: SignIn) -> Response:
    """Say who is behind a session: what it did so far moves into the user's profile. Done twice, it changes nothing more."""
    return Reply({"moved": await written(request.app.state.profiles.sign_in(body.session_id, user_id)), "request_id": request_id(request)})


@v1.delete("/users/{user_id:id}", response_model=Deleted, tags=["people"])
async def delete_user(
    request: Request,
    user_id: Annotated[Id, Path(description='a user, or "session:ID" for somebody who is not signed in')],
    erase: Annotated[bool, Query(description="forget the person: erase streams, log and what releases remember too")] = False,
) -> Response:
    """Delete a profile. What happened up to now does not come back into it; the event log is not touched.

    With erase=true everything goes that is kept of the person, which takes seconds, more with a large log; the answer holds a receipt. One
    that was interrupted is completed by being sent again.
    """
    deleted = await written(request.app.state.profiles.remove(user_id))
    if not erase:
        return Reply({"deleted": deleted, "request_id": request_id(request)})
    try:
        receipt = await request.app.state.forget(user_id)
    except RecsysError as error:
        raise not_now(str(error)) from None
    return Reply({"deleted": deleted or any(receipt["erased"].values()), "receipt": receipt, "request_id": request_id(request)})


@v1.get("/recommend/{user_id:id}", response_model=Answer, tags=["recommend"])
async def recommend(
    request: Request,
    user_id: Annotated[Id, Path(description='a user, or "session:ID" for somebody who is not signed in')],
    k: Annotated[K, Query()] = 20,
    exclude_seen: Annotated[bool | None, Query(description="leave out what was seen; the configured default where left out")] = None,
    exclude_items: Annotated[list[Id] | None, Query(max_length=MAX_K, description=f"{EXCLUDE}; may be said several times")] = None,
    include_items: Annotated[list[Id] | None, Query(max_length=MAX_K, description=f"{INCLUDE}; may be said several times")] = None,
    filters: Annotated[str | None, Query(max_length=4096, description=f"JSON: {FILTERS}")] = None,
    cursor: Annotated[str | None, Query(max_length=MAX_CURSOR, description=CURSOR)] = None,
    explain: Annotated[bool, Query(description=EXPLAIN)] = False,
    diversity: Annotated[Unit, Query(description=DIVERSITY)] = 0.0,
    explore: Annotated[Unit, Query(description=EXPLORE)] = 0.0,
    surface: Annotated[Id | None, Query(description=SURFACE)] = None,
) -> Response:
    """Recommend items to a user. Every event acknowledged before is counted."""
    wish = Wish(
        exclude_seen=exclude_seen,
        exclude_items=exclude_items or [],
        include_items=include_items,
        filters=_filters(filters),
        cursor=cursor,
        explain=explain,
        diversity=diversity,
        explore=explore,
        surface=surface,
    )
    return await recommended(request, user_id, k, wish)


@v1.post("/recommend", response_model=Answer, tags=["recommend"])
async def recommend_for_history(request: Request, body: RecommendIn) -> Response:
    """Recommend items for the history in the request."""
    now = time.time()
    past = History.of(sorted((event.as_event(now) for event in body.history), key=lambda event: event.timestamp)).standing()
    items, answer, _ = await page(request, past, body.k, body, None, False, request_id(request))
    request.app.state.metrics.items_from(items)
    return answer


@v1.get("/why-not/{user_id}/{item_id:id}", response_model=WhyNot, tags=["recommend"])
async def why_not(
    request: Request,
    user_id: Annotated[Id, Path(description='a user, or "session:ID"; a slash in it cannot be told from the one behind it')],
    item_id: Annotated[Id, Path()],
    k: Annotated[K, Query()] = 20,
    exclude_seen: Annotated[bool | None, Query(description="as for the list that is asked about")] = None,
    exclude_items: Annotated[list[Id] | None, Query(max_length=MAX_K, description=f"{EXCLUDE}; may be said several times")] = None,
    include_items: Annotated[list[Id] | None, Query(max_length=MAX_K, description=f"{INCLUDE}; may be said several times")] = None,
    filters: Annotated[str | None, Query(max_length=4096, description=f"JSON: {FILTERS}")] = None,
    surface: Annotated[Id | None, Query(description=SURFACE)] = None,
) -> Response:
    """Say why a user is not recommended an item: at which stage it falls out, or where it stands."""
    past, degraded = await history(request, user_id)
    snapshot = there_is_one(request)
    snapshot = request.app.state.engine.shows(user_id) or snapshot
    wish = Wish(
        exclude_seen=exclude_seen,
        exclude_items=exclude_items or [],
        include_items=include_items,
        filters=_filters(filters),
        surface=surface,
    )
    past = past.on(surface)
    found = reasons.why_not(snapshot, past, item_id, k, seen(request, exclude_seen), wish.exclude_items, include_items, wish.filters)
    if request.app.state.rules.now and found["stage"] in ("recommended", "ranked"):
        found = by_house_rules(found, item_id, (await page(request, past, k, wish, user_id, degraded, request_id(request)))[0])
    return Reply({"item_id": item_id, **found, "release": snapshot.id, "request_id": request_id(request), "degraded": degraded})


@v1.get("/onboarding", response_model=Answer, tags=["recommend"])
async def onboarding(request: Request, k: Annotated[K, Query()] = 20) -> Response:
    """Return items to ask somebody about of whom nothing is known: popular now, and each unlike the others."""
    snapshot = there_is_one(request)
    return answered(snapshot, snapshot.onboarding(k), request_id(request))


@v1.get("/items/{item_id:id}/similar", response_model=Answer, tags=["recommend"], responses={404: {"model": Problem}})
async def similar(request: Request, item_id: Annotated[Id, Path()], k: Annotated[K, Query()] = 20) -> Response:
    """Return the items nearest to one."""
    snapshot = there_is_one(request)
    try:
        return answered(snapshot, snapshot.similar(item_id, k), request_id(request))
    except ItemNotFound as error:
        raise HTTPException(404, str(error)) from None


@v1.put("/items/{item_id:id}", response_model=Put, tags=["items"])
async def put_item(request: Request, item_id: Annotated[Id, Path()], body: ItemIn) -> Response:
    """Say what is known about an item. It can be recommended at once, and by other workers within a second; if withdrawn it is back.

    What is left out stays as it was.
    """
    told, snapshot = body.model_dump(exclude_none=True), request.app.state.engine.snapshot
    if snapshot is not None:
        told = {column: snapshot.shelf.fitting(column, value) for column, value in told.items()}
    await _restock(request, {"item_id": item_id, **told, WITHDRAWN: 0})
    snapshot = request.app.state.engine.snapshot
    known = snapshot is not None and 0 < snapshot.vocab.row(item_id) < len(snapshot.vocab.base)
    return Reply({"item_id": item_id, "release_knows": known, "request_id": request_id(request)})


@v1.delete("/items/{item_id:id}", response_model=Withdrawn, tags=["items"])
async def withdraw_item(request: Request, item_id: Annotated[Id, Path()]) -> Response:
    """Withdraw an item: it is not recommended any more, until it is put again. What people did with it stays."""
    await _restock(request, {"item_id": item_id, WITHDRAWN: 1})
    return Reply({"item_id": item_id, "request_id": request_id(request)})


@v1.get("/releases", response_model=Releases, tags=["releases"])
async def releases(request: Request) -> Response:
    """Say which release answers and which others are there."""
    engine: Engine = request.app.state.engine
    live = engine.snapshot.id if engine.snapshot else None
    return Reply({"live": live, "releases": await asyncio.to_thread(engine.registry.ids)})


@v1.post("/releases/rollback", response_model=Turned, tags=["releases"], responses=_TURNED)
async def roll_back(request: Request, body: RollBackIn) -> Response:
    """Make an older release live again: model, vocabulary, index, memory and log position together.

    The job then waits for somebody: recsys job run --force learns what that release has not learned, once more.
    """
    return Reply(await turned(request, lambda home: turns.roll_back(home, body.release)))


@v1.delete("/releases/trial", response_model=Stopped, tags=["releases"], responses={409: _TURNED[409]})
async def end_trial(request: Request) -> Response:
    """End what is on trial; the live release answers everybody. Where nothing is on trial, nothing changes."""
    ended = await acted(request, turns.end_trial)
    return Reply({"ended": ended, "live": request.app.state.engine.registry.current()})


@v1.post("/releases/{release:id}/promote", response_model=Turned, tags=["releases"], responses=_TURNED)
async def promote(request: Request, release: Annotated[Id, Path()], body: PromoteIn) -> Response:
    """Make a release live at once, or put it on trial: shown to a share of the people, or asked beside the live one and shown to nobody.

    One that is surely behind, or cannot answer, is on trial no longer, by itself.
    """
    share = body.shadow if body.canary is None else body.canary
    if share is None:
        return Reply(await turned(request, lambda home: turns.promote(home, release)))
    return Reply(await turned(request, lambda home: turns.put_on_trial(home, release, share, body.shadow is not None, body.hours)))


@health.get("/live", response_model=Alive)
async def live() -> Response:
    """Say that the process runs."""
    return Reply({"status": "ok"})


@health.get("/ready", response_model=Ready, responses={503: {"description": "a part is missing", "model": Ready}})
async def ready(request: Request) -> Response:
    """Say whether there is a release to answer from and a Redis that answers."""
    snapshot = request.app.state.engine.snapshot
    redis = True
    try:
        await request.app.state.profiles.wire.call("PING", within=request.app.state.profile_seconds)
    except AWAY:
        redis = False
    ready = redis and snapshot is not None
    return Reply({"ready": ready, "release": snapshot.id if snapshot else None, "redis": redis}, 200 if ready else 503)


@operations.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Say what this server counted, the way Prometheus reads it."""
    waiting = None
    with suppress(*AWAY):
        waiting = await request.app.state.profiles.waiting(request.app.state.profile_seconds)
    return Response(request.app.state.metrics.page(request.app.state.engine.snapshot, waiting), media_type=CONTENT_TYPE)


class Api(FastAPI):
    """The routes behind what runs in every request, `front`: plain ASGI, outside all that the framework does."""

    front: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope["app"] = self
        await self.front(scope, receive, send)

    async def routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request by the routes."""
        await super().__call__(scope, receive, send)


def create_app(home: Home, settings: Settings, guarded: bool = False) -> Api:
    """Return the app of one home; its Redis and its release are opened when it starts. guarded: it needs keys, whatever it finds."""
    serving = settings.serving

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        faiss.omp_set_num_threads(1)  # holds for this thread, the one that answers
        with redis_address(home, settings) as url:
            wire = Wire(url)
            engine = app.state.engine = Engine(home.releases, serving.watch_seconds, home.items, home.shared)
            app.state.profiles = Profiles(
                wire, serving.tenant, serving.profile_events, serving.profile_days, positive(settings.data.positive)
            )
            app.state.together = Together(lambda: engine.snapshot)
            app.state.trial_together = Together(lambda: engine.candidate or engine.snapshot)
            app.state.trial_watch = TrialWatch(engine, wire, serving.tenant, home)
            app.state.online = Online(wire, serving.tenant, serving.measured, app.state.metrics)
            app.state.forget = Forgetting(home, settings, url)
            await asyncio.to_thread(engine.refresh)
            worker = app.state.worker = Worker.here(engine)
            engine.tell = worker.say
            watched = (engine.watch(), app.state.trial_watch.watch(), app.state.forget.watch())
            tasks = [asyncio.create_task(watch) for watch in watched]
            if home.shared:
                tasks.append(asyncio.create_task(engine.follow(settings.store.look_seconds)))
            if serving.popular_hours:
                tasks.append(asyncio.create_task(Lately(engine, app.state.profiles, serving.popular_hours).watch()))
            sys.setswitchinterval(5e-5)  # who asks gets in between the steps of a release that is loaded in a thread
            gc.collect()
            gc.freeze()  # what is there now stays: to look through it again and again only makes people wait
            gc.set_threshold(20_000, 20, 50)
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                worker.close()
                wire.close()

    app = Api(
        title="recsys",
        summary="Recommendations that count every event from the next request on.",
        version="1",
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
        docs_url=None,
        redoc_url=None,
    )
    app.state.metrics = Metrics()
    app.front = Measured(Guard(Shortcut(app.routed, app, v1.routes), Keys(home.keys, guarded)), app.state.metrics, serving.access_log)
    app.state.home = home
    app.state.exclude_seen = serving.exclude_seen
    app.state.profile_seconds = serving.profile_seconds
    app.state.rules = RulesFile(home.rules)
    app.include_router(v1)
    app.include_router(health)
    app.include_router(operations)
    app.include_router(docs)
    app.include_router(pages)
    app.include_router(results)
    app.include_router(console_operations)
    for router in (people, films):
        app.include_router(router, dependencies=[Depends(no_unknown_parameter)])
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(BadInput, _refuse)
    app.add_exception_handler(Exception, _failed)
    described = app.openapi
    app.openapi = lambda: _with_keys(described())  # type: ignore[method-assign]
    return app


def _with_keys(openapi: dict[str, Any]) -> dict[str, Any]:
    """Add what the guard before all routes may say."""
    openapi.setdefault("components", {})["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "A key of this home (recsys keys add); none while it has none."},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, operations in openapi["paths"].items():
        if path.startswith("/v1/"):
            for operation in operations.values():
                operation["security"] = [{}, {"bearer": []}, {"header": []}]
                for status, why in REFUSALS.items():
                    operation["responses"].setdefault(str(status), {"description": why, "content": problem})
    return openapi


async def _restock(request: Request, row: dict[str, Any]) -> None:
    """Write a row into the catalogue, where it survives a restart, and serve by it."""
    engine: Engine = request.app.state.engine
    try:
        await asyncio.to_thread(engine.put, row)
    except OSError as error:
        raise not_now(f"the catalogue cannot be written: {error.strerror or error}; nothing was changed") from None


def _filters(text: str | None) -> dict[str, dict[str, Any]]:
    """Read filters from an address."""
    try:
        found = orjson.loads(text) if text else {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(condition, dict) for condition in found.values()):
        raise BadInput(f'filters is JSON such as {{"genres": {{"any": ["Drama"]}}}}, written for an address; got {str(text)[:80]!r}')
    return found


async def _refuse(_: Request, error: Exception) -> Response:
    """Say in one line what is wrong with a request: the first thing found."""
    return JSONResponse({"detail": _one_line(error.errors()[0]) if isinstance(error, RequestValidationError) else str(error)}, 422)


async def _failed(_: Request, error: Exception) -> Response:
    """Say that it is not the client's fault; what it was is logged by who counts the requests."""
    return JSONResponse({"detail": FAILED}, 500)


def _one_line(first: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in first["loc"][1:] if part not in ("event", "events")) or str(first["loc"][0])
    if first["type"] == "json_invalid":
        return f"the body is not JSON: {first['ctx']['error']}"
    if first["type"] == "value_error":
        return f"{where}: {first['ctx']['error']}"
    if isinstance(first["input"], bytes):
        return "the body came without the header content-type: application/json; send it along"
    came = "" if first["type"] in ("missing", "too_long", "too_short") else f"; got {repr(first['input'])[:80]}"
    return f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}{came}"
