"""Tasks on every core: their order, how far ahead they are drawn, what an error does, and no pool beside them."""

import threading

import pytest
import torch
from threadpoolctl import threadpool_info

from eval.side_by_side import side_by_side


def test_results_come_in_the_order_of_the_tasks_whoever_is_done_first():
    second = threading.Event()

    def work(task: int) -> int:
        if task == 0:
            assert second.wait(10), "the second runs while the first does"
        else:
            second.set()
        return 10 * task

    assert list(side_by_side(work, range(5), cores=2)) == [0, 10, 20, 30, 40]


def test_tasks_are_drawn_as_they_are_needed():
    drawn: list[int] = []

    def tasks():
        for task in range(100):
            drawn.append(task)
            yield task

    results = side_by_side(lambda task: task, tasks(), cores=2)
    assert next(results) == 0
    assert len(drawn) == 3, "one for each core and the one that takes the place of the first"
    assert list(results) == list(range(1, 100))


def test_an_error_comes_in_its_turn_and_ends_the_others():
    begun: list[int] = []

    def work(task: int) -> int:
        begun.append(task)
        if task == 2:
            raise ValueError("the third")
        return task

    results = side_by_side(work, range(100), cores=1)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(results)
    assert len(begun) <= 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("side-by-side")]


def test_no_library_opens_a_pool_of_its_own_inside_and_all_have_theirs_back_behind():
    def pools() -> dict[str, int]:  # of numpy and scipy; torch goes by what it is told, and faiss, which counts by thread, has no work here
        return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info() if pool.get("threading_layer") == "pthreads"}

    threads, before = torch.get_num_threads(), pools()
    torch.set_num_threads(2)
    try:
        assert before, "numpy has a pool"
        inside = list(side_by_side(lambda _: (torch.get_num_threads(), set(pools().values())), range(4), cores=2))
        assert inside == [(1, {1})] * 4
        assert (torch.get_num_threads(), pools()) == (2, before)
    finally:
        torch.set_num_threads(threads)


def test_nothing_to_do_is_no_error():
    assert list(side_by_side(lambda task: task, [])) == []
