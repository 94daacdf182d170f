"""A progress bar on stderr, and only where somebody watches."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

Step = Callable[[str, int, int], None]
"""Called as step("reading ratings.csv", done, total)."""


def silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


@contextmanager
def bar(quiet: bool = False) -> Iterator[Step]:
    """Give a `Step` that draws one bar per thing that is done; silent where stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield silent
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, int] = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = int(progress.add_task(what, total=total))
            progress.update(progress.task_ids[tasks[what]], completed=done, total=total)

        yield step
