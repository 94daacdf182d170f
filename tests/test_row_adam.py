"""Adam by rows does to the rows that have a gradient what dense Adam without momentum does, and to the others nothing."""

import pytest
import torch
from torch import Tensor, nn

from training.row_adam import RowAdam

ROWS, DIM = 6, 3


def steps(touched: list[list[int]], seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """The rows that each step touches, and their gradients."""
    random = torch.Generator().manual_seed(seed)
    return [(torch.tensor(rows, dtype=torch.int64), torch.randn(len(rows), DIM, generator=random)) for rows in touched]


def table() -> nn.Parameter:
    return nn.Parameter(torch.arange(ROWS * DIM, dtype=torch.float32).view(ROWS, DIM) / 10)


def run(optimizer: torch.optim.Optimizer, weight: nn.Parameter, given: list[tuple[Tensor, Tensor]], sparse: bool = True) -> Tensor:
    for rows, slope in given:
        grad = torch.sparse_coo_tensor(rows[None], slope, weight.shape, check_invariants=True)
        weight.grad = grad if sparse else grad.to_dense()
        optimizer.step()
    return weight.detach()


def by_rows(touched: list[list[int]], lr: float = 0.1) -> Tensor:
    weight = table()
    return run(RowAdam([weight], lr=lr), weight, steps(touched))


def dense(touched: list[list[int]], lr: float = 0.1) -> Tensor:
    weight = table()
    return run(torch.optim.Adam([weight], lr=lr, betas=(0.0, 0.999)), weight, steps(touched), sparse=False)


EVERY = [list(range(ROWS))] * 20
SOME = [[0, 1], [1], [1, 2], [0, 4], [1], [4, 2, 1], [1], [1], [0], [1, 2, 3]]


@pytest.mark.parametrize("touched", [EVERY, SOME, SOME * 30], ids=["every row", "some rows", "some rows, for long"])
def test_it_is_dense_adam_without_momentum_where_no_gradient_is_a_gradient_of_zero(touched):
    torch.testing.assert_close(by_rows(touched), dense(touched), rtol=1e-4, atol=1e-5)


def test_a_first_step_is_as_long_as_the_learning_rate_whatever_the_gradient():
    way = (by_rows([[1, 3]]) - table().detach()).abs()
    torch.testing.assert_close(way[[1, 3]], torch.full((2, DIM), 0.1))


def test_a_second_step_is_the_one_worked_out_by_hand():
    weight = nn.Parameter(torch.zeros(2, 1))
    given = [
        (torch.tensor([0]), torch.tensor([[3.0]])),
        (torch.tensor([1]), torch.tensor([[1.0]])),
        (torch.tensor([0]), torch.tensor([[4.0]])),
    ]
    found = run(RowAdam([weight], lr=1.0, fading=0.5), weight, given)
    # row 0: 3 / 3, then 0.5 * 9 fades twice to 4.5 / 4, 0.5 * 16 more, of 1 - 1/8; row 1: 0.5 * 1 of 1 - 1/4
    square = (4.5 / 4 + 8) / (7 / 8)
    assert found[:, 0].tolist() == pytest.approx([-1 - 4 / square**0.5, -1 / (0.5 / 0.75) ** 0.5])


def test_a_row_without_a_gradient_stays_bit_for_bit():
    weight = table()
    optimizer = RowAdam([weight], lr=0.1)
    for one in steps(SOME):
        before = weight.detach().clone()
        now = run(optimizer, weight, [one])
        idle = [row for row in range(ROWS) if row not in one[0].tolist()]
        assert torch.equal(now[idle], before[idle])
        assert not (now[one[0]] == before[one[0]]).any()
    assert torch.equal(weight[5], table()[5])


def test_a_row_that_is_rarely_met_moves_more_than_under_sparse_adam():
    """Always the same gradient of 1. SparseAdam's mean square does not fade between two meetings: each step ends as long as any other's."""
    one, weight = torch.ones(1, DIM), (table(), table())
    given = [(torch.tensor([row]), one) for _ in range(20) for row in [*[0] * 99, 1]]
    ours = run(RowAdam([weight[0]], lr=0.01, fading=0.9), weight[0], given) - table().detach()
    theirs = run(torch.optim.SparseAdam([weight[1]], lr=0.01, betas=(0.0, 0.9)), weight[1], given) - table().detach()
    torch.testing.assert_close(ours[1], torch.full((DIM,), -20 * 0.01 / 0.1**0.5), rtol=1e-3, atol=0)  # a tenth of the square is there
    assert ours[1].norm() > 1.5 * theirs[1].norm(), (ours[1], theirs[1])
    torch.testing.assert_close(ours[0], theirs[0], rtol=0.01, atol=0)  # who is met in nearly each step moves alike


def test_a_row_that_comes_twice_in_one_gradient_counts_with_the_sum():
    whole, parts = table(), table()
    run(RowAdam([whole], lr=0.1), whole, [(torch.tensor([2]), torch.full((1, DIM), 3.0))] * 2)
    run(RowAdam([parts], lr=0.1), parts, [(torch.tensor([2, 2]), torch.tensor([[1.0] * DIM, [2.0] * DIM]))] * 2)
    assert torch.equal(whole, parts)


def test_a_table_without_a_gradient_is_left_out_and_the_rate_can_be_changed_on_the_way():
    one, other = table(), table()
    optimizer = RowAdam([one, other], lr=0.1)
    run(optimizer, one, steps([[0]]))
    assert torch.equal(other, table())
    optimizer.param_groups[0]["lr"] = 0.0
    before = one.detach().clone()
    assert torch.equal(run(optimizer, one, steps([[0, 1]])), before)
