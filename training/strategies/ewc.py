"""Elastic weight consolidation (Kirkpatrick et al., PNAS 2017), online (Schwarz et al., ICML 2018).

Weights that mattered for the past are held near the parent's by a spring as stiff as they mattered: by their Fisher information, by
synaptic intelligence (Zenke, Poole & Ganguli, ICML 2017) or as memory-aware synapses (Aljundi et al., ECCV 2018).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from recsys.batches import Batch, Examples, batch
from recsys.errors import BadInput, nearest
from recsys.towers import Towers
from training.strategies.answers import drawn, logits
from training.strategies.base import Strategy, Update
from training.strategies.gradients import gradient

IMPORTANCE = ("fisher", "si", "mas")

DAMPING = 1e-3
"""Of how far a weight went, squared: with less, one that hardly moved would be held without bound (SI, equation 5)."""


class EWC(Strategy):
    """Add strength / 2 * sum of importance * (weight - parent's weight)^2 to the loss.

    importance: "fisher", the mean of squared gradients of the log-likelihood; "si", how much of the loss each weight took away on its way
    (equations 4 and 5); "mas", how much the towers' scores hang on it, whatever is right (equation 3). They differ in size by orders of
    magnitude, and strength with them.
    """

    name = "ewc"

    def __init__(self, strength: float = 1.0, gamma: float = 0.9, samples: int = 256, importance: str = "fisher"):
        if strength < 0:
            raise BadInput(f"ewc.strength is how stiff the spring to the parent is, 0 or more; got {strength}")
        if not 0 <= gamma <= 1:
            raise BadInput(f"ewc.gamma is what is kept of the older importance, from 0 to 1; got {gamma}")
        if samples < 1:
            raise BadInput(f"ewc.samples is how many sessions measure the importance, 1 or more; got {samples}")
        if importance not in IMPORTANCE:
            raise BadInput(f"ewc.importance is how it is measured what mattered; {nearest(str(importance), IMPORTANCE)}")
        self.strength, self.gamma, self.samples, self.importance = strength, gamma, samples, importance
        self.fisher: dict[str, Tensor] = {}
        self.path = Path()

    def project(self, towers: Towers, update: Update) -> None:
        """Follow the way of the weights, where that measures what mattered."""
        if self.importance == "si":
            self.path.step(towers)

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
        if self.importance == "si":
            new = self.path.end(towers)
        else:
            chosen = update.rng.choice(len(examples), min(self.samples, len(examples)), replace=False)
            measure = fisher if self.importance == "fisher" else sensitivity
            new = measure(towers, examples.take(np.sort(chosen)), update)
        for name, old in self.fisher.items():
            known = new[name][: len(old)] if old.ndim else new[name]  # tables have grown since
            known += self.gamma * old
        self.fisher = new

    def state(self) -> dict[str, Tensor]:
        """Return the Fisher and how it was measured; of the tables, the rows that are not zero and which they are."""
        saved = {":importance": torch.tensor(IMPORTANCE.index(self.importance))} if self.fisher else {}
        for name, value in self.fisher.items():
            if value.ndim == 2 and name.startswith("items."):
                rows = torch.nonzero(value.abs().sum(1)).flatten()
                saved |= {f"{name}:rows": rows, f"{name}:size": torch.tensor(len(value)), f"{name}:values": value[rows].clone()}
            else:
                saved[name] = value
        return saved

    def load(self, state: dict[str, Tensor]) -> None:
        """Take the parent's Fisher; one that was measured in another way, and is of another size, is begun anew."""
        if ":importance" not in state or IMPORTANCE[int(state[":importance"])] != self.importance:
            return
        self.fisher = {name: value for name, value in state.items() if ":" not in name}
        for name in (key.removesuffix(":rows") for key in state if key.endswith(":rows")):
            values = state[f"{name}:values"]
            full = torch.zeros(int(state[f"{name}:size"]), values.shape[1])
            self.fisher[name] = full.index_copy(0, state[f"{name}:rows"], values)


def fisher(towers: Towers, examples: Examples, update: Update) -> dict[str, Tensor]:
    """Return the diagonal of the empirical Fisher: the gradient of each session's log-likelihood, squared, then averaged.

    Squaring the gradient of a batch mean instead (a common slip) lets opposite gradients cancel.
    """

    def log_likelihood(one: Batch) -> Tensor:
        return update.objective(towers, one) * one.weight.sum()

    return _mean(towers, examples, log_likelihood, 2)


def sensitivity(towers: Towers, examples: Examples, update: Update) -> dict[str, Tensor]:
    """Return how much the scores hang on each weight: the absolute gradient of each session's squared scores, then averaged.

    (MAS, equations 2 and 3.) The scores are those of up to 256 items, drawn once.
    """
    rows = drawn(len(towers.items.ids.weight), 256, update).to(towers.log_scale.device)

    def scores(one: Batch) -> Tensor:
        return logits(towers, one, rows, update, one.weight > 0).square().sum(1).mean()

    return _mean(towers, examples, scores, 1)


def _mean(towers: Towers, examples: Examples, value: Callable[[Batch], Tensor], power: int) -> dict[str, Tensor]:
    """Return the gradient of a value of each example, its size to a power, then averaged."""
    weights = dict(towers.named_parameters())
    total = {name: torch.zeros(p.shape) for name, p in weights.items()}
    towers.eval()
    towers.zero_grad(set_to_none=True)
    for i in range(len(examples)):
        one = batch(examples.take(np.array([i]))).to(towers.log_scale.device)
        value(one).backward()
        for name, p in weights.items():
            if p.grad is None:
                continue
            if p.grad.is_sparse:
                grad = p.grad.coalesce()
                total[name].index_add_(0, grad.indices()[0].cpu(), grad.values().cpu().abs() ** power)
            else:
                total[name] += p.grad.cpu().abs() ** power
            p.grad = None
    return {name: value / len(examples) for name, value in total.items()}


class Path:
    """What each weight took away from the loss on its way: the sum over steps of -gradient * move (SI, equation 4)."""

    def __init__(self) -> None:
        self.gained: dict[str, Tensor] = {}
        self.began: dict[str, Tensor] = {}
        self.last: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def step(self, towers: Towers) -> None:
        """Add the last step, whose gradient is known, and keep the gradient of the one that comes."""
        self._add(towers)
        if not self.began:
            self.began = {name: p.detach().clone() for name, p in towers.named_parameters()}
        weights = dict(towers.named_parameters())
        self.last = {
            name: (grad, weights[name].detach()[grad.indices()[0]] if grad.is_sparse else weights[name].detach().clone())
            for name, grad in gradient(towers).items()
        }

    @torch.no_grad()
    def end(self, towers: Towers) -> dict[str, Tensor]:
        """Return the importance of each weight for what was learned: what it gained by how far it went, squared."""
        self._add(towers)
        found = {name: torch.zeros(p.shape) for name, p in towers.named_parameters()}
        for name, p in towers.named_parameters():
            if name in self.gained:
                way = (p.detach() - self.began[name].to(p)).cpu()
                found[name] = self.gained[name].cpu().clamp(min=0) / (way**2 + DAMPING)
        self.gained, self.began, self.last = {}, {}, {}
        return found

    def _add(self, towers: Towers) -> None:
        for name, p in towers.named_parameters():
            if name not in self.last:
                continue
            grad, before = self.last[name]
            gained = self.gained.setdefault(name, torch.zeros_like(p))
            if grad.is_sparse:
                rows = grad.indices()[0]
                gained.index_add_(0, rows, -grad.values() * (p.detach()[rows] - before))
            else:
                gained -= grad * (p.detach() - before)
