"""What editors want of every list: more of this, less of that, one thing at a fixed place, not too much of a kind."""

import logging
import tomllib
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recsys.errors import BadInput, nearest
from serving.shelf import Shelf

_log = logging.getLogger("recsys.rules")

FILE = "rules.toml"

EXAMPLE = """\
boost = [{filter = {genres = {any = ["Documentary"]}}, by = 1.5}]   # their score times 1.5; of the best 500 of each person
bury  = [{items = ["42", "43"], by = 0.2}]
pin   = [{item_id = "99", place = 1}]                               # first page; not for who saw or dislikes it
cap   = [{column = "genres", most = 4}]                             # at most 4 of a genre on a page
"""


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Weigh(_Rule):
    """Items, by id or by what is true of them, and what their score is multiplied by."""

    items: list[str] = Field([], description="item ids")
    filter: dict[str, dict[str, Any]] = Field({}, description="what must be true of an item, as in a request's filters")
    by: float = Field(gt=0, le=1e6, description="what the score is multiplied by")

    @model_validator(mode="after")
    def _selects(self) -> "Weigh":
        if not self.items and not self.filter:
            raise ValueError("name items or a filter: it selects nothing")
        return self


class Boost(Weigh):
    """What comes earlier."""

    by: float = Field(2.0, ge=1, le=1e6)


class Bury(Weigh):
    """What comes later."""

    by: float = Field(0.1, gt=0, le=1)


class Pin(_Rule):
    """One item at one place of the first page, for everybody who may see it."""

    item_id: str = Field(min_length=1)
    place: int = Field(ge=1, le=500)


class Cap(_Rule):
    """At most so many items of a page that share a value of a column."""

    column: str
    most: int = Field(ge=1, le=500)


class Rules(_Rule):
    """All rules of a home."""

    boost: list[Boost] = []
    bury: list[Bury] = []
    pin: list[Pin] = []
    cap: list[Cap] = []

    @model_validator(mode="after")
    def _one_each(self) -> "Rules":
        told: dict[str, list[Any]] = {"place": [pin.place for pin in self.pin], "item": [pin.item_id for pin in self.pin]}
        for what, each in told.items():
            if twice := [one for one in each if each.count(one) > 1]:
                raise ValueError(f"pin: {what} {twice[0]!r} is there twice")
        return self

    def check(self, shelf: Shelf, known: Collection[str]) -> list[str]:
        """Raise BadInput where a column or a condition is none of a catalogue's; return notes on what has no effect for now."""
        if not shelf.columns:
            return ["nothing is known of the items yet: filters and caps were not checked"]
        for rule in (*self.boost, *self.bury):
            shelf.let_through(rule.filter)
        for cap in self.cap:
            if cap.column not in shelf.columns:
                raise BadInput(f"cap: no item has a column {cap.column!r}; {nearest(cap.column, shelf.columns)}")
        named = [*(pin.item_id for pin in self.pin), *(id for rule in (*self.boost, *self.bury) for id in rule.items)]
        return [f"no item {id!r} is known" for id in dict.fromkeys(named) if id not in known]

    def __bool__(self) -> bool:
        return bool(self.boost or self.bury or self.pin or self.cap)

    def factors(self, shelf: Shelf, ids: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """Return what the scores of some items are multiplied by, (C,)."""
        factor = np.ones(len(rows))
        for rule in (*self.boost, *self.bury):
            named = set(rule.items)
            hit = np.array([id in named for id in ids], bool)
            if rule.filter:
                try:
                    hit |= shelf.let_through(rule.filter)[rows]
                except BadInput as error:
                    _once(f"a rule in {FILE} has no effect: {error}")
            factor[hit] *= rule.by
        return factor

    def groups(self, shelf: Shelf, rows: np.ndarray) -> tuple[list[list[Hashable]], Mapping[Hashable, int]]:
        """Return what each of some items counts towards, and how many there may be of each."""
        groups: list[list[Hashable]] = [[] for _ in rows]
        most: dict[Hashable, int] = {}
        for rule in self.cap:
            if rule.column not in shelf.columns:
                _once(f"a rule in {FILE} has no effect: no item has a column {rule.column!r}")
                continue
            for group, values in zip(groups, shelf.values(rule.column, rows), strict=True):
                for value in values:
                    group.append((rule.column, value))
                    most[rule.column, value] = rule.most
        return groups, most


KINDS: dict[str, type[BaseModel]] = {"boost": Boost, "bury": Bury, "pin": Pin, "cap": Cap}


class RulesFile:
    """The rules in H/rules.toml. A running server notices a change within a second; a file with a mistake changes nothing."""

    def __init__(self, file: Path):
        self.file = file
        self._rules = Rules()
        self._look_again = 0.0
        self._seen: tuple[int, int] | None = None

    def read(self) -> Rules:
        """Return the rules; raise BadInput on a mistake."""
        try:
            told = tomllib.loads(self.file.read_text())
        except FileNotFoundError:
            return Rules()
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadInput(f"{self.file} is not TOML: {error}") from None
        try:
            return Rules.model_validate(told)
        except ValidationError as error:
            raise BadInput(f"{self.file}: {_said(error)}") from None

    @property
    def now(self) -> Rules:
        """The rules that hold."""
        now = monotonic()
        if now >= self._look_again:
            self._look_again = now + 1
            self._refresh()
        return self._rules

    def _refresh(self) -> None:
        try:
            about = self.file.stat()
            seen = (about.st_mtime_ns, about.st_ino)
        except FileNotFoundError:
            seen = None
        if seen != self._seen:
            self._seen = seen
            try:
                self._rules = self.read()
            except (BadInput, OSError) as error:
                _log.error("%s; the rules from before hold", error)


_told: set[str] = set()


def _once(text: str) -> None:
    """Log a line the first time."""
    if text not in _told:
        _told.add(text)
        _log.error("%s", text)


def _said(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "value_error":
        return f"{where}: {first['ctx']['error']}" if where else str(first["ctx"]["error"])
    if first["type"] == "extra_forbidden":
        known: type[BaseModel] = Rules
        for part in first["loc"][:-1]:
            if isinstance(part, str):
                known = KINDS[part]
        return f"there is no {where!r}; {nearest(str(first['loc'][-1]), known.model_fields)}"
    came = "" if first["type"] == "missing" else f"; got {str(first['input'])[:80]!r}"
    return f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}{came}"
