"""Quality over time, and quality against cost."""

from eval import pictures
from eval.pictures import Maybe, Point, Series
from eval.report.blocks import cell, framed, section, sortable
from eval.report.facts import Facts, number, part_of, percent
from eval.report.words import left_out, percent_text, window_axis

MANY = 10


def over_time(facts: Facts) -> str:
    """Draw quality by window."""
    figures = [figure for figure in (facts.main, facts.second) if figure]
    return section(
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
        ends = (part_of(facts.methods[name], "window_intervals").get(figure) or []) if name in banded else []
        pairs = [pair if isinstance(pair, (list, tuple)) and len(pair) == 2 else (None, None) for pair in ends][: len(rows)]
        pairs += [(None, None)] * (len(rows) - len(pairs))
        x = [number(row.get("window")) or float(place) for place, row in enumerate(rows)]
        low, high = ([percent(pair[end]) for pair in pairs] for end in (0, 1))
        series.append(Series(name, facts.look[name], x, [percent(row.get(figure)) for row in rows], low, high, facts.label[name]))
    drawing = pictures.lines(series, window_axis(facts), f"{figure}, %")
    said = "" if banded == near else f", for {len(banded)} methods only, the best and the baseline, to keep the lines visible"
    caption = f"The {figure} in each window, before it is learned. The bands are 95\u00a0% intervals{said}." + left_out(facts, far, figure)
    return framed(f"{figure} by window", drawing, caption, f"No window of any method has a {figure}, so there is no course to draw.")


def _course_table(facts: Facts) -> str:
    shown = [number(row.get("window")) for row in (max((facts.rows(name) for name in facts.names), key=len, default=[]))]
    if not shown:
        return ""
    by = {name: {number(row.get("window")): row.get(facts.main) for row in facts.rows(name)} for name in facts.names}
    heads = ["method", *(f"{window:g}" if window is not None else "?" for window in shown)]
    rows = [(name, [cell(by[name].get(window), percent_text) for window in shown]) for name in facts.names]
    table = sortable(facts, "by-window", f"{facts.main} in %, by window", heads, rows)
    return f"<details><summary>the same numbers as a table</summary>{table}</details>"


def frontier(facts: Facts) -> str:
    """Draw quality against the time of an update, and against all time spent learning."""
    update = "An update is one lesson after the first fit. "
    both = [
        _against(facts, "an update", "the time of an update", {name: facts.seconds(name) for name in facts.names}, update),
        _against(
            facts,
            "learning everything",
            "all time spent learning",
            {n: number(part_of(facts.methods[n], "cost").get("seconds_learn")) for n in facts.names},
        ),
    ]
    about = (
        "Up and to the left is better. The dashed line joins the methods (in bold) that no other drawn here beats in both "
        "quality and time, the Pareto front. Whiskers are 95\u00a0% intervals; what took less than 1 ms stands at 1 ms."
    )
    return section("frontier", "Quality against cost", f"<p>{about}</p>", '<div class="pair">', *both, "</div>")


def _against(facts: Facts, what: str, title: str, seconds: dict[str, Maybe], caption: str = "") -> str:
    near, far = facts.in_focus(facts.main)
    points = []
    for name in near:
        cost, value, interval = seconds[name], percent(facts.macro(name)), facts.interval(name)
        if cost is not None and value is not None:
            ends = percent(interval.get("low")), percent(interval.get("high"))
            points.append(Point(name, facts.look[name], value, *ends, x=max(cost, 1e-3), label=facts.label[name]))
    if unknown := [name for name in near if seconds[name] is None]:
        caption += f"Without a measured time: {', '.join(unknown)}. "
    caption += left_out(facts, far, facts.main)
    drawing = pictures.frontier(points, f"wall seconds for {what}, logarithmic", f"{facts.main}, %")
    missing = f"No method has both {title} and a {facts.main}, so quality cannot be set against it."
    return framed(f"{facts.main} against {title}", drawing, caption.strip(), missing)
