"""What the report is built of: sections, figures, sortable tables and their cells."""

import re
from collections.abc import Sequence
from html import escape
from typing import Any

from eval.report.facts import Facts, number


def section(anchor: str, title: str, *parts: str) -> str:
    """Return a part of the page under its heading."""
    body = "\n".join(parts)
    return f'<section id="{anchor}"><h2>{escape(title)}</h2>\n{body}\n</section>'


def framed(title: str, drawing: str, caption: str, missing: str) -> str:
    """Return a picture with its title and caption, or what is to be said where there is none."""
    heading = f'<p class="figure-title">{escape(title)}</p>' if title else ""
    if not drawing:
        return f'<figure class="missing">{heading}<p>{escape(missing)}</p></figure>'
    return f"<figure>{heading}{drawing}" + (f"<figcaption>{escape(caption)}</figcaption>" if caption else "") + "</figure>"


def sortable(facts: Facts, anchor: str, caption: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a sortable table; a heading may hold its unit behind a bar."""
    named = (head.split("|", 1) for head in heads)
    top = "".join(
        f'<th scope="col">{escape(parts[0])}{f"<small>{escape(parts[1])}</small>" if len(parts) > 1 else ""}</th>' for parts in named
    )
    body = "\n".join(
        f'<tr{" class=baseline" if name == facts.baseline else ""}><th scope="row">{breakable(name)}</th>{"".join(cells)}</tr>'
        for name, cells in rows
    )
    return (
        f'<div class="scroll"><table class="sortable" id="table-{escape(anchor)}"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def breakable(name: str) -> str:
    """Return a name that may go on in the next line behind a bracket, a comma or a plus."""
    return re.sub(r"([+,(_])", r"\1<wbr>", escape(name))


def cell(value: Any, text: Any, under: str = "", best: bool = False) -> str:
    """Return a cell that shows a number rounded and carries it whole, as the JSON has it, for sorting and for whoever checks."""
    known = number(value)
    if known is None:
        return "<td>–</td>"
    lines = "".join(f"<small>{escape(line)}</small>" for line in under.split("\n") if line)
    return f'<td data-value="{known!r}"{" class=best" if best else ""}>{escape(text(known))}{lines}</td>'


def any_cell(value: Any) -> str:
    """Return a cell of whatever stands in the results."""
    if number(value) is not None:
        return cell(value, lambda known: f"{known:,.0f}" if known == int(known) else f"{known:g}")
    return f"<td>{escape(str(value)) if value is not None else '–'}</td>"
