"""Elastic weight consolidation (Kirkpatrick et al., PNAS 2017), online (Schwarz et al., ICML 2018).

Weights that mattered for the past are held near the parent's by a spring as stiff as their Fisher information.
"""

import numpy as np
import torch
from torch import Tensor

from recsys.batches import Batch, Examples, batch
from recsys.errors import BadInput
from recsys.towers import Towers
from training.strategies.base import Strategy, Update


class EWC(Strategy):
    """Add strength / 2 * sum of Fisher * (weight - parent's weight)^2 to the loss."""

    name = "ewc"

    def __init__(self, strength: float = 1.0, gamma: float = 0.9, samples: int = 256):
        if strength < 0:
            raise BadInput(f"ewc.strength is how stiff the spring to the parent is, 0 or more; got {strength}")
        if not 0 <= gamma <= 1:
            raise BadInput(f"ewc.gamma is what is kept of the older Fisher, from 0 to 1; got {gamma}")
        if samples < 1:
            raise BadInput(f"ewc.samples is how many sessions measure the Fisher, 1 or more; got {samples}")
        self.strength, self.gamma, self.samples = strength, gamma, int(samples)
        self.fisher: dict[str, Tensor] = {}

    def penalties(self, towers: Towers, batch: Batch, update: Update) -> dict[str, Tensor]:
        """Return the spring's energy: of every dense weight, and of the table rows that this step may move.

        Those are the rows of the histories, of the targets and of the negatives. Any other row stays where it is in this step.
        """
        if not self.fisher or update.parent is None:
            return {}
        anchors = dict(update.parent.named_parameters())
        energy = torch.zeros((), device=batch.item.device)
        for name, weight in towers.dense().items():
            if name in self.fisher:
                energy = energy + (self.fisher[name].to(weight) * (weight - anchors[name]) ** 2).sum()
        rows = update.objective.touched
        touched = {"items.ids.weight": rows, "items.content.weight": torch.unique(towers.items.buckets(rows)[0])}
        for name, table in towers.tables().items():
            known = touched[name][touched[name] < len(self.fisher.get(name, ()))]
            if len(known):
                moved = torch.nn.functional.embedding(known, table, sparse=True) - anchors[name][known]
                energy = energy + (self.fisher[name].to(moved)[known] * moved**2).sum()
        return {"ewc": self.strength / 2 * energy}

    def finish(self, towers: Towers, examples: Examples, update: Update) -> None:
        """Fold the Fisher of what was just learned into that of the past: F <- gamma F + F_new."""
        if not len(examples):
            return
        chosen = update.rng.choice(len(examples), min(self.samples, len(examples)), replace=False)
        new = fisher(towers, examples.take(np.sort(chosen)), update)
        for name, old in self.fisher.items():
            known = new[name][: len(old)] if old.ndim else new[name]  # tables have grown since
            known += self.gamma * old
        self.fisher = new

    def state(self) -> dict[str, Tensor]:
        """Return the Fisher; of the tables, the rows that are not zero and which they are."""
        saved: dict[str, Tensor] = {}
        for name, value in self.fisher.items():
            if value.ndim == 2 and name.startswith("items."):
                rows = torch.nonzero(value.abs().sum(1)).flatten()
                saved |= {f"{name}:rows": rows, f"{name}:size": torch.tensor(len(value)), f"{name}:values": value[rows].clone()}
            else:
                saved[name] = value
        return saved

    def load(self, state: dict[str, Tensor]) -> None:
        """Take the parent's Fisher."""
        self.fisher = {name: value for name, value in state.items() if ":" not in name}
        for name in (key.removesuffix(":rows") for key in state if key.endswith(":rows")):
            values = state[f"{name}:values"]
            full = torch.zeros(int(state[f"{name}:size"]), values.shape[1])
            self.fisher[name] = full.index_copy(0, state[f"{name}:rows"], values)


def fisher(towers: Towers, examples: Examples, update: Update) -> dict[str, Tensor]:
    """Return the diagonal of the empirical Fisher: the gradient of each session's log-likelihood, squared, then averaged.

    Squaring the gradient of a batch mean instead (a common slip) lets opposite gradients cancel.
    """
    total = {name: torch.zeros(p.shape) for name, p in towers.named_parameters()}
    towers.eval()
    for i in range(len(examples)):
        one = batch(examples.take(np.array([i]))).to(towers.log_scale.device)
        towers.zero_grad(set_to_none=True)
        (update.objective(towers, one) * one.weight.sum()).backward()
        for name, p in towers.named_parameters():
            if p.grad is None:
                continue
            if p.grad.is_sparse:
                grad = p.grad.coalesce()
                total[name].index_add_(0, grad.indices()[0].cpu(), grad.values().cpu() ** 2)
            else:
                total[name] += p.grad.cpu() ** 2
    towers.zero_grad(set_to_none=True)
    return {name: value / len(examples) for name, value in total.items()}
