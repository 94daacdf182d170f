"""What is kept of a replay: of each window what was asked, and of each method how it answered."""

from dataclasses import dataclass, field

import numpy as np

from eval.cost import Cost

Slices = dict[str, dict[str, np.ndarray]]
"""Group and name -> which wanted items belong there, (R,) bool."""


@dataclass(frozen=True)
class Asked:
    """What was asked in one window.

    begin: when it begins, ms; n_items: vocabulary rows; start (Q + 1,): where each query's wanted items begin; owner (Q,): whose
    timeline it is about; counts: how much there was to ask.
    """

    window: int
    begin: int
    n_items: int
    start: np.ndarray
    owner: np.ndarray
    counts: dict[str, int]
    slices: Slices


@dataclass(frozen=True)
class Answers:
    """How one method under one seed answered one window.

    ranks (R,): of every wanted item; shown (Q, k): the rows of each list, 0 for nothing, None where they are not at hand; lists: figures
    of those lists; matrix (W,): recall of this state of the method on a sample of every window, None where it was not asked.
    """

    method: str
    seed: int
    window: int
    ranks: np.ndarray
    lists: dict[str, float]
    cost: Cost
    shown: np.ndarray | None = field(default=None, repr=False)
    matrix: np.ndarray | None = None
