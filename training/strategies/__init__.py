"""Every strategy by name, and lists of them: "replay(share=0.3)+ewc". A file in this folder that defines one is all it takes to add it."""

import ast
import inspect
import pkgutil
import re
from importlib import import_module

import numpy as np
from torch import Tensor

from recsys.batches import Batch, Examples
from recsys.errors import BadInput, nearest
from recsys.towers import Towers
from training.strategies.base import Strategy, Update

__all__ = ["STRATEGIES", "Composed", "Strategy", "Update", "parse", "without"]


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
        self.reshaping_last = sorted(parts, key=lambda part: part.reshapes)

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
        for part in self.reshaping_first:
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
    parts = [_one(text) for text in _split(expression)]
    names = [part.name for part in parts]
    if len(set(names)) != len(names):
        raise BadInput(f"a strategy stands twice in {expression!r}; name each once")
    for part in parts:
        for other in names:
            if other in part.excludes:
                raise BadInput(f"{part.name} and {other} do not go together: {part.excludes[other]}; leave one of them out")
    return Composed(parts)


def without(state: dict[str, Tensor], whose: np.ndarray) -> dict[str, Tensor]:
    """Return what the strategies of a release remember, without what some people did: whose (P,) as Examples.whose has them."""
    left = dict(state)
    for name, kind in STRATEGIES.items():
        mine = {key: value for key, value in state.items() if key.startswith(f"{name}/")}
        if mine:
            found = kind.without({key.removeprefix(f"{name}/"): value for key, value in mine.items()}, whose)
            left = {key: value for key, value in left.items() if key not in mine} | {f"{name}/{key}": value for key, value in found.items()}
    return left


def _split(expression: str) -> list[str]:
    return re.split(r"\+(?![^()]*\))", expression)


def _one(text: str) -> Strategy:
    match = _PART.fullmatch(text)
    if match is None:
        raise BadInput(f'cannot read the strategy {text!r}; write it like replay or "replay(share=0.3)+ewc"')
    name, arguments = match[1], match[2] or ""
    if name not in STRATEGIES:
        raise BadInput(f"there is no strategy {name!r}; {nearest(name, STRATEGIES)}")
    known = {
        parameter.name
        for parameter in inspect.signature(STRATEGIES[name]).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    settings = {}
    for argument in filter(None, (part.strip() for part in arguments.split(","))):
        key, _, value = (piece.strip() for piece in argument.partition("="))
        if key not in known:
            raise BadInput(f"{name} has no setting {key!r}; {nearest(key, known) if known else 'it has none'}")
        try:
            settings[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise BadInput(f"{name}.{key} = {value!r} is not a value; write a number or a quoted word") from None
    try:
        return STRATEGIES[name](**settings)
    except TypeError as error:
        raise BadInput(f"{name}({arguments}): {error}") from None
