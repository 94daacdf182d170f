"""Every strategy by name, and lists of them: "replay(share=0.3)+ewc"."""

import ast
import inspect
import re

from torch import Tensor

from recsys.batches import Batch, Examples
from recsys.errors import BadInput, nearest
from recsys.towers import Towers
from training.strategies.base import Strategy, Update
from training.strategies.ewc import EWC
from training.strategies.naive import Naive
from training.strategies.replay import Replay

STRATEGIES: dict[str, type[Strategy]] = {kind.name: kind for kind in (Naive, Replay, EWC)}

_PART = re.compile(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*")


class Composed(Strategy):
    """Several strategies as one: the phases fix the order, the list only settles ties."""

    def __init__(self, parts: list[Strategy]):
        self.parts = parts
        self.name = "+".join(part.name for part in parts)

    def prepare(self, towers: Towers, update: Update) -> None:
        for part in self.parts:
            part.prepare(towers, update)

    def mix(self, batch: Batch, update: Update) -> Batch:
        for part in self.parts:
            batch = part.mix(batch, update)
        return batch

    def weights(self, batch: Batch, update: Update) -> Batch:
        for part in self.parts:
            batch = part.weights(batch, update)
        return batch

    def penalties(self, towers: Towers, batch: Batch, update: Update) -> dict[str, Tensor]:
        return {name: term for part in self.parts for name, term in part.penalties(towers, batch, update).items()}

    def project(self, towers: Towers, update: Update) -> None:
        for part in self.parts:
            part.project(towers, update)

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
    return Composed(parts)


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
