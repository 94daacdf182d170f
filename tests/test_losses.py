import math

import pytest
import torch
from torch import Tensor

from recsys.losses import Candidates, SampledSoftmax, log_inclusion
from recsys.settings import Training
from training.fit import precision

ITEMS, DIM = 30, 8


@pytest.fixture
def world():
    """Skewed target frequencies (row 0 never), item vectors, one person's vector and the item they chose."""
    torch.manual_seed(0)
    frequency = torch.cat([torch.zeros(1), 1 / torch.arange(1, ITEMS + 1.0)])
    return frequency / frequency.sum(), torch.randn(ITEMS + 1, DIM), torch.randn(DIM), 3


def sampled(users: Tensor, candidates: Tensor, log_q: Tensor, own: Tensor) -> Tensor:
    """The loss at a scale of 1, with popularity out of play."""
    one, none, share = torch.tensor(1.0), torch.tensor(0.0), torch.zeros(1, len(log_q))
    return SampledSoftmax.apply(users, candidates, one, none, share, torch.zeros_like(own), log_q, own, torch.ones(len(own)))


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
        if positive_corrected:
            loss = torch.nn.functional.cross_entropy((vectors[rows] @ asking)[None] - log_q, own[:1])
        else:
            loss = sampled(asking[None], vectors[rows], log_q, own[:1])
        total += torch.autograd.grad(loss, asking)[0]
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
    # all scores 0: corrected, the others stand at -(-1), -(-2), -(-3), and the own one at 0
    log_q = torch.tensor([-1.0, -2.0, -3.0])
    loss = sampled(torch.zeros(2, 4), torch.zeros(3, 4), log_q, torch.tensor([0, 2]))
    by_hand = [math.log(1 + math.e**2 + math.e**3), math.log(math.e + math.e**2 + 1)]
    assert loss.item() == pytest.approx(sum(by_hand) / 2, rel=1e-6)


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


def question(rows: int = 5, candidates: int = 7, moments: int = 3, dim: int = 4):
    """What the loss takes, in double precision: some rows weigh nothing, some are remembered (moment -1), two want the same item."""
    random = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=random)

    learned = [normal(rows, dim), normal(candidates, dim), torch.tensor(3.0).double(), torch.tensor(0.7).double()]
    share = normal(moments, candidates)
    moment, own = torch.tensor([0, -1, 1, 2, -1]), torch.tensor([2, 2, 0, 6, 1])
    weight = torch.tensor([1.0, 0.5, 0.0, 2.0, 1.0], dtype=torch.float64)
    return [x.requires_grad_() for x in learned], (share, moment, -normal(candidates).abs(), own, weight)


def said_slowly(users, candidates, scale, popularity, share, moment, log_q, own, weight):
    """The loss row by row, candidate by candidate, left to autograd."""
    total = torch.zeros((), dtype=users.dtype)
    for row in range(len(users)):
        scores = []
        for column in range(len(candidates)):
            score = scale * (users[row] @ candidates[column]) + popularity * share[int(moment[row])][column]
            scores.append(score if column == own[row] else score - log_q[column])
        total = total + weight[row] * (torch.logsumexp(torch.stack(scores), 0) - scores[int(own[row])])
    return total / weight.sum()


@pytest.mark.parametrize("cells", [1, 14, 2**20], ids=["a row at once", "two rows", "all"])
def test_the_loss_and_its_gradients_are_those_of_the_rule_said_slowly(cells, monkeypatch):
    monkeypatch.setattr("recsys.losses.CELLS", cells)
    learned, given = question()
    fast, slow = SampledSoftmax.apply(*learned, *given), said_slowly(*learned, *given)
    assert fast.item() == pytest.approx(slow.item(), rel=1e-12)
    for found, expected in zip(torch.autograd.grad(2.5 * fast, learned), torch.autograd.grad(2.5 * slow, learned), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_the_gradients_are_the_slopes_of_the_loss():
    learned, given = question()
    assert torch.autograd.gradcheck(lambda *x: SampledSoftmax.apply(*x, *given), learned)


def test_high_scores_do_not_overflow():
    learned, given = question()
    with torch.no_grad():
        learned[2].mul_(300)
    assert SampledSoftmax.apply(*learned, *given).item() == pytest.approx(said_slowly(*learned, *given).item(), rel=1e-12)
    assert all(torch.isfinite(x).all() for x in torch.autograd.grad(SampledSoftmax.apply(*learned, *given), learned))


def test_a_lower_precision_moves_little_and_least_of_all_where_scores_start():
    random = torch.Generator().manual_seed(1)
    users, candidates = (torch.nn.functional.normalize(torch.randn(n, 64, generator=random), dim=1) for n in (200, 900))
    learned = [x.requires_grad_() for x in (users, candidates, torch.tensor(15.0), torch.tensor(1.0))]
    share = torch.linspace(-14, -3, 900).repeat(2, 1) + torch.tensor([[0.0], [0.123]])
    moment, own = torch.arange(200) % 2, torch.randint(900, (200,), generator=random)
    given = share, moment, -torch.rand(900, generator=random), own, torch.rand(200, generator=random)
    whole, low = SampledSoftmax.apply(*learned, *given), SampledSoftmax.apply(*learned, *given, torch.bfloat16)
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(whole.item(), rel=1e-3)
    for found, expected in zip(torch.autograd.grad(low, learned), torch.autograd.grad(whole, learned), strict=True):
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.01 * expected.norm()
    starts = [torch.zeros_like(users), torch.zeros_like(candidates), *learned[2:]]  # nothing but popularity and correction
    whole, low = SampledSoftmax.apply(*starts, *given), SampledSoftmax.apply(*starts, *given, torch.bfloat16)
    assert low.item() == pytest.approx(whole.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("asked", "able", "found"),
    [
        ("auto", {"avx512_bf16": True}, torch.bfloat16),
        ("auto", {"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ("auto", {"avx2": True}, torch.float32),
        ("float32", {"avx512_bf16": True}, torch.float32),
        ("bfloat16", {}, torch.bfloat16),
    ],
)
def test_the_precision_goes_by_the_processor_unless_it_is_said(asked, able, found, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert precision(Training(precision=asked)) is found


def test_what_is_remembered_is_scored_under_the_last_share():
    learned, (share, moment, *rest) = question()
    last = torch.where(moment == -1, len(share) - 1, moment)
    assert torch.equal(SampledSoftmax.apply(*learned, share, moment, *rest), SampledSoftmax.apply(*learned, share, last, *rest))
    other = torch.where(moment == -1, 0, moment)
    assert not torch.equal(SampledSoftmax.apply(*learned, share, moment, *rest), SampledSoftmax.apply(*learned, share, other, *rest))


def test_weights_say_how_much_a_row_counts():
    (users, *rest), (share, moment, log_q, own, _) = question()

    def loss(rows: list[int], weights: list[float]) -> float:
        users_, weight = users[rows], torch.tensor(weights, dtype=torch.float64)
        return SampledSoftmax.apply(users_, *rest, share, moment[rows], log_q, own[rows], weight).item()

    assert loss([0, 1], [2.0, 0.0]) == pytest.approx(loss([0], [1.0]))
    assert loss([0, 1], [3.0, 1.0]) == pytest.approx(0.75 * loss([0], [1.0]) + 0.25 * loss([1], [1.0]))
    assert loss([0, 1], [0.0, 0.0]) == 0


def test_where_all_weigh_nothing_nothing_moves():
    learned, (*given, weight) = question()
    loss = SampledSoftmax.apply(*learned, *given, torch.zeros_like(weight))
    assert loss.item() == 0
    assert not any(grad.any() for grad in torch.autograd.grad(loss, learned))
