"""A head for each task label (Li & Hoiem, Learning without Forgetting, ECCV 2016, arXiv 1606.09282, Section 3): the trunk is shared."""

from typing import ClassVar

from recsys.errors import BadInput
from recsys.events import surface_number
from recsys.towers import Towers
from training.strategies.base import Strategy, Update


class Heads(Strategy):
    """Give each `surface` that events name a head of its own behind the user tower, when it first has `least` of an update's events.

    A head is a matrix whose product is added to what the trunk says of somebody; it is zero when it is born, so that every score is the
    parent's. It learns from the events of its surface alone, new or remembered, and is asked where a request says that surface; any other
    request is answered by the trunk. `most` heads at most: a label is a client's word, and each head is a matrix in every release.
    """

    name = "heads"
    excludes: ClassVar[dict[str, str]] = {"adapters": "what brings a base back that had no head cannot say where the heads should go"}
    by_event = "a session is read in one, wherever each of its events happened"

    def __init__(self, least: int = 100, most: int = 16):
        for setting, value, what in (
            ("least", least, "how many events of an update give a surface its head"),
            ("most", most, "how many heads there may be"),
        ):
            if value < 1:
                raise BadInput(f"heads.{setting} is {what}, 1 or more; got {value}")
        self.least, self.most = least, most

    def prepare(self, towers: Towers, update: Update) -> None:
        """Add a head for every surface that has come."""
        if update.parent is None:
            return
        known = set(towers.users.labels.tolist())
        for name, count in update.surfaces.items():
            number = surface_number(name)
            if number not in known and count >= self.least and len(towers.users.heads) < self.most:
                towers.users.branch(number)
                known.add(number)
        update.notes["heads"] = float(len(towers.users.heads))
