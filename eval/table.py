"""The results of a replay as a table for the terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

QUALITY = ("recall", "ndcg", "mrr", "hit_rate", "map", "coverage")

COSTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "learn\ns": lambda cost: f"{cost['seconds_learn']:,.1f}",
    "last\ns": lambda cost: f"{cost['seconds_learn_last']:,.1f}",
    "answer\nCPU s": lambda cost: f"{cost['seconds_answer']:,.1f}",
    "peak\nMB": lambda cost: f"{cost['peak_mb']:,.0f}",
    "release\nMB": lambda cost: f"{cost['release_bytes'] / 1e6:,.1f}",
}

DROPPED = ("peak\nMB", "release\nMB", "coverage", "last\ns", "answer\nCPU s", "hit_rate", "map", "ndcg", "forgets")
"""What a narrow terminal is not shown, the first to go first; last: the seconds to learn the last window."""

Column = tuple[str, list[str]]


def table(found: Mapping[str, Any], width: int = 120) -> Table:
    """Return the means over the windows as a table, quality in per cent; `found` is the results JSON, width that of the terminal.

    Of several lengths of list only the longest is shown; so is the difference to the baseline with its interval, in points of recall.
    The best of each column is bold. A figure that must equal another because every query wants one item is left out.
    """
    k = max(found["ks"])
    targets, queries = (sum(window[name] for window in found["windows"]) for name in ("targets", "queries"))
    columns, left_out = dict(_columns(found, k, targets > queries)), list[str]()
    for name in DROPPED:
        if name in columns and sum(3 + _wide(column) for column in columns.values()) + 1 > width:
            left_out.append(columns.pop(name)[0].replace("\n", " "))
    windows, seeds = len(found["windows"]), found.get("seeds", 1)
    over = f"{windows} window{'' if windows == 1 else 's'}" + (f" and {seeds} seeds" if seeds > 1 else "")
    about = f"ahead: recall@{k} minus that of {found['baseline']} in points, with its 95% interval; seconds are of all windows"
    if "forgets" in columns:
        about += "; forgets: points of it that the last release has lost on windows learned before"
    elif any(method.get("forgetting") for method in found["methods"].values()) and "forgets" not in left_out:
        about += "; what is forgotten shows from the third window on"
    made = Table(
        title=f"{found['protocol']}: mean of {over}, {targets:,} targets, quality in %",
        caption=about + (f"; too narrow here for {', '.join(left_out)}" if left_out else ""),
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
    )
    for name, (heading, _) in columns.items():
        made.add_column(
            heading, justify="left" if name == "method" else "right", no_wrap=name != "method", overflow="fold", vertical="bottom"
        )
    for row in zip(*(cells for _, cells in columns.values()), strict=True):
        made.add_row(*row)
    return made


def _columns(found: Mapping[str, Any], k: int, several_wanted: bool) -> list[tuple[str, Column]]:
    methods = list(found["methods"].values())
    quality = [name for name in QUALITY if several_wanted or name not in ("hit_rate", "map")]
    return [
        ("method", ("method", [escape(name) for name in found["methods"]])),
        *((name, (f"{name}\n@{k}", _best_bold([method["macro"][f"{name}@{k}"] for method in methods]))) for name in quality),
        ("ahead", ("ahead", [escape(_ahead(method["intervals"][f"recall@{k}"])) for method in methods])),
        *([("forgets", ("forgets", list(map(_forgets, methods))))] if any(map(_forgets, methods)) else []),
        *((name, (name, [show(method["cost"]) for method in methods])) for name, show in COSTS.items()),
    ]


def _best_bold(values: Sequence[float | None]) -> list[str]:
    best = max((value for value in values if value is not None), default=None)
    shown = ["" if value is None else f"{100 * value:.2f}" for value in values]
    return [f"[bold]{text}[/]" if value is not None and value == best else text for value, text in zip(values, shown, strict=True)]


def _ahead(interval: Mapping[str, float | None]) -> str:
    value, low, high = (interval.get(f"difference{end}") for end in ("", "_low", "_high"))
    if value is None:
        return ""
    ends = "" if low is None or high is None else f" [{100 * low:+.1f} {100 * high:+.1f}]"
    return f"{100 * value:+.2f}{ends}"


def _forgets(method: Mapping[str, Any]) -> str:
    """Return the points that the last release has lost on windows learned before, nothing where old windows were not asked again."""
    value = (method.get("forgetting") or {}).get("forgetting")
    return "" if value is None else f"{100 * value:+.2f}"


def _wide(column: Column) -> int:
    heading, cells = column
    return max(len(line) for text in (heading, *cells) for line in text.replace("[bold]", "").replace("[/]", "").split("\n"))
