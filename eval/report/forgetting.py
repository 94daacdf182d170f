"""What updates forget: every release on every window."""

from typing import Any

from eval import pictures
from eval.replay import SAMPLED
from eval.report.blocks import framed, section
from eval.report.facts import Facts, percent

NO_MATRIX = "<p>No method was asked about earlier and later windows, so there is nothing to say about forgetting.</p>"


def forgetting(facts: Facts) -> str:
    """Draw the matrix of each method that has one."""
    found = {name: facts.methods[name]["forgetting"] for name in facts.names if isinstance(facts.methods[name].get("forgetting"), dict)}
    matrices = {name: [[percent(value) for value in row] for row in one.get("matrix") or []] for name, one in found.items()}
    known = [value for matrix in matrices.values() for row in matrix for value in row if value is not None]
    if not found:
        return section(
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
            framed(
                f"{name}: {one.get('metric') or facts.main}", drawing, _lost(one), f"The matrix of {name} is empty, so nothing is drawn."
            )
        )
    about = (
        "Each row is a release, each column a window. The outlined diagonal is what users saw: the release that was live. "
        "Left of it are windows the release had learned, right of it windows still to come. Each window is asked by a fixed sample of "
        f"at most {SAMPLED:,} questions, so the figures differ a little from the table's. The colours mean the same in every picture."
    )
    return section("forgetting", "What updates forget", f"<p>{about}</p>", '<div class="pair">', *figures, "</div>")


def _lost(found: dict[str, Any]) -> str:
    kept, back, ahead = (percent(found.get(key)) for key in ("forgetting", "backward_transfer", "forward_transfer"))
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
