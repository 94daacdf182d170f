"""What mattered: how much of what was learned hangs on each weight. Measures for EWC; no strategy is defined here."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from recsys.batches import Batch, Examples, batch
from recsys.towers import Towers
from training.strategies.answers import drawn, logits
from training.strategies.base import Update
from training.strategies.gradients import Gradient, gradient

DAMPING = 1e-3
"""Of how far a weight went, squared: with less, one that hardly moved would be held without bound (SI, equation 5)."""


def fisher(towers: Towers, examples: Examples, update: Update) -> dict[str, Tensor]:
    """Return the diagonal of the empirical Fisher: the gradient of each session's log-likelihood, squared, then averaged.

    Squaring the gradient of a batch mean instead (a common slip) lets opposite gradients cancel.
    """

    def log_likelihood(one: Batch) -> Tensor:
        return update.objective(towers, one) * one.weight.sum()

    return _mean(towers, examples, log_likelihood, 2)


def sensitivity(towers: Towers, examples: Examples, update: Update) -> dict[str, Tensor]:
    """Return how much the scores hang on each weight: the absolute gradient of each session's squared scores, then averaged.

    (MAS, equations 2 and 3.) The scores are those of up to 256 items, drawn once, each from their mean: what all have alike changes no
    answer.
    """
    rows = drawn(len(towers.items.ids.weight), 256, update).to(towers.log_scale.device)

    def scores(one: Batch) -> Tensor:
        found = logits(towers, one, rows, update, one.weight > 0)
        return (found - found.mean(1, keepdim=True)).square().sum(1).mean()

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
        self.ended: dict[str, Tensor] = {}

    @torch.no_grad()
    def step(self, towers: Towers, other: Gradient | None = None) -> None:
        """Add the last step, whose gradient is known, and keep the gradient of the one that comes, without `other`, a part of it."""
        self._add(towers)
        if not self.began:
            self.began = {name: p.detach().clone() for name, p in towers.named_parameters()}
        weights = dict(towers.named_parameters())
        self.last = {}
        for name, grad in gradient(towers).items():
            if other and name in other:
                grad = (grad - other[name]).coalesce() if grad.is_sparse else grad - other[name]
            before = weights[name].detach()
            self.last[name] = grad, before[grad.indices()[0]] if grad.is_sparse else before.clone()

    @torch.no_grad()
    def close(self, towers: Towers) -> None:
        """Add the last step: the way ends where the towers are now."""
        self._add(towers)
        self.last, self.ended = {}, {name: p.detach().clone() for name, p in towers.named_parameters()}

    @torch.no_grad()
    def end(self, towers: Towers) -> dict[str, Tensor]:
        """Return the importance of each weight for what was learned: what it gained by how far it went, squared. Begin another way."""
        found = {name: torch.zeros(p.shape) for name, p in towers.named_parameters()}
        for name in found.keys() & self.gained.keys():
            way = self.ended[name].cpu() - self.began[name].cpu()
            found[name] = self.gained[name].cpu().clamp(min=0) / (way**2 + DAMPING)
        self.gained, self.began, self.last, self.ended = {}, {}, {}, {}
        return found

    def _add(self, towers: Towers) -> None:
        for name, p in towers.named_parameters():
            if name not in self.last:
                continue
            grad, before = (kept.to(p.device) for kept in self.last[name])  # training may have been elsewhere
            gained = self.gained[name] = self.gained[name].to(p) if name in self.gained else torch.zeros_like(p)
            if grad.is_sparse:
                rows = grad.indices()[0]
                gained.index_add_(0, rows, -grad.values() * (p.detach()[rows] - before))
            else:
                gained -= grad * (p.detach() - before)
