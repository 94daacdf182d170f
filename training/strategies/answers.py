"""What towers say, and how wrong they are, where a batch has something to learn. Shared by the strategies; none is defined here."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recsys.batches import Batch, Examples, batch
from recsys.towers import Towers
from training.strategies.base import Update

ROWS = 512
"""Examples read at once where nothing is learned from them."""


def people(towers: Towers, some: Batch, rows: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:
    """Return who is asked at the places `where` (B, L) bool is true, (P, d), and the vectors of `rows` (C,), (C, d)."""
    needed, place = torch.unique(torch.cat([rows, some.item.flatten()]), return_inverse=True)
    candidates, seen = towers.items(needed).index_select(0, place).split([len(rows), some.item.numel()])
    users = towers.users(seen.view(*some.item.shape, -1), some.kind, some.gap, some.surface)
    return users[where], candidates


def logits(towers: Towers, some: Batch, rows: Tensor, update: Update, where: Tensor) -> Tensor:
    """Return the score of `rows` (C,) at those places, popularity in it: (P, C)."""
    users, candidates = people(towers, some, rows, where)
    share = update.objective.log_share[:, rows.cpu()].to(users)[some.moment[where]]
    return towers.scale() * users @ candidates.T + towers.popularity * share


def divergence(teacher: Tensor, student: Tensor, weight: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T^2 KL(softmax(teacher / T) || softmax(student / T)), the weighted mean over places: (P, C), (P, C), (P,) -> ().

    The square keeps the gradient as large at any temperature (Hinton, Vinyals & Dean, arXiv 1503.02531, section 2.1).
    """
    told, said = F.log_softmax(teacher / temperature, 1), F.log_softmax(student / temperature, 1)
    each = (told.exp() * (told - said)).sum(1)
    return temperature**2 * (each * weight).sum() / weight.sum().clamp(min=1e-9)


def confusion(towers: Towers, some: Batch, rows: Tensor, update: Update) -> Tensor:
    """Return how wrong the towers are about each example, (B,): the mean of -log p(target) among the target and `rows` (C,)."""
    where = some.weight > 0
    target, moment = some.target[where], some.moment[where]
    users, vectors = people(towers, some, torch.cat([rows, target]), where)
    share = update.objective.log_share.to(users)
    others = towers.scale() * users @ vectors[: len(rows)].T + towers.popularity * share[:, rows][moment]
    own = towers.scale() * (users * vectors[len(rows) :]).sum(1) + towers.popularity * share[moment, target]
    others = others.masked_fill(rows[None] == target[:, None], -torch.inf)
    loss = torch.logaddexp(torch.logsumexp(others, 1), own) - own
    example = torch.nonzero(where)[:, 0]
    weight = some.weight[where]
    summed = torch.zeros(len(some), device=loss.device).index_add_(0, example, loss * weight)
    return summed / torch.zeros_like(summed).index_add_(0, example, weight).clamp(min=1e-9)


@torch.no_grad()
def confused(towers: Towers, examples: Examples, rows: Tensor, update: Update) -> np.ndarray:
    """Return the same of many examples, (B,)."""
    parts = [confusion(towers, some, rows, update) for some in parts_of(towers, examples)]
    return torch.cat([torch.zeros(0), *(part.cpu() for part in parts)]).numpy()


@torch.no_grad()
def readers(towers: Towers, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Return who the person of each example is before its last event, (B, d), and that event's item, (B,)."""
    found = []
    for some in parts_of(towers, examples):
        last = last_places(some)
        seen = towers.items(some.item.flatten()).view(*some.item.shape, -1)
        found.append(towers.users(seen, some.kind, some.gap, some.surface)[last].cpu())
    return torch.cat([torch.zeros(0, towers.items.ids.embedding_dim), *found]).numpy(), examples.item[examples.start[1:] - 1]


def last_places(some: Batch) -> Tensor:
    """Return where each example of a batch is asked for its last event, (B, L) bool."""
    length = (some.target > 0).sum(1)
    place: Tensor = torch.arange(some.item.shape[1], device=some.item.device)[None] == (length - 1)[:, None]
    return place


def parts_of(towers: Towers, examples: Examples) -> Iterator[Batch]:
    """Give examples as batches, in order, where the towers are."""
    for first in range(0, len(examples), ROWS):
        yield batch(examples.take(np.arange(first, min(first + ROWS, len(examples))))).to(towers.log_scale.device)


def drawn(n: int, most: int, update: Update, least: int = 1) -> Tensor:
    """Return `most` rows of the items up to `n`, or all of them where there are fewer: (C,)."""
    if n - least <= most:
        return torch.arange(least, max(least, n))
    return torch.from_numpy(np.sort(least + update.rng.choice(n - least, most, replace=False, shuffle=False)))
