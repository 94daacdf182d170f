import math

import pytest
import torch
from torch import Tensor

from recsys.losses import Candidates, correct, log_inclusion, softmax_loss

ITEMS, DIM = 30, 8


@pytest.fixture
def world():
    """Skewed target frequencies (row 0 never), item vectors, one person's vector and the item they chose."""
    torch.manual_seed(0)
    frequency = torch.cat([torch.zeros(1), 1 / torch.arange(1, ITEMS + 1.0)])
    return frequency / frequency.sum(), torch.randn(ITEMS + 1, DIM), torch.randn(DIM), 3


def full_gradient(vectors: Tensor, person: Tensor, target: int) -> Tensor:
    person = person.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy((vectors[1:] @ person)[None], torch.tensor([target - 1]))
    return torch.autograd.grad(loss, person)[0]


def sampled_gradient(world, in_batch: int, uniform: int, draws: int, positive_corrected: bool = False) -> Tensor:
    """The mean gradient over many draws of the candidates: `in_batch` other people's targets and `uniform` items."""
    frequency, vectors, person, target = world
    candidates = Candidates(1e6 * frequency, uniform, full_below=0, seed=1)
    candidates.full = False  # more draws than items must converge too
    random = torch.Generator().manual_seed(2)
    total = torch.zeros(DIM)
    for _ in range(draws):
        others = torch.multinomial(frequency, in_batch, replacement=True, generator=random) if in_batch else torch.zeros(0).long()
        rows, log_q, own = candidates.draw(torch.cat([torch.tensor([target]), others]))
        if not in_batch:  # then only the uniform draws bring the others in
            log_q = log_inclusion(torch.zeros(len(rows)), 1, uniform, ITEMS)
        asking = person.clone().requires_grad_()
        scores = (vectors[rows] @ asking)[None]
        scores = scores - log_q if positive_corrected else correct(scores, log_q, own[:1])
        total += torch.autograd.grad(softmax_loss(scores, own[:1], torch.ones(1)), asking)[0]
    return total / draws


def error(world, *arguments, **options) -> float:
    exact = full_gradient(*world[1:])
    return float((sampled_gradient(world, *arguments, **options) - exact).norm() / exact.norm())


@pytest.mark.parametrize(("in_batch", "uniform"), [(1, 0), (0, 1), (1, 1)], ids=["in-batch", "uniform", "mixed"])
def test_sampled_softmax_converges_to_the_full_softmax_gradient(world, in_batch, uniform):
    errors = [error(world, in_batch * n, uniform * n, draws=400) for n in (4, 40, 400)]
    assert errors[0] > errors[1] > errors[2], errors
    assert errors[2] < 0.02, errors


def test_correcting_a_rows_own_positive_as_well_is_biased(world):
    frequency, vectors, person, _ = world
    loved = int((vectors[1:] @ person).argmax()) + 1
    frequency[[loved, ITEMS]] = frequency[[ITEMS, loved]]  # what this person loves is what the others hardly watch
    rare = (frequency, vectors, person, loved)
    right, wrong = error(rare, 20, 0, draws=400), error(rare, 20, 0, draws=400, positive_corrected=True)
    assert wrong > 3 * right, (right, wrong)


def test_log_inclusion_is_that_of_at_least_one_draw():
    found = log_inclusion(torch.tensor([0.5, 0.0]), draws=2, uniform=1, catalogue=4)
    # missed by two draws at 1/2 and one uniform draw over four: 1 - 1/4 * 3/4; and: 1 - 3/4
    assert found.tolist() == pytest.approx([math.log(1 - 0.25 * 0.75), math.log(0.25)], rel=1e-5)


def test_correction_leaves_the_own_positive_alone():
    scores = correct(torch.zeros(2, 3), torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([0, 2]))
    assert scores.tolist() == [[0.0, 2.0, 3.0], [1.0, 2.0, 0.0]]


def test_a_target_met_twice_is_one_candidate():
    candidates = Candidates(torch.ones(100), uniform=5, full_below=0, seed=0)
    rows, _, own = candidates.draw(torch.tensor([7, 9, 7]))
    assert len(rows.unique()) == len(rows)
    assert rows[own].tolist() == [7, 9, 7]


def test_a_small_catalogue_is_compared_whole():
    rows, log_q, own = Candidates(torch.ones(6), uniform=5, full_below=0, seed=0).draw(torch.tensor([2, 5]))
    assert rows.tolist() == [1, 2, 3, 4, 5]
    assert log_q.tolist() == [0] * 5
    assert rows[own].tolist() == [2, 5]


def test_weights_say_how_much_a_row_counts():
    scores, own = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 0])
    alone = softmax_loss(scores[:1], own[:1], torch.ones(1))
    assert softmax_loss(scores, own, torch.tensor([2.0, 0.0])) == pytest.approx(float(alone))
