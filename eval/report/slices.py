"""Where a method is good: new and old items and people, short and long histories."""

from collections.abc import Sequence
from html import escape
from typing import Any

from eval import pictures
from eval.pictures import Point, Row
from eval.report.blocks import cell, framed, section, sortable
from eval.report.facts import Facts, number, part_of, percent
from eval.report.words import percent_text

GROUPS = {
    "item": "By item: never learned before the window (unseen), first met in the window before (new), older",
    "user": "By person: unknown before the window began (new), or known",
    "target": "By target: met before by the same person (repeat), or not",
    "history": "By length of history: known events of the person before the question",
    "popularity": "By popularity: tenths of the learned items by events before, 1 = most popular; equals share one, so some are empty",
}

PARTS = {"item": "{} items", "user": "{} people", "target": "{}", "history": "{} before", "popularity": "tenth {}"}


def slices(facts: Facts) -> str:
    """Draw and tabulate each group of slices."""
    groups = list(dict.fromkeys(group for name in facts.names for group in part_of(facts.methods[name], "slices")))
    if not groups:
        return section("slices", "Where it is good", "<p>The results hold no slices, so quality is known for everything together only.</p>")
    chosen = facts.few(facts.names)
    others = len(facts.names) - len(chosen)
    about = (
        f"First {facts.main} within each slice, then the difference from {facts.compared} on the same questions, with 95\u00a0% intervals."
    )
    if others:
        about += f" Drawn are {len(chosen)} methods, the best and the baseline; all {len(facts.names)} stand in the tables."
    return section(
        "slices", "Where it is good", f"<p>{escape(about)}</p>", facts.legend(chosen), *(_slice(facts, group, chosen) for group in groups)
    )


def _slice(facts: Facts, group: str, chosen: Sequence[str]) -> str:
    by = {name: part_of(part_of(facts.methods[name], "slices"), group) for name in facts.names}
    parts = list(dict.fromkeys(part for name in facts.names for part in by[name]))
    targets = {part: max((int(number(part_of(by[name], part).get("targets")) or 0) for name in facts.names), default=0) for part in parts}
    empty = [part for part in parts if not targets[part]]
    level, ahead = [], []
    for part in (part for part in parts if targets[part]):
        label = _part(group, part)
        rows = Row(label, f"{targets[part]:,} targets"), Row(label, f"{targets[part]:,} targets")
        for name in chosen:
            found = part_of(by[name], part)
            value = percent(found.get(facts.main))
            gap = (part_of(found, "difference").get(facts.main) or [None] * 3)[:3]
            gaps = [percent(value) for value in gap]
            if value is not None:
                rows[0].points.append(Point(name, facts.look[name], value))
            if name != facts.baseline and len(gaps) == 3 and gaps[0] is not None:
                rows[1].points.append(Point(name, facts.look[name], gaps[0], gaps[1], gaps[2]))
        level.append(rows[0])
        ahead.append(rows[1])
    left = framed(
        "", pictures.dots(level, f"{facts.main}, %", len(chosen)), "", f"No method has a {facts.main} here, so there is nothing to draw."
    )
    right_title = f"{facts.main} minus that of {pictures.short(facts.compared)}, points"
    right = framed(
        "", pictures.dots(ahead, right_title, len(chosen), around_zero=True), "", "There are no differences from a baseline here."
    )
    heads = ["method", *(f"{part}|{targets[part]:,} targets" for part in parts)]
    lines = [(name, [_slice_cell(part_of(by[name], part), facts.main) for part in parts]) for name in facts.names]
    table = sortable(facts, f"slice-{group}", f"{facts.main} in %, under it the difference in points with its interval", heads, lines)
    nobody = f'<p class="soft">Nothing was wanted of: {escape(", ".join(_part(group, part) for part in empty))}.</p>' if empty else ""
    details = f"<details><summary>as a table, with every method</summary>{table}</details>"
    return f'<h3>{escape(GROUPS.get(group, f"By {group}"))}</h3><div class="pair">{left}{right}</div>{nobody}{details}'


def _part(group: str, part: str) -> str:
    return "never learned" if part in ("none", "unseen") else PARTS.get(group, "{}").format(part)


def _slice_cell(found: dict[str, Any], figure: str) -> str:
    gap = [percent(value) for value in (part_of(found, "difference").get(figure) or [])]
    under = ""
    if len(gap) == 3 and gap[0] is not None:
        under = f"{gap[0]:+.2f}" + (f" [{gap[1]:+.2f}, {gap[2]:+.2f}]" if gap[1] is not None and gap[2] is not None else "")
    return cell(found.get(figure), percent_text, under=under)
