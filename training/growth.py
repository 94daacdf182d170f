"""New items: which there are, and where their first vectors come from."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from recsys.events import HISTORY, milliseconds
from recsys.sessions import Sessions
from recsys.settings import Settings
from recsys.towers import Towers, columns
from recsys.vocab import in_order_of_appearance

TRUST = 2.0
"""How many sightings beside known items make their mean count as much as the item's own content."""


def items_in(events: pa.Table) -> list[str]:
    """Return the items people did something with, in the order of time; impressions alone admit nothing."""
    kept = events.filter(pc.is_in(events["event_type"], value_set=pa.array(sorted(HISTORY))))
    return in_order_of_appearance(kept.take(np.argsort(milliseconds(kept), kind="stable"))["item_id"])


@torch.no_grad()
def grown(towers: Towers, settings: Settings, features: list[list[int]], sessions: Sessions) -> Towers:
    """Return a copy with a row for every entry of `features`; the old rows stay bit for bit.

    A new item starts near its content and the known items it was met beside in `sessions`: the more often it was met,
    the more they count. One with neither starts at a small random vector.
    """
    state = towers.state_dict()
    old = state.pop("items.ids.weight")
    known, rows = len(old), len(features)
    heads = towers.users.labels.tolist()
    bigger = Towers(settings.model, features, settings.data.history, settings.data.session_gap, columns(state), heads)
    bigger.load_state_dict(state, strict=False)
    own = bigger.items.ids.weight
    own[:known] = old
    own[known:] *= 0.1
    if rows == known:
        return bigger
    content, _ = bigger.items.place(torch.arange(rows))
    whole = (own + content)[:known]
    beside, met = _beside(sessions, known, rows)
    if len(beside):
        new, neighbour = (torch.from_numpy(column) for column in beside.T)
        summed = torch.zeros(rows, own.shape[1]).index_add_(0, new, whole[neighbour])
        count = torch.from_numpy(met).float()[:, None]
        lean = count / (count + TRUST)
        place = lean * (summed / count.clamp(min=1)) + (1 - lean) * content
        own[known:] += torch.where(count > 0, place - content, torch.zeros_like(content))[known:]
    return bigger


def _beside(sessions: Sessions, known: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (new row, known row) of events up to 2 apart in one session, and how many pairs each row is in, (n,)."""
    pairs = []
    for apart in (1, 2):
        a, b = sessions.item[:-apart], sessions.item[apart:]
        together = (sessions.session[:-apart] == sessions.session[apart:]) & (a > 0) & (b > 0)
        for new, old in ((a, b), (b, a)):
            chosen = together & (new >= known) & (old < known)
            pairs.append(np.stack([new[chosen], old[chosen]], axis=1))
    beside = np.concatenate(pairs).astype(np.int64)
    return beside, np.bincount(beside[:, 0], minlength=rows)
