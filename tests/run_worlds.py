"""What tests of whole runs share: tiny towers, a plan, and a call that stops half way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from replay_worlds import DAY, a_log

from eval.command import Question
from eval.protocols import Plan, prequential
from eval.results import Results
from recsys.settings import load_settings

TINY = load_settings(
    environ={},
    overrides={"model.dim": 8, "model.blocks": 1, "training.epochs": 2, "update.epochs": 1, "training.negatives": 8, "training.threads": 1},
)


def plan() -> Plan:
    return prequential(a_log(), window_seconds=DAY, train=4)


def told(results: Results) -> dict[str, Any]:
    """All that a replay found but the time and memory it took."""
    return {
        f"{name} {seed} {each.window}": (
            each.ranks.tolist(), each.lists, each.cost.examples, each.cost.index_loss, each.cost.stale_loss,
            None if each.matrix is None else each.matrix.tolist(),
        )
        for name, seeds in results.answers.items() for seed, answers in enumerate(seeds) for each in answers
    }  # fmt: skip


def stopping(call: Callable[..., Any], at: int) -> Callable[..., Any]:
    """The same, but the `at`-th call is interrupted when it is half done."""
    calls = iter(range(1, 1000))

    def stops(*arguments: Any, **named: Any) -> Any:
        found = call(*arguments, **named)
        if next(calls) == at:
            raise KeyboardInterrupt
        return found

    return stops


def write_log(path: Path) -> Path:
    log = a_log()
    seconds = [time.timestamp() for time in log["timestamp"].to_pylist()]
    rows = zip(log["user_id"].to_pylist(), log["item_id"].to_pylist(), seconds, strict=True)
    path.write_text("user_id,item_id,timestamp\n" + "".join(f"{user},{item},{1_700_000_000 + time:.0f}\n" for user, item, time in rows))
    return path


def question(path: Path, **changed: Any) -> Question:
    asked: dict[str, Any] = {
        "protocol": "prequential", "data": (path,), "items": (), "home": None, "window": float(DAY), "train": 4, "cycles": None,
        "methods": "popular,knn", "ks": (5, 20), "exclude_seen": True, "filter_unseen": False, "seeds": 1, "matrix": None, "settings": TINY,
    }  # fmt: skip
    return Question(**asked | changed)
