"""The first lines: what the replay found, and what it costs."""

from html import escape
from typing import Any

from eval.report.blocks import breakable
from eval.report.facts import Facts, number, part_of
from eval.report.words import between, counted, duration, ratio_text


def headline(facts: Facts) -> str:
    """Say in sentences which method is best, by how much, how surely, and what it costs."""
    queries = sum(int(number(window.get("targets")) or 0) for window in facts.windows)
    when = [str(window["begin"])[:10] for window in facts.windows if window.get("begin")]
    period = f", beginning {when[0]} to {when[-1]}" if when and facts.protocol != "ader" else ""
    counts = counted(len(facts.windows), "window") + period, f"{queries:,} targets", counted(len(facts.names), "method")
    about = " · ".join((f"{facts.protocol} protocol", *counts))
    best = facts.names[0]
    said = [_best(facts, best), _cost(facts, best)]
    paragraphs = "".join(f"<p>{sentence}</p>" for sentence in said if sentence)
    return f'<h1>What the replay found</h1><p class="soft">{escape(about)}</p><div class="headline" id="headline">{paragraphs}</div>'


def _best(facts: Facts, best: str) -> str:
    value, interval = facts.macro(best), facts.interval(best)
    if value is None:
        return f"No method has a {escape(facts.main)}, so none can be called the best."
    level = f"{escape(facts.main)} {100 * value:.2f} %{between(interval, 'low', 'high')}"
    if len(facts.names) == 1:
        return f"<b>{breakable(best)}</b> reaches {level}; it is the only method, so there is nothing to compare it with."
    said = f"<b>{breakable(best)}</b> is best with {level}"
    if best == facts.baseline:
        return f"{said}: none of the other methods is ahead of this baseline. {_runner_up(facts)}"
    base = facts.macro(facts.baseline) if facts.baseline in facts.methods else None
    gap = number(interval.get("difference"))
    if gap is None and base is not None:
        gap = value - base
    if gap is None:
        return f"{said}. There is no baseline with a number to compare it with."
    relative = f", {100 * abs(gap) / base:.1f} % {'more' if gap > 0 else 'less'}" if base else ""
    ends = between(interval, "difference_low", "difference_high", "+")
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
    ends = between(interval, "difference_low", "difference_high", "+")
    return f"{said}{f', the difference{ends}' if ends else ''}. {_certainty(interval)}"


def _cost(facts: Facts, best: str) -> str:
    cost, seconds = part_of(facts.methods[best], "cost"), facts.seconds(best)
    parts = []
    if seconds is not None:
        parts.append(f"{duration(seconds)} for an update on average")
    if (total := number(cost.get("seconds_learn"))) is not None:
        parts.append(f"{duration(total)} to learn all windows")
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
        said += f" An update takes {ratio_text(seconds / against)} as long as that of {escape(str(other))} ({duration(against)})."
    return said
