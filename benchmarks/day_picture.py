"""The picture of a simulated day: how often lists were right, ours beside a release that stays, and below it what the job did when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from eval.pictures import mark, ticks

WIDTH = 760
LEFT, RIGHT, TOP, BOTTOM = 50, 640, 46, 290
LANES, PITCH = 372, 22
"""Where the first line of what the job did stands, and how far below it the next."""

LETTER = 6.2
OURS, FROZEN = 0, 1

STYLE = """
:root { --paper:#fff; --ink:#1b1f24; --soft:#59636e; --rule:#d5dae0; --c0:#0072b2; --c1:#d55e00; }
@media (prefers-color-scheme:dark) { :root { --paper:#14171b; --ink:#e6e9ed; --soft:#a2abb6; --rule:#363d46; --c0:#4aa8e0; --c1:#f0803c; } }
text { fill:var(--ink); font:12px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
.soft { fill:var(--soft); } .bold { font-weight:600; } .paper { fill:var(--paper); } .grid { stroke:var(--rule); stroke-width:.7; }
.base { stroke:var(--soft); } .noon { stroke:var(--ink); stroke-dasharray:5 4; } .thread { stroke:var(--soft); stroke-dasharray:2 3; }
.c0 { --c:var(--c0); } .c1 { --c:var(--c1); } .mark, .band { fill:var(--c); } .mark { stroke:var(--paper); stroke-width:.6; }
.line { stroke:var(--c); fill:none; stroke-width:1.8; stroke-linejoin:round; } .band { opacity:.16; }
.work { fill:var(--c0); } .refused { stroke:var(--c1); stroke-width:2.4; }
.release { fill:var(--paper); stroke:var(--ink); stroke-width:1.6; }
"""


@dataclass(frozen=True)
class Bin:
    """The hit rate around an hour, %, the ends of its 95% interval, and of how many outcomes (n)."""

    hour: float
    rate: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Update:
    """What the job did between two hours: because of which triggers, and the release that came of it, None where it was refused: reason."""

    begin: float
    end: float
    triggers: list[str]
    release: str | None
    reason: str


def draw(
    ours: Sequence[Bin], frozen: Sequence[Bin], did: Sequence[Update], releases: Mapping[str, float], seconds: float, noon: str
) -> str:
    """Return the day as one SVG that follows the reader's light or dark mode. releases: the hour at which each first answered."""
    top = 10 * np.ceil(max(each.high for each in (*ours, *frozen)) / 10)
    shelves = _shelves(did)
    height = LANES + PITCH * (max(shelves, default=0) + 1)
    parts = [f'<rect class="paper" width="{WIDTH}" height="{height}"/>', *_axes(top, seconds), *_noon(noon)]
    for update, shelf in zip(did, shelves, strict=True):
        parts += _update(update, LANES + PITCH * shelf)
    parts += _course(frozen, FROZEN, "the first release", top) + _course(ours, OURS, "ours", top)
    parts += _names(ours, frozen, top)
    for name, hour in list(releases.items())[1:]:  # with the first one the day begins
        parts.append(_release(name, hour, _at(ours, hour, top)))
    said = "hit rate over a simulated day, ours beside a release that stays; triggers and releases below"
    body = "\n".join(parts)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{said}">'
    return f"{head}\n<style>{STYLE}</style>\n{body}\n</svg>\n"


def _x(hour: float) -> float:
    return LEFT + (RIGHT - LEFT) * hour / 24


def _y(rate: float, top: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * rate / top


def _at(course: Sequence[Bin], hour: float, top: float) -> float:
    """Return where a course passes an hour."""
    return _y(float(np.interp(hour, [each.hour for each in course], [each.rate for each in course])), top)


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "start", more: str = "") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _axes(top: float, seconds: float) -> list[str]:
    parts = []
    for rate in ticks(0, top):
        parts.append(f'<path class="grid" d="M{LEFT},{_y(rate, top):.1f}H{RIGHT}"/>')
        parts.append(_text(LEFT - 6, _y(rate, top) + 4, f"{rate:.0f}", "soft", "end"))
    parts.append(f'<path class="base" d="M{LEFT},{BOTTOM}H{RIGHT}"/>')
    for hour in range(0, 25, 3):
        parts.append(f'<path class="base" d="M{_x(hour):.1f},{BOTTOM}v4"/>')
        parts.append(_text(_x(hour), BOTTOM + 17, f"{hour:02d}:00", "soft", "middle"))
    middle = (TOP + BOTTOM) / 2
    parts.append(_text(0, 0, "hit rate@20, %", "soft", "middle", f' transform="translate(14 {middle}) rotate(-90)"'))
    parts.append(
        _text((LEFT + RIGHT) / 2, BOTTOM + 34, f"time of the simulated day (an hour takes {seconds / 24:.3g} s)", "soft", "middle")
    )
    parts.append(_text(LEFT, LANES - 20, "the job: why it set to work, how long that took, and what came of it", "soft"))
    parts.append(_text(LEFT, 18, "What people go on to was in the list they had just been shown", "bold"))
    return parts


def _noon(said: str) -> list[str]:
    at = _x(12)
    return [f'<path class="noon" d="M{at:.1f},{TOP - 10}V{BOTTOM}"/>', _text(at + 6, TOP - 4, said)]


def _course(course: Sequence[Bin], look: int, name: str, top: float) -> list[str]:
    over = [f"{_x(each.hour):.1f},{_y(each.high, top):.1f}" for each in course]
    under = [f"{_x(each.hour):.1f},{_y(each.low, top):.1f}" for each in reversed(course)]
    parts = [f'<path class="c{look} band" d="M{"L".join(over + under)}Z"/>']
    parts.append(f'<path class="c{look} line" d="M{"L".join(f"{_x(each.hour):.1f},{_y(each.rate, top):.1f}" for each in course)}"/>')
    for each in course:
        said = f"{name}, {_clock(each.hour)}: {each.rate:.1f} % [{each.low:.1f}, {each.high:.1f}] of {each.n}"
        parts.append(f"<g>{mark(look, _x(each.hour), _y(each.rate, top), 2.8)}<title>{escape(said)}</title></g>")
    return parts


def _names(ours: Sequence[Bin], frozen: Sequence[Bin], top: float) -> list[str]:
    """Name both courses at their ends, two lines each, not above each other."""
    ends = [_y(float(np.mean([each.rate for each in course[-4:]])), top) for course in (ours, frozen)]
    if abs(ends[0] - ends[1]) < 34:
        middle, sign = sum(ends) / 2, 1 if ends[0] <= ends[1] else -1
        ends = [middle - 17 * sign, middle + 17 * sign]
    said = (("left alone", "with the job"), ("the first", "release stays"))
    parts = []
    for look, (y, lines) in enumerate(zip(ends, said, strict=True)):
        parts.append(mark(look, RIGHT + 9, y - 4, 4))
        parts += [_text(RIGHT + 17, y + 14 * n, line, "bold" if look == OURS else "") for n, line in enumerate(lines)]
    return parts


def _update(update: Update, y: float) -> list[str]:
    """Draw from when to when the job worked, and tell why and what came of it."""
    begin, end = _x(update.begin), max(_x(update.end), _x(update.begin) + 3)
    bar = f'<rect class="work" x="{begin:.1f}" y="{y - 5:.1f}" width="{end - begin:.1f}" height="10" rx="2"/>'
    parts = [f"<g>{bar}<title>{escape(update.reason)}</title></g>"]
    if update.release is None:
        parts.append(f'<path class="refused" d="M{end - 1:.1f},{y - 5:.1f}l10,10m0,-10l-10,10"/>')
    where, anchor = (end + 13, "start") if _fits(update) else (begin - 6, "end")
    parts.append(_text(where, y + 4, _said(update), "", anchor))
    return parts


def _said(update: Update) -> str:
    return f"{' + '.join(update.triggers)}: {f'release {int(update.release)}' if update.release else 'refused'}"


def _release(name: str, hour: float, y: float) -> str:
    x = _x(hour)
    corners = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in ((0, -6.5), (6.5, 0), (0, 6.5), (-6.5, 0)))
    thread = f'<path class="thread" d="M{x:.1f},{y:.1f}V{BOTTOM}"/>'
    about = f"<title>release {escape(name)} answers from {_clock(hour)} on</title>"
    return f'<g>{thread}<polygon class="release" points="{corners}"/>{_text(x, y - 11, str(int(name)), "bold", "middle")}{about}</g>'


def _fits(update: Update) -> bool:
    return _x(update.end) + 20 + LETTER * len(_said(update)) < WIDTH


def _shelves(did: Sequence[Update]) -> list[int]:
    """Return on which line each update is told, the first one where it has room."""
    ends: list[float] = []
    found = []
    for update in did:
        words = 20 + LETTER * len(_said(update))
        begin, end = (_x(update.begin), _x(update.end) + words) if _fits(update) else (_x(update.begin) - words, _x(update.end) + 14)
        shelf = next((n for n, taken in enumerate(ends) if taken < begin), len(ends))
        ends[shelf : shelf + 1] = [end]
        found.append(shelf)
    return found


def _clock(hour: float) -> str:
    minutes = round(60 * hour)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
