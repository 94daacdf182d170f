"""Progressive networks (Rusu et al., 2016, arXiv 1606.04671, Section 2): the user tower stays, and a further column beside it learns."""

from typing import ClassVar

from recsys.errors import BadInput
from recsys.towers import Towers
from training.strategies.base import Strategy, Update


class Columns(Strategy):
    """Freeze the user tower and add a column that reads, beside the history, what the old ones say of it; items learn as ever.

    What the new column says counts nothing at first, so that every score is the parent's (see recsys.towers.Column). There are `most` at
    most, for they cost: the newest reads what the others say after every event, not after the last alone (50 events in 0.09, 0.37 and
    0.69 ms by one, two and three columns). From then on the newest is trained further, and the others stay.
    """

    name = "columns"
    excludes: ClassVar[dict[str, str]] = {"adapters": "each freezes the user tower to train something of its own beside it"}
    by_event = "a further column reads events"

    def __init__(self, most: int = 3):
        if most < 2:
            raise BadInput(f"columns.most is how many columns the user tower may have, 2 or more; got {most}")
        self.most = most

    def prepare(self, towers: Towers, update: Update) -> None:
        """Freeze what there is; add a column where there is room."""
        if update.parent is None:
            return
        towers.users.requires_grad_(False)
        towers.users.heads.requires_grad_(True)
        if 1 + len(towers.users.columns) < self.most:
            towers.users.widen()
        towers.users.columns[-1].requires_grad_(True)

    def settle(self, towers: Towers, update: Update) -> None:
        """Let go of what was frozen: another strategy may train it all."""
        towers.users.requires_grad_(True)
