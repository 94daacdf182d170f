"""Gradients of towers, dense ones and those of table rows, as vectors that can be multiplied and added."""

import torch
from torch import Tensor

from recsys.batches import Batch
from recsys.losses import NextItem
from recsys.towers import Towers

Gradient = dict[str, Tensor]
"""By the name of the parameter; of the tables sparse and coalesced."""


def gradient(towers: Towers) -> Gradient:
    """Return the gradient that the towers hold."""
    return {
        name: p.grad.detach().coalesce() if p.grad.is_sparse else p.grad.detach().clone()
        for name, p in towers.named_parameters()
        if p.grad is not None
    }


def gradient_of(towers: Towers, batch: Batch, objective: NextItem) -> Gradient:
    """Return the gradient of an objective on a batch; that which the towers hold stays."""
    held = {name: p.grad for name, p in towers.named_parameters()}
    towers.zero_grad(set_to_none=True)
    objective(towers, batch).backward()
    found = gradient(towers)
    for name, p in towers.named_parameters():
        p.grad = held[name]
    return found


def product(one: Gradient, other: Gradient) -> float:
    """Return the inner product of two gradients."""
    total = 0.0
    for name in one.keys() & other.keys():
        a, b = one[name], other[name]
        if a.is_sparse:
            rows, other_rows = a.indices()[0], b.indices()[0]
            place = torch.searchsorted(other_rows, rows).clamp(max=max(0, len(other_rows) - 1))
            both = other_rows[place] == rows if len(other_rows) else torch.zeros(len(rows), dtype=torch.bool)
            total += (a.values()[both] * b.values()[place[both]]).sum().item()
        else:
            total += (a * b).sum().item()
    return total


def add(towers: Towers, other: Gradient, times: float) -> None:
    """Add a multiple of a gradient to that which the towers hold."""
    for name, p in towers.named_parameters():
        if name in other:
            moved = other[name] * times
            p.grad = moved if p.grad is None else (p.grad + moved).coalesce() if p.grad.is_sparse else p.grad + moved
