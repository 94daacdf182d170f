"""What an answer is made of, whichever way a request came in: the profile, the list, what is logged, and the bytes."""

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import HTTPException, Request, Response
from redis.exceptions import RedisError
from starlette.types import Receive, Scope, Send

from recsys.errors import BadInput
from serving import cursor as cursors
from serving.arrange import POOL
from serving.engine import Engine
from serving.history import Event, History
from serving.impressions import Made, impressions
from serving.messages import MAX_K, Wish
from serving.metrics import Metrics
from serving.profiles import StreamFull
from serving.reasons import because
from serving.rules import Pin, Rules
from serving.snapshot import Ask, Snapshot

NO_ITEMS = np.zeros(0, np.uint32)
NOBODY = History([], [], [])

T = TypeVar("T")

AWAY = (RedisError, OSError, TimeoutError)


async def taken(request: Request, batch: Sequence[Event]) -> Response:
    """Merge events and say what became of them."""
    new = await written(request.app.state.profiles.merge(batch))
    counted: Metrics = request.app.state.metrics
    for event, is_new in zip(batch, new, strict=True):
        counted.event(event.event_type if is_new else "duplicate")
    request.app.state.online.follow([event for event, is_new in zip(batch, new, strict=True) if is_new], request.app.state.engine.trial)
    accepted = sum(new)
    return Reply({"accepted": accepted, "duplicates": len(new) - accepted, "request_id": request_id(request)})


async def recommended(request: Request, user_id: str, k: int, wish: Wish) -> Response:
    """Read a profile and answer from it; what is explored is logged first."""
    past, degraded = await history(request, user_id)
    id = request_id(request)
    items, answer, made = await page(request, past, k, wish, user_id, degraded, id)
    if wish.explore and items:
        try:
            await request.app.state.profiles.log(impressions(items, user_id, id, made, wish.surface), request.app.state.profile_seconds)
        except (*AWAY, StreamFull):  # what cannot be logged must not be drawn
            request.app.state.metrics.degraded.inc()
            items, answer, _ = await page(request, past, k, wish.model_copy(update={"explore": 0.0}), user_id, True, id)
    request.app.state.metrics.items_from(items)
    _measured(request, past, user_id, k, wish, items)
    return answer


def _measured(request: Request, past: History, owner: str, k: int, wish: Wish, items: list[dict[str, Any]]) -> None:
    """Remember what somebody was shown, where they are measured; a release that is on trial as a shadow is asked for them too, later."""
    engine: Engine = request.app.state.engine
    trial, snapshot = engine.trial, engine.shows(owner)
    special = wish.cursor is not None or wish.include_items is not None or wish.filters or wish.surface is not None
    if special or not items or snapshot is None or not request.app.state.online.measures(owner, trial):
        return
    shadow = None
    if trial is not None and trial.shadow and trial.shows(owner):
        shadow = request.app.state.trial_together.recommend(
            Ask(past, k, seen(request, wish.exclude_seen), exclude_items=wish.exclude_items)
        )
    request.app.state.online.shown(owner, trial, _variant(engine, snapshot) or "live", (snapshot, items), shadow)


def _variant(engine: Engine, snapshot: Snapshot) -> str | None:
    """Say which of two releases answers while one is shown to a share of the people; None where there is one for all."""
    trial = engine.trial
    if trial is None or trial.shadow:
        return None
    return "canary" if snapshot.id == trial.release else "live"


async def page(
    request: Request, past: History, k: int, wish: Wish, user_id: str | None, degraded: bool, request_id: str
) -> tuple[list[dict[str, Any]], Response, Made | None]:
    """Return one page, the answer that holds it and says where the next one begins, and how the list was made (serving.impressions)."""
    there_is_one(request)
    past = past.on(wish.surface)
    exclude_seen = seen(request, wish.exclude_seen)
    # how a page is arranged is left out: the next one may be arranged otherwise, as when nothing could be explored
    rules: dict[str, Any] = {"exclude_items": wish.exclude_items, "include_items": wish.include_items, "filters": wish.filters}
    asked = cursors.question(user=user_id, exclude_seen=exclude_seen, surface=wish.surface, **rules)
    shown = NO_ITEMS if wish.cursor is None else cursors.decode(wish.cursor, asked)
    metrics: Metrics = request.app.state.metrics
    house: Rules = request.app.state.rules.now
    arrange = bool(wish.diversity or wish.explore or house)
    with metrics.stage("rank"):
        pool = MAX_K if house else min(MAX_K, POOL * k) if arrange else k
        ask = Ask(past, pool, exclude_seen, shown=shown if len(shown) else None, **rules)
        snapshot, items = await _asked(request, user_id, ask)
        ranked = len(items)
        if arrange:
            items = snapshot.arranged(items, k, wish.diversity, wish.explore, int(request_id[:16], 16), house)
            if house.pin and not len(shown):
                items = pinned(snapshot, past, items, k, house.pin, exclude_seen, wish)
    if wish.explain:
        for item, reasons in zip(items, because(snapshot, past, items, exclude_seen=exclude_seen, shown=shown, **rules), strict=True):
            item["because"] = reasons
    now_shown = cursors.fingerprints([item["item_id"] for item in items])
    shown = np.concatenate([shown, now_shown]) if len(shown) else now_shown
    more = (len(items) == k or (bool(house.cap) and len(items) < ranked)) and len(shown) <= cursors.SHOWN
    made = None
    special = wish.cursor is not None or wish.exclude_items or wish.include_items is not None or wish.filters or wish.surface is not None
    if not (degraded or house or special):
        made = Made(snapshot.id, k, wish.explore, wish.diversity, exclude_seen)
    variant = _variant(request.app.state.engine, snapshot) if user_id is not None else None
    return items, answered(snapshot, items, request_id, degraded, cursors.encode(asked, shown) if more else None, variant), made


async def _asked(request: Request, owner: str | None, ask: Ask) -> tuple[Snapshot, list[dict[str, Any]]]:
    """Ask the release that somebody is shown. One on trial that fails is on trial no longer here, and the live one answers."""
    engine: Engine = request.app.state.engine
    if owner is not None and engine.shows(owner) is not engine.snapshot:
        try:
            return await request.app.state.trial_together.recommend(ask)
        except BadInput:  # that is what was asked for, whoever answers
            raise
        except Exception as error:
            request.app.state.trial_watch.failed(error)
    return await request.app.state.together.recommend(ask)


def by_house_rules(found: dict[str, Any], item_id: str, shown: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return why an item is or is not in a list (see Snapshot.why_not) as it is with the house's rules: the list that is shown."""
    place = next((place for place, item in enumerate(shown, 1) if item["item_id"] == item_id), None)
    if place is not None:
        about = {"rank": place, "score": shown[place - 1]["score"], "source": shown[place - 1]["source"]}
        return {"stage": "recommended", "detail": f"it is shown, at place {place}, by the house's rules too", **about}
    if found["stage"] == "recommended":
        why = f"by itself it would stand at place {found['rank']}; the house's rules bury it, cap its kind or bring others forward"
        return found | {"stage": "house rules", "detail": why}
    return found


def pinned(
    snapshot: Snapshot, past: History, items: list[dict[str, Any]], k: int, pins: Sequence[Pin], exclude_seen: bool, wish: Wish
) -> list[dict[str, Any]]:
    """Put pinned items at their places, those that this person may see."""
    pins = sorted((pin for pin in pins if pin.place <= k), key=lambda pin: pin.place)
    wanted = {pin.item_id for pin in pins}
    if wish.include_items is not None:
        wanted &= set(wish.include_items)
    ask = Ask(past, len(wanted), exclude_seen, wish.exclude_items, wanted, wish.filters)
    allowed = {item["item_id"]: item for item in (snapshot.recommend_many([ask])[0] if wanted else [])}
    items = [item for item in items if item["item_id"] not in allowed]
    for pin in pins:
        if item := allowed.pop(pin.item_id, None):
            items.insert(pin.place - 1, item | {"source": "pinned"} | ({"propensity": 1.0} if wish.explore else {}))
    return items[:k]


async def history(request: Request, owner: str, within: float | None = None) -> tuple[History, bool]:
    """Return what a profile holds, and whether the answer must do without it. within: seconds, else as configured."""
    metrics: Metrics = request.app.state.metrics
    try:
        with metrics.stage("profile"):
            return await request.app.state.profiles.read(owner, within or request.app.state.profile_seconds), False
    except AWAY:
        metrics.degraded.inc()
        return NOBODY, True


def there_is_one(request: Request) -> Snapshot:
    """Return the live snapshot; where there is none yet, say so."""
    engine: Engine = request.app.state.engine
    if engine.snapshot is None:
        raise not_now(engine.missing)
    return engine.snapshot


def seen(request: Request, asked: bool | None) -> bool:
    """Return whether what was seen is left out: as asked, else as configured."""
    return request.app.state.exclude_seen if asked is None else asked


async def written(work: Coroutine[Any, Any, T]) -> T:
    """Wait for a change in Redis; what it does not acknowledge in time (serving.wire.ANSWERS) is said so, never lost in silence."""
    try:
        return await work
    except StreamFull as error:
        raise not_now(str(error)) from None
    except AWAY:
        raise not_now("Redis is away, nothing is acknowledged; send it again, events with the same event ids if they had any") from None


def answered(
    snapshot: Snapshot,
    items: list[dict[str, Any]],
    request_id: str,
    degraded: bool = False,
    next_cursor: str | None = None,
    variant: str | None = None,
) -> Response:
    """Write a list."""
    told = {"items": items, "release": snapshot.id, "request_id": request_id, "degraded": degraded, "next_cursor": next_cursor}
    return Reply({**told, "variant": variant})


class Reply(Response):
    """JSON, written without what Response looks into: half of its cost."""

    def __init__(self, content: dict[str, Any], status: int = 200):
        self.status_code, self.background, self.body = status, None, orjson.dumps(content)
        self.raw_headers = [(b"content-length", b"%d" % len(self.body)), (b"content-type", b"application/json")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


def request_id(request: Request) -> str:
    """Return what this request is called, in the answer, its headers and the log."""
    return request.scope["request_id"]


def not_now(why: str) -> HTTPException:
    """Return the error that asks a client to come again."""
    return HTTPException(503, why, headers={"Retry-After": "1"})
