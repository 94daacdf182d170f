"""How to learn the new without losing the old: small objects asked in fixed phases."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import Tensor

from recsys.batches import Batch, Examples
from recsys.losses import NextItem
from recsys.towers import Towers
from training.memory import Memory


@dataclass
class Update:
    """One update, as every phase sees it.

    parent: the towers it starts from, frozen, with rows for the new items; None in a first fit. memory: what was learned
    before. objective: the task loss. rng: the only source of chance. wishes: how often an event's neighbours say what is foretold.
    number: how many updates lie behind it; 0 in a first fit. known: how many rows the parent had, row 0 among them. surfaces: where the new
    events that say "more of this" happened, and how many did there, the most first. learned: how many examples `select` has left.
    """

    parent: Towers | None
    memory: Memory
    objective: NextItem
    rng: np.random.Generator
    wishes: float = 0.0
    number: int = 0
    known: int = 0
    surfaces: dict[str, int] = field(default_factory=dict)
    learned: int = 0
    notes: dict[str, float] = field(default_factory=dict)


class Strategy:
    """A continual-learning method. Every phase does nothing unless a method has something to do there.

    Its settings are those of its constructor; what is written for one is of the type that the constructor says. excludes: the names of
    strategies that it cannot stand beside, and why. by_event: why it needs a tower that reads event by event (model.objective =
    next_item); empty where it does not. private: no event of the past may be kept in the release. reshapes: it learns weights by way of
    others, so that in `mix` and `settle` its word comes first, and in `project` last. averages, projects: it says where the weights come
    to rest, or turns the gradient away from something, so that in `settle`, or in `project`, it comes behind who measures or adds.
    """

    name: ClassVar[str] = ""
    excludes: ClassVar[dict[str, str]] = {}
    by_event: ClassVar[str] = ""
    private: ClassVar[bool] = False
    reshapes: ClassVar[bool] = False
    averages: ClassVar[bool] = False
    projects: ClassVar[bool] = False

    def select(self, examples: Examples, update: Update) -> Examples:
        """Say which of the new sessions to learn from."""
        return examples

    def prepare(self, towers: Towers, update: Update) -> None:
        """Widen or freeze before training; every score stays as it was."""

    def mix(self, batch: Batch, update: Update) -> Batch:
        """Say what to train on beside the new sessions."""
        return batch

    def weights(self, batch: Batch, update: Update) -> Batch:
        """Say how much each example counts."""
        return batch

    def penalties(self, towers: Towers, batch: Batch, update: Update) -> dict[str, Tensor]:
        """Return named loss terms that are added to the task's."""
        return {}

    def project(self, towers: Towers, update: Update) -> None:
        """Edit the gradients before the step."""

    def settle(self, towers: Towers, update: Update) -> None:
        """Say where the weights come to rest after training."""

    def finish(self, towers: Towers, examples: Examples, update: Update) -> None:
        """Measure, after training, what the next update will need."""

    def state(self) -> dict[str, Tensor]:
        """Return what must travel in the release. What is named "...whose" is forgotten with its people: see `without`.

        The release of an update that goes without the strategy does not hold it: what is remembered ends there.
        """
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take what travelled in the parent release."""

    @classmethod
    def without(cls, state: dict[str, Tensor], whose: np.ndarray) -> dict[str, Tensor]:
        """Return a state without what some people did: whose (P,) as Examples.whose has them. Only for who keeps what single people did."""
        return state

    @classmethod
    def stripped(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a state without what `recsys releases strip` takes out of the user tower. Only for who keeps weights of it."""
        return state
