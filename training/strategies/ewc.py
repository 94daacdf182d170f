"""Elastic weight consolidation (Kirkpatrick et al., PNAS 2017), online (Schwarz et al., ICML 2018).

Weights that mattered for the past are held near the parent's by a spring as stiff as they mattered: by their Fisher information, by
synaptic intelligence (Zenke, Poole & Ganguli, ICML 2017) or as memory-aware synapses (Aljundi et al., ECCV 2018).
"""

import numpy as np
import torch
from torch import Tensor

from recsys.batches import Batch, Examples
from recsys.errors import BadInput, nearest
from recsys.towers import Towers
from training.strategies.base import Strategy, Update
from training.strategies.gradients import Gradient
from training.strategies.importance import Path, fisher, sensitivity

IMPORTANCE = ("fisher", "si", "mas")


class EWC(Strategy):
    """Add strength / 2 * sum of importance * (weight - parent's weight)^2 to the loss.

    importance: "fisher", the mean of squared gradients of the log-likelihood; "si", how much of the loss each weight took away on its way
    (equations 4 and 5; of the loss without this spring, but with what other strategies add to it); "mas", how much the towers' scores hang
    on it, whatever is right (equation 3). They differ in size by orders of magnitude, and strength with them.
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
        self.held: dict[str, Tensor] = {}
        self.path = Path()

    def project(self, towers: Towers, update: Update) -> None:
        """Hold the rows that others have moved in this step; follow the way of the weights, where that measures what mattered."""
        if self.fisher and update.parent is not None:
            self._hold_others(towers, dict(update.parent.named_parameters()))
        if self.importance == "si":
            self.path.step(towers, self._pull(towers, update))

    def settle(self, towers: Towers, update: Update) -> None:
        """End the way where training has ended, before weights come to rest elsewhere."""
        if self.importance == "si":
            self.path.close(towers)

    def _hold_others(self, towers: Towers, anchors: dict[str, Tensor]) -> None:
        """Add the spring's gradient to rows that have one from another strategy alone, whose words the penalty came before."""
        for name, table in towers.tables().items():
            if table.grad is None or name not in self.held:
                continue
            rest = torch.zeros(len(table), dtype=torch.bool, device=table.device)  # a mask: ten times as quick as to compare the rows
            rest[table.grad._indices()[0]] = True
            rest[self.held[name]] = False
            rest = rest[: len(self.fisher[name])].nonzero()[:, 0]
            if len(rest):
                pull = self.strength * self.fisher[name].to(table)[rest] * (table.detach()[rest] - anchors[name][rest])
                also = torch.sparse_coo_tensor(rest[None], pull, table.shape, check_invariants=False)
                table.grad = (table.grad + also).coalesce()

    def _pull(self, towers: Towers, update: Update) -> Gradient:
        """Return what of the gradient that the towers hold is this spring's."""
        if not self.fisher or update.parent is None:
            return {}
        anchors, found = dict(update.parent.named_parameters()), Gradient()
        for name, p in towers.named_parameters():
            if name not in self.fisher or name not in anchors or p.grad is None:
                continue
            if not p.grad.is_sparse:
                found[name] = self.strength * self.fisher[name].to(p) * (p.detach() - anchors[name])
                continue
            rows = p.grad.coalesce().indices()[0]
            rows = rows[rows < len(self.fisher[name])]
            pull = self.strength * self.fisher[name].to(p)[rows] * (p.detach()[rows] - anchors[name][rows])
            found[name] = torch.sparse_coo_tensor(rows[None], pull, p.shape, check_invariants=False)
        return found

    def penalties(self, towers: Towers, batch: Batch, update: Update) -> dict[str, Tensor]:
        """Return the spring's energy: of every dense weight, and of the table rows that the task moves in this step.

        Those are the rows of the histories, of the targets and of the negatives. Rows that another strategy moves are held in `project`;
        any other stays where it is.
        """
        self.held = {}
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
            if name in self.fisher:
                self.held[name] = known
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
