"""Who is known, what they did, and what each part of a release would give them: read-only answers for the console."""

import random
import time
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response

from recsys import events
from recsys.errors import ReleaseDamaged, ReleaseNotFound
from serving.answers import AWAY, Reply, history, not_now, pinned, seen, there_is_one
from serving.console.films import described
from serving.console.kept import Kept
from serving.engine import Engine
from serving.history import Event, History
from serving.messages import MAX_K, Id, K, Wish
from serving.profiles import FORM, Profiles, profile_keys, sessions_key
from serving.reasons import because
from serving.snapshot import Ask, Snapshot
from serving.wire import ANSWERS, Word

STEP = 1000
"""Keys that Redis looks at in one go: a fraction of a millisecond, between which it answers others."""

LOOKED_AT = 500_000
"""Keys that one search looks at; a person's whole name is found however many there are."""

ENOUGH = 200
"""So many names that fit are put in order; there is no need to look for more."""

DRAWN = 64
"""Keys that are drawn to find somebody by chance."""

PROFILE = f":profile{FORM}:"

people = APIRouter(prefix="/v1/console", include_in_schema=False)


@people.get("/people")
async def search(request: Request, q: Annotated[str, Query(max_length=256)] = "", k: Annotated[int, Query(ge=1, le=50)] = 12) -> Response:
    """Return people who have a profile and whose name holds `q`, in whatever case; some by chance where it is empty."""
    profiles: Profiles = request.app.state.profiles
    try:
        names, complete, looked_at = await (_found(profiles, q) if q else _drawn(profiles))
        told = await _sizes(profiles, names[:k])
    except AWAY:
        raise not_now("Redis is away, and profiles lie there") from None
    return Reply({"people": told, "complete": complete and len(names) <= k, "looked_at": looked_at, "searched": "profiles in Redis"})


@people.get("/person")
async def person(request: Request, user: Annotated[Id, Query()], mark: Annotated[str, Query(max_length=64)] = "") -> Response:
    """Return what somebody's profile holds, newest first; nothing but the mark where that is still what the client has."""
    profiles: Profiles = request.app.state.profiles
    snapshot = there_is_one(request)
    snapshot = request.app.state.engine.shows(user) or snapshot
    try:
        found, own = await profiles.whole(user)
        now = f"{own.hex()}.{snapshot.id}"
        if now == mark:
            return Reply({"user": user, "mark": now, "unchanged": True})
        sessions = await profiles.wire.call("ZREVRANGE", sessions_key(profiles.tenant, user), 0, -1, "WITHSCORES")
    except AWAY:
        raise not_now("Redis is away, and profiles lie there") from None
    signed_in = [{"session": id.decode(), "time": int(float(at))} for id, at in zip(sessions[::2], sessions[1::2], strict=True)]
    told = {"user": user, "mark": now, "known": bool(found), "release": snapshot.id, "most": profiles.limit, "sessions": signed_in}
    items = await described(request, snapshot, dict.fromkeys(event.item_id for event in found))
    return Reply({**told, "events": _told(found, items)})


@people.get("/list")
async def listed(
    request: Request,
    user: Annotated[Id, Query()],
    release: Annotated[str | None, Query(max_length=40, description="another than the one that answers this person")] = None,
    k: Annotated[K, Query()] = 20,
    explain: Annotated[bool, Query()] = False,
    stages: Annotated[bool, Query(description="also what towers, neighbours and popularity would each give alone")] = False,
) -> Response:
    """Return what a release would show somebody by the house's rules. It does not count as shown to them, and nothing is logged."""
    past, degraded = await history(request, user, ANSWERS)
    snapshot = await _release(request, user, release)
    began = time.perf_counter()
    items = _shown(request, snapshot, past, k)
    milliseconds = 1000 * (time.perf_counter() - began)
    if explain:
        for item, reasons in zip(items, because(snapshot, past, items, exclude_seen=seen(request, None)), strict=True):
            item["because"] = reasons
    alone = snapshot.experts(Ask(past, k, seen(request, None))) if stages else None
    told = {"items": items, "release": snapshot.id, "degraded": degraded, "history": len(past), "milliseconds": milliseconds}
    fused = snapshot.fusion is not None
    return Reply({**told, "stages": alone, "fused": fused, "weights": _weights(snapshot, past) if stages else None})


async def _release(request: Request, user: str, id: str | None) -> Snapshot:
    """Return the release that somebody is answered from, or the one that was asked for: at most one is kept beside those that serve."""
    engine: Engine = request.app.state.engine
    snapshot = there_is_one(request)
    if id is None:
        return engine.shows(user) or snapshot
    for here in (engine.snapshot, engine.candidate):
        if here is not None and here.id == id:
            return here
    state = request.app.state
    if not hasattr(state, "beside"):
        state.beside = Kept[Snapshot]()
    stock = tuple(engine.catalogue.segments()) if engine.catalogue else ()
    try:
        return await state.beside.get((id, stock), lambda: engine.beside(id))
    except ReleaseNotFound as error:
        raise HTTPException(404, str(error)) from None
    except ReleaseDamaged as error:
        raise HTTPException(409, str(error)) from None


def _shown(request: Request, snapshot: Snapshot, past: History, k: int) -> list[dict[str, Any]]:
    house, exclude_seen = request.app.state.rules.now, seen(request, None)
    items = snapshot.recommend(past, MAX_K if house else k, exclude_seen)
    if house:
        items = snapshot.arranged(items, k, 0.0, 0.0, 0, house)
        items = pinned(snapshot, past, items, k, house.pin, exclude_seen, Wish()) if house.pin else items
    return items


def _weights(snapshot: Snapshot, past: History) -> dict[str, float] | None:
    """Return how much neighbours and popularity count for somebody with such a history; the towers have the rest."""
    if snapshot.fusion is None:
        return None
    known = len(snapshot.understood(Ask(past, 0)).past.item)
    neighbours, popular = (float(weight) for weight in snapshot.fusion.of(known))
    return {"neighbours": neighbours, "popular": popular}


def _told(found: list[Event], items: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return events newest first, each with what is known of its item, and whether it counts or was taken back."""
    order = sorted(range(len(found)), key=lambda place: (found[place].timestamp, found[place].event_type == "undo"))
    ordered = [found[place] for place in order]
    gone = set(events.taken_back((event.item_id for event in ordered), (event.event_type == "undo" for event in ordered)))
    return [
        {**items[event.item_id], "event_type": event.event_type, "time": event.timestamp, "event_id": event.event_id, "value": event.value,
         "taken_back": place in gone}
        for place, event in reversed(list(enumerate(ordered)))
    ]  # fmt: skip


async def _found(profiles: Profiles, text: str) -> tuple[list[str], bool, int]:
    """Look for names by SCAN, which never holds Redis up: those that fit best, whether all keys were looked at, and how many were."""
    wire, wanted = profiles.wire, text.casefold()
    names: dict[str, None] = {}
    for name in (text, f"session:{text}"):
        if await wire.call("EXISTS", profile_keys(profiles.tenant, name)[0]):
            names[name] = None
    pattern, cursor, looked_at = f"{{{_plain(profiles.tenant)}:*}}{PROFILE}*", b"0", 0
    while looked_at < LOOKED_AT and len(names) < ENOUGH:
        cursor, keys = await wire.call("SCAN", cursor, "MATCH", pattern, "COUNT", STEP)
        looked_at += STEP
        for key in keys:
            name = _name(key)
            if wanted in name.casefold():
                names[name] = None
        if cursor == b"0":
            break
    order = sorted(names, key=lambda name: (name != text, not name.casefold().startswith(wanted), len(name), name))
    return order, cursor == b"0", looked_at


async def _drawn(profiles: Profiles) -> tuple[list[str], bool, int]:
    """Return some people by chance."""
    keys = await profiles.wire.calls([("RANDOMKEY",)] * DRAWN)
    names = {
        _name(key)
        for key in keys
        if isinstance(key, bytes) and PROFILE.encode() in key and key.startswith(f"{{{profiles.tenant}:".encode())
    }
    if not names:  # few of the keys are profiles
        return await _found(profiles, "")
    return random.sample(sorted(names), len(names)), False, DRAWN


async def _sizes(profiles: Profiles, names: list[str]) -> list[dict[str, Any]]:
    keys = [profile_keys(profiles.tenant, name)[0] for name in names]
    asked: list[tuple[Word, ...]] = [words for key in keys for words in (("ZCARD", key), ("ZREVRANGE", key, 0, 0, "WITHSCORES"))]
    replies = await profiles.wire.calls(asked) if asked else []
    return [
        {"user": name, "events": size, "last": int(float(newest[1]))}
        for name, size, newest in zip(names, replies[::2], replies[1::2], strict=True)
        if isinstance(newest, list) and len(newest) == 2  # else it went meanwhile
    ]


def _name(key: bytes) -> str:
    return key.decode(errors="replace").partition(PROFILE)[2]


def _plain(text: str) -> str:
    """Write a text for a pattern in which it stands for itself."""
    return "".join(f"\\{letter}" if letter in "*?[]^\\" else letter for letter in text)
