"""What comes in over HTTP and what goes out: every body, its limits and its words."""

import re
import time
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from recsys.catalogue import WITHDRAWN
from recsys.errors import nearest
from recsys.events import EVENT_TYPES
from serving.history import Event

BATCH = 500
MAX_K = 500
MAX_HISTORY = 200
MAX_COLUMNS = 64
MAX_INCLUDED = 10_000
MAX_CURSOR = 6000
"""Letters: those of a cursor with all that one can carry."""

FUTURE = 5 * 60.0
"""Seconds that a client's clock may be ahead of ours."""

OLDEST = 631_152_000
"""1990: an older timestamp is a mistake, in an import too."""


def _event_type(name: str) -> str:
    if name not in EVENT_TYPES:
        raise ValueError(f"{name!r} is no event type; {nearest(name, EVENT_TYPES)}")
    return name


def _not_in_the_future(seconds: float) -> float:
    ahead = seconds - time.time()
    if ahead > FUTURE:
        hint = "; timestamps are in seconds, this looks like milliseconds" if seconds > 1e11 else ""
        raise ValueError(f"{seconds:.0f} is {ahead:.0f} s in the future, at most {FUTURE:.0f} are allowed{hint}")
    return seconds


def _not_a_session(user_id: str) -> str:
    if user_id.startswith("session:"):
        raise ValueError(f"{user_id!r} looks like a session; send the part behind 'session:' as session_id")
    return user_id


def _without_prefix(session_id: str) -> str:
    if session_id.startswith("session:"):
        raise ValueError(f"{session_id!r} begins with 'session:', which is how an address names a session; send what stands behind it")
    return session_id


Id = Annotated[str, Field(min_length=1, max_length=256)]
SessionId = Annotated[Id, AfterValidator(_without_prefix)]
UserId = Annotated[Id, AfterValidator(_not_a_session)]
EventType = Annotated[str, AfterValidator(_event_type), Field(json_schema_extra={"enum": list(EVENT_TYPES)})]
Seconds = Annotated[
    float,
    Field(
        ge=OLDEST,
        allow_inf_nan=False,
        description="seconds since 1970, UTC; from 1990 on, at most 5 minutes in the future",
        examples=[1_760_000_000.5],
    ),
    AfterValidator(_not_in_the_future),
]
Unit = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=2000)]
Share = Annotated[float, Field(ge=0, le=1, description="a rating as a share of its scale, or the share that was watched")]
K = Annotated[int, Field(ge=1, le=MAX_K, description="how many items")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_field(cls, body: Any) -> Any:
        for name in body if isinstance(body, dict) else ():
            if name not in cls.model_fields:
                raise ValueError(f"there is no field {name!r}; {nearest(name, cls.model_fields)}")
        return body


class EventIn(_Body):
    """What somebody did with an item. It needs a user_id, a session_id or both."""

    user_id: UserId | None = None
    item_id: Id
    event_type: EventType
    timestamp: Seconds
    event_id: Id | None = Field(None, description="sent twice, it counts once; made from the event itself where left out")
    session_id: SessionId | None = None
    value: Share | None = None
    request_id: Id | None = Field(None, description="the request_id of the answer that showed the item")
    surface: Id | None = Field(None, description="where it happened: a part of the app, a market, a kind of profile")

    @model_validator(mode="after")
    def _somebody(self) -> "EventIn":
        if self.user_id is None and self.session_id is None:
            raise ValueError("an event needs a user_id, a session_id or both")
        return self

    def as_event(self) -> Event:
        return Event(**{**self.model_dump(), "event_id": self.event_id or "", "timestamp": round(self.timestamp * 1000)})


class HistoryEvent(_Body):
    """One event of a history given in the request."""

    item_id: Id
    event_type: EventType = "watch"
    timestamp: Seconds | None = Field(None, description="now, where left out")

    def as_event(self, now: float) -> Event:
        return Event(self.item_id, self.event_type, round((now if self.timestamp is None else self.timestamp) * 1000))


FILTERS = (
    'what must be true of an item, by column: {"genres": {"any": ["Drama", "Crime"]}, "year": {"min": 1990}}; there are any, all, none, '
    "min and max"
)
CURSOR = "the next_cursor of the page before, with the same parameters: what was shown does not come again"
DIVERSITY = "0: the most likely items; towards 1: items less like each other (maximal marginal relevance)"
EXPLORE = (
    "the share of places that are drawn from the best, as often as their scores say; each item then says its propensity and, where a user "
    "is asked for, is logged as an impression with that as value"
)
EXPLAIN = "say of each item because of which watched ones it is there; it costs about ten times as much"
SURFACE = "where the list will be shown, as events say it: answered by that surface's head where the release has one (strategy heads)"
EXCLUDE = "items to leave out"
INCLUDE = "nothing but these"


class Wish(_Body):
    """What a list may hold."""

    exclude_seen: bool | None = Field(None, description="leave out the items of the history; the configured default where left out")
    exclude_items: list[Id] = Field([], max_length=MAX_K, description=EXCLUDE)
    include_items: list[Id] | None = Field(None, max_length=MAX_INCLUDED, description=INCLUDE)
    filters: dict[str, dict[str, Any]] = Field({}, description=FILTERS)
    cursor: str | None = Field(None, max_length=MAX_CURSOR, description=CURSOR)
    explain: bool = Field(False, description=EXPLAIN)
    diversity: Unit = Field(0.0, description=DIVERSITY)
    explore: Unit = Field(0.0, description=EXPLORE)
    surface: Id | None = Field(None, description=SURFACE)


class RecommendIn(Wish):
    """A request that brings its own history; nothing of it is stored."""

    history: list[HistoryEvent] = Field(max_length=MAX_HISTORY, description="any order; sorted by timestamp")
    k: K = 20


class Reason(BaseModel):
    """A watched item that speaks for a recommended one."""

    item_id: str
    title: str = Field("", description="only where known")
    share: float = Field(description="how much of the score goes when it is left out of the history")


class Item(BaseModel):
    """One recommended item. Scores compare within one source."""

    item_id: str
    score: float
    source: Literal["tower", "neighbours", "popular", "explore", "pinned"]
    title: str = Field("", description="only where known")
    propensity: float | None = Field(None, description="only with explore: how likely the item was to come in its place")
    because: list[Reason] = Field([], description="only with explain=true: the watched items that speak most for it, at most two")


class WhyNot(BaseModel):
    """Where an item stands for somebody, or at which stage it fell out."""

    item_id: str
    stage: Literal[
        "recommended",
        "ranked",
        "house rules",
        "unknown",
        "withdrawn",
        "seen",
        "dislike",
        "skip",
        "near copy",
        "excluded",
        "not included",
        "filtered",
    ]
    detail: str
    rank: int | None = Field(description="its place among all that may be recommended; null where it is not ranked, or behind the 500th")
    score: float | None
    source: Literal["tower", "neighbours", "popular", "pinned"] | None
    release: str
    request_id: str
    degraded: bool


class Answer(BaseModel):
    """Items, best first, all of one release."""

    items: list[Item]
    release: str
    request_id: str
    degraded: bool = Field(description="true where Redis did not answer in time: the items are the popular ones, or nothing was explored")
    next_cursor: str | None = Field(None, description="where the next page begins; null at the end, and where there are no pages")
    variant: Literal["live", "canary"] | None = Field(None, description="only while a release is on trial: whether that one answers")


class Accepted(BaseModel):
    """What became of the events: stored durably and counted from the next recommendation on."""

    accepted: int = Field(description="events that were new")
    duplicates: int = Field(description="events whose id was known; they changed nothing")
    request_id: str


class SignIn(_Body):
    """Which session turned out to be the user's."""

    session_id: SessionId


class Moved(BaseModel):
    """How much the user's profile gained."""

    moved: int = Field(description="events of the session; they count for the user from the next recommendation on")
    request_id: str


class Deleted(BaseModel):
    """What became of a profile or, with erase, of all that is kept of a person."""

    deleted: bool = Field(description="false where there was none")
    receipt: dict[str, Any] | None = Field(None, description="only with erase: what was erased where, by the hash of the name")
    request_id: str


class ItemIn(BaseModel):
    """What is known about an item: a title, genres, and any other column, each a text, a number or a list of texts."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, Text | bool | int | float | list[Text]]

    title: Text | None = None
    genres: list[Text] | None = Field(None, max_length=100)

    @model_validator(mode="after")
    def _sensible(self) -> "ItemIn":
        extra = self.__pydantic_extra__
        if len(extra) > MAX_COLUMNS:
            raise ValueError(f"an item has {MAX_COLUMNS} columns at most; got {len(extra)}")
        for name, value in extra.items():
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_ .-]{0,63}", name) or name in ("item_id", WITHDRAWN):
                raise ValueError(f"{name[:80]!r} is no name for a column: a letter, then up to 63 letters, digits, '_', '-', '.' or spaces")
            if isinstance(value, bool):
                raise ValueError(f"{name}: a column holds texts, numbers or lists of texts; write 0 or 1 for {str(value).lower()}")
            if isinstance(value, (int, float)) and not abs(value) < 2**53:
                raise ValueError(f"{name}: {value} is too large a number")
        return self


class Put(BaseModel):
    """What became of an item."""

    item_id: str
    release_knows: bool = Field(description="false while it stands where its content puts it: the next update learns more")
    request_id: str


class Withdrawn(BaseModel):
    """An item that is not recommended any more."""

    item_id: str
    request_id: str


class Releases(BaseModel):
    """Which release answers, and which could."""

    live: str | None
    releases: list[str]


class PromoteIn(_Body):
    """How a release is to go live: at once, where nothing is said; shown to some of the people first; or asked beside the live one."""

    canary: float | None = Field(
        None, ge=0.0001, le=0.5, allow_inf_nan=False, description="show it to this share of the people first, always the same ones"
    )
    shadow: float | None = Field(
        None,
        ge=0.0001,
        le=1,
        allow_inf_nan=False,
        description="show it to nobody: ask it beside the live one, for such a share of them",
    )
    hours: float = Field(
        0.0,
        ge=0,
        le=87_600,
        allow_inf_nan=False,
        description="with canary: after so many hours it goes live, if it has not fallen behind; 0: never by itself",
    )

    @model_validator(mode="after")
    def _one_way(self) -> "PromoteIn":
        if self.canary is not None and self.shadow is not None:
            raise ValueError("a release is shown (canary) or asked beside the live one (shadow); send one of them")
        if self.hours and self.canary is None:
            raise ValueError("hours goes with canary: a shadow never goes live by itself, and without either the release does at once")
        return self


class RollBackIn(_Body):
    """Which release to go back to."""

    release: Id | None = Field(None, description="the parent of the live one, where left out")


class OnTrial(BaseModel):
    """A release that is tried on some of the people."""

    release: str
    share: float = Field(description="of the people who are shown it or, with shadow, for whom it is asked as well")
    shadow: bool
    began: int = Field(description="ms since 1970")
    hours: float = Field(description="after so many it goes live, if it has not fallen behind; 0: never by itself")


class Turned(BaseModel):
    """Which release is live now. Other workers follow within a second, other machines on the same store within store.look_seconds."""

    live: str | None
    was: str | None = Field(description="the one that was before; the same where a release was put on trial")
    trial: OnTrial | None = Field(description="what is on trial now; null where nothing is")
    serving: str | None = Field(description="what the worker that answers this serves: another than live where that cannot be served")


class Stopped(BaseModel):
    """What became of a trial."""

    ended: bool = Field(description="false where nothing was on trial")
    live: str | None = Field(description="the release that answers everybody")


class Alive(BaseModel):
    """The process runs."""

    status: Literal["ok"]


class Ready(BaseModel):
    """What the service needs to answer in full."""

    ready: bool
    release: str | None
    redis: bool


class Problem(BaseModel):
    """One line: what came, what was allowed, the way out."""

    detail: str
