"""Gradients that may not undo the past: GEM (Lopez-Paz & Ranzato, NeurIPS 2017) and A-GEM (Chaudhry et al., ICLR 2019)."""

from typing import ClassVar

import numpy as np
from scipy.optimize import nnls

from recsys.batches import Batch, batch
from recsys.errors import BadInput
from recsys.towers import Towers
from training.strategies.base import Strategy, Update
from training.strategies.gradients import Gradient, add, gradient, gradient_of, product


class AGem(Strategy):
    """Where a step would make the memory's loss worse, take out that part: g - (g . m / m . m) m, m being the memory's gradient.

    (A-GEM, equation 11.) samples: memories whose gradient is measured, anew in each step; every: how many steps it is used for.
    """

    name = "agem"
    projects = True
    excludes: ClassVar[dict[str, str]] = {"gem": "both project the gradient against the memory"}

    def __init__(self, samples: int = 128, every: int = 1):
        if samples < 1:
            raise BadInput(f"agem.samples is how many memories are asked in a step, 1 or more; got {samples}")
        if every < 1:
            raise BadInput(f"agem.every is how many steps a gradient of the memory is used for, 1 or more; got {every}")
        self.samples, self.every = samples, every
        self.steps, self.against = 0, Gradient()

    def prepare(self, towers: Towers, update: Update) -> None:
        """Ask the memory by an objective of its own."""
        self.objective = update.objective.of_others(update.memory.examples.targets)

    def project(self, towers: Towers, update: Update) -> None:
        """Take out of the gradient what the memory speaks against."""
        if not len(update.memory):
            return
        if self.steps % self.every == 0:
            every = np.arange(len(update.memory))
            self.against = gradient_of(towers, _remembered(every, self.samples, towers, update), self.objective)
        self.steps += 1
        mine = gradient(towers)
        along = product(mine, self.against)
        update.notes["agem against"] = update.notes.get("agem against", 0.0) + (along < 0)
        if along < 0:
            add(towers, self.against, -along / max(product(self.against, self.against), 1e-12))


class Gem(Strategy):
    """Take the nearest gradient that makes the loss of no part of the past worse (GEM, equations 8 to 12).

    parts: of the memory, by age, which stand for the tasks of the paper. margin: how much more than that it leans to the past.
    """

    name = "gem"
    projects = True
    excludes: ClassVar[dict[str, str]] = {"agem": "both project the gradient against the memory"}

    def __init__(self, parts: int = 3, samples: int = 64, margin: float = 0.5):
        if not 1 <= parts <= 20:
            raise BadInput(f"gem.parts is how many parts of the past are heard, from 1 to 20; got {parts}")
        if samples < 1:
            raise BadInput(f"gem.samples is how many memories of each part are asked in a step, 1 or more; got {samples}")
        if margin < 0:
            raise BadInput(f"gem.margin is how much the past is leant to, 0 or more; got {margin}")
        self.parts, self.samples, self.margin = parts, samples, margin

    def prepare(self, towers: Towers, update: Update) -> None:
        """Ask the memory by an objective of its own."""
        self.objective = update.objective.of_others(update.memory.examples.targets)

    def project(self, towers: Towers, update: Update) -> None:
        """Move the gradient to where no part of the memory speaks against it."""
        ages = [age for age in np.array_split(np.arange(len(update.memory)), self.parts) if len(age)]
        past = [gradient_of(towers, _remembered(age, self.samples, towers, update), self.objective) for age in ages]
        mine = gradient(towers)
        along = np.array([product(each, mine) for each in past])
        if not len(past) or along.min() >= 0:
            return
        between = np.array([[product(one, other) for other in past] for one in past])
        for each, times in zip(past, nearest_allowed(between, along, self.margin), strict=True):
            if times > 0:
                add(towers, each, float(times))


def nearest_allowed(between: np.ndarray, along: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """Return how much of each part's gradient to add, (k,): the dual of GEM's quadratic program (equation 11), plus the margin of each.

    between (k, k) inner products of the parts' gradients, along (k,) theirs with the step's: minimise v' between v / 2 + along' v, v >= 0.
    """
    root = np.linalg.cholesky(between + 1e-9 * max(1e-12, np.trace(between) / len(between)) * np.eye(len(between)))
    found, _ = nnls(root.T, -np.linalg.solve(root, along))
    return found + margin


def _remembered(which: np.ndarray, samples: int, towers: Towers, update: Update) -> Batch:
    some = update.memory.examples.take(which[update.rng.integers(0, len(which), samples)])
    return batch(some, some.drawn(update.wishes, update.rng)).to(towers.log_scale.device)
