"""Dark experience replay (Buzzega et al., NeurIPS 2020): what the towers said then, of examples of then, is what they should say now."""

from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from recsys.batches import Batch, Examples
from recsys.batches import batch as as_batch
from recsys.errors import BadInput
from recsys.towers import Towers
from training.strategies.answers import drawn, last_places, parts_of
from training.strategies.base import Strategy, Update


class Der(Strategy):
    """Add weight * mean squared difference between logits now and as they were stored, over a fixed set of items of each update.

    (Equation 6.) size: examples kept, a uniform sample of all ever learned; items: how many items' logits are kept of each;
    share: how many are asked in a step, as a share of the batch. Logits are of taste alone: popularity moves on by itself.
    """

    name = "der"

    def __init__(self, weight: float = 0.1, size: int = 5000, items: int = 64, share: float = 0.5):
        if weight < 0:
            raise BadInput(f"der.weight is how much the stored logits count, 0 or more; got {weight}")
        if size < 1 or items < 1:
            raise BadInput(f"der.size and der.items are 1 or more; got {size} and {items}")
        if share <= 0:
            raise BadInput(f"der.share is how many stored examples are asked beside each new one, more than 0; got {share}")
        self.weight, self.size, self.items, self.share = weight, size, items, share
        self.examples, self.keys = Examples.none(), np.zeros(0)
        self.rows, self.logits = np.zeros((0, self.items), np.int32), np.zeros((0, self.items), np.float32)

    def penalties(self, towers: Towers, batch: Batch, update: Update) -> dict[str, Tensor]:
        """Return how far what the towers say of stored examples is from what they said then."""
        if update.parent is None or not len(self.examples):
            return {}
        which = update.rng.integers(0, len(self.examples), max(1, round(self.share * len(batch))))
        some = as_batch(self.examples.take(which)).to(batch.item.device)
        rows = torch.from_numpy(self.rows[which].astype(np.int64)).to(batch.item.device)
        then = torch.from_numpy(self.logits[which]).to(batch.item.device)
        return {"der": self.weight * (_tastes(towers, some, rows) - then).square().mean()}

    @torch.no_grad()
    def finish(self, towers: Towers, examples: Examples, update: Update) -> None:
        """Offer what was learned to the store, with what the towers say of it now."""
        keys = update.rng.random(len(examples))
        both = np.concatenate([self.keys, keys])
        kept = np.sort(np.argsort(both, kind="stable")[: self.size])
        old, new = kept[kept < len(self.keys)], kept[kept >= len(self.keys)] - len(self.keys)
        if not len(examples) or not len(new):
            return
        added = examples.take(new)
        rows = drawn(len(towers.items.ids.weight), self.items, update).numpy().astype(np.int32)
        rows = np.tile(np.resize(rows, self.items), (len(added), 1))
        batches, asked = parts_of(towers, added), torch.from_numpy(rows[:1].astype(np.int64)).to(towers.log_scale.device)
        logits = [_tastes(towers, some, asked.expand(len(some), -1)).cpu() for some in batches]
        self.examples, self.keys = self.examples.take(old).join(added.remembered()), both[kept]
        self.rows = np.concatenate([self.rows[old], rows])
        self.logits = np.concatenate([self.logits[old], torch.cat(logits).numpy()])

    def state(self) -> dict[str, Tensor]:
        """Return the store."""
        arrays = {f.name: getattr(self.examples, f.name) for f in fields(Examples)}
        arrays |= {"keys": self.keys, "rows": self.rows, "logits": self.logits}
        return {name: torch.from_numpy(array) for name, array in arrays.items()} if len(self.examples) else {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take the store of the parent; one of another width is begun anew."""
        arrays = {name: value.numpy() for name, value in state.items()}
        if arrays and arrays["rows"].shape[1] == self.items:
            self.keys, self.rows, self.logits = (arrays.pop(name) for name in ("keys", "rows", "logits"))
            self.examples = Examples(**arrays)

    @classmethod
    def without(cls, state: dict[str, Tensor], whose: np.ndarray) -> dict[str, Tensor]:
        """Return the store without what some people did."""
        store = cls()
        store.items = state["rows"].shape[1]
        store.load(state)
        kept = np.flatnonzero(~np.isin(store.examples.whose, whose))
        store.examples, store.keys = store.examples.take(kept), store.keys[kept]
        store.rows, store.logits = store.rows[kept], store.logits[kept]
        return store.state()


def _tastes(towers: Towers, some: Batch, rows: Tensor) -> Tensor:
    """Return the logits of `rows` (B, K) before the last event of each example, (B, K)."""
    needed, place = torch.unique(torch.cat([some.item.flatten(), rows.flatten()]), return_inverse=True)
    vectors = towers.items(needed).index_select(0, place)
    seen, wanted = vectors.split([some.item.numel(), rows.numel()])
    users = towers.users(seen.view(*some.item.shape, -1), some.kind, some.gap, some.surface)[last_places(some)]
    found: Tensor = towers.scale() * (wanted.view(*rows.shape, -1) * users[:, None]).sum(-1)
    return found
