"""Partial incremental training (TBGRecall, arXiv 2508.11977): each update learns from one part of the people, and the parts rotate."""

import numpy as np

from recsys.batches import Examples
from recsys.errors import BadInput
from training.strategies.base import Strategy, Update


class Partial(Strategy):
    """Learn from the people of one of `buckets` buckets, by the hash of who they are; the next update takes the next bucket.

    What the others did meanwhile is never learned by the towers; neighbours and popularity count it all the same. A first fit learns
    from all.
    """

    name = "partial"

    def __init__(self, buckets: int = 2):
        if buckets < 1:
            raise BadInput(f"partial.buckets is how many parts the people are split into, 1 or more; got {buckets}")
        self.buckets = buckets

    def select(self, examples: Examples, update: Update) -> Examples:
        """Keep the sessions of the bucket whose turn it is."""
        mine = examples.whose % np.uint64(self.buckets) == np.uint64(update.number % self.buckets)
        return examples.take(np.flatnonzero(mine))
