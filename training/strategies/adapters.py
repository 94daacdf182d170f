"""Low-rank adapters (LoRA: Hu et al., ICLR 2022, arXiv 2106.09685, Section 4.1): the user tower stays, a small product beside it learns.

W = W0 + alpha / rank * up @ down, with `down` drawn from a Gaussian and `up` zero, so that the first score is the parent's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from recsys.batches import Batch
from recsys.errors import BadInput
from recsys.towers import Towers
from training.strategies.base import Strategy, Update


@dataclass
class _Pair:
    """A matrix of the tower, what it was before this update, and the two thin ones whose product is what it has learned in it."""

    name: str
    weight: nn.Parameter
    before: Tensor
    down: nn.Parameter
    up: nn.Parameter


class Adapters(Strategy):
    """Freeze the dense weights of the user tower; train a product of rank `rank`, anew in each update, beside each of its matrices.

    Items and the temperature learn as ever or, with items=False, new items alone. Each matrix holds the whole sum at every step and takes
    its gradient under its own name (the chain rule hands it on to `down` and `up`), so that what else reads, holds or edits weights goes
    with it, and serving sees a tower like any other. The base, as it was before the first adapter, travels in the release, and what this
    update added to its parent: `recsys releases strip` brings the base back bit for bit.
    """

    name = "adapters"
    reshapes = True

    def __init__(self, rank: int = 8, alpha: float = 8.0, items: bool = True):
        if rank < 1:
            raise BadInput(f"adapters.rank is how many directions a matrix may learn in, 1 or more; got {rank}")
        if alpha <= 0:
            raise BadInput(f"adapters.alpha / rank is what the product is multiplied by, more than 0; got {alpha}")
        self.rank, self.scale, self.items = rank, alpha / rank, items
        self.pairs: list[_Pair] = []
        self.kept: dict[str, Tensor] = {}

    def prepare(self, towers: Towers, update: Update) -> None:
        """Freeze the tower, and lay a pair beside each of its matrices; `up` is zero."""
        if update.parent is None:
            return
        if not self.kept:
            self.kept = {f"base/{name}": weight.detach().clone() for name, weight in towers.users.named_parameters()}
        towers.users.requires_grad_(False)
        towers.items.content.weight.requires_grad_(self.items)  # its rows are shared by old items and new ones
        before = dict(update.parent.users.named_parameters())
        beside = nn.ParameterList()
        for name, weight in _matrices(towers):
            rank, (rows, columns) = min(self.rank, *weight.shape), weight.shape
            drawn = torch.from_numpy(update.rng.standard_normal((rank, columns))).to(weight) / columns**0.5
            down, up = nn.Parameter(drawn), nn.Parameter(weight.new_zeros(rows, rank))
            beside.extend([down, up])
            self.pairs.append(_Pair(name, weight, before[name], down, up))
            weight.requires_grad_(True)
        towers.add_module("adapters", beside)  # so that they are among what is trained

    def mix(self, batch: Batch, update: Update) -> Batch:
        """Put into each matrix what its pair has come to."""
        self._fold()
        return batch

    def project(self, towers: Towers, update: Update) -> None:
        """Hand the gradient of each matrix on to its pair; keep it from the rows of known items, where they are not to learn."""
        for pair in self.pairs:
            grad, pair.weight.grad = pair.weight.grad, None
            if grad is not None:
                pair.down.grad, pair.up.grad = self.scale * pair.up.detach().T @ grad, self.scale * grad @ pair.down.detach().T
        table = towers.items.ids.weight
        if self.pairs and not self.items and table.grad is not None:
            grad = table.grad.coalesce()
            new = grad.indices()[0] >= update.known
            table.grad = torch.sparse_coo_tensor(grad.indices()[:, new], grad.values()[new], grad.shape, check_invariants=False)

    def settle(self, towers: Towers, update: Update) -> None:
        """Fold the pairs into the tower and take them away; keep a copy beside the base."""
        if not self.pairs:
            return
        self._fold()
        pairs = {(pair.name, side): getattr(pair, side) for pair in self.pairs for side in ("down", "up")}
        base = {key: tensor for key, tensor in self.kept.items() if key.startswith("base/")}
        self.kept = {**base, **{f"{side}/{name}": value.detach().clone() for (name, side), value in pairs.items()}}
        self.kept["scale"] = torch.tensor(self.scale)
        self.pairs = []
        del towers.adapters
        towers.requires_grad_(True)

    def state(self) -> dict[str, Tensor]:
        """Return the base, and what this update has added to its parent (scale * up @ down)."""
        return self.kept

    def load(self, state: dict[str, Tensor]) -> None:
        """Take what the parent was built on; where another strategy has trained that, its tower becomes the base."""
        self.kept = state

    @classmethod
    def stripped(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep nothing: there are none any more."""
        return {}

    @torch.no_grad()
    def _fold(self) -> None:
        for pair in self.pairs:
            pair.weight.copy_(pair.before.to(pair.weight) + self.scale * pair.up @ pair.down)


@torch.no_grad()
def strip(towers: Towers, state: dict[str, Tensor]) -> None:
    """Put the base back into a user tower, in place. state: what the strategies of its release remember.

    Raises BadInput where its tower has no adapters.
    """
    prefix = f"{Adapters.name}/base/"
    base = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    if not base:
        raise BadInput(
            "it has no adapters to take away, for it was not made by them or is stripped already; they come with: "
            "recsys update --strategy adapters, and stay until an update by another strategy"
        )
    for name, weight in towers.users.named_parameters():
        weight.copy_(base[name])


def _matrices(towers: Towers) -> list[tuple[str, nn.Parameter]]:
    """Return the matrices that something is multiplied by in the user tower: no tables, whose rows are looked up."""
    modules = [(path, module) for path, module in towers.users.named_modules() if not isinstance(module, nn.Embedding)]
    found = [(f"{path}.{name}", weight) for path, module in modules for name, weight in module.named_parameters(recurse=False)]
    return [(name, weight) for name, weight in found if weight.ndim == 2]
