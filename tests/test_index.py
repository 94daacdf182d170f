"""The index answers as brute force would, hides what it must, and belongs to the towers that made it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from recsys import index as indexes
from recsys.errors import ReleaseDamaged
from recsys.index import FILE, Exam, ItemIndex

DIM, EXACT_BELOW, MIN_RECALL = 16, 500, 0.9


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def world(n: int, seed: int = 0, clusters: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors in clusters, row 0 zeros, and a bias."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(clusters, DIM))
    vectors = np.zeros((n + 1, DIM), np.float32)
    vectors[1:] = unit(centre[rng.integers(0, clusters, n)] + 0.3 * rng.normal(size=(n, DIM)))
    return vectors, rng.normal(scale=0.3, size=n + 1)


def built(n: int, parent: ItemIndex | None = None, seed: int = 0, towers: str = "towers", min_recall: float = MIN_RECALL) -> ItemIndex:
    return ItemIndex.build(*world(n, seed), towers, EXACT_BELOW, min_recall, parent)


def questions(n: int = 5) -> np.ndarray:
    return unit(np.random.default_rng(9).normal(size=(n, DIM)))


def test_exact_search_equals_brute_force_with_bias() -> None:
    vectors, bias = world(300)
    scores, rows = built(300).search(questions(), 10)
    brute = questions() @ vectors.T + bias
    brute[:, 0] = -np.inf
    assert rows.tolist() == np.argsort(-brute, axis=1)[:, :10].tolist()
    np.testing.assert_allclose(scores, -np.sort(-brute, axis=1)[:, :10], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [300, 3000])
def test_without_bias_scores_are_plain_inner_products(n: int) -> None:
    vectors, _ = world(n)
    scores, rows = built(n).search(vectors[1:4], 5, biased=False)
    np.testing.assert_allclose(scores, np.einsum("qd,qkd->qk", vectors[1:4], vectors[rows]), atol=2e-3)  # IVF keeps fp16
    assert rows[:, 0].tolist() == [1, 2, 3]
    np.testing.assert_allclose(scores[:, 0], 1, atol=2e-3)


@pytest.mark.parametrize("n", [300, 3000])
def test_the_unknown_row_never_comes_and_no_row_twice(n: int) -> None:
    scores, rows = built(n).search(questions(), 200)
    assert (rows > 0).all()
    assert all(len(set(best)) == 200 for best in rows.tolist())
    assert (np.diff(scores, axis=1) <= 0).all()


def test_more_than_there_is_gives_all_there_is() -> None:
    index = built(7)
    assert len(index) == 7
    assert sorted(index.search(questions(1), 50)[1][0].tolist()) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(("n", "kind"), [(EXACT_BELOW - 1, faiss.IndexIDMap2), (EXACT_BELOW, faiss.IndexIVF)])
def test_catalogues_below_the_limit_are_searched_exactly(n: int, kind: type) -> None:
    index = built(n)
    assert isinstance(index.faiss, kind)
    assert index.recall >= (1.0 if kind is faiss.IndexIDMap2 else MIN_RECALL)


@pytest.mark.parametrize("min_recall", [0.9, 0.99])
def test_ivf_finds_as_much_as_was_promised(min_recall: float) -> None:
    vectors, bias = world(3000)
    index = built(3000, min_recall=min_recall)
    brute = vectors[1:201] @ vectors[1:].T + bias[1:]
    truth = 1 + np.argsort(-brute, axis=1)[:, :100]
    found = index.search(vectors[1:201], 100)[1]
    recall = np.mean([len(np.intersect1d(a, b)) / 100 for a, b in zip(truth, found, strict=True)])
    assert index.recall >= min_recall
    assert recall >= min_recall - 0.03  # other questions than it was tuned on
    assert index.recall == Exam.of(vectors, bias).recall(index)


def test_recall_is_bought_with_as_few_lists_as_possible() -> None:
    cheap, dear = ivf(built(3000, min_recall=0.3)), ivf(built(3000, min_recall=0.99))
    assert cheap.nprobe < dear.nprobe < dear.nlist


def ivf(index: ItemIndex) -> Any:
    assert isinstance(index.faiss, faiss.IndexIVF)
    return index.faiss


def centroids(index: ItemIndex) -> np.ndarray:
    return ivf(index).quantizer.reconstruct_n(0, ivf(index).nlist)


def test_a_parents_quantiser_is_kept_while_recall_holds() -> None:
    parent = built(3000)
    before = len(parent)
    vectors, bias = world(3000)
    more = np.concatenate([vectors, vectors[1:101]])  # 100 new items like the old ones
    child = ItemIndex.build(more, np.append(bias, bias[1:101]), "next", EXACT_BELOW, MIN_RECALL, parent)
    assert np.array_equal(centroids(child), centroids(parent))
    assert child.recall >= MIN_RECALL
    assert (len(child), len(parent)) == (3100, before)
    assert child.towers == "next"


def contents(index: ItemIndex) -> list[list[int]]:
    lists = ivf(index).invlists
    return [sorted(faiss.rev_swig_ptr(lists.get_ids(n), lists.list_size(n)).tolist()) for n in range(ivf(index).nlist)]


def test_a_refresh_writes_only_what_changed_and_ends_as_a_whole_one_would(monkeypatch: pytest.MonkeyPatch) -> None:
    parent, (vectors, bias) = built(3000), world(3000)
    later, shown = np.concatenate([vectors, vectors[5:8]]), np.append(bias, bias[5:8])
    later[[10, 20]], shown[30] = vectors[[11, 21]], bias[30] + 0.5
    shown += 0.1  # what all have in common changes no order
    written: list[int] = []
    add = faiss.IndexIVF.add_with_ids
    monkeypatch.setattr(faiss.IndexIVF, "add_with_ids", lambda self, x, ids: (written.extend(ids.tolist()), add(self, x, ids)))
    child = ItemIndex.build(later, shown, "next", EXACT_BELOW, 0.5, parent)
    assert sorted(written) == [10, 20, 30, 3001, 3002, 3003]

    whole: Any = faiss.clone_index(parent.faiss)
    whole.reset()
    add(whole, np.hstack([later, (shown - shown[0])[:, None], np.zeros((3004, 7))])[1:].astype(np.float32), np.arange(1, 3004))
    assert contents(child) == contents(replace(child, faiss=whole))
    for one, other in zip(child.search(questions(), 50), replace(child, faiss=whole).search(questions(), 50), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_refresh_drops_what_is_gone() -> None:
    vectors, bias = world(3000)
    child = ItemIndex.build(vectors[:2901], bias[:2901], "next", EXACT_BELOW, 0.5, built(3000))
    assert len(child) == 2900
    assert child.search(questions(), 2900)[1].max() == 2900


def test_lists_are_made_anew_when_the_catalogue_has_outgrown_them() -> None:
    small, large = built(600), built(3000, parent=built(600), min_recall=0.1)
    assert ivf(large).nlist > 2 * ivf(small).nlist


@pytest.mark.parametrize("taste", [0, 29])
def test_what_is_popular_is_found_wherever_its_taste_lies(taste: int) -> None:
    rng, n = np.random.default_rng(3), 5000
    centre = unit(rng.normal(size=(30, DIM)))
    cluster = np.arange(n + 1) % 30
    vectors = unit(centre[cluster] + 0.1 * rng.normal(size=(n + 1, DIM)))
    vectors[0] = 0
    bias = np.where(rng.random(n + 1) < 0.05, 3.0, 0.0)  # more than any taste
    bias[0] = 0
    index = ItemIndex.build(vectors, bias, "towers", EXACT_BELOW, 0.99)
    assert ivf(index).nprobe < ivf(index).nlist / 4
    rows = index.search(centre[[taste]], 100)[1][0]
    assert (bias[rows] == 3).all()
    assert not centroids(index)[:, DIM:].any()  # lists are of like taste, however popular what is in them
    near = index.search(centre[[taste]], 20, biased=False)[1][0]
    assert (cluster[near] == taste).all()


def test_recall_is_measured_by_who_asks() -> None:
    vectors, bias = world(3000)
    between = unit(vectors[1:301] + vectors[301:601])
    asked = ItemIndex.build(vectors, bias, "towers", EXACT_BELOW, 0.9, askers=between)
    assert Exam.of(vectors, bias, between).recall(asked) == asked.recall >= 0.9
    assert asked.recall != Exam.of(vectors, bias).recall(asked)


@pytest.mark.parametrize("block", [7, 100, 10_000])
def test_the_truth_that_recall_is_measured_by_is_brute_force(block: int) -> None:
    vectors, bias = world(300)
    brute = questions() @ vectors[1:].T + bias[1:]
    found = indexes._best(questions(), vectors, bias.astype(np.float32), 20, block)
    assert [set(rows) for rows in found.tolist()] == [set(rows) for rows in (1 + np.argsort(-brute, axis=1)[:, :20]).tolist()]


def test_an_index_in_its_file_answers_like_one_in_memory(tmp_path: Path) -> None:
    built(3000).write(tmp_path)
    mapped, read = ItemIndex.read(tmp_path, "towers", mapped=True), ItemIndex.read(tmp_path, "towers")
    for one, other in zip(mapped.search(questions(), 50), read.search(questions(), 50), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_quantiser_that_no_longer_fits_is_trained_anew() -> None:
    parent = built(3000, min_recall=0.5)
    other = built(3000, seed=1, parent=parent, min_recall=0.95)
    assert not np.array_equal(centroids(other), centroids(parent))
    assert other.recall >= 0.95


def test_an_exact_parent_or_one_of_another_length_gives_no_quantiser() -> None:
    assert built(3000, parent=built(300)).recall >= MIN_RECALL
    wide = ItemIndex.build(np.eye(3001, DIM + 4, dtype=np.float32), np.zeros(3001), "wide", EXACT_BELOW, 0.5)
    assert built(3000, parent=wide).faiss.d == DIM + 8


@pytest.mark.parametrize("n", [300, 3000])
def test_what_is_written_is_what_is_read(tmp_path: Path, n: int) -> None:
    index = built(n)
    index.write(tmp_path)
    again = ItemIndex.read(tmp_path, "towers")
    assert [x.tolist() for x in again.search(questions(), 9)] == [x.tolist() for x in index.search(questions(), 9)]
    about = json.loads((tmp_path / "index.json").read_text())
    assert (about["towers"], about["items"], about["recall@100"]) == ("towers", n, round(index.recall, 4))


def test_an_index_of_other_towers_is_refused(tmp_path: Path) -> None:
    built(50, towers="a" * 64).write(tmp_path)
    with pytest.raises(ReleaseDamaged, match=rf"{FILE} was built by towers a{{12}}, not by b{{12}}; roll back with: recsys rollback"):
        ItemIndex.read(tmp_path, "b" * 64)


def test_the_same_vectors_give_the_same_index(tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        built(3000).write(tmp_path / name)
        written.append((tmp_path / name / FILE).read_bytes())
    assert written[0] == written[1]
