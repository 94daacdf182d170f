"""What an index costs: made from nothing, refreshed where a hundredth of the items changed, and asked; against exact search."""

from time import perf_counter

import faiss
import numpy as np

from benchmarks.measure import Figure, scratch, seconds
from recsys.index import Exam, ItemIndex, K

ITEMS, DIM, CHANGED, CLUSTER = 1_000_000, 64, 0.01, 200

WEIGHT = 0.02
"""Of the log of popularity in a score, beside a cosine: what towers have learned on DIGINETICA (0.29 / 15.4)."""


def run(quick: bool = False) -> list[Figure]:
    """Index a million items in clusters of 200, popularity independent of taste; people are near what they might watch next."""
    items, asked, rng = 20_000 if quick else ITEMS, 200 if quick else 1000, np.random.default_rng(0)
    centres = rng.normal(size=(1 + items // CLUSTER, DIM)).astype(np.float32)
    vectors = unit(centres[rng.integers(0, len(centres), items + 1)] + 0.7 * rng.normal(size=(items + 1, DIM)).astype(np.float32))
    people = unit(vectors[rng.integers(1, items + 1, 2 * asked)] + 0.05 * rng.normal(size=(2 * asked, DIM)).astype(np.float32))
    vectors[0] = 0
    views = np.where(rng.random(items + 1) < 0.2, rng.pareto(1, items + 1), 0)  # few are watched now, and of the others nothing changes
    bias = WEIGHT * np.log((views + 0.3) / (views + 0.3).sum())
    bias[0] = WEIGHT * np.log(0.3 / (views + 0.3).sum())
    later, shown = vectors.copy(), bias.copy()
    which = 1 + rng.choice(items, int(items * CHANGED), replace=False)
    later[which] = unit(vectors[which] + 0.05 * rng.normal(size=(len(which), DIM)).astype(np.float32))
    shown[which] += 0.02

    def make(vectors: np.ndarray, bias: np.ndarray, parent: ItemIndex | None = None) -> ItemIndex:
        return ItemIndex.build(vectors, bias, "towers", 0, 0.99, parent, people[asked:])

    with scratch() as folder:
        began = perf_counter()
        make(vectors, bias).write(folder)
        moments = [perf_counter() - began]
        began = perf_counter()
        make(later, shown, ItemIndex.read(folder, "towers")).write(folder)
        moments.append(perf_counter() - began)
        index = ItemIndex.read(folder, "towers", mapped=True)
        size = sum(path.stat().st_size for path in folder.iterdir())
        faiss.omp_set_num_threads(1)
        exam = Exam.of(later, shown, people[:asked], asked)
        times = [seconds(lambda one=one: index.search(one[None], K)) * 1000 for one in people[:asked]]
        flat = np.column_stack([later, shown]).astype(np.float32)
        exact = [seconds(lambda one=one: flat[:, :-1] @ one) * 1000 for one in people[: asked // 10]]
    what = f"{items:,} x {DIM}"
    recall = exam.recall(index)
    found = f"best {K} of it, recall {recall:.4f} with {index.faiss.nprobe} of {index.faiss.nlist} lists"
    p50, p99 = ((float(np.percentile(times, p)), "ms", float(np.percentile(exact, p))) for p in (50, 99))
    return [
        Figure(f"index refreshed, {CHANGED:.0%} changed: {what}, {size / 1e6:.0f} MB", moments[1], "s", moments[0], "made from nothing"),
        Figure(f"{found}, p50", *p50, "one product with all"),
        Figure(f"{found}, p99", *p99, "the same"),
    ]


def unit(x: np.ndarray) -> np.ndarray:
    """Return rows of length 1."""
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)
