"""Every method of a replay by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from eval import baselines, names
from eval.timeline import Learned, Queries, Window
from recsys.errors import BadInput, nearest
from recsys.sessions import Pairs
from recsys.settings import Settings


class Method(Protocol):
    """Something that learns window by window and is asked in between.

    name: as the user wrote it; random: whether another seed gives another answer.
    """

    name: str
    random: bool

    def learn(self, window: Window) -> Learned:
        """Learn the window's events; the first one given is the first fit."""

    def scores(self, queries: Queries) -> np.ndarray:
        """Return a score for every vocabulary row, (B, n_items) float32, to be written to; -inf for what cannot be recommended."""

    def size(self) -> int:
        """Return the bytes of what serving it would need."""


@runtime_checkable
class Saved(Method, Protocol):
    """A method whose states are releases, which can be saved and taken up again."""

    def save(self, folder: Path) -> int:
        """Publish the state as a release under `folder`, unless it stands there; keep the newest two; return its bytes."""

    def load(self, folder: Path, learned: int) -> bool:
        """Take up the state that had learned so many events of the log; say whether it was there."""


@runtime_checkable
class Released(Saved, Protocol):
    """One whose releases can be compared with each other: nothing in them knows an answer by heart."""

    def found(self, queries: Queries, seen: Pairs | None, k: int) -> np.ndarray | None:
        """Return the best `k` rows that the saved release's own index finds, (B, k), 0 for nothing; None before a save."""

    def stale_scores(self, queries: Queries) -> np.ndarray | None:
        """Return scores of the user tower of now over the item vectors before it, (B, n_items); None in the first release."""


def methods(expression: str, settings: Settings, seeds: int = 1) -> list[Method]:
    """Build methods from text such as "popular,knn(nearest=300),frozen,replay(share=0.3)+ewc,window(n=4)".

    Those that draw lots come once for each of the seeds training.seed, + 1, ..., under the same name. What needs the same towers
    under the same seed shares them.
    """
    build = _Builder()
    found = []
    for name in names.listed(expression):
        first = build(name, settings)
        found += [first, *(build(name, _reseeded(settings, n)) for n in range(1, seeds) if first.random)]
    return found


class _Builder:
    """Makes methods by name and keeps what they share."""

    def __init__(self) -> None:
        self.shared: Any = None

    def __call__(self, name: str, settings: Settings) -> Method:
        parts = names.parts(name)
        if len(parts) == 1 and parts[0].name in baselines.BASELINES:
            method: Method = baselines.baseline(parts[0].name, settings, parts[0].own)
            method.name = name
            return method
        from eval.towers import Shared, towers_method  # torch is loaded only for those who need it

        _refuse_unknown(name, parts)
        self.shared = self.shared or Shared()
        return towers_method(name, parts, settings, self.shared)


TOGETHER = (
    "replay+ewc",
    "replay+distill",
    "replay+ewc+distill",
    "replay+agem",
    "replay+der",
    "replay+surprise",
    "replay+ema",
    "replay+soup",
    "replay+partial",
    "generate+ewc",
    "replay+ewc+neighbours",
)
"""Compositions that `all` asks beside each strategy alone."""


def spelled(expression: str) -> str:
    """Return methods with `all` spelled out: every baseline, frozen, recounted, every strategy by itself, and compositions of them."""
    written = names.listed(expression)
    if "all" not in written:
        return expression
    from training.strategies import STRATEGIES

    every = [*baselines.BASELINES, "frozen", "recounted", "naive", *sorted({*STRATEGIES} - {"naive"}), *TOGETHER]
    return ",".join(dict.fromkeys(other for name in written for other in (every if name == "all" else [name])))


def _refuse_unknown(name: str, parts: Sequence[names.Part]) -> None:
    from eval.towers import MODES, MODIFIERS, NEIGHBOURS
    from training.strategies import STRATEGIES

    known = {*baselines.BASELINES, *MODES, *MODIFIERS, *STRATEGIES, NEIGHBOURS}
    for part in parts:
        if part.name not in known:
            raise BadInput(f"there is no method {part.name!r}; {nearest(part.name, known)}")
        if part.name in baselines.BASELINES:
            joined = ", ".join(sorted(STRATEGIES))
            raise BadInput(
                f"{part.name!r} in {name!r} is no strategy; strategies join by +: {joined}; +dropout may follow one, +neighbours any towers"
            )


def _reseeded(settings: Settings, by: int) -> Settings:
    training = settings.training
    return settings.model_copy(update={"training": training.model_copy(update={"seed": training.seed + by})})
