"""One self-contained HTML page that tells what a replay found: a sentence, pictures, tables, and how to get it again."""

import json
import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from eval import page, pictures
from eval.pictures import Maybe, Point, Row, Series
from eval.replay import SAMPLED
from recsys.errors import BadInput
from recsys.files import write_atomically

ONLY_INLINE = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""The browser itself refuses to fetch anything for the page."""

FOCUS = 0.6
"""A picture that compares methods leaves out those with less than this part of the best quality, and says which."""

FEW = 6
"""Methods in a picture of slices, and methods with a band where there are more than `MANY` lines."""

MANY = 10

SHARES = ("recall", "ndcg", "mrr", "hit_rate", "map", "coverage")
"""Figures that are shares and stand in per cent."""

UNITS = {"gini": "0–1", "novelty": "bits", "diversity": "0–1"}

LISTS = (
    "mean over the windows. Coverage: share of the catalogue that stood in a list. Gini: 0 = all items shown alike, 1 = always one. "
    "Novelty: bits, more = rarer items. Diversity: 0 = all the same, 1 = nothing in common."
)

COSTS = {
    "seconds_learn": ("learning", "s, all windows"),
    "seconds_learn_last": ("last update", "s"),
    "seconds_answer": ("answering", "CPU s, all windows"),
    "examples": ("examples seen", "all windows"),
    "peak_mb": ("peak memory", "MB"),
    "release_bytes": ("release", "MB"),
    "index_loss": ("index loss", "points"),
    "stale_loss": ("stale loss", "points"),
}
"""Cost columns: heading and unit."""

NO_MATRIX = "<p>No method was asked about earlier and later windows, so there is nothing to say about forgetting.</p>"

GROUPS = {
    "item": "By item: never learned before the window (unseen), first met in the window before (new), older",
    "user": "By person: unknown before the window began (new), or known",
    "target": "By target: met before by the same person (repeat), or not",
    "history": "By length of history: known events of the person before the question",
    "popularity": "By popularity: tenths of the learned items by events before, 1 = most popular; equals share one, so some are empty",
}

PARTS = {"item": "{} items", "user": "{} people", "target": "{}", "history": "{} before", "popularity": "tenth {}"}


def write(results: dict[str, Any], path: Path) -> None:
    """Write the results of `recsys evaluate` (its JSON, shares as fractions) as one HTML file that needs nothing else.

    What is missing or null is said in words; BadInput where there is no method at all.
    """
    write_atomically(path, html(results))


def html(results: dict[str, Any]) -> str:
    """Return the page; the same results give the same page."""
    facts = Facts(results)
    sections = [_headline, _over_time, _frontier, _forgetting, _slices, _tables, _how_to_read, _reproduce]
    title = f"{facts.protocol} evaluation: {len(facts.names)} methods, {len(facts.windows)} windows"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{ONLY_INLINE}">',
            f"<title>{escape(title)}</title><style>{page.STYLE}</style></head><body>",
            *(section(facts) for section in sections),
            f"<script>{page.SCRIPT}</script></body></html>\n",
        ]
    )


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
            dict.fromkeys(figure for name in self.methods for part in ("macro", "micro") for figure in _of(self.methods[name], part))
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
        return number(_of(self.methods[name], "macro").get(figure or self.main))

    def interval(self, name: str, figure: str | None = None) -> dict[str, Any]:
        """Return value, low, high, difference, ... of a method, or nothing."""
        return _of(_of(self.methods[name], "intervals"), figure or self.main)

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


def _of(found: dict[str, Any], key: str) -> dict[str, Any]:
    value = found.get(key)
    return value if isinstance(value, dict) else {}


def _percent(value: Any) -> Maybe:
    known = number(value)
    return None if known is None else 100 * known


def _headline(facts: Facts) -> str:
    queries = sum(int(number(window.get("targets")) or 0) for window in facts.windows)
    when = [str(window["begin"])[:10] for window in facts.windows if window.get("begin")]
    period = f", beginning {when[0]} to {when[-1]}" if when and facts.protocol != "ader" else ""
    counts = _count(len(facts.windows), "window") + period, f"{queries:,} targets", _count(len(facts.names), "method")
    about = " · ".join((f"{facts.protocol} protocol", *counts))
    best = facts.names[0]
    said = [_best(facts, best), _cost(facts, best)]
    paragraphs = "".join(f"<p>{sentence}</p>" for sentence in said if sentence)
    return f'<h1>What the replay found</h1><p class="soft">{escape(about)}</p><div class="headline" id="headline">{paragraphs}</div>'


def _best(facts: Facts, best: str) -> str:
    value, interval = facts.macro(best), facts.interval(best)
    if value is None:
        return f"No method has a {escape(facts.main)}, so none can be called the best."
    level = f"{escape(facts.main)} {100 * value:.2f} %{_ends(interval, 'low', 'high')}"
    if len(facts.names) == 1:
        return f"<b>{_breakable(best)}</b> reaches {level}; it is the only method, so there is nothing to compare it with."
    said = f"<b>{_breakable(best)}</b> is best with {level}"
    if best == facts.baseline:
        return f"{said}: none of the other methods is ahead of this baseline. {_runner_up(facts)}"
    base = facts.macro(facts.baseline) if facts.baseline in facts.methods else None
    gap = number(interval.get("difference"))
    if gap is None and base is not None:
        gap = value - base
    if gap is None:
        return f"{said}. There is no baseline with a number to compare it with."
    relative = f", {100 * abs(gap) / base:.1f} % {'more' if gap > 0 else 'less'}" if base else ""
    ends = _ends(interval, "difference_low", "difference_high", "+")
    said += f": {100 * gap:+.2f} points{ends} against {escape(facts.compared)}{relative}."
    return f"{said} {_certainty(interval)} {_runner_up(facts)}"


def _certainty(interval: dict[str, Any]) -> str:
    low, high = number(interval.get("difference_low")), number(interval.get("difference_high"))
    if low is None or high is None:
        return "There is no interval for the difference, so it may be chance."
    return "The interval leaves out zero." if low > 0 or high < 0 else "The interval includes zero: this may be chance."


def _runner_up(facts: Facts) -> str:
    second = facts.names[1]
    value, first = facts.macro(second), facts.macro(facts.names[0])
    if value is None or first is None:
        return ""
    said = f"Next comes {escape(second)} with {100 * value:.2f} %, {100 * (first - value):.2f} points behind"
    if facts.names[0] != facts.baseline:
        return f"{said}."
    interval = facts.interval(second)  # of the second against the first
    ends = _ends(interval, "difference_low", "difference_high", "+")
    return f"{said}{f', the difference{ends}' if ends else ''}. {_certainty(interval)}"


def _cost(facts: Facts, best: str) -> str:
    cost, seconds = _of(facts.methods[best], "cost"), facts.seconds(best)
    parts = []
    if seconds is not None:
        parts.append(f"{_time(seconds)} for an update on average")
    if (total := number(cost.get("seconds_learn"))) is not None:
        parts.append(f"{_time(total)} to learn all windows")
    if (peak := number(cost.get("peak_mb"))) is not None:
        parts.append(f"{peak:,.0f} MB at most for the whole process, in which the other methods are too")
    if (release := number(cost.get("release_bytes"))) is not None:
        parts.append(f"{release / 1e6:,.1f} MB a release" if release >= 1e6 else f"{release / 1e3:,.1f} kB a release")
    if not parts:
        return "What it costs was not measured."
    said = f"It costs {', '.join(parts)}."
    other = "retrain" if "retrain" in facts.methods and best != "retrain" else facts.baseline
    against = facts.seconds(other) if other in facts.methods and other != best else None
    if seconds and against:
        said += f" An update takes {_ratio(seconds / against)} as long as that of {escape(str(other))} ({_time(against)})."
    return said


def _over_time(facts: Facts) -> str:
    figures = [figure for figure in (facts.main, facts.second) if figure]
    return _section(
        "over-time",
        "Quality over time",
        '<div class="pair">',
        *(_course(facts, figure) for figure in figures),
        "</div>",
        _course_table(facts),
    )


def _course(facts: Facts, figure: str) -> str:
    near, far = facts.in_focus(figure)
    banded = near if len(near) <= MANY else facts.few(near)
    series = []
    for name in near:
        rows = facts.rows(name)
        ends = (_of(facts.methods[name], "window_intervals").get(figure) or []) if name in banded else []
        pairs = [pair if isinstance(pair, (list, tuple)) and len(pair) == 2 else (None, None) for pair in ends][: len(rows)]
        pairs += [(None, None)] * (len(rows) - len(pairs))
        x = [number(row.get("window")) or float(place) for place, row in enumerate(rows)]
        low, high = ([_percent(pair[end]) for pair in pairs] for end in (0, 1))
        series.append(Series(name, facts.look[name], x, [_percent(row.get(figure)) for row in rows], low, high, facts.label[name]))
    drawing = pictures.lines(series, _window_axis(facts), f"{figure}, %")
    said = "" if banded == near else f", for {len(banded)} methods only, the best and the baseline, to keep the lines visible"
    caption = f"The {figure} in each window, before it is learned. The bands are 95\u00a0% intervals{said}." + _left_out(facts, far, figure)
    return _figure(f"{figure} by window", drawing, caption, f"No window of any method has a {figure}, so there is no course to draw.")


def _course_table(facts: Facts) -> str:
    shown = [number(row.get("window")) for row in (max((facts.rows(name) for name in facts.names), key=len, default=[]))]
    if not shown:
        return ""
    by = {name: {number(row.get("window")): row.get(facts.main) for row in facts.rows(name)} for name in facts.names}
    heads = ["method", *(f"{window:g}" if window is not None else "?" for window in shown)]
    rows = [(name, [_cell(by[name].get(window), _percent_text) for window in shown]) for name in facts.names]
    table = _table(facts, "by-window", f"{facts.main} in %, by window", heads, rows)
    return f"<details><summary>the same numbers as a table</summary>{table}</details>"


def _frontier(facts: Facts) -> str:
    update = "An update is one lesson after the first fit. "
    both = [
        _against(facts, "an update", "the time of an update", {name: facts.seconds(name) for name in facts.names}, update),
        _against(
            facts,
            "learning everything",
            "all time spent learning",
            {n: number(_of(facts.methods[n], "cost").get("seconds_learn")) for n in facts.names},
        ),
    ]
    about = (
        "Up and to the left is better. The dashed line joins the methods (in bold) that no other drawn here beats in both "
        "quality and time, the Pareto front. Whiskers are 95\u00a0% intervals; what took less than 1 ms stands at 1 ms."
    )
    return _section("frontier", "Quality against cost", f"<p>{about}</p>", '<div class="pair">', *both, "</div>")


def _against(facts: Facts, what: str, title: str, seconds: dict[str, Maybe], caption: str = "") -> str:
    near, far = facts.in_focus(facts.main)
    points = []
    for name in near:
        cost, value, interval = seconds[name], _percent(facts.macro(name)), facts.interval(name)
        if cost is not None and value is not None:
            ends = _percent(interval.get("low")), _percent(interval.get("high"))
            points.append(Point(name, facts.look[name], value, *ends, x=max(cost, 1e-3), label=facts.label[name]))
    if unknown := [name for name in near if seconds[name] is None]:
        caption += f"Without a measured time: {', '.join(unknown)}. "
    caption += _left_out(facts, far, facts.main)
    drawing = pictures.frontier(points, f"wall seconds for {what}, logarithmic", f"{facts.main}, %")
    missing = f"No method has both {title} and a {facts.main}, so quality cannot be set against it."
    return _figure(f"{facts.main} against {title}", drawing, caption.strip(), missing)


def _forgetting(facts: Facts) -> str:
    found = {name: facts.methods[name]["forgetting"] for name in facts.names if isinstance(facts.methods[name].get("forgetting"), dict)}
    matrices = {name: [[_percent(value) for value in row] for row in one.get("matrix") or []] for name, one in found.items()}
    known = [value for matrix in matrices.values() for row in matrix for value in row if value is not None]
    if not found:
        return _section(
            "forgetting",
            "What updates forget",
            NO_MATRIX,
        )
    ends = (min(known), max(known)) if known else (0.0, 1.0)
    figures = []
    for name, one in found.items():
        matrix = matrices[name]
        names = [str(window) for window in one.get("windows") or []]
        names = (names + [str(place) for place in range(len(names), len(matrix))])[: len(matrix)]
        drawing = pictures.heat([row[: len(matrix)] for row in matrix], names, ends)
        figures.append(
            _figure(
                f"{name}: {one.get('metric') or facts.main}", drawing, _lost(one), f"The matrix of {name} is empty, so nothing is drawn."
            )
        )
    about = (
        "Each row is a release, each column a window. The outlined diagonal is what users saw: the release that was live. "
        "Left of it are windows the release had learned, right of it windows still to come. Each window is asked by a fixed sample of "
        f"at most {SAMPLED:,} questions, so the figures differ a little from the table's. The colours mean the same in every picture."
    )
    return _section("forgetting", "What updates forget", f"<p>{about}</p>", '<div class="pair">', *figures, "</div>")


def _lost(found: dict[str, Any]) -> str:
    kept, back, ahead = (_percent(found.get(key)) for key in ("forgetting", "backward_transfer", "forward_transfer"))
    said = []
    if kept is not None:
        said.append(
            f"On windows already learned the last release is {abs(kept):.2f} points {'below' if kept >= 0 else 'above'} the best release "
            f"before it (forgetting {kept:+.2f})."
        )
    if back is not None:
        said.append(f"Later updates {'added' if back >= 0 else 'cost'} {abs(back):.2f} points on them (backward transfer {back:+.2f}).")
    if ahead is not None:
        said.append(
            f"On windows not learned yet, updating was {'worth' if ahead >= 0 else 'a loss of'} {abs(ahead):.2f} points against never "
            f"updating (forward transfer {ahead:+.2f})."
        )
    return " ".join(said) or "Too few releases for forgetting or transfer."


def _slices(facts: Facts) -> str:
    groups = list(dict.fromkeys(group for name in facts.names for group in _of(facts.methods[name], "slices")))
    if not groups:
        return _section(
            "slices", "Where it is good", "<p>The results hold no slices, so quality is known for everything together only.</p>"
        )
    chosen = facts.few(facts.names)
    others = len(facts.names) - len(chosen)
    about = (
        f"First {facts.main} within each slice, then the difference from {facts.compared} on the same questions, with 95\u00a0% intervals."
    )
    if others:
        about += f" Drawn are {len(chosen)} methods, the best and the baseline; all {len(facts.names)} stand in the tables."
    return _section(
        "slices", "Where it is good", f"<p>{escape(about)}</p>", facts.legend(chosen), *(_slice(facts, group, chosen) for group in groups)
    )


def _slice(facts: Facts, group: str, chosen: Sequence[str]) -> str:
    by = {name: _of(_of(facts.methods[name], "slices"), group) for name in facts.names}
    parts = list(dict.fromkeys(part for name in facts.names for part in by[name]))
    targets = {part: max((int(number(_of(by[name], part).get("targets")) or 0) for name in facts.names), default=0) for part in parts}
    empty = [part for part in parts if not targets[part]]
    level, ahead = [], []
    for part in (part for part in parts if targets[part]):
        label = _part(group, part)
        rows = Row(label, f"{targets[part]:,} targets"), Row(label, f"{targets[part]:,} targets")
        for name in chosen:
            found = _of(by[name], part)
            value = _percent(found.get(facts.main))
            gap = (_of(found, "difference").get(facts.main) or [None] * 3)[:3]
            gaps = [_percent(value) for value in gap]
            if value is not None:
                rows[0].points.append(Point(name, facts.look[name], value))
            if name != facts.baseline and len(gaps) == 3 and gaps[0] is not None:
                rows[1].points.append(Point(name, facts.look[name], gaps[0], gaps[1], gaps[2]))
        level.append(rows[0])
        ahead.append(rows[1])
    left = _figure(
        "", pictures.dots(level, f"{facts.main}, %", len(chosen)), "", f"No method has a {facts.main} here, so there is nothing to draw."
    )
    right_title = f"{facts.main} minus that of {pictures.short(facts.compared)}, points"
    right = _figure(
        "", pictures.dots(ahead, right_title, len(chosen), around_zero=True), "", "There are no differences from a baseline here."
    )
    heads = ["method", *(f"{part}|{targets[part]:,} targets" for part in parts)]
    lines = [(name, [_slice_cell(_of(by[name], part), facts.main) for part in parts]) for name in facts.names]
    table = _table(facts, f"slice-{group}", f"{facts.main} in %, under it the difference in points with its interval", heads, lines)
    nobody = f'<p class="soft">Nothing was wanted of: {escape(", ".join(_part(group, part) for part in empty))}.</p>' if empty else ""
    details = f"<details><summary>as a table, with every method</summary>{table}</details>"
    return f'<h3>{escape(GROUPS.get(group, f"By {group}"))}</h3><div class="pair">{left}{right}</div>{nobody}{details}'


def _part(group: str, part: str) -> str:
    return "never learned" if part in ("none", "unseen") else PARTS.get(group, "{}").format(part)


def _slice_cell(found: dict[str, Any], figure: str) -> str:
    gap = [_percent(value) for value in (_of(found, "difference").get(figure) or [])]
    under = ""
    if len(gap) == 3 and gap[0] is not None:
        under = f"{gap[0]:+.2f}" + (f" [{gap[1]:+.2f}, {gap[2]:+.2f}]" if gap[1] is not None and gap[2] is not None else "")
    return _cell(found.get(figure), _percent_text, under=under)


def _tables(facts: Facts) -> str:
    quality = [_quality_table(facts, "macro"), _quality_table(facts, "micro")]
    return _section(
        "tables",
        "All numbers",
        "<p>Click a heading to sort. The best of each column is green. Under a macro figure stand its 95\u00a0% interval and, after Δ, the "
        f"paired difference from {escape(facts.compared)} in points with its interval.</p>",
        *quality,
        _list_table(facts),
        _cost_table(facts),
        _seed_table(facts),
    )


def _quality_table(facts: Facts, average: str) -> str:
    said = {"macro": "each window counts the same", "micro": "each query counts the same"}[average]
    if not facts.quality:
        return f"<p>There are no {average} figures.</p>"
    best = {
        figure: max(_known(_of(facts.methods[name], average).get(figure) for name in facts.names), default=None) for figure in facts.quality
    }
    rows = []
    for name in facts.names:
        values = _of(facts.methods[name], average)
        cells = []
        for figure in facts.quality:
            under = _under(facts.interval(name, figure)) if average == "macro" else ""
            cells.append(_cell(values.get(figure), _percent_text, under, best=number(values.get(figure)) == best[figure]))
        rows.append((name, cells))
    return f"<h3>Quality, {average}</h3>" + _table(facts, average, f"in %; {said}", ["method", *facts.quality], rows)


def _under(interval: dict[str, Any]) -> str:
    return "\n".join(
        line
        for line in (
            _ends(interval, "low", "high").strip(),
            f"Δ {_percent_text(number(interval.get('difference')), '+')}{_ends(interval, 'difference_low', 'difference_high', '+')}"
            if number(interval.get("difference")) is not None
            else "",
        )
        if line
    )


def _list_table(facts: Facts) -> str:
    if not facts.lists:
        return "<p>The results hold no figures about the lists themselves (coverage, concentration, novelty, diversity).</p>"
    rows = [(name, [_cell(facts.macro(name, figure), _text_of(figure)) for figure in facts.lists]) for name in facts.names]
    heads = ["method", *(f"{figure}|{_unit(figure)}" for figure in facts.lists)]
    return "<h3>What the lists are like</h3>" + _table(facts, "lists", LISTS, heads, rows)


def _cost_table(facts: Facts) -> str:
    costs = {name: _of(facts.methods[name], "cost") for name in facts.names}
    keys = [key for key in COSTS if any(number(costs[name].get(key)) is not None for name in facts.names)]
    if not keys:
        return "<h3>Cost</h3><p>No cost was measured.</p>"
    rows = [
        (name, [_cell(facts.seconds(name), _digits), *(_cell(costs[name].get(key), _cost_text(key)) for key in keys)])
        for name in facts.names
    ]
    heads = ["method", "an update|s, mean", *("|".join(COSTS[key]) for key in keys)]
    about = "MB are 10^6 bytes; peak memory is that of the whole process while it learned. – where a cost does not apply."
    return "<h3>Cost</h3>" + _table(facts, "cost", about, heads, rows)


def _seed_table(facts: Facts) -> str:
    by = {name: [number(value) for value in _of(facts.methods[name], "seeds").get(facts.main) or []] for name in facts.names}
    most = max(map(len, by.values()), default=0)
    if most < 2:
        return ""
    rows = [(name, [_cell(value, _percent_text) for value in [*by[name], *[None] * (most - len(by[name]))]]) for name in facts.names]
    first = _of(_of(_of(facts.all, "settings"), "settings"), "training").get("seed") or 0
    heads = ["method", *(f"seed {first + seed}" for seed in range(most))]
    about = f"macro {facts.main} in %, by seed; – where a method knows no chance"
    return "<h3>Seed by seed</h3>" + _table(facts, "seeds", about, heads, rows)


def _how_to_read(facts: Facts) -> str:
    items = [
        "Every window is answered before anything of it is learned, against the full catalogue; ties count against the method.",
        "Intervals are 95\u00a0% percentile bootstrap intervals: whole people (or sessions, where nobody is signed in) are drawn again "
        "within each window. A difference is paired: both methods on the same questions and the same draws.",
        "The intervals tell how much another sample of people might change the numbers. They do not hold the chance of training (see the "
        "seeds), nor another period or data set; the windows are taken as they are.",
        "Many comparisons stand on one page: of methods that do not differ, about one interval in twenty would leave out zero by chance.",
        "An offline log shows what people did with what they were shown then. It favours what was shown, and says nothing certain of what "
        "they would have done with other lists.",
        "Wall times are those of one machine, and of what else ran on it; compare them within this page only.",
        "Coverage, Gini, novelty and diversity describe lists; more of them is not better by itself.",
    ]
    if _of(facts.all, "settings").get("filter_unseen") or facts.protocol == "ader":
        items.append(
            "Targets that no method could have learned were left out here, which makes every figure higher than for all that people wanted."
        )
    else:
        items.append("An item that was never learned counts as a miss wherever it was asked, so no method can reach 100 %.")
    return _section("how-to-read", "How to read this", "<ul>", *(f"<li>{escape(item)}</li>" for item in items), "</ul>")


def _reproduce(facts: Facts) -> str:
    found = facts.all
    pairs: list[tuple[str, Any]] = [(name, found.get(name)) for name in ("protocol", "baseline", "seeds", "started", "finished")]
    seconds = number(found.get("seconds"))
    pairs.append(("time in all", None if seconds is None else _time(seconds)))
    pairs.append(("machine", _listed(found.get("machine"))))
    pairs.append(("versions", _listed(found.get("versions"))))
    data = next((found[key] for key in ("data", "fingerprint", "data_fingerprint") if found.get(key)), None)
    data = data or _of(found, "settings").get("files")
    pairs.append(("data", _listed(data)))
    known = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value)) if value not in (None, '') else 'not recorded'}</dd>" for name, value in pairs
    )
    command = found.get("command")
    shell = f"<pre>{escape(str(command))}</pre>" if command else "<p>The command was not recorded.</p>"
    settings = escape(json.dumps(found.get("settings") or {}, indent=1, ensure_ascii=False, default=str))
    return _section(
        "reproduce",
        "To get it again",
        shell,
        f"<dl>{known}</dl>",
        f"<details><summary>all settings</summary><pre>{settings}</pre></details>",
        _window_table(facts),
    )


def _window_table(facts: Facts) -> str:
    if not facts.windows:
        return "<p>The results do not say what was asked in each window.</p>"
    columns = list(dict.fromkeys(key for window in facts.windows for key in window if key != "window"))
    heads = ["window", *columns]
    rows = [
        (str(window.get("window", place)), [_any_cell(window.get(key)) for key in columns]) for place, window in enumerate(facts.windows)
    ]
    return f"<details><summary>what was asked in each window</summary>{_table(facts, 'windows', 'counts', heads, rows)}</details>"


def _section(anchor: str, title: str, *parts: str) -> str:
    body = "\n".join(parts)
    return f'<section id="{anchor}"><h2>{escape(title)}</h2>\n{body}\n</section>'


def _figure(title: str, drawing: str, caption: str, missing: str) -> str:
    heading = f'<p class="figure-title">{escape(title)}</p>' if title else ""
    if not drawing:
        return f'<figure class="missing">{heading}<p>{escape(missing)}</p></figure>'
    return f"<figure>{heading}{drawing}" + (f"<figcaption>{escape(caption)}</figcaption>" if caption else "") + "</figure>"


def _table(facts: Facts, anchor: str, caption: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a sortable table; a heading may hold its unit behind a bar."""
    named = (head.split("|", 1) for head in heads)
    top = "".join(
        f'<th scope="col">{escape(parts[0])}{f"<small>{escape(parts[1])}</small>" if len(parts) > 1 else ""}</th>' for parts in named
    )
    body = "\n".join(
        f'<tr{" class=baseline" if name == facts.baseline else ""}><th scope="row">{_breakable(name)}</th>{"".join(cells)}</tr>'
        for name, cells in rows
    )
    return (
        f'<div class="scroll"><table class="sortable" id="table-{escape(anchor)}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _breakable(name: str) -> str:
    """Return a name that may go on in the next line behind a bracket, a comma or a plus."""
    return re.sub(r"([+,(_])", r"\1<wbr>", escape(name))


def _cell(value: Any, text: Any, under: str = "", best: bool = False) -> str:
    """Return a cell that shows a number rounded and carries it whole, as the JSON has it, for sorting and for whoever checks."""
    known = number(value)
    if known is None:
        return "<td>–</td>"
    lines = "".join(f"<small>{escape(line)}</small>" for line in under.split("\n") if line)
    return f'<td data-value="{known!r}"{" class=best" if best else ""}>{escape(text(known))}{lines}</td>'


def _any_cell(value: Any) -> str:
    if number(value) is not None:
        return _cell(value, lambda known: f"{known:,.0f}" if known == int(known) else f"{known:g}")
    return f"<td>{escape(str(value)) if value is not None else '–'}</td>"


def _known(values: Iterable[Any]) -> list[float]:
    return [known for value in values if (known := number(value)) is not None]


def _percent_text(value: Maybe, sign: str = "") -> str:
    return "–" if value is None else f"{100 * value:{sign}.2f}"


def _ends(interval: dict[str, Any], low: str, high: str, sign: str = "") -> str:
    ends = number(interval.get(low)), number(interval.get(high))
    return "" if None in ends else f" [{_percent_text(ends[0], sign)}, {_percent_text(ends[1], sign)}]"


def _text_of(figure: str) -> Any:
    return (lambda value: f"{100 * value:.1f}") if figure.split("@")[0] in SHARES else (lambda value: f"{value:.3f}")


def _unit(figure: str) -> str:
    name = figure.split("@")[0]
    return "%" if name in SHARES else next((unit for word, unit in UNITS.items() if word in name), "")


def _cost_text(key: str) -> Any:
    if key == "release_bytes":
        return lambda value: f"{value / 1e6:,.2f}"
    if key.endswith("_loss"):
        return lambda value: f"{100 * value:+.2f}"
    return (lambda value: f"{value:,.0f}") if key in ("examples", "peak_mb") else _digits


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _time(seconds: float) -> str:
    if seconds < 0.1:
        return f"{1000 * seconds:.1f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _ratio(ratio: float) -> str:
    return f"{100 * ratio:.0f} %" if ratio < 2 else f"{ratio:.1f} times" if ratio < 10 else f"{ratio:,.0f} times"


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" if n == 1 else f"{n} {thing}s"


def _window_axis(facts: Facts) -> str:
    begins = [str(window["begin"])[:10] for window in facts.windows if window.get("begin")]
    return f"window, beginning {begins[0]} to {begins[-1]}" if begins and facts.protocol != "ader" else "window"


def _left_out(facts: Facts, names: Sequence[str], figure: str) -> str:
    if not names:
        return ""
    values = (
        f"{name} ({_percent_text(facts.macro(name, figure))}{' %' if facts.macro(name, figure) is not None else ''})" for name in names
    )
    return f" Too far below to share the picture: {', '.join(values)}."


def _listed(found: Any) -> str | None:
    if isinstance(found, dict):
        return ", ".join(f"{name} {value if value is not None else 'not installed'}" for name, value in found.items()) or None
    if isinstance(found, list):
        return "; ".join(map(str, found)) or None
    return None if found is None else str(found)
