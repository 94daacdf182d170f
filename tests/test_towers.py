import numpy as np
import onnxruntime
import pytest
import torch

from recsys.sessions import N_GAPS
from recsys.settings import Model
from recsys.towers import ENCODERS, Dropout, Towers
from training import export
from training.row_adam import RowAdam

SETTINGS = Model(dim=8, heads=2, dropout=0.2, features=32)
FEATURES = [[], [1, 2], [2, 3], [], [5]]


def towers(encoder: str = "transformer", features=FEATURES, seed: int = 0) -> Towers:
    torch.manual_seed(seed)
    return Towers(SETTINGS.model_copy(update={"encoder": encoder}), features, length=6)


def histories(rows: int = 5, length: int = 6):
    torch.manual_seed(1)
    items = torch.nn.functional.normalize(torch.randn(rows, length, 8), dim=-1)
    kinds, gaps = torch.randint(0, 5, (rows, length)), torch.randint(0, 5, (rows, length))
    return items, kinds, gaps, torch.randint(1, length + 1, (rows,))


def test_all_encoders_are_tested():
    assert sorted(ENCODERS) == ["gru", "mean", "transformer"]


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_a_vector_after_an_event_knows_nothing_of_later_ones(encoder):
    tower = towers(encoder).eval().users
    items, kinds, gaps, _ = histories()
    before = tower(items, kinds, gaps)
    items[:, 4:], kinds[:, 4:] = 0, 0
    torch.testing.assert_close(tower(items, kinds, gaps)[:, :4], before[:, :4])
    assert not torch.allclose(tower(items, kinds, gaps)[:, 4:], before[:, 4:])


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_what_serving_computes_for_the_last_event_is_what_training_computes_there(encoder):
    tower = towers(encoder).eval().users
    items, kinds, gaps, lengths = histories()
    everywhere = tower(items, kinds, gaps)
    torch.testing.assert_close(tower.last(items, kinds, gaps, lengths), everywhere[torch.arange(5), lengths - 1])


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_the_onnx_graph_answers_like_torch_for_any_batch_and_length(encoder, tmp_path):
    tower = towers(encoder).eval().users
    export.user_tower(tower, tmp_path / "first.onnx")
    other = towers(encoder, seed=5).eval().users
    export.user_tower(other, tmp_path / "second.onnx", parent=tmp_path / "first.onnx")
    for made, path in ((tower, "first.onnx"), (other, "second.onnx")):
        session = onnxruntime.InferenceSession(tmp_path / path)
        for rows, length in ((1, 1), (1, 6), (5, 3)):
            items, kinds, gaps, lengths = histories(rows, length)
            given = {"items": items, "kinds": kinds, "gaps": gaps, "lengths": lengths}
            answer = session.run(["user"], {name: value.numpy() for name, value in given.items()})[0]
            np.testing.assert_allclose(answer, made.last(items, kinds, gaps, lengths).detach().numpy(), atol=1e-5)


def test_a_second_graph_that_one_process_exports_is_for_any_length_too(tmp_path):
    for name in ("first", "second"):
        export.user_tower(towers("gru", seed=5).eval().users, tmp_path / f"{name}.onnx")
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_vectors_have_length_one_and_the_unknown_item_has_none():
    vectors = towers().item_vectors()
    np.testing.assert_allclose(np.linalg.norm(vectors[1:], axis=1), 1, atol=1e-6)
    assert not vectors[0].any()


def test_content_alone_places_an_item_whose_own_embedding_says_nothing():
    made = towers()
    with torch.no_grad():
        made.items.ids.weight.zero_()
    vectors, content = made.item_vectors(), made.items.content.weight.detach().numpy()
    expected = (content[1] + content[2]) / np.linalg.norm(content[1] + content[2])
    np.testing.assert_allclose(vectors[1], expected, atol=1e-6)


def test_id_dropout_hides_ids_in_training_only_and_never_of_items_without_content():
    torch.manual_seed(0)
    made = Towers(SETTINGS.model_copy(update={"id_dropout": 0.999}), FEATURES, length=6).train()
    rows = torch.arange(len(FEATURES))
    made.items(rows).sum().backward()
    moved = made.items.ids.weight.grad.coalesce()
    touched = {int(row) for row, grad in zip(moved.indices()[0], moved.values(), strict=True) if grad.abs().sum() > 0}
    assert touched == {0, 3}


def test_a_step_leaves_every_untouched_row_bit_for_bit():
    made = towers()
    optimizer = RowAdam(list(made.tables().values()), lr=0.1)
    before = {name: table.detach().clone() for name, table in made.tables().items()}
    for rows in ([1, 2], [2]):  # the second step must not carry row 1 on by momentum
        optimizer.zero_grad()
        made.items(torch.tensor(rows)).sum().backward()
        after_first = made.items.ids.weight.detach().clone()
        optimizer.step()
    assert torch.equal(made.items.ids.weight[[0, 3, 4]], before["items.ids.weight"][[0, 3, 4]])
    assert torch.equal(made.items.ids.weight[1], after_first[1])
    assert not torch.equal(made.items.ids.weight[2], after_first[2])
    untouched = [bucket for bucket in range(32) if bucket not in (1, 2, 3)]
    assert torch.equal(made.items.content.weight[untouched], before["items.content.weight"][untouched])


@pytest.mark.parametrize("p", [0.1, 0.4, 0.5])
def test_dropout_hides_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    found = Dropout(p).train()(torch.full((200, 50, 30), 2.0))
    share = round(256 * p) / 256
    assert (found == 0).float().mean().item() == pytest.approx(share, abs=0.003)
    assert found.mean().item() == pytest.approx(2.0, abs=0.02)
    assert found.unique().tolist() == pytest.approx([0, 2 / (1 - share)])
    for axis in (0, 1, 2):  # nowhere more than elsewhere: each byte is drawn anew
        assert (found == 0).float().movedim(axis, 0).flatten(1).mean(1).sub(share).abs().max() < 0.05


def test_dropout_lets_through_the_gradients_of_what_it_kept():
    torch.manual_seed(0)
    x = torch.randn(3, 7, 5, requires_grad=True)  # 105 elements: no whole number of words
    found = Dropout(0.5).train()(x)
    found.sum().backward()
    torch.testing.assert_close(x.grad, torch.where(found == 0, 0.0, 2.0))


def test_dropout_does_nothing_at_zero_or_when_it_does_not_train():
    x = torch.randn(3, 5)
    assert Dropout(0.0).train()(x) is x
    assert Dropout(0.5).eval()(x) is x


def test_dropout_follows_the_seed_and_draws_anew_each_time():
    drop, x = Dropout(0.5).train(), torch.ones(100)
    torch.manual_seed(1)
    first, second = drop(x), drop(x)
    torch.manual_seed(1)
    assert torch.equal(drop(x), first)
    assert not torch.equal(first, second)


def test_the_highest_dropout_that_settings_allow_can_be_trained_with():
    found = Dropout(0.999).train()(torch.ones(10_000))
    assert torch.isfinite(found).all()
    assert 0 < (found > 0).sum() < 200


@pytest.mark.parametrize("encoder", sorted(ENCODERS))
def test_a_silence_before_and_a_silence_after_are_two_things(encoder):
    tower = towers(encoder).eval().users
    items, kinds, gaps, _ = histories()
    assert not torch.allclose(tower(items, kinds, gaps), tower(items, kinds, gaps + N_GAPS))
    tower(items, kinds, torch.full_like(gaps, 2 * N_GAPS - 1))  # the longest silence, read from the end, has a row too
    with pytest.raises(IndexError):
        tower(items, kinds, torch.full_like(gaps, 2 * N_GAPS))
