"""Next-session prediction: who sees whom where every session begins with a context token, and what that token is asked.

TBGRecall (arXiv 2508.11977) reads [c, items of session 1, c, items of session 2, ...]. Items of one session are blind to each other, for
their order says little; all of a session stand at one place; and what a session will hold is foretold by the token that opens it.
"""

import torch
from torch import Tensor


def numbers(gaps: Tensor, border: int) -> tuple[Tensor, Tensor]:
    """Say which events open another session than the one before, (B, L) bool, and which session each belongs to, (B, L) from 0 on.

    gaps (B, L) buckets; a silence of bucket `border` or more parts two sessions (recsys.sessions.border).
    """
    opens = gaps >= border
    return opens, opens.long().cumsum(1)


def sight(opens: Tensor, number: Tensor) -> Tensor:
    """Say what each token sees: opens, number (B, L) -> (B, 2L + 1, 2L + 1) bool, True where the row's token sees the column's.

    The tokens are L events, then L + 1 context tokens: one before all events, and one behind each. Each sees itself. An event sees the
    events of earlier sessions and the context tokens of these and its own. A context token sees every event before it and the context
    tokens of the sessions these belong to; only one that opens a session of the history is seen by others.
    """
    length = number.shape[1]
    places = torch.arange(length + 1, device=number.device)
    never = torch.zeros_like(opens[:, :1])
    real = torch.cat([opens, never], 1) | (places == 0)
    context = torch.cat([torch.zeros_like(number[:, :1]), number + 1], 1)
    newest = torch.cat([number, context - 1], 1)  # the last session whose context token each may see
    by_events = number[:, None, :] < number[:, :, None]
    by_contexts = (places[None, :length] < places[:, None])[None].expand(number.shape[0], -1, -1)
    events = torch.cat([by_events, by_contexts], 1)
    contexts = real[:, None, :] & (context[:, None, :] <= newest[:, :, None])
    return torch.cat([events, contexts], 2) | torch.eye(2 * length + 1, dtype=torch.bool, device=number.device)


def before(gaps: Tensor, next_gap: Tensor, border: int, ahead: int) -> Tensor:
    """Say behind which event stand the context tokens that are asked for what comes next: gaps, next_gap (B, L) -> (B, L, ahead).

    What follows event t, after a silence of next_gap, is foretold by the token that opened its session, which stands behind the last event
    before that session; and, for `ahead` above 1, by those of so many sessions before; -1 where nothing comes before.
    """
    places = torch.arange(gaps.shape[1], device=gaps.device).expand_as(gaps)
    opened = torch.where(gaps >= border, places - 1, -1).cummax(1).values  # behind which event each event's own session opens
    asked = [torch.where(next_gap >= border, places, opened)]
    for _ in range(1, ahead):
        asked.append(torch.where(asked[-1] < 0, -1, opened.gather(1, asked[-1].clamp(min=0))))
    return torch.stack(asked, 2)


def by_scene(weight: Tensor, scene: Tensor) -> Tensor:
    """Divide weights by their sum within each scene: weight, scene (P,) -> (P,). What is left sums to the number of scenes."""
    total = torch.zeros(int(scene.max()) + 1 if len(scene) else 1, dtype=weight.dtype, device=weight.device)
    return weight / total.index_add_(0, scene, weight)[scene].clamp(min=1e-9)
