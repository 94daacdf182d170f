"""Replay memory: a uniform sample of every session ever learned, of bounded size."""

from dataclasses import dataclass

import numpy as np

from recsys.batches import Examples


@dataclass(frozen=True)
class Memory:
    """Remembered examples, each with the random key that decides who stays (reservoir sampling by keys).

    Keeping the `size` smallest keys of all examples ever offered is a uniform sample of them, whatever the order
    (Efraimidis & Spirakis, 2006); the same seed offers the same keys.
    """

    size: int
    examples: Examples
    keys: np.ndarray

    @classmethod
    def empty(cls, size: int) -> "Memory":
        return cls(size, Examples.none(), np.zeros(0))

    def __len__(self) -> int:
        return len(self.examples)

    def add(self, examples: Examples, seed: list[int]) -> "Memory":
        """Return the memory after offering it more examples, of any order: they are remembered from the oldest on, by their moments."""
        if len(examples):
            examples = examples.take(np.argsort(np.maximum.reduceat(examples.moment, examples.start[:-1]), kind="stable")).remembered()
        keys = np.concatenate([self.keys, np.random.default_rng(seed).random(len(examples))])
        kept = np.sort(np.argsort(keys, kind="stable")[: self.size])
        return Memory(self.size, self.examples.join(examples).take(kept), keys[kept])

    def without(self, whose: np.ndarray) -> "Memory":
        """Return the memory without what some people did: whose (P,) as Examples.whose has them."""
        kept = np.flatnonzero(~np.isin(self.examples.whose, whose))
        return Memory(self.size, self.examples.take(kept), self.keys[kept])
