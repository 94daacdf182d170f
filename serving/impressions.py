"""What is logged of a list that was explored: what was shown, how likely that was, and how the list was made."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.history import Event


@dataclass(frozen=True)
class Made:
    """How a list comes from a profile: by which release, and the wishes that arrange it (serving.messages.Wish)."""

    release: str
    k: int
    explore: float
    diversity: float
    exclude_seen: bool

    def __str__(self) -> str:
        return f"{self.release}/{self.k}/{self.explore!r}/{self.diversity!r}/{self.exclude_seen:d}"


_WRITTEN = re.compile(r"(?:(\d+)/(\d+)/(\d[\d.e-]*)/(\d[\d.e-]*)/([01])-)?(\d+)")


def impressions(items: Sequence[dict[str, Any]], owner: str, request_id: str, made: Made | None, surface: str | None = None) -> list[Event]:
    """Return the events that tell of a list: each item with its propensity as value, the list's request id, and an id of its own; where it
    was shown, if that was said.

    The id is REQUEST-MADE-PLACE, the place counted from 0, where nothing but the profile and `made` was asked; without MADE where the list
    hangs on more (filters, a selection, a cursor, a surface, house rules, a profile that could not be read), so that nobody takes it for
    one of these.
    """
    who: dict[str, Any] = {"session_id": owner.removeprefix("session:")} if owner.startswith("session:") else {"user_id": owner}
    who |= {"timestamp": round(time.time() * 1000), "request_id": request_id, "surface": surface}
    name = request_id if made is None else f"{request_id}-{made}"
    return [
        Event(item["item_id"], "impression", event_id=f"{name}-{place}", value=item["propensity"], **who)
        for place, item in enumerate(items)
    ]


def read(event_id: str, request_id: str) -> tuple[int, Made | None] | None:
    """Return the place and what was made of an impression's id; None where the server did not write it."""
    found = _WRITTEN.fullmatch(event_id.removeprefix(f"{request_id}-")) if event_id.startswith(f"{request_id}-") else None
    if found is None:
        return None
    release, k, explore, diversity, seen, place = found.groups()
    return int(place), Made(release, int(k), float(explore), float(diversity), seen == "1") if release else None
