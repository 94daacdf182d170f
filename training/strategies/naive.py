"""Plain gradient steps on the new sessions: the baseline that forgets."""

from training.strategies.base import Strategy


class Naive(Strategy):
    """Train on the new sessions and nothing else."""

    name = "naive"
