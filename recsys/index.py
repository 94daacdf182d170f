"""Item vectors in FAISS: exact for small catalogues, IVF with fp16 codes above; it knows the towers that made it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import faiss
import numpy as np

from recsys.errors import ReleaseDamaged
from recsys.files import write_atomically

FILE, ABOUT = "items.faiss", "index.json"


@dataclass(frozen=True)
class ItemIndex:
    """Inner-product search over the vectors of rows 1..n; the ids it answers with are vocabulary rows.

    What a score starts from, whoever asks (the item's popularity), is one more dimension that every question meets with 1.
    """

    faiss: faiss.Index
    towers: str
    recall: float

    @classmethod
    def build(
        cls,
        vectors: np.ndarray,
        bias: np.ndarray,
        towers: str,
        exact_below: int,
        min_recall: float,
        parent: "ItemIndex | None" = None,
    ) -> "ItemIndex":
        """Index vectors (n + 1, d) with their bias (n + 1,); row 0 is the unknown item.

        A parent's coarse quantiser is kept while recall@100 stays at `min_recall` or better, else trained anew.
        """
        table = np.column_stack([vectors, bias]).astype(np.float32)
        if len(table) <= exact_below:
            return cls(_exact(table), towers, 1.0)
        if parent is not None and (kept := _refilled(parent.faiss, table)) is not None:
            recall = recall_at_100(kept, table)
            if recall >= min_recall:
                return cls(kept, towers, recall)
        index = _ivf(table)
        return cls(index, towers, _tune(index, table, min_recall))

    def __len__(self) -> int:
        return self.faiss.ntotal

    def search(self, queries: np.ndarray, k: int, exclude: np.ndarray | None = None, biased: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores and rows of the best `k` items, (B, k) each, best first; row -1 where there are fewer.

        queries (B, d) L2-normalised; exclude: rows that may not appear, for every query of the call; without `biased` the
        scores are plain inner products.
        """
        k = max(1, min(k, len(self)))
        queries = _asking(queries, biased)
        if exclude is None or not len(exclude):
            return self.faiss.search(queries, k)
        unwanted = faiss.IDSelectorBatch(exclude.astype(np.int64))  # named, so that it lives as long as the search
        allowed = faiss.IDSelectorNot(unwanted)
        exact, ivf = cast(Any, faiss.SearchParameters), cast(Any, faiss.SearchParametersIVF)
        params = ivf(sel=allowed, nprobe=self.faiss.nprobe) if isinstance(self.faiss, faiss.IndexIVF) else exact(sel=allowed)
        return self.faiss.search(queries, k, params=params)

    def write(self, folder: Path) -> None:
        """Write the index and, beside it, which towers it belongs to."""
        faiss.write_index(self.faiss, str(folder / FILE))
        about = {
            "towers": self.towers,
            "items": len(self),
            "recall@100": round(self.recall, 4),
            "kind": type(self.faiss).__name__,
        }
        write_atomically(folder / ABOUT, json.dumps(about))

    @classmethod
    def read(cls, folder: Path, towers: str) -> "ItemIndex":
        """Read an index that `towers` made; an index of other towers is refused with ReleaseDamaged."""
        try:
            about = json.loads((folder / ABOUT).read_text())
            made_by, recall = about["towers"], about["recall@100"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReleaseDamaged(f"{folder / ABOUT} cannot be read ({error}); roll back with: recsys rollback") from None
        if made_by != towers:
            raise ReleaseDamaged(
                f"{folder / FILE} was built by towers {made_by[:12]}, not by {towers[:12]}; roll back with: recsys rollback"
            )
        return cls(faiss.read_index(str(folder / FILE)), towers, recall)


def recall_at_100(index: faiss.Index, vectors: np.ndarray, queries: int = 500) -> float:
    """Return the share of the exact nearest 100 that the index finds, asked by a fixed sample of its own vectors."""
    sample = vectors[1 + np.random.default_rng(0).choice(len(vectors) - 1, min(queries, len(vectors) - 1), replace=False)]
    sample = _asking(sample[:, :-1])
    k = min(100, len(vectors) - 1)
    truth = _exact(vectors).search(sample, k)[1]
    found = index.search(sample, k)[1]
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(truth, found, strict=True)]))


def _asking(queries: np.ndarray, biased: bool = True) -> np.ndarray:
    return np.column_stack([queries, np.full(len(queries), float(biased))]).astype(np.float32)


def _rows(vectors: np.ndarray) -> np.ndarray:
    return np.arange(1, len(vectors), dtype=np.int64)


def _exact(vectors: np.ndarray) -> faiss.Index:
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(vectors[1:], _rows(vectors))
    return index


def _ivf(vectors: np.ndarray) -> Any:
    lists = max(1, int(2 * np.sqrt(len(vectors))))
    index: Any = faiss.index_factory(vectors.shape[1], f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.spherical = 0, True
    index.train(vectors[1:])
    index.add_with_ids(vectors[1:], _rows(vectors))
    return index


def _tune(index: Any, vectors: np.ndarray, min_recall: float) -> float:
    """Probe as few lists as `min_recall` allows."""
    while (recall := recall_at_100(index, vectors)) < min_recall and index.nprobe < index.nlist:
        index.nprobe = min(index.nlist, index.nprobe * 2)
    return recall


def _refilled(parent: Any, vectors: np.ndarray) -> Any:
    if not isinstance(parent, faiss.IndexIVF) or parent.d != vectors.shape[1]:
        return None
    index = faiss.clone_index(parent)
    index.reset()
    index.add_with_ids(vectors[1:], _rows(vectors))
    return index
