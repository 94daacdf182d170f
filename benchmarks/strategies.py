"""A table and a picture of a run of `recsys evaluate`: python -m benchmarks.strategies RESULTS.json --out NAME.

Writes benchmarks/results/NAME.json (what the table shows, and what was asked) and docs/NAME.svg (quality against the time of an update),
and prints the table, each method against the run's baseline. With --keep the rows that are there already, and that the run did not ask for,
stay: some methods measured anew.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from eval.pictures import Point, frontier, labels, pareto
from eval.report.looks import STYLE
from recsys.files import write_atomically

ROOT = Path(__file__).parents[1]

DEFAULT = "replay+ewc"

ABOUT = ("command", "machine", "versions", "started", "baseline", "settings")
"""What is kept of the results beside the rows."""

FAR = 5.0
"""Points of quality. In the picture are strategies by themselves, the default, and compositions that nothing beats, no further off.
"""


SECONDS = {"last": "seconds, last update", "median": "seconds, median update"}
"""What of the seconds is shown: those of the last update, or the median of all updates, which what else ran on the machine moves little."""


def row(found: dict[str, Any], main: str, second: str, seconds: str) -> dict[str, float | None]:
    """Return what the table shows of a method, quality in %: differences are from the baseline, with their 95% intervals."""
    cost, kept, interval = found["cost"], found.get("forgetting") or {}, found["intervals"].get(main) or {}

    def percent(value: float | None) -> float | None:
        return None if value is None else round(100 * value, 4)

    return {
        main: percent(found["macro"][main]),
        second: percent(found["macro"][second]),
        **{name: percent(interval.get(name)) for name in ("low", "high", "difference", "difference_low", "difference_high")},
        **{name: percent(kept.get(name)) for name in ("forgetting", "backward_transfer", "forward_transfer")},
        "seconds": cost.get("seconds_learn_last") if seconds == "last" else median(one["seconds_learn"] for one in found["windows"][1:]),
        "megabytes": cost["release_bytes"] / 1e6 if cost.get("release_bytes") else None,
    }


def table(rows: dict[str, dict[str, Any]], main: str, second: str, baseline: str, seconds: str) -> str:
    """Return the rows as Markdown, the best first."""
    heads = ["strategy", main, second, f"{main} against {baseline} (95% interval)", "forgetting, points", "backward", "forward transfer"]
    heads += [SECONDS[seconds], "MB a release"]
    told = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, values in sorted(rows.items(), key=lambda item: -item[1][main]):
        known = values["difference"] is not None and name != baseline
        against = "{difference:+.2f} [{difference_low:+.2f}, {difference_high:+.2f}]".format(**values) if known else ""
        numbers = [f"{values[main]:.2f}", f"{values[second]:.2f}", against]
        kept = (values[key] for key in ("forgetting", "backward_transfer", "forward_transfer"))
        numbers += [f"{value:+.2f}" if value is not None else "" for value in kept]
        numbers += [f"{values[key]:.0f}" if values[key] is not None else "" for key in ("seconds", "megabytes")]
        told.append("| " + " | ".join([f"`{name}`", *numbers]) + " |")
    return "\n".join(told)


def main() -> None:
    """Read a result, write its figures and the picture, print the table."""
    wanted = argparse.ArgumentParser(description=__doc__)
    wanted.add_argument("results", type=Path)
    wanted.add_argument("--out", default="strategies")
    wanted.add_argument("--second", default="ndcg", help="the measure beside recall, such as mrr")
    wanted.add_argument("--seconds", default="last", choices=SECONDS, help="of the last update, or of the median one")
    wanted.add_argument(
        "--keep", action="store_true", help="keep the rows of NAME.json that these results have not; its baseline stays too"
    )
    asked = wanted.parse_args()
    results = json.loads(asked.results.read_text())
    k = results["ks"][-1]
    first, second = f"recall@{k}", f"{asked.second}@{k}"
    rows = {name: row(found, first, second, asked.seconds) for name, found in results["methods"].items()}
    kept, path = {name: results[name] for name in ABOUT}, ROOT / f"benchmarks/results/{asked.out}.json"
    if asked.keep:
        before = json.loads(path.read_text())
        anew = {name: found for name, found in rows.items() if name != before["baseline"]}
        again = {"methods": list(anew), **kept}
        kept = {
            **{name: value for name, value in before.items() if name != "methods"},
            "measured again": [*before.get("measured again", ()), again],
        }
        rows = before["methods"] | anew
    write_atomically(path, json.dumps({**kept, "methods": rows}, indent=1) + "\n")
    points = [Point(name, 0, float(values[first] or 0), x=values["seconds"]) for name, values in rows.items() if values["seconds"]]
    best = {point.name for point in pareto(points)}
    shown = [point for point in points if point.name in best | {DEFAULT} or point.name.isidentifier()]
    middle = sorted(point.y for point in shown)[len(shown) // 2]
    near = [point for point in shown if abs(point.y - middle) < FAR]  # who is further off would press all others together
    label = labels([point.name for point in near])
    points = [replace(point, look=number, label=label[point.name]) for number, point in enumerate(near)]
    drawn = frontier(points, f"{SECONDS[asked.seconds]}, logarithmic", f"{first}, %")
    drawn = drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    write_atomically(ROOT / f"docs/{asked.out}.svg", drawn.replace("\n", f"\n<style>{STYLE}</style>\n", 1))
    print(table(rows, first, second, results["baseline"], asked.seconds))


if __name__ == "__main__":
    main()
