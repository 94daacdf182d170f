"""Averages of weights over updates: a running one, and one of the last few."""

from typing import ClassVar

import torch
from torch import Tensor

from recsys.errors import BadInput
from recsys.towers import Towers
from training.strategies.base import Strategy, Update


class Ema(Strategy):
    """Go only part of the way from the parent: weights = decay * parent + (1 - decay) * what was trained, a running mean over updates.

    Between two weights of one descent lie better ones than either (Izmailov et al., UAI 2018; of a model and its fine-tuned self: Wortsman
    et al., CVPR 2022). New items keep what they learned.
    """

    name = "ema"
    excludes: ClassVar[dict[str, str]] = {"soup": "both say where the weights come to rest"}
    averages = True

    def __init__(self, decay: float = 0.3):
        if not 0 <= decay < 1:
            raise BadInput(f"ema.decay is how much of the parent stays, from 0 to less than 1; got {decay}")
        self.decay = decay

    @torch.no_grad()
    def settle(self, towers: Towers, update: Update) -> None:
        """Mix the parent in."""
        if update.parent is None:
            return
        before = dict(update.parent.named_parameters())
        for name, weight in towers.named_parameters():
            if name not in before:
                continue  # of a column that is new
            old = _known(before[name].to(weight), name, update)
            weight[: len(old)].lerp_(old, self.decay) if weight.ndim else weight.lerp_(old, self.decay)


class Soup(Strategy):
    """Serve, and go on from, the mean of what the last updates have trained (model soup, uniform: Wortsman et al., ICML 2022)."""

    name = "soup"
    excludes: ClassVar[dict[str, str]] = {"ema": "both say where the weights come to rest"}
    averages = True

    def __init__(self, last: int = 3):
        if last < 1:
            raise BadInput(f"soup.last is how many updates are averaged, 1 or more; got {last}")
        self.last = last
        self.trained: list[dict[str, Tensor]] = []

    @torch.no_grad()
    def settle(self, towers: Towers, update: Update) -> None:
        """Keep what was trained, and take the mean of what is kept; of a new item over those that know it."""
        self.trained = [*self.trained, {name: weight.detach().clone() for name, weight in towers.named_parameters()}][-self.last :]
        for name, weight in towers.named_parameters():
            total, times = torch.zeros_like(weight), torch.zeros(weight.shape[:1] or (1,), device=weight.device)
            for trained in (trained for trained in self.trained if name in trained):
                part = trained[name].to(weight)
                rows = slice(None, len(part)) if weight.ndim else slice(None)
                (total[rows] if weight.ndim else total).add_(part)
                times[rows] += 1
            weight.copy_(total / times.view(-1, *[1] * (weight.ndim - 1)) if weight.ndim else total / times[0])

    def state(self) -> dict[str, Tensor]:
        """Return what the last updates have trained, the oldest first."""
        return {f"{place}/{name}": weight for place, trained in enumerate(self.trained) for name, weight in trained.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take it back."""
        places = sorted({int(name.partition("/")[0]) for name in state})
        self.trained = [{name.partition("/")[2]: w for name, w in state.items() if name.startswith(f"{place}/")} for place in places]

    @classmethod
    def stripped(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep what was trained of all but the user tower: of that the mean is begun anew."""
        return {name: weight for name, weight in state.items() if not name.partition("/")[2].startswith("users.")}


def _known(weight: Tensor, name: str, update: Update) -> Tensor:
    """Return the part of a parent's weight that it had learned: of the items' rows those that it knew."""
    return weight[: update.known] if name == "items.ids.weight" else weight
