"""Many like tasks on every core at once, their results in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

Task = TypeVar("Task")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Task], Result], tasks: Iterable[Task], cores: int = 0) -> Iterator[Result]:
    """Give work(task) for each of the tasks, in their order; what numpy and torch do inside is a single thread's work.

    cores: how many at once, 0 for as many as there are. Tasks are drawn as they are needed, so only a few are in memory. An error of one
    comes out in its turn and ends the others.
    """
    cores = cores or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    threads = torch.get_num_threads()
    waiting: deque[Future[Result]] = deque()
    torch.set_num_threads(1)  # pools that fight over the cores cost more than they bring
    try:
        with ThreadPoolExecutor(cores, "side-by-side") as pool, threadpool_limits(1, "blas"):
            for task in tasks:
                waiting.append(pool.submit(work, task))
                if len(waiting) > cores:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(threads)
