"""Figures in words: per cent, seconds, units, what was left out."""

from collections.abc import Iterable, Sequence
from typing import Any

from eval.pictures import Maybe
from eval.report.facts import SHARES, Facts, number

UNITS = {"gini": "0–1", "novelty": "bits", "diversity": "0–1"}


def known_of(values: Iterable[Any]) -> list[float]:
    """Return those that are numbers."""
    return [known for value in values if (known := number(value)) is not None]


def percent_text(value: Maybe, sign: str = "") -> str:
    """Write a share in per cent, with two digits."""
    return "–" if value is None else f"{100 * value:{sign}.2f}"


def between(interval: dict[str, Any], low: str, high: str, sign: str = "") -> str:
    """Write an interval in per cent, in brackets, or nothing."""
    ends = number(interval.get(low)), number(interval.get(high))
    return "" if None in ends else f" [{percent_text(ends[0], sign)}, {percent_text(ends[1], sign)}]"


def text_of(figure: str) -> Any:
    """Return how figures of a name are written."""
    return (lambda value: f"{100 * value:.1f}") if figure.split("@")[0] in SHARES else (lambda value: f"{value:.3f}")


def unit(figure: str) -> str:
    """Return the unit of a figure."""
    name = figure.split("@")[0]
    return "%" if name in SHARES else next((unit for word, unit in UNITS.items() if word in name), "")


def cost_text(key: str) -> Any:
    """Return how a cost is written."""
    if key == "release_bytes":
        return lambda value: f"{value / 1e6:,.2f}"
    if key.endswith("_loss"):
        return lambda value: f"{100 * value:+.2f}"
    return (lambda value: f"{value:,.0f}") if key in ("examples", "peak_mb") else digits


def digits(value: float) -> str:
    """Write a number with about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def duration(seconds: float) -> str:
    """Write seconds in the unit that suits them."""
    if seconds < 0.1:
        return f"{1000 * seconds:.1f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def ratio_text(ratio: float) -> str:
    """Write a ratio in per cent, or in times."""
    return f"{100 * ratio:.0f} %" if ratio < 2 else f"{ratio:.1f} times" if ratio < 10 else f"{ratio:,.0f} times"


def counted(n: int, thing: str) -> str:
    """Write how many there are of a thing."""
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def listed(found: Any) -> str | None:
    """Write a dictionary or a list on one line."""
    if isinstance(found, dict):
        return ", ".join(f"{name} {value if value is not None else 'not installed'}" for name, value in found.items()) or None
    if isinstance(found, list):
        return "; ".join(map(str, found)) or None
    return None if found is None else str(found)


def window_axis(facts: Facts) -> str:
    """Name the axis of windows."""
    begins = [str(window["begin"])[:10] for window in facts.windows if window.get("begin")]
    return f"window, beginning {begins[0]} to {begins[-1]}" if begins and facts.protocol != "ader" else "window"


def left_out(facts: Facts, names: Sequence[str], figure: str) -> str:
    """Say which methods are too far below to share a picture."""
    if not names:
        return ""
    values = (
        f"{name} ({percent_text(facts.macro(name, figure))}{' %' if facts.macro(name, figure) is not None else ''})" for name in names
    )
    return f" Too far below to share the picture: {', '.join(values)}."
