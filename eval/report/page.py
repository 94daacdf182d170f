"""One self-contained HTML page that tells what a replay found: a sentence, pictures, tables, and how to get it again."""

from html import escape
from pathlib import Path
from typing import Any

from eval.report.closing import how_to_read, reproduce
from eval.report.course import frontier, over_time
from eval.report.facts import Facts
from eval.report.forgetting import forgetting
from eval.report.headline import headline
from eval.report.looks import SCRIPT, STYLE
from eval.report.slices import slices
from eval.report.tables import tables
from recsys.files import write_atomically

ONLY_INLINE = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""The browser itself refuses to fetch anything for the page."""


def write(results: dict[str, Any], path: Path) -> None:
    """Write the results of `recsys evaluate` (its JSON, shares as fractions) as one HTML file that needs nothing else.

    What is missing or null is said in words; BadInput where there is no method at all.
    """
    write_atomically(path, html(results))


def html(results: dict[str, Any]) -> str:
    """Return the page; the same results give the same page."""
    facts = Facts(results)
    sections = [headline, over_time, frontier, forgetting, slices, tables, how_to_read, reproduce]
    title = f"{facts.protocol} evaluation: {len(facts.names)} methods, {len(facts.windows)} windows"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{ONLY_INLINE}">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
            *(section(facts) for section in sections),
            f"<script>{SCRIPT}</script></body></html>\n",
        ]
    )
