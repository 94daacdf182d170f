"""The training loop as a Lightning module: task loss, strategy phases, row-sparse steps."""

import logging
import math
import signal
import warnings
from typing import Any

import lightning
import torch
from torch import Tensor

from recsys.batches import Batch, Batches
from recsys.errors import BadInput
from recsys.progress import Step, silent
from recsys.settings import Training
from recsys.towers import Towers
from training.row_adam import RowAdam
from training.strategies.base import Strategy, Update

SCALE_RATE = 0.1
"""The temperature learns this much slower: at full rate it sharpens until the towers know the log by heart."""


class Learner(lightning.LightningModule):
    """Trains towers on batches the way a strategy wants it.

    Two optimizers: Adam for the dense weights, and Adam by rows for the embedding tables, in which a row without a
    gradient stays bit for bit (dense Adam would move it by momentum) and a step costs what it touches.
    """

    def __init__(self, towers: Towers, strategy: Strategy, update: Update, lr: float, steps: int):
        super().__init__()
        self.automatic_optimization = False
        self.towers, self.strategy, self.update = towers, strategy, update
        self.lr, self.steps = lr, steps

    def configure_optimizers(self) -> Any:
        """One optimizer for the dense weights, one for the table rows; both warm up, then decay to a tenth."""
        dense = self.towers.dense()
        scale = dense.pop("log_scale")
        groups: list[dict[str, Any]] = [{"params": list(dense.values())}, {"params": [scale], "lr": self.lr * SCALE_RATE}]
        both = [
            torch.optim.Adam(groups, lr=self.lr, fused=True),
            RowAdam(list(self.towers.tables().values()), lr=self.lr),
        ]
        return both, [torch.optim.lr_scheduler.LambdaLR(one, self._rate) for one in both]

    def on_fit_start(self) -> None:
        """Bring the parent to where the training happens."""
        if self.update.parent is not None:
            self.update.parent.to(self.device)

    def training_step(self, batch: Batch, _: int) -> None:
        """One step: mix, weigh, task loss, penalties, backward, project, step."""
        batch = self.strategy.weights(self.strategy.mix(batch, self.update), self.update)
        self.update.notes["trained"] = self.update.notes.get("trained", 0.0) + len(batch)
        loss = self.update.objective(self.towers, batch)
        self._note("task", loss)
        for name, term in self.strategy.penalties(self.towers, batch, self.update).items():
            self._note(name, term)
            loss = loss + term
        optimizers: Any = self.optimizers()
        schedules: Any = self.lr_schedulers()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss)
        self.strategy.project(self.towers, self.update)
        torch.nn.utils.clip_grad_norm_(list(self.towers.dense().values()), 5.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()

    def _rate(self, step: int) -> float:
        warm = max(1, min(100, self.steps // 20))
        if step < warm:
            return (step + 1) / warm
        done = min(1.0, (step - warm) / max(1, self.steps - warm))
        return 0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2

    def _note(self, name: str, value: Tensor) -> None:
        """Keep a running mean of a loss term for the release's metrics."""
        key = f"loss/{name}"
        old = self.update.notes.get(key)
        now = float(value.detach())
        self.update.notes[key] = now if old is None else 0.98 * old + 0.02 * now


class _Report(lightning.Callback):
    def __init__(self, step: Step, total: int):
        self.step, self.total = step, total

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.step("training", trainer.fit_loop.epoch_loop.total_batch_idx + 1, self.total)


def learn(
    towers: Towers,
    batches: Batches,
    epochs: int,
    lr: float,
    strategy: Strategy,
    update: Update,
    settings: Training,
    step: Step = silent,
) -> None:
    """Train towers in place."""
    steps = epochs * len(batches)
    if not steps:
        return
    if settings.accelerator == "gpu" and not torch.cuda.is_available():
        raise BadInput("training.accelerator = gpu, but torch sees none here; set it to auto or cpu")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator=settings.accelerator,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[_Report(step, steps)],
        )
        towers.train()
        try:
            trainer.fit(Learner(towers, strategy, update, lr, steps), batches)
        except SystemExit:  # Lightning's answer to Ctrl-C, which it ignores from then on; ours lets every caller clean up
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from None
    towers.to("cpu").eval()
