"""Adam for embedding tables, by rows: a row without a gradient stays bit for bit, and a step costs what it touches."""

from typing import Any

import torch


class RowAdam(torch.optim.Optimizer):
    """Divide each gradient by the root of its mean square over *time*, as dense Adam does (Kingma & Ba, ICLR 2015).

    torch's SparseAdam lets a row's mean square fade only when the row is touched, so that a row met once in a hundred steps moves as
    if it were met in each. Here it fades with every step, from when the row was touched last; rare rows then take the larger steps
    that dense Adam gives them, most of them through momentum after the event, here at once.
    """

    def __init__(self, tables: list[torch.nn.Parameter], lr: float, fading: float = 0.999, eps: float = 1e-8):
        super().__init__(tables, {"lr": lr, "fading": fading, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the rows that have a gradient (sparse, coalesced or not)."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._step(table, group["lr"], group["fading"], group["eps"])

    def _step(self, table: torch.nn.Parameter, lr: float, fading: float, eps: float) -> None:
        state = self.state[table]
        if not state:
            state["steps"], state["square"] = 0, torch.zeros_like(table)
            state["touched"] = torch.zeros(len(table), dtype=torch.int64, device=table.device)
        state["steps"] += 1
        grad = table.grad.coalesce()  # type: ignore[union-attr]
        rows, slope = grad.indices()[0], grad.values()
        idle = state["steps"] - state["touched"][rows]
        square = state["square"].index_select(0, rows).mul_((fading**idle)[:, None]).addcmul_(slope, slope, value=1 - fading)
        state["square"].index_copy_(0, rows, square)
        state["touched"][rows] = state["steps"]
        table.index_add_(0, rows, slope / square.div_(1 - fading ** state["steps"]).sqrt_().add_(eps), alpha=-lr)
