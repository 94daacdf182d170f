"""Pictures of results as small inline SVG.

Written by hand instead of by matplotlib: CSS variables follow the reader's light or dark mode, text stays text, every mark says its
number on hover, the same input gives the same bytes, and nothing has to be installed for it. Each is 480 units wide, so that it is
legible on a phone and two stand side by side on a desk. All text is escaped here. Quality comes in per cent.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

WIDTH = 480
LEFT = 48
"""Where a plot begins, with its y axis named to the left of it."""

LOOKS = 8
"""Colours of the palette (Okabe & Ito 2008, its yellow darkened on white); the shape tells those of one colour apart."""

Maybe = float | None


@dataclass(frozen=True)
class Series:
    """A method's course: x, y, and the ends of its intervals, all of one length; None where there is no number."""

    name: str
    look: int
    x: Sequence[float]
    y: Sequence[Maybe]
    low: Sequence[Maybe] = ()
    high: Sequence[Maybe] = ()
    label: str = ""


@dataclass(frozen=True)
class Point:
    """A method's value on a row or at a cost x."""

    name: str
    look: int
    y: float
    low: Maybe = None
    high: Maybe = None
    x: float = 0.0
    label: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a dot plot: what it is, a remark on it, its points (the value is y)."""

    label: str
    remark: str
    points: list[Point] = field(default_factory=list)


def short(name: str, limit: int = 24) -> str:
    """Return a name that fits, its middle left out: both the strategy and what was added to it stay."""
    return name if len(name) <= limit else f"{name[: limit - limit // 3 - 1]}…{name[-(limit // 3) :]}"


def labels(names: Sequence[str], limit: int = 24) -> dict[str, str]:
    """Return a label that fits for each name, no two alike: its settings in brackets left out, or else its middle, or else numbered."""
    found: dict[str, str] = {}
    for attempt in (lambda name: name, lambda name: re.sub(r"\([^()]*\)", "(…)", name), lambda name: short(name, limit)):
        tried = {name: attempt(name) for name in names}
        for name in names:
            if name not in found and len(tried[name]) <= limit and list(tried.values()).count(tried[name]) == 1:
                found[name] = tried[name]
    return {name: found.get(name) or f"{number} {short(name, limit - 3)}" for number, name in enumerate(names, 1)}


def mark(look: int, x: float, y: float, size: float = 3.6) -> str:
    """Return the mark of a method, told by colour and by shape."""
    colour, shape = f'class="c{look % LOOKS} mark"', (look + look // LOOKS) % 4
    if shape == 0:
        return f'<circle {colour} cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}"/>'
    corners = {
        1: [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        2: [(0, -1.25), (1.15, 0.85), (-1.15, 0.85)],
        3: [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
    }[shape]
    return f'<polygon {colour} points="{" ".join(f"{x + size * a:.1f},{y + size * b:.1f}" for a, b in corners)}"/>'


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers between two ends, at steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [step * number for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def lines(series: Sequence[Series], x_title: str, y_title: str) -> str:
    """Return quality over time: a line for each method with a band for its interval and its name at the end."""
    named = [(each, _last(each)) for each in series]
    named = [(each, last) for each, last in named if last is not None]
    if not named:
        return ""
    height = max(300, 15 * len(named) + 70)
    right = WIDTH - 26 - 6.9 * max(len(each.label or each.name) for each, _ in named)
    values = [v for each, _ in named for column in (each.y, each.low, each.high) for v in column if v is not None]
    x = _Scale([v for each, _ in named for v in each.x], LEFT, right, pad=0)
    y = _Scale(values, height - 44, 12)
    parts = [_y_axis(y, LEFT, right, y_title), _x_axis(x, height - 44, x_title, ticks(x.low, x.high, 6), whole=True)]
    parts += [f'<g class="series">{_band(each, x, y)}{_course(each, x, y)}</g>' for each, _ in named]
    at = _spread([y(last) for _, last in named], 14, 12, height - 44)
    for (each, last), where in zip(named, at, strict=True):
        end = x([v for v, value in zip(each.x, each.y, strict=True) if value is not None][-1])
        parts.append(f'<path class="c{each.look % LOOKS} leader" d="M{end + 4:.1f},{y(last):.1f}L{right + 12:.1f},{where:.1f}"/>')
        parts.append(mark(each.look, right + 17, where))
        parts.append(_text(right + 24, where + 4, each.label or each.name, css="name", title=f"{each.name}: {last:.2f} at the end"))
    return _svg(height, f"{y_title} over time", parts)


def frontier(points: Sequence[Point], x_title: str, y_title: str) -> str:
    """Return quality against cost on a logarithmic axis; the line joins those that nothing beats in both (the Pareto front)."""
    if not points:
        return ""
    height, right = max(320, 16 * len(points) + 100), WIDTH - 12
    x = _Scale([math.log10(each.x) for each in points], LEFT, right, pad=0.12)
    y = _Scale([v for each in points for v in (each.y, each.low, each.high) if v is not None], height - 44, 12, pad=0.1)
    decades = _decades(x.low, x.high)
    parts = [_y_axis(y, LEFT, right, y_title), _x_axis(x, height - 44, x_title, decades, names=[_seconds(10**power) for power in decades])]
    front = pareto(points)
    corners = [(x(math.log10(each.x)), y(each.y)) for each in front]
    path = "".join(f"{'L' if n else 'M'}{cx:.1f},{corners[n - 1][1] if n else cy:.1f}V{cy:.1f}" for n, (cx, cy) in enumerate(corners))
    parts.append(f'<path class="front" d="{path}H{right}"/>')
    taken = [(x(math.log10(each.x)) - 6, y(each.y) - 6, x(math.log10(each.x)) + 6, y(each.y) + 6) for each in points]
    for (cx, cy), (after, above) in pairwise([*corners, (float(right), corners[-1][1])]):
        taken += [(cx, cy - 2, after, cy + 2), (after - 2, above, after + 2, cy)]
    for each in sorted(points, key=lambda point: -point.y):
        cx, cy, label = x(math.log10(each.x)), y(each.y), each.label or each.name
        parts.append(f'<g class="series">{_whisker(each, cx, y)}{_titled(each, cx, cy, f"{_seconds(each.x)}, {each.y:.2f}", 5)}')
        place, box = _free(cx, cy, (8.0 if each in front else 7.0) * len(label), taken, (LEFT + 2, 8, right, height - 48))
        taken.append(box)
        if abs(place[1] - 4 - cy) > 16:
            parts.append(f'<path class="leader" d="M{cx:.1f},{cy:.1f}L{min(max(cx, box[0]), box[2]):.1f},{place[1] - 4:.1f}"/>')
        anchor = "end" if box[2] < cx else "start" if box[0] > cx else "middle"
        parts.append(_text(*place, label, anchor, weight="600" if each in front else "", title=each.name) + "</g>")
    return _svg(height, f"{y_title} against {x_title}", parts)


def _decades(low: float, high: float) -> list[float]:
    """Return the powers of ten between two logarithms, or with few of them also two and five times each, or else the middle."""
    wide = high - low >= 2
    powers = range(math.floor(low), math.ceil(high) + 1)
    found = [power + math.log10(factor) for power in powers for factor in ((1,) if wide else (1, 2, 5))]
    return [at for at in found if low <= at <= high] or [(low + high) / 2]


def pareto(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats, cheapest first: none is as cheap and better, or as good and cheaper."""
    front: list[Point] = []
    for each in sorted(points, key=lambda point: (point.x, -point.y)):
        if not front or each.y > front[-1].y:
            front.append(each)
    return front


def heat(matrix: Sequence[Sequence[Maybe]], names: Sequence[str], ends: tuple[float, float]) -> str:
    """Return the quality of each release (row) on each window (column); `ends` of the colours, the same for all methods."""
    if not any(value is not None for row in matrix for value in row):
        return ""
    size = min(46.0, (WIDTH - 64) / max(1, len(matrix)))
    left, top = 52.0, 8.0
    height = round(top + size * len(matrix) + 84)
    parts, live = [], []
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            box = f'x="{left + j * size:.1f}" y="{top + i * size:.1f}" width="{size - 1:.1f}" height="{size - 1:.1f}"'
            said = "not asked" if value is None else f"{value:.2f} %"
            about = f"<title>release before window {escape(names[i])}, asked window {escape(names[j])}: {said}</title>"
            if value is None:
                parts.append(f'<rect class="hole" {box}>{about}</rect>')
                continue
            fill, ink = _colour(value, ends)
            parts.append(f'<rect {box} fill="{fill}">{about}</rect>')
            if i == j:
                live.append(f'<rect class="live" {box}/>')
            if size >= 24:
                where = f'x="{left + (j + 0.5) * size - 0.5:.1f}" y="{top + (i + 0.5) * size + 3.5:.1f}"'
                parts.append(f'<text {where} class="cell" style="fill:{ink}">{value:.{1 if size >= 30 else 0}f}</text>')
    parts += live  # above its neighbours
    every = math.ceil(len(names) * 14 / (WIDTH - 64)) if size < 14 else 1 if max(map(len, names)) * 7 < size else 2
    for number in range(0, len(names), every):
        middle = (number + 0.5) * size
        parts.append(_text(left - 5, top + middle + 4, names[number], anchor="end", css="tick"))
        parts.append(_text(left + middle, top + size * len(matrix) + 14, names[number], anchor="middle", css="tick"))
    below = top + size * len(matrix)
    parts.append(_text(left + size * len(matrix) / 2, below + 32, "window it was asked", anchor="middle", css="axis"))
    side = f'transform="translate(14 {top + size * len(matrix) / 2:.0f}) rotate(-90)"'
    parts.append(f'<text class="axis" text-anchor="middle" {side}>release, by the window it went live for</text>')
    for step in range(40):
        value = ends[0] + (ends[1] - ends[0]) * step / 39
        parts.append(f'<rect x="{left + 60 + 4 * step}" y="{below + 50:.0f}" width="4.3" height="10" fill="{_colour(value, ends)[0]}"/>')
    parts.append(_text(left + 54, below + 59, f"{ends[0]:.1f} %", anchor="end", css="tick"))
    parts.append(_text(left + 226, below + 59, f"{ends[1]:.1f} %", css="tick"))
    return _svg(height, "quality of each release on each window", parts)


def dots(rows: Sequence[Row], x_title: str, most: int, around_zero: bool = False) -> str:
    """Return a dot plot: a row for each part, its points one below the other.

    most: points of a row that get room, so that plots side by side have rows of one height; around_zero: a line at 0, for differences.
    """
    if not any(row.points for row in rows):
        return ""
    pitch = [max(26, 9 * most + 8)] * len(rows)
    height, left, right = sum(pitch) + 56, 118, WIDTH - 14
    values = [v for row in rows for each in row.points for v in (each.y, each.low, each.high) if v is not None]
    x = _Scale([*values, 0.0], left, right)
    parts, top = [_x_axis(x, height - 44, x_title, ticks(x.low, x.high), grid=8)], 10.0
    if around_zero:
        parts.append(f'<path class="zero" d="M{x(0):.1f},8V{height - 44}"/>')
    for row, size in zip(rows, pitch, strict=True):
        middle = top + size / 2
        parts.append(f'<path class="grid" d="M{left},{top + size:.1f}H{right}"/>')
        parts.append(_text(left - 8, middle - 1, short(row.label, 17), anchor="end", title=row.label))
        parts.append(_text(left - 8, middle + 10, row.remark, anchor="end", css="small"))
        for n, each in enumerate(row.points):
            cy = middle + 9 * (n - (len(row.points) - 1) / 2)
            bar = f'<path class="c{each.look % LOOKS} whisker" d="M{x(each.low):.1f},{cy:.1f}H{x(each.high):.1f}"/>' if _has(each) else ""
            parts.append(
                f'<g class="series">{bar}{_titled(each, x(each.y), cy, f"{row.label}: {each.y:+.2f}" if around_zero else "", 4)}</g>'
            )
        top += size
    return _svg(height, x_title, parts)


def legend(names: Sequence[tuple[str, int]]) -> str:
    """Return the names of methods (name, look) with their marks, as HTML."""
    keys = (
        f'<span><svg width="14" height="14" aria-hidden="true">{mark(look, 7, 7, 4.5)}</svg>{escape(name)}</span>' for name, look in names
    )
    return f'<p class="legend">{"".join(keys)}</p>'


class _Scale:
    """Numbers -> places, with some air at both ends; one number alone stands in the middle."""

    def __init__(self, values: Sequence[float], begin: float, end: float, pad: float = 0.05):
        low, high = min(values), max(values)
        air = (high - low) * pad if high > low else max(abs(low) * 0.1, 0.5)
        self.low, self.high, self.begin, self.end = low - air, high + air, begin, end

    def __call__(self, value: Maybe) -> float:
        return self.begin + ((value or 0.0) - self.low) / (self.high - self.low) * (self.end - self.begin)


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">\n{body}\n</svg>'


def _text(x: float, y: float, text: str, anchor: str = "start", css: str = "label", weight: str = "", title: str = "") -> str:
    about = f"<title>{escape(title)}</title>" if title else ""
    bold = f' font-weight="{weight}"' if weight else ""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{bold}>{escape(text)}{about}</text>'


def _y_axis(y: _Scale, left: float, right: float, title: str) -> str:
    parts = []
    at = ticks(y.low, y.high)
    for value in at:
        parts.append(f'<path class="grid" d="M{left},{y(value):.1f}H{right:.1f}"/>')
        parts.append(_text(left - 5, y(value) + 4, _plain(value, at), anchor="end", css="tick"))
    parts.append(
        f'<text class="axis" text-anchor="middle" transform="translate(9 {(y.begin + y.end) / 2:.0f}) rotate(-90)">{escape(title)}</text>'
    )
    return "\n".join(parts)


def _x_axis(
    x: _Scale, bottom: float, title: str, at: Sequence[float], names: Sequence[str] = (), whole: bool = False, grid: float | None = None
) -> str:
    at = [value for value in at if not whole or value == round(value)]
    parts = [] if grid is not None else [f'<path class="base" d="M{x.begin:.1f},{bottom:.1f}H{x.end:.1f}"/>']
    for number, value in enumerate(at):
        top = bottom if grid is None else grid
        parts.append(f'<path class="grid" d="M{x(value):.1f},{top:.1f}V{bottom + 4:.1f}"/>')
        parts.append(_text(x(value), bottom + 17, names[number] if names else _plain(value, at), anchor="middle", css="tick"))
    parts.append(_text((x.begin + x.end) / 2, bottom + 36, title, anchor="middle", css="axis"))
    return "\n".join(parts)


def _plain(value: float, among: Sequence[float]) -> str:
    step = among[1] - among[0] if len(among) > 1 else 1
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def _seconds(seconds: float) -> str:
    if seconds < 0.0995:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _last(series: Series) -> Maybe:
    return next((value for value in reversed(series.y) if value is not None), None)


def _course(series: Series, x: _Scale, y: _Scale) -> str:
    path, pen = [], "M"
    for at, value in zip(series.x, series.y, strict=True):
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{x(at):.1f},{y(value):.1f}")
        pen = "L"
    small = 2.6 if len(series.x) > 12 else 3.4
    marks = (
        f"<g>{mark(series.look, x(at), y(value), small)}<title>{escape(series.name)}, window {at:g}: {value:.2f}</title></g>"
        for at, value in zip(series.x, series.y, strict=True)
        if value is not None
    )
    return f'<path class="c{series.look % LOOKS} line" d="{"".join(path)}"/>{"".join(marks)}'


def _band(series: Series, x: _Scale, y: _Scale) -> str:
    """Return the interval as a band, or as a whisker where a point has no neighbour."""
    known = [
        (x(at), low, high) for at, low, high in zip(series.x, series.low, series.high, strict=False) if low is not None and high is not None
    ]
    if not known:
        return ""
    if len(known) == 1:
        at, low, high = known[0]
        return f'<path class="c{series.look % LOOKS} whisker" d="M{at:.1f},{y(low):.1f}V{y(high):.1f}"/>'
    there = [f"{at:.1f},{y(high):.1f}" for at, _, high in known]
    back = [f"{at:.1f},{y(low):.1f}" for at, low, _ in reversed(known)]
    return f'<path class="c{series.look % LOOKS} band" d="M{"L".join(there + back)}Z"/>'


def _has(point: Point) -> bool:
    return point.low is not None and point.high is not None


def _whisker(point: Point, at: float, y: _Scale) -> str:
    if not _has(point):
        return ""
    return f'<path class="c{point.look % LOOKS} whisker" d="M{at:.1f},{y(point.low):.1f}V{y(point.high):.1f}"/>'


def _titled(point: Point, cx: float, cy: float, said: str, size: float) -> str:
    interval = f" [{point.low:.2f}, {point.high:.2f}]" if _has(point) else ""
    about = f"{point.name}: {said or f'{point.y:.2f}'}{interval}"
    return f"<g>{mark(point.look, cx, cy, size)}<title>{escape(about)}</title></g>"


def _spread(wanted: Sequence[float], gap: float, top: float, bottom: float) -> list[float]:
    """Return places near the wanted ones that are a gap apart, in the same order, between top and bottom where they fit."""
    order = sorted(range(len(wanted)), key=lambda n: wanted[n])
    gap = min(gap, (bottom - top) / max(1, len(wanted) - 1))
    places = [wanted[n] for n in order]
    floor = top
    for n, place in enumerate(places):
        places[n] = floor = max(place, floor)
        floor += gap
    ceiling = bottom
    for n in reversed(range(len(places))):
        places[n] = ceiling = min(places[n], ceiling)
        ceiling -= gap
    found = [0.0] * len(wanted)
    for n, place in zip(order, places, strict=True):
        found[n] = place
    return found


Box = tuple[float, float, float, float]


def _free(cx: float, cy: float, width: float, taken: Sequence[Box], frame: Box) -> tuple[tuple[float, float], Box]:
    """Return where a label of a point stands (the end next to it, or the middle) and its box: the nearest place that overlaps least."""
    best: tuple[float, tuple[float, float], Box] | None = None
    for away in range(0, 120, 4):
        if best is not None and best[0] <= away:
            break
        for dy in (away, -away) if away else (0,):
            for left in (cx + 9, cx - 9 - width, cx - width / 2):
                if left == cx - width / 2 and abs(dy) < 14:
                    continue
                box = (left, cy + dy - 7, left + width, cy + dy + 7)
                outside = (
                    max(0.0, frame[0] - box[0]) + max(0.0, box[2] - frame[2]) + max(0.0, frame[1] - box[1]) + max(0.0, box[3] - frame[3])
                )
                cost = abs(dy) + 60 * outside + 3 * sum(_overlap(box, other) for other in taken)
                if best is None or cost < best[0]:
                    stands = box[2] if box[2] < cx else left if left > cx else cx
                    best = (cost, (stands, cy + dy + 4), box)
    assert best is not None
    return best[1], best[2]


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


_CIVIDIS = [(0, 34, 78), (53, 69, 108), (102, 105, 112), (148, 142, 119), (200, 184, 102), (254, 232, 56)]
"""Legible with any kind of colour blindness, and in grey (Nuñez, Anderton & Renslow 2018)."""


def _colour(value: float, ends: tuple[float, float]) -> tuple[str, str]:
    """Return the fill of a cell and the ink that stands out from it."""
    part = (value - ends[0]) / (ends[1] - ends[0]) if ends[1] > ends[0] else 0.5
    step = min(max(part, 0.0), 1.0) * (len(_CIVIDIS) - 1)
    n = min(int(step), len(_CIVIDIS) - 2)
    red, green, blue = (round(a + (b - a) * (step - n)) for a, b in zip(_CIVIDIS[n], _CIVIDIS[n + 1], strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}", "#000" if 0.299 * red + 0.587 * green + 0.114 * blue > 115 else "#fff"
