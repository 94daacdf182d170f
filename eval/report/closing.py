"""How to read the report, and how to get it again."""

import json
from html import escape
from typing import Any

from eval.report.blocks import any_cell, section, sortable
from eval.report.facts import Facts, number, part_of
from eval.report.words import duration, listed


def how_to_read(facts: Facts) -> str:
    """Say what the figures mean and what they do not."""
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
    if part_of(facts.all, "settings").get("filter_unseen") or facts.protocol == "ader":
        items.append(
            "Targets that no method could have learned were left out here, which makes every figure higher than for all that people wanted."
        )
    else:
        items.append("An item that was never learned counts as a miss wherever it was asked, so no method can reach 100 %.")
    return section("how-to-read", "How to read this", "<ul>", *(f"<li>{escape(item)}</li>" for item in items), "</ul>")


def reproduce(facts: Facts) -> str:
    """Say how to get the same again: command, versions, data, settings."""
    found = facts.all
    pairs: list[tuple[str, Any]] = [(name, found.get(name)) for name in ("protocol", "baseline", "seeds", "started", "finished")]
    seconds = number(found.get("seconds"))
    pairs.append(("time in all", None if seconds is None else duration(seconds)))
    pairs.append(("machine", listed(found.get("machine"))))
    pairs.append(("versions", listed(found.get("versions"))))
    data = next((found[key] for key in ("data", "fingerprint", "data_fingerprint") if found.get(key)), None)
    data = data or part_of(found, "settings").get("files")
    pairs.append(("data", listed(data)))
    known = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value)) if value not in (None, '') else 'not recorded'}</dd>" for name, value in pairs
    )
    command = found.get("command")
    shell = f"<pre>{escape(str(command))}</pre>" if command else "<p>The command was not recorded.</p>"
    settings = escape(json.dumps(found.get("settings") or {}, indent=1, ensure_ascii=False, default=str))
    return section(
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
        (str(window.get("window", place)), [any_cell(window.get(key)) for key in columns]) for place, window in enumerate(facts.windows)
    ]
    return f"<details><summary>what was asked in each window</summary>{sortable(facts, 'windows', 'counts', heads, rows)}</details>"
