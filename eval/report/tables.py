"""All numbers, in tables that can be sorted."""

from html import escape
from typing import Any

from eval.report.blocks import cell, section, sortable
from eval.report.facts import Facts, number, part_of
from eval.report.words import between, cost_text, digits, known_of, percent_text, text_of, unit

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


def tables(facts: Facts) -> str:
    """Return all tables."""
    quality = [_quality_table(facts, "macro"), _quality_table(facts, "micro")]
    return section(
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
        figure: max(known_of(part_of(facts.methods[name], average).get(figure) for name in facts.names), default=None)
        for figure in facts.quality
    }
    rows = []
    for name in facts.names:
        values = part_of(facts.methods[name], average)
        cells = []
        for figure in facts.quality:
            under = _under(facts.interval(name, figure)) if average == "macro" else ""
            cells.append(cell(values.get(figure), percent_text, under, best=number(values.get(figure)) == best[figure]))
        rows.append((name, cells))
    return f"<h3>Quality, {average}</h3>" + sortable(facts, average, f"in %; {said}", ["method", *facts.quality], rows)


def _under(interval: dict[str, Any]) -> str:
    return "\n".join(
        line
        for line in (
            between(interval, "low", "high").strip(),
            f"Δ {percent_text(number(interval.get('difference')), '+')}{between(interval, 'difference_low', 'difference_high', '+')}"
            if number(interval.get("difference")) is not None
            else "",
        )
        if line
    )


def _list_table(facts: Facts) -> str:
    if not facts.lists:
        return "<p>The results hold no figures about the lists themselves (coverage, concentration, novelty, diversity).</p>"
    rows = [(name, [cell(facts.macro(name, figure), text_of(figure)) for figure in facts.lists]) for name in facts.names]
    heads = ["method", *(f"{figure}|{unit(figure)}" for figure in facts.lists)]
    return "<h3>What the lists are like</h3>" + sortable(facts, "lists", LISTS, heads, rows)


def _cost_table(facts: Facts) -> str:
    costs = {name: part_of(facts.methods[name], "cost") for name in facts.names}
    keys = [key for key in COSTS if any(number(costs[name].get(key)) is not None for name in facts.names)]
    if not keys:
        return "<h3>Cost</h3><p>No cost was measured.</p>"
    rows = [
        (name, [cell(facts.seconds(name), digits), *(cell(costs[name].get(key), cost_text(key)) for key in keys)]) for name in facts.names
    ]
    heads = ["method", "an update|s, mean", *("|".join(COSTS[key]) for key in keys)]
    about = "MB are 10^6 bytes; peak memory is that of the whole process while it learned. – where a cost does not apply."
    return "<h3>Cost</h3>" + sortable(facts, "cost", about, heads, rows)


def _seed_table(facts: Facts) -> str:
    by = {name: [number(value) for value in part_of(facts.methods[name], "seeds").get(facts.main) or []] for name in facts.names}
    most = max(map(len, by.values()), default=0)
    if most < 2:
        return ""
    rows = [(name, [cell(value, percent_text) for value in [*by[name], *[None] * (most - len(by[name]))]]) for name in facts.names]
    first = part_of(part_of(part_of(facts.all, "settings"), "settings"), "training").get("seed") or 0
    heads = ["method", *(f"seed {first + seed}" for seed in range(most))]
    about = f"macro {facts.main} in %, by seed; – where a method knows no chance"
    return "<h3>Seed by seed</h3>" + sortable(facts, "seeds", about, heads, rows)
