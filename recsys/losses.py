"""Sampled softmax with the right correction: pure functions that chain, and the objective that joins them.

The correction subtracts from a candidate's score the log of the probability that it is among the candidates at all
(Khrylchenko et al., RecSys 2025, arXiv 2507.09331), and nothing from a row's own positive, which is always there.
"""

import copy
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from recsys.batches import Batch
from recsys.next_session import before, by_scene
from recsys.towers import Towers


def log_inclusion(frequency: Tensor, draws: int, uniform: int, catalogue: int) -> Tensor:
    """Return log(1 - (1 - q)^draws (1 - 1/catalogue)^uniform): how likely an item is among the candidates.

    frequency (C,): q, how often an item is the target of a draw; draws: targets in the batch; uniform: uniform draws.
    """
    missed = draws * torch.log1p(-frequency.clamp(max=1 - 1e-6))
    if uniform:
        missed = missed + uniform * torch.log1p(torch.tensor(-1.0 / max(2, catalogue), dtype=frequency.dtype))
    return torch.log(-torch.expm1(missed)).clamp(min=-30.0)


CELLS = 2**20
"""Scores in hand at once: so many stay in a core's cache, and no step holds them all."""


ROWS, COLUMNS = 32, 256
"""Rows and candidates are filled up with nothing to multiples of these: products in bfloat16 are compiled anew for every shape."""


class SampledSoftmax(torch.autograd.Function):
    """Weighted mean cross-entropy of P rows over C candidates, its gradient made on the way: the scores are never all there at once.

    score = scale * users @ candidates.T + popularity * share[moment] - log_inclusion, but for a row's own positive, which is
    not corrected. users (P, d), candidates (C, d), scale and popularity (), share (M, C), moment (P,), log_inclusion (C,),
    own (P,) the column of each row's positive, weight (P,) -> (). In parts, as cut cross-entropy (Wijmans et al., ICLR 2025).
    precision: of what is multiplied, that of the users if none is given; sums are the users'.
    """

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        candidates: Tensor,
        scale: Tensor,
        popularity: Tensor,
        share: Tensor,
        moment: Tensor,
        log_inclusion: Tensor,
        own: Tensor,
        weight: Tensor,
        precision: torch.dtype | None = None,
    ) -> Tensor:
        """Return the loss, and keep the gradients of users, candidates, scale and popularity."""
        d, moments, precision = users.shape[1], len(share), precision or users.dtype
        rest, more = -len(users) % ROWS, -len(candidates) % COLUMNS
        moment = F.pad(moment % moments, (0, rest))  # -1 is the last
        own, weight = F.pad(own, (0, rest)), F.pad(weight / weight.sum().clamp(min=1e-9), (0, rest))
        start = F.pad(popularity * share - log_inclusion, (0, more), value=-torch.inf)
        spare = -(d + moments) % 16  # rows that end within a cache line make the products half as slow again
        seen = torch.cat([F.pad(scale * users, (0, 0, 0, rest)), F.one_hot(moment, moments + spare).to(users)], 1).to(precision)
        offered = F.pad(candidates, (0, 0, 0, more)).to(precision)
        to_users, losses = users.new_empty(len(seen), d), torch.empty_like(weight)
        to_offered = users.new_zeros(len(offered), seen.shape[1])  # and behind it, to where scores start, by moment
        rows = max(ROWS, CELLS // max(1, len(offered)) // ROWS * ROWS)
        buffer = users.new_empty(min(rows, len(seen)), len(offered))
        for first in range(0, len(seen), rows):
            part = slice(first, first + rows)
            mine, much = own[part], weight[part]
            row = torch.arange(len(mine), device=own.device)
            scores = _product(seen[part, :d], offered.T, buffer[: len(mine)])
            scores += start[moment[part]]  # in full precision: popularity and correction reach from -20 to 0
            positive = scores[row, mine] + log_inclusion[mine]
            scores[row, mine] = positive
            highest = scores.amax(1, keepdim=True)
            total = scores.sub_(highest).exp_().sum(1, keepdim=True)
            losses[part] = (total.log() + highest)[:, 0] - positive
            scores.mul_(much[:, None] / total)
            scores[row, mine] -= much
            slope = scores.to(precision)
            to_users[part] = (slope @ offered).to(users)
            to_offered += slope.T @ seen[part]
        to_users, to_offered = to_users[: len(users)], to_offered[: len(candidates)]
        to_scale, to_popularity = (to_users * users).sum(), (to_offered[:, d : d + moments] * share.T).sum()
        ctx.save_for_backward(to_users.mul_(scale), to_offered[:, :d], to_scale, to_popularity)
        return losses @ weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Give the gradients of users, candidates, scale and popularity."""
        (grad,) = grads
        return *(kept * grad for kept in ctx.saved_tensors), None, None, None, None, None, None


def _product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Multiply matrices into `out`, whose precision may be higher than theirs."""
    return torch.mm(left, right, out=out) if out.dtype == left.dtype else out.copy_(torch.mm(left, right))


class Candidates:
    """Which items a step compares: the batch's own targets and uniform draws, or the whole catalogue when it is small.

    The frequency of targets is followed as it streams by (Yi et al., RecSys 2019), starting from known counts.
    """

    def __init__(self, counts: Tensor, uniform: int, full_below: int, seed: int):
        self.rows = len(counts)
        self.counts = counts.double().clone()
        self.total = float(self.counts.sum())
        self.uniform = uniform
        self.full = self.rows - 1 <= max(full_below, uniform)
        self.random = torch.Generator().manual_seed(seed)

    def observe(self, targets: Tensor) -> None:
        """Count the targets of a batch."""
        self.counts.index_add_(0, targets, torch.ones(len(targets), dtype=torch.float64))
        self.total += len(targets)

    def of_others(self, counts: Tensor) -> "Candidates":
        """Return candidates for targets of another stream, which come as often as `counts` (n,) say."""
        return Candidates(counts, self.uniform, self.rows if self.full else 0, self.random.initial_seed() + 1)

    def draw(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the candidates' rows (C,), their log inclusion (C,) and each target's column among them (P,)."""
        if self.full:
            rows = torch.arange(1, self.rows)
            return rows, torch.zeros(len(rows)), targets - 1
        self.observe(targets)
        drawn = torch.randint(1, self.rows, (self.uniform,), generator=self.random)
        rows, column = torch.unique(torch.cat([targets, drawn]), return_inverse=True)
        frequency = (self.counts[rows] / self.total).float()
        return rows, log_inclusion(frequency, len(targets), self.uniform, self.rows - 1), column[: len(targets)]


class Questions(NamedTuple):
    """What a step asks: at, one for each piece of a batch, which user vectors (Q in all); own, weight, moment (Q,): see SampledSoftmax."""

    at: list[Tensor]
    own: Tensor
    weight: Tensor
    moment: Tensor


class NextItem:
    """The objective: at every event, the next item scores highest.

    What people watch is their taste and what is popular just then. Scores start from the log popularity of the moment
    (log_share (moments, n), a batch says which row), so that the towers need not learn by heart what moves every day.
    precision: see `SampledSoftmax`.
    """

    def __init__(self, candidates: Candidates, log_share: Tensor, precision: torch.dtype | None = None):
        self.candidates, self.log_share, self.precision = candidates, log_share, precision
        self.touched = torch.zeros(0, dtype=torch.int64)
        """The rows that the last batch may move: histories, targets and negatives."""

    def __call__(self, towers: Towers, batch: Batch) -> Tensor:
        """Return the loss of a batch, ()."""
        return self._mean(towers, batch)[0]

    def of_others(self, targets: np.ndarray) -> Self:
        """Return the same objective for a stream of its own, such as the memory's, with those targets (P,): neither follows the other."""
        other = copy.copy(self)
        counts = torch.from_numpy(np.bincount(targets, minlength=self.candidates.rows) + 1e-3)
        other.candidates, other.touched = self.candidates.of_others(counts), self.touched
        return other

    def _asked(self, pieces: list[Batch], questions: Questions) -> Questions:
        """Say what is asked, given the question that every target is to its own event."""
        return questions

    def _mean(self, towers: Towers, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the weighted mean loss of what is asked, and the weights."""
        pieces = batch.pieces(4)
        learn = [piece.weight.flatten().nonzero()[:, 0] for piece in pieces]
        target, weight, moment = (
            torch.cat([getattr(piece, name).flatten()[places] for piece, places in zip(pieces, learn, strict=True)])
            for name in ("target", "weight", "moment")
        )
        rows, log_q, own = (x.to(target.device) for x in self.candidates.draw(target.cpu()))
        # every item passes its tower once, so that its gradient row comes once
        needed, place = torch.unique(torch.cat([rows, *(piece.item.flatten() for piece in pieces)]), return_inverse=True)
        self.touched = needed
        at, own, weight, moment = self._asked(pieces, Questions(learn, own, weight, moment))
        vectors = towers.items(needed)
        candidates, *histories = vectors.index_select(0, place).split([len(rows), *(piece.item.numel() for piece in pieces)])
        users = torch.cat(
            [
                towers.users(told.view(*piece.item.shape, -1), piece.kind, piece.gap, piece.surface).flatten(0, 1).index_select(0, places)
                for told, piece, places in zip(histories, pieces, at, strict=True)
            ]
        )
        share = self.log_share[:, rows.cpu()].to(users)
        how, given = (towers.scale(), towers.popularity), (share, moment, log_q, own, weight, self.precision)
        loss: Tensor = SampledSoftmax.apply(users, candidates, *how, *given)
        return loss, weight


class NextSession(NextItem):
    """The objective of TBGRecall (arXiv 2508.11977): before a session, all of its positive items score highest.

    Every one of them is a target of one user vector, that of the token which opens the session; and of those which opened the `ahead` - 1
    sessions before. What came in the first session of a history has nothing before it and is not asked. The loss is a mean within each
    scene, the type of the target's event, and these are summed: the few likes count as much as the many views. border: see
    recsys.sessions.border.
    """

    def __init__(self, candidates: Candidates, log_share: Tensor, precision: torch.dtype | None, border: int, ahead: int = 1):
        super().__init__(candidates, log_share, precision)
        self.border, self.ahead = border, ahead

    def __call__(self, towers: Towers, batch: Batch) -> Tensor:
        """Return the loss of a batch, (): the sum of its scenes' means."""
        mean, weight = self._mean(towers, batch)
        return mean * weight.sum()

    def _asked(self, pieces: list[Batch], questions: Questions) -> Questions:
        at, which, scenes, first = list[Tensor](), list[Tensor](), list[Tensor](), 0
        for piece, places in zip(pieces, questions.at, strict=True):
            context = before(piece.gap, piece.next_gap, self.border, self.ahead).flatten(0, 1)[places]
            target, turn = (context >= 0).nonzero(as_tuple=True)
            length = piece.item.shape[1]
            at.append(places[target] // length * length + context[target, turn])
            which.append(first + target)
            scenes.append(piece.next_kind.flatten()[places[target]])
            first += len(places)
        chosen = torch.cat(which)
        weight = by_scene(questions.weight[chosen], torch.cat(scenes))
        return Questions(at, questions.own[chosen], weight, questions.moment[chosen])
