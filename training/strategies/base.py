"""How to learn the new without losing the old: small objects asked in fixed phases."""

from dataclasses import dataclass, field

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
    """

    parent: Towers | None
    memory: Memory
    objective: NextItem
    rng: np.random.Generator
    wishes: float = 0.0
    notes: dict[str, float] = field(default_factory=dict)


class Strategy:
    """A continual-learning method. Every phase does nothing unless a method has something to do there."""

    name = ""

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

    def finish(self, towers: Towers, examples: Examples, update: Update) -> None:
        """Measure, after training, what the next update will need."""

    def state(self) -> dict[str, Tensor]:
        """Return what must travel in the release."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take what travelled in the parent release."""
