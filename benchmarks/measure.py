"""What every benchmark shares: a result with its floor, and a folder that goes away."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured thing beside its floor, which was measured in the same run; the unit says which way is better."""

    what: str
    measured: float
    unit: str
    floor: float
    floor_is: str

    @property
    def ratio(self) -> float:
        """How far from the floor: 1 is on it, 2 is twice as slow."""
        slow, fast = (self.floor, self.measured) if self.unit.endswith("/s") else (self.measured, self.floor)
        return slow / fast

    def as_dict(self) -> dict[str, Any]:
        """Return it with the ratio, for --json."""
        return {**asdict(self), "ratio": round(self.ratio, 3)}


@contextmanager
def scratch() -> Iterator[Path]:
    """Give an empty folder for the run."""
    with tempfile.TemporaryDirectory(prefix="recsys-bench-") as folder:
        yield Path(folder)


def seconds(work: Callable[[], Any]) -> float:
    """Time one run of something."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
