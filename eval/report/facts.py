"""The results with holes filled, and what every part of the report asks of them."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from eval import pictures
from eval.pictures import Maybe
from recsys.errors import BadInput

FOCUS = 0.6
"""A picture that compares methods leaves out those with less than this part of the best quality, and says which."""

FEW = 6
"""Methods in a picture of slices, and methods with a band where there are more than `eval.report.course.MANY` lines."""

SHARES = ("recall", "ndcg", "mrr", "hit_rate", "map", "coverage")
"""Figures that are shares and stand in per cent."""


class Facts:
    """The results with holes filled by None: what is drawn, in which order, in which colour."""

    def __init__(self, results: dict[str, Any]):
        self.all = results
        self.methods: dict[str, dict[str, Any]] = {name: found or {} for name, found in (results.get("methods") or {}).items()}
        if not self.methods:
            raise BadInput("the results hold no method, so there is nothing to report; give the JSON that recsys evaluate --json wrote")
        self.windows: list[dict[str, Any]] = results.get("windows") or []
        self.protocol = str(results.get("protocol") or "offline")
        self.baseline: str | None = results.get("baseline")
        self.compared = self.baseline or "the baseline"
        self.look = {name: number for number, name in enumerate(self.methods)}
        figures = list(
            dict.fromkeys(figure for name in self.methods for part in ("macro", "micro") for figure in part_of(self.methods[name], part))
        )
        self.quality = [figure for figure in figures if figure.split("@")[0] in (*SHARES[:-1], *(results.get("metrics") or ()))]
        self.lists = [figure for figure in figures if figure not in self.quality and "@" in figure]
        self.main = self._pick("recall") or next(iter(self.quality), "recall@20")
        self.second = self._pick("mrr" if self.protocol == "ader" else "ndcg") or next((f for f in self.quality if f != self.main), None)
        self.label = pictures.labels(list(self.methods))
        self.names = sorted(self.methods, key=lambda name: -(self.macro(name) or -math.inf))

    def _pick(self, metric: str) -> str | None:
        at = [int(figure.split("@")[1]) for figure in self.quality if figure.split("@")[0] == metric]
        return f"{metric}@{20 if 20 in at else max(at)}" if at else None

    def macro(self, name: str, figure: str | None = None) -> Maybe:
        """Return a method's mean over the windows, a fraction."""
        return number(part_of(self.methods[name], "macro").get(figure or self.main))

    def interval(self, name: str, figure: str | None = None) -> dict[str, Any]:
        """Return value, low, high, difference, ... of a method, or nothing."""
        return part_of(part_of(self.methods[name], "intervals"), figure or self.main)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return a method's figures window by window."""
        return self.methods[name].get("windows") or []

    def seconds(self, name: str) -> Maybe:
        """Return the mean seconds of one update: all lessons but the first fit, or that where there is no other."""
        seconds = [number(row.get("seconds_learn")) for row in self.rows(name)]
        known = [value for value in (seconds[1:] or seconds) if value is not None]
        return sum(known) / len(known) if known else None

    def in_focus(self, figure: str) -> tuple[list[str], list[str]]:
        """Return the methods that share a picture, and those far below that would squeeze it."""
        values = {name: self.macro(name, figure) for name in self.names}
        best = max((value for value in values.values() if value is not None), default=0.0)
        near = [name for name, value in values.items() if value is None or value >= FOCUS * best]
        return near, [name for name in self.names if name not in near]

    def few(self, names: Sequence[str]) -> list[str]:
        """Return the first `FEW` of some methods, best first, the baseline with them where it is one of them."""
        first = list(names[:FEW])
        return first if self.baseline not in names or self.baseline in first else [*first[:-1], str(self.baseline)]

    def legend(self, names: Iterable[str]) -> str:
        return pictures.legend([(name, self.look[name]) for name in names])


def number(value: Any) -> Maybe:
    """Return a finite number, or None for what is none."""
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def part_of(found: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a part that is a dictionary, or an empty one."""
    value = found.get(key)
    return value if isinstance(value, dict) else {}


def percent(value: Any) -> Maybe:
    """Return a share in per cent, or None."""
    known = number(value)
    return None if known is None else 100 * known
