"""Every method of a replay by name."""

import re
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from eval.baselines import ALS, Knn, Popular
from eval.timeline import Queries, Window
from recsys.errors import BadInput, nearest
from recsys.settings import Settings


class Method(Protocol):
    """Something that learns window by window and is asked in between."""

    name: str

    def learn(self, window: Window) -> float:
        """Learn the window's events; the first one given is the first fit.

        Return the seconds of work that it needed and another method of the replay had done already.
        """

    def scores(self, queries: Queries) -> np.ndarray:
        """Return a score for every vocabulary row, (B, n_items) float32; -inf for what cannot be recommended."""


BASELINES: dict[str, Callable[[Settings], Method]] = {"popular": Popular, "knn": Knn, "als": ALS}


def methods(expression: str, settings: Settings) -> list[Method]:
    """Build methods from text such as "popular,knn,frozen,replay(share=0.3)+ewc,retrain"."""
    names = [name.strip() for name in re.split(r",(?![^()]*\))", expression) if name.strip()]
    if not names:
        raise BadInput("no method to evaluate; name some, like: popular,knn,replay+ewc")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"the method {twice[0]!r} stands twice in {expression!r}; name each once")
    shared: dict[str, Any] = {}
    return [_one(name, settings, shared) for name in names]


def _one(name: str, settings: Settings, shared: dict[str, Any]) -> Method:
    if name in BASELINES:
        return BASELINES[name](settings)
    from eval.towers import MODES, FirstFit, TowersMethod  # torch is loaded only for those who need it
    from training.strategies import STRATEGIES

    parts = [part.partition("(")[0].strip() for part in re.split(r"\+(?![^()]*\))", name)]
    known = {*BASELINES, *MODES, *STRATEGIES}
    for part in parts:
        if part not in known:
            raise BadInput(f"there is no method {part!r}; {nearest(part, known)}")
        if part not in STRATEGIES and name != part:
            raise BadInput(
                f"{part!r} in {name!r} is no strategy; only strategies have settings and join by +: {', '.join(sorted(STRATEGIES))}"
            )
    return TowersMethod(name, settings, shared.setdefault("first fit", FirstFit(settings)))
