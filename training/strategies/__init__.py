"""Every strategy by name, and lists of them: "replay(share=0.3)+ewc". A file in this folder that defines one is all it takes to add it."""

import inspect
import pkgutil
import re
from collections.abc import Callable
from importlib import import_module

import numpy as np
from torch import Tensor

from recsys.batches import Batch, Examples
from recsys.errors import BadInput, nearest
from recsys.settings import Settings
from recsys.towers import Towers
from recsys.written import cut
from training.strategies.base import Strategy, Update
from training.strategies.settings import checked_settings

__all__ = ["STRATEGIES", "Composed", "Strategy", "Update", "chosen", "parse", "stripped", "without"]


def _found() -> dict[str, type[Strategy]]:
    """Return the strategies that the files of this folder define."""
    files = [import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__)]
    kinds = [kind for file in files for kind in vars(file).values() if inspect.isclass(kind) and kind.__module__ == file.__name__]
    return {kind.name: kind for kind in kinds if issubclass(kind, Strategy) and kind.name}


STRATEGIES: dict[str, type[Strategy]] = _found()

_PART = re.compile(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*")


class Composed(Strategy):
    """Several strategies as one: the phases fix the order, the list only settles ties."""

    def __init__(self, parts: list[Strategy]):
        self.parts = parts
        self.reshaping_first = sorted(parts, key=lambda part: not part.reshapes)
        self.reshaping_last = sorted(parts, key=lambda part: (part.reshapes, part.projects))
        self.averaging_last = sorted(self.reshaping_first, key=lambda part: part.averages)

    @property
    def keeps_nothing(self) -> bool:
        """Whether no event of the past may be kept in a release."""
        return any(part.private for part in self.parts)

    def __str__(self) -> str:
        return "+".join(part.name for part in self.parts)

    def select(self, examples: Examples, update: Update) -> Examples:
        for part in self.parts:
            examples = part.select(examples, update)
        return examples

    def prepare(self, towers: Towers, update: Update) -> None:
        for part in self.parts:
            part.prepare(towers, update)

    def mix(self, batch: Batch, update: Update) -> Batch:
        for part in self.reshaping_first:
            batch = part.mix(batch, update)
        return batch

    def weights(self, batch: Batch, update: Update) -> Batch:
        for part in self.parts:
            batch = part.weights(batch, update)
        return batch

    def penalties(self, towers: Towers, batch: Batch, update: Update) -> dict[str, Tensor]:
        return {name: term for part in self.parts for name, term in part.penalties(towers, batch, update).items()}

    def project(self, towers: Towers, update: Update) -> None:
        for part in self.reshaping_last:
            part.project(towers, update)

    def settle(self, towers: Towers, update: Update) -> None:
        for part in self.averaging_last:
            part.settle(towers, update)

    def finish(self, towers: Towers, examples: Examples, update: Update) -> None:
        for part in self.parts:
            part.finish(towers, examples, update)

    def state(self) -> dict[str, Tensor]:
        return {f"{part.name}/{key}": value for part in self.parts for key, value in part.state().items()}

    def load(self, state: dict[str, Tensor]) -> None:
        for part in self.parts:
            prefix = part.name + "/"
            part.load({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)})


def parse(expression: str) -> Composed:
    """Build strategies from text such as "replay(share=0.3)+ewc"."""
    parts = [_one(text, expression) for text in cut(expression, "+")]
    names = [part.name for part in parts]
    if len(set(names)) != len(names):
        raise BadInput(f"a strategy stands twice in {expression!r}; name each once")
    for part in parts:
        for other in names:
            if other in part.excludes:
                raise BadInput(f"{part.name} and {other} do not go together: {part.excludes[other]}; leave one of them out")
    return Composed(parts)


def chosen(settings: Settings) -> Composed:
    """Build update.strategy; raise BadInput also where it cannot stand beside model.objective."""
    strategy = parse(settings.update.strategy)
    if settings.model.objective != "next_item":
        for part in strategy.parts:
            if part.by_event:
                beside = f"model.objective = {settings.model.objective}"
                raise BadInput(f"{part.name} cannot stand beside {beside}: {part.by_event}; leave one of them out")
    return strategy


def without(state: dict[str, Tensor], whose: np.ndarray) -> dict[str, Tensor]:
    """Return what the strategies of a release remember, without what some people did: whose (P,) as Examples.whose has them."""
    return _each(state, lambda kind, mine: kind.without(mine, whose))


def stripped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what the strategies of a release remember once its user tower has gone back to its base (training.strategies.adapters)."""
    return _each(state, lambda kind, mine: kind.stripped(mine))


def _each(state: dict[str, Tensor], left: Callable[[type[Strategy], dict[str, Tensor]], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return what is left of a state when each strategy has said what is left of its part."""
    found: dict[str, Tensor] = {}
    for name in sorted({key.partition("/")[0] for key in state}):
        mine = {key.removeprefix(f"{name}/"): value for key, value in state.items() if key.startswith(f"{name}/")}
        kind = STRATEGIES.get(name, Strategy)  # of one whose file is gone all stays
        found |= {f"{name}/{key}": value for key, value in left(kind, mine).items()}
    return found


def _one(text: str, expression: str) -> Strategy:
    match = _PART.fullmatch(text)
    if match is None:
        came = f"{text!r} is no strategy" if text else f"a strategy has no name in {expression!r}"
        raise BadInput(f'{came}; write it like replay or "replay(share=0.3)+ewc"')
    name = match[1]
    if name not in STRATEGIES:
        raise BadInput(f"there is no strategy {name!r}; {nearest(name, STRATEGIES)} (frozen, knn and such are for recsys evaluate)")
    return STRATEGIES[name](**checked_settings(STRATEGIES[name], match[2] or ""))
